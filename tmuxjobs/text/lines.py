"""Where lines begin in a log, and the text between two places of it."""

from __future__ import annotations

import re
from typing import Final

from tmuxjobs.text.clean import Cleaner
from tmuxjobs.text.log import BLOCK, OVERLAP, STEP, Log

PAGE_BYTES: Final = 8 << 20
"""Raw bytes cleaned for one page at most; a log of more is read at its head and tail."""
SEEK_BYTES: Final = 256 << 20
FAR_BYTES: Final = 1 << 18
"""So far back is looked for a screen or a character set that was chosen, where all of it comes over the wire."""
_SWITCH: Final = re.compile(rb"\x1b\[\?(?:[0-9]{1,5};){0,8}(?:47|1047|1049)([hl])")
_ENTER_ALTERNATE: Final = b"\x1b[?1049h"


def at_line_start(log: Log, position: int) -> bool:
    return position == 0 or log.read(position - 1, position) in (b"\n", b"")


def cleaner_at(log: Log, position: int) -> Cleaner:
    """A cleaner for the stream from *position* on, which knows whether that is on an alternate screen, and in which
    character set if that was chosen not long before."""
    cleaner = Cleaner(continued=position > 0)
    cleaner.shows_alternate = False
    if position:
        cleaner.feed(_charsets(log, position))
    start = position
    floor = max(log.floor(position), position - (FAR_BYTES if log.is_far else PAGE_BYTES))
    while start > floor:
        start = max(floor, start - BLOCK)
        data = log.read(start, min(position, start + BLOCK + 64))
        at = data.rfind(b"\x1b[?") if b"49" in data or b"47" in data else -1
        switch = last_switch(data) if at >= 0 else None
        if switch is not None:
            if switch == b"h":
                cleaner.feed(_ENTER_ALTERNATE)
            break
    return cleaner


def _charsets(log: Log, position: int) -> bytes:
    """The last sequences before *position* that chose character sets, as far back as BLOCK."""
    start = max(log.floor(position), position - (FAR_BYTES if log.is_far else BLOCK))
    data = log.read(start, position)
    found = {} if start else dict.fromkeys((b"\x1b(", b"\x1b)"), b"B")
    for slot in (b"\x1b(", b"\x1b)"):
        if (at := data.rfind(slot)) >= 0 and data[at + 2 : at + 3] >= b"0":
            found[slot] = data[at + 2 : at + 3]
    shift = b"\x0e" if data.rfind(b"\x0e") > data.rfind(b"\x0f") else b""
    return b"".join(slot + name for slot, name in found.items()) + shift


def last_switch(data: bytes) -> bytes | None:
    last = None
    for match in _SWITCH.finditer(data):
        last = match[1]
    return last


def text_of(log: Log, start: int, end: int, *, alternate: bool = False) -> str:
    cleaner = cleaner_at(log, start)
    cleaner.shows_alternate = alternate
    data = log.read(start, end)
    return cleaner.feed(data) + cleaner.finish()


def decoded(log: Log, start: int, data: bytes, *, raw: bool, final: bool) -> str:
    """Raises TimeoutError when it is late before the last piece, of STEP bytes, is decoded."""
    if raw:
        return data.decode("utf-8", "replace")
    cleaner = cleaner_at(log, start)
    cleaner.shows_alternate = final
    parts = []
    for at in range(0, len(data), STEP):
        if at and log.late:
            raise TimeoutError
        parts.append(cleaner.feed(data[at : at + STEP]))
    return "".join([*parts, cleaner.finish()])


def continuation(data: bytes) -> int:
    """How many bytes at the start belong to a character that began before."""
    return next((n for n, byte in enumerate(data[:3]) if byte & 0xC0 != 0x80), min(3, len(data)))


def rows_of(text: str) -> int:
    return text.count("\n") + (not text.endswith("\n") if text else 0)


def nth_last_line(data: bytes, lines: int) -> int:
    """Where the last *lines* lines begin."""
    at = len(data) - data.endswith(b"\n")
    for _ in range(lines):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return 0
    return at + 1 if lines else len(data)


def lines_back(log: Log, lines: int) -> int:
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
            return start + nth_last_line(data + b"\n", lines)
        lines -= found
        end = start
    return floor


def before(log: Log, cursor: int, lines: int) -> int:
    floor = log.floor(cursor)
    start = max(floor, cursor - OVERLAP)
    data = log.read(start, cursor)
    # What begins in the middle of a line is not a line.
    skip = data.find(b"\n") + 1 or len(data) if start > floor else 0
    return start + max(skip, nth_last_line(data, lines))


def within(text: str, lines: int, budget: int) -> int:
    used, kept = 0, 0
    for row in reversed(text.removesuffix("\n").split("\n")):
        used += len(row) + 1
        if used > budget or kept == lines:
            break
        kept += 1
    return kept
