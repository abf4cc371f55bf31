"""Files of the state directory: their names, which are ours, how one is read, replaced and removed; its marker."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from tmuxjobs import files
from tmuxjobs.contract import FIRST, FORMAT
from tmuxjobs.errors import StateError
from tmuxjobs.files import Newer, Odd

T = TypeVar("T")
LOCK_S, LOCK_MOST_S = 10.0, 60.0
MARKER = "tmuxjobs.json"
"""Says that a state directory is one, and in which format."""
REMOVED = "removed.json"
"""A job's record once its removal has begun: it is no longer a job, and what is beside it is ours."""
HELD = "held"
"""The file in the folder of a job that a person holds, or has held; its window tells whether it still is held."""
ASIDE = re.compile(r"\.(?:new|removed)-(.+)")
"""The name of a job's folder before it is complete, and once nothing is left in it."""
BESIDE = r"(\.\d+\.[0-9a-f]{8})?"
"""What the name of a file ends in until it is complete and gets its own name."""
IN_ROOT = re.compile(
    rf"lock|moved|http-token\.new|history(\.1)?|(journal|sequence|indexed|salt|callers|starts|groups\.json|http-token|{re.escape(MARKER)}){BESIDE}",
    re.ASCII,
)
IN_JOB = re.compile(
    r"((job|run|exit|turn|opened|stop|approval|pressed|gone|slurm|attempts|ready|removed|task(-[0-9a-f]{8})?)\.json"
    rf"|(run|exit)\.room|env(\.(held|ready))?|(output|stderr)\.gaps|typed\.jsonl|told|held){BESIDE}"
    r"|(run|exit|gone|slurm|turn|attempts|ready)\.json\.new"
    r"|(output|stderr)\.(log|raw|new|first\.log)|screen|recorder(\.first)?|batch\.sh|code(\.new)?",
    re.ASCII,
)
"""Names of all files that we make, beside `jobs/` and in a job's folder; all are regular, except FIFOS."""
FIFOS = ("recorder", FIRST)
BUG = re.compile(r"bug-\d+(-[0-9a-f]{6})?\.txt", re.ASCII)
"""A traceback, which `bugs.py` writes beside `jobs/` for a person, who removes it."""
TRANSIENT = (
    *(*FIFOS, "run.room", "exit.room", "stop.json", "pressed.json", "env", "env.held", "env.ready", "run.json.new"),
    "opened.json",
    *("turn.json", "turn.json.new", "attempts.json.new", "ready.json.new"),
    *("exit.json.new", "gone.json.new", "slurm.json.new", "output.new", "stderr.new", "screen", "held", "batch.sh"),
)
"""What a job's folder holds only while it runs."""
IN_RUN = re.compile(rf"({'|'.join(map(re.escape, TRANSIENT))}){BESIDE}|job\.json\.\d+\.[0-9a-f]{{8}}", re.ASCII)


class Unchanged(Generic[T]):
    """What was read from files, as long as their names lead to the same, unchanged files.

    If a file has not changed for `settled_s`, its next change gives it another timestamp.
    """

    def __init__(self, most: int, *, settled_s: float = 0.1) -> None:
        self._most = most
        self._settled_ns = int(settled_s * 1e9)
        self._known: dict[str, tuple[tuple[int, ...], T]] = {}

    def get(self, path: str, load: Callable[[], T | None]) -> T | None:
        """What `load` returns, called only for a file that is new or has changed; None when there is no file."""
        try:
            facts = os.lstat(path)
        except FileNotFoundError:
            self._known.pop(path, None)
            return None
        except OSError:
            return load()
        mark = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        known = self._known.get(path)
        if known is not None and known[0] == mark:
            return known[1]
        value = load()
        if value is not None and time.time_ns() - facts.st_ctime_ns > self._settled_ns:
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[path] = mark, value
        return value


def content(path: str | Path) -> bytes | None:
    """The content of a regular file of ours, None when there is none; raises StateError."""
    try:
        return files.read(path)
    except FileNotFoundError:
        return None
    except Odd as odd:
        raise StateError(f"'{path}' is not a record of tmuxjobs: it {odd}; remove it or its folder.") from None
    except OSError as error:
        raise StateError(f"'{path}' cannot be read: {error.strerror}.") from None


def replace(root: Path, path: Path, data: bytes, *, sync: bool = False) -> None:
    """Replace a file in the state directory `root`; readers see the old or the new one, whole. Raises StateError."""
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
        raise unusable(root, error) from None


def unlink(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def take_lock(fd: int, path: Path) -> None:
    """Lock that open file; raises StateError when one has held it for LOCK_S, or many in turn for LOCK_MOST_S."""
    began = since = time.monotonic()
    taken_at = 0
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):  # a full disk
                os.utime(fd)  # who waits sees that it goes from hand to hand
            return
        except BlockingIOError:
            now, seen_at = time.monotonic(), os.fstat(fd).st_mtime_ns
            if seen_at != taken_at:
                since, taken_at = now, seen_at
            if now - since > LOCK_S or now - began > LOCK_MOST_S:
                held = f"Another tmuxjobs has held '{path}' for {now - since:.0f} s"
                raise StateError(f"{held}; try again, or end it.") from None
            time.sleep(0.005)


def is_there(folder: str, name: str) -> bool:
    return os.path.lexists(os.path.join(folder, name))


def is_exposed(path: Path) -> bool:
    """Whether other users of this machine may read it."""
    try:
        return bool(path.lstat().st_mode & 0o077)
    except OSError:  # gone meanwhile
        return False


