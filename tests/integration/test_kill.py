"""Killing ends the whole tree and says what was there to kill."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastmcp import Client
from fastmcp.exceptions import ToolError
from support import PYTHON, Jobs, Tmux, ended, own_seconds, record_of, server_of, sleeping, wait_until

from tmuxjobs.errors import InvalidInput, JobEnded
from tmuxjobs.system import job_processes, processes


def stubborn_command(seconds: int) -> str:
    return (
        f"sh -c 'sleep {seconds} & setsid sleep {seconds} & nohup sleep {seconds} & setsid -f env -i sleep {seconds}; "
        'trap "" TERM HUP; echo ready; while :; do sleep 1; done\''
    )


def stubborn(jobs: Jobs, *, timeout: float | None = None) -> tuple[str, int]:
    seconds = own_seconds()
    job_id = jobs.execute(stubborn_command(seconds), timeout=timeout, cwd=os.environ["HOME"]).job_id
    started = lambda: len(sleeping(seconds)) == 4 and "ready" in jobs.output(job_id).stdout  # noqa: E731
    assert wait_until(lambda: started() or (jobs.status(job_id).status != "running" and "ended")) is True
    return job_id, seconds


def test_kill_leaves_nothing_of_a_stubborn_tree(jobs: Jobs) -> None:
    job_id, seconds = stubborn(jobs)
    answer = jobs.kill(job_id, grace=0.3)
    assert (answer.status, answer.survivors) == ("killed", ())
    assert sleeping(seconds) == []
    status = jobs.status(job_id)
    assert (status.status, status.reason, status.signal) == ("killed", "kill", "SIGKILL")


def test_closing_the_window_leaves_nothing_of_a_stubborn_tree(jobs: Jobs, tmux: Tmux) -> None:
    job_id, seconds = stubborn(jobs)
    tmux("kill-window", "-t", f"=mcp-jobs:{job_id}")
    assert ended(jobs, job_id).reason == "window-closed"
    assert sleeping(seconds) == []


def test_timeout_leaves_nothing_of_a_stubborn_tree(jobs: Jobs) -> None:
    for timeout in (2.0, 8.0, 32.0):  # a slow machine needs longer to start it
        with contextlib.suppress(AssertionError):
            job_id, seconds = stubborn(jobs, timeout=timeout)
            break
    assert ended(jobs, job_id).reason == "timeout"
    assert sleeping(seconds) == []


def test_signal_with_a_handler_lets_the_job_clean_up(jobs: Jobs) -> None:
    job_id = jobs.execute("trap 'echo cleaned; exit 9' INT; echo ready; while :; do sleep 0.1; done").job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "ready" in text)
    jobs.kill(job_id, signal="int")
    status = jobs.status(job_id)
    assert (status.status, status.reason, status.exit_code) == ("killed", "kill", 9)
    assert jobs.output(job_id).stdout.endswith("cleaned\n")


def test_stopped_job_can_be_killed(jobs: Jobs) -> None:
    job_id = jobs.execute("echo ready; kill -STOP $$; sleep 1000").job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "ready" in text)
    assert jobs.kill(job_id).status == "killed"


def test_finished_job_is_already_terminated(jobs: Jobs) -> None:
    job_id = jobs.execute("true").job_id
    ended(jobs, job_id)
    assert jobs.kill(job_id).status == "already_terminated"
    assert jobs.status(job_id).status == "completed"


def test_unknown_job_is_not_found(jobs: Jobs) -> None:
    assert jobs.kill("nosuch-1234").status == "not_found"
    assert jobs.kill("../../etc").status == "not_found"


def test_misspelt_job_is_told_with_the_nearest(jobs: Jobs) -> None:
    job_id = jobs.execute("true", name="build").job_id
    answer = jobs.kill(job_id[:-1])
    assert (
        answer.text() == f"{job_id[:-1]}: not_found: No job '{job_id[:-1]}'. Did you mean '{job_id}'? `list` shows all."
    )


def test_wrong_signal_is_refused_and_kills_nothing(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    with pytest.raises(InvalidInput, match="'NOPE' is not a signal"):
        jobs.kill(job_id, signal="NOPE")
    assert jobs.status(job_id).status == "running"


# Signals that end nothing

HANDLES = """
import signal, time
for number in (signal.SIGHUP, signal.SIGUSR2):
    signal.signal(number, lambda number, _: print("got", signal.Signals(number).name, flush=True))
print("ready", flush=True)
while True:
    time.sleep(1000)
