"""What a job is: the records on disk, the states, and the one pure function that derives a state from them.

Records are pydantic models, because files cross a boundary. A state is a type whose fields exist only when true.
"""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, assert_never

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from tmuxjobs.arguments import Mode
from tmuxjobs.contract import FORMAT, LAUNCH_S

Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""What may be an argument of a program."""
Pid = Annotated[int, Field(gt=0, lt=1 << 31)]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Moment = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 2, tzinfo=UTC), lt=datetime(9999, 1, 1, tzinfo=UTC))]
Start = Annotated[str, Field(pattern=r"^[0-9]{1,19}$" if sys.platform.startswith("linux") else r"^[^\x00]+$")]
"""What tells a process from a later one with its pid, see `processes.start_of`."""
OTHER_NAMESPACE = "it was started in another pid namespace: in another container, or before this one was restarted"
Notify = Literal["always", "failure", "never"]
"""Which job endings trigger a message, a bell and the hook; a failure is any end but exit code 0."""
Status = Literal["running", "completed", "failed", "killed", "lost"]
STATUSES: tuple[Status, ...] = ("running", "completed", "failed", "killed", "lost")


class Model(BaseModel):
    """A record or result: immutable, and open to fields that a later version of the same format adds."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class AdoptedRecord(Model):
    """The process of a window that a person opened; it is a child of tmux, and has run since before the job's start.

    `start` tells it from a later one with its pid.
    """

    pid: Pid
    start: Start
    tty: Text
    started_at: Moment
    started_monotonic: float


class JobSpec(Model):
    """`job.json`: what was asked. Times end in `_at` (UTC), durations in `_s`, sizes in `_bytes`."""

    format: int = FORMAT
    number: Count
    job_id: Text
    command: Text
    cwd: Text
    shell: Text
    timeout_s: float | None
    grace_s: float
    separate_stderr: bool
    max_output_bytes: Count
    umask: Annotated[int, Field(ge=0, le=0o777)]
    created_at: Moment
    created_monotonic: float
    boot: Text
    machine: Text = ""
    """The one it belongs to, see `processes.machine_id`; 0.1.0 did not record it."""
    host: Text = ""
    """The name of that machine."""
    """What tells its state directory from others, see `Index.name`."""
    nonce: Text
    mark: Text = ""
    """Random, and in the environment of what the job starts: whoever carries it came from this job and no other."""
    tmux: Text
    python: Text
    recorder: Text = ""
    """As `pane`, for a server of 0.1.0 that still runs: it takes a record without this field for damaged."""
    pane: Text = ""
    """The program of the pane's processes, which stays while a record names it; 0.1.0 had none."""
    session: Text = "mcp-jobs"
    notify: Notify = "always"
    on_end: Text | None = None
    env_names: tuple[str, ...] = ()
    """Variables that were given; their values are kept nowhere."""
    adopted: AdoptedRecord | None = None


class RunRecord(Model):
    """`run.json`: who runs it; `command_pid` and what follows it are there once the command has started."""

    format: int = FORMAT
    pid: Pid
    start: Start
    boot: Text
    pane: Annotated[str, Field(pattern=r"^%[0-9]{1,9}$")]
    socket: Text
    server_pid: Pid
    server_start: Text = ""
    tty: Text
    namespace: Text = ""
    """Of pids; empty where there is none or it was not recorded."""
    command_pid: Pid | None = None
    command_start: Start | None = None
    started_at: Moment | None = None
    started_monotonic: float | None = None
    recorder_restarts: Count = 0
    recording: bool = True
    command_ended: str | None = None
    awaits_tmux: bool = False


class ProcessRecord(Model):
    """A process named in an exit record; `start` tells it from a later one with its pid."""

    pid: Pid
    name: str
    start: Start | None = None


class LogRecord(Model):
    """What the runner knows of the log: `why` says what is missing when it is not complete.

    `complete` is None when nobody can know.
    """

    complete: bool | None
    why: str | None = None
    bytes: Count = 0
    stderr_bytes: Count | None = None
    dropped_bytes: Count = 0
    recorder_restarts: Count = 0


