"""`restart`: the same command as a new job; one that runs is ended once the new one has all that it needs."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping

from tmuxjobs.answers import Restarted
from tmuxjobs.contract import LAUNCH_S
from tmuxjobs.errors import InvalidInput, LimitReached, NotStarted, StateError, TmuxError
from tmuxjobs.hosts.local import Host
from tmuxjobs.job_answers import name_processes
from tmuxjobs.models import Caller, JobSpec
from tmuxjobs.store.index import slug
from tmuxjobs.verbs import execute, files, kill, launch, queue, slurm

AGAIN = ("retry", "restart_policy", "success_codes", "ready_when", "ready_timeout_s")
REFUSED = (InvalidInput, LimitReached, NotStarted, StateError, TmuxError)


def restart(host: Host, caller: Caller, job_id: str, *, env: Mapping[str, str] | None = None) -> Restarted:
    """A new job of the same command, folder, shell, timeout and project; the old one stays in `list`.

    One that runs is ended when the new job has its slot, its room on the disk, its window and its recorder: when any of
    these cannot be had, it runs on. Environments are not kept: the new job gets ours, with `env`; the answer names
    variables that were given then and are not now. Raises JobNotFound, InvalidInput for an adopted job, and what
    `execute` raises.
    """
    job = host.look(job_id)
    if job.spec.adopted is not None:
        raise InvalidInput(
            f"Job '{job_id}' was adopted, so its environment is not known and it cannot be run again as it was: "
            "`execute` starts what you need."
        )
    if job.queued:
        raise InvalidInput(
            f"Job '{job_id}' waits for its turn, so there is nothing to run again yet; `kill` cancels it."
        )
    runs = job.running
    try:
        new = ready(host, caller, job.spec, env or {}, held=runs)
    except REFUSED as error:
        raise type(error)(f"{error} Job '{job_id}' was not ended.") if runs else error from None
    if runs:
        hand_over(host, job_id, new)
    started = execute.started(host, new)
    missing = [name for name in job.spec.env_names if name not in (env or {})]
    note = f"{', '.join(missing)} had been given in env and must be given again" if missing else ""
    note = "; ".join(filter(None, (started.note, note)))
    return Restarted(**dict(started) | {"note": note}, restarted=job_id)


def ready(host: Host, caller: Caller, spec: JobSpec, env: Mapping[str, str], *, held: bool) -> str:
    """Start the job again; with `held` its command waits, in the slot of the job that still runs."""
    slurm.refuse_partition(host, caller, spec.slurm)
    environment = execute.environment_of(host, env)
    asked = {
        **execute.checked(host, spec.command, spec.cwd, shlex.join((spec.shell, *spec.shell_options)), environment),
        "timeout_s": spec.timeout_s if spec.timeout_s is not None else host.settings.job_timeout,
        "separate_stderr": spec.separate_stderr,
        **execute.size_of(host, spec.max_output_bytes if spec.max_output_given else None),
        "notify": spec.notify,
        "slurm": spec.slurm,
        "detached": spec.detached,
        "sync": spec.sync,
        **{name: getattr(spec, name) for name in AGAIN},
        "env_names": tuple(sorted(env)),
        "ends_with": host.this_process() if spec.ends_with is not None and caller.kind == "agent" else None,
        # A person's key in its window is pressed wherever tmux runs it.
        "caller": caller.model_copy(update={"project": spec.caller.project or caller.project}),
    }
    facts = spec.queue
    if facts is not None:
        # What it came after, and when, is over.
        changed = {"after": (), "not_before": None, **queue.bounds(host, facts.group)}
        asked["queue"] = facts = facts.model_copy(update=changed)
    if not host.had_session:
        host.ensure_session()
    if files.is_ours(host, spec.sync, spec.cwd):
        files.send(host, caller, spec.sync)
    name = slug(spec.job_id.rpartition("-")[0])
    job_id = execute.create(host, name, asked, environment, replaces=spec.job_id if held else None)
    with queue.turn(host, job_id, facts, forced=held) as starts:
        if starts:
            launch.launch(host, job_id)
    return job_id


def hand_over(host: Host, old: str, new: str) -> None:
    """End the old job and let the new one start; on failure the new one is removed, and the error names the old one."""
    try:
        survivors = kill.kill(host, old).survivors
        if survivors:
            raise NotStarted(f"Job '{old}' could not be ended ({name_processes(survivors)}).")
    except (NotStarted, StateError, TmuxError) as error:
        launch.withdraw(host, new)
        raise NotStarted(f"{error} So nothing was started.") from None
    except BaseException:  # Ctrl-C
        launch.withdraw(host, new)
        raise
    why = let_go(host, new)
    if why is not None:
        launch.discard_failed_start(host, new)
        raise NotStarted(f"Job '{old}' was ended, and then its command did not start again: {why.rstrip('.')}.")


def let_go(host: Host, job_id: str) -> str | None:
    """Let the command start: None once it runs or has run, else why it does not."""
    try:
        host.store.let_go(job_id)
    except StateError as error:
        return str(error)
    deadline = time.monotonic() + LAUNCH_S
    while time.monotonic() < deadline:
        job = host.look(job_id)
        if job.lost or (job.exit is not None and job.exit.reason == "not-started"):
            return job.detail
        if launch.has_run(job.record):
            return None
        time.sleep(0.005)
    return f"it did not begin within {LAUNCH_S:.0f} s"
