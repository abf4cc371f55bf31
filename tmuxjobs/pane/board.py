"""The jobs as the welcome page shows them: the state of each, and which wait for input.

It reads the job folders, and checks each running job once a tick; no other part relies on what it finds.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time

from tmuxjobs import files
from tmuxjobs.contract import OPEN
from tmuxjobs.outcome import End, Here, seconds, standing
from tmuxjobs.pane import queue
from tmuxjobs.pane.window import Place, read_record
from tmuxjobs.system import processes, terminals
from tmuxjobs.system.processes import is_alive
from tmuxjobs.visible import visible

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

QUIET_S = 1.0
SURE_S = 6.0
"""Who reads and then does not ask does not begin to: whatever works beside it has printed nothing for as long."""
COST, NOTICE_COST = 400, 20
"""CPU budget: 1/400 of a core for checking who reads a terminal, 1/20 for runs of `verbs/prompts.py`."""


@contextlib.contextmanager
def apart(job: Job) -> Iterator[None]:
    """Show a fault with one job, even a bug, in its row; the page survives and shows the others."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        job.fault = f"not readable: {type(error).__name__}"


class Job:
    """What the page shows of a job."""

    def __init__(self, folder: str, asked: dict[str, Any]) -> None:
        self.folder = folder
        self.job_id: str = asked["job_id"]
        self.number: int = asked["number"]
        self.command = " ".join(asked["command"].split())
        self.state = "running"
        self.detail = self.fault = ""
        self.since: float = asked["created_monotonic"]
        self.boot: str = asked["boot"]
        self.machine: str = asked.get("machine") or ""
        self.host: str = asked.get("host") or ""
        self.project: str = (asked.get("caller") or {}).get("project") or ""
        self.is_adopted = bool(asked.get("adopted"))
        self.is_marked_lost = self.is_elsewhere = False
        self.run: dict[str, Any] | None = None
        self.asks: tuple[str, str] | None = None
        """What it waits for, and at which prompt."""
        self.needs_approval = bool(asked.get("ask_why"))
        self.may_wait = bool(asked.get("queue"))
        self.run_at = -1
        self.is_watched = bool(asked.get("ready_when"))
        self.ready: dict[str, Any] | None = None
        self.size = self.noticed_size = -1
        self.quiet_s = 0.0
        self.misses = 0
        self.open_line = False

    def derive(self, here: Here) -> None:
        """Update the job's state; nothing is read again once it has ended."""
        if self.state not in OPEN:
            return
        self.state = "running"
        record = read_record(self.folder, "exit.json", files.EXIT)
        if record is not None:
            end = End(record)
            self.state, self.detail = end.state, end.detail
            return
        if self.is_watched:
            self.ready = read_record(self.folder, "ready.json", files.READY)
        changed = self.changed_run()
        if changed != self.run_at:
            self.run_at = changed
            self.run = read_record(self.folder, "run.json", files.RUN) or self.run
            self.needs_approval &= not (self.run or {}).get("approved")
        if self.run is not None:
            # An adopted job began to run before it was adopted.
            self.since = self.run.get("started_monotonic") or self.since
        if self.run is not None and self.run.get("paused"):
            self.state = "paused"
        if self.run is None and self.may_wait:
            return  # its turn has come, and its window opens
        stands = standing(
            here,
            machine=self.machine,
            boot=self.run.get("boot") or self.boot if self.run is not None else self.boot,
            namespace=(self.run.get("namespace") or "") if self.run is not None else None,
            age_s=math.inf if self.run is None and queue.cut_off(self.folder) else time.monotonic() - self.since,
            runner_alive=self.run is not None and is_alive(self.run["pid"], self.run["start"]),
        )
        self.is_elsewhere = stands == "other-machine"
        if stands not in ("other-machine", "starting", "running"):
            # Its runner's last act is the exit record, which may have come between the two checks.
            if read_record(self.folder, "exit.json", files.EXIT) is None:
                self.state, self.detail = "lost", "end not known"
            else:
                self.derive(here)

    def changed_run(self) -> int:
        try:
            return os.stat(os.path.join(self.folder, "run.json")).st_mtime_ns
        except OSError:
            return -1

    @property
    def waits(self) -> bool:
        """Whether it waits for a person: for input, or for approval before it runs."""
        return self.asks is not None or (self.needs_approval and self.run is not None)

    def summary(self) -> str:
        if self.fault:
            return self.fault
        if self.is_elsewhere and self.state == "running":
            return f"running on {visible(self.host)}"
        if self.state != "running":
            return f"{self.state} {self.detail}".rstrip()
        if self.waits:
            return f"waits for {self.asks[0] if self.asks else 'approval'}"
        if self.run is not None and self.run.get("again_at") is not None:
            return f"runs again ({self.run.get('attempt') or 1})"
        word = "running" if self.ready is None else "ready" if self.ready["ready"] else "not ready"
        # Coarse: an hour that grows by a second must not redraw the page.
        return f"{word} {seconds(time.monotonic() - self.since, coarse=True)}"

    def order(self) -> tuple[int, bool, int]:
        """The sort key: jobs that wait for a person first, then running, paused, queued and ended ones.

        Within each group the newest comes first, but among queued jobs the oldest.
        """
        place = OPEN.index(self.state) if self.state in OPEN else len(OPEN)
        return place, not self.waits, self.number if self.state == "queued" else -self.number

    def is_quiet(self) -> bool:
        """Whether it runs and has printed nothing for QUIET_S; notes the logs' size, and whether a line is open."""
        if self.state != "running" or self.run is None or self.is_elsewhere or self.needs_approval:
            return False
        self.size, self.open_line, written = 0, False, 0.0
        for name in ("output.log", "stderr.log"):
            with contextlib.suppress(OSError, files.Odd):
                log = files.opened(os.path.join(self.folder, name))
                facts = os.fstat(log)
                self.size += facts.st_size
                written = max(written, facts.st_mtime)
                self.open_line |= os.pread(log, 1, max(0, facts.st_size - 1)) not in (b"\n", b"")
                os.close(log)
        self.quiet_s = time.time() - written
        return self.quiet_s >= QUIET_S


