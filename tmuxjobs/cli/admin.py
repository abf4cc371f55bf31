"""The commands that set up and maintain: serve, install, doctor, prune."""

import builtins
import os
import sys
from json import dumps
from pathlib import Path
from typing import Annotated

from tmuxjobs.cli import clients
from tmuxjobs.cli.app import Flag, Json, Quiet, app, show
from tmuxjobs.cli.busy import busy
from tmuxjobs.cli.clients import Client
from tmuxjobs.errors import InvalidInput
from tmuxjobs.jobs import Jobs
from tmuxjobs.visible import visible, visible_lines


@app.command
def doctor(*, fix: Annotated[bool, Flag] = False, json: Json = False) -> None:
    """Check everything that jobs need, and run one from start to end; 1 when something is wrong.

    Parameters
    ----------
    fix
        Remove what killed processes left behind; running jobs stay as they are.
    """
    with busy("looking"):
        answer = Jobs.open().doctor(fix=fix)
    show(answer, as_json=json)
    if not answer.healthy:
        sys.exit(1)


@app.command
def prune(*, json: Json = False, quiet: Quiet = False) -> None:
    """Remove finished jobs and windows beyond what is configured to be kept."""
    faults: builtins.list[str] = []
    with busy("removing"):
        jobs = Jobs.open()
        removed = jobs.prune(faults)
    for fault in faults:
        print(f"tmuxjobs: {visible(fault)}", file=sys.stderr)
    for folder in jobs.host.store.kept(removed):
        print(
            f"tmuxjobs: {visible(str(folder))} stays, for it holds files that tmuxjobs did not make.", file=sys.stderr
        )
    if json:
        print(dumps({"removed": removed}))
    elif not quiet:
        print(f"{len(removed)} jobs removed.")
    else:
        print("".join(f"{job_id}\n" for job_id in removed), end="")


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
        from tmuxjobs.server.serve import serve

        serve(jobs)
        return
    path = jobs.token()
    from tmuxjobs.server.address import listen
    from tmuxjobs.server.serve import serve_http

    place = listen(http, remote=allow_remote)

    print(visible(f"Serving MCP on {place.text}; clients bring the bearer token in {path}."), file=sys.stderr)
    serve_http(jobs, place)


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
