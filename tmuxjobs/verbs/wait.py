"""`wait`: until a job ends, prints, falls silent, asks, or serves; woken by the kernel, without polling its log.

Without a job it waits for a whole project: for the first end among its jobs, including those that start meanwhile.

The conditions are checked again after each change, so a wait that was cut off can simply be started again.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Unpack, get_args

from pydantic import TypeAdapter, ValidationError

from tmuxjobs.answers import Started, Waited, WaitedJob, ran
from tmuxjobs.arguments import CHARS, WAIT_S, Conditions, Mode, checked_seconds
from tmuxjobs.errors import InvalidInput, JobNotFound, StateError, TmuxjobsError, apart
from tmuxjobs.hosts.local import Host
from tmuxjobs.job_answers import name_processes
from tmuxjobs.models import Caller, TaskRecord
from tmuxjobs.policy import callers
from tmuxjobs.states import Job
from tmuxjobs.system.watch import Watch, watching
from tmuxjobs.text import matching
from tmuxjobs.verbs import events, output, prompts, queue
from tmuxjobs.verbs.job_wait import CHARS_MAX, Goal, JobWait, goal, place
from tmuxjobs.verbs.waiter import unheard, waits, waits_async

WAITING = 20
"""How many of a host's queued jobs are considered if no job of the project runs."""


