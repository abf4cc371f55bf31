"""The folders of jobs on this host: made in one step when a client starts a job over the wire, and cleared up.

A client that was cut off asks for the start again: it is known by the mark of its job, so it is not made twice. `r` in
the window of a job that has ended starts its command as a new job, also where tmuxjobs is not installed. Cleared up are
folders that were left half made, and units and copies that no job needs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path

from tmuxjobs import files
from tmuxjobs.contract import FIRST, IN_JOBS, MARK_IN_JOBS, argument, in_pane, mark_of, new_window, recorder_line
from tmuxjobs.errors import StateError
from tmuxjobs.pane import queue
from tmuxjobs.store import disk, units
from tmuxjobs.store.index import ID, slug
from tmuxjobs.system import processes

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from typing import Any

    from tmuxjobs.store.index import Index

STARTS = "starts"
"""The marks of the last jobs and their ids, a line each."""
KEPT = 200
ROOM_BYTES = 16384
OVER: dict[str, Any] = {"ends_with": None, "queue": None, "judged": []}
OVER |= {"ask_why": "", "ask_s": 0.0, "ask_rules": [], "ask_file": ""}
"""What held only for the first run: a person wants it now, and need not be asked."""


def refuse(job: dict[str, Any]) -> None:
    """Who asks has looked for them, but maybe long ago; raises StateError."""
    cwd, shell = job["cwd"], job["shell"]
    if not os.path.isdir(cwd) or not os.access(cwd, os.X_OK):
        raise StateError(f"cwd '{cwd}' {'may not be entered' if os.path.isdir(cwd) else 'is not a directory'}")
    if not os.access(shell, os.X_OK):
        raise StateError(f"there is no shell '{shell}' any more")


def anew(folder: str) -> tuple[dict[str, Any], bytes]:
    """The record of the job that has ended there, asked for now, and its environment: ours, for its own is not kept.

    Raises StateError, OSError and Odd.
    """
    old = files.record(os.path.join(folder, "exit.json"), files.EXIT)["job"]
    if old.get("adopted"):
        raise StateError(f"job '{old['job_id']}' was adopted, so it cannot be run again as it was")
    here = processes.here()
    job = {
        **old,
        **OVER,
        "env_names": [],
        "nonce": str(secrets.randbits(63)),
        "mark": secrets.token_hex(12),
        "created_at": datetime.now(timezone.utc).isoformat(),  # noqa: UP017 - Python 3.8
        "created_monotonic": time.monotonic(),
        "boot": here.boot,
        "machine": here.machine,
        "namespace": here.namespace,
        "caller": {"kind": "person", "project": (old.get("caller") or {}).get("project", "")},
    }
    ours = ("TMUX", "TMUX_PANE", "TMUXJOBS_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    data = "\0".join(f"{name}={value}" for name, value in {**env, MARK_IN_JOBS: job["mark"]}.items())
    return job, os.fsencode(data)


def made(index: Index, job: dict[str, Any], env: bytes, *, short: str, elsewhere: Collection[str], held: bool) -> bool:
    """Give the job its number and id, and lay down its folder; False where that was done before. Under the lock."""
    root, jobs = index.root, index.root / "jobs"
    starts = (disk.content(root / STARTS) or b"").decode("ascii", "replace").splitlines()
    job_id = dict(line.split(" ", 1) for line in starts if " " in line).get(job["mark"], "")
    if job_id and os.path.lexists(jobs / job_id):
        job["job_id"] = job_id
        return False
    while not job_id or job_id in elsewhere or os.path.lexists(jobs / job_id):
        number = index.next_number()
        job_id = f"{short}-{index.suffix(number)}"
        job.update(number=number, job_id=job_id)
    # Before the job: who is killed in between has made none.
    line = f"{job['mark']} {job_id}"
    disk.replace(root, root / STARTS, "\n".join([*starts[-KEPT:], line, ""]).encode())
    lay(index, job, env + f"\0{IN_JOBS}={job_id}".encode(), held=held)
    return True


def lay(index: Index, job: dict[str, Any], env: bytes, *, held: bool) -> None:
    """The folder of a job with its files, whole or not there at all."""
    root, job_id = index.root, job["job_id"]
    making = root / "jobs" / f".new-{job_id}"
    data = json.dumps(job).encode()
    rooms = () if job.get("queue") else ("run.room", "exit.room")
    content = {"env.held" if held else "env": env, **dict.fromkeys(rooms, b" " * (len(data) + ROOM_BYTES))}
    if job.get("queue"):
        queue.enter(str(root), job)
    else:
        index.mark(job_id, processes.machine_id())
    try:
        making.mkdir(mode=0o700)
        for name, one in {**content, "job.json": data}.items():
            disk.replace(root, making / name, one)
        os.rename(making, root / "jobs" / job_id)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        index.unmark(job_id)
        queue.leave(str(root), job_id)
        raise


def window(state: str, job: dict[str, Any], socket: str) -> list[str]:
    """The command that opens its window, along with its recorder; of one that a person must approve without."""
    line = None
    if not job.get("ask_why") and not job.get("detached"):
        fifo = os.path.join(state, "jobs", job["job_id"], FIRST)
        with contextlib.suppress(OSError):  # the runner says what cannot be made here
            files.new_fifo(fifo)
        facts = job["nonce"], str(job["max_output_bytes"]), "1" if job["separate_stderr"] else "0", FIRST
        line = recorder_line(in_pane(job["python"], job["recorder"], "recorder", *facts), job["job_id"], fifo)
    argv = in_pane(job["python"], job["pane"], "runner")
    command = new_window(job["session"], job["job_id"], mark_of(state), argv, os.urandom(8).hex(), line)
    return [job["tmux"], "-u", f"-L{socket}", *map(argument, command)]


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
