"""A wait ends when what is waited for is so, says why, and never costs the job anything."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from support import PYTHON, ended, record_of, wait_until

from tmuxjobs import Jobs
from tmuxjobs.answers import Ran, Waited
from tmuxjobs.cli.app import WAIT_OVER
from tmuxjobs.errors import InvalidInput, JobNotFound
from tmuxjobs.server.tools import build_server
from tmuxjobs.system import watch

LISTENER = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
SERVE = f"{PYTHON} -m http.server --bind 127.0.0.1 "


def go(tmp_path: Path, name: str = "go") -> Path:
    """A FIFO for `read x < GO`: a command that is held until the test says `release`."""
    path = tmp_path / name
    os.mkfifo(path)
    return path


def release(path: Path) -> None:
    path.write_text("go\n")


def watched(jobs: Jobs, job_id: str) -> bool:
    """Whether someone in this process waits for the job."""
    watcher = watch._shared[1]
    return watcher is not None and jobs.host.store.folder(job_id) in watcher._folders


def waiting(jobs: Jobs, job_id: str | list[str], **options: Any) -> "Future[Waited]":
    """A wait that has begun in a thread of its own."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(jobs.wait, job_id, **options)
    pool.shutdown(wait=False)
    wait_until(lambda: watched(jobs, job_id if isinstance(job_id, str) else job_id[-1]))
    return future


def test_end_is_told_with_code_and_output(jobs: Jobs, tmp_path: Path) -> None:
    gate = go(tmp_path)
    job_id = jobs.execute(f"read x < {gate}; echo bye; exit 3").job_id
    future = waiting(jobs, job_id)
    release(gate)
    answer = future.result(30)
    assert (answer.reason, answer.status, answer.exit_code, answer.stdout) == ("exit", "failed", 3, "bye\n")
    assert answer.note == "exit code 3"


def test_job_that_has_ended_answers_at_once(jobs: Jobs) -> None:
    job_id = jobs.execute("echo done").job_id
    ended(jobs, job_id)
    answer = jobs.wait(job_id, timeout=0)
    assert (answer.reason, answer.exit_code, answer.stdout) == ("exit", 0, "done\n")


def test_bound_is_told_and_the_wait_goes_on_with_its_cursor(jobs: Jobs, tmp_path: Path) -> None:
    gate = go(tmp_path)
    job_id = jobs.execute(f"echo one; read x < {gate}; echo two").job_id
    wait_until(lambda: jobs.output(job_id).stdout)
    first = jobs.wait(job_id, timeout=0.2)
    assert (first.reason, first.status, first.stdout) == ("timeout", "running", "one\n")
    assert "timed out after 0.2 s" in first.note
    assert f"cursor={first.cursor}" in first.note
    future = waiting(jobs, job_id, cursor=first.cursor)
    release(gate)
    assert (future.result(30).reason, future.result().stdout) == ("exit", "two\n")


def test_pattern_in_what_comes_ends_the_wait(jobs: Jobs, tmp_path: Path) -> None:
    gate = go(tmp_path)
    job_id = jobs.execute(f"read x < {gate}; echo listening on 8000; sleep 1000").job_id
    future = waiting(jobs, job_id, pattern=r"listening on \d+")
    release(gate)
    answer = future.result(30)
    assert (answer.reason, answer.status, answer.note) == ("pattern", "running", "line 1: listening on 8000")


def test_pattern_in_earlier_output_counts_only_when_asked(jobs: Jobs) -> None:
    job_id = jobs.execute("echo ready; sleep 1000").job_id
    wait_until(lambda: jobs.output(job_id).stdout)
    answer = jobs.wait(job_id, pattern="ready", timeout=0.1)
    assert answer.reason == "timeout"
    assert "stands in earlier output, line 1: cursor=0 counts that too" in answer.note
    assert jobs.wait(job_id, pattern="ready", cursor=0, timeout=30).reason == "pattern"


