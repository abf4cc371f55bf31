"""Which jobs have started and ended, in order: keeps the journal in step with the records."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from tmuxjobs.errors import StateError, apart
from tmuxjobs.hosts import job_processes
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Entry

LOST_S = 2.0
"""Between two looks for jobs whose runner was killed; a record of the end is seen at once."""


def started(host: Host, job_id: str) -> None:
    """Write down a start; call it under the lock."""
    if not host.journal.exists:
        _begin(host)
        return
    host.journal.append([Entry(n=0, event="start", job_id=job_id, at=datetime.now(UTC))])


def _begin(host: Host) -> None:
    """A journal that is not there begins with the jobs that run."""
    unfinished = sorted(host.store.unfinished(), key=lambda record: record.job.number)
    host.journal.append([Entry(n=0, event="start", job_id=r.job.job_id, at=r.job.created_at) for r in unfinished])


def journal(host: Host, since: int = 0) -> tuple[Entry, ...]:
    """The entries after number `since`, with every end that has happened by now. Raises StateError."""
    if not host.journal.exists:
        with host.store.lock():
            if not host.journal.exists:
                _begin(host)
    if _ends(host):
        with host.store.lock():
            host.journal.append(_ends(host))
    return tuple(entry for entry in host.journal.read() if entry.n > since)


def ended(host: Host, names: Sequence[str]) -> None:
    """Write down the ends of jobs that are about to be removed; call it under the lock."""
    unwritten = set(host.journal.open_jobs())
    if found := _in_order(_end(host, name) for name in names if name in unwritten):
        host.journal.append(found)


def _ends(host: Host) -> list[Entry]:
    """The ends that are not written down yet, oldest first."""
    looks_for_lost = time.monotonic() - host.looked_for_lost_at > LOST_S

    def look() -> Iterator[tuple[float, Entry] | None]:
        for job_id in host.journal.open_jobs():
            folder = host.store.folder(job_id)
            if looks_for_lost or not folder.exists() or os.path.lexists(folder / "exit.json"):
                end = None
                with apart(job_id, []):  # `list` names it
                    end = _end(host, job_id)
                yield end

    found = _in_order(look())
    if not found:
        host.looked_for_lost_at = time.monotonic() if looks_for_lost else host.looked_for_lost_at
    return found


def _in_order(found: Iterable[tuple[float, Entry] | None]) -> list[Entry]:
    return [entry for _, entry in sorted(filter(None, found), key=lambda one: one[0])]


def _end(host: Host, job_id: str) -> tuple[float, Entry] | None:
    """The end, and when it was by the clock that does not jump; None when there is none yet."""
    try:
        record = host.store.look(job_id)
    except StateError:  # damaged: `list` tells it
        return None
    if record is None:
        return time.monotonic(), Entry(n=0, event="end", job_id=job_id, at=datetime.now(UTC))
    job = host.settle(record)
    if job.running:
        return None
    ended = job.exit
    entry = Entry(
        n=0,
        event="end",
        job_id=job_id,
        at=ended.ended_at if ended else datetime.now(UTC),
        status=job.status,
        exit_code=ended.exit_code if ended else None,
    )
    if job.spec.boot != job_processes.boot_id():
        return 0.0, entry
    return job.record.started_monotonic + ended.runtime_s if ended else time.monotonic(), entry
