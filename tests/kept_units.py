"""The pane's unit, made once for all tests: whole ones go from test to test, and their files are linked into new ones.

To compile and to write a hundred files is half the work of a test with a job; to link and to remove them is a tenth.
"""

import contextlib
import errno
import hashlib
import os
import py_compile
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tmuxjobs.store import units

UNCHANGED_NS = 1
"""The time stamp of a file here; one that a test has written into has another."""
KEPT = 8
"""Whole units of one content, at the most."""


def keep_units(place: Path, set_in: Callable[[Any, str, Any], None]) -> None:
    """From now on this process makes units by links to what is in that folder."""
    place.mkdir(mode=0o700, exist_ok=True)
    compile_file, replace, make = py_compile.compile, units.replace, units._make

    def compile_once(file: str, to: str, shown: str, **how: Any) -> None:
        kept = place / digest(Path(file).name.encode() + Path(file).read_bytes(), "pyc")
        if not link(kept, Path(to)):
            compile_file(file, to, shown, **how)
            keep(Path(to), kept)

    def write_once(path: Path, data: bytes) -> None:
        kept = place / digest(data, path.suffix)
        if not link(kept, path):
            replace(path, data)
            keep(path, kept)

    def take_or_make(folder: Path, sources: Mapping[str, bytes], python: str) -> None:
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        for kept in (place / folder.name).glob("*"):
            with contextlib.suppress(OSError):  # another test has taken it, or there is a damaged one
                os.utime(kept)  # a unit that nobody used for long is removed
                kept.rename(folder)
                break
        if not units._is_whole(folder, sources, python):
            make(folder, sources, python)

    set_in(py_compile, "compile", compile_once)
    set_in(units, "replace", write_once)
    set_in(units, "_make", take_or_make)


def give_back(place: Path, panes: Path) -> None:
    """Keep the units in that folder of a test, which has no process any more, for others; not one that it changed."""
    for unit in panes.glob("[0-9a-f]" * 16):
        if not is_unchanged(unit):
            continue
        kept = place / unit.name
        kept.mkdir(mode=0o700, exist_ok=True)
        if len(os.listdir(kept)) < KEPT:
            with contextlib.suppress(OSError):  # the test had its state directory on a disk of its own
                unit.rename(kept / secrets.token_hex(4))


def is_unchanged(unit: Path) -> bool:
    files = [Path(folder, name) for folder, _, names in os.walk(unit / "tmuxjobs") for name in names]
    sources = {path for path in files if path.suffix == ".py"}
    compiled = {path.parents[1] / f"{path.stem.split('.')[0]}.py" for path in files if path.suffix == ".pyc"}
    others = {path.name for path in unit.iterdir()} - {"tmuxjobs", units.PROGRAM}
    if others or sources != compiled or len(files) != 2 * len(sources):
        return False
    return all(path.lstat().st_mtime_ns == UNCHANGED_NS for path in files)


def digest(data: bytes, kind: str) -> str:
    return f"{hashlib.sha256(data).hexdigest()}{kind}"


def keep(path: Path, kept: Path) -> None:
    try:
        os.utime(path, ns=(UNCHANGED_NS, UNCHANGED_NS))  # before others see it: they take away what has another time
        os.link(path, kept)
    except FileExistsError:  # another process was first
        pass
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise


def link(kept: Path, path: Path) -> bool:
    """False where there is nothing to link yet, or the test has its state directory on a disk of its own."""
    try:
        if kept.stat().st_mtime_ns != UNCHANGED_NS:
            kept.unlink()
    except FileNotFoundError:
        return False
    beside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        os.link(kept, beside)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.EXDEV:
            return False
        raise
    os.replace(beside, path)
    beside.unlink(missing_ok=True)  # two names of one file: rename(2) leaves both
    return True