class ExitRecord(Model):
    """`exit.json`: how it ended; it holds the other two records, so that one file tells all of a finished job.

    `runtime_s` is by CLOCK_MONOTONIC: neither a wall clock that jumps nor, on Linux, a suspended machine counts in it.
    """

    format: int = FORMAT
    ended_at: Moment
    reason: str
    exit_code: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    signal: str | None = None
    error: str | None = None
    runtime_s: float = 0.0
    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    max_rss_bytes: Count = 0
    log: LogRecord | None = None
    survivors: tuple[ProcessRecord, ...] = ()
    left_running: tuple[ProcessRecord, ...] = ()
    job: JobSpec
    run: RunRecord | None


class TaskRecord(Model):
    """`task.json` in the folder of the job, `task-*.json` for further ones: a wait that a client polls."""

    format: int = FORMAT
    task_id: str
    tool: str
    job_ids: tuple[str, ...]
    conditions: dict[str, Any]
    begins: dict[str, Count]
    cursor: Count | None
    mode: Mode
    max_bytes: int
    created_at: Moment
    updated_at: Moment
    deadline_at: Moment | None
    cancelled: bool = False
    result: dict[str, Any] | None = None


@dataclass(frozen=True)
class Record:
    """All that is on disk about one job."""

    job: JobSpec
    run: RunRecord | None = None
    exit: ExitRecord | None = None

    @property
    def id(self) -> str:
        return self.job.job_id

    @property
    def started_monotonic(self) -> float:
        """When its command started, or else when it was asked for, by CLOCK_MONOTONIC of its boot, in s."""
        return (self.run.started_monotonic if self.run else None) or self.job.created_monotonic

    @property
    def root(self) -> int | None:
        """The process below which the job lives: its runner; of an adopted job its own first one."""
        return self.job.adopted.pid if self.job.adopted else self.run.pid if self.run else None


@dataclass(frozen=True)
class Starting:
    """Asked for, and its runner has not yet said that it is there."""


@dataclass(frozen=True)
class Running:
    """Its runner lives; `command_ended` says how the command ended when the job goes on without it.

    That is for processes it left behind, or because a stopped tmux has the end of its output.
    """

    command_ended: str | None = None
    awaits_tmux: bool = False


@dataclass(frozen=True)
class Elsewhere(Running):
    """It has no exit record and belongs to another machine with this state directory: only that one knows more."""

    host: str = ""


@dataclass(frozen=True)
class Exited:
    """The command ended by itself."""

    code: int


@dataclass(frozen=True)
class Killed:
    """Ended by a signal, a person, a timeout: `reason` says which. A code is there if it answered with one."""

    reason: str
    signal: str | None
    code: int | None


@dataclass(frozen=True)
class NotStarted:
    """The command never ran."""

    error: str


@dataclass(frozen=True)
class Lost:
    """Nobody can know how it ended."""

    reason: str
    detail: str


State = Starting | Running | Exited | Killed | NotStarted | Lost


def derive_state(
    record: Record, *, runner_alive: bool, boot: str, monotonic: float, namespace: str = "", machine: str = ""
) -> State:
    """The state of a job from its records and facts of now: its runner's life, the boot id, the clock in s.

    `namespace` is ours of pids, `machine` our machine's id; each is empty where there is none.
    """
    if record.exit is not None:
        return _ended(record.exit)
    if _is_elsewhere(record, machine, boot, namespace):
        return Elsewhere(host=record.job.host or record.job.machine)
    if record.job.boot != boot:
        return Lost("reboot", "the machine was restarted while it ran")
    if record.run is not None and record.run.namespace and record.run.namespace != namespace:
        return Lost("elsewhere", OTHER_NAMESPACE)
    if record.run is None:
        if monotonic - record.job.created_monotonic < LAUNCH_S:
            return Starting()
        return Lost("never-started", f"its runner did not start within {LAUNCH_S:.0f} s")
    if runner_alive:
        return Running(record.run.command_ended, record.run.awaits_tmux)
    return Lost("runner-died", "its runner was killed, so how the command ended is not known")


