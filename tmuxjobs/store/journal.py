"""The journal of starts and ends: numbered lines in one file, bounded, never rewritten but as a whole.

Whoever looks writes down the ends there are, from the jobs' own records: no end is lost with the one who saw it first.
"""

import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from tmuxjobs import files
from tmuxjobs.errors import StateError
from tmuxjobs.files import Odd
from tmuxjobs.models import Entry

JOURNAL_BYTES = 1 << 18
READ_BYTES = 1 << 24
"""More than any journal of ours; what is larger is something else."""
TAIL_BYTES = 4096
KEPT = 500
"""How many of the newest entries stay when the file is made small again, beside the starts of jobs that run."""


class Journal:
    """The file; what was read is not read again. Writers hold the store's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Inode, size and entries of what was read, replaced as one: threads share it.
        self._read: tuple[int, int, tuple[Entry, ...]] = 0, 0, ()

    @property
    def exists(self) -> bool:
        return self.path.exists()

    def read(self) -> tuple[Entry, ...]:
        """All entries that are kept, oldest first; a line cut off by a full disk or a kill is passed over."""
        try:
            fd = files.opened(self.path)
        except FileNotFoundError:
            return ()
        except Odd as odd:
            raise self._odd(odd) from None
        except OSError as error:
            raise StateError(f"'{self.path}' cannot be read: {error.strerror}.") from None
        with open(fd, "rb") as file:
            facts = os.fstat(fd)
            if facts.st_size > READ_BYTES:
                raise self._odd(Odd(f"is larger than {READ_BYTES} bytes"))
            inode, size, entries = self._read
            if inode != facts.st_ino or facts.st_size < size:
                size, entries = 0, ()
            file.seek(size)
            # A line in the making is read when it is whole.
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            entries += tuple(filter(None, map(_entry, whole.splitlines())))
            self._read = facts.st_ino, size + len(whole), entries
        return entries

    def open_jobs(self) -> list[str]:
        """Started and not ended."""
        started: dict[str, None] = {}
        for entry in self.read():
            if entry.event == "start":
                started[entry.job_id] = None
            else:
                started.pop(entry.job_id, None)
        return list(started)

    def last(self) -> int:
        """The number of the newest entry; all of the file is read only when its end does not tell it."""
        if not self._read[2]:
            with contextlib.suppress(OSError, Odd), open(files.opened(self.path), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
                newest = [entry for entry in map(_entry, file.read().splitlines()[-10:]) if entry is not None]
                if newest:
                    return newest[-1].n
        entries = self.read()
        return entries[-1].n if entries else 0

    def append(self, entries: Sequence[Entry]) -> None:
        """Number and write them; call it under the lock. Their own numbers do not count."""
        number = self.last()
        numbered = [entry.model_copy(update={"n": number + at}) for at, entry in enumerate(entries, 1)]
        data = b"".join(entry.model_dump_json(exclude_none=True).encode() + b"\n" for entry in numbered)
        try:
            if self.exists and self.path.stat().st_size + len(data) > JOURNAL_BYTES:
                self._shrink()
            fd = files.opened(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            with open(fd, "r+b", buffering=0) as file:
                size = os.fstat(fd).st_size
                cut = size and os.pread(fd, 1, size - 1) != b"\n"
                file.write((b"\n" if cut else b"") + data)
        except Odd as odd:
            raise self._odd(odd) from None
        except OSError as error:
            raise StateError(f"'{self.path}' cannot be written: {error.strerror}.") from None

    def _odd(self, odd: Odd) -> StateError:
        return StateError(f"'{self.path}' is not the journal of tmuxjobs: it {odd}; remove it or move it away.")

    def _shrink(self) -> None:
        running = set(self.open_jobs())
        entries = self.read()
        kept = [entry for entry in entries[:-KEPT] if entry.job_id in running] + list(entries[-KEPT:])
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
                file.writelines(entry.model_dump_json(exclude_none=True).encode() + b"\n" for entry in kept)
            os.replace(beside, self.path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                beside.unlink()


def _entry(line: bytes) -> Entry | None:
    try:
        return Entry.model_validate_json(line, strict=True)
    except ValidationError:
        return None
