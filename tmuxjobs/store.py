"""One folder per job: its records, ids, the lock, removal. Knows files, not tmux and not processes.

Files are opened without following links and only when regular; folders are 0700, files 0600.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from tmuxjobs.errors import JobNotFound, StateError
from tmuxjobs.models import FORMAT, ExitRecord, JobSpec, Model, Record, RunRecord

ID = re.compile(r"(?!.{65})[a-z0-9]+(-[a-z0-9]+)*")
RECORD_BYTES = 1 << 20
ROOM_BYTES = 16384
TRANSIENT = ("recorder", "run.room", "exit.room", "stop.json", "env", "env.held", "env.ready", "run.json.new", "screen")
"""What a job's folder holds only while it runs."""
LOCK_S = 10.0
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
M = TypeVar("M", bound=Model)


class Store:
    """The state directory. Nothing is cached but records of ended jobs, which never change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs = root / "jobs"
        self._ended: dict[str, Record] = {}

    def prepare(self) -> None:
        """Make the folders, private; raises StateError when they are not to be had or another user's."""
        try:
            for folder in (self.root, self.jobs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                facts = folder.lstat()
                if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
                    raise StateError(f"The state directory '{folder}' is not your folder; set TMUXJOBS_STATE_DIR.")
                if facts.st_mode & 0o077:
                    folder.chmod(0o700)
            if not os.access(self.jobs, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.jobs))
        except OSError as error:
            raise _unusable(self.root, error) from None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the one lock over starts and removals; the kernel frees it with its holder. Bounded by LOCK_S."""
        try:
            fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self.root, error) from None
        try:
            self._flock(fd)
            yield
        finally:
            os.close(fd)

    def _flock(self, fd: int) -> None:
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StateError(
                        f"Another tmuxjobs has held '{self.root / 'lock'}' for {LOCK_S:.0f} s; try again, or end it."
                    ) from None
                time.sleep(0.005)

    def next_number(self) -> int:
        """A number never given before; call it under the lock."""
        path = self.root / "sequence"
        text = self._read(path)
        if text is None:
            text = b"0"
        if not text.strip().isdigit():
            raise StateError(f"'{path}' is damaged; write into it a number larger than any job's and try again.")
        number = int(text) + 1
        self._write(path, str(number).encode())
        return number

    def token(self) -> tuple[str, Path]:
        """The secret that clients over HTTP bring, made at first use, and its file; who deletes that gets a new one."""
        path = self.root / "http-token"
        text = self._read(path)
        if text is None or not text.strip():
            text = secrets.token_urlsafe(32).encode()
            self._write(path, text + b"\n")
        return text.decode().strip(), path

    def create(self, spec: JobSpec, env: Mapping[str, str], *, held: bool = False) -> Path:
        """The job's folder with `job.json` and `env` in it, complete or not there at all.

        With `held` the runner takes all that the job needs and waits with the command until `let_go`.
        """
        folder = self.folder(spec.job_id)
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise _unusable(self.root, error) from None
        try:
            self._write(
                folder / ("env.held" if held else "env"),
                b"\0".join(os.fsencode(f"{key}={value}") for key, value in env.items()),
            )
            data = spec.model_dump_json().encode()
            # What the runner writes later has its room now: the disk may be full then.
            for name in ("run.room", "exit.room"):
                self._write(folder / name, b" " * (len(data) + ROOM_BYTES))
            self._write(folder / "job.json", data)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def is_held_back(self, job_id: str) -> bool:
        """Whether its runner has all that the job needs and waits for `let_go`."""
        return os.path.lexists(self.folder(job_id) / "env.ready")

    def let_go(self, job_id: str) -> None:
        """Let the command of a job that is held back run; this needs no room on the disk."""
        folder = self.folder(job_id)
        try:
            os.rename(folder / "env.ready", folder / "env")
        except OSError as error:
            raise _unusable(self.root, error) from None

    def folder(self, job_id: str) -> Path:
        """Where the job's files are, whether or not it exists; never outside the state directory."""
        if not ID.fullmatch(job_id):
            raise JobNotFound(job_id)
        return self.jobs / job_id

    def ids(self) -> list[str]:
        """Every job's id, in no order."""
        try:
            return [entry.name for entry in os.scandir(self.jobs) if ID.fullmatch(entry.name)]
        except OSError as error:
            raise _unusable(self.root, error) from None

    def unfinished(self) -> list[Record]:
        """Jobs without an exit record: starting, running or lost. A damaged record hides no other: `list` tells it."""
        found = []
        for name in self.ids():
            if not os.path.lexists(self.jobs / name / "exit.json"):
                with contextlib.suppress(StateError):
                    found.append(self.look(name))
        return [record for record in found if record is not None]

    def has_ended(self, job_id: str) -> bool:
        """Whether there is an exit record; one look at a name, cheaper than reading it."""
        return os.path.lexists(self.folder(job_id) / "exit.json")

    def read(self, job_id: str) -> Record:
        """The job's records; raises JobNotFound, naming the nearest ids, and StateError for a damaged record."""
        record = self.look(job_id)
        if record is None:
            raise JobNotFound(job_id, get_close_matches(job_id, self.ids(), n=2, cutoff=0.5))
        return record

    def look(self, job_id: str) -> Record | None:
        """The job's records, None when there is no such job."""
        if job_id in self._ended and self.folder(job_id).exists():
            return self._ended[job_id]
        # Text: a thousand jobs as `Path` objects take 20 ms.
        folder = os.path.join(self.jobs, job_id)
        if not ID.fullmatch(job_id) or not _is_own_folder(folder):
            return None
        ended = self._record(f"{folder}/exit.json", ExitRecord)
        if ended is not None:
            _check_id(folder, ended.job)
            self._ended[job_id] = Record(ended.job, ended.run, ended)
            return self._ended[job_id]
        job = self._record(f"{folder}/job.json", JobSpec)
        run = self._record(f"{folder}/run.json", RunRecord)
        # It may have ended between the looks.
        ended = self._record(f"{folder}/exit.json", ExitRecord)
        if job is None:
            return None
        _check_id(folder, job)
        return Record(job, run, ended)

    def load(self, path: Path, model: type[M]) -> M | None:
        """The record in that file, None when there is none; raises StateError for a damaged one."""
        return self._record(path, model)

    def save(self, path: Path, record: Model) -> None:
        """Replace the record in that file."""
        self._write(path, record.model_dump_json().encode())

    def _record(self, path: str | Path, model: type[M]) -> M | None:
        data = self._read(path)
        if data is None:
            return None
        try:
            fields = json.loads(data)
            if isinstance(fields, dict) and isinstance(fields.get("format"), int) and fields["format"] > FORMAT:
                raise StateError(f"'{path}' was written by a newer tmuxjobs; use that one, or remove its folder.")
            return model.model_validate(fields)
        except (ValueError, ValidationError, RecursionError):
            raise StateError(
                f"'{path}' is damaged; remove its folder '{os.path.dirname(path)}' to forget the job."
            ) from None

    def _read(self, path: str | Path) -> bytes | None:
        """The content of a regular file of ours, None when there is none. A FIFO in its place must not block."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"'{path}' can not be read: {error.strerror}.") from None
        try:
            facts = os.fstat(fd)
            if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_size > RECORD_BYTES:
                raise StateError(f"'{path}' is not a record of tmuxjobs; remove it or its folder.")
            return os.read(fd, RECORD_BYTES)
        finally:
            os.close(fd)

    def _write(self, path: Path, data: bytes) -> None:
        """Replace the file; readers see the old or the new one, whole."""
        beside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(data)
            os.replace(beside, path)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise _unusable(self.root, error) from None

    def request_stop(self, job_id: str, *, signal: str, grace_s: float) -> None:
        """Lay down what the runner reads when it is signalled; without it, it ends the job as it does by default."""
        request = json.dumps({"signal": signal, "grace_s": grace_s})
        try:
            self._write(self.folder(job_id) / "stop.json", request.encode())
        except StateError:
            # A full disk is when a job must be ended. An older request must not be taken for this one.
            with contextlib.suppress(OSError):
                (self.folder(job_id) / "stop.json").unlink()

    def withdraw_stop(self, job_id: str) -> None:
        """Take away a request that came too late: the runner has ended without a look at it."""
        with contextlib.suppress(OSError):  # the runner has taken it, or the job was removed
            (self.folder(job_id) / "stop.json").unlink()

    def remove(self, job_id: str) -> None:
        """Remove the job's folder; call it under the lock, and only when its job does not run."""
        folder = self.folder(job_id)
        gone = self.jobs / f".removed-{job_id}"
        with contextlib.suppress(FileNotFoundError):  # another one removed it
            # Renamed first: a folder that is half removed must not look like a job.
            os.rename(folder, gone)
        # What an earlier removal left that was killed in the middle goes too.
        for left in self.jobs.glob(".removed-*"):
            discard(left)
        self._ended.pop(job_id, None)

    def half_made(self) -> list[Path]:
        """What a killed process left half made; call it under the lock, for they are made under it.

        These are folders without a record, the number's file before it had its name, and half removed folders.
        """
        found = [*self.root.glob("sequence.*"), *self.jobs.glob(".removed-*")]
        for entry in os.scandir(self.jobs):
            records = ("job.json", "exit.json")
            if not ID.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
                continue
            if not any(os.path.lexists(os.path.join(entry.path, name)) for name in records):
                found.append(Path(entry.path))
        return found

    def transient(self, job_id: str) -> list[Path]:
        """What is in the job's folder that belongs there only while it runs."""
        folder = self.folder(job_id)
        found = [folder / name for name in TRANSIENT if os.path.lexists(folder / name)]
        return found + [path for name in (*TRANSIENT, "job.json") for path in folder.glob(f"{name}.*.*")]

    def size(self, job_id: str) -> int:
        """Bytes that its files take on disk."""
        total = 0
        with contextlib.suppress(OSError):  # it is being removed
            for entry in os.scandir(self.folder(job_id)):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
        return total


