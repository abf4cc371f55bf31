"""The files of the pane's unit, made once for all tests and linked into each test's state directory.

To compile and to write a hundred files anew is half the work of a test with a job.
"""

import errno
import hashlib
import os
import py_compile
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tmuxjobs.store import units

UNCHANGED_NS = 1
"""The time stamp of a file here; one that a test has written into has another."""


def keep_units(place: Path, set_in: Callable[[Any, str, Any], None]) -> None:
    """From now on this process makes units by links to what is in that folder."""
    place.mkdir(mode=0o700, exist_ok=True)
    compile_file, replace = py_compile.compile, units.replace

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

    set_in(py_compile, "compile", compile_once)
    set_in(units, "replace", write_once)


def digest(data: bytes, kind: str) -> str:
    return f"{hashlib.sha256(data).hexdigest()}{kind}"


def keep(path: Path, kept: Path) -> None:
    try:
        os.link(path, kept)
        os.utime(kept, ns=(UNCHANGED_NS, UNCHANGED_NS))
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
