"""Clears up the state directory on this host: what was left half made, and units and copies that no job needs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path

from tmuxjobs import files
from tmuxjobs.errors import StateError
from tmuxjobs.store import disk, units
from tmuxjobs.store.index import ID, slug

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

COPY = re.compile(r"([a-z0-9-]+)-[0-9a-f]{8}", re.ASCII)
GONE = re.compile(r"\.gone-[0-9a-f]{16}", re.ASCII)
UNDER_LOCK = re.compile(r"(sequence|indexed|salt|starts)\.\d+\.[0-9a-f]{8}", re.ASCII)
"""Files that are written only under the lock, left incomplete by a process that was killed."""
PLACING_S = 7200.0
"""Seconds for a copy to get its first job: it is made before that."""
RECORD_BYTES = 1 << 24


def tidy(state: str, unit: str) -> list[str]:
    """Clear up, under the lock; returns what is left to remove without it: copies, which may be large."""
    jobs = os.path.join(state, "jobs")
    for name in os.listdir(jobs):
        if disk.ASIDE.fullmatch(name):
            disk.discard(Path(state), Path(jobs, name))
        elif os.path.lexists(os.path.join(jobs, name, "exit.json")):
            with contextlib.suppress(OSError):  # the process that asked it to stop was cut off
                os.unlink(os.path.join(jobs, name, "stop.json"))
    for name in filter(UNDER_LOCK.fullmatch, os.listdir(state)):
        disk.unlink(Path(state, name))
    pane, place = Path(state, "pane"), os.path.join(state, "files")
    old, copies = units.unused(pane), unused(place)
    try:
        records = list(of_jobs(jobs)) if old or copies else []
    except StateError:  # it is not known what a job needs whose record cannot be read
        old, copies, records = [], [], []
    named = {str(one.get("pane", "")) for one in records}
    for path in (*units.half_made(pane), *(path for path in old if units.main_of(path) not in named)):
        if str(path) != unit:
            units.remove(path)
    for name in copies:
        if not any(needs(one, place, name) for one in records):
            with contextlib.suppress(OSError):
                os.rename(os.path.join(place, name), os.path.join(place, f".gone-{os.urandom(8).hex()}"))
    with contextlib.suppress(FileNotFoundError):
        return [os.path.join(place, name) for name in os.listdir(place) if GONE.fullmatch(name)]
    return []


def of_jobs(jobs: str) -> Iterator[dict[str, Any]]:
    """What was requested for each job there; raises StateError for a record that cannot be read."""
    for name in filter(ID.fullmatch, os.listdir(jobs)):
        for record in ("exit.json", "job.json"):
            try:
                fields = files.fields_of(files.read(os.path.join(jobs, name, record), RECORD_BYTES))
            except FileNotFoundError:
                continue
            except (OSError, files.Odd) as error:
                raise StateError(f"'{record}' of job '{name}' cannot be read ({error})") from None
            yield fields.get("job", fields)
            break


def unused(place: str) -> list[str]:
    """The names of copies that have not been updated for PLACING_S."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(place):
            age_s = time.time() - entry.stat(follow_symlinks=False).st_mtime
            if COPY.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False) and age_s > PLACING_S:
                found.append(entry.name)
    return found


def needs(job: dict[str, Any], place: str, name: str) -> bool:
    """Whether the job runs in that copy, or was started with a folder that it may be a copy of."""
    copy = os.path.join(place, name)
    match = COPY.fullmatch(name)
    of = slug(os.path.basename(str(job.get("sync") or "/")))
    inside = str(job.get("cwd", "")) == copy or str(job.get("cwd", "")).startswith(f"{copy}/")
    return inside or bool(job.get("sync") and match and match[1] == of)


def remove(folders: list[str]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


# Copies


def place(folders: list[str]) -> None:
    """Make these folders, private; the first is a copy that is brought up to date now."""
    for folder in folders:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(os.path.dirname(folders[0]), 0o700)
    os.utime(folders[0])


def forget_files(copy: str, names: list[str]) -> None:
    """Remove these files of a copy, without following any link in it."""
    for name in names:
        *folders, last = [part for part in name.split("/") if part not in ("", ".")] or [""]
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:  # a job has put something else there
            at = opened(stack, copy)
            for folder in folders:
                if folder == "..":
                    raise NotADirectoryError
                at = opened(stack, folder, at)
            os.unlink(last, dir_fd=at)


def opened(stack: contextlib.ExitStack, folder: str, at: int | None = None) -> int:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    stack.callback(os.close, fd)
    return fd
