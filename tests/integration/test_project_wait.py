"""`wait` without a job: whatever ends first in the project."""

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from fastmcp import Client
from support import Jobs, server_of

from tmuxjobs import Settings
from tmuxjobs.answers import Waited
from tmuxjobs.errors import InvalidInput
from tmuxjobs.hosts.local import Host, own_environment
from tmuxjobs.models import Caller
from tmuxjobs.policy.callers import project_of
from tmuxjobs.verbs import wait, waiter


def test_first_end_of_the_project_is_answered(jobs: Jobs) -> None:
    jobs.execute("sleep 1000")
    job_id = jobs.execute("read x; exit 5").job_id
    jobs.execute("sleep 1000")
    waiting = wait.begin_for(jobs.host, Caller(project=project_of(jobs.host.cwd)), timeout=60, pattern="never")
    jobs.interact(job_id, "go", wait=0)
    answer = waiter.run(waiting)
    assert (answer.job_id, answer.reason, answer.exit_code, answer.jobs) == (job_id, "exit", 5, ())


def test_job_that_starts_meanwhile_counts(jobs: Jobs) -> None:
    jobs.execute("sleep 1000")
    answers: list[Waited] = []
    waiting = threading.Thread(target=lambda: answers.append(jobs.wait(timeout=60)))
    waiting.start()
    ids = []
    while not answers:
        ids.append(Jobs.open(Settings.load(max_jobs=40)).execute("exit 6").job_id)
        waiting.join(1)
    assert answers[0].exit_code == 6
    assert answers[0].job_id in ids


def test_other_projects_do_not_count(jobs: Jobs, tmp_path: Path) -> None:
    jobs.execute("sleep 1000")
    elsewhere = Jobs(Host(Settings.load(max_jobs=40), environ=own_environment(), cwd=tmp_path))
    with pytest.raises(InvalidInput, match="No job of this project runs"):
        elsewhere.wait(timeout=1)
    job_id = elsewhere.execute("sleep 1000").job_id
    answer = elsewhere.wait(timeout=0)
    assert (answer.job_id, answer.reason) == (job_id, "timeout")
    assert "call `wait` again to continue" in answer.note


def test_cursor_needs_a_job(jobs: Jobs) -> None:
    jobs.execute("sleep 1000")
    with pytest.raises(InvalidInput, match="`cursor` and `mode` go with the jobs"):
        jobs.wait(cursor=0)


def test_question_ends_it_too(jobs: Jobs) -> None:
    jobs.execute("sleep 1000")
    job_id = jobs.execute("printf 'Go on? '; read x").job_id
    answer = jobs.wait(timeout=60)
    assert (answer.job_id, answer.reason, answer.prompt) == (job_id, "input", "Go on? ")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_tool_waits_for_the_project(jobs: Jobs, mode: Any) -> None:
    async with Client(server_of(jobs), mode=mode) as client:
        while True:
            job_id = (await asyncio.to_thread(jobs.execute, "sleep 0.5; exit 5")).job_id
            answer = await client.call_tool("wait", {}, raise_on_error=False)
            if not answer.is_error:
                break
            assert "No job of this project runs" in answer.content[0].text  # type: ignore[union-attr]
        told = answer.structured_content or {}
        assert (told["job_id"], told["exit_code"]) == (job_id, 5)


def test_command_waits_for_the_project(jobs: Jobs) -> None:
    argv = [sys.executable, "-m", "tmuxjobs", "wait"]
    assert subprocess.run(argv, stderr=subprocess.DEVNULL).returncode == 2
    for pause in (2, 8, 32):
        job_id = jobs.execute(f"sleep {pause}; exit 5").job_id
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode != 2:  # it had ended before
            break
    assert (done.returncode, job_id in done.stdout) == (1, True)
