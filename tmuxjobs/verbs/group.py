"""`group`: jobs that share a limit. A person sets it, holds those that wait, and may pause those that run."""

from __future__ import annotations

import contextlib
from typing import Any

from tmuxjobs.errors import InvalidInput, TmuxjobsError, apart
from tmuxjobs.hosts.local import Host
from tmuxjobs.job_answers import Group
from tmuxjobs.pane import line
from tmuxjobs.pane.queue import waiting
from tmuxjobs.verbs import kill, launch, queue

LIMIT = 1000
LOOKED_AT = 1000
"""How many of the newest jobs are searched for the names of groups."""


def group(
    home: Host,
    name: str,
    *,
    host: str | None = None,
    limit: int | None = None,
    pause: bool = False,
    resume: bool = False,
    jobs: bool = False,
) -> Group:
    """The state of a group, after setting its `limit` (0 for none), pausing or resuming it.

    No job of a paused group starts; running ones go on, unless `jobs` pauses them too. `resume` resumes only those
    that the pause has stopped. Each `host` has its own groups. Raises InvalidInput, StateError.
    """
    there = home.chosen(host)
    queue.checked_group(name)
    if pause and resume:
        raise InvalidInput("Give pause or resume, not both.")
    if jobs and not pause:
        raise InvalidInput("jobs goes with pause; `resume` resumes the jobs that the pause has stopped.")
    if limit is not None and not 0 <= limit <= LIMIT:
        raise InvalidInput(f"limit is a whole number from 0 (none) to {LIMIT}, not {limit}.")
    if limit is None and not pause:
        refuse_unknown(there, name)
    changes: dict[str, Any] = {"limit": limit} if limit is not None else {}
    if pause or resume:
        changes["paused"] = pause
    if changes:
        change(there, name, changes)
    if jobs:
        pause_jobs(there, name)
    elif resume:
        resume_jobs(there, name)
    left = queue.move(there)
    for entry in [one for one in left.entries if one.job_id in left.taken] if left is not None else ():
        launch.await_start(there, entry.job_id)  # another process gave it its turn first
    return standing(there, name)


def refuse_unknown(host: Host, name: str) -> None:
    """Raises InvalidInput if no person, setting or job has named that group."""
    state = str(host.settings.state_dir)
    known = {*line.groups(state), *(host.settings.groups or {}), *(entry.group for entry in waiting(state))}
    if name in known:
        return
    for job_id in host.store.newest()[:LOOKED_AT]:
        with apart(job_id, []):  # `list` names it
            record = host.store.look(job_id)
            known.add((record.job.queue.group if record is not None and record.job.queue is not None else "") or "")
    if name not in known:
        there = f"there are {', '.join(sorted(known - {''}))}" if known - {""} else "`execute --group` makes one"
        raise InvalidInput(f"There is no group '{name}'; {there}.")


def change(host: Host, name: str, changes: dict[str, Any]) -> None:
    queue.held(host.machine.change_group, host.root, name, changes)


def members(host: Host, name: str) -> list[str]:
    """The jobs of the group that run, and are not paused."""
    found = []
    for record in host.store.unfinished():
        with apart(record.id, []):  # `list` names it
            of = record.job.queue
            if of is not None and of.group == name and host.settle(record).status == "running":
                found.append(record.id)
    return found


def pause_jobs(host: Host, name: str) -> None:
    """Pause the running jobs, recording them first: if we are killed meanwhile, `resume` covers each one paused."""
    ids = members(host, name)
    stopped = line.groups(str(host.settings.state_dir)).get(name, {}).get("stopped", [])
    change(host, name, {"stopped": [*dict.fromkeys([*stopped, *ids])]})
    for job_id in ids:
        with contextlib.suppress(TmuxjobsError):  # it has ended meanwhile
            kill.pause(host, job_id)


def resume_jobs(host: Host, name: str) -> None:
    for job_id in line.groups(str(host.settings.state_dir)).get(name, {}).get("stopped", []):
        with contextlib.suppress(TmuxjobsError):
            kill.resume(host, job_id)
    change(host, name, {"stopped": []})


def standing(host: Host, name: str) -> Group:
    state = str(host.settings.state_dir)
    facts = line.groups(state).get(name, {})
    running = 0
    for record in host.store.unfinished():
        of = record.job.queue
        running += of is not None and of.group == name and host.settle(record).running
    return Group(
        group=name,
        limit=int(facts.get("limit", (host.settings.groups or {}).get(name, 0)) or 0),
        paused=bool(facts.get("paused")),
        running=running,
        queued=sum(entry.group == name for entry in waiting(state)),
        paused_jobs=tuple(facts.get("stopped", [])),
    )
