"""`output` and `tail`: the log as clean text; whether the log is whole."""

from __future__ import annotations

from pathlib import Path

from tmuxjobs.answers import Output
from tmuxjobs.arguments import OUTPUT_CHARS
from tmuxjobs.errors import InvalidInput, StateError
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Job, LogRecord
from tmuxjobs.text import paging
from tmuxjobs.text.log import READ_S, gone_bytes, log_size

CHARS_MAX = 400_000
PARTIAL_CHARS = 200


def output(
    host: Host,
    job_id: str,
    *,
    cursor: int | None = None,
    stderr_cursor: int | None = None,
    max_bytes: int = OUTPUT_CHARS,
    raw: bool = False,
) -> Output:
    """Clean text since `cursor` (a raw offset), or all that fits, else its head and tail. Raises JobNotFound."""
    job = host.look(job_id)
    budget = max(200, min(max_bytes, CHARS_MAX))
    final = not job.running

    def read(path: Path, start: int | None) -> paging.Page:
        return paging.read(path, cursor=start, max_chars=budget, raw=raw, final=final)

    err = read(job.stderr, stderr_cursor) if job.stderr else None
    out = read(job.log, cursor)
    answer = answer_of(job, out, err)
    # Raw is raw: nothing is made visible in it.
    return answer.model_copy(update={"stdout": out.text, "stderr": err.text if err else ""}) if raw else answer


def tail(host: Host, job_id: str, *, lines: int = 50) -> Output:
    """The last `lines` (1 to 1,000) clean lines. Raises JobNotFound."""
    if not 1 <= lines <= 1000:
        raise InvalidInput(f"lines must be 1 to 1000, not {lines}.")
    job = host.look(job_id)
    err = paging.tail(job.stderr, lines=lines) if job.stderr else None
    return answer_of(job, paging.tail(job.log, lines=lines), err)


def answer_of(job: Job, out: paging.Page, err: paging.Page | None) -> Output:
    gone = out.gone_bytes + (err.gone_bytes if err else 0)
    notes = []
    if out.omitted_bytes:
        where = f"; cursor {out.omitted_at} fetches them" if out.omitted_at is not None else ""
        lines = f"{out.omitted_lines} lines, " if out.omitted_lines else ""
        notes.append(f"{lines}{out.omitted_bytes} bytes left out{where}")
    for name, page in (("", out), (" of stderr", err)):
        notes += held_back(page, name) if page is not None else ()
    if gone:
        notes.append(f"{gone} bytes are gone")
    notes += log_notes(job)
    return Output(
        stdout=out.text,
        stderr=err.text if err else "",
        cursor=out.cursor,
        stderr_cursor=err.cursor if err else None,
        status=job.status,
        more=out.more or (err.more if err else False),
        omitted_bytes=out.omitted_bytes,
        omitted_lines=out.omitted_lines,
        omitted_at=out.omitted_at,
        gone_bytes=gone,
        note="; ".join(notes),
    )


def log_state(job: Job) -> str:
    """Whether the log is whole, in one or few words."""
    if job.exit is not None and job.exit.log is not None:
        log = job.exit.log
        wrong = [*([log.why or "it is not known why"] if log.complete is False else []), *_changed(job, log)]
        if wrong:
            return f"incomplete: {'; '.join(wrong)}"
        return "complete" if log.complete else f"not known whether complete: {log.why}"
    if job.lost:
        return "cut off where the job was lost"
    if job.run is not None and not job.run.recording:
        return "no longer recorded"
    facts = ["recording"]
    if job.run is not None and job.run.recorder_restarts:
        facts.append(f"its recorder was replaced {job.run.recorder_restarts} times, output may be missing")
    try:
        gone = sum(gone_bytes(path) for path, _ in _sizes(job))
    except StateError as error:
        return "; ".join([*facts, str(error).rstrip(".")])
    return "; ".join([*facts, *([f"{gone} bytes are gone"] if gone else [])])


def log_notes(job: Job) -> list[str]:
    """What an answer with output says of a log that may not be whole; of an adopted job's nobody ever knows."""
    said = log_state(job) if job.exit is not None and job.exit.log is not None else "complete"
    is_usual = said == "complete" or (job.spec.adopted is not None and not said.startswith("incomplete"))
    return [] if is_usual else [f"the log is {said}"]


def _sizes(job: Job, log: LogRecord | None = None) -> list[tuple[Path, int | None]]:
    """The job's logs, each with the size that it had at the end."""
    return list(zip(job.logs, (log.bytes, log.stderr_bytes) if log else (None, None), strict=False))


def _changed(job: Job, log: LogRecord) -> list[str]:
    """What has been done to the logs since the end of the job, in words."""
    said, gone = [], 0
    for path, size in _sizes(job, log):
        try:
            has = log_size(path)
            gone += gone_bytes(path)
        except StateError as error:
            said.append(str(error).rstrip("."))
            continue
        if size is not None and (has < size or (has > size and log.complete)):
            said.append(f"{path.name} had {size} bytes at the end of the job and has {has} now")
    if gone < log.dropped_bytes and not said:
        said.append(f"which {log.dropped_bytes} bytes are gone is no longer known: their list was removed or changed")
    return said


def held_back(page: paging.Page, name: str = "") -> list[str]:
    """What a page does not show of what is there, and why; *name* says of which stream."""
    notes = []
    if page.late:
        notes.append(f"this took longer than {READ_S:g} s: the page ends early")
    if page.unfinished_bytes:
        notes.append(f"the last {page.unfinished_bytes} bytes{name} are an unfinished character or escape sequence")
    elif page.partial.strip():
        notes.append(f"the last line{name} may still be redrawn: {page.partial.lstrip()[-PARTIAL_CHARS:]!r}")
    return notes
