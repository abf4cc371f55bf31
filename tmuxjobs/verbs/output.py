"""`output`, `tail` and `tail -f`: the log as clean text, and whether it is complete; `screen`: what it shows now.

A whole log is read in pieces, so memory stays flat.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tmuxjobs.answers import Output, Screen
from tmuxjobs.arguments import OUTPUT_CHARS
from tmuxjobs.contract import OPEN
from tmuxjobs.errors import InvalidInput, StateError, TmuxError, TmuxjobsError
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import AttemptRecord, LogRecord
from tmuxjobs.states import Job
from tmuxjobs.text import paging
from tmuxjobs.text.clean import Cleaner, clean, drawn
from tmuxjobs.text.lines import cleaner_at
from tmuxjobs.text.log import READ_S, Log, Punched, gone_because, gone_bytes, log_size
from tmuxjobs.text.paging import check_cursor, gap_line, line_begun, unshown
from tmuxjobs.verbs import attempts, prompts
from tmuxjobs.verbs.waiter import Watched, run, run_async
from tmuxjobs.visible import visible_lines

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
    attempt: int | None = None,
) -> Output:
    """Clean text since `cursor` (a raw offset), or all that fits, else its head and tail. Raises JobNotFound.

    A last line that may still be redrawn is shown as it stands; the cursor stays before it. With `attempt` it is what
    that attempt printed; raises InvalidInput for an unknown one.
    """
    job = host.look(job_id)
    part = attempts.part(job, attempt) if attempt is not None else None
    out, err = _pages(job, cursor, stderr_cursor, max_bytes=max_bytes, raw=raw, part=part)
    return _with_notes(_printed(job, out, err, raw=raw), prompts.screen_notes(host, job))


def _with_notes(answer: Output, notes: Sequence[str]) -> Output:
    return answer.model_copy(update={"note": "; ".join(filter(None, (answer.note, *notes)))})


def _printed(job: Job, out: paging.Page, err: paging.Page | None, *, raw: bool) -> Output:
    if raw:  # control characters stay as they are
        texts = {"stdout": out.text, "stderr": err.text if err else ""}
        return answer_of(job, out, err).model_copy(update=texts)
    out, err = replace(out, text=out.shown or out.text), err and replace(err, text=err.shown or err.text)
    return answer_of(job, out, err)


def _pages(
    job: Job,
    cursor: int | None,
    stderr_cursor: int | None,
    *,
    max_bytes: int,
    raw: bool,
    part: AttemptRecord | None = None,
) -> tuple[paging.Page, paging.Page | None]:
    budget = max(200, min(max_bytes, CHARS_MAX))

    def read(path: Path, start: int | None, begin: int, end: int | None) -> paging.Page:
        final = not job.running or end is not None
        return paging.read(path, cursor=start, max_chars=budget, raw=raw, final=final, begin=begin, end=end)

    outs = (part.begin, part.end) if part else (0, None)
    errs = (part.stderr_begin, part.stderr_end) if part else (0, None)
    err = read(job.stderr, stderr_cursor, *errs) if job.stderr else None
    return read(job.log, cursor, *outs), err


@dataclass(frozen=True)
class Whole:
    """All that a job has printed so far, piece by piece; `note` says what is missing."""

    stdout: Iterator[str] | Iterator[bytes]
    stderr: Iterator[str] | Iterator[bytes]
    note: str


def whole(
    host: Host,
    job_id: str,
    *,
    cursor: int = 0,
    stderr_cursor: int = 0,
    raw: bool = False,
    attempt: int | None = None,
) -> Whole:
    """The output without a bound, as a stream of clean text or, with `raw`, of the bytes on disk. Raises JobNotFound.

    A cursor that is beyond the end raises InvalidInput when the stream is read.
    """
    job = host.look(job_id)
    part = attempts.part(job, attempt) if attempt is not None else None

    def read(path: Path | None, start: int, begin: int, end: int | None) -> Iterator[str] | Iterator[bytes]:
        if path is None:
            return iter(())
        start = max(start, begin)
        return raw_pieces(path, start, end) if raw else map(visible_lines, clean_pieces(path, start, end))

    gone = sum(map(gone_bytes, job.logs))
    notes = [*([gone_words(gone, gone_because(*job.logs))] if gone else []), *log_notes(job)]
    out = read(job.log, cursor, *((part.begin, part.end) if part else (0, None)))
    err = read(job.stderr, stderr_cursor, *((part.stderr_begin, part.stderr_end) if part else (0, None)))
    return Whole(out, err, "; ".join(notes))


def tail(host: Host, job_id: str, *, lines: int = 50) -> Output:
    """The last `lines` (1 to 1,000) clean lines. Raises JobNotFound."""
    if not 1 <= lines <= 1000:
        raise InvalidInput(f"lines must be 1 to 1000, not {lines}.")
    job = host.look(job_id)
    err = paging.tail(job.stderr, lines=lines) if job.stderr else None
    return _with_notes(answer_of(job, paging.tail(job.log, lines=lines), err), prompts.screen_notes(host, job))


def answer_of(job: Job, out: paging.Page, err: paging.Page | None) -> Output:
    gone = out.gone_bytes + (err.gone_bytes if err else 0)
    notes = []
    if out.omitted_bytes and f"left out; cursor {out.omitted_at} reads them" not in out.text:
        where = f"; cursor {out.omitted_at} fetches them" if out.omitted_at is not None else ""
        lines = f"{out.omitted_lines} lines, " if out.omitted_lines else ""
        notes.append(f"{lines}{out.omitted_bytes} bytes left out{where}")
    for name, page in (("", out), (" of stderr", err)):
        notes += held_back(page, name) if page is not None else ()
    if gone:
        notes.append(gone_words(gone, gone_because(*job.logs)))
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
    """Whether the log is complete, in a few words."""
    if job.exit is not None and job.exit.log is not None:
        log = job.exit.log
        wrong = [*([log.why or "it is not known why"] if log.complete is False else []), *_changed(job, log)]
        if wrong:
            return f"incomplete: {'; '.join(wrong)}"
        return "complete" if log.complete else f"not known whether complete: {log.why}"
    if job.awaits_approval or job.exit is not None:
        return "nothing has run"
    if job.lost:
        return "cut off where the job was lost"
    if job.run is not None and not job.run.recording:
        return "no longer recorded"
    facts = ["recording"]
    if job.run is not None and job.run.recorder_restarts:
        facts.append(f"its recorder was replaced {job.run.recorder_restarts} times, output may be missing")
    try:
        gone = sum(map(gone_bytes, job.logs))
        why = gone_because(*job.logs)
    except StateError as error:
        return "; ".join([*facts, str(error).rstrip(".")])
    return "; ".join([*facts, *([gone_words(gone, why)] if gone else [])])


def gone_words(size: int, why: str) -> str:
    return f"{size} bytes are gone{f' ({why})' if why else ''}"


def log_notes(job: Job) -> list[str]:
    """Notes about a log that may be incomplete. Whether an adopted job's log is complete cannot be known."""
    said = log_state(job) if job.exit is not None and job.exit.log is not None else "complete"
    is_usual = said == "complete" or (job.spec.adopted is not None and not said.startswith("incomplete"))
    return [] if is_usual else [f"the log is {said}"]


