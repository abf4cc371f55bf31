"""The commands that start or adopt a job, `fetch`, and `token`."""

import shlex
import sys
from contextlib import nullcontext
from json import dumps
from typing import Annotated, Literal

from cyclopts import Parameter

from tmuxjobs.answers import ran
from tmuxjobs.arguments import OUTPUT_CHARS, RestartPolicy
from tmuxjobs.cli.app import (
    LOOK,
    RUN,
    SET_UP,
    Flag,
    JobId,
    Json,
    Quiet,
    RunnableId,
    Seconds,
    app,
    job_ids,
    list_of,
    windows,
)
from tmuxjobs.cli.follow import CtrlC, Pressed, Typing, exit_code, follow
from tmuxjobs.cli.plain import show
from tmuxjobs.cli.streams import busy
from tmuxjobs.errors import InvalidInput
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import Notify
from tmuxjobs.visible import visible


@app.command(group=RUN)
def restart(
    job_id: RunnableId,
    *,
    env: Annotated[list_of[str], Parameter(("--env", "-e"), negative="")] = [],  # noqa: B006
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """End a job if it runs, and start its command again as a new job.

    Parameters
    ----------
    env
        NAME=VALUE to add to the current environment; the job's own is not kept.
    """
    started = Jobs.open().restart(job_id, env=pairs(env))
    show(started, as_json=json, ids=started.job_id if quiet else None)


@app.command(group=LOOK)
def fetch(
    job_id: JobId, *paths: str, to: Annotated[str | None, Parameter(("--to",))] = None, json: Json = False
) -> None:
    """Copy results of a job on another host here: files and folders, by their paths in its folder there.

    Parameters
    ----------
    paths
        Files and folders, from the job's folder there.
    to
        The folder to put them in, under the same paths; by default the one that --sync named, else the current.
    """
    with busy("fetching"):
        fetched = Jobs.open().fetch(job_id, paths, to=to)
    show(fetched, as_json=json)


@app.command(group=RUN)
def adopt(
    window: Annotated[str | None, Parameter(completer=windows)] = None,
    *,
    name: str | None = None,
    host: str | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a job of a window that you opened: the agent can follow it and type into it.

    Parameters
    ----------
    window
        Its index, name or id, or the id of a pane; by default the one you are in, or the only one that is not a job.
    name
        The beginning of its id; the window's name by default.
    host
        The machine that has it, by its name for ssh; this one by default.
    """
    adopted = Jobs.open().adopt(window, name=name, host=host)
    show(adopted, as_json=json, ids=adopted.job_id if quiet else None)


@app.command(group=RUN)
def execute(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    name: str | None = None,
    cwd: str | None = None,
    env: Annotated[list_of[str], Parameter(("--env", "-e"), negative="")] = [],  # noqa: B006
    timeout: Seconds | None = None,
    shell: str | None = None,
    separate_stderr: Annotated[bool, Flag] = False,
    max_output_size: str | None = None,
    host: str | None = None,
    sync: str | None = None,
    wait: Annotated[bool, Parameter(("--wait", "-w"), negative="", show_default=False)] = False,
    ctrl_c: CtrlC = "pass",
    notify: Notify | None = None,
    queue: bool | None = None,
    group: str | None = None,
    priority: int | None = None,
    after: Annotated[list_of[str], Parameter(negative="", completer=job_ids)] = [],  # noqa: B006
    delay: Seconds | None = None,
    at: str | None = None,
    reuse: Annotated[bool, Flag] = False,
    engine: Literal["slurm", "local"] | None = None,
    resources: Annotated[list_of[str], Parameter(("--resources", "-r"), negative="")] = [],  # noqa: B006
    retry: int | None = None,
    restart_policy: RestartPolicy | None = None,
    success_codes: Annotated[list_of[int], Parameter(("--success-codes",), consume_multiple=True, negative="")] = [],  # noqa: B006
    ready_when: str | None = None,
    ready_timeout: Seconds | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Start a command as a background job: `tmuxjobs execute -- make -j4`.

    With --wait it stands in for the command: it prints the output as it comes and exits with the command's code. What
    you type is typed into the job's own terminal, and what a pipe brings too, as text that is not shown; `tmuxjobs
    attach` shows a full-screen program.

    Parameters
    ----------
    command
        A command and its arguments, or one argument with a shell command line.
    name
        Short name for the id and the window.
    cwd
        Working directory; the current one by default.
    env
        NAME=VALUE to add to the environment; may be given several times.
    timeout
        Seconds after which the job is ended.
    shell
        Shell to run it; bash by default, else sh.
    separate_stderr
        Keep stderr in a separate file.
    max_output_size
        Size of its log, such as 5GB; beyond it the first part and the newest are kept.
    host
        Run it on that host, by its name for ssh; here by default.
    sync
        Copy this folder there first by rsync, without what .gitignore names; it runs in the copy, and --cwd is in that.
    wait
        Stay until it ends, and exit with its code.
    ctrl_c
        What Ctrl-C does while waiting: pass it on to the job (a second one leaves), leave the job, or kill it.
    notify
        Which ends to report by a message, a bell and the on_end command; as configured by default.
    queue
        Let it wait for its turn if as many jobs run as may; as configured by default.
    group
        Queue it in this group: `tmuxjobs group NAME --limit 4` says how many of its jobs may run.
    priority
        Higher goes first; 0 by default.
    after
        A job that must have succeeded before; for ID:any it is enough that it ended, for ID:ready that it is ready.
        May be given several times.
    delay
        Seconds until it may start.
    at
        When it may start, like 18:30 or 2026-01-31T18:30.
    reuse
        Start nothing if a job of this --name and project has not ended: the answer is about that one.
    engine
        What runs it: Slurm, or this machine itself; as configured by default.
    resources
        For Slurm, NAME=VALUE: cpus, memory (16G), gpus, time (2h), partition; detach=true runs it by sbatch, so that
        it goes on when this machine does not. May be given several times.
    retry
        How often to run it again after a failure, or after each timeout: 1 s later, then 2, 4, up to 60. With a restart
        policy it is how often in a row, 10 by default.
    restart_policy
        Run it again after each failure, or always; after 60 s of running the count and the pauses start again. `kill`
        ends it for good, and so does Ctrl-C in its window.
    success_codes
        Exit codes that mean success; 0 by default.
    ready_when
        What shows that it is ready: "port 3000", "url http://localhost:3000", "pattern REGEX" or "command LINE".
    ready_timeout
        Seconds after which it counts as never ready; 300 by default.
    """
    if command and command[0].startswith("-"):
        raise InvalidInput(f"'{command[0]}' is not an option of `execute`: see --help, and put the command after `--`.")
    line = command[0] if len(command) == 1 else shlex.join(command)
    jobs = Jobs.open()
    follows = wait and not json
    pressed = Pressed(ctrl_c if follows else "leave")
    typing = Typing()
    with pressed.caught(), typing.taken() if follows else nullcontext():
        with busy("starting"):
            started = jobs.execute(
                line,
                name=name,
                cwd=cwd,
                env=pairs(env),
                timeout=timeout,
                shell=shell,
                separate_stderr=separate_stderr,
                max_output_size=max_output_size,
                notify=notify,
                queue=queue,
                group=group,
                priority=priority,
                after=after,
                delay=delay,
                at=at,
                reuse=reuse,
                engine=engine,
                resources=pairs(resources, "--resources"),
                retry=retry,
                restart_policy=restart_policy,
                success_codes=success_codes or None,
                ready_when=ready_when,
                ready_timeout=ready_timeout,
                host=host,
                sync=sync,
            )
        if not wait:
            show(started, as_json=json, ids=started.job_id if quiet else None)
            sys.exit(started.status == "skipped")
        elif json:
            waited = jobs.wait(started.job_id, cursor=0, timeout=None, max_bytes=OUTPUT_CHARS)
            show(ran(started, waited), as_json=True)
            sys.exit(exit_code(jobs.status(started.job_id)))
        else:
            if sys.stderr.isatty() and not quiet:
                print(f"[{started.job_id}: {visible(started.attach)}]", file=sys.stderr)
            typing.to(jobs, started.job_id)
            stderr_cursor = 0 if separate_stderr else None
            types = typing.goes_on
            sys.exit(follow(jobs, started.job_id, cursor=0, stderr_cursor=stderr_cursor, pressed=pressed, types=types))


def pairs(items: list_of[str], option: str = "--env") -> dict[str, str]:
    for item in items:
        if "=" not in item:
            raise InvalidInput(f"{option} takes NAME=VALUE, not '{item.split('=')[0]}'.")
    return dict(item.split("=", 1) for item in items)


@app.command(group=SET_UP)
def token(*, new: Annotated[bool, Flag] = False, json: Json = False) -> None:
    """Print the path of the bearer token for HTTP clients; `cat` shows the token.

    Parameters
    ----------
    new
        Make another one first. From then on running servers accept only that one.
    """
    path = str(Jobs.open().token(new=new))
    print(dumps({"token_path": path}) if json else visible(path) if sys.stdout.isatty() else path)
