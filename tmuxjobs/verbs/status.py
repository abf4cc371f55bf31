"""`list` and `status`: which jobs there are, and the state of one."""

from __future__ import annotations

import builtins
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from tmuxjobs import verbs
from tmuxjobs.arguments import Scope
from tmuxjobs.contract import labels
from tmuxjobs.errors import HostError, InvalidInput, apart
from tmuxjobs.hosts import hosts
from tmuxjobs.hosts.local import Host
from tmuxjobs.job_answers import JobList, JobStatus, JobSummary
from tmuxjobs.models import STATUSES, Caller, Status
from tmuxjobs.policy import callers
from tmuxjobs.states import InSlurmQueue, Job, Lost, Running
from tmuxjobs.store import disk
from tmuxjobs.text.log import log_size
from tmuxjobs.verbs import attempts, queue

LOST_S = (0.05, 0.2, 0.5, 1.0)
"""Seconds between looks at a job whose host was lost meanwhile: one that goes down still answers now and then."""


def list(
    machines: Sequence[Host],
    caller: Caller,
    *,
    status: Status | None = None,
    limit: int = 20,
    name: str | None = None,
    scope: Scope | None = None,
) -> JobList:
    """Jobs newest first; `name` is a part of the id or the command.

    `scope` says whose: this `project`'s, only `mine`, or `all`, with those of an agent's project first; by default an
    agent sees its project's, a person all. A person's list without `status` and `name` reads only the jobs that it
    shows, so damage to others goes unnoticed. The jobs of a host that cannot be reached are shown as last known here.
    """
    if status is not None and status not in STATUSES:
        raise InvalidInput(f"'{status}' is not a status; there are {', '.join(STATUSES)}.")
    if limit < 1:
        raise InvalidInput("limit must be 1 or more.")
    wanted = callers.scope_of(caller, scope, machines[0].settings.scope)
    look = partial(_listed, caller=caller, status=status, limit=limit, name=name, wanted=wanted)
    lists = hosts.at_once(look, *machines)

    def place(job: JobSummary) -> tuple[bool, float]:
        started = job.started.timestamp() - ahead.get(job.host or "", 0.0)
        return caller.kind == "agent" and job.job_id in elsewhere, -started

    ahead = {host.name: host.ahead_s for host in machines}

    elsewhere = {job_id for one in lists for job_id in one.elsewhere}
    jobs = [job for one in lists for job in one.jobs]
    return JobList(
        jobs=tuple(jobs if len(lists) == 1 else sorted(jobs, key=place)[:limit]),
        total=sum(one.total for one in lists),
        other_projects=sum(one.other_projects for one in lists),
        damaged=tuple(dict.fromkeys(fault for one in lists for fault in one.damaged)),
    )


@dataclass(frozen=True)
class Listed:
    """What one host has to show, and which of these jobs belong to another project."""

    jobs: builtins.list[JobSummary]
    elsewhere: set[str]
    total: int
    other_projects: int
    damaged: builtins.list[str]


def _listed(
    host: Host, *, caller: Caller, status: Status | None, limit: int, name: str | None, wanted: Scope
) -> Listed:
    damaged: builtins.list[str] = []
    host.fresh()
    line = queue.move(host)
    ids = host.store.newest()
    if status in ("running", "paused", "unknown"):
        ids = host.store.unfinished_ids()
    elif status == "queued":
        ids = [*(entry.job_id for entry in queue.waiting(host)), *host.store.unfinished_ids()]
    ids, others = _by_scope(host, caller, ids, wanted, damaged)
    found, total = _found(host, ids, limit, status, name, damaged)
    strange = {job.id for job in found if not callers.same_project(caller, job.spec.caller)}

    def place(job: Job) -> tuple[bool, int]:
        return caller.kind == "agent" and job.id in strange, -job.spec.number

    shown = sorted(found, key=place)[:limit]
    asked = {}
    if runs := [job for job in shown if job.runs]:
        with contextlib.suppress(HostError):
            asked = verbs.prompts.prompts(host, runs, faults=damaged)
    noted = [job.id for job in runs if disk.is_there(str(job.folder), disk.HELD)]
    held = verbs.hold.held(host, noted) if noted else ()
    names = labels(job.spec.caller.project for job in shown)
    places = queue.places(host, shown, line)
    jobs = []
    for job in shown:
        with apart(job.id, damaged):
            prompt = asked.get(job.id)
            facts = _summary(host, job, places.get(job.id)) | {"project": names.get(job.spec.caller.project)}
            facts |= {"reason": "held by a person"} if job.id in held else {}
            jobs.append(JobSummary(**{"waits_for": prompt.waits_for if prompt else None} | facts))
    elsewhere = _found(host, others, 0, status, name, [])[1] if wanted == "project" else 0
    return Listed(jobs, strange, total, elsewhere, damaged)


