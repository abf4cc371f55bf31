"""One folder per job: its records, ids, the lock, removal. Knows files, not tmux and not processes.

Files are opened without following links and only when regular; folders are 0700, files 0600. What is removed or changed
here has a name and a kind that we make, in a state directory that says by its marker that it is one.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from tmuxjobs import files
from tmuxjobs.contract import FORMAT
from tmuxjobs.errors import JobNotFound, StateError, apart
from tmuxjobs.files import Newer, Odd
from tmuxjobs.models import ExitRecord, JobSpec, Model, Record, RunRecord
from tmuxjobs.store import units
from tmuxjobs.store.ids import ID

MARKER = "tmuxjobs.json"
"""Says that a state directory is one, and in which format."""
REMOVED = "removed.json"
"""A job's record once its removal has begun: it is no job any more, and what is beside it is ours."""
ASIDE = re.compile(r"\.(?:new|removed)-(.+)")
"""A job's folder before it is complete, and when nothing is left in it."""
BESIDE = r"(\.\d+\.[0-9a-f]{8})?"
"""What the name of a file ends in until it is whole and gets its own."""
IN_ROOT = re.compile(rf"lock|http-token\.new|(journal|sequence|http-token|{re.escape(MARKER)}){BESIDE}", re.ASCII)
IN_JOB = re.compile(
    rf"((job|run|exit|stop|removed|task(-[0-9a-f]{{8}})?)\.json|(run|exit)\.room|env(\.(held|ready))?){BESIDE}"
    r"|(run|exit)\.json\.new|(output|stderr)\.(log|gaps)|typed\.jsonl|screen|recorder",
    re.ASCII,
)
"""Names of all files that we make, beside `jobs/` and in a job's folder. `recorder` is a FIFO, all else is regular."""
BUG = re.compile(r"bug-\d+(-[0-9a-f]{6})?\.txt", re.ASCII)
"""A traceback, which `bugs.py` writes beside `jobs/` for a person, who removes it."""
ROOM_BYTES = 16384
TRANSIENT = (
    *("recorder", "run.room", "exit.room", "stop.json", "env", "env.held", "env.ready", "run.json.new"),
    *("exit.json.new", "screen"),
)
"""What a job's folder holds only while it runs."""
IN_RUN = re.compile(rf"({'|'.join(map(re.escape, TRANSIENT))}){BESIDE}|job\.json\.\d+\.[0-9a-f]{{8}}", re.ASCII)
JOURNAL_BYTES = 1 << 24
LOCK_S = 10.0
MAKING_S = 60.0
"""A file that was begun this long ago and has not got its name never will: seconds."""
DIGITS = 15
M = TypeVar("M", bound=Model)


