"""The pane's programs as one unit, copied once per version to `<state>/pane/<hash>/` and run from there.

So what runs in tmux never needs the installed package: upgrade it, remove its virtual environment or move the checkout,
and every job, finished window and welcome page goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import py_compile
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tmuxjobs import files
from tmuxjobs.contract import PROGRAM, in_pane
from tmuxjobs.errors import StateError
from tmuxjobs.files import Odd

PACKAGE = Path(__file__).parents[1]
SYSTEM = ("__init__", "beside", "job_processes", "probes", "proc", "processes", "slurm", "table", "terminals", "watch")
SHARED = (
    *("contract.py", "errors.py", "files.py", "lean.py", "named.py", "outcome.py", "visible.py"),
    *(f"far/{name}.py" for name in ("__init__", "__main__", "agent", "folders", "machine")),
    *(f"store/{name}.py" for name in ("__init__", "disk", "index", "units")),
    *(f"system/{name}.py" for name in SYSTEM),
)
"""What `pane/` imports of the rest of the package, and what runs on another host beside it."""
INIT = b'"""The part of tmuxjobs that runs in panes."""\n'
UNIT = re.compile(r"[0-9a-f]{16}", re.ASCII)
MAKING = re.compile(r"\.new-[0-9a-f]{16}", re.ASCII)
IN_UNIT = re.compile(rf"({re.escape(PROGRAM)}|\w+\.py|\w+\.[\w-]+\.pyc)(\.[\w.]+)?", re.ASCII)
FOLDERS = {"tmuxjobs", "far", "pane", "store", "system", "__pycache__"}
"""Names of all that we make in a unit, also while it is incomplete."""
INSTALLED = "installed.json"
"""Which installation runs `tmuxjobs` for the keys of our windows: the one that was used last."""
TRIES = 3
MAKING_S = 60.0
UNUSED_S = 30 * 86400.0


@dataclass(frozen=True)
class Unit:
    """A copy of the pane's programs: `python` runs them, `main` is their entry point."""

    folder: str
    python: str
    main: str

    def argv(self, role: str, *arguments: str) -> list[str]:
        return in_pane(self.python, self.main, role, *arguments)

    def use(self) -> bool:
        """Whether it is still there, and its interpreter too; `unused` counts from now."""
        try:
            os.utime(self.folder)
        except OSError:
            return False
        return os.path.exists(self.python) and os.path.exists(self.main)


def prepare(folder: Path) -> Unit:
    """The unit of this version below that folder, copied and compiled if it is not there; raises StateError."""
    try:
        sources, python = read_sources(), base_python()
        unit_folder = folder / name_of(sources, python)
        for _ in range(TRIES):  # another process may remove it as unused meanwhile, when the wall clock jumps
            with contextlib.suppress(FileNotFoundError):
                if not _is_whole(unit_folder, sources, python):
                    _make(unit_folder, sources, python)
                break
        else:
            _make(unit_folder, sources, python)
    except OSError as error:
        where = f"'{error.filename or folder}'"
        raise StateError(f"{where} cannot be copied for jobs ({error.strerror}); fix that and try again.") from None
    unit = Unit(str(unit_folder), str(unit_folder / PROGRAM), main_of(unit_folder))
    unit.use()
    return unit


def main_of(folder: Path) -> str:
    return str(folder / "tmuxjobs" / "pane" / "__main__.py")


def read_sources() -> dict[str, bytes]:
    """{path below the package: content} of all that belongs to a unit."""
    names = [*SHARED, *(f"pane/{path.name}" for path in sorted((PACKAGE / "pane").glob("*.py")))]
    return {"__init__.py": INIT, **{name: (PACKAGE / name).read_bytes() for name in names}}