class Wait:
    """A wait for one job or several. Does not sleep: see `waiter.py`."""

    names_jobs = True
    """Whether the caller named the jobs, and gets an answer about each."""

    def __init__(
        self,
        host: Host,
        job_ids: Sequence[str],
        goal: Goal,
        *,
        cursor: int | None,
        mode: Mode,
        timeout: float | None,
        max_bytes: int,
        begins: Mapping[str, int] | None = None,
    ) -> None:
        self.host = host
        self.mode = mode
        self.timeout = timeout
        self.budget = max(200, min(max_bytes, CHARS_MAX))
        self.deadline = math.inf if timeout is None else time.monotonic() + timeout
        starts = begins or {}
        self.all = [
            JobWait(host.find(job_id), job_id, goal, cursor, starts.get(job_id)) for job_id in dict.fromkeys(job_ids)
        ]
        self.watches = [Watch(unheard) for _ in self.all]
        self.moving = queue.Moving(host)
        """Moves the queue on, as no other process that does may be alive."""

    @contextlib.contextmanager
    def watched(self, wake: Callable[[], None]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            self.watches = []
            if self.queued:
                stack.enter_context(self.moving.watched(wake))
            for one in self.all:
                pid = one.job.run.pid if one.job.run else None
                self.watches.append(stack.enter_context(watching(one.job.folder, pid, wake)))
            yield

    def check(self) -> Waited | None:
        """The answer if the wait is over."""
        late = time.monotonic() >= self.deadline
        if self.queued:
            self.moving.check()
        for one, watch in zip(self.all, self.watches, strict=True):
            one.check(watch, deadline=self.deadline)
        met = [one for one in self.all if one.result is not None]
        failed = [one for one in met if one.result is not None and one.result.reason == "fail_pattern"]
        if failed or (met and self.mode == "any"):
            return self.answer((failed or met)[0])
        if met and len(met) == len(self.all):
            # One that did not do its work comes before one that did it without what was waited for.
            first = sorted((one for one in met if one.failed), key=lambda one: one.job.status == "completed")
            return self.answer((first or met[-1:])[0])
        if late:
            waiting = [one for one in self.all if one.result is None]
            return self.answer(waiting[0], over=True)
        return None

    @property
    def pause_s(self) -> float:
        pauses = [one.pause_s for one in self.all if one.result is None]
        pauses += [self.moving.pause_s] if self.queued else []
        return max(0.0, min([*pauses, self.deadline - time.monotonic()]))

    @property
    def queued(self) -> bool:
        return any(one.job.queued for one in self.all)

    def answer(self, one: JobWait, *, over: bool = False) -> Waited:
        several = len(self.all) > 1 and self.names_jobs
        result = one.result or one.over()
        job = one.job
        out = one.news(one.path, one.cursor, self.budget)
        err = one.news(one.paths[1], None, self.budget) if job.stderr else None
        notes = [result.detail] if result.detail else []
        if job.run is not None and job.run.approved and not one.seen.is_reported(job.id, "approved"):
            one.seen.tell(job.id, "approved")
            notes.append(f"approved {job.run.approved}")
        notes += left_note(one.host, job)
        if self.mode == "all" and len(self.all) > 1:
            notes.insert(0, self.counts())
        cursor = out.cursor
        if over:
            if (behind := one.behind) is not None:
                cursor = min(cursor, behind)
                notes.insert(0, f"there was time to search the output up to byte {behind}")
            on = "`wait` again" if len(self.all) > 1 or not self.names_jobs else f"`wait` with cursor={cursor}"
            notes.insert(0, f"timed out after {self.timeout:g} s; call {on} to continue")
            notes += one_time_notes(one)
        notes += output.log_notes(job)
        notes += output.held_back(out)
        notes += prompts.screen_notes(one.host, job) if not (result.prompt and result.prompt.full_screen) else ()
        one.seen.note(one.job_id, cursor, err.cursor if err else None)
        return Waited(
            job_id=one.job_id,
            reason=result.reason,
            status=job.status,
            exit_code=one.exit_code,
            stdout=out.text,
            stderr=err.text if err else "",
            cursor=cursor,
            waits_for=result.prompt.waits_for if result.prompt else "approval" if job.awaits_approval else None,
            prompt=result.prompt.text if result.prompt else None,
            note="; ".join(notes),
            runtime=one.host.runtime(job),
            jobs=self.summaries(one) if several else (),
            failed=tuple(one.job_id for one in self.all if one.failed) if several else (),
        )

    def counts(self) -> str:
        """How many jobs are in which state, and which failed: `3 jobs: 2 completed, 1 failed: test-1 (exit code 2)`."""
        words: dict[str, list[JobWait]] = {}
        for one in self.all:
            reason = one.result.reason if one.result is not None else "still waited for"
            status = f"{one.job.status}{' without it' * (one.failed and one.job.status == 'completed')}"
            words.setdefault(status if reason == "exit" else reason, []).append(one)
        said = []
        for word, some in sorted(words.items(), key=lambda pair: pair[0] != "completed"):
            bad = [f"{one.job_id} ({one.job.detail})" for one in some if one.failed]
            said.append(f"{len(some)} {word}{': ' * bool(bad)}{', '.join(bad)}")
        return f"{len(self.all)} jobs: {', '.join(said)}"

    def summaries(self, one: JobWait) -> tuple[WaitedJob, ...]:
        """Each job with its share of what may be shown; the one that ended the wait gets what the others leave."""
        room = self.budget
        found: dict[str, WaitedJob] = {}
        for each in sorted(self.all, key=lambda each: (each is one, each.result is not None)):
            job = each.summary(room // (len(self.all) - len(found)))
            room -= len(job.stdout) + len(job.stderr)
            found[each.job_id] = job
        return tuple(found[each.job_id] for each in self.all)


def left_note(host: Host, job: Job) -> list[str]:
    """A note about what an ended job left running."""
    left = host.left_running(job) if job.exit is not None else ()
    return [f"left running: {name_processes(left)}; `kill` ends it"] if left else []


def one_time_notes(one: JobWait) -> list[str]:
    """A note for a pattern that was not found: it may be in earlier output."""
    if one.goal.pattern is None or one.cursor is not None or not one.begin:
        return []
    with contextlib.suppress(TimeoutError):
        earlier = matching.Watcher(one.path, one.goal.pattern, literal=one.goal.literal).next_match(timeout=1.0)
        if earlier is not None and earlier.cursor < one.begin:
            return [f"the pattern stands in earlier output, {place(earlier)}: cursor=0 counts that too"]
    return []


def begin(
    host: Host,
    job_id: str | Sequence[str],
    *,
    cursor: int | None = None,
    mode: Mode = "any",
    timeout: float | None = WAIT_S,
    max_bytes: int = CHARS,
    **conditions: Unpack[Conditions],
) -> Wait:
    """Wait until a condition is met or `timeout` seconds have passed; the job's end is always a condition.

    With no timeout (None) it waits without limit. With several jobs, `mode` says whether `any` or `all` count. A
    pattern counts in what comes after `cursor`, or after what the caller was given of the job, if anything; the answer
    has the output since `cursor`, or the newest. Raises JobNotFound, InvalidInput.
    """
    asked = goal(**conditions)
    ids = [job_id] if isinstance(job_id, str) else list(job_id)
    if not ids:
        raise InvalidInput("Give the id of a job to wait for, or of several.")
    if cursor is not None and len(ids) > 1:
        raise InvalidInput("A cursor belongs to one job; leave it out to wait for several.")
    if mode not in get_args(Mode):
        raise InvalidInput(f"mode is any or all, not '{mode}'.")
    if timeout is not None:
        checked_seconds("timeout", timeout, least=0.0)
    return Wait(host, ids, asked, cursor=cursor, mode=mode, timeout=timeout, max_bytes=max_bytes)


wait = waits(begin)


def running(host: Host, caller: Caller) -> list[str]:
    """The running jobs of the caller's project, the newest first; if there are none, the first that are queued."""
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


class ProjectWait(Wait):
    """A wait for any of a project's jobs, including those that start while it lasts."""

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


def begin_for(
    host: Host,
    caller: Caller,
    job_id: str | Sequence[str] | None = None,
    *,
    cursor: int | None = None,
    mode: Mode = "any",
    timeout: float | None = WAIT_S,
    max_bytes: int = CHARS,
    **conditions: Unpack[Conditions],
) -> Wait:
    """As `begin`; without a job it is over when any job of the caller's project meets a condition, or ends."""
    if job_id is not None:
        made = begin(host, job_id, cursor=cursor, mode=mode, timeout=timeout, max_bytes=max_bytes, **conditions)
        made.all[0].tells_pause = caller.kind == "agent" and len(made.all) == 1
        return made
    if cursor is not None or mode != "any":
        raise InvalidInput("`cursor` and `mode` go with the jobs to wait for: name them, or leave these out.")
    if timeout is not None:
        checked_seconds("timeout", timeout, least=0.0)
    return ProjectWait(host, caller, goal(**conditions), timeout=timeout, max_bytes=max_bytes)


wait_for = waits(begin_for)
wait_for_async = waits_async(begin_for)


ID = re.compile(r"([a-z0-9-]+)(?:\.([0-9a-f]{8}))?")
CONDITIONS = TypeAdapter(Conditions)


class Tasks:
    """The tasks of a host. Their waits are kept while they are polled, and rebuilt from the record otherwise."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.waits: dict[str, tuple[Wait, threading.Lock]] = {}

    def begins(self, job_ids: Sequence[str]) -> dict[str, int]:
        """{job: where its output that is new to the caller begins}. Raises JobNotFound."""
        return {job_id: JobWait(self._host, job_id, Goal(), None).begin for job_id in job_ids}

    def create(
        self, tool: str, arguments: Mapping[str, Any], *, begins: dict[str, int], bound_s: float | None
    ) -> TaskRecord:
        """Record the wait that this call of `tool` asked for; `begins` is from `begins()`. Raises StateError."""
        given = arguments.get("cursor")
        cursor = 0 if tool == "execute" else None if given is None else int(given)
        first = next(iter(begins))
        now = datetime.now(UTC)
        task = TaskRecord(
            task_id=f"{first}.{secrets.token_hex(4)}" if os.path.lexists(self._path(first)) else first,
            tool=tool,
            job_ids=tuple(begins),
            conditions={name: arguments[name] for name in Conditions.__annotations__ if name in arguments},
            begins=begins if cursor is None else {first: cursor},
            cursor=cursor,
            mode=arguments.get("mode", "any"),
            max_bytes=int(arguments.get("max_bytes", CHARS)),
            created_at=now,
            updated_at=now,
            deadline_at=None if bound_s is None else now + timedelta(seconds=bound_s),
        )
        return self._keep(task)

    def read(self, task_id: str) -> TaskRecord | None:
        """The task; None when there is none, or its record is damaged, which is removed with its job."""
        try:
            task = self._host.store.load(self._path(task_id), TaskRecord)
            if task is not None:
                CONDITIONS.validate_python(task.conditions)
        except (JobNotFound, StateError, ValidationError):
            return None
        return task

    def check(self, task: TaskRecord, shape: Callable[[Waited], dict[str, Any]]) -> tuple[TaskRecord, str]:
        """The task as it is now, once it is over with a result made by `shape`; until then, also its jobs' last line.

        Raises JobNotFound when a job is gone.
        """
        if task.result is not None or task.cancelled:
            return task, ""
        try:
            if task.task_id not in self.waits:
                self._forget_removed()
                self.waits.setdefault(task.task_id, (self._resume(task), threading.Lock()))
            wait, lock = self.waits[task.task_id]
            with lock:
                waited = wait.check()
        except JobNotFound:
            self.waits.pop(task.task_id, None)
            raise
        if waited is None:
            return task, last_line(wait)
        self.waits.pop(task.task_id, None)
        return self._keep(task, result=shape(self._answer(task, waited))), ""

    def cancel(self, task: TaskRecord) -> None:
        """End the waiting, never the job."""
        self.waits.pop(task.task_id, None)
        if task.result is None and not task.cancelled:
            self._keep(task, cancelled=True)

    def _forget_removed(self) -> None:
        """Drop the waits of tasks that nobody polls any more and whose jobs were removed."""
        for task_id in [one for one in self.waits if not os.path.lexists(self._path(one))]:
            self.waits.pop(task_id, None)

    def _keep(self, task: TaskRecord, **changes: Any) -> TaskRecord:
        if changes:
            task = task.model_copy(update=changes | {"updated_at": datetime.now(UTC)})
        self._host.store.save(self._path(task.task_id), task)
        return task

    def _resume(self, task: TaskRecord) -> Wait:
        left = None if task.deadline_at is None else max(0.0, (task.deadline_at - datetime.now(UTC)).total_seconds())
        return Wait(
            self._host,
            task.job_ids,
            # A client may have written a number as text.
            goal(**CONDITIONS.validate_python(task.conditions)),
            cursor=task.cursor,
            mode=task.mode,
            timeout=left,
            max_bytes=task.max_bytes,
            begins=task.begins,
        )

    def _answer(self, task: TaskRecord, waited: Waited) -> Waited:
        if task.tool != "execute":
            return waited
        host = self._host.find(waited.job_id)
        job = host.look(waited.job_id)
        return ran(
            Started(
                job_id=job.id,
                status=waited.status,
                host=host.name or None,
                log_path=host.log_path(job.log),
                attach=host.attach_line(job),
            ),
            waited,
        )

    def _path(self, task_id: str) -> Path:
        """Where the record is; raises JobNotFound for what is not an id of a task."""
        parts = ID.fullmatch(task_id)
        if parts is None:
            raise JobNotFound(task_id)
        return self._host.find(parts[1]).store.folder(parts[1]) / (f"task-{parts[2]}.json" if parts[2] else "task.json")


def last_line(wait: Wait) -> str:
    """The last line of the first job that has printed any."""
    with suppress(TmuxjobsError):
        return next((line for one in wait.all if (line := one.last_line())), "")
    return ""