def mtime(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:  # gone meanwhile
        return time.time()


def is_newer(data: bytes) -> bool:
    """Whether a later version wrote that record."""
    try:
        files.fields_of(data)
    except Newer:
        return True
    except Odd:
        pass
    return False


def is_own_folder(path: str | Path) -> bool:
    """Whether it is a folder of ours, and not a link, which would lead out of the state directory."""
    try:
        facts = os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise StateError(f"'{path}' cannot be read: {error.strerror}.") from None
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()


def is_ours(root: Path, path: Path) -> bool:
    """Whether this is a file that we make, by its name, kind and place in the state directory `root`."""
    names = IN_ROOT if path.parent == root else IN_JOB
    if not names.fullmatch(path.name):
        return False
    try:
        facts = path.lstat()
    except OSError:
        return False
    kind = stat.S_ISFIFO if path.name in FIFOS else stat.S_ISREG
    return kind(facts.st_mode) and facts.st_uid == os.getuid()


def owns(folder: Path) -> bool:
    """Whether a record in the folder, or what is left of one, says that it is that job's."""
    return is_own_folder(folder) and _proof(folder) is not None


def _proof(folder: Path) -> str | None:
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


def discard(root: Path, path: Path) -> None:
    """Remove a file or a job's folder, as far as they are ours; what cannot be removed now stays for later.

    If we are killed at any point, `Store.half_made` finds what is left.
    """
    if not is_own_folder(path):
        if is_ours(root, path):
            unlink(path)
        return
    proof = _proof(path)
    with contextlib.suppress(OSError):
        if proof in ("exit.json", "job.json"):
            # An exit record alone holds all facts of a job. With this record's new name it is no longer a job.
            if proof == "exit.json" and is_ours(root, path / "job.json"):
                unlink(path / "job.json")
            os.rename(path / proof, path / REMOVED)
        others = [inside for inside in path.iterdir() if inside.name != REMOVED]
        left = [inside for inside in others if not (is_ours(root, inside) and unlink(inside))]
        if not left and not ASIDE.fullmatch(path.name):
            # Without its record only its name says that an empty folder is ours.
            path = path.rename(path.with_name(f".removed-{path.name}"))
        if is_ours(root, path / REMOVED) and not any(is_ours(root, one) for one in left):
            unlink(path / REMOVED)
        path.rmdir()


def unusable(root: Path, error: OSError) -> StateError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "is full" if full else f"cannot be used ({error.strerror})"
    advice = "set TMUXJOBS_STATE_DIR to another"
    if full:
        advice = "free some space"
    elif error.errno in (errno.EMFILE, errno.ENFILE):
        advice = "close some files or raise `ulimit -n`"
    where = f" at '{error.filename}'" if error.filename and error.filename != str(root) else ""
    return StateError(f"The state directory '{root}' {what}{where}; {advice} and try again.")


JOURNAL_BYTES = 1 << 24


def is_state_directory(root: Path) -> bool:
    """Whether the folder has the marker; raises StateError when something else is in its place."""
    path = root / MARKER
    try:
        fields = files.fields_of(files.read(path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise unusable(root, error) from None
    except Newer:
        raise StateError(
            f"The state directory '{root}' is in the format of a newer tmuxjobs; use that one, or set "
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


def lay_marker(root: Path, is_half_made: Callable[[Path], bool]) -> None:
    """Write the marker into an empty folder, or into one of 0.1.0, which had none; raises StateError for any other.

    `is_half_made` says whether a folder is what a killed tmuxjobs leaves of a job.
    """
    names = os.listdir(root)
    # Another process may be doing the same, or have been killed while it did.
    begun = all(name.startswith(f"{MARKER}.") and is_ours(root, root / name) for name in names)
    if begun or _is_older(root, is_half_made):
        fields = {"tmuxjobs": "state directory", "format": FORMAT}
        # Synced to the disk: with an empty marker after a power cut, all jobs would be refused.
        replace(root, root / MARKER, json.dumps(fields).encode() + b"\n", sync=True)
    elif not is_state_directory(root):  # another process has made it since the first check
        raise StateError(
            f"'{root}' holds files and is not a state directory of tmuxjobs; nothing was changed there. Set "
            "TMUXJOBS_STATE_DIR to a new or an empty folder."
        )


def _is_older(root: Path, is_half_made: Callable[[Path], bool]) -> bool:
    """Whether 0.1.0 made the folder: it holds a job's record, or only what that left, as private as it was."""
    jobs = root / "jobs"
    if not is_own_folder(jobs):
        return False
    inside = list(jobs.iterdir())
    if any(map(owns, inside)):
        return True
    others = [path for path in root.iterdir() if path not in (jobs, root / "open")]
    return (
        all(map(is_half_made, inside))
        and not any(map(is_exposed, (root, jobs, *others)))
        and all((is_ours(root, path) and _reads_as_ours(path)) or BUG.fullmatch(path.name) for path in others)
    )


def _reads_as_ours(path: Path) -> bool:
    """Whether a file beside `jobs/` holds what 0.1.0 wrote there; a person's may have the same name."""
    try:
        if path.name == "lock":
            return path.lstat().st_size == 0
        if path.name == "sequence":
            return files.read(path).isdigit()
        if path.name == "journal":
            lines = files.read(path, JOURNAL_BYTES).splitlines()
            return not lines or any(map(_is_entry, lines))  # one may be cut off
    except (OSError, Odd):
        return False
    return True


def _is_entry(line: bytes) -> bool:
    with contextlib.suppress(Odd):
        return {"n", "event", "job_id"} <= files.fields_of(line).keys()
    return False
