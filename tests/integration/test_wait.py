"""A wait ends when what is waited for is so, says why, and never costs the job anything."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastmcp import Client
from support import PYTHON, Jobs, ended, in_panes, record_of, server_of, wait_until, with_timing

from tmuxjobs.answers import Ran, Waited
from tmuxjobs.cli import WAIT_OVER
from tmuxjobs.errors import InvalidInput, JobNotFound
from tmuxjobs.system import watch
from tmuxjobs.text import patterns
from tmuxjobs.verbs import job_wait, prompts

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
    watcher = watch.shared()
    return watcher is not None and jobs.host.store.folder(job_id) in watcher.folders


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
    future = waiting(jobs, job_id, pattern="ready", cursor=cursor, max_bytes=800, redraws=True)
    release(gate)
    first = future.result(30)
    wait_until(lambda: jobs.tail(job_id, lines=1).stdout, lambda line: line == "last\n")
    later = jobs.wait(job_id, pattern="ready", cursor=0, max_bytes=800, redraws=True)
    for answer, part in ((first, "ready now"), (later, shown)):  # at first what follows may not be there yet
        assert answer.reason == "pattern"
        assert part in answer.stdout
        assert len(answer.stdout) <= 800
    assert later.stdout.endswith("last\n")
    assert later.cursor == jobs.output(job_id).cursor


def test_frame_that_is_drawn_over_is_not_matched(jobs: Jobs, tmp_path: Path) -> None:
    gate = go(tmp_path)
    frames = r"printf '\033[?25lready 0\n'; sleep 0.3; printf '\033[1A\033[2Kready 1\n'"
    job_id = jobs.execute(
        f"{frames}; read x < {gate}; printf '\\033[1A\\033[2Kready 2\\n\\033[?25h'; sleep 1000"
    ).job_id
    asked = jobs.wait(job_id, pattern=r"ready \d", redraws=True, cursor=0, timeout=30)
    assert asked.note.endswith("ready 0")
    wait_until(lambda: "ready 1" in jobs.tail(job_id).stdout)
    future = waiting(jobs, job_id, pattern=r"ready [^1]", cursor=0)
    release(gate)
    assert future.result(30).note.endswith("ready 2")


def test_match_in_a_separate_stderr_is_shown_there(jobs: Jobs) -> None:
    command = "(seq 5000; echo ready; seq 5000) >&2; echo last; exec sleep 1000"
    job_id = jobs.execute(command, separate_stderr=True).job_id
    wait_until(lambda: jobs.tail(job_id, lines=1), lambda tail: (tail.stdout, tail.stderr) == ("last\n", "5000\n"))
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


@pytest.mark.parametrize(("days", "idle", "timeout", "reason"), [(1, 0.3, 30, "idle"), (-1, 60, 2, "timeout")])
def test_silence_is_not_read_off_a_wall_clock_that_jumped(
    jobs: Jobs, days: int, idle: float, timeout: float, reason: str
) -> None:
    """The clock's jump is the other side of a log that was written so long ago, or is yet to be written."""
    job_id = jobs.execute("echo said; sleep 1000").job_id
    wait_until(lambda: jobs.output(job_id).stdout)
    at = time.time() + days * 86400
    os.utime(jobs.host.look(job_id).log, (at, at))
    assert jobs.wait(job_id, idle=idle, timeout=timeout).reason == reason


def test_idle_is_silence_of_that_length(jobs: Jobs) -> None:
    job_id = jobs.execute("for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done; sleep 1000").job_id
    answer = jobs.wait(job_id, idle=3, timeout=30)
    assert (answer.reason, answer.stdout) == ("idle", "1\n2\n3\n4\n5\n6\n")


def test_waiting_for_input_is_told_with_the_prompt(jobs: Jobs, tmp_path: Path) -> None:
    gate = go(tmp_path)
    job_id = jobs.execute(f"read x < {gate}; read -p 'Overwrite? ' answer").job_id
    future = waiting(jobs, job_id, until="input")
    release(gate)
    answer = future.result(30)
    assert (answer.reason, answer.status, answer.prompt) == ("input", "running", "Overwrite? ")
    assert "it waits for input: 'Overwrite? '" in answer.text()


