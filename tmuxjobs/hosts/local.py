"""Host: one machine's jobs as they stand, derived anew from disk, tmux and the process table. Knows no verbs."""

import builtins
import contextlib
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

from tmuxjobs.contract import mark_of
from tmuxjobs.errors import JobNotFound, OtherHost, TmuxError
from tmuxjobs.hosts import job_processes
from tmuxjobs.models import Elsewhere, Job, Lost, Record, Running, RunRecord, State, derive_state
from tmuxjobs.settings import Settings
from tmuxjobs.store import units
from tmuxjobs.store.journal import Journal
from tmuxjobs.store.store import Store
from tmuxjobs.system import processes
from tmuxjobs.tmux import status_line
from tmuxjobs.tmux.session import Tmux

RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); "
COMMAND = f"{RUN}from tmuxjobs.cli.main import main; main()"
NOTICE = f"{RUN}from tmuxjobs.hosts.local import Host; from tmuxjobs.verbs import notify; notify.main(Host.open())"
"""What our windows run of the installed package, with its place as the first argument."""


class End(NamedTuple):
    """When a job ended, by the clock that does not jump; None when that was in another boot. Known for good."""

    here: bool
    monotonic: float | None


class Host:
    """One state directory and one session of one tmux server. Holds nothing that a second process could not see."""

    def __init__(self, settings: Settings, *, environ: Mapping[str, str], cwd: Path) -> None:
        self.settings = settings
        self.environ = dict(environ)
        self.cwd = settings.working_dir or cwd
        self.store = Store(settings.state_dir)
        self.journal = Journal(settings.state_dir / "journal")
        self.looked_for_lost_at = -math.inf
        self.ends: dict[str, End] = {}
        self._unit: units.Unit | None = None
        root = mark_of(str(settings.state_dir))
        self.tmux = Tmux(socket_name=settings.socket_name, session=settings.session, root=root, environ=environ)

    @classmethod
    def open(cls, settings: Settings | None = None) -> Self:
        """Ready for every verb; raises SettingsError or StateError. tmux is called only when a verb needs it."""
        host = cls(settings or Settings.load(), environ=own_environment(), cwd=Path.cwd())
        host.store.prepare()
        place = str(units.PACKAGE.parent)
        command, notice = ([sys.executable, "-c", code, place] for code in (COMMAND, NOTICE))
        units.tell_installed(host.store.pane, command, notice)
        return host

    def unit(self) -> units.Unit:
        """The copy of the pane's programs that jobs are run by; raises StateError."""
        if self._unit is None or not self._unit.use():
            self._unit = units.prepare(self.store.pane)
        return self._unit

    def ensure_session(self) -> None:
        """Our session with its welcome page and its look; one call of tmux when all is there."""
        welcome = self.unit().argv("welcome", self.settings.session, self.tmux.binary)
        self.tmux.ensure_session(welcome, status_line.OPTIONS)

    def left(self, job: Job) -> job_processes.Left:
        """Processes of a job whose runner is gone."""
        run, adopted = job.run, job.spec.adopted
        if not job.lost or job.exit is not None or run is None or not self.is_here(run):
            return job_processes.Left()
        if adopted is None:
            trace = job_processes.Trace.of(job.spec, run)
            return job_processes.of_jobs({job.id: trace}).get(job.id, job_processes.Left())
        pane = job_processes.PaneTrace(
            environment=(run.pane, f"{run.socket},{run.server_pid},"),
            leader=(adopted.pid, adopted.start),
            server=(run.server_pid, run.server_start),
            since=run.start,
        )
        return job_processes.of_pane(pane)

    def is_here(self, run: RunRecord | None) -> bool:
        """Whether the pids of that record are of this boot and this pid namespace."""
        return (
            run is not None and run.boot == job_processes.boot_id() and run.namespace in ("", processes.pid_namespace())
        )

    def refuse_elsewhere(self, job_id: str) -> None:
        """For all that needs the job's processes or its window; raises OtherHost when another machine has them."""
        with contextlib.suppress(JobNotFound):  # `kill` ends a job whose folder was removed
            state = self.look(job_id).state
            if isinstance(state, Elsewhere):
                raise OtherHost(job_id, state.host)

    def look(self, job_id: str) -> Job:
        """The job as it stands. Raises JobNotFound, StateError."""
        return self.settle(self.store.read(job_id))

    def settle(self, record: Record) -> Job:
        """The job of that record as it stands; the record is read again when it may have ended meanwhile.

        A living runner does not say that it runs: after the exit record it keeps the finished window.
        """
        state = self.state(record)
        if isinstance(state, Lost) or (isinstance(state, Running) and self.store.has_ended(record.id)):
            record = self.store.look(record.id) or record
            state = self.state(record)
        if isinstance(state, Lost):
            # No runner comes any more that would read it: a server was killed before it opened the window.
            self.store.forget_environment(record.id)
        return Job(record, state, self.store.folder(record.id))

    def state(self, record: Record) -> State:
        run = record.run
        alive = record.exit is None and run is not None and job_processes.alive(run.pid, run.start)
        return derive_state(
            record,
            runner_alive=alive,
            boot=job_processes.boot_id(),
            monotonic=time.monotonic(),
            namespace=processes.pid_namespace(),
            machine=processes.machine_id(),
        )

    def runtime(self, job: Job) -> float:
        """Seconds that the machine was awake (CLOCK_MONOTONIC), however the wall clock jumped.

        Of another machine's job it is wall time. Of a lost job nothing is known but the last growth of its log, in wall
        time and no more than has passed.
        """
        if job.exit is not None:
            return job.exit.runtime_s
        since = job.record.started_monotonic
        if isinstance(job.state, Elsewhere):  # its clock is another one
            started = (job.run.started_at if job.run else None) or job.spec.created_at
            return max(0.0, time.time() - started.timestamp())
        if job.lost:
            try:
                written = job.log.stat().st_mtime
            except OSError:
                return 0.0
            known = max(0.0, written - job.spec.created_at.timestamp())
            return min(known, time.monotonic() - since) if job.spec.boot == job_processes.boot_id() else known
        return max(0.0, time.monotonic() - since)

    def end_of(self, record: Record) -> End:
        """Of a job that has ended; of a lost one the time of its start."""
        here = record.job.machine in ("", processes.machine_id())
        if record.job.boot != job_processes.boot_id():
            return End(here, None)
        return End(here, record.started_monotonic + (record.exit.runtime_s if record.exit else 0.0))

    def attach_argv(self, job_id: str | None = None) -> builtins.list[str]:
        """The command that shows the session, or one job's window, to a person; raises JobNotFound, TmuxError."""
        if job_id is not None:
            self.store.read(job_id)
            self.refuse_elsewhere(job_id)
        self.ensure_session()
        pane = self.tmux.panes().get(job_id) if job_id is not None else None
        if job_id is not None and pane is None:
            raise TmuxError(
                f"The window of job '{job_id}' is closed; `tmuxjobs output {job_id}` shows what it printed."
            )
        return self.tmux.attach_argv(pane)

    def attach_line(self, job: Job) -> str:
        return f"{self.tmux.attach}:{job.id}"


def own_environment() -> dict[str, str]:
    """What we were started with: Python sets LC_CTYPE when there is no locale (PEP 538), and jobs must not get that."""
    environ = dict(os.environ)
    if environ.get("LC_CTYPE") not in ("C.UTF-8", "C.utf8", "UTF-8"):
        return environ
    with contextlib.suppress(OSError):  # macOS does not tell; there a locale is the rule
        if b"LC_CTYPE" not in {item.split(b"=")[0] for item in Path("/proc/self/environ").read_bytes().split(b"\0")}:
            environ.pop("LC_CTYPE", None)
    return environ
