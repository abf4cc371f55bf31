"""Reports what happens to jobs as it happens: woken by the kernel, with or without a server.

Starts, holds and the ends that others saw come from the journal; ends and prompts that nobody has seen yet are found
here and written there, so that each has the same number for every follower.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tmuxjobs.arguments import Scope
from tmuxjobs.errors import HostError, JobNotFound, StateError, apart
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Caller, Entry, Seen, asking
from tmuxjobs.outcome import waiting
from tmuxjobs.policy import callers
from tmuxjobs.states import Job
from tmuxjobs.system.watch import Watch, watching
from tmuxjobs.text.log import log_size
from tmuxjobs.verbs import events
from tmuxjobs.verbs.prompts import Prompt, prompts
from tmuxjobs.verbs.waiter import run

ROUND_S = 10.0
"""Length of a round of waiting, which ends in case the kernel reported nothing and so that a lost reader is noticed."""
UNWATCHED_S = 0.05
LOOKS_S = (0.1, 0.5, 2.0, 5.0)
"""Seconds of silence after which a job is checked for a prompt; after those, every ROUND_S."""
SETTLED_S = 0.25
TOLD_S = 1.0
"""How much later (s) than an event an answer may report it to an agent."""
COMMAND_CHARS = 80
WORDS = {
    "queued": "queued",
    "start": "started",
    "hold": "held by a person",
    "release": "released",
    "pause": "paused",
    "resume": "resumed",
    "again": "runs again",
    "ready": "ready",
    "unready": "not ready",
}
"""An event other than a prompt or an end, in words for a person."""


@dataclass
class Quiet:
    """How long a job has been silent: the size of its log, since when (monotonic), how often it was checked."""

    size: int
    since: float
    looks: int = 0
    again_at: float = 0.0
    """When it is checked again because it reads and has asked nothing; 0 if not."""

    @property
    def due_at(self) -> float:
        if self.again_at:
            return self.again_at
        if self.looks < len(LOOKS_S):
            return self.since + LOOKS_S[self.looks]
        return self.since + LOOKS_S[-1] + ROUND_S * (self.looks - len(LOOKS_S) + 1)


class News:
    """A wait for the next entries of the journal; over with none after a round. The next wait goes on from there."""

    def __init__(self, host: Host, since: int | None) -> None:
        self.host = host
        entries = events.journal(host)
        self.since = since if since is not None else entries[-1].n if entries else 0
        self.quiet: dict[str, Quiet] = {}
        self.watches: dict[str, Watch] = {}
        self.active = True
        self.until = math.inf
        self.met: set[tuple[str, int | None]] = set()

    @contextlib.contextmanager
    def watched(self, wake: Callable[[], None]) -> Iterator[None]:
        for other in self.host.others():
            other.fresh()  # from now on it reports changes itself
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(watching(self.host.settings.state_dir, None, wake, logs=False))
            jobs = self._running()
            self.met = {(job.id, job.run.pid if job.run else None) for job in jobs}
            self.watches = {
                job.id: stack.enter_context(watching(job.folder, job.run.pid if job.run else None, wake))
                for job in jobs
            }
            self.quiet = {job_id: quiet for job_id, quiet in self.quiet.items() if job_id in self.watches}
            self.active = root.active and all(watch.active for watch in self.watches.values())
            self.until = time.monotonic() + ROUND_S
            yield

    @property
    def pause_s(self) -> float:
        due = min([self.until, *(quiet.due_at for quiet in self.quiet.values())]) - time.monotonic()
        return max(0.0, due if self.active else min(due, UNWATCHED_S))

    def check(self) -> tuple[Entry, ...] | None:
        self.host.looked_for_lost_at = -math.inf  # the event may be the death of a runner
        entries = events.journal(self.host, self.since)
        if not entries:
            jobs = self._running()
            asked = [job for job in jobs if job.id in self.watches and job.spec.adopted is None]
            self._look_for_prompts([job for job in asked if not job.awaits_approval])
            entries = events.journal(self.host, self.since)
            changed = {(job.id, job.run.pid if job.run else None) for job in jobs} != self.met
            if not entries and not changed and time.monotonic() < self.until:
                return None
        self.since = entries[-1].n if entries else self.since
        return entries

    def _running(self) -> list[Job]:
        found = []
        for host in (self.host, *self.host.others()):
            for record in host.store.unfinished():
                with apart(record.id, []):  # `list` names it
                    job = host.settle(record)
                    if job.running and (job.run is None or host.is_here(job.run)):
                        found.append(job)
        return found

    def _look_for_prompts(self, jobs: list[Job]) -> None:
        now = time.monotonic()
        due = []
        for job in jobs:
            size = sum(map(log_size, job.logs))
            quiet = self.quiet.get(job.id)
            if quiet is None or quiet.size != size:
                self.quiet[job.id] = Quiet(size, now)
                self.watches[job.id].logs = False  # a job that floods its log must not wake us
            elif now >= quiet.due_at:
                due.append(job)
        asked = self._prompts(due)
        for job in due:
            quiet = self.quiet[job.id]
            quiet.looks += 1
            self.watches[job.id].logs = True
            prompt = asked.get(job.id)
            if prompt is not None and not prompt.text and not quiet.again_at:
                quiet.again_at = now + SETTLED_S  # what it printed before it began to read may reach the log later
                continue
            quiet.again_at = 0.0
            if prompt is not None:
                quiet.since = math.inf  # until it prints again
                with contextlib.suppress(StateError):  # a full disk: it still asks
                    facts = {"waits_for": prompt.waits_for, "prompt": prompt.text, "log_bytes": quiet.size}
                    events.note(self.host, "prompt", job.spec, **facts)

    def _prompts(self, jobs: list[Job]) -> dict[str, Prompt]:
        found: dict[str, Prompt] = {}
        by_host: dict[str, list[Job]] = {}
        for job in jobs:
            by_host.setdefault(self.host.owner(job.id).name, []).append(job)
        for some in by_host.values():
            with contextlib.suppress(HostError):  # lost meanwhile
                found |= prompts(self.host.owner(some[0].id), some, faults=[])
        return found


def follow(
    host: Host, caller: Caller, since: int | None = None, *, scope: Scope = "all", untold: bool = False
) -> Iterator[Entry | None]:
    """Yields entries after number `since`, or from now on, without end; and None at least once a round.

    With `untold` it yields only ends and prompts that no answer to an agent has reported.
    """
    news = News(host, since)
    held: list[tuple[float, Entry]] = []
    while True:
        entries = [entry for entry in run(news) if events.is_within(scope, caller, entry)]
        if not untold:
            yield from entries
            yield None
            continue
        held += [(time.monotonic() + TOLD_S, entry) for entry in entries if entry.event in ("end", "prompt")]
        while held:
            time.sleep(max(0.0, held[0][0] - time.monotonic()))
            entry = held.pop(0)[1]
            if not is_reported(host, entry):
                yield entry
        yield None


def also_ended(host: Host, caller: Caller, known: Iterable[str] = ()) -> tuple[Entry, ...]:
    """Ends not yet reported to this client, each once: of jobs in its scope and of others that it waited for.

    The first call reports nothing and begins the count; `known` are jobs whose end another answer reported. Raises
    StateError.
    """
    seen, scope = asking.get() or Seen(), callers.scope_of(caller, None, host.settings.scope)
    with seen.lock:
        entries = events.journal(host, seen.reported or 0)
        if seen.reported is None or entries:
            begins, seen.reported = seen.reported is None, entries[-1].n if entries else seen.reported or 0
            entries = () if begins else entries
        seen.known.update(known)
        found = [
            entry
            for entry in entries
            if entry.event == "end" and entry.status is not None and entry.job_id not in seen.known
            if events.is_within(scope, caller, entry) or entry.job_id in seen.waited_for
        ]
        # An end that is in the journal by now is not reported again, so only the other jobs need to be remembered.
        unended = events.not_ended(host)
        seen.known &= unended
        seen.waited_for &= unended
    return tuple(found)


def mark_reported(host: Host, job_ids: Iterable[str]) -> None:
    """Record that an agent has been given the current state of these jobs."""
    for job_id in job_ids:
        with contextlib.suppress(JobNotFound):  # a model made it up
            host.find(job_id).store.mark_reported(job_id)


def is_reported(host: Host, entry: Entry) -> bool:
    """Whether an agent got an answer about the job after its end, or after it printed its question."""
    owner = host.owner(entry.job_id)
    reported_at = owner.store.reported_at(entry.job_id)
    if entry.event == "end":
        return reported_at + owner.ahead_s >= entry.at.timestamp()
    try:
        return reported_at >= (owner.store.folder(entry.job_id) / "output.log").stat().st_mtime
    except OSError:  # removed
        return True


def line(host: Host, caller: Caller, entry: Entry) -> str:
    """The entry for a person or a model: number, time (UTC), job, event, and the project if it is another."""
    record, host = None, host.owner(entry.job_id)
    with contextlib.suppress(StateError):
        record = host.store.look(entry.job_id)
    what = WORDS.get(entry.event, "")
    if entry.event == "prompt":
        job = host.settle(record) if record is not None else None
        there = entry.waits_for if entry.waits_for in ("password", "approval") and job is not None else "input"
        what = waiting(there or "input", entry.prompt or "", host.attach_line(job) if job else "")
    elif entry.note:
        what = f"{what} ({entry.note})"
    elif entry.event == "end":
        detail = host.settle(record).detail if record is not None else ""
        what = f"{entry.status or 'removed'}{f' ({detail})' if detail not in ('', entry.status) else ''}"
    command = " ".join(record.job.command.split()) if record is not None else ""
    shown = command if len(command) <= COMMAND_CHARS else command[: COMMAND_CHARS - 1] + "…"
    other = entry.project and entry.project != caller.project
    where = f" [{entry.project}]" if other else ""
    return f"{entry.n} {entry.at:%H:%M:%S} {entry.job_id}{where} {what}{f': {shown}' if shown else ''}"
