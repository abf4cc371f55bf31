"""The commands that act on a running job: wait, interact, kill, hold, release, approve, refuse, attach."""

import getpass
import os
import sys
from typing import Annotated

from cyclopts import Parameter

from tmuxjobs.answers import Waited
from tmuxjobs.arguments import Until
from tmuxjobs.cli import WAIT_OVER
from tmuxjobs.cli.app import (
    CONTROL,
    LOOK,
    Flag,
    Json,
    QueuedId,
    Quiet,
    RunningId,
    RunningIds,
    Seconds,
    ShownId,
    app,
    group_names,
    list_of,
)
from tmuxjobs.cli.plain import print_output, show
from tmuxjobs.cli.streams import busy
from tmuxjobs.contract import OPEN
from tmuxjobs.errors import InvalidInput
from tmuxjobs.jobs import Jobs
from tmuxjobs.visible import visible


@app.command(group=LOOK)
def wait(
    *job_id: RunningIds,
    until: Until | None = None,
    pattern: str | None = None,
    fail_pattern: str | None = None,
    literal: Annotated[bool, Flag] = False,
    redraws: Annotated[bool, Flag] = False,
    idle: Seconds | None = None,
    port: int | None = None,
    url: str | None = None,
    cursor: int | None = None,
    all: Annotated[bool, Parameter(("--all", "-a"), negative="", show_default=False)] = False,
    timeout: Seconds | None = None,
    max_bytes: int = 2_000,
    json: Json = False,
) -> None:
    """Wait until a job ends or one of the given conditions is met.

    Exits with 0 when what was waited for has come, 124 when the timeout has passed, else 1: the job failed, ended
    first, or waits for input.

    Parameters
    ----------
    until
        `exit` by default, which ends every wait.
    pattern
        Regular expression to see in new output.
    fail_pattern
        Regular expression that means failure.
    literal
        The patterns are plain text.
    redraws
        The patterns also count in what a program draws over, such as each frame of a progress bar.
    idle
        Seconds without output.
    port
        TCP port that the job listens on; 0 for any.
    url
        HTTP address that answers.
    cursor
        Output after this offset counts as new; by default all of it does.
    all
        Wait for all of the jobs, not for any one.
    timeout
        Seconds to wait at most; no limit by default.
    max_bytes
        Budget in characters for the output that is shown.
    """
    with busy("waiting"):
        answer = Jobs.open().wait(
            job_id or None,
            until=until,
            pattern=pattern,
            fail_pattern=fail_pattern,
            literal=literal,
            redraws=redraws,
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
    if answer.reason not in ("exit", "command_ended"):
        return 0 if answer.reason in asked else 1
    codes = {
        one.exit_code if one.status in ("completed", "failed", "running") else None
        for one in answer.jobs or (answer,)
        if one.reason in ("exit", "command_ended")
    }
    return 0 if asked <= {None, "exit"} and codes == {0} else 1


def hidden_line() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Secret: ")
    return sys.stdin.readline().rstrip("\n")


@app.command(group=CONTROL)
def interact(
    job_id: RunningId,
    input: str | None = None,
    *,
    key: Annotated[list_of[str], Parameter(("--key", "-k"), negative="")] = [],  # noqa: B006
    no_enter: Annotated[bool, Flag] = False,
    wait: Seconds = 5.0,
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
    if secret and input:
        raise InvalidInput("A secret in the arguments could be seen by others: leave the text out with --secret.")
    jobs = Jobs.open()
    if secret and jobs.status(job_id).status in OPEN:  # do not ask for what cannot be typed
        input = hidden_line()
    with busy("waiting for the response"):
        answer = jobs.interact(job_id, input, keys=key, enter=not no_enter, wait=wait, pattern=pattern, secret=secret)
    show(answer, as_json=json) if json else print_output(answer)


@app.command(group=CONTROL)
def kill(
    *job_id: RunningIds,
    signal: str = "TERM",
    grace: Seconds = 5.0,
    no_end: Annotated[bool, Flag] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """End jobs with everything they started, or send them a signal.

    Parameters
    ----------
    signal
        The first signal: TERM, INT, HUP, KILL.
    grace
        Seconds until SIGKILL.
    no_end
        Only send the signal, like USR1, HUP, STOP or CONT, to the programs that handle it; the jobs live.
    """
    if not job_id:
        raise InvalidInput("kill needs a job id; `tmuxjobs list` shows all.")
    jobs = Jobs.open()
    failed = False
    for one in job_id:
        with busy(f"{'signalling' if no_end else 'ending'} {one}"):
            answer = jobs.kill(one, signal=signal, grace=grace, end=not no_end)
        failed |= answer.status == "not_found" or bool(answer.survivors)
        if answer.status == "not_found" and not json:
            print(f"tmuxjobs: {visible(answer.detail)}.", file=sys.stderr)
        elif not quiet or answer.status in ("killed", "signalled"):
            show(answer, as_json=json, ids=one if quiet else None)
    sys.exit(1 if failed else 0)


@app.command(group=CONTROL)
def group(
    name: Annotated[str, Parameter(completer=group_names)],
    *,
    limit: int | None = None,
    pause: Annotated[bool, Flag] = False,
    resume: Annotated[bool, Flag] = False,
    jobs: Annotated[bool, Flag] = False,
    host: str | None = None,
    json: Json = False,
) -> None:
    """Show a group of jobs, limit how many of them may run at once, pause or resume it.

    Parameters
    ----------
    name
        As given to `execute --group`.
    limit
        How many of its jobs may run at once; 0 for any number.
    pause
        Let none of the waiting jobs start.
    resume
        Let them start again, and continue those that the pause has stopped.
    jobs
        Pause the running jobs too.
    host
        The machine that has the group.
    """
    answer = Jobs.open().group(name, host=host, limit=limit, pause=pause, resume=resume, jobs=jobs)
    show(answer, as_json=json)


@app.command(group=CONTROL)
def pause(job_id: RunningId, *, json: Json = False) -> None:
    """Stop a job with all that it started, until `resume`; the time between counts for no timeout."""
    show(Jobs.open().pause(job_id), as_json=json)


@app.command(group=CONTROL)
def resume(job_id: RunningId, *, json: Json = False) -> None:
    """Resume a paused job."""
    show(Jobs.open().resume(job_id), as_json=json)


@app.command(group=CONTROL)
def queue(
    job_id: QueuedId,
    *,
    first: Annotated[bool, Flag] = False,
    priority: int | None = None,
    command: str | None = None,
    json: Json = False,
) -> None:
    """Change a job that waits for its turn; `kill` cancels it.

    Parameters
    ----------
    first
        Let it go before all others.
    priority
        Higher goes first.
    command
        Another shell command line.
    """
    show(Jobs.open().queue(job_id, first=first, priority=priority, command=command), as_json=json)


@app.command(group=CONTROL)
def hold(job_id: RunningId, *, toggle: Annotated[bool, Flag] = False, json: Json = False) -> None:
    """Keep the agent from typing into a job and from ending it, while you work in it.

    Parameters
    ----------
    toggle
        Release it if it is held.
    """
    show(Jobs.open().hold(job_id, toggle=toggle), as_json=json)


@app.command(group=CONTROL)
def release(job_id: RunningId, *, json: Json = False) -> None:
    """Give a held job back to the agent."""
    show(Jobs.open().release(job_id), as_json=json)


@app.command(group=CONTROL)
def approve(job_id: RunningId, *, always: Annotated[bool, Flag] = False, json: Json = False) -> None:
    """Approve a job that waits for it, as `y` in its window does.

    Parameters
    ----------
    always
        First add the rule that its window shows at `a`: such a command is not asked about again.
    """
    show(Jobs.open().approve(job_id, always=always), as_json=json)


@app.command(group=CONTROL)
def refuse(job_id: RunningId, *, why: str = "", json: Json = False) -> None:
    """Refuse a job that waits for approval, as `n` in its window does.

    Parameters
    ----------
    why
        The reason that its agent reads.
    """
    show(Jobs.open().refuse(job_id, why=why), as_json=json)


@app.command(group=LOOK)
def attach(job_id: ShownId | None = None) -> None:
    """Watch the jobs in tmux, or one of them; inside tmux the client switches over."""
    argv = Jobs.open().attach(job_id)
    if not (os.environ.get("TMUX") or (sys.stdin.isatty() and sys.stdout.isatty())):
        raise InvalidInput("attach needs a terminal; without one `tmuxjobs tail -f ID` follows a job.")
    os.execvp(argv[0], argv)
