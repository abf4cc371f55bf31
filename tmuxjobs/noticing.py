"""Telling people that a job waits for them. Its end is told by its runner, which is there when nobody else is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tmuxjobs.asking import prompts
from tmuxjobs.models import Running
from tmuxjobs.output import log_size
from tmuxjobs.tmux import Asking

if TYPE_CHECKING:
    from tmuxjobs.jobs import Jobs


def notice_prompts(jobs: Jobs) -> None:
    """Mark the windows of jobs that wait for input, and say so once to the people attached to our session.

    Costs next to nothing while no job runs or nobody is attached. Several servers may do this at once: tmux compares
    and marks in one act.
    """
    records = [record for record in jobs.store.unfinished() if isinstance(jobs.settle(record)[1], Running)]
    if not records or not jobs.tmux.attended():
        return
    asking = prompts(jobs, records)
    marks: dict[str, Asking | None] = {}
    for record in records:
        prompt = asking.get(record.job.job_id)
        if record.run is None:
            continue
        if prompt is None:
            marks[record.run.pane] = None
            continue
        what = "a password" if prompt.waits_for == "password" else "your input"
        notice = None if record.job.notify == "never" else f"{record.job.job_id} waits for {what}"
        # What it has printed until now tells this question from the next one.
        marks[record.run.pane] = Asking(str(log_size(jobs.log_path(record))), notice)
    jobs.tmux.mark_prompts(marks, at=int(time.time()))
