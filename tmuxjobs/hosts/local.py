"""Host: one machine's jobs as they stand, derived each time from disk, tmux and the process table. Knows no verbs."""

from __future__ import annotations

import builtins
import contextlib
import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from tmuxjobs import files
from tmuxjobs.arguments import WAIT_S
from tmuxjobs.contract import IN_JOBS, SET_HERE, mark_of
from tmuxjobs.errors import JobNotFound, OtherHost, StateError, TmuxError
from tmuxjobs.far.machine import Machine
from tmuxjobs.models import Caller, JobSpec, ProcessRecord, Record, RunRecord
from tmuxjobs.settings import Settings
from tmuxjobs.states import Elsewhere, InSlurmQueue, Job, Lost, Paused, Running, State, derive_state
from tmuxjobs.store import units
from tmuxjobs.store.journal import History, Journal
from tmuxjobs.store.store import Store
from tmuxjobs.system import job_processes, processes, slurm
from tmuxjobs.tmux import status_line
from tmuxjobs.tmux.session import Opening, Tmux

RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); "
COMMAND = f"{RUN}from tmuxjobs.cli.main import main; main()"
NOTICE = f"{RUN}from tmuxjobs.hosts.local import Host; from tmuxjobs.verbs.prompts import main; main(Host.open())"
"""Code that our windows run from the installed package, with the package's folder as the first argument."""


class End(NamedTuple):
    """When a job ended, by CLOCK_MONOTONIC; None when that was in another boot. It never changes."""

    here: bool
    monotonic: float | None


@dataclass(frozen=True)
class Timing:
    """Time limits in seconds for requests to a host; tests pass others."""

    tmux: float = 10.0
    """One call of tmux."""
    search: float = 20.0
    """One search of a log."""
    pattern: float = 5.0
    """One pattern over the response to what was typed."""
    url_errors: float = 5.0
    """How long a server's errors (500) are taken as part of its start."""
    call: float = WAIT_S
    """A wait within one call over MCP."""


