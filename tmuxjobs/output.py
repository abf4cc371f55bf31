"""Reading a job's log: pages by cursor, its tail, search, and watching for a pattern.

A cursor is an offset in the raw stream since the job's start, which is also the offset in the file. Gaps are ranges of
the stream that are no longer on disk; a sidecar lists them. Memory stays flat however large the log is.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

from tmuxjobs.clean import Cleaner, clean, printable_lines, redraws, settled
from tmuxjobs.errors import InvalidInput, StateError

if TYPE_CHECKING:
    import regex

CHARS: Final = 20_000
CHARS_MIN: Final = 200
LINE_CHARS: Final = 300
MATCHES_MAX: Final = 1_000
CONTEXT_MAX: Final = 50
BLOCK: Final = 1 << 20
PAGE_BYTES: Final = 8 << 20
"""Raw bytes cleaned for one page at most; a log of more is read at its head and tail."""
TAIL_BYTES: Final = 4 << 20
SEEK_BYTES: Final = 256 << 20
LOOK_BACK: Final = 1 << 18
STEP: Final = 1 << 16
OVERLAP: Final = 1 << 12
TRIES: Final = 5
NOTE_CHARS: Final = 200
REPEATS_MAX: Final = 1_000_000

_SWITCH: Final = re.compile(rb"\x1b\[\?(?:[0-9]{1,5};){0,8}(?:47|1047|1049)([hl])")
_ENTER_ALTERNATE: Final = b"\x1b[?1049h"
# What may match in a line by itself but not in a block of lines: lookarounds, atomic groups, edges of the text.
_NEEDS_LINES: Final = re.compile(r"\(\?(?!:|P?<[^\W\d]|P=|[aimsux]+[:)])|[*+?}]\+|\\[AZzGKRXNLp]|\(\*")
_NOISE: Final = bytes(set(range(0x20)) - set(b"\t\n\r")) + b"\x7f"
_REPEAT: Final = re.compile(r"\{(\d*),?(\d*)\}")

T = TypeVar("T")


@dataclass(frozen=True)
class Page:
    """A stretch of output. Offsets and `_bytes` are raw, `text` is what was asked for (clean, or raw decoded)."""

    text: str
    start: int
    cursor: int
    """Where to go on from."""
    end: int
    """Size of the stream when it was read."""
    more: bool = False
    """Whether text that could be read already was left for the next page."""
    partial: str = ""
    """The last line as it stands, while it is being redrawn: not part of `text`, and read again from `cursor`."""
    omitted_bytes: int = 0
    omitted_lines: int = 0
    omitted_at: int | None = None
    """The cursor that fetches what was left out."""
    gone_bytes: int = 0
    """Bytes of the range that are no longer on disk."""


@dataclass(frozen=True)
class Match:
    """A line that matches. `text` is cut around the match when the line is long."""

    line: int
    line_is_exact: bool
    """False after a gap: the number then counts the lines on disk alone."""
    cursor: int
    text: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def bare(self) -> str:
        """The text as it stands in the log, without the marks of what was cut."""
        return self.text.strip("…")


@dataclass(frozen=True)
class SearchResult:
    matches: tuple[Match, ...]
    total: int
    """Matching lines, those beyond the limit too."""
    total_at_least: bool
    """True when time ran out before the end: there may be more."""
    cursor: int
    """Where to go on from: behind the last match given, or at the end of what was searched."""
    truncated: bool
    gone_bytes: int


GAPS_BYTES = 1 << 16
"""More than the recorder ever lists."""


class _Punched(Exception):
    """A hole was punched into a range while it was being read; the log's gaps know it by now."""


