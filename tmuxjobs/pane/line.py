"""The waiting jobs at one moment: their order, why each waits, and whose turn it is. Stdlib only."""

from __future__ import annotations

import math
import os
import time

from tmuxjobs import files
from tmuxjobs.contract import LAUNCH_S
from tmuxjobs.files import write_json
from tmuxjobs.lean import suppress
from tmuxjobs.outcome import End, standing
from tmuxjobs.pane import queue
from tmuxjobs.system import processes

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

LINE_CHECK_S = 1.0
"""Seconds between checks while jobs wait for running ones: a runner that is killed notifies nobody."""
RETRY_S = 2.0
"""Seconds until a turn that came to nothing is tried again; doubles each time, up to LAUNCH_S."""


class Failed(Exception):
    """A job that it comes after ended in such a way that its turn can never come."""


def groups(state: str) -> dict[str, dict[str, Any]]:
    """{group: {limit, paused, stopped}} as a person has set them, in `groups.json`."""
    found = queue.record(state, "groups.json", files.GROUPS) or {}
    return {name: facts for name, facts in found.get("groups", {}).items() if isinstance(facts, dict)}


def run(count: int) -> str:
    return f"{count} job runs" if count == 1 else f"{count} jobs run"


class Line:
    """The waiting jobs in their order, and what runs, at one moment."""

    def __init__(self, state: str, *, anew: bool = False) -> None:
        """With `anew` the entries are read again: what to do is decided only with it, under the lock."""
        self.state = state
        self.now = time.time()
        self.here = processes.here()
        self.entries = queue.waiting(state, anew=anew)
        self.kinds: dict[tuple[Any, ...], list[queue.Entry]] = {}
        for entry in self.entries:
            self.kinds.setdefault(entry.kind, []).append(entry)
        self.groups = groups(state) if self.entries else {}
        self.projects: dict[str, int] = {}
        self.members: dict[str, int] = {}
        self.running = 0
        self.taken: set[str] = set()
        self.passed: set[str] = set()
        """Ids of jobs that could not be given their turn."""
        self.known: dict[str, str | Failed] = {}
        self.look_s = math.inf
        """Seconds until another job may start unannounced: by the clock, or after the death of a runner."""
        if self.entries:
            self.count()

    def count(self) -> None:
        """Count the jobs that have a slot, running or about to, by their records and processes, not by a counter."""
        marks = os.path.join(self.state, "open", self.here.machine)
        for job_id in os.listdir(marks) if os.path.isdir(marks) else ():
            folder = queue.folder_of(self.state, job_id)
            if not os.path.lexists(os.path.join(folder, "exit.json")):
                job = queue.record(folder, "job.json", files.JOB)
                if job is not None and self.has_slot(folder, job):
                    self.take(job)
        if self.running:
            self.look_s = LINE_CHECK_S

    def has_slot(self, folder: str, job: dict[str, Any]) -> bool:
        if job.get("queue") and not os.path.lexists(os.path.join(folder, "run.json")):
            return queue.has_turn(folder)
        return self.stands(folder, job) in ("starting", "running")

    def stands(self, folder: str, job: dict[str, Any]) -> str:
        run = queue.record(folder, "run.json", files.RUN)
        return standing(
            self.here,
            machine=job.get("machine") or "",
            boot=run.get("boot") or job["boot"] if run is not None else job["boot"],
            namespace=(run.get("namespace") or "") if run is not None else None,
            age_s=math.inf if run is None and queue.cut_off(folder) else time.monotonic() - job["created_monotonic"],
            runner_alive=run is not None and processes.is_alive(run["pid"], run["start"]),
        )

    def take(self, job: dict[str, Any]) -> None:
        project, group = queue.project_of(job), (job.get("queue") or {}).get("group", "")
        self.running += 1
        self.taken.add(job["job_id"])
        self.projects[project] = self.projects.get(project, 0) + 1
        if group:
            self.members[group] = self.members.get(group, 0) + 1

    def before(self, entry: queue.Entry) -> str:
        """The job it comes after and still waits for, in words, empty if none; raises Failed."""
        if not entry.befores:
            return ""
        said = [self.came(one) for one in queue.befores(self.state, entry)]
        return next(filter(None, said), "")

    def came(self, one: str) -> str:
        """Empty once the other job has reached what is needed, else why not; raises Failed when it no longer can."""
        if one not in self.known:
            try:
                self.known[one] = self.looked(*one.partition(":")[::2])
            except Failed as failed:
                self.known[one] = failed
        said = self.known[one]
        if isinstance(said, Failed):
            raise said
        return said

    def looked(self, job_id: str, need: str) -> str:
        folder = queue.folder_of(self.state, job_id)
        job = queue.record(folder, "job.json", files.JOB)
        # Check first whether it lives, so that all that it wrote before its end is read after that.
        stands = self.stands(folder, job) if job is not None else ""
        ready = (queue.record(folder, "ready.json", files.READY) or {}) if need == "ready" else {}
        if ready.get("ready"):
            return ""
        ended = queue.record(folder, "exit.json", files.EXIT)
        if ended is not None:
            end = End(ended)
            if need == "any" or (need == "" and end.state == "completed"):
                return ""
            raise Failed(f"{job_id} {'ended before it was ready' if end.state == 'completed' else end.said}")
        if ready.get("failed"):
            raise Failed(f"{job_id} was not ready in time" + (f": {ready['why']}" if ready.get("why") else ""))
        if job is not None and job.get("queue") and not os.path.lexists(os.path.join(folder, "run.json")):
            return f"after {job_id}, which waits too"
        if stands in ("starting", "running", "other-machine"):
            self.look_s = LINE_CHECK_S
            return f"after {job_id}, which runs" + " and is not ready yet" * (need == "ready")
        if need == "any":
            return ""
        raise Failed(f"{job_id} was {'lost' if job is not None else 'removed, so nobody knows how it ended'}")

    def may_start(self, entry: queue.Entry) -> bool:
        """Whether it may start once there is room."""
        if entry.not_before > self.now:
            self.look_s = min(self.look_s, entry.not_before - self.now)
            return False
        try:
            return not self.before(entry)
        except Failed:  # it is skipped by the next pass
            return False

    def full(self, entry: queue.Entry) -> str:
        """Why no job with its limits may start now; empty if one may."""
        group = self.groups.get(entry.group, {})
        if group.get("paused"):
            return f"group {entry.group} is paused"
        limit, members = int(group.get("limit", entry.limit) or 0), self.members.get(entry.group, 0)
        if entry.group and limit and members >= limit:
            return f"{run(members)} in group {entry.group}, and its limit is {limit}"
        if self.projects.get(entry.project, 0) >= entry.most:
            return f"{run(self.projects[entry.project])} in its project, and TMUXJOBS_MAX_JOBS is {entry.most}"
        if self.running >= entry.total:
            return f"{run(self.running)} on this machine, and TMUXJOBS_MAX_JOBS_TOTAL is {entry.total}"
        return ""

    def gave_back(self, entry: queue.Entry) -> str:
        """Why its last turn failed; empty once it may be tried again."""
        turn = queue.record(queue.folder_of(self.state, entry.job_id), "turn.json", files.TURN)
        if turn is None or not turn.get("why"):
            return ""
        pause_s = min(LAUNCH_S, RETRY_S * 2 ** min(10, turn.get("tries", 1) - 1))
        if not queue.is_fresh(turn, pause_s):
            return ""
        self.look_s = min(self.look_s, RETRY_S)
        return f"{turn['why']}; it is tried again"

    def why(self, entry: queue.Entry) -> str:
        """Why it waits, in words."""
        try:
            if said := self.before(entry):
                return said
            if entry.not_before > self.now:
                return f"not before {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(entry.not_before))}"
            return self.full(entry) or self.gave_back(entry) or "its turn comes now"
        except Failed as failed:
            return str(failed)

    def skip_failed(self) -> list[str]:
        """End jobs whose turn can never come, and those after them; returns their ids. Call it under the lock."""
        skipped = []
        # No job comes after one with a higher number, so one pass is enough.
        for entry in sorted((one for one in self.entries if one.befores), key=lambda one: one.number):
            try:
                self.before(entry)
            except Failed as why:
                if queue.end(self.state, entry.job_id, "skipped", error=str(why)):
                    skipped.append(entry.job_id)
                self.drop(entry)
        return skipped

    def places(self) -> dict[str, tuple[int, queue.Entry]]:
        """{id: (place, entry)} of the jobs that wait, in their order; places count from 1."""
        waiting = (one for one in self.entries if one.job_id not in self.taken)
        return {entry.job_id: (place, entry) for place, entry in enumerate(waiting, 1)}

    def asks_for_a_move(self) -> bool:
        """Whether a job may start, or never may; to be checked again under the lock."""
        try:
            for entry in self.entries:
                self.before(entry)
        except Failed:
            return True
        while (first := self.first()) is not None:
            if not self.gave_back(first):
                return True
            self.passed.add(first.job_id)
        return False

    def first(self) -> queue.Entry | None:
        """The next one by what the entries say: priority, then the project with the fewest running jobs, then number.

        Call it after `skip_failed`.
        """
        firsts: list[queue.Entry | None] = []
        for of_kind in filter(None, self.kinds.values()):
            if not self.full(of_kind[0]):
                free = (one for one in of_kind if one.job_id not in self.taken and one.job_id not in self.passed)
                firsts += [next(filter(self.may_start, free), None)]
        return min(
            filter(None, firsts),
            key=lambda one: (-one.priority, self.projects.get(one.project, 0), one.number),
            default=None,
        )

    def next(self) -> tuple[queue.Entry, dict[str, Any]] | None:
        """The entry whose turn it is; call it under the lock, after `skip_failed`."""
        while (entry := self.first()) is not None:
            folder = queue.folder_of(self.state, entry.job_id)
            job = queue.record(folder, "job.json", files.JOB)
            if job is None or not job.get("queue") or queue.is_over(folder):
                self.drop(entry)
            elif queue.entry_name(job) != entry.name:  # the process that changed it was killed
                queue.enter(self.state, job)
                self.drop(entry)
                self.add(queue.Entry(queue.entry_name(job)))
            elif not queue.has_turn(folder) and not self.gave_back(entry):
                return entry, job
            else:
                self.passed.add(entry.job_id)
        return None

    def add(self, entry: queue.Entry) -> None:
        for some in (self.entries, self.kinds.setdefault(entry.kind, [])):
            some.append(entry)
            some.sort(key=lambda one: one.order)

    def drop(self, entry: queue.Entry) -> None:
        self.entries.remove(entry)
        self.kinds[entry.kind].remove(entry)
        queue.remove(self.state, entry.name)


def claim(folder: str, run: dict[str, Any]) -> bool:
    """For the runner: write `run.json` unless the job has been claimed or has ended; True when the job is ours.

    The process that opened our window may have been killed since, and another job may have taken our room.
    """
    state, job_id = os.path.dirname(os.path.dirname(folder)), os.path.basename(folder)
    with suppress(OSError), queue.Locked(state):
        if queue.is_over(folder):
            return False
        if not queue.has_turn(folder):
            line = Line(state, anew=True)
            if any(line.full(entry) for entry in line.entries if entry.job_id == job_id):
                return False
        write_json(os.path.join(folder, "run.json"), run)
        return True
    return False
