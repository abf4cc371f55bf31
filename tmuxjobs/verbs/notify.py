"""Telling people that a job waits for them: servers do it, and `main` for the welcome page when there is none.

A job's end is announced by its runner, which is there when nobody else is.
"""

from __future__ import annotations

import json
import sys
import time

from tmuxjobs.errors import apart, raised
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Job
from tmuxjobs.text.log import log_size
from tmuxjobs.tmux.panes import Asking
from tmuxjobs.verbs.prompts import Prompt, is_printing, prompts

SETTLED_S = 1.0
"""Seconds without growth of the log before people are notified: on a busy machine the question comes after its read."""


def notice_prompts(host: Host, faults: list[str] | None = None) -> None:
    """Mark the windows of jobs that wait for input, and say so once to the people attached to our session.

    Costs next to nothing while no job runs or nobody is attached. Several may do this at once: tmux compares and marks
    in one act. Each job with a fault is named in *faults*; without that list it is raised when all else is done.
    """
    if faults is None:
        raised(lambda faults: notice_prompts(host, faults))
        return
    jobs = running(host, faults)
    if jobs and host.tmux.attended():
        mark(host, jobs, faults, attended=True)


def running(host: Host, faults: list[str]) -> list[Job]:
    """Those whose windows and terminals are on this machine."""
    found = []
    for record in host.store.unfinished():
        with apart(record.id, faults):
            job = host.settle(record)
            if job.runs and host.is_here(job.run):
                found.append(job)
    return found


def mark(host: Host, jobs: list[Job], faults: list[str], *, attended: bool) -> dict[str, Prompt]:
    """What each waits for, marked on its window; notices wait until someone is attached."""
    asking = prompts(host, jobs, faults=faults)
    marks: dict[str, Asking | None] = {}
    for job in jobs:
        prompt = asking.get(job.id)
        if job.run is None:
            continue
        if prompt is None:
            marks[job.run.pane] = None
            continue
        what = "a password" if prompt.waits_for == "password" else "your input"
        # The prompt of a shell that a person opened asks them nothing.
        silent = job.spec.notify == "never" or job.spec.adopted is not None or not attended
        with apart(job.id, faults):
            silent = silent or is_printing(job, within=SETTLED_S)
            notice = None if silent else f"{job.id} waits for {what}"
            # What it has printed until now tells this question from the next one.
            marks[job.run.pane] = Asking(str(log_size(job.log)), notice)
    host.tmux.mark_prompts(marks, at=int(time.time()))
    return asking


def main(host: Host) -> None:
    """Look once and print {job id: [what it waits for, prompt]}."""
    faults: list[str] = []
    jobs = running(host, faults)
    asking = mark(host, jobs, faults, attended=host.tmux.attended()) if jobs else {}
    print(json.dumps({job_id: (prompt.waits_for, prompt.text) for job_id, prompt in asking.items()}))
    print(*faults, sep="\n", end="", file=sys.stderr)
