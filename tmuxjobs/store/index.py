"""Ids and numbers of jobs, and which jobs have not ended, without reading those that have.

An id is a short name and a suffix that is never given twice: it encodes the job's number, with a salt.

`open/MACHINE/JOB` is an empty file for each job without an exit record, in a folder for each machine that uses the
state directory. A mark is made before its job's folder gets its name and removed once an exit record has been seen, so
there may be one too many, but never one too few. `indexed` holds the number of the last job that was marked: if
`sequence` has another one, an older tmuxjobs has started jobs here, and the marks are not reliable.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from tmuxjobs.errors import StateError
from tmuxjobs.store import disk
from tmuxjobs.system import processes

ID = re.compile(r"(?!.{65})[a-z0-9]+(-[a-z0-9]+)*")
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
DIGITS = str.maketrans(ALPHABET, "0123456789abcdefghijklmnopqrstuv")
MULTIPLIER, SECOND = 0x9E3779B1, 0x85EBCA6B
"""Odd, so each permutes the numbers below a power of two: no two numbers of a length have the same suffix."""
SHORTEST = 4
SUFFIX = re.compile(f"[{ALPHABET}]{{{SHORTEST},12}}")


def suffix(number: int, salt: int = 0) -> str:
    """Four or more characters that look random and differ for different numbers; with another salt, other ones.

    `salt` has 64 bits; 0 gives the suffixes of 0.1.0.
    """
    length = SHORTEST
    while number >= 32**length:
        number -= 32**length
        length += 1
    first, second, half, bits = _rounds(salt, length)
    scrambled = (number * MULTIPLIER + first) & bits
    if salt:
        scrambled = ((scrambled ^ scrambled >> half) * SECOND + second) & bits
    return "".join(ALPHABET[scrambled // 32**place % 32] for place in range(length))


def number_of(suffix: str, salt: int = 0) -> int:
    """The number with that suffix; -1 for a text that is not a suffix."""
    if not SUFFIX.fullmatch(suffix):
        return -1
    scrambled = int(suffix[::-1].translate(DIGITS), 32)
    first, second, half, bits = _rounds(salt, len(suffix))
    if salt:
        scrambled = (scrambled - second) * _inverse(SECOND, bits) & bits
        scrambled ^= scrambled >> half
    return ((scrambled - first) * _inverse(MULTIPLIER, bits) & bits) + _shorter(len(suffix))


def _rounds(salt: int, length: int) -> tuple[int, int, int, int]:
    """What two rounds add, the shift between them (half the bits, so it undoes itself), and the mask of the bits."""
    return (salt & 0xFFFFFFFF) or 0x5BD1, salt >> 32, (5 * length + 1) // 2, 32**length - 1


@lru_cache(maxsize=None)  # noqa: UP033 - Python 3.8 has no other
def _inverse(factor: int, bits: int) -> int:
    return pow(factor, -1, bits + 1)


@lru_cache(maxsize=None)  # noqa: UP033 - Python 3.8 has no other
def _shorter(length: int) -> int:
    """How many numbers have a shorter suffix."""
    return sum(32**one for one in range(SHORTEST, length))


def slug(text: str) -> str:
    """A short name of `[a-z0-9-]` for a command or a given name; `job` when nothing is left of it."""
    words = re.sub(r"[^a-z0-9]+", "-", text[:200].lower()).strip("-")
    short = words[:20].rstrip("-")
    if len(words) > 20 and "-" in short[8:]:
        short = short[: short.rindex("-")]
    return short or "job"


DIGITS_MAX = 15
SALT = re.compile(rb"([0-9a-f]{16}) ([0-9]{1,15})\n")


class Index:
    """The index of one state directory; hold the lock for methods that write."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open = root / "open"
        self._salt: tuple[int, int] | None = None

    # Numbers and ids

    def next_number(self) -> int:
        """A number never given before, whose suffix no job of an unsalted directory has had."""
        number = self._last() + 1
        salt, first = self._salted() or self._begin_salt(number)
        while number_of(suffix(number, salt)) < first:
            number += 1
        marked = self.is_complete()
        disk.replace(self.root, self.root / "sequence", str(number).encode())
        if marked:
            disk.replace(self.root, self.root / "indexed", str(number).encode())
        return number

    def _last(self) -> int:
        path = self.root / "sequence"
        text = disk.content(path)
        text = b"0" if text is None else text.strip()
        if not text.isdigit() or len(text) > DIGITS_MAX:
            raise StateError(f"'{path}' is damaged; write into it a number larger than any job's and try again.")
        return int(text)

    def suffix(self, number: int) -> str:
        """The suffix of the id of the job with that number."""
        salt, first = self._salted() or (0, number + 1)
        return suffix(number, salt if number >= first else 0)

    def newest(self, job_ids: Iterable[str]) -> list[str]:
        """The same ids, the newest first, by their numbers; ids that we did not give come last."""
        salt, first = self._salted() or (0, 1)
        return sorted(job_ids, key=lambda job_id: _number(job_id, salt, first), reverse=True)

    def forget_salt(self) -> None:
        """Read the salt again at its next use: another process has written it."""
        self._salt = None

    def _salted(self) -> tuple[int, int] | None:
        """The salt, and the first number whose id has it."""
        if self._salt is None:
            path = self.root / "salt"
            data = disk.content(path)
            if data is not None:
                match = SALT.fullmatch(data)
                if match is None:
                    raise StateError(f"'{path}' is damaged; remove it and try again: ids of new jobs get another salt.")
                self._salt = int(match[1], 16), int(match[2])
        return self._salt

    def _begin_salt(self, first: int) -> tuple[int, int]:
        salt = secrets.randbits(64) or 1
        disk.replace(self.root, self.root / "salt", b"%016x %d\n" % (salt, first), sync=True)
        self._salt = salt, first
        return self._salt

    # Jobs that have not ended

    def is_complete(self) -> bool:
        """Whether every job without an exit record has a mark."""
        indexed = disk.content(self.root / "indexed")
        return indexed is not None and indexed == (disk.content(self.root / "sequence") or b"0").strip()

    def complete(self, unfinished: Iterable[tuple[str, str]]) -> None:
        """Mark these jobs, given as (id, machine), which are all without an exit record."""
        marked = set(self.marked())
        for job_id, machine in unfinished:
            if job_id not in marked:
                self.mark(job_id, machine)
        disk.replace(self.root, self.root / "indexed", str(self._last()).encode())

    def mark(self, job_id: str, machine: str = "") -> None:
        """Mark the job as one that has not ended."""
        folder = self.open / (machine if ID.fullmatch(machine) else processes.machine_id())
        try:
            for one in (self.open, folder):
                one.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(folder / job_id, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise disk.unusable(self.root, error) from None

    def unmark(self, job_id: str) -> None:
        """Remove the mark of a job that has an exit record, or no longer exists."""
        for folder in self.folders():
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, job_id))

    def marked(self, machine: str | None = None) -> list[str]:
        """The ids that have a mark, of one machine or of all."""
        folders = self.folders() if machine is None else [os.path.join(self.open, machine)]
        found: list[str] = []
        for folder in folders:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found += filter(ID.fullmatch, os.listdir(folder))
        return list(dict.fromkeys(found))

    def is_elsewhere(self, job_id: str) -> bool:
        """Whether another machine makes or runs that job, or was interrupted while it did."""
        theirs = [folder for folder in self.folders() if os.path.basename(folder) != processes.machine_id()]
        return any(disk.is_there(folder, job_id) for folder in theirs)

    def folders(self) -> list[str]:
        try:
            return [entry.path for entry in os.scandir(self.open) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise disk.unusable(self.root, error) from None


@lru_cache(100_000)
def _number(job_id: str, salt: int, first: int) -> int:
    end = job_id.rpartition("-")[2]
    plain = number_of(end) if first > 1 else first
    return plain if plain < first else number_of(end, salt)
