"""Lines of a job's log that match: `search` counts and shows them, `Watcher` waits for them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tmuxjobs.errors import InvalidInput
from tmuxjobs.text import patterns
from tmuxjobs.text.clean import clean, drawn, printable_lines, settled
from tmuxjobs.text.log import BLOCK, OVERLAP, READ_S, STEP, Log, Punched, lines_of, newlines

if TYPE_CHECKING:
    import regex

LINE_CHARS: Final = 300
MATCHES_MAX: Final = 1_000
CONTEXT_MAX: Final = 50
# What may match in a single line but not in a block of lines: lookarounds, atomic groups, edges of the text.
_NEEDS_LINES: Final = re.compile(r"\(\?(?!:|P?<[^\W\d]|P=|[aimsux]+[:)])|[*+?}]\+|\\[AZzGKRXNLp]|\(\*")
_FEW_BYTES: Final = 512
"""At most one line in so many bytes may hold the text sought; beyond that, matching every line is faster."""
_SLOW_S: Final = 0.1
"""Seconds that a block should take at most: the clock is checked after each."""
_SEEK_S: Final = 2.0
"""Seconds for one match; `regex` counts processor seconds, on a busy machine a fraction of the clock's."""
_GRACE_S: Final = 0.5
"""Seconds to search a block that was read in time."""
# Moves before the first character of a line, as in each row of a frame, do not change its text.
_LEADING: Final = re.compile(rb"^(?:\x1b\[[0-9]{0,4}[ABEFJK]|\x1b\[[01]?G|\r(?!\n))+", re.MULTILINE)
_ENDS: Final = re.compile(rb"\r\n|[\r\n]")  # of a frame of a line that is redrawn


@dataclass(frozen=True)
class Match:
    """A line that matches. `text` is cut around the match when the line is long."""

    line: int
    """From 1; 0 when a Watcher had no time to count."""
    line_is_exact: bool
    """False after a gap: the number then counts only the lines on disk."""
    cursor: int
    text: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    @property
    def bare(self) -> str:
        """The text as it is in the log, without the marks of what was cut."""
        return self.text.strip("…")