class _Log:
    """One view of a log: its end is fixed, what is read is checked against the gaps as they are after the read."""

    def __init__(self, path: Path, *, strict: bool = True) -> None:
        self._sidecar = path.with_suffix(".gaps")
        self._strict = strict
        self._listed, self.gaps = _gaps(self._sidecar)
        self._fd = _opened(path)
        size = os.fstat(self._fd).st_size if self._fd >= 0 else 0
        self.end = max(size, self.gaps[-1][1] if self.gaps else 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def read(self, start: int, end: int) -> bytes:
        """Bytes of a range that holds no gap. Raises _Punched, unless the log is not strict."""
        data = b""
        while start + len(data) < end and self._fd >= 0:
            more = os.pread(self._fd, end - start - len(data), start + len(data))
            if not more:
                break
            data += more
        listed = _listed(self._sidecar)
        if self._strict and listed != self._listed:
            self._listed, self.gaps = _gaps(self._sidecar)
            if any(begin < end and start < until for begin, until in self.gaps):
                raise _Punched
        return data

    def piece(self, position: int, end: int) -> tuple[int, bool]:
        """Where the gap or the stretch of data at *position* ends, and whether it is a gap."""
        for begin, until in self.gaps:
            if position < begin:
                return min(begin, end), False
            if position < until:
                return min(until, end), True
        return end, False

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
        while start < end:
            until, gone = self.piece(start, end)
            yield start, until, gone
            start = until

    def gone(self, start: int, end: int) -> int:
        return sum(until - begin for begin, until, gone in self.pieces(start, end) if gone)

    def floor(self, position: int) -> int:
        """The start of the unbroken stretch of data that ends at *position*."""
        return max((min(until, position) for begin, until in self.gaps if begin < position), default=0)


def _opened(path: Path) -> int:
    """A descriptor of a regular file of ours, -1 when there is none. A FIFO in its place must not block."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return -1
    except OSError as error:
        raise StateError(f"'{path}' can not be read: {error.strerror}.") from None
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.getuid():
        os.close(fd)
        raise StateError(f"'{path}' is not a log of tmuxjobs; remove it or its folder.")
    return fd


def _listed(sidecar: Path) -> bytes:
    fd = _opened(sidecar)
    if fd < 0:
        return b""
    try:
        return os.read(fd, GAPS_BYTES)
    finally:
        os.close(fd)


def _gaps(sidecar: Path) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """Raises StateError when the file stays unreadable: a read in the middle of a rewrite is tried again."""
    for _ in range(TRIES):
        listed = _listed(sidecar)
        text = listed.strip(b" \n\0")
        try:
            gaps = json.loads(text)["gaps"] if text else []
            return listed, tuple(sorted((int(begin), int(end)) for begin, end in gaps if int(begin) < int(end)))
        except (ValueError, TypeError, KeyError, OverflowError):
            time.sleep(0.002)
    raise StateError(f"{sidecar} does not list the gaps of the log; remove it to read the log as it is.")


def _steady(path: Path, read: Callable[[_Log], T]) -> T:
    """Read from one view of the log, and begin again when a hole was punched into what was read."""
    for _ in range(TRIES):
        with _Log(path) as log:
            try:
                return read(log)
            except _Punched:
                continue
    with _Log(path, strict=False) as log:  # holes read as NULs, which clean text drops
        return read(log)


def read(
    path: Path, *, cursor: int | None = None, max_chars: int = CHARS, raw: bool = False, final: bool = False
) -> Page:
    """What is new since *cursor*, at most *max_chars* from there; without one, all that fits, else head and tail.

    An unfinished last line is given at once. While it is being redrawn it is only shown as `partial`, and the cursor
    stays before it, so that pages read one after the other add up to the text read at once; *final* says that no more
    will come. If a line that was partly given has been redrawn since, it is given again on a new line. Raises
    InvalidInput for a cursor that is beyond the end.
    """
    budget = max(CHARS_MIN, max_chars)
    if cursor is None:
        return _steady(path, lambda log: _ends(log, 0, budget, raw=raw, final=final))
    return _steady(path, lambda log: _since(log, cursor, budget, raw=raw, final=final))


def ends(path: Path, *, cursor: int, max_chars: int = CHARS, final: bool = False) -> Page:
    """What is new since *cursor*, all when it fits, else its head and the newest with what is left out named."""
    return _steady(path, lambda log: _ends(log, cursor, max(CHARS_MIN, max_chars), raw=False, final=final))


def lines_before(path: Path, cursor: int, lines: int) -> int:
    """Where so many lines before the one at *cursor* begin; looks back at most OVERLAP bytes, never across a gap."""
    return _steady(path, lambda log: _lines_before(log, cursor, lines))


def tail(path: Path, *, lines: int, max_chars: int = CHARS) -> Page:
    """The last clean lines, an unfinished one counted; looks back at most TAIL_BYTES and says what it left out."""
    return _steady(path, lambda log: _tail(log, max(1, lines), max(CHARS_MIN, max_chars)))


def last_line(path: Path) -> str:
    """The clean text of the unfinished last line, such as a prompt; "" when the stream ends with a newline."""
    return _steady(path, lambda log: _line_at_end(log))


def log_size(path: Path) -> int:
    """Bytes of the stream so far, those that are gone counted: the cursor of what comes next. Raises as `read` does."""
    with _Log(path) as log:
        return log.end


# pages


def _since(log: _Log, cursor: int, budget: int, *, raw: bool, final: bool) -> Page:
    if not 0 <= cursor <= log.end:
        raise InvalidInput(f"Cursor {cursor} is not in the output, which has {log.end} bytes; read on from {log.end}.")
    stop = _stable_end(log, raw=raw, final=final)
    begin, shown = (cursor, "") if raw else _line_begun(log, cursor)
    if stop <= cursor:
        page = Page("", cursor, cursor, log.end)
    else:
        page = _forward(log, begin, stop, budget + len(shown), raw=raw, final=final)
        if page.cursor <= cursor or (not page.text.startswith(shown) and len(page.text) > budget):
            begin, shown = cursor, ""
            page = _forward(log, begin, stop, budget, raw=raw, final=final)
        page = replace(page, text=_unshown(page.text, shown))
    start = log.piece(cursor, log.end)[0] if log.gone(cursor, min(cursor + 1, log.end)) else cursor
    partial = ""
    if stop < log.end and not raw and not page.more:
        partial = _unshown(_text(log, max(stop, begin), log.end), shown if stop <= begin else "")
    return replace(page, start=start, partial=partial)


def _unshown(text: str, shown: str) -> str:
    if text.startswith(shown):
        return text[len(shown) :]
    return "\n" + text


def _line_begun(log: _Log, cursor: int) -> tuple[int, str]:
    """Where the line begins that *cursor* is in, and what was shown of it."""
    if log.gone(cursor, min(cursor + 1, log.end)):
        return cursor, ""
    floor = log.floor(cursor)
    start = max(floor, cursor - LOOK_BACK)
    data = log.read(start, cursor)
    newline = data.rfind(b"\n")
    if newline < 0 and start > floor:
        return cursor, ""
    begin = start + newline + 1
    return begin, _text(log, begin, cursor) if begin < cursor else ""


def _stable_end(log: _Log, *, raw: bool, final: bool) -> int:
    """Where the part begins that may still be redrawn or is not whole yet; the end when there is none."""
    floor = log.floor(log.end)
    if final or floor == log.end:
        return log.end
    start = max(floor, log.end - LOOK_BACK)
    data = log.read(start, log.end)
    line = data.rfind(b"\n") + 1
    if raw or not redraws(data[line:]):
        return start + line + (settled(data[line:]) or (len(data) - line if len(data) - line > STEP else 0))
    if line or start == floor:
        return start + line
    return start + max(0, data.rfind(b"\r"))  # endless redraws: frames that are over need not be kept


def _forward(log: _Log, start: int, end: int, budget: int, *, raw: bool = False, final: bool = False) -> Page:
    """The text from *start* until the budget or *end* is reached; a line stands for each gap."""
    parts: list[str] = []
    position, room = start, budget
    for begin, until, gone in log.pieces(start, end):
        if gone:
            text, position = _gap_line(log, begin, until, "".join(parts[-1:])), until
            if parts and len(text) > room:
                position = begin
                break
        else:
            text, position = (_fill_raw if raw else _fill)(log, begin, until, room, final)
        if text:
            parts.append(text)
            room -= len(text)
        if position < until:
            break
    return Page("".join(parts), start, position, log.end, more=position < end, gone_bytes=log.gone(start, position))


def _gap_line(log: _Log, begin: int, end: int, text: str) -> str:
    whole = f"[... {end - begin:,} bytes are gone: the log is bounded ...]\n"
    if not text:
        floor = log.floor(begin)
        text = "x" if floor < begin and log.read(begin - 1, begin) != b"\n" else "\n"
    return whole if text.endswith("\n") else "\n" + whole


def _fill_raw(log: _Log, start: int, end: int, room: int, _final: bool) -> tuple[str, int]:
    data = log.read(start, min(end, start + max(1, room)))
    if start + len(data) < end:
        data = data[: data.rfind(b"\n") + 1 or settled(data) or len(data)]
    return data.decode("utf-8", "replace"), start + len(data)


def _fill(log: _Log, start: int, end: int, room: int, final: bool) -> tuple[str, int]:
    """Clean text of whole lines within *room*, from a stretch without gaps, and where it ends."""
    cleaner = _cleaner_at(log, start)
    parts: list[str] = []
    position, step, fits, used = start, max(OVERLAP, min(STEP, 2 * room)), True, 0
    while position < end and (position - start < PAGE_BYTES or not _at_line_start(log, position)):
        data = log.read(position, min(position + step, end))
        if step < STEP and b"\n" not in data and position + step < end:
            step = min(STEP, 4 * step)
            continue
        data = _lines_of(data, whole=position + step >= end)
        trial = cleaner.copy()
        text = trial.feed(data)
        if used + len(text) + len(trial.pending) > room:
            fits = False
            middle = len(data) // 2
            step = data.rfind(b"\n", 0, middle) + 1 or data.find(b"\n", middle) + 1 or len(data)
            if step < len(data):
                continue
            if position > start:
                break
            data = data[: _cut_within(data, max(1, room))]
            text = cleaner.feed(data)
        else:
            cleaner = trial
        parts.append(text)
        used += len(text)
        position += len(data)
        if len(data) == 0 or (not fits and position - start == len(data) and used >= room):
            break
        step = min(step * 2, BLOCK) if fits else step
    text = "".join([*parts, cleaner.finish()])
    if final and position == log.end:
        text += _screen_left(cleaner, room - len(text))
    return text, position


def _screen_left(cleaner: Cleaner, room: int) -> str:
    """What stands on an alternate screen that was never left: its last rows that fit."""
    history = cleaner.pending
    cleaner.shows_alternate = True
    screen = cleaner.pending[len(history) :]
    if len(screen) <= room:
        return screen
    rows = screen.split("\n")
    kept = rows[len(rows) - _lines_within(screen, len(rows), room) :]
    return "\n".join(["", f"[... {len(rows) - len(kept)} rows of the screen left out ...]", *kept])


def _cut_within(data: bytes, room: int) -> int:
    """Where to cut a giant line: behind at most *room* bytes of text, and never inside a sequence."""
    cuts = (settled(data[:size]) for size in range(room, len(data), room))
    return next(filter(None, cuts), len(data))


def _lines_of(data: bytes, *, whole: bool) -> bytes:
    """The data up to its last newline, or up to where no sequence is cut, unless it is the whole rest."""
    return data if whole else data[: data.rfind(b"\n") + 1 or settled(data) or len(data)]


def _at_line_start(log: _Log, position: int) -> bool:
    return position == 0 or log.read(position - 1, position) in (b"\n", b"")


def _cleaner_at(log: _Log, position: int) -> Cleaner:
    """A cleaner for the stream from *position* on, which knows whether that is on an alternate screen."""
    cleaner = Cleaner(continued=position > 0)
    cleaner.shows_alternate = False
    start = position
    floor = max(log.floor(position), position - PAGE_BYTES)
    while start > floor:
        start = max(floor, start - BLOCK)
        data = log.read(start, min(position, start + BLOCK + 64))
        at = data.rfind(b"\x1b[?") if b"49" in data or b"47" in data else -1
        switch = _last_switch(data) if at >= 0 else None
        if switch is not None:
            if switch == b"h":
                cleaner.feed(_ENTER_ALTERNATE)
            break
    return cleaner


def _last_switch(data: bytes) -> bytes | None:
    last = None
    for match in _SWITCH.finditer(data):
        last = match[1]
    return last


def _text(log: _Log, start: int, end: int, *, alternate: bool = False) -> str:
    cleaner = _cleaner_at(log, start)
    cleaner.shows_alternate = alternate
    data = log.read(start, end)
    return cleaner.feed(data) + cleaner.finish()


def _ends(log: _Log, cursor: int, budget: int, *, raw: bool, final: bool) -> Page:
    stop = _stable_end(log, raw=raw, final=final)
    if stop - cursor - log.gone(cursor, stop) <= PAGE_BYTES:
        page = _since(log, cursor, budget, raw=raw, final=final)
        if not page.more:
            return page
    head = _since(log, cursor, budget // 3, raw=raw, final=False)
    back = _backward(log, stop, budget - len(head.text) - NOTE_CHARS, raw=raw, final=final)
    if back.start <= head.cursor:
        rest = _forward(log, head.cursor, stop, budget, raw=raw, final=final)
        return _with_partial(log, replace(rest, text=head.text + rest.text, start=head.start), raw=raw)
    gone = log.gone(head.cursor, back.start)
    page = Page(
        "", head.start, stop, log.end, gone_bytes=head.gone_bytes + gone, omitted_at=head.cursor,
        omitted_bytes=back.start - head.cursor - gone, omitted_lines=_newlines(log, head.cursor, back.start),
    )  # fmt: skip
    note = _omission(page, gone)
    between = "" if not head.text or head.text.endswith("\n") else "\n"
    return _with_partial(log, replace(page, text=f"{head.text}{between}{note}\n{back.text}"), raw=raw)


def _omission(page: Page, gone: int) -> str:
    also = f", and {gone:,} more bytes are gone: the log is bounded" if gone else ""
    return (
        f"[... {page.omitted_lines:,} lines ({page.omitted_bytes:,} bytes) left out; "
        f"cursor {page.omitted_at} reads them{also} ...]"
    )


def _with_partial(log: _Log, page: Page, *, raw: bool) -> Page:
    if raw or page.more or page.cursor >= log.end:
        return page
    return replace(page, partial=_text(log, page.cursor, log.end))


def _newlines(log: _Log, start: int, end: int) -> int:
    count = 0
    for begin, until, gone in log.pieces(start, end):
        while begin < until and not gone:
            data = log.read(begin, min(begin + BLOCK, until))
            count += data.count(b"\n")
            begin += len(data) or until
    return count


# the end of the log


@dataclass(frozen=True)
class _Back:
    """Text up to the end of a log; `whole` when it is all the lines that were asked for."""

    text: str
    start: int
    whole: bool


def _backward(
    log: _Log, end: int, budget: int, *, lines: int | None = None, raw: bool = False, final: bool = False
) -> _Back:
    """The last lines before *end* that fit the budget, at most *lines*, in one stretch without gaps."""
    floor, window = log.floor(end), STEP
    while True:
        start = max(floor, end - window)
        data = log.read(start, end)
        if start > floor:
            skip = data.find(b"\n") + 1 or _continuation(data)
            start, data = start + skip, data[skip:]
        text = _decoded(log, start, data, raw=raw, final=final)
        enough = len(text) > budget or (lines is not None and _rows(text) > lines)
        if enough or end - window <= floor or window >= TAIL_BYTES:
            break
        window *= 4
    if not text:
        return _Back("", end, whole=True)
    asked = min(_rows(text), lines or _rows(text))
    kept = _lines_within(text, asked, budget)
    if kept == 0:
        return _giant_line(log, start, data, budget, raw=raw)
    if lines is not None:
        rows = text.removesuffix("\n").split("\n")[-kept:]
        shown = "\n".join(rows) + ("\n" if text.endswith("\n") else "")
        whole = kept == lines or (kept == asked and start == floor)
        return _Back(shown, start + _nth_last_line(data, kept), whole)
    return _fitting(log, start, data, budget, kept, raw=raw, final=final)


def _fitting(log: _Log, start: int, data: bytes, budget: int, kept: int, *, raw: bool, final: bool) -> _Back:
    """Redrawn rows make clean lines and raw ones differ: drop raw lines until the text fits."""
    while True:
        skip = _nth_last_line(data, kept)
        text = _decoded(log, start + skip, data[skip:], raw=raw, final=final)
        if len(text) <= budget or kept == 0:
            return _Back(text[-budget:], start + skip, whole=False)
        kept = kept * 3 // 4


def _giant_line(log: _Log, start: int, data: bytes, budget: int, *, raw: bool) -> _Back:
    skip = settled(data[: max(0, len(data) - budget)])
    skip += _continuation(data[skip:])
    text = _decoded(log, start + skip, data[skip:], raw=raw, final=False)
    return _Back(text[-budget:], start + skip, whole=False)


def _decoded(log: _Log, start: int, data: bytes, *, raw: bool, final: bool) -> str:
    if raw:
        return data.decode("utf-8", "replace")
    cleaner = _cleaner_at(log, start)
    cleaner.shows_alternate = final
    return cleaner.feed(data) + cleaner.finish()


def _continuation(data: bytes) -> int:
    """How many bytes at the start belong to a character that began before."""
    return next((n for n, byte in enumerate(data[:3]) if byte & 0xC0 != 0x80), min(3, len(data)))


def _rows(text: str) -> int:
    return text.count("\n") + (not text.endswith("\n") if text else 0)


def _nth_last_line(data: bytes, lines: int) -> int:
    """Where the last *lines* lines begin."""
    at = len(data) - data.endswith(b"\n")
    for _ in range(lines):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return 0
    return at + 1 if lines else len(data)


def _lines_back(log: _Log, lines: int) -> int:
    """Where the last *lines* raw lines begin, or the stretch without gaps that they are in. Looks at SEEK_BYTES."""
    end = log.end
    floor = max(log.floor(end), end - SEEK_BYTES)
    if end > floor and log.read(end - 1, end) == b"\n":
        end -= 1
    while end > floor:
        start = max(floor, end - BLOCK)
        data = log.read(start, end)
        found = data.count(b"\n")
        if found >= lines:
            return start + _nth_last_line(data + b"\n", lines)
        lines -= found
        end = start
    return floor


def _lines_before(log: _Log, cursor: int, lines: int) -> int:
    floor = log.floor(cursor)
    start = max(floor, cursor - OVERLAP)
    data = log.read(start, cursor)
    # What begins in the middle of a line is no line.
    skip = data.find(b"\n") + 1 or len(data) if start > floor else 0
    return start + max(skip, _nth_last_line(data, lines))


def _lines_within(text: str, lines: int, budget: int) -> int:
    used, kept = 0, 0
    for row in reversed(text.removesuffix("\n").split("\n")):
        used += len(row) + 1
        if used > budget or kept == lines:
            break
        kept += 1
    return kept


def _tail(log: _Log, lines: int, budget: int) -> Page:
    stop = _stable_end(log, raw=False, final=False)
    back = _backward(log, log.end, budget, lines=lines, final=True)
    page = Page(back.text, back.start, stop, log.end)
    if log.floor(log.end) == log.end and log.end:
        begin = next(begin for begin, until in log.gaps if until == log.end)
        note = f"[... {log.end - begin:,} bytes are gone at the end: the log is bounded or the disk was full ...]\n"
        return replace(page, text=note, gone_bytes=log.end - begin)
    asked = back.start if back.whole else _lines_back(log, lines)
    if asked >= back.start:
        return page
    back = _backward(log, log.end, budget - CHARS_MIN // 2, lines=lines, final=True)  # room for the note
    page = replace(page, start=back.start)
    missing = _newlines(log, asked, back.start)
    page = replace(page, omitted_bytes=back.start - asked, omitted_lines=missing, omitted_at=asked)
    return replace(page, text=f"{_omission(page, 0)}\n{back.text}")


def _line_at_end(log: _Log) -> str:
    floor = log.floor(log.end)
    start = max(floor, log.end - LOOK_BACK)
    data = log.read(start, log.end)
    line = data.rfind(b"\n") + 1
    if not line and start > floor:
        line = data.rfind(b"\r", 0, len(data) - 1) + 1 or len(data) - STEP
    return _text(log, start + line, log.end).rpartition("\n")[2] if line < len(data) else ""


# search


def compiled(pattern: str, *, literal: bool = False, ignore_case: bool = False) -> regex.Pattern[str]:
    """Raises InvalidInput, in one sentence, for a pattern that is empty, wrong or too large."""
    import regex  # takes 15 ms, and only searching needs it

    if not pattern:
        raise InvalidInput("The pattern is empty.")
    repeats = 1
    for least, most in _REPEAT.findall(pattern):
        repeats *= max(1, int(most or least or 1)) if len(most or least) < 8 else REPEATS_MAX + 1
    if not literal and (repeats > REPEATS_MAX or len(pattern) > 10_000):
        raise InvalidInput(f"The pattern is too large: {pattern[:80]!r} repeats more than {REPEATS_MAX:,} times.")
    flags = regex.MULTILINE | (regex.IGNORECASE if ignore_case else 0)
    try:
        return regex.compile(regex.escape(pattern) if literal else pattern, flags)
    except (regex.error, RecursionError, OverflowError, ValueError) as error:
        raise InvalidInput(f"The pattern {pattern[:80]!r} is not a regular expression: {error}.") from None


def search(
    path: Path,
    pattern: str,
    *,
    literal: bool = False,
    ignore_case: bool = False,
    context: int = 0,
    limit: int = 50,
    cursor: int = 0,
    timeout: float = 10.0,
) -> SearchResult:
    """The lines that match, counted to the end of the log or until *timeout* (s), the first *limit* of them given.

    A line is what stands between two newlines of the raw stream, cleaned by itself, so `line` is that of `grep -n` on
    the log; every frame of a block of rows that is redrawn is lines of its own. Raises InvalidInput for a bad pattern.
    """
    seek = compiled(pattern, literal=literal, ignore_case=ignore_case)
    deadline = time.monotonic() + timeout
    with _Log(path) as log:
        if not 0 <= cursor <= log.end:
            raise InvalidInput(f"Cursor {cursor} is not in the output, which has {log.end} bytes.")
        first = 1 + _newlines_so_far(log, cursor)
        needle = pattern.encode("utf-8", "surrogatepass") if literal and not ignore_case else None
        scan = _Scan(log, seek, cursor, first, deadline, needle)
        result = _collect(scan, max(1, min(limit, MATCHES_MAX)))
        around = max(0, min(context, CONTEXT_MAX))
        if around:
            result = replace(result, matches=tuple(_with_context(log, match, around) for match in result.matches))
        return result


def _newlines_so_far(log: _Log, cursor: int) -> int:
    try:
        return _newlines(log, 0, cursor)
    except _Punched:
        return _newlines(log, 0, cursor)


def _collect(scan: _Scan, limit: int) -> SearchResult:
    matches: list[Match] = []
    total, cursor, complete = 0, 0, True
    try:
        for found in scan.lines():
            total += 1
            if len(matches) < limit:
                matches.append(found.match())
                cursor = found.end
    except TimeoutError:
        complete = False
    truncated = total > len(matches)
    if not truncated:
        cursor = max(cursor, scan.resume)
    gone = scan.log.gone(scan.start, scan.position)
    return SearchResult(tuple(matches), total, not complete, cursor, truncated or not complete, gone)


@dataclass(frozen=True)
class _Found:
    """A matching line of a block, described only when it is asked for."""

    data: bytes
    offset: int
    index: int
    line: int
    exact: bool
    text: str
    span: tuple[int, int]

    @property
    def end(self) -> int:
        newline = self.data.find(b"\n", self._skip)
        return self.offset + (newline + 1 or settled(self.data) or len(self.data))

    @property
    def _skip(self) -> int:
        return len(self.data) - len(self.data.split(b"\n", self.index)[self.index])

    def match(self) -> Match:
        return Match(self.line, self.exact, self.offset + self._skip, _cut(self.text, self.span))


def _cut(text: str, span: tuple[int, int] = (0, 0)) -> str:
    if len(text) <= LINE_CHARS:
        return text
    start = max(0, min((span[0] + min(span[1], span[0] + LINE_CHARS) - LINE_CHARS) // 2, len(text) - LINE_CHARS))
    end = start + LINE_CHARS
    return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")


class _Scan:
    """Finds matching lines block by block. `resume` is where a later scan goes on: an unfinished line is read again."""

    def __init__(
        self, log: _Log, seek: regex.Pattern[str], start: int, line: int, deadline: float, needle: bytes | None = None
    ) -> None:
        self.log = log
        self.start = self.position = self.resume = start
        self.line = line
        self._seek = seek
        self._deadline = deadline
        self._needle = needle
        self._by_line = bool(_NEEDS_LINES.search(seek.pattern))
        self._counted = -1  # number of the last line that matched: a line in pieces counts once

    def lines(self) -> Iterator[_Found]:
        """Raises TimeoutError at the deadline."""
        for offset, data in self.blocks():
            exact = not self.log.gaps or self.log.gaps[0][0] >= offset
            if not self._hopeless(data):
                for index, text, span in self.hits(data):
                    if self.line + index != self._counted:
                        self._counted = self.line + index
                        yield _Found(data, offset, index, self.line + index, exact, text, span)
            self.line += data.count(b"\n")

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Blocks of whole lines; a line of more than a block comes in pieces that overlap."""
        while self.position < self.log.end:
            self._left()
            until, gone = self.log.piece(self.position, self.log.end)
            if gone:
                self.position = self.resume = until
                continue
            try:
                data = self.log.read(self.position, min(self.position + BLOCK, until))
            except _Punched:
                continue
            rest = self.position + len(data) >= until
            data = _lines_of(data, whole=rest)
            if not data:
                return
            offset = self.position
            yield offset, data
            over = 0 if rest or data.endswith(b"\n") else OVERLAP
            self.position = offset + len(data) - over
            self.resume = offset + data.rfind(b"\n") + 1 if rest else self.position

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _hopeless(self, data: bytes) -> bool:
        """Whether a look at the raw bytes is enough to know that no line has the text."""
        if self._needle is None or self._needle in data or not data.isascii():
            return False
        return data.count(b"\r") == data.count(b"\r\n") and len(data.translate(None, _NOISE)) == len(data)

    def hits(self, data: bytes) -> Iterator[tuple[int, str, tuple[int, int]]]:
        text = _line_for_line(data)
        if self._by_line:
            for index, line in enumerate(text.split("\n")):
                if match := self.seek(line):
                    yield index, line, match.span()
            return
        position, index, counted = 0, 0, 0
        while position <= len(text):
            block_match = self.seek(text, position)
            if block_match is None:
                return
            start = text.rfind("\n", 0, block_match.start()) + 1
            start = max(start, position)
            index += text.count("\n", counted, start)
            counted = start
            end = text.find("\n", block_match.end())
            end = len(text) if end < 0 else end
            lines = text[start:end].split("\n")
            for number, line in enumerate(lines):
                if match := self.seek(line):
                    yield index + number, line, match.span()
            position = end + 1

    def seek(self, text: str, position: int = 0) -> regex.Match[str] | None:
        return self._seek.search(text, position, timeout=self._left(), concurrent=True)


def _line_for_line(data: bytes) -> str:
    """The text of each line by itself, one for one with the raw ones; rows drawn within one line are joined."""
    text = printable_lines(data)
    if text is not None and text.count("\n") == data.count(b"\n"):
        return text.removesuffix("\n")
    return "\n".join(_one_line(line) for line in data.removesuffix(b"\n").split(b"\n"))


def _one_line(line: bytes) -> str:
    text = printable_lines(line.rstrip(b"\r"))
    return clean(line, continued=True).replace("\n", " ") if text is None or "\n" in text else text


def _with_context(log: _Log, match: Match, lines: int) -> Match:
    """Lines around a match, from at most STEP bytes on each side, never across a gap."""
    if log.gone(match.cursor, match.cursor + 1):
        return match
    start = max(log.floor(match.cursor), match.cursor - STEP)
    end = log.piece(match.cursor, log.end)[0]
    try:
        before = log.read(start, match.cursor)
        after = log.read(match.cursor, min(end, match.cursor + STEP)).partition(b"\n")[2]
    except _Punched:
        return match
    above = _line_for_line(before).split("\n")[-lines:] if before else []
    below = _line_for_line(after).split("\n")[:lines] if after else []
    return replace(match, before=tuple(map(_cut, above)), after=tuple(map(_cut, below)))


class Watcher:
    """Looks for a pattern in what a log has gained since the last look, its unfinished last line included.

    Frames of a line that is redrawn are looked at too, so a text that stood only for a moment is still found. Each look
    reads at most what is new, and the unfinished line again. Raises InvalidInput for a bad pattern.
    """

    def __init__(
        self, path: Path, pattern: str, *, literal: bool = False, ignore_case: bool = False, start: int = 0
    ) -> None:
        self.path = path
        self._pattern = compiled(pattern, literal=literal, ignore_case=ignore_case)
        self._from = start
        self._seen = -1

    def look(self, *, timeout: float = 5.0) -> Match | None:
        """The next match, or None. After *timeout* (s) raises TimeoutError; the next look goes on from there."""
        with _Log(self.path) as log:
            if log.end in (self._seen, self._from):
                return None
            scan = _Scan(log, self._pattern, self._from, 1, time.monotonic() + timeout)
            match = self._first(scan)
            if match is None:
                self._from, self._seen = scan.resume, log.end
                return None
            before = _newlines_so_far(log, match.cursor)
            return replace(match, line=before + 1)

    def _first(self, scan: _Scan) -> Match | None:
        for offset, data in scan.blocks():
            exact = not scan.log.gaps or scan.log.gaps[0][0] >= offset
            for index, text, span in scan.hits(data):
                found = _Found(data, offset, index, 0, exact, text, span)
                self._from = found.end
                return found.match()
            start = offset
            for line in data.split(b"\n") if b"\r" in data else ():
                for frame in line.rstrip(b"\r").split(b"\r"):
                    text = _one_line(frame)
                    if match := scan.seek(text):
                        self._from = min(start + len(line) + 1, offset + len(data))
                        return Match(0, exact, start, _cut(text, match.span()))
                start += len(line) + 1
            self._from = offset + data.rfind(b"\n") + 1 if b"\n" in data else self._from
        return None