def _by_scope(
    host: Host, caller: Caller, ids: builtins.list[str], scope: Scope, damaged: builtins.list[str]
) -> tuple[builtins.list[str], builtins.list[str]]:
    """The jobs within the scope, and the others; for `all`, those of the caller's project come first."""
    if scope == "all" and caller.kind == "person":
        return ids, []
    if host.scoped is not None and host.scoped[0] is ids and host.scoped[1] == (caller, scope):
        return host.scoped[2]
    within: builtins.list[str] = []
    others: builtins.list[str] = []
    wanted: Scope = "project" if scope == "all" else scope
    known: dict[int, bool] = {}
    host.store.callers.refresh()
    unlisted: dict[str, Caller] = {}
    faults = len(damaged)
    for job_id in ids:
        other = host.store.callers.known.get(job_id)
        if other is None:
            with apart(job_id, damaged):
                other = unlisted[job_id] = host.caller_of(job_id)
        if other is not None:
            inside = known.get(id(other))  # ten thousand jobs have few callers, and the host holds each once
            if inside is None:
                inside = known[id(other)] = callers.is_within(wanted, caller, other)
            (within if inside else others).append(job_id)
    if unlisted:
        host.store.callers.write(unlisted)
    found = (within + others, builtins.list[str]()) if scope == "all" else (within, others)
    host.scoped = (ids, (caller, scope), found) if len(damaged) == faults else None
    return found


def _found(
    host: Host,
    ids: builtins.list[str],
    limit: int,
    status: Status | None,
    name: str | None,
    damaged: builtins.list[str],
) -> tuple[builtins.list[Job], int]:
    """The matching jobs among the ids, if all match only the first `limit`, and how many match in all."""
    found: builtins.list[Job] = []
    total, whole = len(ids), status is None and not name
    for job_id in ids:
        if whole and len(found) >= limit:
            break
        total -= 1
        with apart(job_id, damaged):
            record = host.store.look(job_id)
            if record is None or (name and name.lower() not in f"{job_id} {record.job.command}".lower()):
                continue
            job = host.settle(record)
            if status is None or job.status == status:
                found.append(job)
                total += 1
    return found, total if whole else len(found)


def whole_id(host: Host, beginning: str) -> str:
    """The one id that begins with `beginning`, which is returned when none does; raises InvalidInput when several do.

    Among several, the only job of exactly that name that has not ended is chosen.
    """
    ids = host.store.ids()
    found = sorted(one for one in ids if one.startswith(beginning)) if beginning and beginning not in ids else []
    if len(found) > 1:
        named = {one for one in host.store.unfinished_ids() if one.rpartition("-")[0] == beginning}
        if len(named) == 1:
            return named.pop()
        more = f" and {len(found) - 3} others" if len(found) > 3 else ""
        raise InvalidInput(f"Several ids begin with '{beginning}': {', '.join(found[:3])}{more}; type more of it.")
    return found[0] if found else beginning


def with_window(host: Host) -> builtins.list[str]:
    """Jobs that a person can attach to."""
    return [*host.tmux.panes()]


def status(host: Host, job_id: str) -> JobStatus:
    """Everything known of one job. Raises JobNotFound."""
    for pause_s in LOST_S:
        with contextlib.suppress(HostError):
            return _status(host, job_id)
        time.sleep(pause_s)  # then the answer says that it is out of reach, or the host is back
    return _status(host, job_id)