def _sizes(job: Job, log: LogRecord | None = None) -> list[tuple[Path, int | None]]:
    """The job's logs, each with the size that it had at the end."""
    return list(zip(job.logs, (log.bytes, log.stderr_bytes) if log else (None, None), strict=False))


def _changed(job: Job, log: LogRecord) -> list[str]:
    """How the logs were changed since the job's end, in words."""
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
    if gone < log.dropped_bytes and not (said and gone):
        return [f"which {log.dropped_bytes} bytes are gone is no longer known: their list was removed or changed"]
    return said


def held_back(page: paging.Page, name: str = "") -> list[str]:
    """What a page leaves out, and why; *name* is the stream."""
    notes = []
    if page.late:
        notes.append(f"this took longer than {READ_S:g} s: the page ends early")
    if page.unfinished_bytes:
        notes.append(f"the last {page.unfinished_bytes} bytes{name} are an unfinished character or escape sequence")
    elif page.partial.strip():
        notes.append(f"the last line{name} may still be redrawn: {page.partial.lstrip()[-PARTIAL_CHARS:]!r}")
    return notes


PROGRESS_S = 1.0
PROGRESS_CHARS = 200


class Follow(Watched):
    """Iterates over what comes after the cursors, until the last page of a job that has ended.

    A page without text comes when nothing was printed for a second, and after `wake()`, which signal handlers may call.
    """

    def __init__(self, host: Host, job_id: str, *, cursor: int, stderr_cursor: int | None = None, raw: bool = False):
        super().__init__(host.look(job_id), logs=True)
        self.host = host
        self.job_id = job_id
        self.cursor = cursor
        self.stderr_cursor = stderr_cursor
        self.raw = raw
        self.over = False
        self.checks = 0

    def __iter__(self) -> Iterator[Output]:
        while not self.over:
            self.checks = 0
            yield run(self)

    def check(self) -> Output | None:
        job = self.host.look(self.job_id)
        out, err = _pages(job, self.cursor, self.stderr_cursor, max_bytes=CHARS_MAX, raw=self.raw)
        page = _printed(job, out, err, raw=True) if self.raw else answer_of(job, out, err)
        self.cursor, self.stderr_cursor = page.cursor, page.stderr_cursor
        self.over = page.status not in OPEN and not page.more
        self.checks += 1
        # The second check comes after an event without output, or after a pause: the caller may have something to do.
        return page if page.stdout or page.stderr or page.gone_bytes or self.over or self.checks > 1 else None


