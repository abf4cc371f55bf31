"""Telling people that a job waits for them: servers do it, and `main` for the welcome page when there is none.

A job's end is told by its runner, which is there when nobody else is.
"""

from __future__ import annotations

import json
import sys
import time

from tmuxjobs.errors import apart, raised
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Record, Running
from tmuxjobs.text.log import log_size
from tmuxjobs.tmux.panes import Asking
from tmuxjobs.verbs.prompts import Prompt, prompts


def notice_prompts(host: Host, faults: list[str] | None = None) -> None:
    """Mark the windows of jobs that wait for input, and say so once to the people attached to our session.

    Costs next to nothing while no job runs or nobody is attached. Several may do this at once: tmux compares and marks
    in one act. Each job with a fault is named in *faults*; without that list it is raised when all else is done.
    """
    if faults is None:
        raised(lambda faults: notice_prompts(host, faults))
        return
    records = running(host, faults)
    if records and host.tmux.attended():
        mark(host, records, faults, attended=True)


def running(host: Host, faults: list[str]) -> list[Record]:
    found = []
    for record in host.store.unfinished():
        with apart(record.job.job_id, faults):
            if isinstance(host.settle(record)[1], Running):
                found.append(record)
    return found


def mark(host: Host, records: list[Record], faults: list[str], *, attended: bool) -> dict[str, Prompt]:
    """What each waits for, told to the windows; a notice is kept for when someone is there."""
    asking = prompts(host, records, faults=faults)
    marks: dict[str, Asking | None] = {}
    for record in records:
        prompt = asking.get(record.job.job_id)
        if record.run is None:
            continue
        if prompt is None:
            marks[record.run.pane] = None
            continue
        what = "a password" if prompt.waits_for == "password" else "your input"
        # The prompt of a shell that a person opened asks them nothing.
        silent = record.job.notify == "never" or record.job.adopted is not None or not attended
        notice = None if silent else f"{record.job.job_id} waits for {what}"
        with apart(record.job.job_id, faults):
            # What it has printed until now tells this question from the next one.
            marks[record.run.pane] = Asking(str(log_size(host.log_path(record))), notice)
    host.tmux.mark_prompts(marks, at=int(time.time()))
    return asking


def main(host: Host) -> None:
    """Look once and print {job id: [what it waits for, prompt]}."""
    faults: list[str] = []
    records = running(host, faults)
    asking = mark(host, records, faults, attended=host.tmux.attended()) if records else {}
    print(json.dumps({job_id: (prompt.waits_for, prompt.text) for job_id, prompt in asking.items()}))
    print(*faults, sep="\n", end="", file=sys.stderr)
