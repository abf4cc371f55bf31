"""Who started each job, from one file. Apart from the index, which runs on other hosts too, without pydantic."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import ValidationError

from tmuxjobs import files
from tmuxjobs.models import Caller
from tmuxjobs.store import disk

CALLERS = 100_000
"""So many jobs' callers are kept in memory, each caller once: about 15 MB."""
SPARE = 1000


class Callers:
    """Who started each job: `callers` has a line for each, so that nobody reads ten thousand records to know it.

    A line that is missing or damaged is no loss, for the record says the same. It never changes.
    """

    def __init__(self, root: Path) -> None:
        self.known: dict[str, Caller] = {}
        self._root = root
        self._same: dict[Caller, Caller] = {}
        self._texts: dict[str, Caller] = {}
        self._read = 0, 0
        """Which file was read, by its inode, and how far."""

    def note(self, job_id: str, caller: Caller) -> Caller:
        """Remember it; each caller is held once."""
        if len(self.known) >= CALLERS:
            self.known.clear()
            self._same.clear()
            self._texts.clear()
        self.known[job_id] = caller = self._same.setdefault(caller, caller)
        return caller

    def write(self, found: Mapping[str, Caller]) -> None:
        """Add the lines of these jobs."""
        lines = (f"{job_id} {caller.model_dump_json(exclude_defaults=True)}\n" for job_id, caller in found.items())
        with contextlib.suppress(OSError, files.Odd):  # a full disk
            fd = files.opened(self._root / "callers", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            with open(fd, "wb", buffering=0) as file:
                file.write("".join(lines).encode())

    def refresh(self) -> None:
        """Take in what was added since the last time."""
        with contextlib.suppress(OSError, files.Odd), open(files.opened(self._root / "callers"), "rb") as file:
            facts = os.fstat(file.fileno())
            before, at = self._read
            file.seek(at if before == facts.st_ino and at <= facts.st_size else 0)
            text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read = facts.st_ino, file.tell() - len(text) + len(whole)
            for line in whole.decode(errors="replace").split("\n"):
                job_id, _, words = line.partition(" ")
                caller = self._texts.get(words) or self._parsed(words)
                if caller is not None:
                    self.note(job_id, caller)

    def _parsed(self, words: str) -> Caller | None:
        with contextlib.suppress(ValidationError):
            caller = self._texts[words] = Caller.model_validate_json(words, strict=True)
            return caller
        return None

    def keep(self, job_ids: Collection[str]) -> None:
        """Forget all others, once they are the most; call it under the lock. Raises StateError."""
        self.refresh()
        if len(self.known) > 2 * len(job_ids) + SPARE:
            for job_id in self.known.keys() - job_ids:
                del self.known[job_id]
            disk.replace(self._root, self._root / "callers", b"")
            self.write(self.known)
