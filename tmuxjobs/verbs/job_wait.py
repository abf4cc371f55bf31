"""One job that is waited for: the conditions, and whether one of them is met."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tmuxjobs.answers import WaitedJob
from tmuxjobs.answers import waiting as words
from tmuxjobs.arguments import CHARS, UNTIL, Until, checked_seconds
from tmuxjobs.errors import InvalidInput
from tmuxjobs.hosts import job_processes
from tmuxjobs.hosts.local import Host
from tmuxjobs.outcome import seconds
from tmuxjobs.store import typed
from tmuxjobs.system import probes
from tmuxjobs.system.watch import Watch
from tmuxjobs.text import matching, paging
from tmuxjobs.text.log import log_size
from tmuxjobs.verbs import output, prompts
from tmuxjobs.verbs.prompts import QUIET_S, Prompt

CHARS_MAX = 400_000
NOTE_CHARS = 100
AROUND = 3
"""Lines shown before a match that is not among the newest output."""
IDLE_S = 2.0
RECHECK_S = 10.0
"""Seconds between two checks without an event, in case the kernel reported none."""
UNWATCHED_S = 0.1
"""Likewise where nothing can be watched."""
PROBE_S = 0.015
SEEK_S = 5.0
SETTLE_S = 0.5
"""Seconds of silence after which a wait for the end reports that the job waits for input."""
COST = 20
"""Looks at the machine take at most one part in so many of a processor."""


@dataclass(frozen=True)
class Goal:
    """What ends the wait; the end of the job always does."""

    input: bool = False
    pattern: str | None = None
    fail_pattern: str | None = None
    literal: bool = False
    idle_s: float | None = None
    port: int | None = None
    """0 for any."""
    url: str | None = None

    @property
    def only_exit(self) -> bool:
        return self == Goal()


def goal(
    until: Until | None = None,
    *,
    pattern: str | None = None,
    fail_pattern: str | None = None,
    literal: bool = False,
    idle: float | None = None,
    port: int | None = None,
    url: str | None = None,
) -> Goal:
    """Checked: every condition given counts; raises InvalidInput."""
    if until is not None and until not in UNTIL:
        raise InvalidInput(f"until is one of {', '.join(UNTIL)}, not '{until}'.")
    if (until == "pattern" and pattern is None) or (until == "url" and url is None):
        raise InvalidInput(f"until='{until}' needs `{until}`.")
    if idle is None and until == "idle":
        idle = IDLE_S
    if idle is not None:
        checked_seconds("idle", idle)
    if port is None and until == "port":
        port = 0
    if port is not None and not 0 <= port < 65536:
        raise InvalidInput(f"There is no port {port}; give 1 to 65535, or 0 for any.")
    if url is not None and not probes.is_address(url):
        raise InvalidInput(f"'{url}' is not an http or https address, like http://localhost:8000.")
    for given in filter(None, (pattern, fail_pattern)):
        matching.compiled(given, literal=literal)
    if "" in (pattern, fail_pattern):
        raise InvalidInput("The pattern is empty.")
    return Goal(until == "input", pattern, fail_pattern, literal, idle, port, url)


@dataclass(frozen=True)
class WaitResult:
    """Why a job's wait is over, in one word and in words."""

    reason: str
    detail: str
    prompt: Prompt | None = None
    match: matching.Match | None = None
    path: Path | None = None
    """The log with the match."""