def _status(host: Host, job_id: str) -> JobStatus:
    line = queue.move(host)
    job = host.look(job_id)
    place = queue.places(host, [job], line).get(job_id)
    ended, run = job.exit, job.run
    prompt = verbs.prompts.prompt(host, job) if job.runs else None
    people = verbs.hold.people(host, job_id) if job.runs else verbs.hold.People()
    left = host.left(job)
    summary = _summary(host, job, place)
    return JobStatus(
        **{"waits_for": prompt.waits_for if prompt else None} | summary | {"project": job.spec.caller.project or None},
        detail=f"queued, {place}" if place else job.detail,
        caller=job.spec.caller.described(ends_with=job.spec.ends_with is not None),
        pid=run.command_pid or run.srun_pid if run else None,
        cwd=job.spec.cwd,
        log_path=host.log_path(job.log),
        stderr_path=host.log_path(job.stderr) if job.stderr else None,
        attach=host.attach_line(job),
        log=verbs.output.log_state(job),
        log_bytes=ended.log.bytes if ended and ended.log else log_size(job.log),
        waiting_for_input=prompt is not None,
        prompt=prompt.text if prompt else None,
        full_screen=prompt is not None and prompt.full_screen,
        timeout=job.spec.timeout_s,
        # Those of an adopted process are known only to tmux, its parent, and those of a job in Slurm only to Slurm.
        cpu=ended.cpu_user_s + ended.cpu_system_s if ended and not (job.spec.adopted or job.spec.slurm) else None,
        max_rss_bytes=ended.max_rss_bytes if ended and not (job.spec.adopted or job.spec.slurm) else None,
        slurm=verbs.slurm.described(host, job),
        survivors=host.alive_of(job, ended.survivors) if ended else left.ours,
        not_touched=left.doubt,
        watchers=people.watchers,
        typed_ago=people.typed_ago,
        **attempts.facts(job),
        held_since=datetime.fromtimestamp(people.held_since, UTC) if people.held_since else None,
    )


def _summary(host: Host, job: Job, place: queue.QueuePlace | None) -> dict[str, Any]:
    """What `list` shows; for a running job, `reason` says that its command has ended.

    For a job that waits for its turn it says why.
    """
    state, reason = job.state, None
    if isinstance(state, Lost):
        reason = state.reason
    elif job.exit is not None:
        reason = job.exit.reason
    elif isinstance(state, InSlurmQueue):
        reason = f"in Slurm: {state.why}"
    elif isinstance(state, Running):
        ended = f"command ended with {state.command_ended}" if state.command_ended else None
        reason = state.between or ended
    elif place is not None:
        reason = place.why
    started = (job.run.started_at if job.run else None) or job.spec.created_at
    return {
        "job_id": job.id,
        "status": job.status,
        "command": job.spec.command,
        "started": started,
        "ended": job.exit.ended_at if job.exit else None,
        "exit_code": job.exit.exit_code if job.exit else None,
        "signal": job.exit.signal if job.exit else None,
        "reason": reason,
        "runtime": host.runtime(job),
        **attempts.summary(job),
        "left_running": host.left_running(job),
        "runtime_is_exact": host.knows_runtime(job),
        **({"waits_for": "approval"} if job.awaits_approval else {}),
        "group": job.spec.queue.group or None if job.spec.queue else None,
        "place": place.number if place else None,
        "adopted": job.spec.created_at if job.spec.adopted else None,
        "host": host.name or None,
    }


def usage(host: Host, job_ids: Sequence[str], faults: builtins.list[str] | None = None) -> dict[str, tuple[float, int]]:
    """{running job: (processor seconds so far, resident bytes)} of its processes, by one read of all.

    A job with a fault is left out; the fault is named in *faults*.
    """
    roots, itself = {}, {}
    for job_id in job_ids:
        with apart(job_id, [] if faults is None else faults):
            record = host.store.look(job_id)
            if record is not None and record.root is not None:
                roots[job_id] = record.root
                itself[record.root] = record.job.adopted is not None
    used = host.machine.usage(itself) if roots else {}
    return {job_id: used[root] for job_id, root in roots.items()}