class Store:
    """The state directory. Nothing is cached but records of ended jobs, which never change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.jobs = root / "jobs"
        self.pane = root / "pane"
        self._ended: dict[str, Record] = {}

    def prepare(self) -> None:
        """Make the folders, private. Raises StateError, and then nothing was changed.

        That is when they cannot be made, and when the folder belongs to another user or holds files of someone else.
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_own_folder(self.root):
                raise StateError(
                    f"The state directory '{self.root}' is a link or another user's; set TMUXJOBS_STATE_DIR to a "
                    "folder of yours."
                )
            if not self.is_marked():
                self._claim()
            for folder in (self.jobs, self.pane):
                folder.mkdir(mode=0o700, exist_ok=True)
                if not _is_own_folder(folder):
                    raise StateError(f"'{folder}' is a link or another user's, not a folder of tmuxjobs; move it away.")
            for folder in (self.root, self.jobs, self.pane):
                if folder.lstat().st_mode & 0o077:
                    folder.chmod(0o700)
            if not os.access(self.jobs, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.jobs))
        except OSError as error:
            raise _unusable(self.root, error) from None

    def is_marked(self) -> bool:
        """Whether the marker is there; raises StateError when something else is in its place."""
        path = self.root / MARKER
        try:
            fields = files.fields_of(files.read(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _unusable(self.root, error) from None
        except Newer:
            raise StateError(
                f"The state directory '{self.root}' is in the format of a newer tmuxjobs; use that one, or set "
                "TMUXJOBS_STATE_DIR to another folder."
            ) from None
        except Odd as odd:
            why = str(odd)
        else:
            if fields.get("tmuxjobs") == "state directory" and fields.get("format") == FORMAT:
                return True
            why = "is damaged"
        raise StateError(
            f"'{path}' {why}, and so does not say that its folder is a state directory of tmuxjobs; remove it if it is "
            "one, or set TMUXJOBS_STATE_DIR to another folder."
        )

    def _claim(self) -> None:
        """Lay down the marker in an empty folder, or in one of 0.1.0, which had none."""
        names = os.listdir(self.root)
        # Another process may be about to do the same, or have been killed at it.
        if all(name.startswith(f"{MARKER}.") and self._is_ours(self.root / name) for name in names) or self._is_older():
            fields = {"tmuxjobs": "state directory", "format": FORMAT}
            # To the disk: after a power cut an empty marker would refuse all jobs.
            self._write(self.root / MARKER, json.dumps(fields).encode() + b"\n", sync=True)
        elif not self.is_marked():  # another has made it since the first look
            raise StateError(
                f"'{self.root}' holds files and is not a state directory of tmuxjobs; nothing was changed there. Set "
                "TMUXJOBS_STATE_DIR to a new or an empty folder."
            )

    def _is_older(self) -> bool:
        """Whether 0.1.0 made the folder: it holds a job's record, or only what that left, as private as it was."""
        if not _is_own_folder(self.jobs):
            return False
        inside = list(os.scandir(self.jobs))
        if any(self.owns(Path(entry.path)) for entry in inside):
            return True
        others = [path for path in self.root.iterdir() if path != self.jobs]
        return (
            all(map(self._is_half_made, inside))
            and not any(map(_is_exposed, (self.root, self.jobs, *others)))
            and all((self._is_ours(path) and _reads_as_ours(path)) or BUG.fullmatch(path.name) for path in others)
        )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the one lock over starts and removals; the kernel frees it with its holder. Bounded by LOCK_S."""
        try:
            fd = files.opened(self.root / "lock", os.O_RDWR | os.O_CREAT)
        except Odd as odd:
            raise StateError(f"'{self.root / 'lock'}' {odd}; remove it.") from None
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
        if not text.strip().isdigit() or len(text.strip()) > DIGITS:
            raise StateError(f"'{path}' is damaged; write into it a number larger than any job's and try again.")
        number = int(text) + 1
        self._write(path, str(number).encode())
        return number

    def create(self, spec: JobSpec, env: Mapping[str, str], *, held: bool = False) -> Path:
        """The job's folder with `job.json` and `env` in it, complete or not there at all; call it under the lock.

        With `held` the runner takes all that the job needs and waits with the command until `let_go`.
        """
        folder = self.folder(spec.job_id)
        making = self.jobs / f".new-{spec.job_id}"
        self._clear_aside()
        try:
            making.mkdir(mode=0o700)
        except OSError as error:
            raise _unusable(self.root, error) from None
        try:
            self._write(
                making / ("env.held" if held else "env"),
                b"\0".join(os.fsencode(f"{key}={value}") for key, value in env.items()),
            )
            data = spec.model_dump_json().encode()
            # What the runner writes later has its room now: the disk may be full then.
            for name in ("run.room", "exit.room"):
                self._write(making / name, b" " * (len(data) + ROOM_BYTES))
            self._write(making / "job.json", data)
            if os.path.lexists(folder):
                raise StateError(f"'{folder}' is in the way of a new job; move it away.")
            os.rename(making, folder)
        except OSError as error:
            self.discard(making)
            raise _unusable(self.root, error) from None
        except BaseException:
            self.discard(making)
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
            found = [entry.name for entry in os.scandir(self.jobs) if ID.fullmatch(entry.name)]
        except OSError as error:
            raise _unusable(self.root, error) from None
        # Others remove jobs too: a server that runs for months must not remember them all.
        for gone in self._ended.keys() - set(found):
            self._ended.pop(gone, None)
        return found

    def unfinished(self) -> list[Record]:
        """Jobs without an exit record: starting, running or lost. A damaged record hides no other: `list` tells it."""
        found = []
        for name in self.ids():
            if not os.path.lexists(self.jobs / name / "exit.json"):
                with apart(name, []):
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
        # Text: a thousand jobs as `Path` objects take 20 ms.
        folder = os.path.join(self.jobs, job_id)
        known = self._ended.get(job_id)
        if known is not None and os.path.lexists(f"{folder}/exit.json"):
            return known
        self._ended.pop(job_id, None)
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
            record = model.model_validate_json(data, strict=True)
            if getattr(record, "format", FORMAT) <= FORMAT:
                return record
            newer = True
        except ValidationError:
            newer = _is_newer(data)
        if newer:
            raise StateError(f"'{path}' was written by a newer tmuxjobs; use that one, or remove its folder.")
        raise StateError(f"'{path}' is damaged; remove its folder '{os.path.dirname(path)}' to forget the job.")

    def _read(self, path: str | Path) -> bytes | None:
        """The content of a regular file of ours, None when there is none."""
        try:
            return files.read(path)
        except FileNotFoundError:
            return None
        except Odd as odd:
            raise StateError(f"'{path}' is not a record of tmuxjobs: it {odd}; remove it or its folder.") from None
        except OSError as error:
            raise StateError(f"'{path}' cannot be read: {error.strerror}.") from None

    def _write(self, path: Path, data: bytes, *, sync: bool = False) -> None:
        """Replace the file; readers see the old or the new one, whole."""
        beside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(data)
                if sync:
                    file.flush()
                    os.fsync(fd)
            os.replace(beside, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink()
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
        """Remove what we made of the job's folder; call it under the lock, and only when its job does not run.

        A file that someone else has put there stays, and the folder with it.
        """
        folder = self.folder(job_id)
        if self.owns(folder):
            self.discard(folder)
        self._clear_aside()
        self._ended.pop(job_id, None)

    def _clear_aside(self) -> None:
        """Remove what others were killed over while they made or removed it."""
        for entry in list(os.scandir(self.jobs)):
            if ASIDE.fullmatch(entry.name) and self._is_half_made(entry):
                self.discard(Path(entry.path))

    def owns(self, folder: Path) -> bool:
        """Whether a record in the folder, or what is left of one, says that it is that job's."""
        return _is_own_folder(folder) and self._proof(folder) is not None

    def _proof(self, folder: Path) -> str | None:
        """The name of a record in the folder that names its job; a damaged one beside it proves nothing."""
        aside = ASIDE.fullmatch(folder.name)
        job_id = aside[1] if aside else folder.name
        for name in ("exit.json", "job.json", REMOVED):
            with contextlib.suppress(OSError, Odd):
                fields = files.fields_of(files.read(folder / name))
                job = fields.get("job", fields)
                if isinstance(job, dict) and {"nonce", "boot"} <= job.keys() and job.get("job_id") == job_id:
                    return name
        return None

    def half_made(self) -> list[Path]:
        """What a killed process left half made or half removed; call it under the lock, for that is done under it."""
        before = time.time() - MAKING_S
        beside = [path for path in self.root.iterdir() if re.search(rf"[a-z]{BESIDE[:-1]}$", path.name)]
        found = [path for path in beside if self._is_ours(path) and not _is_exposed(path) and _mtime(path) < before]
        found += units.half_made(self.pane)
        return found + [Path(entry.path) for entry in os.scandir(self.jobs) if self._is_half_made(entry)]

    def _is_half_made(self, entry: os.DirEntry[str]) -> bool:
        aside = ASIDE.fullmatch(entry.name)
        if not ID.fullmatch(aside[1] if aside else entry.name) or not _is_own_folder(entry.path):
            return False
        is_removed = _is_there(entry.path, REMOVED)
        if not aside and (_is_there(entry.path, "job.json") or (_is_there(entry.path, "exit.json") and not is_removed)):
            return False
        folder = Path(entry.path)
        if self.owns(folder):
            return True
        # Without a record: what came before it, or is left when it is gone, and nothing else.
        inside = list(folder.iterdir())
        private = not any(map(_is_exposed, (folder, *inside))) and all(map(self._is_ours, inside))
        return private and (aside is not None or any(path.suffix == ".room" for path in inside))

    def discard(self, path: Path) -> None:
        """Remove a file, a unit or a job's folder, as far as they are ours; what cannot be removed stays for later.

        Killed at any point, what is left is seen by `half_made`.
        """
        if path.parent == self.pane:
            units.remove(path)
            return
        if not _is_own_folder(path):
            if self._is_ours(path):
                _unlink(path)
            return
        proof = self._proof(path)
        with contextlib.suppress(OSError):
            if proof in ("exit.json", "job.json"):
                # An exit record alone tells all of a job. With this one's new name it is no job any more.
                if proof == "exit.json" and self._is_ours(path / "job.json"):
                    _unlink(path / "job.json")
                os.rename(path / proof, path / REMOVED)
            others = [inside for inside in path.iterdir() if inside.name != REMOVED]
            left = [inside for inside in others if not (self._is_ours(inside) and _unlink(inside))]
            if not left and not ASIDE.fullmatch(path.name):
                # Without its record nothing but its name says that an empty folder is ours.
                path = path.rename(path.with_name(f".removed-{path.name}"))
            if self._is_ours(path / REMOVED) and not any(self._is_ours(one) for one in left):
                _unlink(path / REMOVED)
            path.rmdir()

    def _is_ours(self, path: Path) -> bool:
        """Whether we make files of that name and kind in that place."""
        names = IN_ROOT if path.parent == self.root else IN_JOB
        if not names.fullmatch(path.name):
            return False
        try:
            facts = path.lstat()
        except OSError:
            return False
        kind = stat.S_ISFIFO if path.name == "recorder" else stat.S_ISREG
        return kind(facts.st_mode) and facts.st_uid == os.getuid()

    def kept(self, job_ids: Sequence[str]) -> list[Path]:
        """Folders of removed jobs that hold files of someone else."""
        return [self.folder(job_id) for job_id in job_ids if os.path.lexists(self.folder(job_id))]

    def exposed(self) -> list[Path]:
        """Our files and folders that others on this machine may look into."""
        found = [self.root, self.jobs, *units.content(self.pane), *filter(self._is_ours, self.root.iterdir())]
        for job_id in self.ids():
            folder = self.jobs / job_id
            if self.owns(folder):
                found += [folder, *filter(self._is_ours, folder.iterdir())]
        return [path for path in found if _is_exposed(path)]

    def transient(self, job_id: str) -> list[Path]:
        """What is in the job's folder that belongs there only while it runs."""
        try:
            inside = list(self.folder(job_id).iterdir())
        except OSError:  # it is being removed
            return []
        return [path for path in inside if IN_RUN.fullmatch(path.name) and self._is_ours(path)]

    def forget_environment(self, job_id: str) -> None:
        """Remove what only a runner reads, of a job that has none and gets none any more."""
        path = self.folder(job_id) / "env"
        if self._is_ours(path):
            _unlink(path)

    def size(self, job_id: str) -> int:
        """Bytes that its files take on disk."""
        total = 0
        with contextlib.suppress(OSError):  # it is being removed
            for entry in os.scandir(self.folder(job_id)):
                total += entry.stat(follow_symlinks=False).st_blocks * 512
        return total


def _reads_as_ours(path: Path) -> bool:
    """Whether a file beside `jobs/` holds what 0.1.0 wrote there; a person's may have the same name."""
    try:
        match path.name:
            case "lock":
                return path.lstat().st_size == 0
            case "sequence":
                return files.read(path).isdigit()
            case "journal":
                lines = files.read(path, JOURNAL_BYTES).splitlines()
                return not lines or any(map(_is_entry, lines))  # one may be cut off
    except (OSError, Odd):
        return False
    return True


def _is_entry(line: bytes) -> bool:
    with contextlib.suppress(Odd):
        return {"n", "event", "job_id"} <= files.fields_of(line).keys()
    return False


def _unlink(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _is_there(folder: str, name: str) -> bool:
    return os.path.lexists(os.path.join(folder, name))


def _is_exposed(path: Path) -> bool:
    try:
        return bool(path.lstat().st_mode & 0o077)
    except OSError:  # gone meanwhile
        return False


def _mtime(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:  # gone meanwhile
        return time.time()


def _is_newer(data: bytes) -> bool:
    try:
        files.fields_of(data)
    except Newer:
        return True
    except Odd:
        pass
    return False


def _is_own_folder(path: str | Path) -> bool:
    """A link in its place would lead out of the state directory."""
    try:
        facts = os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise StateError(f"'{path}' cannot be read: {error.strerror}.") from None
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
