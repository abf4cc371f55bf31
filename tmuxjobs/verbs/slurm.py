"""Jobs in Slurm: the options of `execute`, who may use them, and what Slurm still has of a job whose runner is gone."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tmuxjobs.answers import Kill
from tmuxjobs.arguments import Engine, duration
from tmuxjobs.errors import InvalidInput, NotAllowed, TmuxError
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Caller
from tmuxjobs.states import Job
from tmuxjobs.system import slurm
from tmuxjobs.system.terminals import terminal

RESOURCES = {
    "cpus": ("--cpus-per-task", r"[1-9]\d{0,5}", "a number, like 4"),
    "memory": ("--mem", r"[1-9]\d{0,8}[KMGT]?", "megabytes, or like 16G"),
    "gpus": ("--gpus", r"(?:[A-Za-z0-9_.-]+:)?[1-9]\d{0,4}", "a number, like 1 or a100:2"),
    "time": ("--time", "", "a duration, like 90m or 12h"),
    "partition": ("--partition", r"[A-Za-z0-9_.-]+(?:,[A-Za-z0-9_.-]+)*", "a name"),
}
"""{resource: (option of srun, pattern of its values, the same in words)}."""
DETACH = "detach"
"""One more resource: use sbatch, so that the job goes on when this machine does not."""
GONE_S = 10.0
ANY = "any"


def checked(host: Host, given: Engine, job: Mapping[str, Any], path: str) -> tuple[str, ...] | None:
    """srun and its options; None for a job on this machine. Raises InvalidInput, and for an agent NotAllowed.

    `job` has the fields of its future record.
    """
    engine, resources = given.get("engine"), given.get("resources") or {}
    if engine is None and not host.name:
        engine = host.settings.engine
    if engine in (None, "local"):
        if resources:
            raise InvalidInput("`resources` needs engine='slurm'.")
        return None
    if engine != "slurm":
        raise InvalidInput(f"engine is 'slurm' or 'local', not '{engine}'.")
    if host.name:
        raise InvalidInput(f"Jobs on host '{host.name}' do not go to Slurm yet: leave out engine, or host.")
    srun = shutil.which("srun", path=path)
    if srun is None:
        raise InvalidInput("There is no Slurm here: its `srun` is not on the PATH.")
    if job["separate_stderr"]:
        raise InvalidInput("A job in Slurm has one terminal, so its stderr cannot be kept apart.")
    if job["retry"] or job["ready_when"]:
        raise InvalidInput("A job in Slurm runs once and has no readiness check: leave out retries and ready_when.")
    if job["detached"] and job.get("max_output_given"):
        raise InvalidInput("The log of a job with detach is Slurm's own, so max_output_size cannot bound it.")
    options = {name: option(name, str(value)) for name, value in resources.items() if name != DETACH}
    allowed = host.settings.slurm_partitions or ()
    if job["caller"].kind == "agent" and allowed and ANY not in allowed and "partition" not in options:
        options["partition"] = option("partition", allowed[0])
    if job["timeout_s"] is not None and "time" not in options:
        # Slurm counts in minutes, and the runner in seconds: Slurm's limit is the safety net for ours.
        options["time"] = f"--time={math.ceil(job['timeout_s'] / 60) + 1}"
    chosen = (srun, *options.values())
    refuse_partition(host, job["caller"], chosen)
    return chosen


def is_detached(given: Engine) -> bool:
    """Whether `resources` asks for sbatch; raises InvalidInput."""
    value = str((given.get("resources") or {}).get(DETACH, "false")).lower()
    if value not in ("true", "false", "yes", "no", "1", "0"):
        raise InvalidInput(f"resources.{DETACH} is true or false.")
    return value in ("true", "yes", "1")


def refuse_partition(host: Host, caller: Caller, chosen: Sequence[str] | None) -> None:
    """Raises NotAllowed for an agent that may not use the partition of these options of srun."""
    allowed = host.settings.slurm_partitions or ()
    if chosen is None or caller.kind != "agent" or ANY in allowed:
        return
    if not allowed:
        raise NotAllowed("Agents may not use Slurm here; a person allows partitions with TMUXJOBS_SLURM_PARTITIONS.")
    given = [part for word in chosen if word.startswith("--partition=") for part in word[12:].split(",")]
    if not given or not set(given) <= set(allowed):
        raise NotAllowed(f"Agents may use the partitions {', '.join(allowed)} here, not '{','.join(given)}'.")


def option(name: str, value: str) -> str:
    if name not in RESOURCES:
        raise InvalidInput(f"'{name}' is not a resource; there are {', '.join(RESOURCES)}, {DETACH}.")
    flag, pattern, words = RESOURCES[name]
    if name == "time":
        try:
            minutes = math.ceil(duration(value) / 60)
        except (ValueError, OverflowError):
            minutes = 0
        fits, value = 0 < minutes < 10**6, str(minutes)
    else:
        fits = re.fullmatch(pattern, value) is not None
    if not fits:
        raise InvalidInput(f"resources.{name} is {words}.")
    return f"{flag}={value}"


def described(host: Host, job: Job) -> str:
    """Where it is in Slurm: its number, state and node. For a job whose runner is gone, Slurm is asked."""
    if job.spec.slurm is None:
        return ""
    if job.lost:
        try:
            found = slurm.find(job.spec.slurm[0], job.id, host.environ)
        except slurm.Silent as silent:
            return f"not known whether it still has the job: {silent}"
        if found is not None:
            return found.words + (", without a runner: `kill` cancels it" if found.open else "")
    allocation = host.in_slurm(job.id)
    if not allocation:
        return ""
    words = slurm.Allocation(allocation["number"], allocation["state"], allocation["node"], 0, "").words
    return f"{words}; {allocation['doubt']}" if allocation["doubt"] else words


def left(host: Host, job: Job) -> slurm.Allocation | None:
    """What Slurm still has of it. Raises Silent."""
    if job.spec.slurm is None:
        return None
    found = slurm.find(job.spec.slurm[0], job.id, host.environ)
    return found if found is not None and found.open else None


def cancel(host: Host, job: Job) -> str:
    """Cancel what Slurm still has of a job that has ended, and wait until it is gone; what was done, in words.

    Slurm is not asked about a job that its runner has seen end there. Raises TmuxError when Slurm does not answer, or
    still has the job after GONE_S.
    """
    allocation = host.in_slurm(job.id)
    if allocation and job.exit is not None and allocation["state"] not in slurm.OPEN and not allocation["doubt"]:
        return ""
    try:
        found = left(host, job)
        if found is None or job.spec.slurm is None:
            return ""
        slurm.cancel(job.spec.slurm[0], job.id, host.environ)
        deadline = time.monotonic() + GONE_S
        while (now := left(host, job)) is not None:
            if time.monotonic() > deadline:
                raise TmuxError(f"Slurm was asked to cancel {now.words}, and still has it after {GONE_S:.0f} s.")
            time.sleep(0.2)
    except slurm.Silent as silent:
        raise TmuxError(f"Slurm does not say whether it still has job '{job.id}': {silent}.") from None
    return f"cancelled {found.words}, in Slurm"


def end(host: Host, job: Job) -> Kill:
    """End a job of `sbatch` whose runner is gone: cancel it, and wait until Slurm no longer has it."""
    host.store.request_stop(job.id, signal="SIGTERM", grace_s=0.0)
    said = cancel(host, job)
    job = host.look(job.id)
    host.store.withdraw_stop(job.id)
    return Kill(job_id=job.id, status="killed" if said else "already_terminated", detail=f"{job.detail}; {said}")


def send(host: Host, job: Job, number: int) -> None:
    """Have Slurm send the signal to what the job runs; raises InvalidInput, TmuxError."""
    allocation = host.in_slurm(job.id)
    if job.spec.slurm is None or not allocation or allocation["state"] in slurm.QUEUED:
        raise InvalidInput(f"Job '{job.id}' is queued in Slurm: nothing of it runs that could be signalled.")
    try:
        slurm.send(job.spec.slurm[0], allocation["number"], number, host.environ, batch=job.spec.detached)
    except slurm.Silent as silent:
        raise TmuxError(f"Slurm did not take the signal: {silent}.") from None


def refuse_keys(job: Job, tty: str) -> None:
    """Raises InvalidInput until srun passes keys on: it does so once it has set its terminal raw."""
    if job.spec.detached:
        raise InvalidInput(f"Job '{job.id}' runs by sbatch and has no terminal, so nothing was typed.")
    settings = terminal(tty) if job.spec.slurm is not None else None
    if settings is not None and settings.cooked:
        how = job.detail if job.detail != "running" else "Slurm is starting it"
        raise InvalidInput(f"Job '{job.id}' takes no input yet, so nothing was typed: {how}.")
