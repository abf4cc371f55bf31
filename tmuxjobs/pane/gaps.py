"""What is gone of a log and why, as its recorder lists it in `output.gaps`; where what is kept is in the text."""

from __future__ import annotations

import errno
import os
import stat

from tmuxjobs.lean import dumps, loads, suppress

GAPS_BYTES = 8192
GAPS_MAX = 64

LIMIT = "limit"
FULL = "disk full"
SLOW = "disk too slow"
SICK = "disk error"
CHANGED = "changed by another program"


class Gap:
    """Bytes start..end of the stream are gone. `line` is how many bytes stand for them in the text, once they do."""

    def __init__(self, start: int, end: int, why: str = CHANGED, line: int = 0) -> None:
        self.start, self.end, self.why, self.line = start, end, why, line


class Gaps:
    """The list, and with it how much of the stream is in the text. Raises OSError, ValueError for an unreadable one."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = opened(path)
        text = os.pread(self.fd, GAPS_BYTES, 0)
        listed = loads(text) if text.strip() else {"gaps": []}
        self.all = [Gap(*gap) for gap in listed["gaps"]]
        self.moved: int = listed.get("text", 0)
        self.is_split = False
        for gap in reversed(self.all):
            if gap.end == self.moved and not gap.line:
                self.moved = gap.start  # the disk had no room for its line
        # Takes its room on disk now, so that a gap can still be listed when the disk is full.
        os.pwrite(self.fd, text.ljust(GAPS_BYTES), 0)
        self.is_listed = True

    @property
    def end(self) -> int:
        return max([self.moved, *(gap.end for gap in self.all)])

    def write(self) -> None:
        """List them, in a new file when somebody has removed ours."""
        self.is_listed = False
        with suppress(OSError):  # a sick disk; it is tried again, and the runner hears the count
            if not has_name(self.fd, self.path):
                self.fd = replaced(self.fd, opened(self.path))
            gaps = [[gap.start, gap.end, gap.why, gap.line] for gap in self.all]
            listed = {"gaps": gaps, "text": self.moved, "split": self.is_split}
            text = dumps(listed).encode() if gaps or self.is_split else b""
            os.pwrite(self.fd, text.ljust(GAPS_BYTES - 1) + b"\n", 0)
            os.ftruncate(self.fd, GAPS_BYTES)
            self.is_listed = True

    def is_there(self) -> bool:
        """Whether the list on disk is as we have it."""
        return self.is_listed and has_name(self.fd, self.path)

    def mark(self, start: int, end: int, why: str) -> None:
        """List as gone for this reason what of start..end is not listed yet."""
        fresh = []
        for gap in self.all:
            if start < min(gap.start, end):
                fresh.append(Gap(start, min(gap.start, end), why))
            start = max(start, gap.end)
        if start < end:
            fresh.append(Gap(start, end, why))
        merged: list[Gap] = []
        for gap in sorted(self.all + fresh, key=lambda gap: gap.start):
            last = merged[-1] if merged else None
            if last and (last.end, last.why) == (gap.start, gap.why) and not last.line and not gap.line:
                last.end = gap.end
            else:
                merged.append(gap)
        self.all = merged
        self.join_nearest()

    def join_nearest(self) -> None:
        """Make one of the two gaps that are nearest to each other when there are too many."""
        pairs = [pair for pair in zip(self.all, self.all[1:]) if not pair[0].line and not pair[1].line]  # noqa: B905 - 3.8
        if len(self.all) > GAPS_MAX and pairs:
            one, two = min(pairs, key=lambda pair: pair[1].start - pair[0].end)
            longer = max(one, two, key=lambda gap: gap.end - gap.start)
            self.all[self.all.index(one)] = Gap(one.start, two.end, longer.why)
            self.all.remove(two)

    def kept_from(self, start: int) -> int:
        """Where data comes again, from there on or behind the gaps that begin there."""
        for gap in self.all:
            start = gap.end if gap.start <= start < gap.end else start
        return start

    def forget_text(self) -> None:
        self.moved = 0
        for gap in self.all:
            gap.line = 0

    def lost(self) -> dict[str, int]:
        """{why: bytes that are gone}."""
        lost: dict[str, int] = {}
        for gap in self.all:
            lost[gap.why] = lost.get(gap.why, 0) + gap.end - gap.start
        return lost

    def place(self, offset: int) -> int:
        """Where that offset of the stream is in the text."""
        return offset - sum(gap.end - gap.start - gap.line for gap in self.all if gap.end <= offset)


def opened(path: str, more: int = 0) -> int:
    """A descriptor of a regular file of ours, made when there is none; raises OSError for anything else."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | more
    fd = os.open(path, flags, 0o600)
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file of yours")
    return fd


def replaced(old: int, new: int) -> int:
    """The new descriptor, with the old one closed."""
    if old >= 0:
        os.close(old)
    return new


def has_name(fd: int, path: str) -> bool:
    """Whether the open file still is the one at that path."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError:
        return False
