"""`output` and `tail`: the log as clean text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tmuxjobs import output as logs
from tmuxjobs.errors import InvalidInput
from tmuxjobs.models import Running, Starting, State, status_of
from tmuxjobs.results import Output

if TYPE_CHECKING:
    from tmuxjobs.jobs import Jobs

CHARS = 20_000
CHARS_MAX = 400_000


def output(
    jobs: Jobs,
    job_id: str,
    *,
    cursor: int | None = None,
    stderr_cursor: int | None = None,
    max_bytes: int = CHARS,
    raw: bool = False,
) -> Output:
    """Clean text since `cursor` (a raw offset), or all that fits, else its head and tail. Raises JobNotFound."""
    record, state = jobs.look(job_id)
    budget = max(200, min(max_bytes, CHARS_MAX))
    final = not isinstance(state, Starting | Running)

    def read(path: Path, start: int | None) -> logs.Page:
        return logs.read(path, cursor=start, max_chars=budget, raw=raw, final=final)

    err = read(jobs.stderr_path(record), stderr_cursor) if record.job.separate_stderr else None
    return answer_of(state, read(jobs.log_path(record), cursor), err)


def tail(jobs: Jobs, job_id: str, *, lines: int = 50) -> Output:
    """The last `lines` (1 to 1,000) clean lines. Raises JobNotFound."""
    if not 1 <= lines <= 1000:
        raise InvalidInput(f"lines must be 1 to 1000, not {lines}.")
    record, state = jobs.look(job_id)
    err = logs.tail(jobs.stderr_path(record), lines=lines) if record.job.separate_stderr else None
    return answer_of(state, logs.tail(jobs.log_path(record), lines=lines), err)


def answer_of(state: State, out: logs.Page, err: logs.Page | None) -> Output:
    gone = out.gone_bytes + (err.gone_bytes if err else 0)
    notes = []
    if out.omitted_bytes:
        where = f"; cursor {out.omitted_at} fetches them" if out.omitted_at is not None else ""
        lines = f"{out.omitted_lines} lines, " if out.omitted_lines else ""
        notes.append(f"{lines}{out.omitted_bytes} bytes left out{where}")
    if gone:
        notes.append(f"{gone} bytes are gone: the log is bounded")
    return Output(
        stdout=out.text,
        stderr=err.text if err else "",
        cursor=out.cursor,
        stderr_cursor=err.cursor if err else None,
        status=status_of(state),
        more=out.more or (err.more if err else False),
        omitted_bytes=out.omitted_bytes,
        omitted_lines=out.omitted_lines,
        omitted_at=out.omitted_at,
        gone_bytes=gone,
        note="; ".join(notes),
    )
