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
from tmuxjobs.models import STATUSES, Job, Lost, Status
from tmuxjobs.text.log import log_size
from tmuxjobs.verbs import (
    hold,
    kill,
    output,
    prompts,
)


def list(host: Host, *, status: Status | None = None, limit: int = 20, name: str | None = None) -> JobList:
    """Jobs newest first; `name` is a part of the id or the command.

    Without `status` and `name` only the jobs that are shown are read, so damage to others goes unnoticed.
    """
    if status is not None and status not in STATUSES:
        raise InvalidInput(f"'{status}' is not a status; there are {', '.join(STATUSES)}.")
    if limit < 1:
        raise InvalidInput("limit must be 1 or more.")
    found: builtins.list[Job] = []
    damaged: builtins.list[str] = []
    ids = host.store.unfinished_ids() if status == "running" else host.store.newest()
    total, whole = len(ids), status is None and not name
    for job_id in ids:
        if whole and len(found) == limit:
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
    found.sort(key=lambda job: job.spec.number, reverse=True)
    shown = found[:limit]
    asked = prompts.prompts(host, [job for job in shown if job.runs], faults=damaged)
    jobs = []
    for job in shown:
        with apart(job.id, damaged):
            prompt = asked.get(job.id)
            jobs.append(JobSummary(**_summary(host, job), waits_for=prompt.waits_for if prompt else None))
    return JobList(jobs=tuple(jobs), total=total if whole else len(found), damaged=tuple(damaged))


def status(host: Host, job_id: str) -> JobStatus:
    """Everything known of one job. Raises JobNotFound."""
    job = host.look(job_id)
    ended, run = job.exit, job.run
    prompt = prompts.prompt(host, job) if job.runs else None
    people = hold.people(host, job_id) if job.runs else hold.People()
    left = host.left(job)
    return JobStatus(
        **_summary(host, job),
        detail=job.detail,
        pid=run.command_pid if run else None,
        cwd=job.spec.cwd,
        log_path=str(job.log),
        stderr_path=str(job.stderr) if job.stderr else None,
        attach=host.attach_line(job),
        log=output.log_state(job),
        log_bytes=ended.log.bytes if ended and ended.log else log_size(job.log),
        waiting_for_input=prompt is not None,
        waits_for=prompt.waits_for if prompt else None,
        prompt=prompt.text if prompt else None,
        timeout=job.spec.timeout_s,
        # Those of an adopted process are known only to tmux, its parent.
        cpu=ended.cpu_user_s + ended.cpu_system_s if ended and not job.spec.adopted else None,
        max_rss_bytes=ended.max_rss_bytes if ended and not job.spec.adopted else None,
        left_running=kill.alive_of(host, job, ended.left_running) if ended else (),
        survivors=kill.alive_of(host, job, ended.survivors) if ended else left.ours,
        not_touched=left.doubt,
        watchers=people.watchers,
        typed_ago=people.typed_ago,
        held_since=datetime.fromtimestamp(people.held_since, UTC) if people.held_since else None,
    )


def _summary(host: Host, job: Job) -> dict[str, Any]:
    started = (job.run.started_at if job.run else None) or job.spec.created_at
    return {
        "job_id": job.id,
        "status": job.status,
        "command": job.spec.command,
        "started": started,
        "ended": job.exit.ended_at if job.exit else None,
        "exit_code": job.exit.exit_code if job.exit else None,
        "signal": job.exit.signal if job.exit else None,
        "reason": job.state.reason if isinstance(job.state, Lost) else job.exit.reason if job.exit else None,
        "runtime": host.runtime(job),
        "adopted": job.spec.created_at if job.spec.adopted else None,
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
