"""The commands that set up and maintain: serve, install, doctor, prune, policy."""

import builtins
import os
import shlex
import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from tmuxjobs.cli import clients
from tmuxjobs.cli.app import SET_UP, Flag, Json, Quiet, app, list_of
from tmuxjobs.cli.clients import Client
from tmuxjobs.cli.plain import show
from tmuxjobs.cli.start import pairs
from tmuxjobs.cli.streams import busy
from tmuxjobs.errors import InvalidInput
from tmuxjobs.jobs import Jobs
from tmuxjobs.settings import Settings
from tmuxjobs.visible import visible, visible_json, visible_lines


@app.command(group=SET_UP)
def doctor(*, fix: Annotated[bool, Flag] = False, host: str | None = None, json: Json = False) -> None:
    """Check everything that jobs need, and run one from start to end; exits with 1 if something is wrong.

    Parameters
    ----------
    fix
        Remove what killed processes left behind; running jobs stay as they are.
    host
        Check what jobs need on that host instead, by its name for ssh.
    """
    if fix and host:
        raise InvalidInput("--fix removes what was left on this machine; it does not go with --host.")
    with busy("looking"):
        answer = Jobs.open().doctor(fix=fix, host=host)
    show(answer, as_json=json)
    if not answer.healthy:
        sys.exit(1)


@app.command(group=SET_UP)
def prune(*, forget: str | None = None, json: Json = False, quiet: Quiet = False) -> None:
    """Remove finished jobs and windows beyond what is configured to be kept, on all machines in use.

    Parameters
    ----------
    forget
        Drop what is known here about the jobs of this other machine, and remove nothing else; the jobs stay there.
    """
    faults: builtins.list[str] = []
    settings = Settings.load()
    with busy("removing"):
        jobs = Jobs.open(settings)
        removed = jobs.prune(faults, everywhere=True, forget=forget)
    for fault in faults:
        print(f"tmuxjobs: {visible(fault)}", file=sys.stderr)
    if json:
        print(dumps({"removed": removed}))
    elif quiet:
        print("".join(f"{job_id}\n" for job_id in removed), end="")
    elif removed:
        print(f"Removed {'1 job' if len(removed) == 1 else f'{len(removed)} jobs'}: {', '.join(removed)}.")
    else:
        kept = jobs.list(limit=1).total - jobs.list(status="running", limit=1).total
        print(
            f"Nothing to remove: of {kept} finished jobs {settings.keep_jobs} may be kept (TMUXJOBS_KEEP_JOBS), for "
            f"{settings.keep_jobs_for / 86400:g} days each (TMUXJOBS_KEEP_JOBS_FOR)."
        )


@app.command(group=SET_UP)
def serve(*, http: str | None = None, allow_remote: Annotated[bool, Flag] = False) -> None:
    """Serve MCP on stdio; `tmuxjobs` alone does so when stdin is not a terminal.

    Parameters
    ----------
    http
        Serve on HOST:PORT or the socket unix:PATH instead, to clients that send the token of `tmuxjobs token`.
    allow_remote
        Let HOST be an address that other machines reach. There is no TLS.
    """
    if allow_remote and http is None:
        raise InvalidInput("--allow-remote needs --http HOST:PORT.")
    settings = Settings.load()
    if http is None:
        # FastMCP takes a second to import.
        from tmuxjobs.server.serve import serve

        serve(settings)
        return
    path = Jobs.open(settings).token()
    from tmuxjobs.server.address import listen
    from tmuxjobs.server.http import serve_jobs

    listener = listen(http, remote=allow_remote)

    print(visible(f"Serving MCP on {listener.text}; clients send the bearer token in {path}."), file=sys.stderr)
    serve_jobs(settings, listener)


