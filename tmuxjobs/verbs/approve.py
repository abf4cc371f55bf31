"""`approve` and `refuse`: a person decides whether a waiting job may run.

The answer is a file that is created only once, so the first answer counts; the job's runner acts on it. Agents cannot
answer: there is no tool for it, and a command that runs in a job is not a person's.
"""

from __future__ import annotations

import os
import signal
import time

from tmuxjobs import files
from tmuxjobs.answers import Approval
from tmuxjobs.contract import FORMAT, IN_JOBS, MARK_IN_JOBS
from tmuxjobs.errors import InvalidInput, JobEnded, NotAllowed
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Caller
from tmuxjobs.states import Job
from tmuxjobs.system import processes
from tmuxjobs.verbs import launch

SEEN_S = 5.0
"""How long the runner may take to act on an answer before we report that it was given."""


def approve(host: Host, caller: Caller, job_id: str, *, always: bool = False) -> Approval:
    """Let a job that waits for approval run; `always` first adds the rule that would have allowed it.

    Raises JobNotFound, JobEnded when it does not wait, NotAllowed for an agent and within a job, StateError.
    """
    refuse_to_agents(host, caller)
    host = host.find(job_id)
    job = waiting(host, job_id)
    if not always:
        return settle(host, job_id, approved=True, how="by a person with `tmuxjobs approve`")
    if not job.spec.ask_rules:
        raise InvalidInput(f"There is no one rule that would allow job '{job_id}'; nothing was approved or written.")
    from tmuxjobs.policy.load import add  # noqa: PLC0415 - only this case needs it

    add(job.spec.ask_file, job.spec.ask_rules)
    # The job's window may be running this, and continues only after the answer.
    return settle(host, job_id, approved=True, how="by a person, from now on by a rule", seen_s=0.0)


def refuse(host: Host, caller: Caller, job_id: str, *, why: str = "") -> Approval:
    """Refuse to let it run: the job fails, and its caller reads `why`. Raises as `approve` does."""
    refuse_to_agents(host, caller)
    host = host.find(job_id)
    waiting(host, job_id)
    return settle(host, job_id, approved=False, how="refused by a person with `tmuxjobs refuse`", why=why)


def settle(host: Host, job_id: str, *, approved: bool, how: str, why: str = "", seen_s: float = SEEN_S) -> Approval:
    """Give the answer and wake the runner; raises JobEnded when another answer came first."""
    job = waiting(host, job_id)
    if "\0" in why:
        raise InvalidInput("The reason holds a NUL character; nothing was answered.")
    answer = {"format": FORMAT, "approved": approved, "how": how, "why": why, "by": "person"}
    if not host.answer(job_id, answer):
        said = answered(str(job.folder / "approval.json"))
        raise JobEnded(f"Job '{job_id}' does not wait for approval any more: {said}.")
    if job.run is not None:
        host.machine.send(job.run.pid, job.run.start, signal.SIGUSR2)
    deadline = time.monotonic() + seen_s
    while time.monotonic() < deadline and not launch.has_run(host.store.read(job_id)):
        time.sleep(0.005)
    said = "approved, and starts" if approved else f"refused{f': {why}' if why else ''}"
    return Approval(job_id=job_id, approved=approved, detail=said)


def waiting(host: Host, job_id: str) -> Job:
    host.refuse_elsewhere(job_id)
    job = host.look(job_id)
    if not job.awaits_approval:
        raise JobEnded(f"Job '{job_id}' does not wait for approval: {job.detail}.")
    return job


def answered(path: str) -> str:
    """The answer that came first, in words."""
    try:
        answer = files.record(path, files.APPROVAL)
    except (OSError, files.Odd):
        return "another answer came first"
    return f"{'approved ' if answer['approved'] else ''}{answer['how']}"


def refuse_to_agents(host: Host, caller: Caller) -> None:
    """Raises NotAllowed for an agent, and for what runs in a job, as an agent may have written its command."""
    around = host.environ.get(IN_JOBS) or ("a job" if MARK_IN_JOBS in host.environ else "") or job_around(host)
    if caller.kind == "agent" or around:
        where = f" This command runs in job '{around}'." if around else ""
        raise NotAllowed(f"Only a person may approve or refuse a job, outside of jobs.{where} Nothing was answered.")


def job_around(host: Host) -> str:
    """The job that this process descends from; a window where a person is asked does not count."""
    roots = {}
    for record in host.store.unfinished():
        if record.run is not None and record.job.adopted is None and record.run.command_pid is not None:
            roots[record.run.pid] = record.id
    table = processes.all_processes() if roots else {}
    pid = os.getpid()
    while pid in table:
        pid = table[pid].ppid
        if pid in roots:
            return roots[pid]
    return ""
