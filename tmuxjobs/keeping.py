"""`prune`: what goes of finished jobs and their windows, and what stays."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tmuxjobs import processes
from tmuxjobs.errors import LimitReached, StateError
from tmuxjobs.models import JobSpec, Lost
from tmuxjobs.store import discard

if TYPE_CHECKING:
    from tmuxjobs.jobs import Jobs

RECORDS_BYTES = 128 << 10


def prune(jobs: Jobs) -> list[str]:
    """Remove finished jobs beyond the configured age and count, and their windows; the ids that went."""
    jobs.journal_since()
    with jobs.store.lock():
        finished = sorted(finished_at(jobs).items(), key=lambda item: item[1], reverse=True)
        many = {name for place, (name, _) in enumerate(finished) if place >= jobs.settings.keep_jobs}
        old = [name for name, at in finished if name in many or is_older(jobs, name, at, jobs.settings.keep_jobs_for)]
        for name in old:
            jobs.store.remove(name)
        for path in jobs.store.half_made():
            discard(path)
        if jobs.settings.max_total_size is not None:
            old += make_room(jobs, 0)
    panes = jobs.tmux.panes() if old else {}
    for name in old:
        if name in panes:
            jobs.tmux.close(panes[name])
    jobs.prune_windows()
    return old


def finished_at(jobs: Jobs) -> dict[str, float]:
    """{job id: end, seconds since the epoch} of every job that has ended, also of a lost one without processes."""
    ended = {name: at for name in jobs.store.ids() if (at := mtime(jobs.store.jobs / name / "exit.json"))}
    for record in jobs.store.unfinished():
        settled, state = jobs.settle(record)
        if isinstance(state, Lost) and not jobs.orphans(settled, state):
            for path in jobs.store.transient(record.job.job_id):
                discard(path)
            ended[record.job.job_id] = record.job.created_at.timestamp()
    return ended


def make_room(jobs: Jobs, wanted: int) -> list[str]:
    """Remove the oldest finished jobs until `wanted` bytes more fit into the total; call it under the lock.

    A job that runs counts with all that it may still write. Raises LimitReached when these alone take too much.
    """
    total = jobs.settings.max_total_size or 0
    finished = sorted(finished_at(jobs).items(), key=lambda item: item[1])
    taken = {name: jobs.store.size(name) for name in jobs.store.ids()}
    for record in jobs.store.unfinished():
        if record.job.job_id not in dict(finished):
            taken[record.job.job_id] = max(taken[record.job.job_id], reserved(record.job))
    removed = []
    for name, _ in finished:
        if sum(taken.values()) + wanted <= total:
            break
        jobs.store.remove(name)
        del taken[name]
        removed.append(name)
    if wanted and sum(taken.values()) + wanted > total:
        raise LimitReached(
            f"The logs of {len(taken)} running jobs may take {sum(taken.values())} bytes and this one {wanted}, beyond "
            f"the {total} of TMUXJOBS_MAX_TOTAL_SIZE: wait for a job, or kill one."
        )
    return removed


def reserved(job: JobSpec) -> int:
    """What a job's folder may take on disk: its logs at their bound, and its records."""
    return job.max_output_bytes * (2 if job.separate_stderr else 1) + RECORDS_BYTES


def is_older(jobs: Jobs, job_id: str, ended: float, age_s: float) -> bool:
    """Whether it ended longer ago; the wall clock may have jumped, so a job of this boot is asked by the other one."""
    if time.time() - ended < age_s:
        return False
    with contextlib.suppress(StateError):
        record = jobs.store.look(job_id)
        if record is not None and record.job.boot == processes.boot_id():
            began = (record.run.started_monotonic if record.run else None) or record.job.created_monotonic
            return time.monotonic() - began - (record.exit.runtime_s if record.exit else 0.0) >= age_s
    return True


def prune_windows(jobs: Jobs) -> None:
    """Close the windows of finished jobs beyond the configured age and count."""
    dead = {name: pane for name, pane in jobs.tmux.panes().items() if pane.dead}
    if not dead:
        return
    folders = {name: jobs.store.jobs / name for name in dead}
    # A lost job has no exit record; its window, where a person sees that it is lost, stays as long as another's.
    ended = {name: mtime(folder / "exit.json") or mtime(folder / "output.log") for name, folder in folders.items()}
    oldest = time.time() - jobs.settings.keep_windows_for
    for place, name in enumerate(sorted(dead, key=lambda name: ended[name], reverse=True)):
        if (place >= jobs.settings.keep_windows or ended[name] < oldest) and not dead[name].viewers:
            jobs.tmux.close(dead[name])


def mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