def test_question_that_comes_after_its_read_is_told_all_the_same(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorder is stopped while the program asks."""
    monkeypatch.setattr(job_wait, "SETTLED_S", 60.0)
    gate = go(tmp_path)
    job_id = jobs.execute(f"read x < {gate}; read -p 'Overwrite? ' answer").job_id
    [recorder] = wait_until(lambda: in_panes(jobs, "recorder", job_id))
    recorder.suspend()
    future = waiting(jobs, job_id, until="input")
    release(gate)
    wait_until(lambda: jobs.status(job_id).waiting_for_input)
    time.sleep(1)  # it is seen to read
    recorder.resume()
    assert future.result(30).prompt == "Overwrite? "


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


def served(folder: Path, code: int, *, port: int = 0) -> str:
    """A command that answers every request with that code and prints its port."""
    (folder / "serve.py").write_text(
        "import http.server, sys\n"
        "class Handler(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_error(int(sys.argv[1]))\n"
        "server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[2])), Handler)\n"
        "print('port', server.server_port, flush=True)\nserver.serve_forever()\n"
    )
    return f"{PYTHON} {folder}/serve.py {code} {port}"


def test_url_that_a_stranger_answers_is_told_and_waited_for(jobs: Jobs, tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as other:
        port = re.search(r"port (\d+)", other.stdout.readline())[1]  # type: ignore[union-attr, index]
        url = f"http://localhost:{port}/"
        job_id = jobs.execute("sleep 1000").job_id
        stranger = f"{url} answers 200, but from {psutil.Process(other.pid).name()} ({other.pid}), not from this job"
        waited = wait_until(lambda: jobs.wait(job_id, url=url, timeout=0.5), lambda waited: stranger in waited.note)
        assert waited.reason == "timeout"
        failed = wait_until(
            lambda: jobs.execute("sleep 0.5; exit 98", wait=20, url=url), lambda failed: stranger in failed.note
        )
        assert (failed.reason, failed.exit_code) == ("exit", 98)
        other.kill()


def test_url_that_another_job_answers_names_that_job(jobs: Jobs, tmp_path: Path) -> None:
    server, other = jobs.execute(served(tmp_path, 404)).job_id, jobs.execute("sleep 1000").job_id
    port = jobs.wait(server, pattern=r"port \d+", timeout=40).note.split()[-1]
    url = f"http://127.0.0.1:{port}/x"
    said = f"{url} answers 404, but from job {server}, not from this job"
    wait_until(lambda: jobs.wait(other, url=url, timeout=0.3).note, lambda note: said in note)
    assert jobs.wait(server, url=url, timeout=40).reason == "url"


def test_url_of_a_child_that_left_the_group_is_the_jobs_own(jobs: Jobs, tmp_path: Path) -> None:
    job_id = jobs.execute(f"setsid {served(tmp_path, 404)} & sleep 1000").job_id
    port = jobs.wait(job_id, pattern=r"port \d+", timeout=40).note.split()[-1]
    assert jobs.wait(job_id, url=f"http://127.0.0.1:{port}/", timeout=40).reason == "url"


def test_error_of_a_server_is_told_as_such(jobs: Jobs, tmp_path: Path) -> None:
    job_id = jobs.execute(served(tmp_path, 500)).job_id
    port = jobs.wait(job_id, pattern=r"port \d+", timeout=40).note.split()[-1]
    url = f"http://127.0.0.1:{port}/"
    waited = wait_until(lambda: jobs.wait(job_id, url=url, timeout=0.5), lambda it: f"{url} answers 500" in it.note)
    assert waited.reason == "timeout"
    assert with_timing(jobs, url_errors=0.2).wait(job_id, url=url, timeout=40).reason == "url_error"


def test_pattern_that_was_printed_before_the_wait_counts(jobs: Jobs) -> None:
    job_id = jobs.execute("echo listening; sleep 1000").job_id
    wait_until(lambda: Jobs.open().output(job_id).stdout)
    answer = jobs.wait(job_id, pattern="listening", timeout=0)
    assert (answer.reason, answer.note) == ("pattern", "already printed, line 1: listening")


@pytest.mark.parametrize("read", ["output", "tail", "wait", "interact"])
def test_pattern_counts_from_where_the_caller_last_read(jobs: Jobs, tmp_path: Path, read: str) -> None:
    gate = go(tmp_path)
    job_id = jobs.execute(f"echo compiled 1; read x < {gate}; echo compiled 2; sleep 1000").job_id
    wait_until(lambda: Jobs.open().output(job_id).stdout)
    arguments = {"wait": {"timeout": 0}, "interact": {"input": "", "wait": 0}}.get(read, {})
    getattr(jobs, read)(job_id, **arguments)
    assert jobs.wait(job_id, pattern="compiled", timeout=0.1).reason == "timeout"
    release(gate)
    answer = jobs.wait(job_id, pattern=r"compiled \d", timeout=30)
    assert (answer.reason, answer.note.split()[-1]) == ("pattern", "2")


async def test_each_client_has_a_place_of_its_own_in_the_output(jobs: Jobs) -> None:
    server = server_of(jobs)
    async with Client(server) as client:
        job_id = (await client.call_tool("execute", {"command": "echo listening; sleep 1000"})).data["job_id"]
        await asyncio.to_thread(wait_until, lambda: jobs.output(job_id).stdout)
        wanted = {"job_id": job_id, "pattern": "listening", "timeout": 0.1}
        assert (await client.call_tool("wait", wanted)).data["reason"] == "pattern"
        assert (await client.call_tool("wait", wanted)).data["reason"] == "timeout"


def test_command_that_left_something_running_is_told_once(jobs: Jobs) -> None:
    answer = jobs.execute("sleep 1003 & echo started; exit 7", wait=30)
    assert isinstance(answer, Ran)
    assert (answer.reason, answer.status, answer.exit_code) == ("command_ended", "running", 7)
    assert re.match(r"the command ended with exit code 7; still running: sleep \(\d+\); `kill` ends it", answer.note)
    assert jobs.wait(answer.job_id, timeout=1).reason == "timeout"
    assert Jobs.open().wait(answer.job_id, timeout=30).reason == "command_ended"
    jobs.kill(answer.job_id)


@pytest.mark.parametrize("code", [0, 3])
def test_command_line_exits_with_how_the_command_ended(jobs: Jobs, code: int) -> None:
    job_id = jobs.execute(f"sleep 1005 & exit {code}").job_id
    argv = [sys.executable, "-m", "tmuxjobs", "wait", job_id]
    waited = subprocess.run(argv, capture_output=True, text=True)
    assert (waited.returncode, "command_ended" in waited.stdout) == (int(code > 0), True)
    jobs.kill(job_id)


def test_what_ends_with_its_command_is_not_left_running(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_wait, "SETTLE_S", 20.0)  # so long a slow machine may need to end it
    assert jobs.execute("sleep 0.2 & echo started", wait=30).reason == "exit"


def test_daemon_that_a_command_left_is_named(jobs: Jobs) -> None:
    answer = jobs.execute("setsid sleep 1004 >/dev/null 2>&1 </dev/null & echo started", wait=30)
    assert isinstance(answer, Ran)
    assert (answer.reason, answer.status) == ("exit", "completed")
    # A shell that has just been forked may not have become `sleep` yet.
    assert re.search(r"left running: \S+ \(\d+\); `kill` ends it", answer.note)
    left = lambda: [one.name for one in jobs.status(answer.job_id).left_running]  # noqa: E731
    wait_until(left, lambda names: names == ["sleep"])
    jobs.kill(answer.job_id)


def test_all_of_several_leads_with_what_failed(jobs: Jobs) -> None:
    commands = ("true", "exit 2", "exit 1", "true")
    good, bad, worse, last = (jobs.execute(command, name=f"job{n}").job_id for n, command in enumerate(commands))
    ended(jobs, worse)
    answer = jobs.wait([good, bad, worse, last], mode="all", timeout=40)
    lead = f"4 jobs: 2 completed, 2 failed: {bad} (exit code 2), {worse} (exit code 1)"
    assert answer.note.startswith(lead)
    assert f"\n[exit: {lead}" in answer.text()
    assert (answer.failed, answer.status, answer.exit_code) == ((bad, worse), "failed", 2)
    assert answer.fields()["note"].startswith(lead)


@pytest.mark.parametrize("condition", [{"pattern": "never"}, {"url": "http://127.0.0.1:1"}, {"until": "port"}])
def test_all_of_several_leads_with_what_failed_where_none_did_what_was_waited_for(
    jobs: Jobs, condition: dict[str, Any]
) -> None:
    commands = ("true", "exit 2", "true", "exit 3")
    one, bad, other, worse = (jobs.execute(command).job_id for command in commands)
    answer = jobs.wait([one, bad, other, worse], mode="all", timeout=40, **condition)
    assert (answer.job_id, answer.status, answer.exit_code) == (bad, "failed", 2)
    without = f"2 completed without it: {one} (exit code 0), {other} (exit code 0)"
    lead = f"4 jobs: {without}, 2 failed: {bad} (exit code 2), {worse} (exit code 3); the job ended first: exit code 2"
    assert answer.note == lead
    assert answer.fields()["note"] == lead


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
    wait_until(lambda: jobs.output(both[1]).stdout == "before\n")
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
        {"pattern": "a\nb"},
        {"fail_pattern": r"error\n"},
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
def test_what_cannot_be_waited_for_is_refused(jobs: Jobs, options: dict[str, Any]) -> None:
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


async def test_bound_over_mcp_is_clamped(jobs: Jobs, mode: str) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    async with Client(server_of(jobs, call_s=0.3), mode=mode) as client:  # type: ignore[arg-type]
        for tool, arguments in (
            ("wait", {"job_id": job_id, "timeout": 600}),
            ("execute", {"command": "sleep 1000", "wait": 600}),
            ("restart", {"job_id": job_id, "wait": 600}),
        ):
            result = await client.call_tool(tool, arguments)
            said = result.structured_content["note"]  # type: ignore[index]
            assert "timed out after 0.3 s" in said
            assert "0.3 s is the most for one call" in said


async def test_execute_over_mcp_answers_with_output(jobs: Jobs, mode: str) -> None:
    async with Client(server_of(jobs), mode=mode) as client:  # type: ignore[arg-type]
        done = await client.call_tool("execute", {"command": "seq 3", "wait": 30})
        started = await client.call_tool("execute", {"command": "sleep 1000"})
    assert done.structured_content is not None
    assert (done.structured_content["exit_code"], done.structured_content["stdout"]) == (0, "1\n2\n3\n")
    assert started.structured_content is not None
    assert "stdout" not in started.structured_content


async def test_cancelled_call_ends_the_waiting_and_not_the_job(jobs: Jobs, mode: str) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    async with Client(server_of(jobs), mode=mode) as client:  # type: ignore[arg-type]
        call = asyncio.create_task(client.call_tool("wait", {"job_id": job_id}))
        await asyncio.to_thread(wait_until, lambda: watched(jobs, job_id))
        call.cancel()
        await asyncio.to_thread(wait_until, lambda: not watched(jobs, job_id))
        assert (await client.call_tool("status", {"job_id": job_id})).structured_content["status"] == "running"  # type: ignore[index]


async def test_client_that_asks_for_progress_sees_the_last_line(jobs: Jobs, mode: str, tmp_path: Path) -> None:
    seen: list[str | None] = []
    gates = [go(tmp_path, name) for name in ("one", "two")]

    async def progressed(_: float, __: float | None, message: str | None) -> None:
        seen.append(message)
        await asyncio.to_thread(release, gates[len(seen) - 1])

    command = f"echo first; read x < {gates[0]}; echo second; read x < {gates[1]}"
    async with Client(server_of(jobs), mode=mode) as client:  # type: ignore[arg-type]
        await client.call_tool("execute", {"command": command, "wait": 40}, progress_handler=progressed)
    assert seen == ["first", "second"]


async def test_hundred_waits_at_once_are_all_told(jobs: Jobs, tmp_path: Path) -> None:
    gate = go(tmp_path)
    job_id = jobs.execute(f"read x < {gate}; exit 7").job_id
    async with Client(server_of(jobs)) as client:
        calls = [asyncio.create_task(client.call_tool("wait", {"job_id": job_id})) for _ in range(100)]
        await asyncio.to_thread(wait_until, lambda: watched(jobs, job_id))
        await asyncio.to_thread(release, gate)
        codes = [(await call).structured_content["exit_code"] for call in calls]  # type: ignore[index]
    assert codes == [7] * 100


def test_wait_works_where_nothing_can_be_watched(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "shared", lambda: None)
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
    wait_until(lambda: not prompts.is_printing(jobs.host.look(job_id), within=patterns.STANDS_S))
    answers = [jobs.wait(job_id, pattern="^ready$", cursor=0, timeout=0)]
    while answers[-1].reason == "timeout":
        cursor = answers[-1].cursor
        assert f"call `wait` with cursor={cursor} to continue" in answers[-1].note
        assert f"there was time to search the output up to byte {cursor}" in answers[-1].note
        answers.append(jobs.wait(job_id, pattern="^ready$", cursor=cursor, timeout=0))
        assert answers[-1].cursor > cursor
    assert len(answers) > 2
    assert answers[-1].note == "line 20001: ready"


def test_wait_that_ends_before_a_match_counts_goes_on_before_it(jobs: Jobs) -> None:
    job_id = jobs.execute("printf '\\033[?25l'; echo first; echo ready; sleep 1000").job_id
    wait_until(lambda: "ready" in jobs.output(job_id).stdout)
    waited = jobs.wait(job_id, pattern="^ready$", cursor=0, timeout=0)
    if waited.reason == "timeout":  # what hides the cursor may draw over the line for a while
        waited = jobs.wait(job_id, pattern="^ready$", cursor=waited.cursor, timeout=20)
    assert waited.note == "line 2: ready"


def test_of_many_jobs_each_shows_what_it_printed_or_says_that_it_does_not(jobs: Jobs) -> None:
    ids = [jobs.execute(f"echo job {number}").job_id for number in range(12)]
    long = jobs.execute("seq 1 1000").job_id
    waited = jobs.wait([*ids, long], mode="all", timeout=50)
    assert [one.stdout for one in waited.jobs[:12]] == [f"job {number}\n" for number in range(12)]
    assert "1000" in waited.jobs[12].stdout or "left out" in waited.jobs[12].note
    many = [jobs.execute("seq 1 1000").job_id for _ in range(12)]
    for one in jobs.wait(many, mode="all", timeout=50).jobs:
        assert "1000" in one.stdout or "its output is left out here" in one.note
