"""One state directory and two machines, as with home directories over NFS: each leaves the other's jobs alone."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Jobs, NotHere, ended, looks_at, on_another_machine, record_of, wait_until

from tmuxjobs.contract import FIRST
from tmuxjobs.pane import board as boards
from tmuxjobs.pane.board import Board
from tmuxjobs.verbs import prune

HERE = os.uname().nodename
Other = Callable[..., tuple[int, str]]


@pytest.fixture
def other(isolated: Path) -> Other:
    """Runs `tmuxjobs` on the other machine: its exit code and all that it said."""

    def run(*argv: str, **variables: str) -> tuple[int, str]:
        try:
            done = on_another_machine(isolated, sys.executable, "-m", "tmuxjobs", *argv, **variables)
        except NotHere as reason:
            pytest.skip(str(reason))
        return done.returncode, done.stdout + done.stderr

    return run


def said(answer: tuple[int, str]) -> Any:
    assert answer[0] == 0, answer
    return json.loads(answer[1])


def facts(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.lstat().st_ino, path.lstat().st_size) for path in folder.iterdir()}


@pytest.fixture
def running(jobs: Jobs) -> str:
    return jobs.execute("read line; echo got $line", name="asks").job_id


def test_job_of_another_machine_runs_there(running: str, other: Other) -> None:
    [job] = said(other("list", "--json"))["jobs"]
    assert (job["job_id"], job["status"]) == (running, "running")
    status = said(other("status", running, "--json"))
    assert (status["status"], status["detail"]) == ("running", f"running on host '{HERE}'")
    assert 0 <= status["runtime"] < 100
    assert said(other("list", "--status", "running", "--json"))["total"] == 1
    assert said(other("list", "--status", "lost", "--json"))["total"] == 0


@pytest.mark.parametrize(
    "argv",
    [
        ("kill", "JOB"),
        ("interact", "JOB", "x"),
        ("hold", "JOB"),
        ("release", "JOB"),
        ("screen", "JOB"),
        ("restart", "JOB"),
        ("attach", "JOB"),
    ],
    ids=lambda argv: argv[0],
)
def test_what_needs_its_window_is_refused_with_the_host(
    jobs: Jobs, running: str, other: Other, argv: tuple[str, ...]
) -> None:
    folder = jobs.host.store.folder(running)
    before = facts(folder)
    code, text = other(*(running if word == "JOB" else word for word in argv))
    assert code == 1
    assert f"'{running}' runs on host '{HERE}'" in text
    assert facts(folder) == before
    assert jobs.status(running).status == "running"


def test_agent_there_is_refused_with_the_host(isolated: Path, jobs: Jobs, running: str, other: Other) -> None:
    other("list")
    code = "import asyncio; from tmuxjobs import Jobs; jobs = Jobs.open(caller='agent'); "
    code += f"asyncio.run(jobs.interact_async('{running}', 'x'))"
    done = on_another_machine(isolated, sys.executable, "-c", code)
    assert f"'{running}' runs on host '{HERE}'" in done.stderr
    assert jobs.status(running).status == "running"


@pytest.mark.parametrize("argv", [("prune",), ("doctor", "--fix")], ids=lambda argv: argv[0])
def test_no_cleaning_touches_it(jobs: Jobs, running: str, other: Other, argv: tuple[str, ...]) -> None:
    folder = jobs.host.store.folder(running)
    assert (folder / FIRST).is_fifo()
    before = facts(folder)
    code, text = other(*argv, TMUXJOBS_KEEP_JOBS="0", TMUXJOBS_KEEP_JOBS_FOR="0", TMUXJOBS_KEEP_WINDOWS="0")
    assert code == 0, text
    assert facts(folder) == before
    assert jobs.host.store.index.marked() == [running]
    assert [entry.event for entry in jobs.events() if entry.job_id == running] == ["start"]
    jobs.interact(running, "x")
    assert ended(jobs, running).exit_code == 0
    assert "got x" in jobs.output(running).stdout


def test_server_there_tells_no_end_of_it(isolated: Path, jobs: Jobs, running: str, other: Other) -> None:
    other("list")
    code = "from tmuxjobs import Jobs; jobs = Jobs.open(); jobs.notice_prompts(); "
    code += "print([(entry.job_id, entry.event) for entry in jobs.events()])"
    done = on_another_machine(isolated, sys.executable, "-c", code)
    assert done.stdout.strip() == f"[('{running}', 'start')]", done.stderr
    assert [entry.event for entry in jobs.events()] == ["start"]


def test_doctor_names_what_only_a_person_can_know(running: str, other: Other) -> None:
    _, text = other("doctor")
    assert f"{running} on '{HERE}'; if a host is gone for good, remove the folders of its jobs" in text


def test_each_machine_has_its_own_limit_of_running_jobs(jobs: Jobs, running: str, other: Other) -> None:
    answer = said(other("execute", "--json", "--wait", "--", "echo there", TMUXJOBS_MAX_JOBS="1"))
    assert (answer["status"], answer["stdout"].strip()) == ("completed", "there")
    assert jobs.status(answer["job_id"]).status == "completed"
    assert answer["job_id"] != running


def test_job_that_another_machine_was_cut_off_with_is_not_lost_to_us(jobs: Jobs, other: Other) -> None:
    job_id = said(other("execute", "--json", "--", "sleep 1000"))["job_id"]
    status = jobs.status(job_id)
    assert (status.status, status.detail) == ("running", "running on host 'machine-b'")
    folder = jobs.host.store.folder(job_id)
    before = facts(folder)
    jobs.prune()
    jobs.doctor(fix=True)
    jobs.notice_prompts()
    assert facts(folder) == before
    assert said(other("status", job_id, "--json"))["status"] == "lost"


def test_end_is_seen_from_the_other_machine(jobs: Jobs, running: str, other: Other) -> None:
    code, text = other("wait", running, "--timeout", "0.1")
    assert (code, "timed out" in text or "not so" in text) == (124, True), text
    jobs.interact(running, "x")
    ended(jobs, running)
    assert said(other("status", running, "--json"))["status"] == "completed"
    assert "got x" in other("output", running)[1]
    assert "already" in other("kill", running)[1]


def test_job_that_has_just_ended_elsewhere_is_not_old(jobs: Jobs, other: Other) -> None:
    """How long we have been up says nothing of it."""
    job_id = ended(jobs, jobs.execute("true").job_id).job_id
    assert other("prune", TMUXJOBS_KEEP_JOBS_FOR="60")[0] == 0
    assert jobs.status(job_id).status == "completed"
    record = record_of(jobs, job_id)
    theirs = record.job.model_copy(update={"machine": "0" * 16, "boot": "another"})
    assert record.exit is not None
    jobs.host.store.save(jobs.host.store.folder(job_id) / "exit.json", record.exit.model_copy(update={"job": theirs}))
    again = Jobs.open(jobs.host.settings)
    written = (jobs.host.store.folder(job_id) / "exit.json").stat().st_mtime
    assert prune.age_of(again.host, job_id, written) < 60


def test_half_made_job_of_another_machine_is_left_to_it(jobs: Jobs, other: Other) -> None:
    jobs.host.store.index.mark("made-1")
    making = jobs.host.store.jobs / ".new-made-1"
    making.mkdir(mode=0o700)
    (making / "env").touch(mode=0o600)
    assert other("prune")[0] == 0
    assert said(other("execute", "--json", "--wait", "--", "true"))["status"] == "completed"
    assert (making / "env").exists()
    jobs.prune()
    assert not making.exists()
    wait_until(lambda: "made-1" not in jobs.host.store.unfinished_ids())


def test_welcome_page_shows_where_it_runs(jobs: Jobs, running: str) -> None:
    folder = jobs.host.store.folder(running)
    record = record_of(jobs, running)
    theirs = {"machine": "0" * 16, "host": "gpu1", "boot": "another"}
    jobs.host.store.save(folder / "job.json", record.job.model_copy(update=theirs))
    assert record.run is not None
    jobs.host.store.save(folder / "run.json", record.run.model_copy(update={"boot": "another"}))
    [job] = Board(str(jobs.host.store.root)).refresh()
    assert (job.state, job.summary(), job.is_quiet()) == ("running", "running on gpu1", False)
    jobs.host.store.save(folder / "job.json", record.job)
    jobs.host.store.save(folder / "run.json", record.run)
    jobs.interact(running, "x")
    ended(jobs, running)


def test_welcome_page_keeps_no_more_finished_jobs_than_it_shows(
    jobs: Jobs, running: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boards, "PAGE_JOBS", 5)
    ids = [ended(jobs, jobs.execute("true").job_id).job_id for _ in range(7)]
    board = Board(str(jobs.host.store.root))
    shown = [running, *reversed(ids[-4:])]
    assert [job.job_id for job in board.refresh()] == shown
    assert set(board.jobs) == set(shown)
    with looks_at(jobs.host.store.jobs) as seen:
        assert [job.job_id for job in board.refresh()] == shown
    assert set(seen) <= {f"{running}/exit.json"}
    jobs.host.store.remove(ids[0])
    board.refresh()
    assert board.older == set(ids[1:3])
