"""Jobs that wait for their turn, as they are on disk until a runner has claimed them. Stdlib only.

A waiting job has a folder like any other, but no window. Its entry is a file in `queue/MACHINE/`: the name holds all
that its place depends on, the content lists the jobs that it comes after. The entry is made before the folder gets its
name, and removed once a runner has claimed the job or the job has ended. `line.py` decides whose turn it is, `turns.py`
carries that out.
"""

from __future__ import annotations

import fcntl
import os
import time

from tmuxjobs import files
from tmuxjobs.contract import FORMAT, LAUNCH_S
from tmuxjobs.files import now, write_json
from tmuxjobs.lean import suppress
from tmuxjobs.system import processes

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

LOCK_S = 10.0
COMMAS = 9
"""How many commas are in the name of an entry."""
SETTLED_NS = 50_000_000
"""A folder last changed this long before it is read gets a different time at its next change."""


class Entry:
    """What the name of an entry says, which never changes: all that the place of a waiting job depends on.

    `most`, `total` and `limit` bound the running jobs of its project, in total, and of its group (0: no bound);
    `befores` is the number of jobs that it comes after.
    """

    def __init__(self, name: str) -> None:
        parts = name.split(",")
        self.name = name
        self.number, self.priority, self.most, self.total, self.limit, self.befores = map(int, parts[:6])
        self.not_before = float(parts[6])
        self.project, self.group, self.job_id = parts[7:]
        self.order = -self.priority, self.number
        self.kind = -self.priority, self.project, self.group, self.most, self.total, self.limit
        """Entries of one kind have room at the same time."""
        self.after: list[str] = []


class Listed:
    """The entries as this process has read them, each once; `changed` is the folder's time (ns), -1 for just now."""

    def __init__(self, state: str, changed: int, found: Iterable[str], known: dict[str, Entry]) -> None:
        self.state = state
        self.changed = changed
        self.by_name: dict[str, Entry] = {}
        for name in found:
            with suppress(ValueError):
                self.by_name[name] = known.get(name) or Entry(name)
        self.entries = sorted(self.by_name.values(), key=lambda one: one.order)


_listed = Listed("", -1, (), {})


def entry_name(job: dict[str, Any]) -> str:
    """The name of the entry of a job with that record."""
    facts = job["queue"]
    numbers = (facts["priority"], facts["most"], facts["total"], facts["limit"], len(facts["after"]))
    at = f"{facts.get('not_before') or 0:.3f}"
    return ",".join((*map(str, (job["number"], *numbers)), at, project_of(job), facts["group"], job["job_id"]))


def project_of(job: dict[str, Any]) -> str:
    """A short name that distinguishes the job's project from others."""
    import zlib

    return f"{zlib.crc32(os.fsencode((job.get('caller') or {}).get('project') or '')):08x}"


def place(state: str) -> str:
    return os.path.join(state, "queue", processes.machine_id())


def names(state: str) -> list[str]:
    """The names of this machine's entries, in no order; each ends in `,` and the job's id."""
    try:
        return [name for name in os.listdir(place(state)) if name.count(",") == COMMAS]
    except FileNotFoundError:  # none has ever waited
        return []


def ids(state: str) -> set[str]:
    """The ids of the jobs that wait on this machine."""
    return {entry.job_id for entry in waiting(state)}


def waiting(state: str, *, anew: bool = False) -> list[Entry]:
    """This machine's entries, in their order, without files that are not entries.

    The folder is listed once for each of its changes, or always with `anew`: two changes may have the same time.
    """
    global _listed
    changed = now = 0
    with suppress(OSError):  # none has ever waited
        changed, now = os.stat(place(state)).st_mtime_ns, time.time_ns()
    last = _listed
    if anew or last.state != state or last.changed != changed:
        known = last.by_name if last.state == state else {}
        last = _listed = Listed(state, changed if now - changed > SETTLED_NS else -1, names(state), known)
    return list(last.entries)


def enter(state: str, job: dict[str, Any]) -> None:
    """Write the entry of a job that is about to be made; raises OSError."""
    folder = place(state)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    fd = os.open(os.path.join(folder, entry_name(job)), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "w") as file:
        file.write("\n".join(job["queue"]["after"]))


