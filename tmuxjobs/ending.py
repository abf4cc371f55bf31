"""Which jobs have started and ended, in order: keeps the journal in step with the records."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tmuxjobs import processes
from tmuxjobs.errors import StateError, apart
from tmuxjobs.journal import Entry
from tmuxjobs.models import Running, Starting, status_of

if TYPE_CHECKING:
    from tmuxjobs.jobs import Jobs

LOST_S = 2.0
"""Between two looks for jobs whose runner was killed; a record of the end is seen at once."""


def started(jobs: Jobs, job_id: str) -> None:
    """Write down a start; call it under the lock."""
    if not jobs.journal.exists:
        _begin(jobs)
        return
    jobs.journal.append([Entry(n=0, event="start", job_id=job_id, at=datetime.now(UTC))])


def _begin(jobs: Jobs) -> None:
    """A journal that is not there begins with the jobs that run."""
    unfinished = sorted(jobs.store.unfinished(), key=lambda record: record.job.number)
    jobs.journal.append([Entry(n=0, event="start", job_id=r.job.job_id, at=r.job.created_at) for r in unfinished])


def journal(jobs: Jobs, since: int = 0) -> tuple[Entry, ...]:
    """The entries after number `since`, with every end that has happened by now. Raises StateError."""
    if not jobs.journal.exists:
        with jobs.store.lock():
            if not jobs.journal.exists:
                _begin(jobs)
    if _ends(jobs):
        with jobs.store.lock():
            jobs.journal.append(_ends(jobs))
    return tuple(entry for entry in jobs.journal.read() if entry.n > since)


def ended(jobs: Jobs, names: Sequence[str]) -> None:
    """Write down the ends of jobs that are about to be removed; call it under the lock."""
    unwritten = set(jobs.journal.open_jobs())
    if found := _in_order(_end(jobs, name) for name in names if name in unwritten):
        jobs.journal.append(found)


def _ends(jobs: Jobs) -> list[Entry]:
    """The ends that are not written down yet, oldest first."""
    looks_for_lost = time.monotonic() - jobs.looked_for_lost_at > LOST_S

    def look() -> Iterator[tuple[float, Entry] | None]:
        for job_id in jobs.journal.open_jobs():
            folder = jobs.store.folder(job_id)
            if looks_for_lost or not folder.exists() or os.path.lexists(folder / "exit.json"):
                end = None
                with apart(job_id, []):  # `list` names it
                    end = _end(jobs, job_id)
                yield end

    found = _in_order(look())
    if not found:
        jobs.looked_for_lost_at = time.monotonic() if looks_for_lost else jobs.looked_for_lost_at
    return found


def _in_order(found: Iterable[tuple[float, Entry] | None]) -> list[Entry]:
    return [entry for _, entry in sorted(filter(None, found), key=lambda one: one[0])]


def _end(jobs: Jobs, job_id: str) -> tuple[float, Entry] | None:
    """The end, and when it was by the clock that does not jump; None when there is none yet."""
    try:
        record = jobs.store.look(job_id)
    except StateError:  # damaged: `list` tells it
        return None
    if record is None:
        return time.monotonic(), Entry(n=0, event="end", job_id=job_id, at=datetime.now(UTC))
    record, state = jobs.settle(record)
    if isinstance(state, Starting | Running):
        return None
    ended, run = record.exit, record.run
    entry = Entry(
        n=0,
        event="end",
        job_id=job_id,
        at=ended.ended_at if ended else datetime.now(UTC),
        status=status_of(state),
        exit_code=ended.exit_code if ended else None,
    )
    if record.job.boot != processes.boot_id():
        return 0.0, entry
    began = (run.started_monotonic if run else None) or record.job.created_monotonic
    return began + ended.runtime_s if ended else time.monotonic(), entry
