"""Reads a job's log as text: pages by cursor, its head and end, its tail. A cursor is an offset in the raw stream."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tmuxjobs.errors import InvalidInput
from tmuxjobs.text.clean import Cleaner, redraws, settled
from tmuxjobs.text.lines import (
    PAGE_BYTES,
    at_line_start,
    before,
    cleaner_at,
    continuation,
    decoded,
    lines_back,
    nth_last_line,
    rows_of,
    text_of,
    within,
)
from tmuxjobs.text.log import BLOCK, OVERLAP, READ_S, STEP, Log, lines_of, newlines, steady

CHARS: Final = 20_000
CHARS_MIN: Final = 200
TAIL_BYTES: Final = 4 << 20
LOOK_BACK: Final = 1 << 18
NOTE_CHARS: Final = 200
HEAD: Final = 3
NEWS_HEAD: Final = 6
"""Of output that does not fit, the head gets one part in so many of the budget; of news the end matters more."""
SLOW_S: Final = 0.1
"""What takes longer to clean is cleaned in smaller pieces, so that the clock is checked in time."""
SEQUENCE_BYTES: Final = 4 * PAGE_BYTES
"""A page ends inside an escape sequence longer than this, and then only when its time is over."""


@dataclass(frozen=True)
class Page:
    """A stretch of output. Offsets and `_bytes` are raw, `text` is as requested (clean, or raw decoded)."""

    text: str
    start: int
    cursor: int
    """Where to go on from."""
    end: int
    """Size of the stream when it was read."""
    more: bool = False
    """Whether available text was left for the next page."""
    partial: str = ""
    """The last line as it stands, while it is being redrawn: not part of `text`, and read again from `cursor`."""
    shown: str = ""
    """The text with that line, and with what else it has redrawn."""
    unfinished_bytes: int = 0
    """Bytes of an unfinished character or escape sequence at the end: read again from `cursor` likewise."""
    omitted_bytes: int = 0
    omitted_lines: int = 0
    omitted_at: int | None = None
    """The cursor that fetches what was left out."""
    gone_bytes: int = 0
    """Bytes of the range that are no longer on disk."""
    late: bool = False
    """Whether the page ends where it does because its time, READ_S, ran out."""


def read(
    path: Path,
    *,
    cursor: int | None = None,
    max_chars: int = CHARS,
    raw: bool = False,
    final: bool = False,
    begin: int = 0,
    end: int | None = None,
) -> Page:
    """What is new since *cursor*, at most *max_chars* from there; without one, all that fits, else head and tail.

    An unfinished last line is given at once. While it is being redrawn it is only shown as `partial`, and the cursor
    stays before it, so that pages read one after the other add up to the text read at once; *final* says that no more
    will come. If a line that was partly given has been redrawn since, it is given again on a new line. What takes
    longer than READ_S to clean comes in several pages. *begin* and *end* are the bounds of a part of the stream. Raises
    InvalidInput for a cursor that is beyond the end.
    """
    budget = max(CHARS_MIN, max_chars)
    if cursor is None:
        return steady(path, lambda log: _ends(log, begin, budget, raw=raw, final=final), end)
    return steady(path, lambda log: _since(log, max(begin, cursor), budget, raw=raw, final=final), end)


def ends(path: Path, *, cursor: int, max_chars: int = CHARS, final: bool = False) -> Page:
    """What is new since *cursor*: all if it fits, else its head and its end, with a note of what is left out."""
    return steady(
        path, lambda log: _ends(log, cursor, max(CHARS_MIN, max_chars), raw=False, final=final, head_part=NEWS_HEAD)
    )


def lines_before(path: Path, cursor: int, lines: int) -> int:
    """Where the last *lines* lines before the one at *cursor* begin; reads back at most OVERLAP bytes, over no gap."""
    return steady(path, lambda log: before(log, cursor, lines))


def tail(path: Path, *, lines: int, max_chars: int = CHARS) -> Page:
    """The last clean lines, including an unfinished one; reads back at most TAIL_BYTES and says what it left out."""
    return steady(path, lambda log: _tail(log, max(1, lines), max(CHARS_MIN, max_chars)))


def last_line(path: Path) -> str:
    """The clean text of the unfinished last line, such as a prompt; "" when the stream ends with a newline."""
    return steady(path, lambda log: _line_at_end(log))


# pages


def _since(log: Log, cursor: int, budget: int, *, raw: bool, final: bool) -> Page:
    check_cursor(log, cursor)
    stop = _stable_end(log, raw=raw, final=final)
    begin, shown = (cursor, "") if raw else line_begun(log, cursor)
    if stop <= cursor:
        page = Page("", cursor, cursor, log.end)
    else:
        page = _forward(log, begin, stop, budget + len(shown), raw=raw, final=final)
        if page.cursor <= cursor or (not page.text.startswith(shown) and len(page.text) > budget):
            begin, shown = cursor, ""
            page = _forward(log, begin, stop, budget, raw=raw, final=final)
        page = replace(page, text=unshown(page.text, shown))
    start = log.piece(cursor, log.end)[0] if log.gone(cursor, min(cursor + 1, log.end)) else cursor
    partial = ""
    if stop < log.end and not raw and not page.more:
        partial = unshown(text_of(log, max(stop, begin), log.end), shown if stop <= begin else "")
        room = budget + len(shown) + len(partial)
        whole = _forward(log, begin, log.end, room) if partial.strip() and begin < stop else None
        page = replace(page, shown=page.text + partial if whole is None or whole.more else unshown(whole.text, shown))
    return replace(page, start=start, partial=partial, unfinished_bytes=_unfinished(log, page))


def check_cursor(log: Log, cursor: int) -> None:
    if not 0 <= cursor <= log.end:
        raise InvalidInput(f"Cursor {cursor} is not in the output, which has {log.end} bytes; read on from {log.end}.")


def unshown(text: str, shown: str) -> str:
    if text.startswith(shown):
        return text[len(shown) :]
    return "\n" + text


def line_begun(log: Log, cursor: int) -> tuple[int, str]:
    """Where the line that holds *cursor* begins, and what was shown of it."""
    if log.gone(cursor, min(cursor + 1, log.end)):
        return cursor, ""
    floor = log.floor(cursor)
    start = max(floor, cursor - LOOK_BACK)
    data = log.read(start, cursor)
    newline = data.rfind(b"\n")
    if newline < 0 and start > floor:
        return cursor, ""
    begin = start + newline + 1
    return begin, text_of(log, begin, cursor) if begin < cursor else ""


def _stable_end(log: Log, *, raw: bool, final: bool) -> int:
    """Where the part that may still be redrawn or is incomplete begins; the end when there is none."""
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
    return start + max(0, data.rfind(b"\r"))  # endless redraws: earlier frames need not be kept


def _forward(log: Log, start: int, end: int, budget: int, *, raw: bool = False, final: bool = False) -> Page:
    """The text from *start* until the budget or *end* is reached; a line stands for each gap."""
    parts: list[str] = []
    position, room, late = start, budget, False
    for begin, until, gone in log.pieces(start, end):
        if gone:
            text, position = gap_line(log, begin, until, "".join(parts[-1:])), until
            if parts and len(text) > room:
                position = begin
                break
        else:
            text, position = (_fill_raw if raw else _fill)(log, begin, until, room, final)
            late = log.late
        if text:
            parts.append(text)
            room -= len(text)
        if position < until or late:
            break
    text, more = "".join(parts), position < end
    return Page(text, start, position, log.end, more=more, gone_bytes=log.gone(start, position), late=more and late)


def gap_line(log: Log, begin: int, end: int, text: str) -> str:
    whole = f"[... {end - begin:,} bytes are gone{log.why(begin)} ...]\n"
    if not text:
        floor = log.floor(begin)
        text = "x" if floor < begin and log.read(begin - 1, begin) != b"\n" else "\n"
    return whole if text.endswith("\n") else "\n" + whole


def _fill_raw(log: Log, start: int, end: int, room: int, _final: bool) -> tuple[str, int]:
    data = log.read(start, min(end, start + max(1, room)))
    if start + len(data) < end:
        data = data[: data.rfind(b"\n") + 1 or settled(data) or len(data)]
    return data.decode("utf-8", "replace"), start + len(data)


def _fill(log: Log, start: int, end: int, room: int, final: bool) -> tuple[str, int]:
    """Clean text of whole lines that fit *room*, from a stretch without gaps, and where it ends."""
    cleaner = cleaner_at(log, start)
    parts: list[str] = []
    position, step, fits, used = start, max(OVERLAP, min(STEP, 2 * room)), True, 0
    while position < end and (position - start < PAGE_BYTES or not at_line_start(log, position)):
        if position > start and log.late and _may_end(log, cleaner, position - start, position):
            return _cut_late(log, "".join([*parts, cleaner.finish()]), position)
        data, began = log.read(position, min(position + step, end)), time.monotonic()
        if step < STEP and b"\n" not in data and position + step < end:
            step = min(STEP, 4 * step)
            continue
        data = lines_of(data, whole=position + step >= end)
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
        if time.monotonic() - began > SLOW_S:
            step = max(OVERLAP, step // 2)
        elif fits:
            step = min(step * 2, BLOCK)
    text = "".join([*parts, cleaner.finish()])
    if final and position == log.end:
        text += _screen_left(cleaner, room - len(text))
    return text, position


def _cut_late(log: Log, text: str, position: int) -> tuple[str, int]:
    """End a page whose time ran out. A line that is being redrawn is left out: the next page begins before it, or at
    its last frame when it is longer than LOOK_BACK."""
    start = max(0, position - 2 * LOOK_BACK)
    data = log.read(start, position)
    line = data.rfind(b"\n") + 1
    if not redraws(data[line:]):
        return text, position
    before = line or data.rfind(b"\r", LOOK_BACK)
    return (text[: text.rfind("\n") + 1], start + before) if before > 0 else (text, position)


def _screen_left(cleaner: Cleaner, room: int) -> str:
    """The last rows that fit of an alternate screen that was never left."""
    history = cleaner.pending
    cleaner.shows_alternate = True
    screen = cleaner.pending[len(history) :]
    if len(screen) <= room:
        return screen
    rows = screen.split("\n")
    kept = rows[len(rows) - within(screen, len(rows), room) :]
    return "\n".join(["", f"[... {len(rows) - len(kept)} rows of the screen left out ...]", *kept])


def _cut_within(data: bytes, room: int) -> int:
    """Where to cut a giant line: after at most *room* bytes of text, and never inside a sequence."""
    sizes = range(room, len(data), room)
    first = bisect_left(sizes, True, key=lambda size: settled(data[:size]) > 0)
    return settled(data[: sizes[first]]) if first < len(sizes) else len(data)


def _may_end(log: Log, cleaner: Cleaner, size: int, position: int) -> bool:
    """Whether a page of *size* bytes whose time ran out may end here."""
    if cleaner.in_sequence:
        return size > SEQUENCE_BYTES
    return size > 2 * LOOK_BACK or at_line_start(log, position)


def _ends(log: Log, cursor: int, budget: int, *, raw: bool, final: bool, head_part: int = HEAD) -> Page:
    stop = _stable_end(log, raw=raw, final=final)
    if stop - cursor - log.gone(cursor, stop) <= PAGE_BYTES:
        page = _since(log, cursor, budget, raw=raw, final=final)
        if not page.more:
            return page
    log.allow(READ_S)
    head = _since(log, cursor, budget // head_part, raw=raw, final=False)
    log.allow(READ_S)
    back = _backward(log, stop, budget - len(head.text) - NOTE_CHARS, raw=raw, final=final)
    if back.start <= head.cursor:
        rest = _forward(log, head.cursor, stop, budget, raw=raw, final=final)
        return _with_partial(log, replace(rest, text=head.text + rest.text, start=head.start), raw=raw)
    gone = log.gone(head.cursor, back.start)
    page = Page(
        "", head.start, stop, log.end, gone_bytes=head.gone_bytes + gone, omitted_at=head.cursor,
        omitted_bytes=back.start - head.cursor - gone, omitted_lines=_lines_between(log, head.cursor, back.start),
    )  # fmt: skip
    note = _omission(page, gone)
    between = "" if not head.text or head.text.endswith("\n") else "\n"
    return _with_partial(log, replace(page, text=f"{head.text}{between}{note}\n{back.text}"), raw=raw)


def _lines_between(log: Log, start: int, end: int) -> int:
    """How many lines there are; 0 when there was no time to count them."""
    log.allow(READ_S)
    try:
        return newlines(log, start, end)
    except TimeoutError:
        return 0


def _omission(page: Page, gone: int) -> str:
    also = f", and {gone:,} more bytes are gone" if gone else ""
    size = f"{page.omitted_bytes:,} bytes"
    what = f"{page.omitted_lines:,} lines ({size})" if page.omitted_lines else size
    return f"[... {what} left out; cursor {page.omitted_at} reads them{also} ...]"


def _with_partial(log: Log, page: Page, *, raw: bool) -> Page:
    partial = "" if raw or page.more or page.cursor >= log.end else text_of(log, page.cursor, log.end)
    return replace(page, partial=partial, shown=page.text + partial, unfinished_bytes=_unfinished(log, page))


def _unfinished(log: Log, page: Page) -> int:
    data = b"" if page.more or log.end - page.cursor > STEP else log.read(page.cursor, log.end)
    return len(data) if data.strip(b"\r") and not settled(data) else 0


# the end of the log


@dataclass(frozen=True)
class _Back:
    """Text up to the end of a log; `whole` when it has all the lines that were asked for."""

    text: str
    start: int
    whole: bool


def _backward(
    log: Log, end: int, budget: int, *, lines: int | None = None, raw: bool = False, final: bool = False
) -> _Back:
    """The last lines before *end* that fit the budget, at most *lines*, in one stretch without gaps.

    Reads back at least STEP bytes, further while there is time.
    """
    floor, window = log.floor(end), STEP
    start, data, text = end, b"", ""
    while True:
        further = max(floor, end - window)
        more = log.read(further, end)
        if further > floor:
            skip = more.find(b"\n") + 1 or continuation(more)
            further, more = further + skip, more[skip:]
        try:
            text = decoded(log, further, more, raw=raw, final=final)
        except TimeoutError:
            break
        start, data = further, more
        enough = len(text) > budget or (lines is not None and rows_of(text) > lines)
        if enough or end - window <= floor or window >= TAIL_BYTES:
            break
        window *= 4
    if not text:
        return _Back("", start, whole=start == floor)
    asked = min(rows_of(text), lines or rows_of(text))
    kept = within(text, asked, budget)
    if kept == 0:
        return _giant_line(log, start, data, budget, raw=raw)
    if lines is not None:
        rows = text.removesuffix("\n").split("\n")[-kept:]
        shown = "\n".join(rows) + ("\n" if text.endswith("\n") else "")
        whole = kept == lines or (kept == asked and start == floor)
        return _Back(shown, start + nth_last_line(data, kept), whole)
    return _fitting(log, start, data, budget, kept, raw=raw, final=final)


def _fitting(log: Log, start: int, data: bytes, budget: int, kept: int, *, raw: bool, final: bool) -> _Back:
    """Drop raw lines until the text fits, as redrawn rows make clean and raw lines differ."""
    while True:
        skip = nth_last_line(data, kept)
        try:
            text = decoded(log, start + skip, data[skip:], raw=raw, final=final)
        except TimeoutError:
            kept //= 8
            continue
        if len(text) <= budget or kept == 0:
            return _Back(text[-budget:], start + skip, whole=False)
        kept = kept * 3 // 4


def _giant_line(log: Log, start: int, data: bytes, budget: int, *, raw: bool) -> _Back:
    skip = settled(data[: max(0, len(data) - budget)])
    skip += continuation(data[skip:])
    log.allow(READ_S)
    try:
        text = decoded(log, start + skip, data[skip:], raw=raw, final=False)
    except TimeoutError:
        skip = len(data) - STEP
        skip += continuation(data[skip:])
        text = decoded(log, start + skip, data[skip:], raw=raw, final=False)
    return _Back(text[-budget:], start + skip, whole=False)


def _tail(log: Log, lines: int, budget: int) -> Page:
    stop = _stable_end(log, raw=False, final=False)
    back = _backward(log, log.end, budget, lines=lines, final=True)
    page = Page(back.text, back.start, stop, log.end)
    if log.floor(log.end) == log.end and log.end:
        begin = next(begin for begin, until in log.gaps if until == log.end)
        note = f"[... {log.end - begin:,} bytes are gone at the end{log.why(begin)} ...]\n"
        return replace(page, text=note, gone_bytes=log.end - begin)
    asked = back.start if back.whole else lines_back(log, lines)
    if asked >= back.start:
        return page
    log.allow(READ_S)
    back = _backward(log, log.end, budget - CHARS_MIN // 2, lines=lines, final=True)  # room for the note
    page = replace(page, start=back.start)
    missing = _lines_between(log, asked, back.start)
    page = replace(page, omitted_bytes=back.start - asked, omitted_lines=missing, omitted_at=asked)
    return replace(page, text=f"{_omission(page, 0)}\n{back.text}")


def _line_at_end(log: Log) -> str:
    floor = log.floor(log.end)
    start = max(floor, log.end - STEP)
    data = log.read(start, log.end)
    line = data.rfind(b"\n") + 1
    if not line and start > floor:
        line = data.rfind(b"\r", 0, len(data) - 1) + 1 or len(data) - STEP
    return text_of(log, start + line, log.end).rpartition("\n")[2] if line < len(data) else ""
