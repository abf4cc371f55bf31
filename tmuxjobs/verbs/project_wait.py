"""`wait` for a project as a whole: whatever ends first, of the jobs that run and of those that start meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Unpack

from tmuxjobs.answers import Waited
from tmuxjobs.arguments import CHARS, WAIT_S, Conditions, Mode, checked_seconds
from tmuxjobs.errors import InvalidInput, JobNotFound, apart
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Caller
from tmuxjobs.policy import callers
from tmuxjobs.system.watch import watching
from tmuxjobs.verbs import events, queue, wait
from tmuxjobs.verbs.job_wait import Goal, JobWait, goal
from tmuxjobs.verbs.waiter import unheard, waits, waits_async

WAITING = 20


def running(host: Host, caller: Caller) -> list[str]:
    """The jobs of the caller's project that run, the newest first; where none does, the first that wait for it."""
    found = []
    hosts = (host, *host.others())
    for one in hosts:
        one.fresh()
        for record in one.store.unfinished():
            with apart(record.id, []):  # `list` names it
                if callers.same_project(caller, record.job.caller) and one.settle(record).running:
                    found.append((record.job.created_at, record.id))
    if not found:
        first = [(one, entry.job_id) for one in hosts for entry in queue.waiting(one)[: -WAITING - 1 : -1]]
        return [job_id for one, job_id in first if callers.same_project(caller, one.caller_of(job_id))]
    return [job_id for _, job_id in sorted(found, reverse=True)]


class ProjectWait(wait.Wait):
    """A wait for any of a project's jobs. One that starts while it lasts is waited for like the others."""

    names_jobs = False

    def __init__(self, host: Host, caller: Caller, goal: Goal, *, timeout: float | None, max_bytes: int) -> None:
        entries = events.journal(host)
        self.since = entries[-1].n if entries else 0
        job_ids = running(host, caller)
        if not job_ids:
            raise InvalidInput("No job of this project runs, so there is none to wait for; `list` shows what ended.")
        super().__init__(host, job_ids, goal, cursor=None, mode="any", timeout=timeout, max_bytes=max_bytes)
        self.caller = caller
        self.goal = goal
        self._wake: Callable[[], None] = unheard
        self._started = contextlib.ExitStack()

    @contextlib.contextmanager
    def watched(self, wake: Callable[[], None]) -> Iterator[None]:
        self._wake = wake
        root = watching(self.host.settings.state_dir, None, wake, logs=False)
        with super().watched(wake), root, contextlib.ExitStack() as self._started:
            yield

    def check(self) -> Waited | None:
        known = {one.job_id for one in self.all}
        for entry in events.journal(self.host, self.since):
            self.since = entry.n
            new = entry.event == "start" and entry.job_id not in known
            if new and events.is_within("project", self.caller, entry):
                with contextlib.suppress(JobNotFound):  # it did not start after all
                    self._add(JobWait(self.host.owner(entry.job_id), entry.job_id, self.goal, None, 0))
        return super().check()

    def _add(self, one: JobWait) -> None:
        pid = one.job.run.pid if one.job.run else None
        self.watches.append(self._started.enter_context(watching(one.job.folder, pid, self._wake)))
        self.all.append(one)


def begin(
    host: Host,
    caller: Caller,
    job_id: str | Sequence[str] | None = None,
    *,
    cursor: int | None = None,
    mode: Mode = "any",
    timeout: float | None = WAIT_S,
    max_bytes: int = CHARS,
    **conditions: Unpack[Conditions],
) -> wait.Wait:
    """As `wait.begin`; without a job it is over when any job of the caller's project meets a condition, or ends."""
    if job_id is not None:
        made = wait.begin(host, job_id, cursor=cursor, mode=mode, timeout=timeout, max_bytes=max_bytes, **conditions)
        made.all[0].tells_pause = caller.kind == "agent" and len(made.all) == 1
        return made
    if cursor is not None or mode != "any":
        raise InvalidInput("`cursor` and `mode` go with the jobs to wait for: name them, or leave these out.")
    if timeout is not None:
        checked_seconds("timeout", timeout, least=0.0)
    return ProjectWait(host, caller, goal(**conditions), timeout=timeout, max_bytes=max_bytes)


wait_for = waits(begin)
wait_for_async = waits_async(begin)
