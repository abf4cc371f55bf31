"""The commands that read: list, status, output, tail, search, screen, events, history, log-path."""

import sys
from json import dumps
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tmuxjobs.arguments import OUTPUT_CHARS, Scope
from tmuxjobs.cli import plain
from tmuxjobs.cli.app import LOOK, Flag, JobId, Json, Quiet, app
from tmuxjobs.cli.follow import UNREAD
from tmuxjobs.cli.plain import print_output, show
from tmuxjobs.cli.streams import Stream, write_all
from tmuxjobs.errors import InvalidInput
from tmuxjobs.jobs import Jobs
from tmuxjobs.models import Status
from tmuxjobs.visible import visible, visible_json, visible_lines


@app.command(group=LOOK)
def list(
    *,
    status: Status | None = None,
    limit: Annotated[int, Parameter(("--limit", "-n"))] = 20,
    name: str | None = None,
    scope: Scope | None = None,
    watch: Annotated[bool, Parameter(("--watch", "-w"), negative="", show_default=False)] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List jobs, newest first: as a table on a terminal, else a line for each.

    Parameters
    ----------
    status
        Only jobs in this state.
    limit
        How many at most.
    name
        Only jobs with this in their id or command.
    scope
        Only this project's jobs, or only those that people started (mine); all by default.
    watch
        Stay and keep the table up to date, until Ctrl-C.
    """
    plain.list(Jobs.open(), status=status, limit=limit, name=name, scope=scope, watch=watch, json=json, quiet=quiet)


@app.command(group=LOOK)
def status(job_id: JobId, *, json: Json = False) -> None:
    """Show a job's state, and why."""
    plain.status(Jobs.open(), job_id, json=json)


@app.command(group=LOOK)
def output(
    job_id: JobId,
    *,
    cursor: int | None = None,
    stderr_cursor: int | None = None,
    max_bytes: int | None = None,
    raw: Annotated[bool, Flag] = False,
    attempt: int | None = None,
    mirror: Annotated[bool, Flag] = False,
    json: Json = False,
) -> None:
    """Print all of a job's output as clean text: into a pipe or file in full, on a terminal in $PAGER or less.

    Parameters
    ----------
    cursor
        Only what is new since this offset, from an earlier answer.
    stderr_cursor
        Likewise for a separate stderr.
    max_bytes
        At most this many characters: the first and the last lines. With --json it is 20,000 by default.
    raw
        The bytes as they are, with escapes and redraws.
    attempt
        Only what that attempt printed, if the job has run several times.
    mirror
        For a job on another host: keep its log in a file here, byte for byte, until it ends; prints the file's path.
    """
    jobs = Jobs.open()
    if mirror:
        copies = jobs.mirror(job_id)
        for path in copies.paths.values():
            print(dumps({"mirror_path": str(path)}) if json else path, flush=True)
        copies.run()
        return
    if json or max_bytes is not None:
        room = OUTPUT_CHARS if max_bytes is None else max_bytes
        answer = jobs.output(
            job_id, cursor=cursor, stderr_cursor=stderr_cursor, max_bytes=room, raw=raw, attempt=attempt
        )
        show(answer, as_json=json) if json else print_output(answer)
        return
    whole = jobs.whole(job_id, cursor=cursor or 0, stderr_cursor=stderr_cursor or 0, raw=raw, attempt=attempt)
    write_all(whole.stdout, sys.stdout, paged=not raw)
    write_all(whole.stderr, sys.stderr)
    if whole.note:
        print(f"[{whole.note}]", file=sys.stderr)


@app.command(group=LOOK)
def tail(
    job_id: JobId,
    *,
    lines: Annotated[int, Parameter(("--lines", "-n"))] = 50,
    follow: Annotated[bool, Parameter(("--follow", "-f"), negative="", show_default=False)] = False,
    json: Json = False,
) -> None:
    """Print the last lines of a job's output; with -f follow it until the job ends.

    Parameters
    ----------
    lines
        How many, 1 to 1000.
    follow
        Print what comes until the job ends, and exit with its code.
    """
    plain.tail(Jobs.open(), job_id, lines=lines, follow=follow, json=json)


@app.command(group=LOOK)
def search(
    job_id: JobId,
    pattern: str,
    *,
    literal: Annotated[bool, Parameter(("--literal", "-F"), negative="", show_default=False)] = False,
    ignore_case: Annotated[bool, Parameter(("--ignore-case", "-i"), negative="", show_default=False)] = False,
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
    ignore_case
        Ignore the difference between upper and lower case.
    context
        Lines to show around each match.
    limit
        How many matches at most.
    cursor
        Only what comes after this offset, from an earlier answer.
    stderr_cursor
        Likewise for a separate stderr.
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
    if json or sys.stdout.isatty():
        show(found, as_json=json)
    else:
        print(*map(visible_lines, found.lines()), sep="\n", end="\n" if found.matches else "")
        print(visible_lines(found.facts()), file=sys.stderr)
    if not found.total:
        sys.exit(1)


@app.command(group=LOOK)
def screen(job_id: JobId, *, png: Path | None = None, json: Json = False) -> None:
    """Print a job's screen as an attached person sees it now.

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

        image = picture.png(seen)
        if image is None:
            raise InvalidInput(f"The screen of '{job_id}' is empty, so '{png}' was not written.")
        try:
            png.write_bytes(image)
        except OSError as error:
            raise InvalidInput(f"'{png}' cannot be written: {error.strerror}.") from None


@app.command(group=LOOK)
def events(
    *,
    follow: Annotated[bool, Parameter(("--follow", "-f"), negative="")] = False,
    since: int | None = None,
    project: Annotated[bool, Flag] = False,
    untold: Annotated[bool, Flag] = False,
    json: Json = False,
) -> None:
    """Print what happened to jobs, a numbered line each: starts, ends, prompts, holds.

    Parameters
    ----------
    follow
        Go on with what happens, as it happens, until Ctrl-C; without --since only that.
    since
        Only what came after this number.
    project
        Only jobs of this project.
    untold
        With --follow: only ends and prompts that no answer to an agent has reported.
    """
    if untold and not follow:
        raise InvalidInput("--untold needs --follow.")
    jobs = Jobs.open()
    scope: Scope = "project" if project else "all"
    happened = jobs.follow_events(since, scope=scope, untold=untold) if follow else jobs.events(since or 0, scope=scope)
    for entry in happened:
        if entry is not None:
            text = visible_json(entry.model_dump_json(exclude_none=True)) if json else visible(jobs.event_line(entry))
            print(text, flush=True)
        if follow and isinstance(sys.stdout, Stream) and sys.stdout.unread:
            sys.exit(UNREAD)


@app.command(group=LOOK)
def log_path(job_id: JobId, *, stderr: Annotated[bool, Flag] = False, json: Json = False) -> None:
    """Print where a job's log is: `less -R "$(tmuxjobs log-path JOB)"`.

    Parameters
    ----------
    stderr
        The log of a separate stderr instead.
    """
    answer = Jobs.open().status(job_id)
    path = answer.stderr_path if stderr else answer.log_path
    if path is None:
        raise InvalidInput(f"Job '{job_id}' has no separate stderr; it is in the log with the rest.")
    if json:
        print(visible_json(dumps({"job_id": job_id, "log_path": path})))
    else:
        print(visible(path) if sys.stdout.isatty() else path)


@app.command(group=LOOK)
def history(
    job_id: JobId | None = None, *, limit: Annotated[int, Parameter(("--limit", "-n"))] = 50, json: Json = False
) -> None:
    """Show who called what on which job, what the policy said and why; newest last.

    Parameters
    ----------
    limit
        How many at most.
    """
    deeds = Jobs.open().history(job_id, limit=limit)
    if json:
        rows = [deed.model_dump(mode="json", exclude_defaults=True) for deed in deeds]
        print(visible_json(dumps({"history": rows})))
        return
    for deed in deeds:
        print(visible(deed.text()))
