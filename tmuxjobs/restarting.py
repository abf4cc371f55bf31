"""`restart`: the same command as a new job; one that runs is ended once the new one has all that it needs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tmuxjobs import starting, stopping
from tmuxjobs.errors import InvalidInput, LimitReached, NotAllowed, NotStarted, StateError, TmuxError
from tmuxjobs.models import LAUNCH_S, JobSpec, Lost, Running, Starting, describe
from tmuxjobs.results import Restarted, name_processes
from tmuxjobs.store import slug

if TYPE_CHECKING:
    from tmuxjobs.jobs import Jobs

REFUSED = (InvalidInput, LimitReached, NotAllowed, NotStarted, StateError, TmuxError)


def restart(jobs: Jobs, job_id: str, *, env: Mapping[str, str] | None = None) -> Restarted:
    """A new job of the same command, folder, shell and timeout; the old one stays in `list`.

    One that runs is ended when the new job has its slot, its room on the disk, its window and its recorder: when any of
    these cannot be had, it runs on. Environments are not kept: the new job gets ours, with `env`; the answer names
    variables that were given then and are not now. Raises JobNotFound, InvalidInput for an adopted job, and what
    `execute` raises.
    """
    record, state = jobs.look(job_id)
    if record.job.adopted is not None:
        raise InvalidInput(
            f"Job '{job_id}' was adopted, so its environment is not known and it can not be run again as it was: "
            "`execute` starts what you need."
        )
    runs = isinstance(state, Starting | Running)
    try:
        new = ready(jobs, record.job, env or {}, held=runs)
    except REFUSED as error:
        raise type(error)(f"{error} Job '{job_id}' was not ended.") if runs else error from None
    if runs:
        hand_over(jobs, job_id, new)
    started = starting.started(jobs, new)
    missing = [name for name in record.job.env_names if name not in (env or {})]
    note = f"{', '.join(missing)} had been given in env and must be given again" if missing else ""
    return Restarted(**dict(started), restarted=job_id, note=note)


def ready(jobs: Jobs, spec: JobSpec, env: Mapping[str, str], *, held: bool) -> str:
    """Start the job again; `held` back, it has all that it needs, in the slot of the one that runs."""
    environment = starting.environment_of(jobs, env)
    asked = {
        **starting.checked(jobs, spec.command, spec.cwd, spec.shell, environment),
        "timeout_s": spec.timeout_s if spec.timeout_s is not None else jobs.settings.job_timeout,
        "separate_stderr": spec.separate_stderr,
        "notify": spec.notify,
        "env_names": tuple(sorted(env)),
    }
    starting.ensure_session(jobs)
    name = slug(spec.job_id.rpartition("-")[0])
    job_id = starting.create(jobs, name, asked, environment, replaces=spec.job_id if held else None)
    starting.launch(jobs, job_id)
    return job_id


def hand_over(jobs: Jobs, old: str, new: str) -> None:
    """End the old job and let the new one go; on failure the new one is gone, and the error tells of the old one."""
    try:
        survivors = jobs.kill(old).survivors
        if survivors:
            raise NotStarted(f"Job '{old}' could not be ended ({name_processes(survivors)}).")
    except (NotStarted, StateError, TmuxError) as error:
        withdraw(jobs, new)
        raise NotStarted(f"{error} So nothing was started.") from None
    except BaseException:  # Ctrl-C
        withdraw(jobs, new)
        raise
    why = let_go(jobs, new)
    if why is not None:
        starting.forget(jobs, new)
        raise NotStarted(f"Job '{old}' was ended, and then its command did not start again: {why.rstrip('.')}.")


def let_go(jobs: Jobs, job_id: str) -> str | None:
    """None once the command runs or has run, or why it does not."""
    try:
        jobs.store.let_go(job_id)
    except StateError as error:
        return str(error)
    deadline = time.monotonic() + LAUNCH_S
    while time.monotonic() < deadline:
        record, state = jobs.look(job_id)
        if isinstance(state, Lost) or (record.exit is not None and record.exit.reason == "not-started"):
            return describe(state)
        if record.exit is not None or (record.run is not None and record.run.command_pid is not None):
            return None
        time.sleep(0.005)
    return f"it did not begin within {LAUNCH_S:.0f} s"


def withdraw(jobs: Jobs, job_id: str) -> None:
    """Take back a job that was held back."""
    record, state = jobs.look(job_id)
    if isinstance(state, Starting | Running):
        stopping.stop(jobs, record, "SIGTERM", 0.0)
    starting.forget(jobs, job_id)
