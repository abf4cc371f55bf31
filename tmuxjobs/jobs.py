"""Class Jobs: what is so now, derived from disk and machine at every call; the verbs' homes are named in its body.

A verb is a method here, a tool in `server.py`, a command in `cli.py`. Holds no state of its own.
"""

import builtins
import contextlib
import math
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from tmuxjobs import (
    adopting,
    asking,
    doctor,
    ending,
    holding,
    interacting,
    keeping,
    noticing,
    processes,
    reading,
    restarting,
    searching,
    showing,
    starting,
    stopping,
    waiting,
)
from tmuxjobs.errors import InvalidInput, TmuxError, apart
from tmuxjobs.journal import Journal
from tmuxjobs.log import log_size
from tmuxjobs.models import (
    STATUSES,
    Lost,
    Record,
    Running,
    RunRecord,
    State,
    Status,
    derive_state,
    describe,
    status_of,
)
from tmuxjobs.results import JobList, JobStatus, JobSummary
from tmuxjobs.settings import Settings
from tmuxjobs.store import Store
from tmuxjobs.tmux import Tmux


class Jobs:
    """All jobs of one state directory, in one session of one tmux server."""

    execute = starting.execute
    adopt = adopting.adopt
    adoptable = adopting.adoptable
    output = reading.output
    tail = reading.tail
    search = searching.search
    screen = showing.screen
    interact = interacting.interact
    kill = stopping.kill
    notice_prompts = noticing.notice_prompts
    hold = holding.hold
    release = holding.release
    refuse_if_held = holding.refuse_if_held
    restart = restarting.restart
    wait = waiting.wait
    wait_async = waiting.wait_async
    prune = keeping.prune
    doctor = doctor.doctor
    prune_windows = keeping.prune_windows
    prompt = asking.prompt
    journal_since = ending.journal

    def __init__(self, settings: Settings, *, environ: Mapping[str, str], cwd: Path) -> None:
        self.settings = settings
        self.environ = dict(environ)
        self.cwd = settings.working_dir or cwd
        self.store = Store(settings.state_dir)
        self.journal = Journal(settings.state_dir / "journal")
        self.looked_for_lost_at = -math.inf
        self.tmux = Tmux(socket_name=settings.socket_name, session=settings.session, environ=environ)

    @classmethod
    def open(cls, settings: Settings | None = None) -> Self:
        """Ready for every verb; raises SettingsError or StateError. tmux is asked for when a verb needs it."""
        jobs = cls(settings or Settings.load(), environ=own_environment(), cwd=Path.cwd())
        jobs.store.prepare()
        return jobs

    def list(self, *, status: Status | None = None, limit: int = 20, name: str | None = None) -> JobList:
        """Jobs newest first; `name` is a part of the id or the command."""
        if status is not None and status not in STATUSES:
            raise InvalidInput(f"'{status}' is no status; there are {', '.join(STATUSES)}.")
        if limit < 1:
            raise InvalidInput("limit must be 1 or more.")
        found: builtins.list[tuple[Record, State]] = []
        damaged: builtins.list[str] = []
        for job_id in self.store.ids():
            with apart(job_id, damaged):
                record = self.store.look(job_id)
                if record is None or (name and name.lower() not in f"{job_id} {record.job.command}".lower()):
                    continue
                record, state = self.settle(record)
                if status is None or status_of(state) == status:
                    found.append((record, state))
        found.sort(key=lambda pair: pair[0].job.number, reverse=True)
        shown = found[:limit]
        running = [record for record, state in shown if isinstance(state, Running)]
        asked = asking.prompts(self, running, faults=damaged)
        jobs = []
        for record, state in shown:
            with apart(record.job.job_id, damaged):
                prompt = asked.get(record.job.job_id)
                waits_for = prompt.waits_for if prompt else None
                jobs.append(JobSummary(**self._summary(record, state), waits_for=waits_for))
        return JobList(jobs=tuple(jobs), total=len(found), damaged=tuple(damaged))

    def status(self, job_id: str) -> JobStatus:
        """Everything known of one job. Raises JobNotFound."""
        record, state = self.look(job_id)
        ended, run = record.exit, record.run
        prompt = self.prompt(record) if isinstance(state, Running) else None
        people = holding.people(self, job_id) if isinstance(state, Running) else holding.People()
        left = self.left(record, state)
        return JobStatus(
            **self._summary(record, state),
            detail=describe(state),
            pid=run.command_pid if run else None,
            cwd=record.job.cwd,
            log_path=str(self.log_path(record)),
            stderr_path=str(self.stderr_path(record)) if record.job.separate_stderr else None,
            attach=self.attach_line(record),
            log=reading.log_state(self, record, state),
            log_bytes=ended.log.bytes if ended and ended.log else log_size(self.log_path(record)),
            waiting_for_input=prompt is not None,
            waits_for=prompt.waits_for if prompt else None,
            prompt=prompt.text if prompt else None,
            timeout=record.job.timeout_s,
            # Of an adopted process they were told to tmux, its parent, alone.
            cpu=ended.cpu_user_s + ended.cpu_system_s if ended and not record.job.adopted else None,
            max_rss_bytes=ended.max_rss_bytes if ended and not record.job.adopted else None,
            left_running=stopping.alive_of(self, record, ended.left_running) if ended else (),
            survivors=stopping.alive_of(self, record, ended.survivors) if ended else left.ours,
            not_touched=left.doubt,
            watchers=people.watchers,
            typed_ago=people.typed_ago,
            held_since=datetime.fromtimestamp(people.held_since, UTC) if people.held_since else None,
        )

    def _summary(self, record: Record, state: State) -> dict[str, Any]:
        started = (record.run.started_at if record.run else None) or record.job.created_at
        return {
            "job_id": record.job.job_id,
            "status": status_of(state),
            "command": record.job.command,
            "started": started,
            "ended": record.exit.ended_at if record.exit else None,
            "exit_code": record.exit.exit_code if record.exit else None,
            "signal": record.exit.signal if record.exit else None,
            "reason": state.reason if isinstance(state, Lost) else record.exit.reason if record.exit else None,
            "runtime": self.runtime(record, state),
            "adopted": record.job.created_at if record.job.adopted else None,
        }

    def runtime(self, record: Record, state: State) -> float:
        """Seconds that the machine was awake (CLOCK_MONOTONIC), however the wall clock jumped.

        Of a lost job nothing is known but the last growth of its log, in wall time and no more than has passed.
        """
        if record.exit is not None:
            return record.exit.runtime_s
        since = (record.run.started_monotonic if record.run else None) or record.job.created_monotonic
        if isinstance(state, Lost):
            try:
                written = self.log_path(record).stat().st_mtime
            except OSError:
                return 0.0
            known = max(0.0, written - record.job.created_at.timestamp())
            return min(known, time.monotonic() - since) if record.job.boot == processes.boot_id() else known
        return max(0.0, time.monotonic() - since)

    def left(self, record: Record, state: State) -> processes.Left:
        """Processes of a job whose runner is gone."""
        run, adopted = record.run, record.job.adopted
        if not isinstance(state, Lost) or record.exit is not None or run is None or not self.is_here(run):
            return processes.Left()
        if adopted is None:
            trace = processes.Trace.of(record.job, run)
            return processes.of_jobs({record.job.job_id: trace}).get(record.job.job_id, processes.Left())
        pane = processes.PaneTrace(
            environment=(run.pane, f"{run.socket},{run.server_pid},"),
            leader=(adopted.pid, adopted.start),
            server=(run.server_pid, run.server_start),
            since=run.start,
        )
        return processes.of_pane(pane)

    def is_here(self, run: RunRecord | None) -> bool:
        """Whether the pids of that record are of this boot and this pid namespace."""
        return run is not None and run.boot == processes.boot_id() and run.namespace in ("", processes.pid_namespace())

    def look(self, job_id: str) -> tuple[Record, State]:
        return self.settle(self.store.read(job_id))

    def settle(self, record: Record) -> tuple[Record, State]:
        """The record with its state; read again when it may have ended meanwhile.

        A living runner does not say that it runs: after the exit record it keeps the finished window.
        """
        state = self.state(record)
        if isinstance(state, Lost) or (isinstance(state, Running) and self.store.has_ended(record.job.job_id)):
            record = self.store.look(record.job.job_id) or record
            state = self.state(record)
        if isinstance(state, Lost):
            # No runner comes any more that would read it: a server was killed before it opened the window.
            self.store.forget_environment(record.job.job_id)
        return record, state

    def state(self, record: Record) -> State:
        run = record.run
        alive = record.exit is None and run is not None and processes.alive(run.pid, run.start)
        return derive_state(
            record,
            runner_alive=alive,
            boot=processes.boot_id(),
            monotonic=time.monotonic(),
            namespace=processes.pid_namespace(),
        )

    def log_path(self, record: Record) -> Path:
        return self.store.folder(record.job.job_id) / "output.log"

    def stderr_path(self, record: Record) -> Path:
        return self.store.folder(record.job.job_id) / "stderr.log"

    def attach_argv(self, job_id: str | None = None) -> builtins.list[str]:
        """The command that shows the session, or one job's window, to a person; raises JobNotFound, TmuxError."""
        if job_id is not None:
            self.store.read(job_id)
        starting.ensure_session(self)
        pane = self.tmux.panes().get(job_id) if job_id is not None else None
        if job_id is not None and pane is None:
            raise TmuxError(
                f"The window of job '{job_id}' is closed; `tmuxjobs output {job_id}` shows what it printed."
            )
        return self.tmux.attach_argv(pane)

    def attach_line(self, record: Record) -> str:
        return f"{self.tmux.attach}:{record.job.job_id}"


def own_environment() -> dict[str, str]:
    """What we were started with: Python sets LC_CTYPE when there is no locale (PEP 538), and jobs must not get that."""
    environ = dict(os.environ)
    if environ.get("LC_CTYPE") not in ("C.UTF-8", "C.utf8", "UTF-8"):
        return environ
    with contextlib.suppress(OSError):  # macOS does not tell; there a locale is the rule
        if b"LC_CTYPE" not in {item.split(b"=")[0] for item in Path("/proc/self/environ").read_bytes().split(b"\0")}:
            environ.pop("LC_CTYPE", None)
    return environ
