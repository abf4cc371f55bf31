"""One view of a job's log: its bytes, its size, and which bytes are gone. Knows no text.

A place in a log is an offset in the raw stream since the job's start. Gaps are ranges of the stream that are no longer
on disk; a sidecar lists them, and how much of the stream is in a text where a line stands for each gap. In any other
file an offset is that of the stream; `pane/log.py` says which is which. Memory stays flat however large the log is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from tmuxjobs import files
from tmuxjobs.errors import StateError
from tmuxjobs.files import Odd
from tmuxjobs.text.clean import settled

BLOCK: Final = 1 << 20
STEP: Final = 1 << 16
OVERLAP: Final = 1 << 12
READ_S: Final = 2.0
"""Processor seconds for a read that takes long, such as of redraws; one that runs out says how far it came."""
CROWDED: Final = 5
"""On a busy machine a read takes at most this many times as long by the clock."""
TRIES: Final = 5
GAPS_BYTES: Final = 1 << 16
"""More than the recorder ever lists."""
LOG_BYTES: Final = 1 << 62
"""No stream is that long."""
T = TypeVar("T")
readers: dict[Path, Callable[[Path, int, int], bytes]] = {}
"""{the mirror of another host's state directory: what reads its logs by (file, offset, size)}."""


class Punched(Exception):
    """A hole was punched into a range while it was being read; by now the log's gaps include it."""


@dataclass(frozen=True)
class Layout:
    """What a sidecar says. `listed` is its content; for a log of an earlier version `reasons` and `lines` are empty."""

    listed: bytes = b""
    gaps: tuple[tuple[int, int], ...] = ()
    reasons: tuple[str, ...] = ()
    lines: tuple[int, ...] = ()
    """How many bytes stand for each gap in the text."""
    text: int = 0
    """The offset up to which the stream is in the text."""
    split: bool = False
    """Whether the file with the log's name holds what comes later."""

    def place(self, offset: int) -> int:
        """Where that offset of the stream is in the text."""
        gaps = zip(self.gaps, self.lines, strict=False)
        return offset - sum(until - begin - line for (begin, until), line in gaps if until <= offset)


class Log:
    """One view of a log: its end is fixed, and each read is checked against the gaps as they are after it."""

    def __init__(self, path: Path, *, strict: bool = True, end: int | None = None) -> None:
        self.allow(READ_S)
        self._path = path
        self._sidecar = path.with_suffix(".gaps")
        self._strict = strict
        self._reader = readers.get(path.parents[2]) if len(path.parents) > 2 else None
        self._changed = False
        self._fd = self._text_fd = -1
        self._files: dict[int, Path] = {}
        self._layout = _layout(self._sidecar)
        for _ in range(TRIES):
            self._open()
            layout = _layout(self._sidecar)
            if (layout.split, layout.text, layout.gaps) == (self._layout.split, self._layout.text, self._layout.gaps):
                break
            self._layout = layout  # another file may have taken the name meanwhile
        self.end = max(self._size(), self.gaps[-1][1] if self.gaps else 0)
        self.end = self.end if end is None else min(self.end, end)

    @property
    def gaps(self) -> tuple[tuple[int, int], ...]:
        return self._layout.gaps

    def _open(self) -> None:
        """Open the stream's file, and the text if there is one, which has the log's name when there is nothing else."""
        self.__exit__()
        self._fd = self._text_fd = -1
        self._fd = self._at(".raw")
        if self._layout.text:
            self._text_fd = self._at(".first.log")
            self._text_fd = self._text_fd if self._text_fd >= 0 else self._at(".log")
        elif self._fd < 0:
            self._fd = self._at(".log")

    def _at(self, suffix: str) -> int:
        path = self._path.with_suffix(suffix)
        fd = _opened(path)
        self._files[fd] = path
        return fd

    def _size(self) -> int:
        """The size of the stream, as the files have it."""
        if self._fd >= 0:
            return os.fstat(self._fd).st_size
        if self._text_fd < 0:
            return 0
        return self._layout.text + os.fstat(self._text_fd).st_size - self._layout.place(self._layout.text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self._fd, self._text_fd):
            if fd >= 0:
                os.close(fd)

    @property
    def is_far(self) -> bool:
        """Whether its bytes are on another host."""
        return self._reader is not None

    def allow(self, seconds: float) -> None:
        """From now on, be `late` after so many processor seconds of this thread, or CROWDED times that by the clock."""
        self._until = time.thread_time() + seconds, time.monotonic() + CROWDED * seconds

    @property
    def late(self) -> bool:
        worked, waited = self._until
        return time.thread_time() >= worked or time.monotonic() >= waited

    def read(self, start: int, end: int) -> bytes:
        """Bytes of a range that holds no gap. Raises Punched, unless the log is not strict."""
        while True:
            data, before = self._read(start, end), self._layout
            if self._strict and _listed(self._sidecar) != before.listed:
                self._layout, self._changed = _layout(self._sidecar), True
            if self._changed and any(begin < end and start < until for begin, until in self.gaps):
                raise Punched
            if self._layout.text == before.text or self._layout.text <= start:
                return data
            self._open()  # the bytes that were read may have moved into the text meanwhile

    def _read(self, start: int, end: int) -> bytes:
        data = b""
        while start + len(data) < end:
            at = start + len(data)
            if self._text_fd >= 0 and self.gone(at, at + 1):
                break
            if at < self._layout.text or self._fd < 0:
                until = min(end, self._layout.text) if at < self._layout.text else end
                fd, place = self._text_fd, self._layout.place(at)
            else:
                until, fd, place = end, self._fd, at
            more = self._bytes(fd, until - at, place) if fd >= 0 else b""
            if not more:
                break
            data += more
        return data

    def _bytes(self, fd: int, size: int, place: int) -> bytes:
        if self._reader is None:
            return os.pread(fd, size, place)
        return self._reader(self._files[fd], place, size)

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

    def why(self, begin: int) -> str:
        """Why the bytes at *begin* are gone, to follow a count: `: limit`, `: disk full`; "" when it is not known."""
        found = zip(self.gaps, self._layout.reasons, strict=True)
        return next((f": {why}" for (start, until), why in found if start <= begin < until and why), "")

    def floor(self, position: int) -> int:
        """The start of the unbroken stretch of data that ends at *position*."""
        return max((min(until, position) for begin, until in self.gaps if begin < position), default=0)


def _opened(path: Path) -> int:
    """A descriptor of a regular file of ours, -1 when there is none."""
    try:
        return files.opened(path)
    except (FileNotFoundError, NotADirectoryError):
        return -1
    except Odd as odd:
        raise StateError(f"'{path}' is not a log of tmuxjobs: it {odd}; remove it or its folder.") from None
    except OSError as error:
        raise StateError(f"'{path}' cannot be read: {error.strerror}.") from None


def _listed(sidecar: Path) -> bytes:
    fd = _opened(sidecar)
    if fd < 0:
        return b""
    try:
        return os.read(fd, GAPS_BYTES)
    finally:
        os.close(fd)


def _layout(sidecar: Path) -> Layout:
    """Raises StateError when the file stays unreadable: a read in the middle of a rewrite is tried again."""
    for _ in range(TRIES):
        listed = _listed(sidecar)
        text = listed.strip(b" \n\0")
        try:
            return _checked(listed, json.loads(text)) if text else Layout(listed)
        except (ValueError, TypeError, KeyError, RecursionError):
            time.sleep(0.002)
    raise StateError(f"{sidecar} does not list the gaps of the log; remove it to read the log as it is.")


def _checked(listed: bytes, said: dict[str, Any]) -> Layout:
    """The gaps sorted, without empty ones; raises ValueError and TypeError for what are not ranges of a stream."""
    found = sorted((gap[0], gap[1], *(gap[2:4] or ("", 0))) for gap in said["gaps"])
    text = said.get("text", 0)
    if not all(_is_offset(number) for begin, end, _, line in found for number in (begin, end, line, text)):
        raise ValueError
    kept: list[tuple[int, int, str, int]] = []
    for begin, end, why, line in found:
        begin = max(begin, kept[-1][1] if kept else 0)
        if begin < end:
            kept.append((begin, end, str(why), line))
    gaps, reasons, lines = (
        tuple((gap[0], gap[1]) for gap in kept),
        tuple(gap[2] for gap in kept),
        tuple(gap[3] for gap in kept),
    )
    return Layout(listed, gaps, reasons, lines, text, said.get("split") is True)


def _is_offset(number: object) -> bool:
    return type(number) is int and 0 <= number < LOG_BYTES


def steady(path: Path, read: Callable[[Log], T], end: int | None = None) -> T:
    """Read from one view of the log, up to `end`, and start again when a hole was punched into what was read."""
    for _ in range(TRIES):
        with Log(path, end=end) as log:
            try:
                return read(log)
            except Punched:
                continue
    with Log(path, strict=False, end=end) as log:  # holes read as NULs, which clean text drops
        return read(log)


def log_size(path: Path) -> int:
    """Bytes of the stream so far, including those that are gone: the next cursor. Raises as `read` does."""
    with Log(path) as log:
        return log.end


def gone_bytes(path: Path) -> int:
    """How many bytes of the stream are no longer on disk. Raises as `read` does."""
    with Log(path) as log:
        return log.gone(0, log.end)


def gone_because(*paths: Path) -> str:
    """Why bytes of these logs are gone, `limit` or `disk full`, with the count of each when there are several."""
    lost: dict[str, int] = {}
    for path in paths:
        layout = _layout(path.with_suffix(".gaps"))
        for (begin, end), why in zip(layout.gaps, layout.reasons, strict=True):
            lost[why] = lost.get(why, 0) + end - begin
    if len(lost) < 2:
        return next(iter(lost), "")
    return ", ".join(f"{why} {size}" for why, size in lost.items() if why)


def newlines(log: Log, start: int, end: int) -> int:
    """How many newlines are on disk in that range; may raise Punched, and TimeoutError when the log is late."""
    count = 0
    if log.is_far and end - start > BLOCK:
        raise TimeoutError  # all of it would be transferred to be counted
    for begin, until, gone in log.pieces(start, end):
        while begin < until and not gone:
            if begin > start and log.late:
                raise TimeoutError
            data = log.read(begin, min(begin + BLOCK, until))
            count += data.count(b"\n")
            begin += len(data) or until
    return count


def lines_of(data: bytes, *, whole: bool) -> bytes:
    """The data up to its last newline or else without a cut sequence; all of it if it is the whole rest."""
    return data if whole else data[: data.rfind(b"\n") + 1 or settled(data) or len(data)]