@dataclass(frozen=True)
class SearchResult:
    matches: tuple[Match, ...]
    total: int
    """Matching lines, including those beyond the limit."""
    total_at_least: bool
    """True when time ran out before the end: there may be more."""
    cursor: int
    """Where to go on from: after the last match given, or at the end of what was searched."""
    truncated: bool
    gone_bytes: int


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

    A line is what is between two newlines of the raw stream, cleaned by itself, so `line` is that of `grep -n` on the
    log; every frame of a block of rows that is redrawn has its own lines. Raises InvalidInput for a bad pattern.
    """
    seek = patterns.of_lines(pattern, literal=literal, ignore_case=ignore_case)
    deadline = time.monotonic() + timeout
    with Log(path) as log:
        log.allow(timeout)
        if not 0 <= cursor <= log.end:
            raise InvalidInput(f"Cursor {cursor} is not in the output, which has {log.end} bytes.")
        try:
            first = 1 + _newlines_so_far(log, cursor)
        except TimeoutError:
            return SearchResult((), 0, True, cursor, True, 0)
        sets = [] if ignore_case else [frozenset((pattern,))] if literal else patterns.needles(pattern)
        scan = _Scan(log, seek, cursor, first, deadline, sets, literal=literal and not ignore_case)
        result = _collect(scan, max(1, min(limit, MATCHES_MAX)))
        around = max(0, min(context, CONTEXT_MAX))
        return _with_contexts(log, result, around) if around else result


def _newlines_so_far(log: Log, cursor: int) -> int:
    try:
        return newlines(log, 0, cursor)
    except Punched:
        return newlines(log, 0, cursor)


def _collect(scan: _Scan, limit: int) -> SearchResult:
    matches: list[Match] = []
    cursor, complete = 0, True
    try:
        for found in scan.lines(limit):
            matches.append(found.match())
            cursor = found.end
    except TimeoutError:
        complete = False
    total = scan.total
    truncated = total > len(matches)
    if not truncated:
        cursor = max(cursor, scan.resume)
    gone = scan.log.gone(scan.start, scan.position)
    return SearchResult(tuple(matches), total, not complete, cursor, truncated or not complete, gone)


@dataclass(frozen=True)
class _Found:
    """A matching line of a block, described only when asked for."""

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
    """Finds matching lines block by block. A later scan goes on from `resume`: an unfinished line is read again."""

    def __init__(
        self,
        log: Log,
        seek: regex.Pattern[str],
        start: int,
        line: int,
        deadline: float,
        sets: Sequence[patterns.Needles] = (),
        *,
        literal: bool = False,
    ) -> None:
        self.log = log
        self.start = self.position = self.resume = start
        self.line = line
        self._seek = seek
        self._deadline = deadline
        self._sets = [[one.encode("utf-8", "surrogatepass") for one in texts] for texts in sets]
        self._literal = literal
        self.total = 0
        """Lines that match."""
        self._marks = patterns.in_bytes(seek) if patterns.stays_in_line(seek.pattern) else None
        self._by_line = self._marks is None and bool(_NEEDS_LINES.search(seek.pattern))
        self._until = deadline
        self._size = STEP
        self._counted = -1  # number of the last line that matched: a line in pieces counts once

    def lines(self, limit: int) -> Iterator[_Found]:
        """Yields the first `limit` lines that match, and counts all. Raises TimeoutError at the deadline."""
        for offset, data in self.blocks():
            exact = not self.log.gaps or self.log.gaps[0][0] >= offset
            plain = patterns.plain_lines(data)
            hits = self.hits(data) if plain < 0 else self._plain_hits(data, limit)
            for index, text, span in hits:
                if plain >= 0 or self.line + index != self._counted:
                    self.total += 1
                    if self.total <= limit:
                        yield _Found(data, offset, index, self.line + index, exact, text, span)
                self._counted = self.line + index
            self.line += plain if plain >= 0 else data.count(b"\n")

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yields blocks of whole lines; a line of more than BLOCK comes in pieces that overlap.

        The first comes however late it is, so that every scan makes progress. Raises TimeoutError before another.
        """
        began = time.monotonic()
        while self.position < self.log.end:
            if self.position > self.start:
                now = time.monotonic()
                if now >= self._deadline:
                    raise TimeoutError
                self._size = max(STEP, self._size // 2) if now - began > _SLOW_S else min(2 * self._size, BLOCK)
                began = now
            until, gone = self.log.piece(self.position, self.log.end)
            if gone:
                self.position = self.resume = until
                continue
            try:
                data = self._read(until)
            except Punched:
                continue
            rest = self.position + len(data) >= until
            data = lines_of(data, whole=rest)
            if not data:
                return
            offset = self.position
            yield offset, data
            over = 0 if rest or data.endswith(b"\n") else OVERLAP
            self.position = offset + len(data) - over
            self.resume = offset + data.rfind(b"\n") + 1 if rest else self.position

    def _read(self, until: int) -> bytes:
        """Read at least a line, unless that is longer than BLOCK."""
        size = self._size
        while True:
            data = self.log.read(self.position, min(self.position + size, until))
            if b"\n" in data or size >= BLOCK or self.position + size >= until:
                return data
            size = min(4 * size, BLOCK)

    def _plain_hits(self, data: bytes, limit: int) -> Iterator[tuple[int, str, tuple[int, int]]]:
        """As `hits`, for a block of whole lines that need no cleaning; those beyond the limit are only counted."""
        self._until = max(self._deadline, time.monotonic() + _GRACE_S)
        texts = self._rarest(data)
        if texts is None:
            data = data.translate(None, b"\r")
            if self.total < limit or self._marks is None or not data.isascii():
                yield from self.hits(data, data.removesuffix(b"\n").decode())
            elif marked := self._marks.sub(b"\x01", data, timeout=self._left(), concurrent=True):
                self.total += patterns.marked_lines(marked)
            return
        at = index = counted = 0
        nearest = {text: data.find(text) for text in texts if patterns.holds(data, text)}
        while nearest:
            if self._literal and self.total >= limit:
                self.total += patterns.marked_lines(data[at:].replace(texts[0], b"\x01"))
                return
            hit = min(nearest.values())
            start = data.rfind(b"\n", at, hit) + 1 or at
            end = data.index(b"\n", hit)
            line = data[start:end].rstrip(b"\r").decode()
            if match := self.seek(line):
                if self.total < limit:
                    index += data.count(b"\n", counted, start)
                    counted = start
                yield index, line, match.span()
            at = end + 1
            for text, place in list(nearest.items()):
                if place < at:
                    nearest[text] = data.find(text, at)
                    if nearest[text] < 0:
                        del nearest[text]

    def _rarest(self, data: bytes) -> list[bytes] | None:
        """The texts, one of which every match needs, that the fewest lines have; None when too many have them."""
        if self._literal or not self._sets:
            return self._sets[0] if self._sets else None
        sample = data[:STEP]
        if len(self._sets) > 1:
            self._sets = [min(self._sets, key=lambda texts: sum(map(sample.count, texts)))]
        return None if sum(map(sample.count, self._sets[0])) > len(sample) // _FEW_BYTES else self._sets[0]

    def hits(self, data: bytes, text: str | None = None) -> Iterator[tuple[int, str, tuple[int, int]]]:
        if text is None:
            text = _line_for_line(data)
        self._until = max(self._deadline, time.monotonic() + _GRACE_S)
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

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, _SEEK_S)


def _line_for_line(data: bytes) -> str:
    """The clean text of each line by itself, one for each raw line; rows drawn within one line are joined."""
    text = printable_lines(data)
    if text is None:
        text = printable_lines(_LEADING.sub(b"", data))
    if text is not None and text.count("\n") == data.count(b"\n"):
        return text.removesuffix("\n")
    return "\n".join(_one_line(line) for line in drawn(data).removesuffix(b"\n").split(b"\n"))