def base_python() -> str:
    """The interpreter below every virtual environment: it stays when the environment goes."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def name_of(sources: Mapping[str, bytes], python: str) -> str:
    digest = hashlib.sha256(f"{python}\0{sys.version}".encode())
    for name, data in sources.items():
        digest.update(f"\0{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:16]


def _is_whole(folder: Path, sources: Mapping[str, bytes], python: str) -> bool:
    try:
        sizes = all(os.lstat(folder / "tmuxjobs" / name).st_size == len(data) for name, data in sources.items())
        return sizes and os.readlink(folder / PROGRAM) == python
    except OSError:
        return False


def _make(folder: Path, sources: Mapping[str, bytes], python: str) -> None:
    """Make the unit beside its place and rename it; if a damaged one is in use already, replace that one's files."""
    making = folder.with_name(f".new-{secrets.token_hex(8)}")
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    making.mkdir(mode=0o700)
    fd = os.open(making, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # for `half_made`, and released when we end
        _fill(making, folder, sources, python)
        try:
            os.rename(making, folder)
        except OSError:
            if not _is_whole(folder, sources, python):  # else another process was first
                _fill(folder, folder, sources, python)
    finally:
        os.close(fd)
        remove(making)


def _fill(folder: Path, final: Path, sources: Mapping[str, bytes], python: str) -> None:
    for name, data in sources.items():
        path = folder / "tmuxjobs" / name
        for parent in (folder / "tmuxjobs", path.parent, path.parent / "__pycache__"):
            parent.mkdir(mode=0o700, exist_ok=True)
        replace(path, data)
        compiled = path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc"
        # Not checked: the unit's name stands for its content, and a backup may lose time stamps.
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(path), str(compiled), str(final / "tmuxjobs" / name), invalidation_mode=mode)
    link = folder / f"{PROGRAM}.{secrets.token_hex(4)}"
    os.symlink(python, link)
    os.replace(link, folder / PROGRAM)


def replace(path: Path, data: bytes) -> None:
    """Replace the file; readers see the old or the new one, whole."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(data)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def tell_installed(folder: Path, command: Sequence[str], notice: Sequence[str]) -> None:
    """Record which installation runs `tmuxjobs` now, for the keys of windows that may be older than it."""
    needs = [sys.executable, str(PACKAGE / "__init__.py")]
    data = json.dumps({"command": command, "notice": notice, "needs": needs}).encode()
    with contextlib.suppress(OSError):  # a full disk: the keys say so
        try:
            if files.read(folder / INSTALLED) == data:
                return
        except (FileNotFoundError, Odd):
            pass
        replace(folder / INSTALLED, data)


# What is removed


def half_made(folder: Path) -> list[Path]:
    """Units and files that killed processes have left half made."""
    beside = re.compile(rf"{re.escape(INSTALLED)}\.\d+\.[0-9a-f]{{8}}", re.ASCII)
    before = time.time() - MAKING_S
    # The wall clock may have jumped.
    return [path for path in _ours(folder, MAKING, beside) if _used_at(path) < before and not _is_held(path)]


def _is_held(path: Path) -> bool:
    """Whether a process is making it."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(fd)
        return False
    return True


def unused(folder: Path) -> list[Path]:
    """Units that nothing has used for UNUSED_S; one that a record names must stay all the same."""
    before = time.time() - UNUSED_S
    return [path for path in _ours(folder, UNIT) if _used_at(path) < before]


def _ours(folder: Path, *names: re.Pattern[str]) -> Iterator[Path]:
    found: list[os.DirEntry[str]] = []
    with contextlib.suppress(FileNotFoundError):  # somebody has removed it: the next job makes it again
        found = [entry for entry in os.scandir(folder) if any(name.fullmatch(entry.name) for name in names)]
    for entry in found:
        with contextlib.suppress(FileNotFoundError):  # it has got its name meanwhile
            if entry.stat(follow_symlinks=False).st_uid == os.getuid() and not entry.is_symlink():
                yield Path(entry.path)


def _used_at(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:  # gone meanwhile
        return time.time()


def remove(path: Path) -> None:
    """Remove a unit, or a file, as far as it is ours: what somebody else has put there stays, and its folder."""
    with contextlib.suppress(OSError):
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            return
    for inside in (*sorted(_inside(path), reverse=True), path):
        with contextlib.suppress(OSError):  # a folder that is not empty
            inside.rmdir() if inside.is_dir() and not inside.is_symlink() else inside.unlink()


def content(folder: Path) -> list[Path]:
    """Every file and folder of ours there, except links, which have no mode."""
    found = list(_ours(folder, UNIT, MAKING, re.compile(re.escape(INSTALLED))))
    inside = [path for unit in found for path in _inside(unit)]
    return [path for path in (folder, *found, *inside) if not path.is_symlink()]


def _inside(unit: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(unit):
        folders[:] = FOLDERS.intersection(folders)
        yield from (Path(place, name) for name in (*folders, *filter(IN_UNIT.fullmatch, names)))
