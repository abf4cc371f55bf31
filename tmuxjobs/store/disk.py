"""Files of the state directory: their names, which are ours, how one is read, replaced and removed."""

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from pathlib import Path

from tmuxjobs import files
from tmuxjobs.errors import StateError
from tmuxjobs.files import Newer, Odd

MARKER = "tmuxjobs.json"
"""Says that a state directory is one, and in which format."""
REMOVED = "removed.json"
"""A job's record once its removal has begun: it is no job any more, and what is beside it is ours."""
ASIDE = re.compile(r"\.(?:new|removed)-(.+)")
"""A job's folder before it is complete, and when nothing is left in it."""
BESIDE = r"(\.\d+\.[0-9a-f]{8})?"
"""What the name of a file ends in until it is whole and gets its own."""
IN_ROOT = re.compile(
    rf"lock|http-token\.new|(journal|sequence|indexed|salt|http-token|{re.escape(MARKER)}){BESIDE}", re.ASCII
)
IN_JOB = re.compile(
    rf"((job|run|exit|stop|removed|task(-[0-9a-f]{{8}})?)\.json|(run|exit)\.room|env(\.(held|ready))?){BESIDE}"
    r"|(run|exit)\.json\.new|(output|stderr)\.(log|gaps)|typed\.jsonl|screen|recorder",
    re.ASCII,
)
"""Names of all files that we make, beside `jobs/` and in a job's folder. `recorder` is a FIFO, all else is regular."""
BUG = re.compile(r"bug-\d+(-[0-9a-f]{6})?\.txt", re.ASCII)
"""A traceback, which `bugs.py` writes beside `jobs/` for a person, who removes it."""
TRANSIENT = (
    *("recorder", "run.room", "exit.room", "stop.json", "env", "env.held", "env.ready", "run.json.new"),
    *("exit.json.new", "screen"),
)
"""What a job's folder holds only while it runs."""
IN_RUN = re.compile(rf"({'|'.join(map(re.escape, TRANSIENT))}){BESIDE}|job\.json\.\d+\.[0-9a-f]{{8}}", re.ASCII)


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


def is_there(folder: str, name: str) -> bool:
    return os.path.lexists(os.path.join(folder, name))


def is_exposed(path: Path) -> bool:
    """Whether others on this machine may look into it."""
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
    """A link in its place would lead out of the state directory."""
    try:
        facts = os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise StateError(f"'{path}' cannot be read: {error.strerror}.") from None
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()


def is_ours(root: Path, path: Path) -> bool:
    """Whether we make files of that name and kind in that place of the state directory `root`."""
    names = IN_ROOT if path.parent == root else IN_JOB
    if not names.fullmatch(path.name):
        return False
    try:
        facts = path.lstat()
    except OSError:
        return False
    kind = stat.S_ISFIFO if path.name == "recorder" else stat.S_ISREG
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
    """Remove a file or a job's folder, as far as they are ours; what cannot be removed stays for a later look.

    Killed at any point, what is left is seen by `Store.half_made`.
    """
    if not is_own_folder(path):
        if is_ours(root, path):
            unlink(path)
        return
    proof = _proof(path)
    with contextlib.suppress(OSError):
        if proof in ("exit.json", "job.json"):
            # An exit record alone tells all of a job. With this one's new name it is no job any more.
            if proof == "exit.json" and is_ours(root, path / "job.json"):
                unlink(path / "job.json")
            os.rename(path / proof, path / REMOVED)
        others = [inside for inside in path.iterdir() if inside.name != REMOVED]
        left = [inside for inside in others if not (is_ours(root, inside) and unlink(inside))]
        if not left and not ASIDE.fullmatch(path.name):
            # Without its record nothing but its name says that an empty folder is ours.
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
