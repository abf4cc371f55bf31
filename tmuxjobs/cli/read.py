"""The commands that read: list, status, output, tail, search, screen, log-path."""

import sys
from json import dumps
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from tmuxjobs.cli.app import Flag, JobId, Json, Quiet, app, show
from tmuxjobs.cli.follow import follow as stay
from tmuxjobs.errors import InvalidInput
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import Status
from tmuxjobs.visible import visible, visible_json


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

        from tmuxjobs.cli.table import Listing

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
            raise InvalidInput(f"'{png}' cannot be written: {error.strerror}.") from None


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
