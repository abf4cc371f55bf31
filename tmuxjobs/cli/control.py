"""The commands that act on a running job: wait, interact, kill, hold, release, attach."""

import getpass
import os
import sys
from typing import Annotated

from cyclopts import Parameter

from tmuxjobs.answers import Waited
from tmuxjobs.arguments import Until
from tmuxjobs.cli.app import WAIT_OVER, Flag, JobId, Json, Quiet, app, job_ids, list_of, show
from tmuxjobs.cli.busy import busy
from tmuxjobs.cli.read import _print_output
from tmuxjobs.errors import InvalidInput
from tmuxjobs.jobs import Jobs


@app.command
def wait(
    *job_id: JobId,
    until: Until | None = None,
    pattern: str | None = None,
    fail_pattern: str | None = None,
    literal: Annotated[bool, Flag] = False,
    idle: float | None = None,
    port: int | None = None,
    url: str | None = None,
    cursor: int | None = None,
    all: Annotated[bool, Parameter(("--all", "-a"), negative="")] = False,
    timeout: float | None = None,
    max_bytes: int = 2_000,
    json: Json = False,
) -> None:
    """Wait until a job ends, or until a condition given is met first.

    Exits with 0 when what was waited for has come, 124 when the timeout has passed, else 1: the job failed, ended
    first, or waits for input.

    Parameters
    ----------
    job_id
        One job or several.
    until
        `exit` by default, which ends every wait.
    pattern
        Regular expression to see in new output.
    fail_pattern
        Regular expression that means failure.
    literal
        The patterns are plain text.
    idle
        Seconds without output.
    port
        TCP port that the job listens on; 0 for any.
    url
        HTTP address that answers.
    cursor
        Output after this offset counts as new; by default what comes from now on.
    all
        Wait for all of the jobs, not for any one.
    timeout
        Seconds to wait at the most; by default as long as it takes.
    max_bytes
        Budget in characters for the output that is shown.
    """
    with busy("waiting"):
        answer = Jobs.open().wait(
            job_id,
            until=until,
            pattern=pattern,
            fail_pattern=fail_pattern,
            literal=literal,
            idle=idle,
            port=port,
            url=url,
            cursor=cursor,
            mode="all" if all else "any",
            timeout=timeout,
            max_bytes=max_bytes,
        )
    show(answer, as_json=json)
    given = (("pattern", pattern), ("idle", idle), ("port", port), ("url", url))
    sys.exit(_wait_code(answer, {until, *(name for name, value in given if value is not None)}))


def _wait_code(answer: Waited, asked: set[str | None]) -> int:
    if answer.reason == "timeout":
        return WAIT_OVER
    if answer.reason != "exit":
        return 0 if answer.reason in asked else 1
    ended = [one.status for one in answer.jobs or (answer,) if one.reason == "exit"]
    return 0 if asked <= {None, "exit"} and set(ended) == {"completed"} else 1


def hidden_line() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Secret: ")
    return sys.stdin.readline().rstrip("\n")


@app.command
def interact(
    job_id: JobId,
    input: str | None = None,
    *,
    key: Annotated[list_of[str], Parameter(("--key", "-k"), negative="")] = [],  # noqa: B006
    no_enter: Annotated[bool, Flag] = False,
    wait: float = 5.0,
    pattern: str | None = None,
    secret: Annotated[bool, Flag] = False,
    json: Json = False,
) -> None:
    """Type into a running job and print what it answers.

    Parameters
    ----------
    input
        Text to type; Enter follows.
    key
        Key to press after the text, like C-c or Up; may be given several times.
    no_enter
        Do not press Enter after the text.
    wait
        Seconds to wait for the response.
    pattern
        Regular expression: answer once it shows in the response.
    secret
        Take the text from the terminal, unseen, or from standard input, and type it only at a password prompt.
    """
    if secret:
        if input:
            raise InvalidInput("A secret in the arguments could be seen by others: leave the text out with --secret.")
        input = hidden_line()
    with busy("waiting for the response"):
        answer = Jobs.open().interact(
            job_id, input, keys=key, enter=not no_enter, wait=wait, pattern=pattern, secret=secret
        )
    show(answer, as_json=json) if json else _print_output(answer)


@app.command
def kill(*job_id: JobId, signal: str = "TERM", grace: float = 5.0, json: Json = False, quiet: Quiet = False) -> None:
    """End jobs with everything they started.

    Parameters
    ----------
    job_id
        One job or several.
    signal
        The first signal: TERM, INT, HUP, KILL.
    grace
        Seconds until SIGKILL.
    """
    if not job_id:
        raise InvalidInput("kill needs a job id; `tmuxjobs list` shows all.")
    jobs = Jobs.open()
    failed = False
    for one in job_id:
        with busy(f"ending {one}"):
            answer = jobs.kill(one, signal=signal, grace=grace)
        failed |= answer.status == "not_found" or bool(answer.survivors)
        if not quiet or answer.status == "killed":
            show(answer, as_json=json, ids=one if quiet else None)
    sys.exit(1 if failed else 0)


@app.command
def hold(
    job_id: Annotated[str, Parameter(completer=job_ids)], *, toggle: Annotated[bool, Flag] = False, json: Json = False
) -> None:
    """Keep the agent from typing into a job and from ending it, while you work in it.

    Parameters
    ----------
    toggle
        Release it if it is held.
    """
    show(Jobs.open().hold(job_id, toggle=toggle), as_json=json)


@app.command
def release(job_id: JobId, *, json: Json = False) -> None:
    """Give a held job back to the agent."""
    show(Jobs.open().release(job_id), as_json=json)


@app.command
def attach(job_id: Annotated[str | None, Parameter(completer=job_ids)] = None) -> None:
    """Watch the jobs in tmux, or one of them; inside tmux the client switches over."""
    jobs = Jobs.open()
    argv = jobs.attach_argv(job_id)
    os.execv(argv[0], argv)