def test_pattern_is_found_though_it_comes_in_two_writes(jobs: Jobs, tmp_path: Path) -> None:
    gate = go(tmp_path)
    job_id = jobs.execute(f"printf rea; read x < {gate}; printf dy; sleep 1000").job_id
    wait_until(lambda: jobs.output(job_id).stdout)
    future = waiting(jobs, job_id, pattern="ready", cursor=0)
    release(gate)
    assert future.result(30).reason == "pattern"


def test_literal_pattern_is_no_regular_expression(jobs: Jobs) -> None:
    job_id = jobs.execute("echo abc; echo 'a.c'; sleep 1000").job_id
    answer = jobs.wait(job_id, pattern="a.c", literal=True, cursor=0, timeout=30)
    assert (answer.reason, answer.note) == ("pattern", "line 2: a.c")


def test_pattern_that_means_failure_ends_the_wait_with_that_verdict(jobs: Jobs) -> None:
    job_id = jobs.execute("echo compiling; echo error: no such module; echo ready; sleep 1000").job_id
    answer = jobs.wait(job_id, pattern="ready", fail_pattern="error", cursor=0, timeout=30)
    assert (answer.reason, answer.note) == ("fail_pattern", "line 2: error: no such module")


HIDDEN = {
    "far from the end": ("seq 5000; echo ready now; seq 5000", "4999\n5000\nready now\n1\n2\n"),
    "in a line that is longer than the answer": ("head -c 9000 /dev/zero | tr '\\0' x; echo ready now", "xready now\n"),
    "in a line that was drawn anew": (r"printf 'ready now\rgone       \n'; seq 5000", "ready now\n"),
}


@pytest.mark.parametrize("cursor", [None, 0])
@pytest.mark.parametrize("place", HIDDEN)
def test_match_is_shown_with_what_is_around_it(jobs: Jobs, tmp_path: Path, place: str, cursor: int | None) -> None:
    printed, shown = HIDDEN[place]
    gate = go(tmp_path)
    job_id = jobs.execute(f"read x < {gate}; {printed}; echo last; exec sleep 1000").job_id
    future = waiting(jobs, job_id, pattern="ready", cursor=cursor, max_bytes=800)
    release(gate)
    first = future.result(30)
    wait_until(lambda: jobs.tail(job_id, lines=1).stdout, lambda line: line == "last\n")
    later = jobs.wait(job_id, pattern="ready", cursor=0, max_bytes=800)
    for answer, part in ((first, "ready now"), (later, shown)):  # at first what follows may not be there yet
        assert answer.reason == "pattern"
        assert part in answer.stdout
        assert len(answer.stdout) <= 800
    assert later.stdout.endswith("last\n")
    assert later.cursor == jobs.output(job_id).cursor


def test_match_in_a_separate_stderr_is_shown_there(jobs: Jobs) -> None:
    command = "(seq 5000; echo ready; seq 5000) >&2; echo last; exec sleep 1000"
    job_id = jobs.execute(command, separate_stderr=True).job_id
    wait_until(lambda: jobs.output(job_id).stdout)
    answer = jobs.wait(job_id, pattern="ready", cursor=0, max_bytes=800)
    assert "5000\nready\n1\n" in answer.stderr
    assert answer.stdout == "last\n"


def test_job_that_ends_before_its_pattern_says_so(jobs: Jobs) -> None:
    job_id = jobs.execute("echo broken; exit 2").job_id
    answer = jobs.wait(job_id, pattern="ready", cursor=0, timeout=30)
    assert (answer.reason, answer.exit_code) == ("exit", 2)
    assert answer.note == "the job ended first: exit code 2"


def test_pattern_in_the_last_words_wins_over_the_end(jobs: Jobs) -> None:
    job_id = jobs.execute("echo ready").job_id
    ended(jobs, job_id)
    assert jobs.wait(job_id, pattern="ready", cursor=0).reason == "pattern"


