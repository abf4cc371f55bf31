"""Jobs that wait for their turn: the arguments that queue one, why it waits, and how the queue is moved on here."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ParamSpec, TypeVar

from tmuxjobs import files
from tmuxjobs.arguments import Turn, checked_seconds, encoded
from tmuxjobs.errors import HostError, InvalidInput, StateError, TmuxError
from tmuxjobs.hosts.local import Host
from tmuxjobs.job_answers import Edited
from tmuxjobs.models import QueueRecord
from tmuxjobs.pane import queue, turns
from tmuxjobs.pane.line import Line
from tmuxjobs.states import Job
from tmuxjobs.store import disk
from tmuxjobs.store.index import ID
from tmuxjobs.system.watch import watching
from tmuxjobs.verbs.waiter import run_async

GROUP = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
NEEDS = ("any", "ready")
PRIORITY = 1_000_000
BREATH_S = 0.25
"""Seconds between two checks even if more changes are reported: each start makes several."""
QUEUE_CHECK_S = 0.5
"""Seconds between two checks of a process that waits, where the kernel reports no change."""
FAR_QUEUE_CHECK_S = 10.0
"""Likewise for another host, where the first window of the session moves the queue on too."""
P = ParamSpec("P")
R = TypeVar("R")


def asked(host: Host, given: Turn) -> QueueRecord | None:
    """The queue record of a job that may wait; None for one that must start at once. Raises InvalidInput.

    A job may wait if it has a group, a priority, a job to come after or a time.
    """
    group, delay, at = given.get("group") or "", given.get("delay"), given.get("at")
    after = befores(host, given.get("after") or ())
    wanted, priority = given.get("queue"), checked_priority(given.get("priority") or 0)
    may_wait = bool(group or after or delay or at or priority)
    if not (wanted or (wanted is None and host.settings.queue) or may_wait):
        return None
    if wanted is False:
        raise InvalidInput("With queue=false it cannot wait: leave out group, priority, after, delay and at.")
    return QueueRecord(
        group=checked_group(group) if group else "",
        priority=priority,
        not_before=not_before(delay, at, host.ahead_s),
        after=after,
        **bounds(host, group),
    )


def bounds(host: Host, group: str) -> dict[str, Any]:
    """The limits that are in force now, and the tmux socket of its window."""
    of = host.settings
    most = {"most": of.max_jobs, "total": of.total_jobs, "limit": (of.groups or {}).get(group, 0)}
    return {**most, "socket": host.tmux.socket}


def checked_group(name: str) -> str:
    if not GROUP.fullmatch(name):
        raise InvalidInput(f"A group is named by up to 32 of a-z, 0-9 and `-`, not '{name[:40]}'.")
    return name


def checked_priority(value: int) -> int:
    if abs(value) > PRIORITY:
        raise InvalidInput(f"priority is a whole number of at most {PRIORITY}, not {value}.")
    return value


def befores(host: Host, given: Sequence[str] | str) -> tuple[str, ...]:
    """The jobs that it comes after; raises JobNotFound."""
    found = []
    for one in dict.fromkeys([given] if isinstance(given, str) else given):
        job_id, _, need = one.partition(":")
        if need not in ("", "ok", *NEEDS) or not ID.fullmatch(job_id):
            raise InvalidInput(f"after takes ids of jobs, or ID:any, ID:ready, not '{one[:80]}'.")
        owner = host.owner(job_id)
        if owner is not host and os.path.lexists(owner.store.jobs / job_id):
            raise InvalidInput(f"Job '{job_id}' is on another machine: after takes jobs of the one that it runs on.")
        job = host.store.read(job_id).job
        if need == "ready" and not job.ready_when:
            raise InvalidInput(f"Job '{job_id}' was started without `ready_when`, so nothing says when it is ready.")
        found.append(job_id if need in ("", "ok") else one)
    return tuple(found)


def not_before(delay: float | None, at: str | None, ahead_s: float) -> float | None:
    """The earliest start in s since the epoch, by a clock that is `ahead_s` ahead of ours; None for any time.

    `at` is an ISO 8601 time, or HH:MM today, or tomorrow if that has passed.
    """
    if delay and at:
        raise InvalidInput("Give delay or at, not both.")
    if delay:
        return time.time() + ahead_s + checked_seconds("delay", delay)
    if not at:
        return None
    now = datetime.now().astimezone()
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", at):
            clock = datetime.strptime(at, "%H:%M:%S" if at.count(":") == 2 else "%H:%M")
            when = now.replace(hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0)
            return (when if when > now else when + timedelta(days=1)).timestamp() + ahead_s
        given = datetime.fromisoformat(at)
    except ValueError:
        raise InvalidInput(f"at is a time like 18:30 or 2026-01-31T18:30, not '{at[:40]}'.") from None
    return given.astimezone().timestamp() + ahead_s


def held(act: Callable[P, R], *args: P.args, **named: P.kwargs) -> R:
    """Call `act`, which takes the lock of the state directory, maybe another machine's; raises StateError."""
    try:
        return act(*args, **named)
    except OSError as error:
        raise StateError(f"The state directory cannot be used: {error.strerror or error}.") from None


