"""`restart`: end a job if it runs, and start the same command as a new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tmuxjobs.errors import InvalidInput, NotStarted
from tmuxjobs.models import Running, Starting
from tmuxjobs.results import Restarted, name_processes
from tmuxjobs.starting import check_command, environment_of, folder_of

if TYPE_CHECKING:
    from tmuxjobs.jobs import Jobs


def restart(jobs: Jobs, job_id: str, *, env: Mapping[str, str] | None = None) -> Restarted:
    """A new job of the same command, folder, shell and timeout; the old one is ended first, and stays in `list`.

    Environments are not kept: it gets ours, with `env`; the answer names variables that were given then and are not
    now. Raises JobNotFound, InvalidInput for an adopted job, and NotStarted when the old job could not be ended.
    """
    record, state = jobs.look(job_id)
    if record.job.adopted is not None:
        raise InvalidInput(
            f"Job '{job_id}' was adopted, so its environment is not known and it can not be run again as it was: "
            "`execute` starts what you need."
        )
    # Before anything is ended: what could not be started again must not be.
    check_command(jobs, record.job.command)
    folder_of(jobs, record.job.cwd)
    environment_of(jobs, env or {})
    if isinstance(state, Starting | Running):
        survivors = jobs.kill(job_id).survivors
        if survivors:
            raise NotStarted(
                f"Job '{job_id}' could not be ended ({name_processes(survivors)}), so nothing was started."
            )
    spec = record.job
    started = jobs.execute(
        spec.command,
        name=job_id.rpartition("-")[0],
        cwd=spec.cwd,
        env=env,
        timeout=spec.timeout_s,
        shell=spec.shell,
        separate_stderr=spec.separate_stderr,
        notify=spec.notify,
    )
    missing = [name for name in spec.env_names if name not in (env or {})]
    note = f"{', '.join(missing)} had been given in env and must be given again" if missing else ""
    return Restarted(
        job_id=started.job_id,
        status=started.status,
        log_path=started.log_path,
        attach=started.attach,
        restarted=job_id,
        note=note,
    )