def leave(state: str, job_id: str) -> None:
    """Remove the entry of a job that no longer waits."""
    for name in names(state):
        if name.endswith(f",{job_id}"):
            remove(state, name)


def remove(state: str, name: str) -> None:
    with suppress(OSError):
        os.unlink(os.path.join(place(state), name))


def folder_of(state: str, job_id: str) -> str:
    return os.path.join(state, "jobs", job_id)


def befores(state: str, entry: Entry) -> list[str]:
    """The jobs that it comes after, each with what is needed of it (`db-1a2b:ready`); by default, success."""
    if entry.befores and len(entry.after) != entry.befores:
        with suppress(OSError, files.Odd):
            entry.after = files.read(os.path.join(place(state), entry.name)).decode(errors="replace").split()
    return entry.after


def needed(state: str) -> set[str]:
    """The jobs that others wait for."""
    return {one.partition(":")[0] for entry in waiting(state) for one in befores(state, entry)}


class Locked:
    """Holds the lock of the state directory; raises TimeoutError after LOCK_S. A class: `contextlib` takes 3 ms."""

    def __init__(self, state: str) -> None:
        self.path = os.path.join(state, "lock")
        self.fd = -1

    def __enter__(self) -> None:
        self.fd = files.opened(self.path, os.O_RDWR | os.O_CREAT)
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(self.fd)
                    raise TimeoutError(f"the lock was held for {LOCK_S:.0f} s") from None
                time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def record(folder: str, name: str, shape: files.Shape) -> dict[str, Any] | None:
    """The record, None if there is none; raises OSError if that cannot be known: then nothing may be started."""
    try:
        return files.record(os.path.join(folder, name), shape)
    except (FileNotFoundError, NotADirectoryError, files.Odd):  # `list` names a damaged one
        return None


def is_over(folder: str) -> bool:
    """Whether the job no longer waits: a runner has claimed it, or it has ended."""
    return any(os.path.lexists(os.path.join(folder, name)) for name in ("run.json", "exit.json"))


def is_fresh(turn: dict[str, Any], most_s: float) -> bool:
    return bool(turn["boot"] == processes.boot_id() and 0 <= time.monotonic() - turn["monotonic"] < most_s)


def has_turn(folder: str) -> bool:
    """Whether a process is opening the window of that job now."""
    turn = record(folder, "turn.json", files.TURN)
    if turn is None or turn.get("why") or not is_fresh(turn, LAUNCH_S):
        return False
    with suppress(OSError, files.Odd):
        fd = files.opened(os.path.join(folder, "turn.json"))
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
    return False


def begins(folder: str) -> bool:
    """As `has_turn`, for callers that only report it: False when that cannot be known."""
    with suppress(OSError):  # the process that moves the queue on reports it
        return has_turn(folder)
    return False


def cut_off(folder: str) -> bool:
    """Whether the process that was to run a job is known to have ended before it recorded itself: nothing ran."""
    opened = record(folder, "opened.json", files.OPENED)
    if opened is None or opened["namespace"] != processes.pid_namespace():
        return False
    return not processes.is_alive(opened["pid"], opened["start"]) and not is_over(folder)


def end(state: str, job_id: str, reason: str, *, error: str | None = None, note: str = "") -> bool:
    """Record that a job ended without having run; False if it was claimed or has ended. Call it under the lock."""
    folder = folder_of(state, job_id)
    job = record(folder, "job.json", files.JOB)
    if job is None or is_over(folder):
        return False
    ended = {"format": FORMAT, "ended_at": now(), "reason": reason, "error": error, "note": note, "runtime_s": 0.0}
    write_json(os.path.join(folder, "exit.json"), {**ended, "job": job, "run": None})
    for name in ("env", "turn.json", "run.room", "exit.room"):
        with suppress(OSError):
            os.unlink(os.path.join(folder, name))
    leave(state, job_id)
    report_change(state)
    return True


def report_change(state: str) -> None:
    """Wake the processes that watch the state directory: the line has changed."""
    with suppress(OSError, files.Odd):
        fd = files.opened(os.path.join(state, "moved"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(fd, b"moved\n")
        os.close(fd)
