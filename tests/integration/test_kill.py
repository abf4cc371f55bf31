"""Killing ends the whole tree and says what was there to kill."""

import os
import secrets

import pytest
from support import Tmux, ended, sleeping, wait_until

from tmuxjobs import Jobs
from tmuxjobs.errors import InvalidInput


def stubborn_command(seconds: int) -> str:
    return (
        f"sh -c 'sleep {seconds} & setsid sleep {seconds} & nohup sleep {seconds} & setsid -f env -i sleep {seconds}; "
        'trap "" TERM HUP; echo ready; while :; do sleep 1; done\''
    )


def stubborn(jobs: Jobs, *, timeout: float | None = None) -> tuple[str, int]:
    seconds = 1000 + secrets.randbelow(10**8)
    job_id = jobs.execute(stubborn_command(seconds), timeout=timeout, cwd=os.environ["HOME"]).job_id
    wait_until(lambda: sleeping(seconds), lambda found: len(found) == 4)
    wait_until(lambda: jobs.output(job_id).stdout, lambda text: "ready" in text)
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
    job_id, seconds = stubborn(jobs, timeout=2.0)
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
    with pytest.raises(InvalidInput, match="'NOPE' is no signal"):
        jobs.kill(job_id, signal="NOPE")
    assert jobs.status(job_id).status == "running"
