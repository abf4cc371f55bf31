"""The wait for one job: its conditions, and whether one of them is met."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tmuxjobs.answers import WaitedJob
from tmuxjobs.arguments import CHARS, UNTIL, Until, checked_seconds
from tmuxjobs.errors import InvalidInput
from tmuxjobs.hosts.local import Host
from tmuxjobs.job_answers import name_processes
from tmuxjobs.models import Seen, asking
from tmuxjobs.outcome import seconds
from tmuxjobs.outcome import waiting as words
from tmuxjobs.states import Paused, Running
from tmuxjobs.store.journal import is_echo
from tmuxjobs.system import probes
from tmuxjobs.system.watch import Watch
from tmuxjobs.text import matching, paging, patterns
from tmuxjobs.text.log import log_size
from tmuxjobs.verbs import attempts, output, prompts, queue
from tmuxjobs.verbs.prompts import QUIET_S, Prompt

CHARS_MAX = 400_000
NOTE_CHARS = 100
AROUND = 3
"""Lines shown before a match that is not among the newest output."""
IDLE_S = 2.0
RECHECK_S = 10.0
UNWATCHED_S = 0.1
"""Seconds between two checks without an event, in case the kernel reported none; and where nothing can be watched."""
PROBE_S = 0.015
SEEK_S = 5.0
SETTLED_S = 0.25
"""Seconds of silence after which a program that reads is taken to ask, though its last line is not open."""
SETTLE_S = 0.5
"""Seconds of silence after which a wait for the end reports that the job waits for input."""
LOOKS_S = 8.0
"""Silence (s) after which no prompt is expected any more; the checks for one come at SETTLE_S and each doubling."""
COST = 20
"""CPU budget for checks of the machine: 1/20 of a core."""


@dataclass(frozen=True)
class Goal:
    """What ends the wait; the end of the job always does."""

    input: bool = False
    pattern: str | None = None
    fail_pattern: str | None = None
    literal: bool = False
    redraws: bool = False
    idle_s: float | None = None
    port: int | None = None
    """0 for any."""
    url: str | None = None
    ready: bool = False

    @property
    def only_exit(self) -> bool:
        return self == Goal(literal=self.literal, redraws=self.redraws)


def goal(
    until: Until | None = None,
    *,
    pattern: str | None = None,
    fail_pattern: str | None = None,
    literal: bool = False,
    redraws: bool = False,
    idle: float | None = None,
    port: int | None = None,
    url: str | None = None,
) -> Goal:
    """The conditions, checked; each that is given ends the wait. Raises InvalidInput."""
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
        patterns.of_lines(given, literal=literal)
    if "" in (pattern, fail_pattern):
        raise InvalidInput("The pattern is empty.")
    return Goal(until == "input", pattern, fail_pattern, literal, redraws, idle, port, url, until == "ready")


@dataclass(frozen=True)
class WaitResult:
    """Why a job's wait is over: `reason` is one word, `detail` explains it."""

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
        if goal.ready and not self.job.spec.ready_when:
            raise InvalidInput(f"Job '{job_id}' was started without `ready_when`, so nothing says when it is ready.")
        self.tells_pause = False
        self.result: WaitResult | None = None
        self.pause_s = RECHECK_S
        self._asked_at = -1
        self._look_after = SETTLE_S
        self._size = -1
        self._looked_at = self._quiet_from = 0.0
        self.seen = asking.get() or Seen()
        self.heard = ""
        """What answered at the URL, when it is not what the wait is for."""
        self._fails_since: float | None = None
        self._run_mtime = 0
        self._background_at: float | None = None
        size = log_size(self.path)
        self.printed = size if begin is None else begin
        if cursor is not None and not 0 <= cursor <= size:
            raise InvalidInput(f"Cursor {cursor} is not in the output, which has {size} bytes; wait on from {size}.")
        out, err = self.seen.of(job_id)
        self.begin = cursor if cursor is not None else min(out, size) if begin is None else begin
        starts = {self.path: self.begin}
        if self.job.stderr:
            starts[self.job.stderr] = min(err, log_size(self.job.stderr)) if self.begin else 0
        self.paths = list(starts)
        self._good = self._watchers(goal.pattern, starts)
        self._bad = self._watchers(goal.fail_pattern, starts)

    def _watchers(self, pattern: str | None, starts: dict[Path, int]) -> list[matching.Watcher]:
        if pattern is None:
            return []
        literal, redraws = self.goal.literal, self.goal.redraws
        return [
            matching.Watcher(path, pattern, literal=literal, start=at, redraws=redraws) for path, at in starts.items()
        ]

    def check(self, watch: Watch, *, deadline: float = math.inf) -> WaitResult | None:
        """The result if the wait is over; otherwise `pause_s` is when to check again without an event.

        Patterns are searched until *deadline* (monotonic), or a little longer so that each check makes progress.
        """
        if self.result is not None:
            return self.result
        began = time.monotonic()
        self.pause_s = RECHECK_S if watch.active else UNWATCHED_S
        watch.logs = True
        # The state comes first: what is read after the end of a job is complete.
        self.settle()
        running = self.job.running
        self.result = self._patterns(deadline) or self._served(running)
        if self.result is None and not running:
            first = "" if self.goal.only_exit else "the job ended first: "
            self.result = WaitResult("exit", "; ".join(filter(None, (first + self.job.detail, self.heard))))
        if self.result is None and self.goal.only_exit:
            self.result = self._background()
        if self.result is None and self.tells_pause:
            self.result = self._paused()
        if self.result is None and not self.job.queued and not self.job.awaits_approval:
            self.result = self._quiet(watch)
        if self.goal.port is not None or self.goal.url is not None:
            self.pause_s = min(self.pause_s, max(PROBE_S, COST * (time.monotonic() - began)))
        return self.result

    def settle(self) -> None:
        run = self.job.run
        if queue.waits(self.job):
            return
        if (
            run is None
            or run.command_pid is None
            or os.path.lexists(self.path.with_name("exit.json"))
            or not self.host.lives(self.job.record)
            or self._run_mtime != self._changed_run()
        ):
            self._run_mtime = self._changed_run()
            self.job = self.host.look(self.job_id)

    def _changed_run(self) -> int:
        """When its runner last wrote the job's state (mtime in ns), such as that its command has ended."""
        try:
            return self.path.with_name("run.json").stat().st_mtime_ns
        except OSError:
            return 0

    def _background(self) -> WaitResult | None:
        """The result when the command has ended and part of it still runs; a client gets it once."""
        state = self.job.state
        if not isinstance(state, Running) or state.command_ended is None or state.awaits_tmux:
            return None
        if self.seen.is_reported(self.job_id, "command_ended"):
            return None
        # Processes that end along with the command get a moment to do so.
        self._background_at = self._background_at or time.monotonic()
        left_s = self._background_at + SETTLE_S - time.monotonic()
        left = self.host.left_running(self.job)
        if left_s > 0 or not left:
            self.pause_s = min(self.pause_s, max(left_s, PROBE_S))
            return None
        self.seen.tell(self.job_id, "command_ended")
        said = f"the command ended with {state.command_ended}; still running: {name_processes(left)}"
        return WaitResult("command_ended", f"{said}; `kill` ends it, another `wait` waits until it ends")

    def _paused(self) -> WaitResult | None:
        """The result when the job is paused; a client gets it once for each pause."""
        if self.job.run is None or not self.job.run.paused or not isinstance(self.job.state, Paused):
            return None
        what = f"paused {self._changed_run()}"  # written when the job is paused, and not again until it goes on
        if self.seen.is_reported(self.job_id, what):
            return None
        self.seen.tell(self.job_id, what)
        goes_on = "`resume`, or `kill` with signal CONT and end=false, lets it go on; another `wait` waits on"
        return WaitResult("paused", f"it neither works nor prints; {goes_on}")

    def _patterns(self, deadline: float) -> WaitResult | None:
        found: list[tuple[int, str, matching.Match, Path]] = []
        for reason, watchers in (("fail_pattern", self._bad), ("pattern", self._good)):
            for watcher in watchers:
                try:
                    match = watcher.next_match(timeout=_left(deadline), final=not self.job.running)
                    while match is not None and is_echo(self.path.parent, match.cursor, match.text):
                        match = watcher.next_match(timeout=_left(deadline), final=not self.job.running)
                except TimeoutError:
                    self.pause_s = 0.0
                    continue
                if watcher.stands_in_s is not None:
                    self.pause_s = min(self.pause_s, watcher.stands_in_s + 0.001)
                if match is not None:
                    found.append((match.cursor, reason, match, watcher.path))
        if not found:
            return None
        _, reason, match, path = min(found, key=lambda one: one[0])
        where = place(match)
        if self.cursor is None and path == self.path and match.cursor + len(match.bare.encode()) <= self.printed:
            where = f"already printed, {where}"
        return WaitResult(reason, f"{where}: {match.text}", match=match, path=path)

    @property
    def behind(self) -> int | None:
        """How far the output was searched, when there was no time for all of it."""
        behind = [watcher.behind for watcher in (*self._good, *self._bad) if watcher.path == self.path]
        return min((at for at in behind if at is not None), default=None)

    def _served(self, running: bool) -> WaitResult | None:
        root = self.job.record.root
        if self.goal.port is not None and running and root is not None:
            for port, name in sorted(self.host.machine.listening(root, self.goal.port).items()):
                return WaitResult("port", f"{name} listens on port {port}")
        if self.goal.ready and running and (one := attempts.readiness(self.job)) and (one.ready or one.failed):
            return WaitResult("ready" if one.ready else "not_ready", one.why)
        if self.goal.url is not None:
            return self._answered(self.goal.url, root if running else None)
        return None

    def _answered(self, url: str, root: int | None) -> WaitResult | None:
        """The result if the job itself answers at that URL; another's answer, or a server's error, goes to `heard`."""
        answer = self.host.machine.answers(url, root)
        if answer is None:
            self._fails_since = None
            return None
        said = f"{url} answers {answer.code}"
        if answer.stranger is not None:
            self.heard = f"{said}, but from {self._named(answer.stranger)}, not from this job"
        elif answer.code < 500:
            return WaitResult("url", said)
        else:
            self.heard = said
            self._fails_since = self._fails_since or time.monotonic()
            if time.monotonic() - self._fails_since >= self.host.timing.url_errors:
                return WaitResult("url_error", f"{said} for {self.host.timing.url_errors:g} s")
        return None

    def _named(self, stranger: probes.Stranger) -> str:
        roots = {record.root: record.id for record in self.host.store.unfinished() if record.root is not None}
        job_id = next((roots[pid] for pid in stranger.line if pid in roots), None)
        return f"job {job_id}" if job_id is not None else stranger.name

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
            if (result := self.asks(settled=quiet >= SETTLED_S)) is not None:
                return result
            cost = COST * (time.monotonic() - began)
            settling = QUIET_S + 0.001 - quiet
            self.pause_s = min(self.pause_s, settling if settling > 0 else max(PROBE_S, cost, min(1.0, quiet)))
        elif self.goal.only_exit and size != self._asked_at:
            return self._asks_at_the_end(watch, size, quiet)
        return None

    def _asks_at_the_end(self, watch: Watch, size: int, quiet: float) -> WaitResult | None:
        """Check for a prompt a few times after each burst of output, so that a hundred silent jobs cost nothing.

        A client gets each prompt once; after that it waits for the end, or for the next prompt.
        """
        if quiet < self._look_after:
            self._look_after = SETTLE_S if quiet < SETTLE_S else self._look_after
            watch.logs = False
            self.pause_s = min(self.pause_s, self._look_after - quiet + 0.001)
            return None
        is_told = self.seen.is_reported(self.job_id, prompts.question(self.size()))
        result = self.asks() if not is_told else None
        self._look_after *= 2
        if result is None and not is_told and self._look_after <= LOOKS_S:
            self.pause_s = min(self.pause_s, self._look_after - quiet + 0.001)
            return None
        self._asked_at, self._look_after = size, SETTLE_S
        return result

    def size(self) -> int:
        """How much it has printed."""
        return sum(map(log_size, self.paths))

    def _quiet_s(self, size: int, written_at: float) -> float:
        """Seconds since the last output. The wall clock jumps, so it is used only for output since the last check."""
        now = time.monotonic()
        if size != self._size:
            since = self.job.record.started_monotonic if self._size < 0 else self._looked_at
            self._quiet_from = now - min(max(0.0, time.time() - written_at), now - since)
            self._size = size
        self._looked_at = now
        return now - self._quiet_from

    def asks(self, *, settled: bool = True) -> WaitResult | None:
        """What it waits for, if it does; the client knows it by then. Unless `settled`, only with an open line."""
        what = prompts.question(self.size())
        prompt = prompts.prompt(self.host, self.job)
        if prompt is None or not (settled or any(map(paging.last_line, self.paths))):
            return None  # what it printed before it began to read may reach the log later
        self.seen.tell(self.job_id, what)
        attach = self.host.attach_line(self.job)
        said = words(prompt.waits_for, prompt.text, attach, full_screen=prompt.full_screen)
        return WaitResult("input", f"it {said}", prompt)

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
            # The match was there only for a moment, or is in a line longer than all that is shown.
            page = paging.ends(path, cursor=match.cursor, max_chars=max(1, room - len(match.text)), final=final)
            page = replace(page, text=f"{match.text}\n{page.text}")
        if cursor is not None and cursor < page.start:
            skipped = f"[... {page.start - cursor:,} bytes left out; cursor {cursor} reads them ...]"
            page = replace(page, text=f"{skipped}\n{page.text}")
        return page

    def summary(self, budget: int) -> WaitedJob:
        """The job's state, for a wait for several; with the output since `begin` while its own wait is not over."""
        cursor = None if self.result is not None else self.begin
        out: paging.Page | None = self.news(self.path, cursor, max(budget, paging.CHARS_MIN))
        err = None
        notes = [self.result.detail] if self.result is not None else []
        notes += output.log_notes(self.job)
        if out is not None and len(out.text) > budget:
            out = None
            notes.append("its output is left out here: read it by `output`")
        elif out is not None and self.job.stderr:
            err = self.news(self.paths[1], None, max(0, budget - len(out.text)))
        if out is not None:
            self.seen.note(self.job_id, out.cursor, err.cursor if err else None)
        return WaitedJob(
            job_id=self.job_id,
            reason=self.result.reason if self.result else None,
            status=self.job.status,
            exit_code=self.exit_code,
            note="; ".join(notes),
            stdout=out.text if out else "",
            stderr=err.text if err else "",
            cursor=out.cursor if out else self.begin,
        )

    @property
    def exit_code(self) -> int | None:
        """The job's exit code, or its command's when that ended the wait."""
        if self.job.exit is not None:
            return self.job.exit.exit_code
        background = self.result is not None and self.result.reason == "command_ended"
        return self.job.state.code if background and isinstance(self.job.state, Running) else None

    @property
    def failed(self) -> bool:
        """Whether the condition was not met, or the job did not end as it should."""
        reason = self.result.reason if self.result is not None else ""
        if reason in ("exit", "command_ended"):
            wrong = self.job.running and self.exit_code not in self.job.spec.success_codes
            return wrong or not self.goal.only_exit or self.job.status not in ("completed", "running", "paused")
        return reason in ("fail_pattern", "url_error", "not_ready")

    def last_line(self) -> str:
        """The last line that the job printed."""
        return paging.tail(self.path, lines=1, max_chars=CHARS).text.strip()

    def over(self) -> WaitResult:
        """The result when the bound has passed."""
        self.job = self.host.look(self.job_id)
        asks = self.asks() if self.job.runs else None
        how = queue.said(self.host, self.job) or self.job.detail.removeprefix("running")
        detail = asks.detail if asks else how
        said = "; ".join(filter(None, (detail, self.heard)))
        return WaitResult("timeout", said, asks.prompt if asks else None)


def place(match: matching.Match) -> str:
    """Its line, where its number is known, else its cursor."""
    return f"line {match.line}" if match.line and match.line_is_exact else f"at cursor {match.cursor}"


def _left(deadline: float) -> float:
    """Time for one search of a log, in s: short enough that the job's end and other conditions are noticed."""
    return max(0.0, min(SEEK_S, deadline - time.monotonic()))