PAGE_JOBS = 200
"""Jobs that have ended stay on the page while it has no more than this many."""


class Board:
    """The jobs of a state directory, kept up to date with one `stat` of it and one check of each running job."""

    def __init__(self, state_dir: str) -> None:
        self.state_dir = state_dir
        self.folder = os.path.join(state_dir, "jobs")
        self.here = processes.here()
        self.changed = -1
        self.jobs: dict[str, Job] = {}
        self.older: set[str] = set()
        """Jobs that have ended and are no longer shown."""

    def refresh(self) -> list[Job]:
        """Update the jobs and return them in the order of the page."""
        with contextlib.suppress(OSError):  # removed by hand: what was known is shown
            changed = os.stat(self.folder).st_mtime_ns
            if changed != self.changed:
                names = [name for name in os.listdir(self.folder) if not name.startswith(".")]
                there = set(names)
                self.jobs = {name: job for name, job in self.jobs.items() if name in there}
                self.older &= there
                unread = [name for name in names if not self.knows(name) and not self.add(name)]
                # A folder without a record is still being made: read it again.
                self.changed = -1 if unread and time.time_ns() - changed < 60e9 else changed
        waiting = queue.ids(self.state_dir)
        for job in self.jobs.values():
            job.fault = ""
            if job.job_id in waiting and job.state in OPEN:
                job.state = "queued"
                continue
            with apart(job):
                job.derive(self.here)
        shown = sorted(self.jobs.values(), key=Job.order)
        while len(shown) > PAGE_JOBS and shown[-1].state not in OPEN:
            self.older.add(os.path.basename(shown[-1].folder))
            del self.jobs[os.path.basename(shown.pop().folder)]
        return shown

    def knows(self, name: str) -> bool:
        return name in self.jobs or name in self.older

    def add(self, name: str) -> bool:
        folder = os.path.join(self.folder, name)
        asked = read_record(folder, "job.json", files.JOB)
        if asked is None or asked["job_id"] != name:
            return False
        self.jobs[name] = Job(folder, asked)
        return True


class Ear:
    """Notices which jobs wait for input: a silent job whose terminal is being read gets a closer check.

    That check is another process, run once for each piece of output, which marks the windows as a server does.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.look_at = self.notice_at = 0.0

    def refresh(self, jobs: Iterable[Job]) -> None:
        """Learn what each of these jobs waits for; cheap when nothing has changed."""
        now = time.monotonic()
        if now < self.look_at:
            return
        began = time.process_time()
        quiet = {}
        for job in jobs:
            with apart(job):
                if job.is_quiet() and job.run is not None:
                    quiet[job.run["tty"]] = job
        reading = self.reading(quiet)
        self.look_at = now + COST * (time.process_time() - began)
        for job in jobs:
            job.misses = 0 if job in reading else job.misses + 1
            # A polling program may be caught awake; it still waits if it has printed nothing and soon polls again.
            if job.asks and (job.misses > 1 or (job.misses and job.size != job.noticed_size)):
                job.asks, job.noticed_size = None, -1
                self.place.tmux("set-option", "-w", "-t", job.run["pane"] if job.run else "", "@tmuxjobs_input", "")
        if now >= self.notice_at and any(job.size != job.noticed_size for job in reading):
            before = sum(os.times()[2:4])
            said = self.place.command(kind="notice")[0]
            with contextlib.suppress(ValueError):  # the next caller reports what went wrong
                asking = json.loads(said)  # from our own command
                for job in jobs:
                    job.asks = tuple(asking[job.job_id]) if job.job_id in asking else None
            for job in jobs:
                is_known = job.asks or (job in reading and job.quiet_s >= SURE_S)
                job.noticed_size = job.size if is_known else -1
            self.notice_at = now + NOTICE_COST * (sum(os.times()[2:4]) - before)

    def reading(self, quiet: dict[str, Job]) -> list[Job]:
        found = []
        runners = {tty: int(job.run["pid"]) for tty, job in quiet.items() if job.run is not None}
        for tty, front in terminals.fronts(runners, pause_s=0).items():
            settings = terminals.terminal(front.tty)
            # Worth a closer check by `verbs/prompts.py`: one that polls asks at an open line, or draws its question.
            if (
                front.attention == "reads"
                or (front.attention == "polls" and (quiet[tty].open_line or (settings and not settings.cooked)))
                or (front.attention == "unknown" and settings is not None and settings.hides)
            ):
                found.append(quiet[tty])
        return found
