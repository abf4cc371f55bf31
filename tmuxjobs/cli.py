"""The command line: the same verbs over the same `Jobs`. One function a command; errors end in `main`."""

import builtins
import contextlib
import getpass
import os
import sys
import traceback
from json import dumps
from pathlib import Path
from typing import Annotated, Any

from cyclopts import CycloptsError, Parameter

from tmuxjobs.app import (
    BUG,
    INTERRUPTED,
    USAGE,
    WAIT_OVER,
    Flag,
    JobId,
    Json,
    Quiet,
    app,
    job_ids,
    list_of,
    show,
    windows,
    wrong_usage,
)
from tmuxjobs.cli_start import pairs, serve
from tmuxjobs.errors import InvalidInput, SettingsError, StateError, TmuxjobsError
from tmuxjobs.following import follow as stay
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import Status
from tmuxjobs.progress import busy
from tmuxjobs.results import Waited
from tmuxjobs.settings import Settings
from tmuxjobs.store import Store
from tmuxjobs.streams import take_over
from tmuxjobs.visible import visible, visible_json
from tmuxjobs.waiting import Until


@app.command
def list(
    *,
    status: Status | None = None,
    limit: Annotated[int, Parameter(("--limit", "-n"))] = 20,
    name: str | None = None,
    watch: Annotated[bool, Parameter(("--watch", "-w"), negative="")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List jobs, newest first: as a table on a terminal, else a line for each.

    Parameters
    ----------
    status
        Only jobs in this state.
    limit
        How many at the most.
    name
        Only jobs with this in their id or command.
    watch
        Stay and keep the table up to date, until Ctrl-C.
    """
    jobs = Jobs.open()
    person = sys.stdout.isatty() and not (json or quiet)
    if watch and not person:
        raise InvalidInput("--watch needs a terminal, and neither --json nor --quiet; `wait` waits for jobs.")
    if person:
        # Rich's tables take 40 ms to import, and a script that lists jobs needs none.
        from rich.console import Console

        from tmuxjobs.table import Listing

        listing = Listing(jobs, Console(highlight=False), status=status, limit=limit, name=name)
        listing.watch() if watch else listing.show()
        return
    found = jobs.list(status=status, limit=limit, name=name)
    ids = "\n".join(job.job_id for job in found.jobs) if quiet else None
    if ids != "":
        show(found, as_json=json, ids=ids)


@app.command
def status(job_id: JobId, *, json: Json = False) -> None:
    """Tell how a job stands, and why."""
    show(Jobs.open().status(job_id), as_json=json)


@app.command
def output(
    job_id: JobId,
    *,
    cursor: int | None = None,
    stderr_cursor: int | None = None,
    max_bytes: int = 20_000,
    raw: Annotated[bool, Flag] = False,
    json: Json = False,
) -> None:
    """Print a job's output as clean text.

    Parameters
    ----------
    cursor
        Only what is new since this offset, from an earlier answer.
    stderr_cursor
        Likewise for a stderr of its own.
    max_bytes
        Budget in characters.
    raw
        Keep escapes and redraws.
    """
    answer = Jobs.open().output(job_id, cursor=cursor, stderr_cursor=stderr_cursor, max_bytes=max_bytes, raw=raw)
    show(answer, as_json=json) if json else _print_output(answer)


@app.command
def tail(
    job_id: JobId,
    *,
    lines: Annotated[int, Parameter(("--lines", "-n"))] = 50,
    follow: Annotated[bool, Parameter(("--follow", "-f"), negative="")] = False,
    json: Json = False,
) -> None:
    """Print the last lines of a job's output; with -f go on until the job ends.

    Parameters
    ----------
    lines
        How many, 1 to 1000.
    follow
        Print what comes until the job ends, and exit with its code.
    """
    if follow and json:
        raise InvalidInput("--follow prints output as it comes; for --json use `wait` or `output` with a cursor.")
    jobs = Jobs.open()
    answer = jobs.tail(job_id, lines=lines)
    show(answer, as_json=json) if json else _print_output(answer)
    if follow:
        sys.exit(stay(jobs, job_id, cursor=answer.cursor, stderr_cursor=answer.stderr_cursor))


def _print_output(answer: Any) -> None:
    """The output alone on stdout, a separate stderr and notes on stderr."""
    sys.stdout.write(answer.stdout)
    sys.stdout.flush()
    sys.stderr.write(answer.stderr)
    if answer.note:
        print(f"[{answer.note}]", file=sys.stderr)


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


@app.command
def search(
    job_id: JobId,
    pattern: str,
    *,
    literal: Annotated[bool, Parameter(("--literal", "-F"), negative="")] = False,
    ignore_case: Annotated[bool, Parameter(("--ignore-case", "-i"), negative="")] = False,
    context: Annotated[int, Parameter(("--context", "-C"))] = 0,
    limit: int = 20,
    cursor: int = 0,
    stderr_cursor: int = 0,
    json: Json = False,
) -> None:
    """Print the lines of a job's output that match, numbered like those of grep -n; exits with 1 when there are none.

    Parameters
    ----------
    pattern
        Regular expression.
    literal
        The pattern is plain text.
    context
        Lines to show around each match.
    limit
        How many matches at the most.
    cursor
        Only what comes after this offset, from an earlier answer.
    stderr_cursor
        Likewise for a stderr of its own.
    """
    found = Jobs.open().search(
        job_id,
        pattern,
        literal=literal,
        ignore_case=ignore_case,
        context=context,
        limit=limit,
        cursor=cursor,
        stderr_cursor=stderr_cursor,
    )
    show(found, as_json=json)
    if not found.total:
        sys.exit(1)


@app.command
def screen(job_id: JobId, *, png: Path | None = None, json: Json = False) -> None:
    """Print what a person who is attached sees of a job now.

    Parameters
    ----------
    png
        Write it as a picture into this file instead.
    """
    seen = Jobs.open().screen(job_id)
    if png is None:
        show(seen, as_json=json)
    else:
        from tmuxjobs import picture

        try:
            png.write_bytes(picture.png(seen))
        except OSError as error:
            raise InvalidInput(f"'{png}' can not be written: {error.strerror}.") from None


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
def attach(job_id: Annotated[str | None, Parameter(completer=job_ids)] = None) -> None:
    """Watch the jobs in tmux, or one of them; inside tmux the client switches over."""
    jobs = Jobs.open()
    argv = jobs.attach_argv(job_id)
    os.execv(argv[0], argv)


@app.command
def log_path(job_id: JobId, *, stderr: Annotated[bool, Flag] = False, json: Json = False) -> None:
    """Print where a job's log is: `less -R "$(tmuxjobs log-path JOB)"`.

    Parameters
    ----------
    stderr
        The log of a stderr of its own instead.
    """
    answer = Jobs.open().status(job_id)
    path = answer.stderr_path if stderr else answer.log_path
    if path is None:
        raise InvalidInput(f"Job '{job_id}' keeps no stderr of its own; it is in the log with the rest.")
    if json:
        print(visible_json(dumps({"job_id": job_id, "log_path": path})))
    else:
        print(visible(path) if sys.stdout.isatty() else path)


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
    for folder in jobs.store.kept(removed):
        print(
            f"tmuxjobs: {visible(str(folder))} stays, for it holds files that tmuxjobs did not make.", file=sys.stderr
        )
    if json:
        print(dumps({"removed": removed}))
    elif not quiet:
        print(f"{len(removed)} jobs removed.")
    else:
        print("".join(f"{job_id}\n" for job_id in removed), end="")


@app.default
def default() -> None:
    """Serve when a program started us, help a person."""
    if sys.stdin is not None and sys.stdin.isatty():
        app.help_print()
    else:
        serve()


def main() -> None:
    """Every error ends here: ours one line and 1, usage 2, a bug a traceback in a file and 3."""
    output = take_over()
    code = run()
    output.flush()
    if output.error is not None:
        print(f"tmuxjobs: The answer cannot be written: {output.error.strerror}.", file=sys.stderr)
        code = 1
    sys.exit(code)


def run() -> int | str | None:
    """Runs the command; its exit code."""
    try:
        app(exit_on_error=False, print_error=False)
    except SystemExit as done:
        return done.code
    except CycloptsError as error:
        print(f"tmuxjobs: {visible(wrong_usage(error))}", file=sys.stderr)
        return USAGE
    except InvalidInput as error:
        print(f"tmuxjobs: {error}", file=sys.stderr)
        return USAGE
    except TmuxjobsError as error:
        print(f"tmuxjobs: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - the one place where a bug ends
        print(f"tmuxjobs: this is a bug; what happened is in {visible(_save_traceback())}.", file=sys.stderr)
        return BUG
    return 0


def _save_traceback() -> str:
    """The traceback in a private file in the state directory, or the reason why not."""
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"tmuxjobs-bug-{os.getpid()}.txt"
    with contextlib.suppress(SettingsError, StateError):
        store = Store(Settings.load().state_dir)
        if store.is_marked():
            path = store.root / f"bug-{os.getpid()}.txt"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        return f"no file ({error.strerror})"
    with open(fd, "w") as file:
        traceback.print_exc(file=file)
    return str(path)
