"""`prune`: what goes of finished jobs and their windows, and what stays."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from tmuxjobs.models import LAUNCH_S, Lost

if TYPE_CHECKING:
    from tmuxjobs.jobs import Jobs


def prune(jobs: Jobs) -> list[str]:
    """Remove finished jobs beyond the configured age and count, and their windows; the ids that went."""
    with jobs.store.lock():
        finished = sorted(finished_at(jobs).items(), key=lambda item: item[1], reverse=True)
        oldest = time.time() - jobs.settings.keep_jobs_for
        old = [name for place, (name, at) in enumerate(finished) if place >= jobs.settings.keep_jobs or at < oldest]
        panes = jobs.tmux.panes() if old else {}
        for name in old:
            jobs.store.remove(name)
        jobs.store.sweep(older_than_s=LAUNCH_S)
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
            ended[record.job.job_id] = record.job.created_at.timestamp()
    return ended


def prune_windows(jobs: Jobs) -> None:
    """Close the windows of finished jobs beyond the configured age and count."""
    dead = {name: pane for name, pane in jobs.tmux.panes().items() if pane.dead}
    if not dead:
        return
    ended = {name: mtime(jobs.store.jobs / name / "exit.json") for name in dead}
    oldest = time.time() - jobs.settings.keep_windows_for
    for place, name in enumerate(sorted(dead, key=lambda name: ended[name], reverse=True)):
        if (place >= jobs.settings.keep_windows or ended[name] < oldest) and not dead[name].viewers:
            jobs.tmux.close(dead[name])


def mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
