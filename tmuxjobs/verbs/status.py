"""`list` and `status`: which jobs there are, and how one stands."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tmuxjobs.answers import JobList, JobStatus, JobSummary
from tmuxjobs.errors import InvalidInput, apart
from tmuxjobs.hosts import job_processes
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import STATUSES, Lost, Record, Running, State, Status, describe, status_of
from tmuxjobs.text.log import log_size
from tmuxjobs.verbs import (
    hold,
    kill,
    output,
    prompts,
)


def list(host: Host, *, status: Status | None = None, limit: int = 20, name: str | None = None) -> JobList:
    """Jobs newest first; `name` is a part of the id or the command."""
    if status is not None and status not in STATUSES:
        raise InvalidInput(f"'{status}' is no status; there are {', '.join(STATUSES)}.")
    if limit < 1:
        raise InvalidInput("limit must be 1 or more.")
    found: builtins.list[tuple[Record, State]] = []
    damaged: builtins.list[str] = []
    for job_id in host.store.ids():
        with apart(job_id, damaged):
            record = host.store.look(job_id)
            if record is None or (name and name.lower() not in f"{job_id} {record.job.command}".lower()):
                continue
            record, state = host.settle(record)
            if status is None or status_of(state) == status:
                found.append((record, state))
    found.sort(key=lambda pair: pair[0].job.number, reverse=True)
    shown = found[:limit]
    running = [record for record, state in shown if isinstance(state, Running)]
    asked = prompts.prompts(host, running, faults=damaged)
    jobs = []
    for record, state in shown:
        with apart(record.job.job_id, damaged):
            prompt = asked.get(record.job.job_id)
            waits_for = prompt.waits_for if prompt else None
            jobs.append(JobSummary(**_summary(host, record, state), waits_for=waits_for))
    return JobList(jobs=tuple(jobs), total=len(found), damaged=tuple(damaged))


def status(host: Host, job_id: str) -> JobStatus:
    """Everything known of one job. Raises JobNotFound."""
    record, state = host.look(job_id)
    ended, run = record.exit, record.run
    prompt = prompts.prompt(host, record) if isinstance(state, Running) else None
    people = hold.people(host, job_id) if isinstance(state, Running) else hold.People()
    left = host.left(record, state)
    return JobStatus(
        **_summary(host, record, state),
        detail=describe(state),
        pid=run.command_pid if run else None,
        cwd=record.job.cwd,
        log_path=str(host.log_path(record)),
        stderr_path=str(host.stderr_path(record)) if record.job.separate_stderr else None,
        attach=host.attach_line(record),
        log=output.log_state(host, record, state),
        log_bytes=ended.log.bytes if ended and ended.log else log_size(host.log_path(record)),
        waiting_for_input=prompt is not None,
        waits_for=prompt.waits_for if prompt else None,
        prompt=prompt.text if prompt else None,
        timeout=record.job.timeout_s,
        # Of an adopted process they were told to tmux, its parent, alone.
        cpu=ended.cpu_user_s + ended.cpu_system_s if ended and not record.job.adopted else None,
        max_rss_bytes=ended.max_rss_bytes if ended and not record.job.adopted else None,
        left_running=kill.alive_of(host, record, ended.left_running) if ended else (),
        survivors=kill.alive_of(host, record, ended.survivors) if ended else left.ours,
        not_touched=left.doubt,
        watchers=people.watchers,
        typed_ago=people.typed_ago,
        held_since=datetime.fromtimestamp(people.held_since, UTC) if people.held_since else None,
    )


def _summary(host: Host, record: Record, state: State) -> dict[str, Any]:
    started = (record.run.started_at if record.run else None) or record.job.created_at
    return {
        "job_id": record.job.job_id,
        "status": status_of(state),
        "command": record.job.command,
        "started": started,
        "ended": record.exit.ended_at if record.exit else None,
        "exit_code": record.exit.exit_code if record.exit else None,
        "signal": record.exit.signal if record.exit else None,
        "reason": state.reason if isinstance(state, Lost) else record.exit.reason if record.exit else None,
        "runtime": host.runtime(record, state),
        "adopted": record.job.created_at if record.job.adopted else None,
    }


def usage(host: Host, job_ids: Sequence[str], faults: builtins.list[str] | None = None) -> dict[str, tuple[float, int]]:
    """{running job: (processor seconds so far, resident bytes)} of its processes, by one look at all.

    A job with a fault is left out; the fault is named in *faults*.
    """
    roots, itself = {}, {}
    for job_id in job_ids:
        with apart(job_id, [] if faults is None else faults):
            record = host.store.look(job_id)
            if record is not None and record.root is not None:
                roots[job_id] = record.root
                itself[record.root] = record.job.adopted is not None
    used = job_processes.usage(itself) if roots else {}
    return {job_id: used[root] for job_id, root in roots.items()}
