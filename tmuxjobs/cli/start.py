"""The commands that start or adopt a job, and `token`."""

import shlex
import sys
from json import dumps
from typing import Annotated

from cyclopts import Parameter

from tmuxjobs.answers import ran
from tmuxjobs.arguments import OUTPUT_CHARS
from tmuxjobs.cli.app import Flag, Json, Quiet, app, job_ids, list_of, show, windows
from tmuxjobs.cli.busy import busy
from tmuxjobs.cli.follow import CtrlC, Pressed, exit_code, follow
from tmuxjobs.errors import InvalidInput
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import Notify
from tmuxjobs.visible import visible


@app.command
def restart(
    job_id: Annotated[str, Parameter(completer=job_ids)],
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


@app.command
def adopt(
    window: Annotated[str | None, Parameter(completer=windows)] = None,
    *,
    name: str | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a window that you opened among the jobs a job too: the agent can follow it, and type into it.

    Parameters
    ----------
    window
        Its index, name or id, or the id of a pane; by default the one you are in, or the only one that is no job.
    name
        The beginning of its id; the window's name by default.
    """
    adopted = Jobs.open().adopt(window, name=name)
    show(adopted, as_json=json, ids=adopted.job_id if quiet else None)


@app.command
def execute(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    name: str | None = None,
    cwd: str | None = None,
    env: Annotated[list_of[str], Parameter(("--env", "-e"), negative="")] = [],  # noqa: B006
    timeout: float | None = None,
    shell: str | None = None,
    separate_stderr: Annotated[bool, Flag] = False,
    wait: Annotated[bool, Parameter(("--wait", "-w"), negative="")] = False,
    ctrl_c: CtrlC = "pass",
    notify: Notify | None = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Start a command as a background job: `tmuxjobs execute -- make -j4`.

    With --wait it stands in for the command: it prints the output as it comes and exits with the command's code. The
    job keeps a terminal of its own, so standard input is not handed on: `tmuxjobs attach` or `interact` types into it.

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
        Keep stderr in a file of its own.
    wait
        Stay until it ends, and exit with its code.
    ctrl_c
        What Ctrl-C does while waiting: pass it on to the job (a second one leaves), leave the job, or kill it.
    notify
        Which ends to tell by a message, a bell and the on_end command; as configured by default.
    """
    if command and command[0].startswith("-"):
        raise InvalidInput(f"'{command[0]}' is not an option of `execute`: see --help, and put a command behind `--`.")
    line = command[0] if len(command) == 1 else shlex.join(command)
    jobs = Jobs.open()
    pressed = Pressed(ctrl_c if wait and not json else "leave")
    with pressed.caught():
        with busy("starting"):
            started = jobs.execute(
                line,
                name=name,
                cwd=cwd,
                env=pairs(env),
                timeout=timeout,
                shell=shell,
                separate_stderr=separate_stderr,
                notify=notify,
            )
        if not wait:
            show(started, as_json=json, ids=started.job_id if quiet else None)
        elif json:
            waited = jobs.wait(started.job_id, cursor=0, timeout=None, max_bytes=OUTPUT_CHARS)
            show(ran(started, waited), as_json=True)
            sys.exit(exit_code(jobs.status(started.job_id)))
        else:
            if sys.stderr.isatty() and not quiet:
                print(f"[{started.job_id}: {visible(started.attach)}]", file=sys.stderr)
            stderr_cursor = 0 if separate_stderr else None
            sys.exit(follow(jobs, started.job_id, cursor=0, stderr_cursor=stderr_cursor, pressed=pressed))


def pairs(items: list_of[str]) -> dict[str, str]:
    for item in items:
        if "=" not in item:
            raise InvalidInput(f"--env takes NAME=VALUE, not '{item.split('=')[0]}'.")
    return dict(item.split("=", 1) for item in items)


@app.command
def token(*, new: Annotated[bool, Flag] = False, json: Json = False) -> None:
    """Print the file of the token that clients bring over HTTP; `cat` shows the token.

    Parameters
    ----------
    new
        Make another one first. Running servers take no other from then on.
    """
    path = str(Jobs.open().token(new=new))
    print(dumps({"token_path": path}) if json else visible(path) if sys.stdout.isatty() else path)
