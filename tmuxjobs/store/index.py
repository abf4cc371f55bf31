"""Numbers of jobs, the salt of their ids, and which jobs have not ended, without a look at those that have.

`open/MACHINE/JOB` is an empty file for each job without an exit record, in a folder for each machine that uses the
state directory. A mark is made before its job's folder gets its name and goes when an exit record has been seen, so
there may be one too many, and never one too few. `indexed` holds the number of the last job that was marked: when
`sequence` has another one, an older tmuxjobs has started jobs here, and the marks are not to be relied on.
"""

import contextlib
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from tmuxjobs.errors import StateError
from tmuxjobs.store import disk
from tmuxjobs.store.ids import ID, number_of, suffix
from tmuxjobs.system import processes

DIGITS = 15
SALT = re.compile(rb"([0-9a-f]{16}) ([0-9]{1,15})\n")


class Index:
    """Of one state directory. What writes is called under the lock."""

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
        if not text.isdigit() or len(text) > DIGITS:
            raise StateError(f"'{path}' is damaged; write into it a number larger than any job's and try again.")
        return int(text)

    def suffix(self, number: int) -> str:
        """What the id of that job ends in."""
        salt, first = self._salted() or (0, number + 1)
        return suffix(number, salt if number >= first else 0)

    def number(self, job_id: str) -> int:
        """The job's number, from its id alone; -1 when the id is not one that we gave."""
        end = job_id.rpartition("-")[2]
        salt, first = self._salted() or (0, 1)
        plain = number_of(end) if first > 1 else first
        return plain if plain < first else number_of(end, salt)

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
        """Write down that the job has not ended."""
        folder = self.open / (machine if ID.fullmatch(machine) else processes.machine_id())
        try:
            for one in (self.open, folder):
                one.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(folder / job_id, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise disk.unusable(self.root, error) from None

    def unmark(self, job_id: str) -> None:
        """The job has an exit record, or is no job any more."""
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
        """Whether another machine makes that job, runs it or was killed over it."""
        theirs = [folder for folder in self.folders() if os.path.basename(folder) != processes.machine_id()]
        return any(disk.is_there(folder, job_id) for folder in theirs)

    def folders(self) -> list[str]:
        try:
            return [entry.path for entry in os.scandir(self.open) if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise disk.unusable(self.root, error) from None
