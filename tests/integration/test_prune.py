"""`prune` removes finished jobs beyond what is kept, and nothing else."""

import os
import shutil
import signal
from collections.abc import Callable

import pytest
from support import Jobs, Tmux, ended, looks_at, record_of, wait_until, write_finished

from tmuxjobs import JobNotFound, Settings
from tmuxjobs.system import processes
from tmuxjobs.verbs import prune


def test_prune_keeps_the_newest_and_whatever_runs() -> None:
    jobs = Jobs.open(Settings.load(keep_jobs=2))
    running = jobs.execute("sleep 1000").job_id
    ids = [jobs.execute("true").job_id for _ in range(4)]
    for job_id in ids:
        ended(jobs, job_id)
    assert len(jobs.prune()) == 2
    assert {job.job_id for job in jobs.list().jobs} == {running, *ids[2:]}


def test_prune_removes_what_is_older_than_configured() -> None:
    jobs = Jobs.open(Settings.load(keep_jobs_for=0))
    ended(jobs, jobs.execute("true").job_id)
    running = jobs.execute("sleep 1000").job_id
    jobs.prune()
    assert [job.job_id for job in jobs.list().jobs] == [running]


def test_removed_id_is_not_reused() -> None:
    jobs = Jobs.open(Settings.load(keep_jobs=0))
    seen = set()
    for _ in range(5):
        job_id = jobs.execute("true", name="same").job_id
        assert job_id not in seen
        seen.add(job_id)
        ended(jobs, job_id)
        jobs.prune()


def test_all_of_a_pruned_job_goes_with_its_window(tmux: Tmux) -> None:
    jobs = Jobs.open(Settings.load(keep_jobs=0))
    job_id = jobs.execute("echo out; echo err >&2", separate_stderr=True).job_id
    ended(jobs, job_id)
    assert jobs.prune() == [job_id]
    assert not jobs.host.store.folder(job_id).exists()
    wait_until(lambda: tmux("list-windows", "-t", "=mcp-jobs", "-F", "#{window_name}"), lambda text: job_id not in text)
    with pytest.raises(JobNotFound):
        jobs.status(job_id)


def test_lost_job_goes_once_nothing_of_it_lives() -> None:
    jobs = Jobs.open(Settings.load(keep_jobs=0))
    job_id = jobs.execute("trap '' HUP; echo ready; while :; do sleep 1; done").job_id
    wait_until(lambda: "ready" in jobs.output(job_id).stdout)
    run = record_of(jobs, job_id).run
    assert run is not None
    processes.send(run.pid, run.start, signal.SIGKILL)
    assert ended(jobs, job_id).status == "lost"
    assert jobs.prune() == []
    jobs.kill(job_id, grace=0)
    assert jobs.prune() == [job_id]


def test_prune_reads_each_finished_job_once(jobs: Jobs) -> None:
    ids = set(write_finished(jobs, 300))
    many = Jobs.open(Settings.load(keep_jobs=1000))
    many.prune()
    with looks_at(jobs.host.store.jobs) as seen:
        many.prune()
    assert not {os.path.dirname(path) for path in seen} & ids
    assert len(Jobs.open(Settings.load(keep_jobs=20)).prune()) == 281
    assert jobs.list().total == 20


def test_tmux_is_not_asked_about_a_state_directory_that_is_gone(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    timers: list[Callable[[], None]] = []
    monkeypatch.setattr(prune.threading.Timer, "start", lambda timer: timers.append(timer.function))
    jobs.execute("true", wait=10)
    shutil.rmtree(jobs.host.store.root)
    asked: list[str] = []
    monkeypatch.setattr(jobs.host.tmux, "panes", lambda: asked.append("panes") or {})
    timers[-1]()
    assert asked == []
