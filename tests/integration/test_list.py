"""`list` shows which jobs there are, those of other servers too."""

import os

import pytest
from support import Jobs, ended, looks_at, write_finished

from tmuxjobs import InvalidInput
from tmuxjobs.store.store import CACHED

MANY = 2 * CACHED
"""Finished jobs: more than a process remembers."""


def test_list_is_newest_first_and_filters(jobs: Jobs) -> None:
    ids = [jobs.execute(command).job_id for command in ("true", "exit 1", "sleep 1000")]
    for job_id in ids[:2]:
        ended(jobs, job_id)
    assert [job.job_id for job in jobs.list().jobs] == ids[::-1]
    assert [job.job_id for job in jobs.list(status="failed").jobs] == [ids[1]]
    assert [job.job_id for job in jobs.list(name="SLEEP").jobs] == [ids[2]]
    limited = jobs.list(limit=1)
    assert (len(limited.jobs), limited.total) == (1, 3)


def test_job_of_another_server_is_listed_as_it_stands(jobs: Jobs) -> None:
    other = Jobs.open()
    done, fails = (other.execute(command, name="same").job_id for command in ("true", "exit 3"))
    for job_id in (done, fails):
        ended(other, job_id)
    assert {job.job_id: (job.status, job.exit_code) for job in jobs.list(name="same").jobs} == {
        done: ("completed", 0),
        fails: ("failed", 3),
    }
    assert "failed 3" in jobs.list(status="failed").text()


def test_total_counts_what_the_filters_leave(jobs: Jobs) -> None:
    for command in ("true", "true", "exit 1"):
        ended(jobs, jobs.execute(command).job_id)
    limited = jobs.list(status="completed", limit=1)
    assert (len(limited.jobs), limited.total) == (1, 2)
    assert jobs.list(name="nothing like it").jobs == ()


def test_damaged_record_is_named_beside_the_others(jobs: Jobs) -> None:
    broken, whole = (ended(jobs, jobs.execute("true").job_id).job_id for _ in range(2))
    for name in ("job.json", "exit.json"):
        (jobs.host.store.folder(broken) / name).write_text("{")
    listed = Jobs.open().list()
    assert [job.job_id for job in listed.jobs] == [whole]
    assert [broken in fault for fault in listed.damaged] == [True]
    assert broken in listed.text()


def test_wrong_filter_is_refused_with_those_there_are(jobs: Jobs) -> None:
    with pytest.raises(InvalidInput, match="'done' is not a status; there are running, paused, queued, completed"):
        jobs.list(status="done")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="limit must be 1 or more"):
        jobs.list(limit=0)


def records_read(seen: list[str]) -> set[str]:
    return {os.path.dirname(path) for path in seen} - {""}


def test_list_reads_no_more_jobs_than_it_shows(jobs: Jobs) -> None:
    ids = write_finished(jobs, MANY)
    newest = ended(jobs, jobs.execute("true", name="newest").job_id).job_id
    fresh = Jobs.open(jobs.host.settings)
    with looks_at(jobs.host.store.jobs) as seen:
        listed = fresh.list(limit=20)
    assert [job.job_id for job in listed.jobs] == [newest, *reversed(ids[-19:])]
    assert listed.total == MANY + 2
    assert len(records_read(seen)) == 20
    running = jobs.execute("sleep 1000").job_id
    with looks_at(jobs.host.store.jobs) as seen:
        listed = fresh.list(status="running")
    assert ([job.job_id for job in listed.jobs], listed.total) == ([running], 1)
    assert records_read(seen) == {running}


def test_idle_server_and_a_start_read_no_finished_job(jobs: Jobs) -> None:
    ids = set(write_finished(jobs, MANY))
    jobs.execute("true")  # makes the index that the records which were laid down here have not
    fresh = Jobs.open(jobs.host.settings)
    with looks_at(jobs.host.store.jobs) as seen:
        fresh.notice_prompts()
        fresh.events()
        fresh.execute("true")
        fresh.notice_prompts()
        fresh.events()
    assert not records_read(seen) & ids
    assert "." not in seen


def test_filtered_list_finds_jobs_wherever_they_are(jobs: Jobs) -> None:
    odd = jobs.execute("exit 3", name="odd").job_id
    ended(jobs, odd)
    write_finished(jobs, 50)
    for filtered in (jobs.list(status="failed", limit=5), jobs.list(name="ODD", limit=5)):
        assert ([job.job_id for job in filtered.jobs], filtered.total) == ([odd], 1)
    assert jobs.list(name="old-", limit=5).total == 50
