"""A job is paused with all that it started, and goes on."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

import psutil
import pytest
from fastmcp import Client
from support import Jobs, Screen, ended, own_seconds, record_of, server_of, sleeping, wait_until

from tmuxjobs.errors import InvalidInput, JobEnded
from tmuxjobs.system import processes

TICKS = "while :; do echo tick; sleep 0.01; done"


def states(jobs: Jobs, job_id: str) -> set[str]:
    """Of all processes of the job."""
    run = record_of(jobs, job_id).run
    assert run is not None
    found = set()
    for process in psutil.Process(run.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            # Its runner shows in tmux how it stands, by a process that is none of the job's.
            found |= {process.status()} if not process.name().startswith("tmux") else set()
    return found - {psutil.STATUS_ZOMBIE}


def test_paused_job_neither_works_nor_prints_until_it_is_resumed(jobs: Jobs) -> None:
    job_id = jobs.execute(f"({TICKS}) & {TICKS}").job_id
    wait_until(lambda: jobs.status(job_id).log_bytes)
    answer = jobs.pause(job_id)
    assert (answer.status, states(jobs, job_id)) == ("paused", {psutil.STATUS_STOPPED})
    assert jobs.status(job_id).status == "paused"
    assert [job.job_id for job in jobs.list(status="paused").jobs] == [job_id]
    size = wait_until(lambda: jobs.status(job_id).log_bytes)
    assert jobs.resume(job_id).status == "running"
    wait_until(lambda: jobs.status(job_id).log_bytes > size + 100)


def test_time_paused_does_not_count_for_the_timeout(jobs: Jobs) -> None:
    for timeout in (2, 8):
        job_id = jobs.execute("sleep 1003", timeout=timeout).job_id
        with contextlib.suppress(JobEnded):  # before a slow machine had paused it
            jobs.pause(job_id)
        if jobs.status(job_id).status == "paused":
            break
    started = record_of(jobs, job_id).started_monotonic
    wait_until(lambda: jobs.status(job_id).runtime, lambda runtime: runtime > timeout + 1)
    assert jobs.status(job_id).status == "paused"
    jobs.resume(job_id)
    assert ended(jobs, job_id).reason == "timeout"
    assert started


def test_paused_job_is_killed_at_once(jobs: Jobs) -> None:
    seconds = own_seconds()
    job_id = jobs.execute(f"sleep {seconds}").job_id
    jobs.pause(job_id)
    answer = jobs.kill(job_id)
    assert (answer.status, answer.survivors, sleeping(seconds)) == ("killed", (), [])


def test_job_that_somebody_else_stopped_is_told_as_paused_and_resumed(jobs: Jobs) -> None:
    seconds = own_seconds()
    job_id = jobs.execute(f"sleep {seconds}").job_id
    [process] = wait_until(lambda: sleeping(seconds))
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: jobs.status(job_id).status, lambda status: status == "paused")
    assert jobs.resume(job_id).status == "running"


def stopped_below(jobs: Jobs, job_id: str, name: str) -> None:
    """Stops the one program of that name that the job runs."""
    run = record_of(jobs, job_id).run
    assert run is not None
    root = psutil.Process(run.pid)
    [process] = wait_until(lambda: [one for one in root.children(recursive=True) if one.name() == name])
    process.suspend()
    wait_until(process.status, lambda status: status == psutil.STATUS_STOPPED)


@pytest.mark.parametrize(
    "command",
    [
        "sleep 1010; true",
        "bash -c 'sleep 1010; true'; true",
        "python3 -c \"import subprocess; subprocess.run(['sleep', '1010'])\"; true",
        "sleep 1010 & wait",
    ],
)
def test_job_is_paused_if_all_else_waits_for_the_program_that_somebody_stopped(jobs: Jobs, command: str) -> None:
    job_id = jobs.execute(command).job_id
    stopped_below(jobs, job_id, "sleep")
    wait_until(lambda: jobs.status(job_id).status, lambda status: status == "paused")
    assert jobs.resume(job_id).status == "running"


@pytest.mark.parametrize(
    "command",
    [
        "python3 -c \"import os, time; os.popen('exec sleep 1011')\nwhile 1: print(1); time.sleep(0.3)\"",
        "sleep 1011 & read x",
        "sleep 1011 & while :; do :; done",
        "(sleep 1011; true) & python3 -c 'import time; time.sleep(1012)'; true",
    ],
)
@pytest.mark.skipif(not processes.LINUX, reason="elsewhere only the first process is looked at")
def test_job_is_not_paused_while_a_part_of_it_can_work(jobs: Jobs, command: str) -> None:
    job_id = jobs.execute(command).job_id
    stopped_below(jobs, job_id, "sleep")
    assert jobs.status(job_id).status == "running"
    assert [job.job_id for job in jobs.list(status="running").jobs] == [job_id]


@pytest.mark.skipif(not processes.LINUX, reason="elsewhere only the first process is looked at")
def test_job_whose_first_process_alone_was_stopped_is_not_paused(jobs: Jobs) -> None:
    job_id = jobs.execute("python3 -c 'import time; time.sleep(1013)'; true").job_id
    run = wait_until(lambda: record_of(jobs, job_id).run, lambda run: run is not None and run.command_pid)
    assert run is not None
    shell = psutil.Process(run.command_pid)
    wait_until(shell.children)
    shell.suspend()
    wait_until(shell.status, lambda status: status == psutil.STATUS_STOPPED)
    assert jobs.status(job_id).status == "running"


@pytest.mark.skipif(not processes.LINUX, reason="elsewhere only the first process is looked at")
def test_shell_whose_program_a_person_stopped_in_it_goes_on(jobs: Jobs) -> None:
    job_id = jobs.execute("PS1='sh> ' bash --norc --noprofile -i").job_id
    wait_until(lambda: jobs.status(job_id).prompt, lambda prompt: prompt == "sh> ")
    seconds = own_seconds()
    jobs.interact(job_id, f"sleep {seconds}", wait=0.1)
    [process] = wait_until(lambda: sleeping(seconds))
    jobs.interact(job_id, keys=["C-z"], wait=0.1)
    wait_until(process.status, lambda status: status == psutil.STATUS_STOPPED)
    status = wait_until(lambda: jobs.status(job_id), lambda status: status.waiting_for_input)
    assert (status.status, status.prompt) == ("running", "sh> ")
    assert [job.job_id for job in jobs.list(status="running").jobs] == [job_id]


def test_only_a_running_job_is_paused(jobs: Jobs) -> None:
    job_id = jobs.execute("exit 3").job_id
    ended(jobs, job_id)
    with pytest.raises(JobEnded, match="does not run: exit code 3"):
        jobs.pause(job_id)
    with pytest.raises(InvalidInput, match="waits for its turn"):
        jobs.pause(jobs.execute("true", delay=1000).job_id)


def test_window_of_a_paused_job_says_so(jobs: Jobs, screen: Callable[..., Screen]) -> None:
    job_id = jobs.execute("sleep 1006").job_id
    jobs.pause(job_id)
    screen(rows=30, columns=140).until(f"‖{job_id}", "1 paused")


def test_pause_and_resume_are_events_of_the_job(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1007").job_id
    jobs.pause(job_id)
    jobs.pause(job_id)  # it is already
    jobs.kill(job_id, signal="CONT", end=False)
    told = [entry for entry in jobs.events() if entry.job_id == job_id]
    assert [entry.event for entry in told] == ["start", "pause", "resume"]
    assert f"{job_id} paused: sleep 1007" in jobs.event_line(told[1])


async def test_agent_that_waits_is_told_once_that_the_job_was_paused(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1008").job_id
    async with Client(server_of(jobs)) as client:
        waiting = asyncio.create_task(client.call_tool("wait", {"job_id": job_id, "timeout": 40}))
        await asyncio.to_thread(jobs.pause, job_id)
        answer = (await waiting).structured_content
        assert answer is not None
        assert (answer["reason"], answer["status"]) == ("paused", "paused")
        again = (await client.call_tool("wait", {"job_id": job_id, "timeout": 0.1})).structured_content
        assert again is not None
        assert again["reason"] == "timeout"


def test_wait_of_a_person_goes_on_over_a_pause(jobs: Jobs) -> None:
    job_id = jobs.execute("sleep 1009").job_id
    jobs.pause(job_id)
    assert jobs.wait(job_id, timeout=0.1).reason == "timeout"