def move(host: Host, _faults: list[str] | None = None) -> Line | None:
    """Start what may start, and return the line that is left; cheap when nothing waits.

    What keeps jobs waiting is their reason, not a fault. The line of another host is known only there: None.
    """
    if host.name:
        with contextlib.suppress(TmuxError):  # HostError is one
            if queue.names(str(host.store.root)) and host.is_reached:
                host.ensure_session()
                host.machine.move(host.root)
        return None

    def make_session(socket: str, session: str) -> None:
        if (socket, session) == (host.tmux.socket, host.settings.session):
            with contextlib.suppress(TmuxError):  # the start of the job then fails and says so
                host.ensure_session()

    with contextlib.suppress(OSError, files.Odd):
        return host.machine.move(host.root, make_session)
    return None


class Moving:
    """An endless wait that moves the queue on: after each change, by its clocks, and after killed runners."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.active = False
        self.look_s = 0.0
        self.looked_at = -math.inf

    @contextlib.contextmanager
    def watched(self, wake: Callable[[], None]) -> Iterator[None]:
        with watching(self.host.settings.state_dir, None, wake, logs=False) as watch:
            self.active = watch.active
            yield

    @property
    def pause_s(self) -> float:
        return self.look_s if self.active else min(self.look_s, QUEUE_CHECK_S)

    def check(self) -> None:
        self.look_s = self.looked_at + BREATH_S - time.monotonic()
        if self.look_s > 0:
            return
        line = move(self.host)
        self.looked_at = time.monotonic()
        self.look_s = line.look_s if line is not None else FAR_QUEUE_CHECK_S if self.host.name else math.inf


async def move_on(host: Host, _faults: list[str]) -> None:
    """Keep the queue moving, without end; see Moving."""
    await run_async(Moving(host))


@contextlib.contextmanager
def turn(host: Host, job_id: str, queue_facts: QueueRecord | None, *, forced: bool = False) -> Iterator[bool]:
    """Yields whether the job starts now, and holds its turn meanwhile. Without `queue_facts` it starts."""
    if queue_facts is None:
        yield True
        return
    state = host.root
    if host.name:
        with contextlib.suppress(TmuxError):  # it waits
            if forced:
                host.machine.start(state, job_id)
            else:
                host.machine.move(state)
        yield False
        return
    with host.store.lock():
        job = queue.record(queue.folder_of(state, job_id), "job.json", files.JOB)
        line, skipped = Line(state, anew=True), list[str]()
        if forced and job is not None:
            taken = [(job, turns.give(state, job))]
        else:
            skipped = line.skip_failed()
            taken = turns.take(line, job_id)
    try:
        turns.announced(state, skipped)
        if not taken:
            move(host)
        yield bool(taken)
    finally:
        for _, fd in taken:
            turns.release(state, job_id, fd)


def waiting(host: Host) -> list[queue.Entry]:
    """The jobs that wait, the newest first."""
    return sorted(queue.waiting(str(host.store.root)), key=lambda entry: -entry.number)


@dataclass(frozen=True)
class QueuePlace:
    """A job's place in the line, from 1 on, of how many, and why it waits."""

    number: int
    of: int
    why: str

    def __str__(self) -> str:
        return f"place {self.number} of {self.of}: {self.why}"


def waits(job: Job) -> bool:
    """Whether a job that waited at the last check still does."""
    names = ("run.json", "exit.json", "turn.json", "job.json")
    return job.queued and [disk.is_there(str(job.folder), name) for name in names] == [False, False, False, True]


def places(host: Host, jobs: Sequence[Job], line: Line | None = None) -> dict[str, QueuePlace]:
    """{id: place} for the jobs that wait, by `line` if it has just been read, or by reading it again."""
    wanted = [job.id for job in jobs if job.queued]
    if not wanted:
        return {}
    with contextlib.suppress(OSError, files.Odd, HostError):
        more = {} if host.name else {"line": line}
        return {one: QueuePlace(*facts) for one, facts in host.machine.places(host.root, wanted, **more).items()}
    return {}


def said(host: Host, job: Job) -> str:
    """`queued` and why, in words; empty when the job is not queued."""
    place = places(host, [job]).get(job.id)
    return f"queued, {place}" if place else ""


def cancel(host: Host, job: Job) -> bool:
    """End a job that waits, before it has run; False when it has begun."""
    if job.spec.queue is None or job.run is not None or job.exit is not None:
        return False
    return held(host.machine.cancel, host.root, job.id)


def edit(
    host: Host, job_id: str, *, first: bool = False, priority: int | None = None, command: str | None = None
) -> Edited:
    """Change a job that waits: its place, or its command. Raises JobNotFound, InvalidInput."""
    if priority is not None:
        checked_priority(priority)
    if command is not None and not encoded("command", command).strip():
        raise InvalidInput("The command is empty; give a shell command line.")
    move(host)
    job = host.look(job_id)
    if job.queued and job.spec.queue is not None:
        if first:
            others = [entry.priority for entry in waiting(host) if entry.job_id != job_id]
            priority = max([*others, -1]) + 1
        facts = job.spec.queue.model_copy(update={"priority": priority} if priority is not None else {})
        spec = job.spec.model_copy(update={"queue": facts} | ({"command": command} if command else {}))
        if held(host.machine.change, host.root, spec.model_dump(mode="json")):
            move(host)
            job = host.look(job_id)
            return Edited(job_id=job_id, status=job.status, detail=said(host, job) or job.detail)
        job = host.look(job_id)
    raise InvalidInput(f"Job '{job_id}' does not wait for its turn: {job.detail}.")