def _one_line(line: bytes) -> str:
    line = line.rstrip(b"\r")
    text = printable_lines(line)
    return clean(line, continued=True).replace("\n", " ") if text is None or "\n" in text else text


def _with_contexts(log: Log, result: SearchResult, lines: int) -> SearchResult:
    """As many matches with the lines around them as there is time for, but at least one."""
    matches: list[Match] = []
    for match in result.matches:
        if matches and log.late:
            return replace(result, matches=tuple(matches), cursor=match.cursor, truncated=True)
        matches.append(_with_context(log, match, lines))
    return replace(result, matches=tuple(matches))


def _with_context(log: Log, match: Match, lines: int) -> Match:
    """Lines around a match, from at most STEP bytes on each side, never across a gap."""
    if log.gone(match.cursor, match.cursor + 1):
        return match
    start = max(log.floor(match.cursor), match.cursor - STEP)
    end = log.piece(match.cursor, log.end)[0]
    try:
        before = log.read(start, match.cursor)
        after = log.read(match.cursor, min(end, match.cursor + STEP)).partition(b"\n")[2]
    except Punched:
        return match
    above = _line_for_line(before).split("\n")[-lines:] if before else []
    below = _line_for_line(after).split("\n")[:lines] if after else []
    return replace(match, before=tuple(map(_cut, above)), after=tuple(map(_cut, below)))


class Watcher:
    """Searches what a log has gained since the last search for a pattern, including its unfinished last line.

    Each search reads at most what is new, and the unfinished line again. It includes frames of a line that is redrawn,
    unless *redraws* is false: then only what stays counts. Raises InvalidInput for a bad pattern.
    """

    def __init__(
        self, path: Path, pattern: str, *, literal: bool = False, start: int = 0, redraws: bool = True
    ) -> None:
        self.path = path
        self._pattern = patterns.of_lines(pattern, literal=literal)
        self._from = start
        self._seen = -1
        self._redraws = redraws
        self._counted = (0, 0)  # newlines up to an offset
        self.behind: int | None = None
        """How far it came, if there is output that it had no time for, or a match that may be drawn over."""
        self.stands_in_s: float | None = None
        """Seconds until a match that may still be drawn over counts, if there is one."""

    def next_match(self, *, timeout: float = 5.0, final: bool = False) -> Match | None:
        """The next match, or None. After *timeout* (s) raises TimeoutError; the next call goes on from there.

        *final* says that no more will come.
        """
        with Log(self.path) as log:
            self.behind = self.stands_in_s = None
            if log.end in (self._seen, self._from):
                return None
            scan = _Scan(log, self._pattern, self._from, 1, time.monotonic() + timeout)
            try:
                match = self._first(scan, final=final)
            except TimeoutError:
                self._from = self.behind = max(self._from, scan.resume)
                raise
            if match is None:
                if self.stands_in_s is None:
                    self._from, self._seen = scan.resume, log.end
                return None
            log.allow(READ_S)
            return replace(match, line=self._line(log, match.cursor))

    def _line(self, log: Log, cursor: int) -> int:
        """The line's number, 0 when there was no time to count; what was counted once is not counted again."""
        at, count = self._counted if self._counted[0] <= cursor else (0, 0)
        try:
            count = count + newlines(log, at, cursor) if at else _newlines_so_far(log, cursor)
        except (Punched, TimeoutError):
            return 0
        self._counted = cursor, count
        return count + 1

    def _first(self, scan: _Scan, *, final: bool) -> Match | None:
        for offset, data in scan.blocks():
            exact = not scan.log.gaps or scan.log.gaps[0][0] >= offset
            for index, text, span in scan.hits(data):
                found = _Found(data, offset, index, 0, exact, text, span)
                match = found.match()
                if not self._redraws:
                    kept = patterns.stays(scan.log, match.cursor, found.end)
                    if kept is None and not final and (left_s := self._stands_in()) > 0:
                        self._from = self.behind = match.cursor
                        self.stands_in_s = left_s
                        return None
                    if kept is False:
                        continue
                self._from = found.end
                return match
            if self._redraws and data.count(b"\r") > data.count(b"\r\n"):
                for index, text, span in scan.hits(_ENDS.sub(b"\n", data)):
                    frame = next(islice(_ENDS.finditer(data), index - 1, None)).end() if index else 0
                    line = data.rfind(b"\n", 0, frame) + 1
                    self._from = offset + (data.find(b"\n", frame) + 1 or len(data))
                    return Match(0, exact, offset + line, _cut(text, span))
        return None

    def _stands_in(self) -> float:
        """Seconds until the end of the log has been unchanged for STANDS_S."""
        try:
            age = time.time() - self.path.stat().st_mtime
        except OSError:
            return 0.0
        return patterns.STANDS_S - age if age >= 0 else patterns.STANDS_S