def discard(path: Path) -> None:
    """Remove a file, a link or a folder; what can not be removed stays for a later look."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def suffix(number: int) -> str:
    """Four or more characters that look random and differ for different numbers.

    Odd multipliers permute the numbers below a power of two, so no two of a length are the same.
    """
    length = 4
    while number >= 32**length:
        number -= 32**length
        length += 1
    scrambled = (number * 0x9E3779B1 + 0x5BD1) % 32**length
    return "".join(ALPHABET[scrambled // 32**place % 32] for place in range(length))


def slug(text: str) -> str:
    """A short name of `[a-z0-9-]` for a command or a given name; `job` when nothing is left of it."""
    words = re.sub(r"[^a-z0-9]+", "-", text[:200].lower()).strip("-")
    short = words[:20].rstrip("-")
    if len(words) > 20 and "-" in short[8:]:
        short = short[: short.rindex("-")]
    return short or "job"


def _is_own_folder(path: str | Path) -> bool:
    """A link in its place would lead out of the state directory."""
    try:
        facts = os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise StateError(f"'{path}' can not be read: {error.strerror}.") from None
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()


def _check_id(folder: str, job: JobSpec) -> None:
    if job.job_id != os.path.basename(folder):
        raise StateError(f"'{folder}' holds the records of another job; remove it to forget the job.")


def _unusable(root: Path, error: OSError) -> StateError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "is full" if full else f"can not be used ({error.strerror})"
    advice = "set TMUXJOBS_STATE_DIR to another"
    if full:
        advice = "free some space"
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        advice = "close some files or raise `ulimit -n`"
    where = f" at '{error.filename}'" if error.filename and error.filename != str(root) else ""
    return StateError(f"The state directory '{root}' {what}{where}; {advice} and try again.")