class JobWait:
    """One job that is waited for."""

    def __init__(self, host: Host, job_id: str, goal: Goal, cursor: int | None, begin: int | None = None) -> None:
        self.host = host
        self.job_id = job_id
        self.goal = goal
        self.cursor = cursor
        self.job = host.look(job_id)
        self.path = self.job.log
        self.result: WaitResult | None = None
        self.pause_s = RECHECK_S
        self._asked_at = -1
        self._size = -1
        self._looked_at = self._quiet_from = 0.0
        size = log_size(self.path)
        if cursor is not None and not 0 <= cursor <= size:
            raise InvalidInput(f"Cursor {cursor} is not in the output, which has {size} bytes; wait on from {size}.")
        self.begin = cursor if cursor is not None else size if begin is None else begin
        starts = {self.path: self.begin}
        if self.job.stderr:
            starts[self.job.stderr] = 0 if cursor == 0 else log_size(self.job.stderr)
        self.paths = list(starts)
        self._good = self._watchers(goal.pattern, starts)
        self._bad = self._watchers(goal.fail_pattern, starts)

    def _watchers(self, pattern: str | None, starts: dict[Path, int]) -> list[matching.Watcher]:
        if pattern is None:
            return []
        return [matching.Watcher(path, pattern, literal=self.goal.literal, start=at) for path, at in starts.items()]

    def check(self, watch: Watch, *, deadline: float = math.inf) -> WaitResult | None:
        """The result if the wait is over; otherwise `pause_s` is when to check again without an event.

        Patterns are sought until *deadline* (monotonic), or a little longer so that each look comes further.
        """
        if self.result is not None:
            return self.result
        began = time.monotonic()
        self.pause_s = RECHECK_S if watch.active else UNWATCHED_S
        watch.logs = True
        # The state first: what is read after the end of a job is all of it.
        self.settle()
        running = self.job.running
        self.result = self._patterns(deadline) or self._served(running)
        if self.result is None and not running:
            first = "" if self.goal.only_exit else "the job ended first: "
            self.result = WaitResult("exit", first + self.job.detail)
        if self.result is None:
            self.result = self._quiet(watch)
        if self.goal.port is not None or self.goal.url is not None:
            self.pause_s = min(self.pause_s, max(PROBE_S, COST * (time.monotonic() - began)))
        return self.result

    def settle(self) -> None:
        run = self.job.run
        if (
            run is None
            or run.command_pid is None
            or os.path.lexists(self.path.with_name("exit.json"))
            or not job_processes.alive(run.pid, run.start)
        ):
            self.job = self.host.look(self.job_id)

    def _patterns(self, deadline: float) -> WaitResult | None:
        found: list[tuple[int, str, matching.Match, Path]] = []
        for reason, watchers in (("fail_pattern", self._bad), ("pattern", self._good)):
            for watcher in watchers:
                try:
                    match = watcher.look(timeout=_left(deadline))
                    while match is not None and typed.is_echo(self.path.parent, match.cursor, match.text):
                        match = watcher.look(timeout=_left(deadline))
                except TimeoutError:
                    self.pause_s = 0.0
                    continue
                if match is not None:
                    found.append((match.cursor, reason, match, watcher.path))
        if not found:
            return None
        _, reason, match, path = min(found, key=lambda one: one[0])
        where = f"line {match.line}" if match.line else f"at cursor {match.cursor}"
        return WaitResult(reason, f"{where}: {match.text}", match=match, path=path)

    @property
    def behind(self) -> int | None:
        """How far the patterns were sought in the output, when there was no time for all of it."""
        behind = [watcher.behind for watcher in (*self._good, *self._bad) if watcher.path == self.path]
        return min((at for at in behind if at is not None), default=None)

    def _served(self, running: bool) -> WaitResult | None:
        root = self.job.record.root
        if self.goal.port is not None and running and root is not None:
            for port, name in sorted(probes.listening(root, self.goal.port).items()):
                return WaitResult("port", f"{name} listens on port {port}")
        if self.goal.url is not None:
            code = probes.answers(self.goal.url)
            if code is not None and code < 500:
                return WaitResult("url", f"{self.goal.url} answers {code}")
        return None

    def _quiet(self, watch: Watch) -> WaitResult | None:
        """What silence means: idle, or waiting for input."""
        facts = [path.stat() for path in self.paths if path.exists()]
        size = sum(fact.st_size for fact in facts)
        quiet = self._quiet_s(size, max((fact.st_mtime for fact in facts), default=math.inf))
        if self.goal.idle_s is not None:
            if quiet >= self.goal.idle_s:
                return WaitResult("idle", f"quiet for {seconds(quiet)}")
            self.pause_s = min(self.pause_s, self.goal.idle_s - quiet + 0.001)
        if self.goal.input:
            began = time.monotonic()
            if (prompt := prompts.prompt(self.host, self.job)) is not None:
                return self.asks(prompt)
            cost = COST * (time.monotonic() - began)
            settling = QUIET_S + 0.001 - quiet
            self.pause_s = min(self.pause_s, settling if settling > 0 else max(PROBE_S, cost, min(1.0, quiet)))
        elif self.goal.only_exit and size != self._asked_at:
            # Looked at once after each burst of output, so that a hundred silent jobs cost nothing.
            if quiet < SETTLE_S:
                watch.logs = False
                self.pause_s = min(self.pause_s, SETTLE_S - quiet + 0.001)
            else:
                self._asked_at = size
                if (prompt := prompts.prompt(self.host, self.job)) is not None:
                    return self.asks(prompt)
        return None

    def _quiet_s(self, size: int, written_at: float) -> float:
        """Seconds since the last output. The wall clock jumps: it is asked only about output since the last look."""
        now = time.monotonic()
        if size != self._size:
            since = self.job.record.started_monotonic if self._size < 0 else self._looked_at
            self._quiet_from = now - min(max(0.0, time.time() - written_at), now - since)
            self._size = size
        self._looked_at = now
        return now - self._quiet_from

    def asks(self, prompt: Prompt) -> WaitResult:
        attach = self.host.attach_line(self.job)
        return WaitResult("input", f"it {words(prompt.waits_for, prompt.text, attach)}", prompt)

    def news(self, path: Path, cursor: int | None, budget: int) -> paging.Page:
        """What to show of a log: the output since the cursor, else the newest; the match is always in it."""
        final = not self.job.running
        if cursor is None:
            page = paging.tail(path, lines=1000, max_chars=budget)
        else:
            page = paging.ends(path, cursor=cursor, max_chars=budget, final=final)
        match = self.result.match if self.result is not None and self.result.path == path else None
        if match is None or match.bare in page.text:
            return page
        room = budget - NOTE_CHARS
        page = paging.ends(path, cursor=paging.lines_before(path, match.cursor, AROUND), max_chars=room, final=final)
        if match.bare not in page.text:
            # It stood there for a moment only, or in a line longer than all that is shown.
            page = paging.ends(path, cursor=match.cursor, max_chars=max(1, room - len(match.text)), final=final)
            page = replace(page, text=f"{match.text}\n{page.text}")
        if cursor is not None and cursor < page.start:
            skipped = f"[... {page.start - cursor:,} bytes left out; cursor {cursor} reads them ...]"
            page = replace(page, text=f"{skipped}\n{page.text}")
        return page

    def summary(self, budget: int) -> WaitedJob:
        """How it stands, for one of several; while its wait is not over with what has come meanwhile."""
        cursor = None if self.result is not None else self.begin
        out = err = None
        if budget >= paging.CHARS_MIN:
            out = self.news(self.path, cursor, budget)
            if self.job.stderr:
                err = self.news(self.paths[1], None, max(0, budget - len(out.text)))
        notes = [self.result.detail] if self.result is not None else []
        notes += output.log_notes(self.job)
        return WaitedJob(
            job_id=self.job_id,
            reason=self.result.reason if self.result else None,
            status=self.job.status,
            exit_code=self.job.exit.exit_code if self.job.exit else None,
            note="; ".join(notes),
            stdout=out.text if out else "",
            stderr=err.text if err else "",
            cursor=out.cursor if out else self.begin,
        )

    def last_line(self) -> str:
        """What it has said last."""
        return paging.tail(self.path, lines=1, max_chars=CHARS).text.strip()

    def over(self) -> WaitResult:
        """The result when the bound has passed."""
        self.job = self.host.look(self.job_id)
        prompt = prompts.prompt(self.host, self.job) if self.job.runs else None
        asks = self.asks(prompt) if prompt is not None else None
        return WaitResult("timeout", asks.detail if asks else self.job.detail, prompt)


def _left(deadline: float) -> float:
    """Seconds for one look at a log, so that the end of a job and other conditions are seen meanwhile."""
    return max(0.0, min(SEEK_S, deadline - time.monotonic()))