class LastLine:
    """The last line of any of several jobs, once it has changed."""

    pause_s = 60.0

    def __init__(self, host: Host, job_ids: Sequence[str]) -> None:
        self.host = host
        self.seen = dict.fromkeys(job_ids, "")

    @contextmanager
    def watched(self, wake: Callable[[], None]) -> Iterator[None]:
        with ExitStack() as stack:
            for job_id in self.seen:
                with suppress(TmuxjobsError):  # the wait itself reports it
                    stack.enter_context(Watched(self.host.find(job_id).look(job_id), logs=True).watched(wake))
            yield

    def check(self) -> str | None:
        for job_id, before in self.seen.items():
            with suppress(TmuxjobsError):
                line = tail(self.host.find(job_id), job_id, lines=1).stdout.strip()[-PROGRESS_CHARS:]
                if line and line != before:
                    self.seen[job_id] = line
                    return line
        return None


async def last_lines(host: Host, job_ids: Sequence[str]) -> AsyncIterator[str]:
    """The last line that any of the jobs has printed, whenever it has changed, at most once a second; never ends.

    Nothing comes in the first second, so that an answer that is nearly ready need not wait for it.
    """
    import asyncio  # takes 25 ms, and only the server has an event loop

    newest = LastLine(host, job_ids)
    while True:
        await asyncio.sleep(PROGRESS_S)
        yield await run_async(newest)


def screen(host: Host, job_id: str) -> Screen:
    """The rendered screen, as tmux shows it; for a finished job, as long as its window exists.

    Raises JobNotFound, and TmuxError when there is no window.
    """
    job = host.look(job_id)
    pane = host.tmux.panes().get(job_id)
    if pane is None:
        raise TmuxError(f"The window of job '{job_id}' is closed; `output` has what it printed.")
    seen = host.tmux.screen(pane, styled=True)
    # tmux names a character set where it changes, which may be in an earlier row.
    lines = tuple(drawn("\n".join(seen.lines).encode()).decode().split("\n"))
    rows = [clean(row.encode(), continued=True).replace("\n", " ").rstrip() for row in lines]
    return Screen(
        screen="\n".join(rows).rstrip("\n"),
        cursor_row=seen.cursor_row + 1,
        cursor_column=seen.cursor_column + 1,
        columns=seen.columns,
        rows=seen.rows,
        alternate=seen.alternate,
        mode=seen.mode,
        status=job.status,
        styled=lines,
        cursor_visible=seen.cursor_visible,
    )


PIECE: Final = 1 << 18


def clean_pieces(path: Path, start: int = 0, end: int | None = None) -> Iterator[str]:
    """The text, up to `end` or where the log ends now, with the last line as it stands and a line for each gap.

    All pieces together equal what `read` returns. Raises InvalidInput for a start beyond the end.
    """
    with Log(path, end=end) as log:
        check_cursor(log, start)
        begin, shown = line_begun(log, start)
        texts = _texts(log, begin)
        if shown:
            head = ""
            while len(head) <= len(shown) and (text := next(texts, None)) is not None:
                head += text
            yield unshown(head, shown)
        yield from texts


def raw_pieces(path: Path, start: int = 0, end: int | None = None) -> Iterator[bytes]:
    """The bytes that are on disk, as they are. Raises InvalidInput for a start beyond the end."""
    with Log(path, end=end) as log:
        check_cursor(log, start)
        for _, data in _pieces(log, start):
            yield data


def _texts(log: Log, start: int) -> Iterator[str]:
    cleaner, last, position = cleaner_at(log, start), "", start
    for position, data in _pieces(log, start):
        if data:
            text = cleaner.feed(data)
        else:
            text = cleaner.finish()
            text += gap_line(log, position, log.piece(position, log.end)[0], text or last)
            cleaner = Cleaner(continued=True)
            cleaner.shows_alternate = False
        if text:
            yield text
            last = text[-1]
    cleaner.shows_alternate = True
    yield cleaner.finish()


def _pieces(log: Log, position: int) -> Iterator[tuple[int, bytes]]:
    """Where each piece begins, and its bytes: none for a gap."""
    while position < log.end:
        until, gone = log.piece(position, log.end)
        data = b""
        if not gone:
            until = min(until, position + PIECE)
            try:
                data = log.read(position, until)
            except Punched:
                continue
            if not data:
                return
            until = position + len(data)
        yield position, data
        position = until