class Host:
    """One state directory and one session of one tmux server; holds nothing that a second process could not see."""

    name = ""
    """Its name in the person's ssh configuration; empty for this machine."""
    machine = Machine()
    ahead_s = 0.0
    """How far its wall clock is ahead of ours; differences below a second count as 0."""

    def __init__(
        self, settings: Settings, *, environ: Mapping[str, str], cwd: Path, timing: Timing | None = None
    ) -> None:
        self.settings = settings
        self.timing = timing or Timing()
        self.environ = dict(environ)
        self.cwd = settings.working_dir or cwd
        self.store = Store(settings.state_dir)
        self.journal = Journal(settings.state_dir / "journal")
        self.history = History(settings.state_dir / "history")
        self.find: Callable[[str], Host] = lambda _: self
        self.owner: Callable[[str], Host] = lambda _: self
        self.others: Callable[[], Sequence[Host]] = tuple
        self.chosen: Callable[[str | None], Host] = lambda _: self
        """The host that has a job, brought up to date or as last known; the other hosts; the one that a person chose.

        `Hosts` sets these where there are several.
        """
        self.looked_for_lost_at = -math.inf
        self.had_session = False
        """Whether this process has ensured that our session exists; if it has gone since, opening a window shows it."""
        self.prunes_soon = threading.Lock()
        self.ends: dict[str, End] = {}
        self.scoped: tuple[builtins.list[str], object, tuple[builtins.list[str], builtins.list[str]]] | None = None
        """The last list of ids, its caller and scope, and which of the ids are within and which are not."""
        self.marks: dict[str, tuple[int, ...]] = {}
        """For running jobs: what the journal already has of their attempts, and of whether they are ready."""
        self._unit: units.Unit | None = None
        root = mark_of(str(settings.state_dir))
        self.tmux = Tmux(
            socket_name=settings.socket_name,
            session=settings.session,
            root=root,
            environ=environ,
            call_s=self.timing.tmux,
        )

    @classmethod
    def open(cls, settings: Settings | None = None) -> Self:
        """A host ready for every verb; raises SettingsError or StateError. tmux is called only when a verb needs it."""
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
        """Make our session, its welcome page and its options, if missing; one call of tmux when all is there."""
        welcome = self.unit().argv("welcome", self.settings.session, self.tmux.binary)
        self.tmux.ensure_session(welcome, status_line.OPTIONS)
        self.had_session = True

    def left(self, job: Job) -> job_processes.Left:
        """Processes of a job whose runner is gone."""
        run, adopted = job.run, job.spec.adopted
        if not job.lost or job.exit is not None or run is None or not self.is_here(run):
            return job_processes.Left()
        if adopted is None:
            return self.machine.of_jobs({job.id: trace_of(job.spec, run)}).get(job.id, job_processes.Left())
        pane = job_processes.PaneTrace(
            environment=(run.pane, f"{run.socket},{run.server_pid},"),
            leader=(adopted.pid, adopted.start),
            server=(run.server_pid, run.server_start),
            since=run.start,
        )
        return self.machine.of_pane(pane)

    def alive_of(self, job: Job, named: Sequence[ProcessRecord]) -> tuple[ProcessRecord, ...]:
        """Which of these processes from the job's record still live, with their current names."""
        if not self.is_here(job.run):
            return ()
        return tuple(living for one in named if (living := self.machine.as_now(one)))

    def left_running(self, job: Job) -> tuple[ProcessRecord, ...]:
        """The processes that outlived the command, of an ended job or of one that runs on in the background."""
        if job.exit is not None:
            return self.alive_of(job, job.exit.left_running)
        ended = isinstance(job.state, Running) and job.state.command_ended is not None and not job.state.awaits_tmux
        return tuple(self.machine.below(job.run.pid)) if ended and job.run is not None and self.is_here(job.run) else ()

    def is_here(self, run: RunRecord | None) -> bool:
        """Whether the pids of that record are of this boot and this pid namespace."""
        here = self.machine.here()
        return run is not None and run.boot == here.boot and run.namespace in ("", here.namespace)

    def is_stopped(self, record: Record) -> bool:
        """Whether somebody else has stopped a running job (SIGSTOP); for another machine's job that is not known."""
        run = record.run
        if record.job.slurm and run is not None:
            return bool(run.paused)  # srun itself goes on
        pid = record.job.adopted.pid if record.job.adopted else run.command_pid if run else None
        return pid is not None and self.is_here(run) and self.machine.stopped(pid)

    def refuse_elsewhere(self, job_id: str) -> None:
        """Raise OtherHost when another machine has the job's processes and its window, for verbs that need them."""
        with contextlib.suppress(JobNotFound):  # `kill` ends a job whose folder was removed
            state = self.look(job_id).state
            if isinstance(state, Elsewhere):
                raise OtherHost(job_id, state.host)

    def make(
        self, short: str, spec: Callable[[int, str], JobSpec], env: Mapping[str, str], *, held: bool = False
    ) -> JobSpec:
        """Create a job, as `Store.create`; `spec` makes its record from number and id. Call it under the lock."""
        job_id = ""
        while not job_id or os.path.lexists(self.owner(job_id).store.jobs / job_id):
            number = self.store.next_number()
            job_id = f"{short}-{self.store.index.suffix(number)}"
        made = spec(number, job_id)
        self.store.create(made, {**env, IN_JOBS: job_id}, held=held)
        return made

    def run_apart(self, argv: Sequence[str], env: Mapping[str, str], bound_s: float) -> None:
        """Run a process that leaves another one behind; raises OSError, SubprocessError, and HostError."""
        null = subprocess.DEVNULL
        environ = {**self.environ, **env}
        subprocess.run(argv, env=environ, cwd="/", stdin=null, stdout=null, stderr=null, check=True, timeout=bound_s)

    def answer(self, job_id: str, answer: Mapping[str, Any]) -> bool:
        """Record whether a job may run; False when somebody answered before. Raises StateError and HostError."""
        path = str(self.store.folder(job_id) / "approval.json")
        try:
            return files.write_once(path, dict(answer))
        except OSError as error:
            raise StateError(f"'{path}' cannot be written: {error.strerror}. Nothing was answered.") from None

    def opening(self, _job_id: str, _answered: Callable[[], None]) -> Opening | None:
        """The opening of the job's window, if it was requested along with the job; returned only once."""
        return None

    def look(self, job_id: str) -> Job:
        """The job as it stands. Raises JobNotFound, StateError."""
        return self.settle(self.store.read(job_id))

    def settle(self, record: Record) -> Job:
        """The job of that record as it stands; the record is read again when it may have ended meanwhile.

        A live runner does not mean that the job runs: after the exit record it keeps the finished window.
        """
        state = self.state(record)
        if isinstance(state, Lost) or (isinstance(state, Running) and self.store.has_ended(record.id)):
            record = self.store.look(record.id) or record
            state = self.state(record)
        if type(state) is Running and self.is_stopped(record):
            state = Paused(state.command_ended, state.awaits_tmux)
        if record.job.detached and isinstance(state, Lost | Elsewhere):
            record, state = self.by_slurm(record, state)
        if isinstance(state, Lost):
            # No runner will read it any more: a server was killed before it opened the window.
            self.store.forget_environment(record.id)
        return Job(record, state, self.store.folder(record.id))

    def state(self, record: Record) -> State:
        alive = record.exit is None and self.lives(record)
        # Nothing is to be awaited of a start that was cut off.
        now = math.inf if self.store.was_cut_off(record) else self.machine.monotonic()
        state = derive_state(record, self.machine.here(), runner_alive=alive, monotonic=now)
        allocation = self.in_slurm(record.id) if record.job.slurm and type(state) is Running else {}
        if (
            allocation
            and allocation["state"] in slurm.QUEUED
            and isinstance(state, Running)
            and not state.command_ended
        ):
            return InSlurmQueue(
                why="; ".join(filter(None, (allocation["reason"] or allocation["state"], allocation["doubt"])))
            )
        return state

    def by_slurm(self, record: Record, state: State) -> tuple[Record, State]:
        """What Slurm says of an `sbatch` job whose runner is gone, or on another machine; its end is recorded."""
        folder, allocation = self.store.folder(record.id), self.in_slurm(record.id)
        srun = (record.job.slurm or ("srun",))[0]
        try:
            found = slurm.find(srun, record.id, self.environ)
        except slurm.Silent as silent:
            return record, Running(between=f"in Slurm as far as is known; Slurm does not answer: {silent}")
        if found is not None:
            facts = {"number": found.number, "state": found.state, "node": found.node, "reason": found.reason}
            with contextlib.suppress(OSError):
                files.write_json(str(folder / "slurm.json"), {**facts, "doubt": ""})
            if found.queued:
                return record, InSlurmQueue(why=found.reason or found.state)
            if found.open:
                return record, Running(between="in Slurm; its window is gone, and `output` has what it prints")
        found = found or (slurm.kept(srun, allocation["number"], self.environ) if allocation else None)
        end = batch_end(record, folder, found)
        if end is None:
            return record, state
        with self.store.lock():
            if not self.store.has_ended(record.id):
                files.write_in_room(str(folder), "exit", end)
        record = self.store.look(record.id) or record
        return record, self.state(record)

    def in_slurm(self, job_id: str) -> dict[str, str]:
        """How the job stood in Slurm when that was last checked; empty if it is not known."""
        with contextlib.suppress(OSError, files.Odd):
            return files.record(str(self.store.folder(job_id) / "slurm.json"), files.SLURM)
        return {}

    def reached(self) -> Self:
        """This host, once it can be asked; raises HostError for another one that cannot be reached."""
        return self

    def connected(self) -> Self:
        """As `reached`, trusting a connection that seems open: if it is not, the next question shows it."""
        return self

    def close(self) -> None:
        """Give up the connection, where there is one; the jobs run on."""

    def fresh(self, *_job_ids: str) -> bool:
        """Whether what is known is up to date: for this machine it always is."""
        return True

    def lives(self, record: Record) -> bool:
        """Whether the job's runner is alive."""
        return record.run is not None and self.machine.alive(record.run.pid, record.run.start)

    def caller_of(self, job_id: str) -> Caller:
        """Who started the job, which never changes, so its record is read once; raises StateError for a damaged one.

        For a job that is gone nothing is known.
        """
        caller = self.store.callers.known.get(job_id)
        if caller is None:
            record = self.store.look(job_id)
            caller = self.store.callers.note(job_id, record.job.caller if record is not None else Caller())
        return caller

    def runtime(self, job: Job) -> float:
        """Seconds that the machine was awake (CLOCK_MONOTONIC), however the wall clock jumped.

        For another machine's job it is wall time. For a lost job it counts until its recorder saw that its runner was
        gone or, if the recorder died too, until the last growth of its log, in wall time: the least that it ran.
        """
        if job.exit is not None:
            return job.exit.runtime_s
        if job.queued:
            return 0.0
        since = job.record.started_monotonic
        if isinstance(job.state, Elsewhere):  # it has another clock
            started = (job.run.started_at if job.run else None) or job.spec.created_at
            return max(0.0, time.time() - started.timestamp())
        if job.lost:
            if (gone := self._gone(job)) is not None:
                return max(0.0, gone - since)
            try:
                written = job.log.stat().st_mtime
            except OSError:
                return 0.0
            known = max(0.0, written - job.spec.created_at.timestamp())
            awake = self.machine.monotonic() - since
            return min(known, awake) if job.record.boot == self.machine.here().boot else known
        return max(0.0, self.machine.monotonic() - since)

    def knows_runtime(self, job: Job) -> bool:
        """Whether `runtime` is exact; for a lost job it may be a lower bound."""
        return not job.lost or job.exit is not None or self._gone(job) is not None

    def _gone(self, job: Job) -> float | None:
        """When the job's recorder saw that its runner was gone, by CLOCK_MONOTONIC of its boot, in s."""
        with contextlib.suppress(OSError, files.Odd):
            return float(files.record(str(job.folder / "gone.json"), files.GONE)["monotonic"])
        return None

    def end_of(self, record: Record) -> End:
        """When a job ended; for a lost job, when it started."""
        there = self.machine.here()
        here = record.job.machine in ("", there.machine)
        if record.boot != there.boot:
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

    @property
    def is_reached(self) -> bool:
        """Whether it can be asked now; this machine always can."""
        return True

    @property
    def root(self) -> str:
        """The state directory, where it is."""
        return str(self.settings.state_dir)

    def log_path(self, path: Path) -> str:
        """The path at which a person finds that file of a job."""
        return str(path)

    @property
    def umask(self) -> int:
        return own_umask()

    @property
    def node(self) -> str:
        """The machine's own name for itself."""
        return os.uname().nodename

    def this_process(self) -> ProcessRecord:
        """This process, for a job that is to end with it; raises InvalidInput for a host that does not see our end."""
        return ProcessRecord(pid=os.getpid(), name="tmuxjobs", start=processes.start_of(os.getpid()))

    def attach_line(self, job: Job) -> str:
        """What a person types to see the job; tmux refuses a client inside a client."""
        return f"tmuxjobs attach {job.id}" if self.environ.get("TMUX") else f"{self.tmux.attach}:{job.id}"


