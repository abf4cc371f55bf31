"""The journal of what happens to jobs, the history of who did what, who started which job, and what was typed.

Bounded files of lines, read by pydantic: the index, which runs on other hosts too, is elsewhere.

The journal is numbered, and is rewritten only as a whole. Every process that checks jobs writes down the ends that it
finds in their own records: no end is lost with the process that saw it first. The history is only ever appended to.

What we typed is noted so that a search for a pattern does not take the echo for output: `typed.jsonl` in the job's
folder says where the log stood and, for each line, its length and a salted hash. They are enough to recognize an echo,
but what was typed cannot be read there. What is hidden as it is typed is not in it at all.
"""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tmuxjobs import files
from tmuxjobs.errors import StateError
from tmuxjobs.files import Odd
from tmuxjobs.models import Caller, Deed, Entry
from tmuxjobs.pane import queue
from tmuxjobs.store import disk

JOURNAL_BYTES = 1 << 18
HISTORY_BYTES = 1 << 20
"""Beyond this size the file becomes the older of the two: after about 4,000 calls."""
READ_BYTES = 1 << 24
"""More than any file of ours has: a larger one is something else."""
TAIL_BYTES = 4096
KEPT = 500
"""How many of the newest entries stay when the file is shrunk, besides the starts of running jobs."""
CALLERS = 100_000
"""How many jobs' callers are kept in memory, each caller once: about 15 MB."""
SPARE = 1000


def queued(root: Path) -> set[str]:
    """Ids of the jobs that wait for their turn. Raises StateError."""
    try:
        return queue.ids(str(root))
    except OSError as error:  # out of files, for one
        raise StateError(f"'{error.filename}' cannot be read: {error.strerror}.") from None


class Journal:
    """The journal's file; what was read is not read again, and writers hold the store's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Inode, size and entries of what was read, replaced as one: threads share it.
        self._read: tuple[int, int, tuple[Entry, ...]] = 0, 0, ()
        self._open: tuple[tuple[Entry, ...], dict[str, bool]] = (), {}

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
            # A line that is being written is read once it is complete.
            data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            if whole:
                entries += tuple(filter(None, map(_entry, whole.splitlines())))
            self._read = facts.st_ino, size + len(whole), entries
        return entries

    def open_jobs(self) -> dict[str, bool]:
        """{id of a job that was started or queued, and has not ended: whether it has not started}."""
        entries = self.read()
        if entries is self._open[0]:
            return self._open[1]
        found: dict[str, bool] = {}
        for entry in entries:
            if entry.event in ("start", "queued"):
                found[entry.job_id] = entry.event == "queued"
            elif entry.event == "end":
                found.pop(entry.job_id, None)
        self._open = entries, found
        return found

    def last(self) -> int:
        """The number of the newest entry; the whole file is read only if its end does not show that."""
        if not self._read[2]:
            with contextlib.suppress(OSError, Odd), open(files.opened(self.path), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
                newest = [entry for entry in map(_entry, file.read().splitlines()[-10:]) if entry is not None]
                if newest:
                    return newest[-1].n
        entries = self.read()
        return entries[-1].n if entries else 0

    def append(self, entries: Sequence[Entry]) -> None:
        """Number the entries, whatever numbers they have, and write them; call it under the lock."""
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
        running = self.open_jobs()
        entries = self.read()
        begun = [entry for entry in entries[:-KEPT] if entry.event in ("start", "queued")]
        starts = [entry for entry in begun if running.get(entry.job_id) is (entry.event == "queued")]
        kept = starts + list(entries[-KEPT:])
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


class History:
    """`history`, and the older half in `history.1`; a line is one write, as processes in the panes append too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.older = path.with_name(f"{path.name}.1")

    def append(self, deed: Deed) -> None:
        """Write one line; raises StateError."""
        try:
            if self.path.exists() and self.path.lstat().st_size > HISTORY_BYTES:
                # If two processes do this at once, the second finds a small file, or moves nothing.
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self.path, self.older)
            files.append(str(self.path), deed.model_dump(mode="json", exclude_defaults=True))
        except Odd as odd:
            raise self._odd(self.path, odd) from None
        except OSError as error:
            raise StateError(f"'{self.path}' cannot be written: {error.strerror}.") from None

    def read(self) -> Iterator[Deed]:
        """All that is kept, oldest first; a line cut off by a full disk is passed over. Raises StateError."""
        for path in (self.older, self.path):
            try:
                lines = files.read(path, READ_BYTES).splitlines()
            except FileNotFoundError:
                continue
            except Odd as odd:
                raise self._odd(path, odd) from None
            except OSError as error:
                raise StateError(f"'{path}' cannot be read: {error.strerror}.") from None
            for line in lines:
                with contextlib.suppress(ValidationError):
                    yield Deed.model_validate_json(line, strict=True)

    def _odd(self, path: Path, odd: Odd) -> StateError:
        return StateError(f"'{path}' is not the history of tmuxjobs: it {odd}; remove it or move it away.")


TYPED_BYTES = 1 << 16
LINE_BYTES = 4096
SALT_BYTES = 16


@dataclass(frozen=True)
class Typed:
    """A line that was typed: its echo begins at or before offset `at` of the log, after a prompt or not."""

    at: int
    length: int
    salt: bytes
    digest: str

    def is_end_of(self, text: str) -> bool:
        """Whether the text ends with what was typed."""
        return len(text) >= self.length and _digest(text[-self.length :], self.salt) == self.digest


def note_typed(folder: Path, at: int, text: str) -> None:
    """Record what is about to be typed; of a long text, which was pasted, only the first lines."""
    salt = secrets.token_bytes(SALT_BYTES)
    lines = []
    for line in filter(None, text[:LINE_BYTES].split("\n")):
        if wanted := line.rstrip():
            lines.append([at, len(wanted), _digest(wanted, salt)])
        # Each line is echoed with its line end, and after at most a prompt of its own.
        at += 2 * len(line.encode(errors="replace")) + 2
    path = folder / "typed.jsonl"
    record = json.dumps({"salt": salt.hex(), "typed": lines}).encode() + b"\n"
    with contextlib.suppress(OSError, Odd):  # a full disk: the echo may count as output then
        fd = files.opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with open(fd, "ab", buffering=0) as file:
            if os.fstat(fd).st_size > TYPED_BYTES:
                file.truncate(0)
            file.write(record)


def typed(folder: Path) -> list[Typed]:
    """All lines that were typed."""
    found = []
    with contextlib.suppress(OSError, Odd):
        for record in files.read(folder / "typed.jsonl").splitlines():
            with contextlib.suppress(Odd, ValueError):  # cut off by a full disk or a kill
                fields = files.fields_of(record)
                salt, lines = fields.get("salt"), fields.get("typed")
                if not files.is_text(salt) or not isinstance(lines, list):
                    continue
                for line in lines:
                    match line:
                        case [int(at), int(length), str(digest)] if at >= 0 and length > 0:
                            found.append(Typed(at, length, bytes.fromhex(str(salt)), digest))
    return found


def is_echo(folder: Path, start: int, line: str) -> bool:
    """Whether a line of the log that begins at offset `start` only shows what was typed; `line` may be cut with `…`."""
    shown = line.strip("…").rstrip()
    is_cut = shown != line.rstrip()
    for one in typed(folder):
        # The line ends after the place where the log stood: what was printed earlier is not an echo.
        if start <= one.at <= start + 4 * len(line.encode()) + 256 and (
            one.is_end_of(shown) or (is_cut and one.length >= len(shown))
        ):
            return True
    return False


def _digest(text: str, salt: bytes) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), key=salt, digest_size=16).hexdigest()


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
