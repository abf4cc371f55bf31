"""`wait`: until a job ends, prints, falls silent, asks, or serves; woken by the kernel, without polling its log.

What is waited for is looked at once more after each change, so that a wait that was cut off is simply begun again.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Unpack, get_args

from tmuxjobs.answers import Waited, WaitedJob
from tmuxjobs.arguments import CHARS, WAIT_S, Conditions, Mode, checked_seconds
from tmuxjobs.errors import InvalidInput
from tmuxjobs.hosts.local import Host
from tmuxjobs.system.watch import Watch, watching
from tmuxjobs.text import matching
from tmuxjobs.verbs import output
from tmuxjobs.verbs.job_wait import CHARS_MAX, Goal, JobWait, goal
from tmuxjobs.verbs.waiter import waits, waits_async


class Wait:
    """A wait for one job or several. Does not sleep: see `waiter.py`."""

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
        self.all = [JobWait(host, job_id, goal, cursor, starts.get(job_id)) for job_id in dict.fromkeys(job_ids)]
        self.watches = [Watch(_unheard) for _ in self.all]

    @contextlib.contextmanager
    def watched(self, wake: Callable[[], None]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            self.watches = []
            for one in self.all:
                pid = one.job.run.pid if one.job.run else None
                self.watches.append(stack.enter_context(watching(one.job.folder, pid, wake)))
            yield

    def check(self) -> Waited | None:
        """The answer if the wait is over."""
        late = time.monotonic() >= self.deadline
        for one, watch in zip(self.all, self.watches, strict=True):
            one.check(watch, deadline=self.deadline)
        met = [one for one in self.all if one.result is not None]
        failed = [one for one in met if one.result is not None and one.result.reason == "fail_pattern"]
        if failed or (met and (self.mode == "any" or len(met) == len(self.all))):
            return self.answer((failed or met)[0] if self.mode == "any" or failed else met[-1])
        if late:
            waiting = [one for one in self.all if one.result is None]
            return self.answer(waiting[0], over=True)
        return None

    @property
    def pause_s(self) -> float:
        pauses = [one.pause_s for one in self.all if one.result is None]
        return max(0.0, min([*pauses, self.deadline - time.monotonic()]))

    def answer(self, one: JobWait, *, over: bool = False) -> Waited:
        result = one.result or one.over()
        job = one.job
        out = one.news(one.path, one.cursor, self.budget)
        err = one.news(one.paths[1], None, self.budget) if job.stderr else None
        notes = [result.detail] if result.detail else []
        cursor = out.cursor
        if over:
            if (behind := one.behind) is not None:
                cursor = min(cursor, behind)
                notes.insert(0, f"there was time to look through the output up to byte {behind}")
            on = "`wait` again" if len(self.all) > 1 else f"`wait` with cursor={cursor}"
            notes.insert(0, f"timed out after {self.timeout:g} s; call {on} to continue")
            notes += one_time_notes(one)
        notes += output.log_notes(job)
        notes += output.held_back(out)
        return Waited(
            job_id=one.job_id,
            reason=result.reason,
            status=job.status,
            exit_code=job.exit.exit_code if job.exit else None,
            stdout=out.text,
            stderr=err.text if err else "",
            cursor=cursor,
            waits_for=result.prompt.waits_for if result.prompt else None,
            prompt=result.prompt.text if result.prompt else None,
            note="; ".join(notes),
            runtime=self.host.runtime(job),
            jobs=self.summaries(one) if len(self.all) > 1 else (),
        )

    def summaries(self, one: JobWait) -> tuple[WaitedJob, ...]:
        """Each of them with its share of what may be shown; the one that ended the wait gets what the others leave."""
        room = self.budget
        found: dict[str, WaitedJob] = {}
        for each in sorted(self.all, key=lambda each: (each is one, each.result is not None)):
            job = each.summary(room // (len(self.all) - len(found)))
            room -= len(job.stdout) + len(job.stderr)
            found[each.job_id] = job
        return tuple(found[each.job_id] for each in self.all)


def _unheard() -> None:
    """Nobody waits between the checks: a client that polls calls again."""


def one_time_notes(one: JobWait) -> list[str]:
    """Said when the pattern did not show: it may stand in what was printed before."""
    if one.goal.pattern is None or one.cursor is not None or not one.begin:
        return []
    with contextlib.suppress(TimeoutError):
        earlier = matching.Watcher(one.path, one.goal.pattern, literal=one.goal.literal).look(timeout=1.0)
        if earlier is not None and earlier.cursor < one.begin:
            return [f"the pattern stands in earlier output, line {earlier.line}: cursor=0 counts that too"]
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

    Without a timeout (None) it takes as long as it takes. Of several jobs `mode` says whether `any` or `all` count. A
    pattern counts in what comes after `cursor`, or after this call began; the answer has the output since `cursor`, or
    the newest. Raises JobNotFound, InvalidInput.
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
wait_async = waits_async(begin)