@app.command(group=SET_UP)
def install(
    client: Client,
    *,
    write: Annotated[bool, Flag] = False,
    uninstall: Annotated[bool, Flag] = False,
    force: Annotated[bool, Flag] = False,
    alone: Annotated[bool, Parameter("--print", negative="")] = False,
) -> None:
    """Set tmuxjobs up in an MCP client: shows what to run or to add, and where.

    Parameters
    ----------
    client
        Which one.
    write
        Do it. All else in the file stays as it is, to the byte; a second time changes nothing.
    uninstall
        Remove it from the client again.
    force
        Replace or remove an entry named tmuxjobs even if it starts something else.
    alone
        Print what to run or to add and nothing else.
    """
    if alone and (write or uninstall):
        raise InvalidInput("--print changes nothing; do not combine it with --write or --uninstall.")
    command = clients.server_command()
    if uninstall:
        print(visible_lines(clients.remove(client, Path.home(), os.environ, force=force)))
        return
    if write:
        print(visible_lines(clients.write(client, command, Path.home(), os.environ, force=force)))
        return
    path = clients.config_path(client, Path.home(), os.environ)
    where = f"Add this to {visible(str(path))}" if path else "Run this"
    if not alone:
        print(f"{visible(where)}, or let `tmuxjobs install {client} --write` do it:", file=sys.stderr)
    print(clients.wanted(client, command))


policy = App(
    "policy", group=SET_UP, help="What agents may run: check a command line, test the rules, take rules from a client."
)
app.command(policy)
MARKS = {"allow": "✓", "ask": "?", "deny": "✗"}


@policy.command
def check(
    *command: Annotated[str, Parameter(allow_leading_hyphen=True)],
    cwd: str | None = None,
    env: Annotated[list_of[str], Parameter(("--env", "-e"), negative="")] = [],  # noqa: B006
    shell: str | None = None,
    ready_when: str | None = None,
    json: Json = False,
) -> None:
    """Say what an agent that works in this folder may do: each simple command of a line, its verdict and the rule.

    Exits with 0 when the line is allowed, else with 1. Nothing is run.

    Parameters
    ----------
    command
        A command and its arguments, or one argument with a shell command line.
    cwd
        Working directory; the current one by default.
    env
        NAME=VALUE that the job would be given.
    shell
        Shell that would run it.
    ready_when
        What would tell that it is ready; the line of `command LINE` is judged too.
    """
    settings = Settings.load()
    jobs = Jobs.open(settings, caller="agent")
    verdict = jobs.check(line_of(command), cwd=cwd, shell=shell, env=pairs(env), ready_when=ready_when)
    if json:
        rows = [{"part": one.part, "verdict": one.kind, "why": one.why} for one in verdict.findings]
        print(visible_json(dumps({"verdict": verdict.kind, "findings": rows})))
    else:
        for one in verdict.findings:
            print(visible(f"{MARKS[one.kind]} {one.kind:5}  {one.part}    {one.why}"))
        if not settings.policies(settings.working_dir or Path.cwd(), agent=True):
            print("No policy is set, so everything is allowed.")
        print(verdict.kind)
    if verdict.kind != "allow":
        sys.exit(1)


def line_of(command: tuple[str, ...]) -> str:
    if not command:
        raise InvalidInput("Give a command line: `tmuxjobs policy check -- git status`.")
    return command[0] if len(command) == 1 else shlex.join(command)


@policy.command
def test(*, json: Json = False) -> None:  # noqa: PT028
    """Check the examples of all rules in force; exits with 1 at the first that does not hold."""
    settings = Settings.load()
    policies = settings.policies(settings.working_dir or Path.cwd(), agent=True)
    rows = [
        {"where": rule.where, "verdict": rule.kind, "rule": rule.text, "examples": rule.examples}
        for one in policies
        for rule in one.rules
    ]
    if json:
        print(visible_json(dumps({"rules": rows})))
        return
    for row in rows:
        print(visible(f"{row['verdict']:5}  {row['rule']}    {row['examples']} examples hold  ({row['where']})"))
    if not policies:
        print("No policy is set, so everything is allowed.")


@policy.command(name="import")
def take(client: Literal["claude", "codex"]) -> None:
    """Print the rules that you have given Claude Code or Codex as a [policy]; what cannot be taken is a comment.

    Parameters
    ----------
    client
        Whose rules: of this folder and of your home.
    """
    from tmuxjobs.policy.load import taken

    print(visible_lines(taken(client, Path.cwd(), Path.home(), os.environ)))