def trace_of(job: JobSpec, run: RunRecord) -> job_processes.Trace:
    return job_processes.Trace(job.mark, (run.pid, run.start), (run.command_pid, run.command_start))


def batch_end(record: Record, folder: Path, found: slurm.Allocation | None) -> dict[str, Any] | None:
    """The exit record of an `sbatch` job, from Slurm and from the code that its script has left; None without both."""
    code: int | None = None
    ended_at, log = time.time(), folder / "output.log"
    with contextlib.suppress(OSError, ValueError):
        code, ended_at = int((folder / "code").read_text()), (folder / "code").stat().st_mtime
    if code is None and found is None:
        return None
    log_facts = {"complete": True, "why": None, "bytes": log.stat().st_size if log.exists() else 0}
    end: dict[str, Any] = {
        "format": record.job.format,
        "ended_at": datetime.fromtimestamp(ended_at, UTC).isoformat(),
        "runtime_s": found.used_s if found else max(0.0, ended_at - record.job.created_at.timestamp()),
        "exit_code": code if code is not None else os.WEXITSTATUS(found.status) if found else None,
        "signal": None,
        "reason": "kill" if (folder / "stop.json").exists() else "exit",
        "note": "",
        "log": {**log_facts, "stderr_bytes": None, "dropped_bytes": 0, "recorder_restarts": 0},
        "job": record.job.model_dump(mode="json"),
        "run": record.run.model_dump(mode="json") if record.run else None,
    }
    if found is not None:
        slurm.tell_end(end, found, asked=end["reason"] == "kill")
    return end


def own_umask() -> int:
    """Our umask, for the job; Linux reports it without a change that another thread could see."""
    try:
        text = Path("/proc/self/status").read_text()
        return int(re.search(r"^Umask:\s*(\d+)", text, re.MULTILINE)[1], 8)  # type: ignore[index]
    except OSError:
        mask = os.umask(0o022)
        os.umask(mask)
        return mask


def own_environment() -> dict[str, str]:
    """The environment we were started with, without the LC_CTYPE that Python sets if there is no locale (PEP 538)."""
    environ = {key: value for key, value in os.environ.items() if key not in SET_HERE}
    environ |= {key: value for key, value in SET_HERE.items() if value is not None}
    if environ.get("LC_CTYPE") not in ("C.UTF-8", "C.utf8", "UTF-8"):
        return environ
    with contextlib.suppress(OSError):  # macOS does not show it; there a locale is usual
        if b"LC_CTYPE" not in {item.split(b"=")[0] for item in Path("/proc/self/environ").read_bytes().split(b"\0")}:
            environ.pop("LC_CTYPE", None)
    return environ