"""


@pytest.mark.parametrize("place", ["{program}", "FOO=1; {program}; echo over", "cat /dev/zero | {program} | cat"])
def test_signal_without_end_reaches_the_program_that_handles_it(jobs: Jobs, place: str) -> None:
    program = f"{PYTHON} -c {shlex.quote(HANDLES)}"
    job_id = jobs.execute(place.format(program=program)).job_id
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "ready" in text)
    for name in ("HUP", "sigusr2"):
        answer = jobs.kill(job_id, signal=name, end=False)
        assert answer.status == "signalled"
        assert re.fullmatch(r"SIG\w+ sent to python\S* \(\d+\); the job was not ended", answer.detail)
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "got SIGHUP" in text and "got SIGUSR2" in text)
    assert jobs.status(job_id).status == "running"


def test_signal_that_nobody_handles_is_not_sent(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    with pytest.raises(InvalidInput, match="handles SIGUSR1, so nothing was sent"):
        jobs.kill(job_id, signal="USR1", end=False)
    assert jobs.status(job_id).status == "running"


def test_signal_to_an_interactive_shell_is_for_the_program_in_front(jobs: Jobs) -> None:
    job_id = jobs.execute("bash --norc -i").job_id
    wait_until(lambda: jobs.status(job_id).waits_for)
    jobs.interact(job_id, f"{PYTHON} -c {shlex.quote(HANDLES.strip())}", wait=0.1)
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "\nready" in text)
    jobs.kill(job_id, signal="HUP", end=False)
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "\ngot SIGHUP" in text)


@pytest.mark.parametrize("signal", ["STOP", "CONT", "SIGTSTP", "usr1", "WINCH"])
def test_signal_that_ends_nothing_is_refused_as_a_way_to_end(jobs: Jobs, signal: str) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    with pytest.raises(InvalidInput, match=r"does not end a job. Nothing was sent; with end=false"):
        jobs.kill(job_id, signal=signal)
    assert jobs.status(job_id).reason is None


def test_stopped_job_says_so_and_goes_on(jobs: Jobs) -> None:
    job_id = jobs.execute("while :; do echo tick; sleep 0.01; done").job_id
    jobs.kill(job_id, signal="STOP", end=False)
    status = jobs.status(job_id)
    assert status.status == "paused"
    assert "paused: it neither works nor prints; `resume`" in status.text()
    assert f"{job_id}  paused" in jobs.list().text()
    assert "paused: it neither" in jobs.wait(job_id, timeout=0.1).note
    size = jobs.status(job_id).log_bytes
    assert "SIGCONT" in jobs.kill(job_id, signal="CONT", end=False).detail
    wait_until(lambda: jobs.status(job_id), lambda status: status.log_bytes > size and status.status == "running")
    jobs.kill(job_id, signal="STOP", end=False)
    assert jobs.kill(job_id, grace=5).survivors == ()


def test_signal_to_a_job_that_has_ended_says_how_it_ended(jobs: Jobs) -> None:
    job_id = jobs.execute("exit 4").job_id
    ended(jobs, job_id)
    with pytest.raises(JobEnded, match="takes no signal: exit code 4"):
        jobs.kill(job_id, signal="HUP", end=False)
    assert jobs.kill("nosuch-1234", signal="HUP", end=False).status == "not_found"


# A lost job, and strangers that have its numbers


def lost(jobs: Jobs, command: str = "sleep 1000", *, begun: Callable[[], object] = lambda: True) -> str:
    """A job whose runner was killed once the command had begun."""
    job_id = jobs.execute(f"echo ready; {command}").job_id
    wait_until(lambda: "ready" in jobs.output(job_id).stdout and begun())
    os.kill(record_of(jobs, job_id).run.pid, signal.SIGKILL)  # type: ignore[union-attr]
    assert ended(jobs, job_id).status == "lost"
    return job_id


def rewrite(jobs: Jobs, job_id: str, name: str, **changes: Any) -> None:
    path = jobs.host.store.folder(job_id) / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def stranger() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a process of nobody's job, the leader of a session."""
    with contextlib.ExitStack() as ending:

        def start(*argv: str, **env: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(argv, cwd="/", env=os.environ | env, start_new_session=True)
            ending.callback(process.wait)
            ending.callback(process.kill)
            return process

        yield start


def test_stranger_with_the_pid_of_a_dead_runner_is_neither_named_nor_signalled(
    jobs: Jobs, stranger: Callable[..., subprocess.Popen[bytes]]
) -> None:
    job_id = lost(jobs)
    jobs.kill(job_id, grace=0)
    seconds = own_seconds()
    later = stranger("sh", "-c", f"sleep {seconds} & wait")
    wait_until(lambda: sleeping(seconds))
    rewrite(jobs, job_id, "run.json", pid=later.pid)
    status = jobs.status(job_id)
    assert (status.survivors, status.not_touched) == ((), ())
    assert jobs.kill(job_id, grace=0).status == "already_terminated"
    jobs.doctor(fix=True)
    (child,) = sleeping(seconds)
    assert later.poll() is None
    child.kill()


def test_what_cannot_be_proved_to_be_of_a_lost_job_is_named_and_not_touched(
    jobs: Jobs, stranger: Callable[..., subprocess.Popen[bytes]]
) -> None:
    job_id = lost(jobs)
    jobs.kill(job_id, grace=0)
    seconds = own_seconds()
    leader = stranger("sh", "-c", f"sleep {seconds} & exit")
    leader.wait()
    (sleeper,) = wait_until(lambda: sleeping(seconds))
    rewrite(jobs, job_id, "run.json", pid=leader.pid)
    try:
        words = f"May be left of it, but nothing proves it, so `kill` does not touch: sleep ({sleeper.pid})."
        assert words in jobs.status(job_id).text()
        assert [one.pid for one in jobs.status(job_id).not_touched] == [sleeper.pid]
        assert words in jobs.kill(job_id, grace=0).text()
        assert (
            f"sleep ({sleeper.pid}) may be left over from lost job {job_id}, but nothing proves it"
            in jobs.doctor(fix=True).text()
        )
        assert sleeping(seconds)
    finally:
        sleeper.kill()


def test_job_of_that_name_in_another_state_directory_is_no_strangers_excuse(
    jobs: Jobs, stranger: Callable[..., subprocess.Popen[bytes]]
) -> None:
    job_id = lost(jobs)
    jobs.kill(job_id, grace=0)
    other = stranger("sleep", "1000", TMUXJOBS_JOB_ID=job_id, TMUXJOBS_JOB_MARK="another")
    assert jobs.status(job_id).survivors == ()
    assert jobs.kill(job_id, grace=0).status == "already_terminated"
    assert other.poll() is None


def test_all_of_a_lost_job_is_known_by_its_mark_its_session_and_its_parents(jobs: Jobs) -> None:
    seconds = own_seconds()
    deep = f"setsid sh -c 'env -i sleep {seconds}; :'"
    job_id = lost(
        jobs,
        f"trap '' HUP; env -i sleep {seconds} & {deep} & setsid -f sleep {seconds}; sleep {seconds}",
        begun=lambda: len(sleeping(seconds)) == 4,
    )
    names = [one.name for one in jobs.status(job_id).survivors]
    assert names.count("sleep") == 4
    assert jobs.kill(job_id, grace=0.1).status == "killed"
    assert sleeping(seconds) == []


@pytest.mark.parametrize("change", [{"boot": "another"}, {"namespace": "pid:[1]"}])
def test_nothing_is_signalled_for_a_job_of_another_boot_or_container(jobs: Jobs, change: dict[str, str]) -> None:
    seconds = own_seconds()
    job_id = lost(jobs, f"trap '' HUP; sleep {seconds}; :", begun=lambda: sleeping(seconds))
    rewrite(jobs, job_id, "run.json", **change)
    assert jobs.status(job_id).survivors == ()
    assert jobs.kill(job_id, grace=0).status == "already_terminated"
    assert len(sleeping(seconds)) == 1
    rewrite(jobs, job_id, "run.json", boot=processes.boot_id(), namespace=processes.pid_namespace())
    assert jobs.kill(job_id, grace=0).status == "killed"


def test_running_job_of_another_container_is_lost_here_and_told_so(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1000").job_id
    rewrite(jobs, job_id, "run.json", namespace="pid:[1]")
    status = jobs.status(job_id)
    assert (status.status, status.reason) == ("lost", "elsewhere")
    assert jobs.kill(job_id, grace=0).status == "already_terminated"
    rewrite(jobs, job_id, "run.json", namespace=processes.pid_namespace())
    assert jobs.status(job_id).status == "running"


def test_what_a_job_of_an_earlier_boot_left_running_is_not_looked_for(jobs: Jobs) -> None:
    job_id = jobs.execute("setsid -f sleep 1000 < /dev/null > /dev/null 2>&1").job_id
    (left,) = ended(jobs, job_id).left_running
    path = jobs.host.store.folder(job_id) / "exit.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"run": record["run"] | {"boot": "another"}}))
    later = Jobs.open()
    assert later.status(job_id).left_running == ()
    later.kill(job_id, grace=0)
    assert job_processes.alive(left.pid, left.start or "")
    path.write_text(json.dumps(record))
    assert Jobs.open().kill(job_id, grace=0).detail.endswith("ended 1 of its processes that still lived")


async def test_kill_of_no_job_is_refused(jobs: Jobs) -> None:
    async with Client(server_of(jobs)) as client:
        with pytest.raises(ToolError, match="names no job; nothing was ended"):
            await client.call_tool("kill", {"job_id": []})