def test_pattern_in_a_separate_stderr_counts(jobs: Jobs) -> None:
    job_id = jobs.execute("echo ready >&2; sleep 1000", separate_stderr=True).job_id
    answer = jobs.wait(job_id, pattern="ready", cursor=0, timeout=30)
    assert (answer.reason, answer.stderr) == ("pattern", "ready\n")


@pytest.mark.parametrize("shell", ["bash --norc --noprofile -i", "sh -i"])
def test_echo_of_what_was_typed_is_no_output(jobs: Jobs, tmp_path: Path, shell: str) -> None:
    gate = go(tmp_path)
    job_id = jobs.execute(shell).job_id
    before = jobs.wait(job_id, until="input", timeout=40).cursor
    line = f"read x < {gate}; echo now ready"
    jobs.interact(job_id, line, wait=0)
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: line in text)
    assert jobs.wait(job_id, pattern="ready", cursor=before, timeout=0.2).reason == "timeout"
    future = waiting(jobs, job_id, pattern="ready", cursor=before)
    release(gate)
    assert future.result(40).note.endswith(": now ready")


def test_program_that_repeats_what_was_typed_is_heard(jobs: Jobs) -> None:
    job_id = jobs.execute("cat; sleep 1000").job_id
    jobs.interact(job_id, "ready", wait=0)
    answer = jobs.wait(job_id, pattern="ready", cursor=0, timeout=40)
    assert (answer.reason, answer.note) == ("pattern", "line 2: ready")


@pytest.mark.parametrize(("days", "idle", "reason"), [(1, 0.3, "idle"), (-1, 20, "timeout")])
def test_silence_is_not_read_off_a_wall_clock_that_jumped(jobs: Jobs, days: int, idle: float, reason: str) -> None:
    """The clock's jump is the other side of a log that was written so long ago, or is yet to be written."""
    job_id = jobs.execute("echo said; sleep 1000").job_id
    wait_until(lambda: jobs.output(job_id).stdout)
    at = time.time() + days * 86400
    os.utime(jobs.host.look(job_id).log, (at, at))
    assert jobs.wait(job_id, idle=idle, timeout=2).reason == reason


def test_idle_is_silence_of_that_length(jobs: Jobs) -> None:
    job_id = jobs.execute("for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done; sleep 1000").job_id
    answer = jobs.wait(job_id, idle=0.8, timeout=30)
    assert (answer.reason, answer.stdout) == ("idle", "1\n2\n3\n4\n5\n6\n")


def test_waiting_for_input_is_told_with_the_prompt(jobs: Jobs, tmp_path: Path) -> None:
    gate = go(tmp_path)
    job_id = jobs.execute(f"read x < {gate}; read -p 'Overwrite? ' answer").job_id
    future = waiting(jobs, job_id, until="input")
    release(gate)
    answer = future.result(30)
    assert (answer.reason, answer.status, answer.prompt) == ("input", "running", "Overwrite? ")
    assert "it waits for input: 'Overwrite? '" in answer.text()


def test_wait_for_the_end_does_not_sleep_over_a_prompt(jobs: Jobs) -> None:
    job_id = jobs.execute("read -s -p 'Password: ' answer").job_id
    answer = jobs.wait(job_id, timeout=40)
    assert (answer.reason, answer.waits_for, answer.prompt) == ("input", "password", "Password: ")
    assert "ask the person to type it there: tmux" in answer.text()


def test_port_of_the_jobs_own_tree_ends_the_wait(jobs: Jobs, tmp_path: Path) -> None:
    gate = go(tmp_path)
    job_id = jobs.execute(f"read x < {gate}; (setsid {SERVE} 0) & wait").job_id
    future = waiting(jobs, job_id, until="port")
    release(gate)
    answer = future.result(30)
    assert answer.reason == "port"
    assert "listens on port" in answer.note


