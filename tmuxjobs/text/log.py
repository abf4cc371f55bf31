"""One view of a job's log: its bytes, its size, and what is gone of it. Knows no text.

An offset in the raw stream since the job's start is also the offset in the file. Gaps are ranges of the stream that are
no longer on disk; a sidecar lists them. Memory stays flat however large the log is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Self, TypeVar

from tmuxjobs import files
from tmuxjobs.errors import StateError
from tmuxjobs.files import Odd
from tmuxjobs.text.clean import settled

BLOCK: Final = 1 << 20
STEP: Final = 1 << 16
OVERLAP: Final = 1 << 12
READ_S: Final = 2.0
"""Processor seconds for a read of what takes long, such as redraws; one that runs out says how far it came."""
CROWDED: Final = 5
"""On a busy machine a read takes at most so many times as long by the clock."""
TRIES: Final = 5
GAPS_BYTES: Final = 1 << 16
"""More than the recorder ever lists."""
LOG_BYTES: Final = 1 << 62
"""No stream is that long."""
T = TypeVar("T")


class Punched(Exception):
    """A hole was punched into a range while it was being read; the log's gaps know it by now."""


class Log:
    """One view of a log: its end is fixed, what is read is checked against the gaps as they are after the read."""

    def __init__(self, path: Path, *, strict: bool = True) -> None:
        self.allow(READ_S)
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

    def allow(self, seconds: float) -> None:
        """From now on it is `late` after so many processor seconds of this thread, or CROWDED times as long."""
        self._until = time.thread_time() + seconds, time.monotonic() + CROWDED * seconds

    @property
    def late(self) -> bool:
        worked, waited = self._until
        return time.thread_time() >= worked or time.monotonic() >= waited

    def read(self, start: int, end: int) -> bytes:
        """Bytes of a range that holds no gap. Raises Punched, unless the log is not strict."""
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
                raise Punched
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


def _gaps(sidecar: Path) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    """Raises StateError when the file stays unreadable: a read in the middle of a rewrite is tried again."""
    for _ in range(TRIES):
        listed = _listed(sidecar)
        text = listed.strip(b" \n\0")
        try:
            return listed, _checked(json.loads(text)["gaps"] if text else [])
        except (ValueError, TypeError, KeyError, RecursionError):
            time.sleep(0.002)
    raise StateError(f"{sidecar} does not list the gaps of the log; remove it to read the log as it is.")


def _checked(gaps: list[list[int]]) -> tuple[tuple[int, int], ...]:
    """Sorted, the empty ones left out; raises ValueError and TypeError for what are no ranges of a stream."""
    found = sorted((begin, end) for begin, end in gaps)
    if not all(type(number) is int and 0 <= number < LOG_BYTES for gap in found for number in gap):
        raise ValueError
    kept: list[tuple[int, int]] = []
    for begin, end in found:
        begin = max(begin, kept[-1][1] if kept else 0)
        if begin < end:
            kept.append((begin, end))
    return tuple(kept)


def steady(path: Path, read: Callable[[Log], T]) -> T:
    """Read from one view of the log, and begin again when a hole was punched into what was read."""
    for _ in range(TRIES):
        with Log(path) as log:
            try:
                return read(log)
            except Punched:
                continue
    with Log(path, strict=False) as log:  # holes read as NULs, which clean text drops
        return read(log)


def log_size(path: Path) -> int:
    """Bytes of the stream so far, those that are gone counted: the cursor of what comes next. Raises as `read` does."""
    with Log(path) as log:
        return log.end


def gone_bytes(path: Path) -> int:
    """How many bytes of the stream are no longer on disk. Raises as `read` does."""
    with Log(path) as log:
        return log.gone(0, log.end)


def newlines(log: Log, start: int, end: int) -> int:
    """How many there are on disk in that range; may raise Punched, and TimeoutError when the log is late."""
    count = 0
    for begin, until, gone in log.pieces(start, end):
        while begin < until and not gone:
            if begin > start and log.late:
                raise TimeoutError
            data = log.read(begin, min(begin + BLOCK, until))
            count += data.count(b"\n")
            begin += len(data) or until
    return count


def lines_of(data: bytes, *, whole: bool) -> bytes:
    """The data up to its last newline, or up to where no sequence is cut, unless it is the whole rest."""
    return data if whole else data[: data.rfind(b"\n") + 1 or settled(data) or len(data)]