def _is_elsewhere(record: Record, machine: str, boot: str, namespace: str) -> bool:
    """Whether the job belongs to another machine that may run now.

    Another container is another machine: whether one that cannot be seen from here lives is not known. It is this one
    when we see its pids all the same: its id, or the host name in place of one, was changed while the job ran.
    """
    if record.job.machine in ("", machine):
        return False
    theirs = record.run.namespace if record.run is not None else ""
    return record.job.boot != boot or theirs not in ("", namespace)


def _ended(record: ExitRecord) -> State:
    if record.reason == "not-started":
        return NotStarted(record.error or "no reason was recorded")
    if record.reason == "exit" and record.exit_code is not None:
        return Exited(record.exit_code)
    if record.reason == "unknown":
        return Lost("unknown", "it has ended, and tmux, whose child it was, did not tell its exit code")
    return Killed(record.reason, record.signal, record.exit_code)


def status_of(state: State) -> Status:
    """The word that agents and people see."""
    match state:
        case Starting() | Running():
            return "running"
        case Exited(code):
            return "completed" if code == 0 else "failed"
        case Killed():
            return "killed"
        case NotStarted():
            return "failed"
        case Lost():
            return "lost"
        case _:
            assert_never(state)


KILLED_BY = {
    "signal": "by a signal from elsewhere",
    "kill": "on request",
    "timeout": "by its timeout",
    "terminated": "because its runner was asked to end (SIGTERM)",
    "window-closed": "because its window was closed",
    "tmux-ended": "because the tmux server ended",
}


def describe(state: State) -> str:
    """How it stands, in words that fit behind the status."""
    match state:
        case Starting():
            return "starting"
        case Elsewhere(host=host):
            return f"running on host '{host}'"
        case Running(None):
            return "running"
        case Running(ended, True):
            return f"the command ended with {ended}; tmux is stopped, and has the end of its output"
        case Running(ended):
            return f"the command ended with {ended}, and processes that it started can still print"
        case Exited(code):
            signal = f" (a shell says so for signal {code - 128})" if 128 < code < 160 else ""
            return f"exit code {code}{signal}"
        case Killed(reason, signal_name, code):
            how = f", {signal_name}" if signal_name else f", exit code {code}" if code is not None else ""
            return f"killed {KILLED_BY.get(reason, reason)}{how}"
        case NotStarted(error):
            return f"not started: {error}"
        case Lost(_, detail):
            return f"lost: {detail}"
        case _:
            assert_never(state)


@dataclass(frozen=True)
class Job:
    """A job as it stood at one look: its records, its state, and the folder of its files."""

    record: Record
    state: State
    folder: Path

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def spec(self) -> JobSpec:
        return self.record.job

    @property
    def run(self) -> RunRecord | None:
        return self.record.run

    @property
    def exit(self) -> ExitRecord | None:
        return self.record.exit

    @property
    def running(self) -> bool:
        """Whether it runs or is starting."""
        return isinstance(self.state, Starting | Running)

    @property
    def runs(self) -> bool:
        """Whether its runner lives, or may live on another machine (`Elsewhere`)."""
        return isinstance(self.state, Running)

    @property
    def lost(self) -> bool:
        return isinstance(self.state, Lost)

    @property
    def status(self) -> Status:
        return status_of(self.state)

    @property
    def detail(self) -> str:
        return describe(self.state)

    @property
    def log(self) -> Path:
        return self.folder / "output.log"

    @property
    def stderr(self) -> Path | None:
        """The log of a separate stderr."""
        return self.folder / "stderr.log" if self.spec.separate_stderr else None

    @property
    def logs(self) -> list[Path]:
        return [self.log, *([self.stderr] if self.stderr else [])]


class Entry(Model):
    """A line of the journal. The status of a removed job is not known any more."""

    n: Count
    event: Literal["start", "end"]
    job_id: Text
    at: Moment
    status: Text | None = None
    exit_code: int | None = None
