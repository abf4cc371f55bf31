"""The commands that start something: a job, the server, and its place in a client."""

import os
import shlex
import sys
from json import dumps
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tmuxjobs import clients
from tmuxjobs.app import Flag, Json, Quiet, app, list_of, show
from tmuxjobs.clients import Client
from tmuxjobs.errors import InvalidInput
from tmuxjobs.following import CtrlC, Pressed, exit_code, follow
from tmuxjobs.jobs import Jobs
from tmuxjobs.listening import listen
from tmuxjobs.models import Notify
from tmuxjobs.progress import busy
from tmuxjobs.reading import CHARS
from tmuxjobs.starting import ran
from tmuxjobs.tokens import token_file
from tmuxjobs.visible import visible, visible_lines


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
        raise InvalidInput(f"'{command[0]}' is no option of `execute`: see --help, and put a command behind `--`.")
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
            waited = jobs.wait(started.job_id, cursor=0, timeout=None, max_bytes=CHARS)
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
def serve(*, http: str | None = None, allow_remote: Annotated[bool, Flag] = False) -> None:
    """Serve MCP on stdio; without arguments and a terminal `tmuxjobs` does the same.

    Parameters
    ----------
    http
        Serve on HOST:PORT or the socket unix:PATH instead, to clients that bring the token that `tmuxjobs token` names.
    allow_remote
        Let HOST be an address that other machines reach. There is no TLS.
    """
    if allow_remote and http is None:
        raise InvalidInput("--allow-remote goes with --http HOST:PORT.")
    jobs = Jobs.open()
    if http is None:
        # FastMCP takes a second to import.
        from tmuxjobs.server import serve

        serve(jobs)
        return
    path = token_file(jobs.store)
    place = listen(http, jobs.store, remote=allow_remote)
    from tmuxjobs.server import serve_http

    print(visible(f"Serving MCP on {place.text}; clients bring the bearer token in {path}."), file=sys.stderr)
    serve_http(jobs, place, token=path)


@app.command
def token(*, new: Annotated[bool, Flag] = False, json: Json = False) -> None:
    """Print the file of the token that clients bring over HTTP; `cat` shows the token.

    Parameters
    ----------
    new
        Make another one first. Running servers take no other from then on.
    """
    path = str(token_file(Jobs.open().store, new=new))
    print(dumps({"token_path": path}) if json else visible(path) if sys.stdout.isatty() else path)


@app.command
def install(client: Client, *, write: Annotated[bool, Flag] = False) -> None:
    """Set tmuxjobs up in an MCP client: prints what to run or to add, and where.

    Parameters
    ----------
    client
        Which one.
    write
        Do it. What is there stays; a second time changes nothing.
    """
    command = clients.server_command()
    if write:
        print(visible_lines(clients.write(client, command, Path.home(), os.environ)))
        return
    path = clients.config_path(client, Path.home(), os.environ)
    where = f"Add this to {visible(str(path))}" if path else "Run this"
    print(f"{visible(where)}, or let `tmuxjobs install {client} --write` do it:", file=sys.stderr)
    print(clients.wanted(client, command))