def test_port_of_another_program_does_not_end_the_wait(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    with subprocess.Popen(
        [sys.executable, "-c", LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        assert jobs.wait(job_id, port=port, timeout=0.3).reason == "timeout"
        assert jobs.wait(job_id, until="port", timeout=0.3).reason == "timeout"
        other.communicate("\n")


def test_url_that_answers_ends_the_wait(jobs: Jobs) -> None:
    job_id = jobs.execute(f"{SERVE} 0").job_id
    port = jobs.wait(job_id, until="port", timeout=40).note.split()[-1]
    answer = jobs.wait(job_id, url=f"http://127.0.0.1:{port}/nothing", timeout=40)
    assert (answer.reason, answer.note) == ("url", f"http://127.0.0.1:{port}/nothing answers 404")


def test_any_of_several_is_the_one_that_ended(jobs: Jobs) -> None:
    slow, quick = (jobs.execute(command).job_id for command in ("sleep 1000", "exit 4"))
    answer = jobs.wait([slow, quick], timeout=40)
    assert (answer.job_id, answer.reason, answer.exit_code) == (quick, "exit", 4)
    assert [(one.job_id, one.reason) for one in answer.jobs] == [(slow, None), (quick, "exit")]
    assert f"{slow}: running, still waited for" in answer.text()


def test_all_of_several_waits_for_the_last(jobs: Jobs, tmp_path: Path) -> None:
    gate = go(tmp_path)
    both = [jobs.execute("exit 1").job_id, jobs.execute(f"read x < {gate}").job_id]
    ended(jobs, both[0])
    assert jobs.wait(both, mode="all", timeout=0.2).reason == "timeout"
    future = waiting(jobs, both, mode="all")
    release(gate)
    assert [one.exit_code for one in future.result(30).jobs] == [1, 0]


def test_each_of_several_tells_its_output_and_its_cursor(jobs: Jobs, tmp_path: Path) -> None:
    gate = go(tmp_path)
    commands = {"first": "echo one; exit 1", "second": f"echo before; read x < {gate}; echo two; exit 2"}
    both = [jobs.execute(command, name=name).job_id for name, command in commands.items()]
    wait_until(lambda: jobs.output(both[1]).stdout)
    ended(jobs, both[0])
    early = jobs.wait(both, timeout=0.1)
    assert [(one.stdout, one.cursor) for one in early.jobs] == [("one\n", 5), ("", 8)]
    assert "call `wait` again to continue" in jobs.wait(both, mode="all", timeout=0.1).note
    future = waiting(jobs, both, mode="all")
    release(gate)
    answer = future.result(30)
    assert [(one.stdout, one.cursor) for one in answer.jobs] == [("one\n", 5), ("before\ntwo\n", 13)]
    lines = answer.text().splitlines()
    assert lines[:2] == [f"== {both[0]}: failed 1, exit, cursor 5", "one"]
    assert lines[2:5] == [f"== {both[1]}: failed 2, exit, cursor 13", "before", "two"]
    assert jobs.output(both[0], cursor=answer.jobs[0].cursor).stdout == ""


def test_several_share_what_may_be_shown(jobs: Jobs) -> None:
    many = [jobs.execute(f"seq {count}").job_id for count in (5, 5000, 5000, 5)]
    for job_id in many:
        ended(jobs, job_id)
    for size in (2000, 800):
        answer = jobs.wait(many, mode="all", max_bytes=size)
        assert sum(len(one.stdout) for one in answer.jobs) <= size
        assert [one.stdout[-2:] for one in answer.jobs] == ["5\n", "0\n", "0\n", "5\n"]
    crowd = jobs.wait(many, max_bytes=300)
    assert sum(len(one.stdout) for one in crowd.jobs) <= 300
    assert jobs.output(many[1], cursor=crowd.jobs[1].cursor).status == "completed"


def test_killed_runner_ends_the_wait(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    future = waiting(jobs, job_id)
    run = record_of(jobs, job_id).run
    assert run is not None
    os.kill(run.pid, signal.SIGKILL)
    assert (future.result(30).reason, future.result().status) == ("exit", "lost")
    jobs.kill(job_id)


def test_long_new_output_is_cut_to_its_newest_part(jobs: Jobs) -> None:
    job_id = jobs.execute("seq 10000; sleep 1000").job_id
    answer = jobs.wait(job_id, pattern="^10000$", cursor=0, timeout=30, max_bytes=400)
    assert answer.stdout.endswith("9999\n10000\n")
    assert len(answer.stdout) <= 400
    assert "cursor" in answer.stdout


@pytest.mark.parametrize(
    "options",
    [
        {"until": "never"},
        {"until": "pattern"},
        {"pattern": "("},
        {"pattern": ""},
        {"port": 70000},
        {"url": "ftp://x"},
        {"url": "http://localhost:port/"},
        {"url": "http://[::1"},
        {"url": "http://"},
        {"cursor": 10**9},
        {"timeout": -1},
        {"idle": 0},
        {"mode": "some"},
    ],
)
def test_what_can_not_be_waited_for_is_refused(jobs: Jobs, options: dict[str, Any]) -> None:
    job_id = jobs.execute("true").job_id
    with pytest.raises(InvalidInput):
        jobs.wait(job_id, **options)


def test_unknown_job_is_refused(jobs: Jobs) -> None:
    with pytest.raises(JobNotFound):
        jobs.wait(["nosuch-1234"])


def test_short_command_costs_one_call(jobs: Jobs) -> None:
    answer = jobs.execute("echo out; exit 5", wait=30)
    assert isinstance(answer, Ran)
    assert (answer.reason, answer.status, answer.exit_code, answer.stdout) == ("exit", "failed", 5, "out\n")
    assert answer.text().startswith(f"out\n==\n[exit: exit code 5; {answer.job_id} failed, ")


def test_wait_of_no_time_answers_as_any_wait_does(jobs: Jobs) -> None:
    answer = jobs.execute("read x", wait=0)
    assert (answer.status, answer.exit_code, answer.stdout) == ("running", None, "")
    assert answer.attach in answer.text()


def test_execute_waits_for_what_serves(jobs: Jobs) -> None:
    answer = jobs.execute("echo starting; echo ready; sleep 1000", wait=30, pattern="ready")
    assert isinstance(answer, Ran)
    assert (answer.reason, answer.status, answer.note) == ("pattern", "running", "line 2: ready")
    assert answer.attach in answer.text()


def test_bad_condition_starts_nothing(jobs: Jobs) -> None:
    with pytest.raises(InvalidInput):
        jobs.execute("true", wait=1, pattern="(")
    assert jobs.list().total == 0


@pytest.fixture(params=["auto", "legacy"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_bound_over_mcp_is_clamped(jobs: Jobs, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tmuxjobs.server.tools.WAIT_S", 0.3)
    job_id = jobs.execute("sleep 1000").job_id
    async with Client(build_server(jobs), mode=mode) as client:  # type: ignore[arg-type]
        result = await client.call_tool("wait", {"job_id": job_id, "timeout": 600})
    assert "timed out after 0.3 s" in result.content[0].text  # type: ignore[union-attr]


async def test_execute_over_mcp_answers_with_output(jobs: Jobs, mode: str) -> None:
    async with Client(build_server(jobs), mode=mode) as client:  # type: ignore[arg-type]
        done = await client.call_tool("execute", {"command": "seq 3", "wait": 30})
        started = await client.call_tool("execute", {"command": "sleep 1000"})
    assert done.structured_content is not None
    assert (done.structured_content["exit_code"], done.structured_content["stdout"]) == (0, "1\n2\n3\n")
    assert started.structured_content is not None
    assert "stdout" not in started.structured_content


async def test_cancelled_call_ends_the_waiting_and_not_the_job(jobs: Jobs, mode: str) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    async with Client(build_server(jobs), mode=mode) as client:  # type: ignore[arg-type]
        call = asyncio.create_task(client.call_tool("wait", {"job_id": job_id}))
        await asyncio.to_thread(wait_until, lambda: watched(jobs, job_id))
        call.cancel()
        await asyncio.to_thread(wait_until, lambda: not watched(jobs, job_id))
        assert (await client.call_tool("status", {"job_id": job_id})).structured_content["status"] == "running"  # type: ignore[index]


async def test_client_that_asks_for_progress_sees_the_last_line(jobs: Jobs, mode: str) -> None:
    seen: list[str | None] = []

    async def progressed(_: float, __: float | None, message: str | None) -> None:
        seen.append(message)

    command = "echo first; sleep 1.5; echo second; sleep 1.5"
    async with Client(build_server(jobs), mode=mode) as client:  # type: ignore[arg-type]
        await client.call_tool("execute", {"command": command, "wait": 40}, progress_handler=progressed)
    assert seen == ["first", "second"]


async def test_hundred_waits_at_once_are_all_told(jobs: Jobs, tmp_path: Path) -> None:
    gate = go(tmp_path)
    job_id = jobs.execute(f"read x < {gate}; exit 7").job_id
    async with Client(build_server(jobs)) as client:
        calls = [asyncio.create_task(client.call_tool("wait", {"job_id": job_id})) for _ in range(100)]
        await asyncio.to_thread(wait_until, lambda: watched(jobs, job_id))
        await asyncio.to_thread(release, gate)
        codes = [(await call).structured_content["exit_code"] for call in calls]  # type: ignore[index]
    assert codes == [7] * 100


def test_wait_works_where_watching_is_not_to_be_had(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tmuxjobs.system.watch._shared", (os.getpid(), None))
    gate = go(tmp_path)
    job_id = jobs.execute(f"read x < {gate}; echo ready; sleep 1000").job_id
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(jobs.wait, job_id, pattern="ready", cursor=0)
        release(gate)
        assert future.result(30).reason == "pattern"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tmuxjobs", "wait", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("shell", "options", "code"),
    [
        ("exit 0", [], 0),
        ("exit 3", [], 1),
        ("sleep 1000", ["--timeout", "0.1"], WAIT_OVER),
        ("echo ready; sleep 1000", ["--pattern", "ready", "--cursor", "0"], 0),
        ("exit 0", ["--pattern", "ready"], 1),
    ],
)
def test_command_says_by_its_code_how_the_wait_ended(jobs: Jobs, shell: str, options: list[str], code: int) -> None:
    job_id = jobs.execute(shell).job_id
    done = command(job_id, *options)
    assert done.returncode == code, done.stdout + done.stderr
    assert job_id in done.stdout


def test_wait_that_had_no_time_for_all_output_says_how_far_it_came(jobs: Jobs) -> None:
    rows = r"""printf '\033[2K\033[1A row\033[3D\033[K\n%.0s' $(seq 20000); echo ready; sleep 1000"""
    job_id = jobs.execute(rows, shell="bash").job_id
    wait_until(lambda: jobs.tail(job_id, lines=1).stdout, lambda text: text == "ready\n")
    answers = [jobs.wait(job_id, pattern="^ready$", cursor=0, timeout=0)]
    while answers[-1].reason == "timeout":
        cursor = answers[-1].cursor
        assert f"call `wait` with cursor={cursor} to continue" in answers[-1].note
        assert f"there was time to look through the output up to byte {cursor}" in answers[-1].note
        answers.append(jobs.wait(job_id, pattern="^ready$", cursor=cursor, timeout=0))
        assert answers[-1].cursor > cursor
    assert len(answers) > 2
    assert answers[-1].note == "line 20001: ready"
