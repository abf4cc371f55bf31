"""What a job is: the records on disk; also lines of the journal and the history, waits that a client polls, and what a
client has seen. They are pydantic models, because files cross a boundary.

`states.py` says what they mean.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from tmuxjobs.arguments import Mode
from tmuxjobs.contract import FORMAT
from tmuxjobs.named import ProcessRecord as ProcessRecord

Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Text that may be an argument of a program."""
Pid = Annotated[int, Field(gt=0, lt=1 << 31)]
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Moment = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 2, tzinfo=UTC), lt=datetime(9999, 1, 1, tzinfo=UTC))]
Start = Annotated[str, Field(pattern=r"^[0-9]{1,19}$" if sys.platform.startswith("linux") else r"^[^\x00]+$")]
"""What distinguishes a process from a later one with its pid, see `processes.start_of`."""
Notify = Literal["always", "failure", "never"]
"""Which job endings trigger a message, a bell and the hook; a failure is any end but exit code 0."""
WaitsFor = Literal["input", "password", "keys", "approval"]
Status = Literal["running", "paused", "queued", "completed", "failed", "killed", "skipped", "lost", "unknown"]
STATUSES: tuple[Status, ...] = get_args(Status)


class Model(BaseModel):
    """A record or result: immutable, and open to fields that a later version of the same format adds."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, defer_build=True)


class AdoptedRecord(Model):
    """The process of a window that a person opened; it is a child of tmux, and has run since before the job's start.

    `start` distinguishes it from a later process with its pid.
    """

    pid: Pid
    start: Start
    tty: Text
    started_at: Moment
    started_monotonic: float


class Caller(Model):
    """Who calls: an agent, with its client's name and version and its server session, or a person.

    `project` is the git root of the folder they work in, else that folder; empty when it is not known.
    """

    kind: Literal["agent", "person"] = "person"
    client: Text = ""
    version: Text = ""
    session: Text = ""
    project: Text = ""

    def described(self, *, ends_with: bool = False) -> str:
        """`claude-code 2.1.332`, `an agent` without a name, `a person`; empty when it is not known."""
        if self.kind == "person":
            said = "a person" if self.project else ""
        else:
            said = " ".join(filter(None, (self.client, self.version))) or "an agent"
        return f"{said}, and ends with its server" if ends_with else said


class QueueRecord(Model):
    """What `pane/queue.py` decides by, for a job that may wait for its turn.

    `most`, `total` and `limit` are how many may run of its project, in all, and of its group (0: any number), as they
    were set for its caller. `after` names jobs, each with what it must reach: `ID` success, `ID:any` its end,
    `ID:ready`.
    """

    group: Text = ""
    priority: int = 0
    most: Count
    total: Count
    limit: Count = 0
    not_before: float | None = None
    """In s since the epoch."""
    after: tuple[Text, ...] = ()
    socket: Text
    """The socket of the tmux server on which its window is opened."""


class TurnRecord(Model):
    """`turn.json`: when a process began to open the window of a job that waited, and `why` that failed."""

    format: int = FORMAT
    boot: Text
    monotonic: float
    tries: Count = 1
    deaths: Count = 0
    why: Text = ""


class JobSpec(Model):
    """`job.json`: what was asked. Times end in `_at` (UTC), durations in `_s`, sizes in `_bytes`."""

    format: int = FORMAT
    number: Count
    job_id: Text
    command: Text
    cwd: Text
    shell: Text
    shell_options: tuple[Text, ...] = ()
    timeout_s: float | None
    grace_s: float
    separate_stderr: bool
    max_output_bytes: Count
    max_output_given: bool = False  # for this job; else it is the configured value
    umask: Annotated[int, Field(ge=0, le=0o777)]
    created_at: Moment
    created_monotonic: float
    boot: Text
    machine: Text = ""
    """The machine it belongs to, see `processes.machine_id`; 0.1.0 did not record it."""
    host: Text = ""
    """The name of that machine."""
    nonce: Text
    mark: Text = ""
    """Random, and in the environment of what the job starts: a process that has it came from this job and no other."""
    tmux: Text
    python: Text
    recorder: Text = ""
    """As `pane`, for a server of 0.1.0 that still runs: it takes a record without this field as damaged."""
    pane: Text = ""
    """The program of the pane's processes, which is kept while a record names it; 0.1.0 had none."""
    session: Text = "mcp-jobs"
    notify: Notify = "always"
    on_end: Text | None = None
    env_names: tuple[str, ...] = ()
    """Variables that were given; their values are not kept anywhere."""
    adopted: AdoptedRecord | None = None
    caller: Caller = Caller()
    """Who started it; jobs of 0.1.0 count as a person's, of no known project."""
    ends_with: ProcessRecord | None = None
    """The server that started it, if it is to end with that; `namespace` is that of its pid."""
    namespace: Text = ""
    slurm: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """For a job in Slurm: the path of srun, and its options."""
    detached: bool = False
    """For a job in Slurm: `sbatch` runs it, independently of any process here."""
    sync: Text = ""
    """For a job on another host: the folder here whose copy there was brought up to date before its start."""
    judged: tuple[tuple[Text, Text], ...] = ()
    """Paths that a policy judged, each with where it led then, without links: if one leads elsewhere, it is not run."""
    ask_why: Text = ""
    """Why a person must approve it before it runs; empty when nobody must."""
    ask_s: float = 0.0
    ask_rules: tuple[Text, ...] = ()
    """Rules that would allow it, for `ask_file`, the policy."""
    ask_file: Text = ""
    queue: QueueRecord | None = None
    """For a job that may wait for its turn; without it there must be room at once."""
    retry: Count = 0  # how often it runs again, with a restart policy in a row
    restart_policy: Literal["on-failure", "always"] | None = None
    success_codes: tuple[Count, ...] = (0,)
    ready_when: Text = ""
    ready_timeout_s: float = 300.0


class RunRecord(Model):
    """`run.json`: what runs it; `command_pid` and what goes with it is set once the command has started."""

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
    """The namespace of the pids; empty if there is none or it was not recorded."""
    srun_pid: Pid | None = None
    """For a job that Slurm has not taken yet: the process that becomes the command's when it has."""
    command_pid: Pid | None = None
    command_start: Start | None = None
    started_at: Moment | None = None
    started_monotonic: float | None = None
    recorder_restarts: Count = 0
    recording: bool = True
    command_ended: str | None = None
    awaits_tmux: bool = False
    paused: bool | None = None
    """None if the runner is an older one, which cannot pause."""
    approved: Text | None = None
    """How a person approved it; empty while they are asked."""
    attempt: Count = 1
    loop: Count = 0
    """The first of the attempts that failed in quick succession."""
    last_end: Text = ""
    again_at: float | None = None
    """When the next attempt begins, by CLOCK_MONOTONIC of its boot, while none runs after `last_end`."""


class LogRecord(Model):
    """What the runner knows of the log: `why` says what is missing when it is not complete.

    `complete` is None when it cannot be known.
    """

    complete: bool | None
    why: str | None = None
    bytes: Count = 0
    stderr_bytes: Count | None = None
    dropped_bytes: Count = 0
    recorder_restarts: Count = 0


class ExitRecord(Model):
    """`exit.json`: how it ended; it holds the other two records, so that one file has all facts of a finished job.

    `runtime_s` is by CLOCK_MONOTONIC: jumps of the wall clock and, on Linux, suspended time do not count in it.
    """

    format: int = FORMAT
    ended_at: Moment
    reason: str
    exit_code: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    signal: str | None = None
    error: str | None = None
    note: str = ""
    """What happened around the end and hints at its cause."""
    runtime_s: float = 0.0
    cpu_user_s: float = 0.0
    cpu_system_s: float = 0.0
    max_rss_bytes: Count = 0
    log: LogRecord | None = None
    survivors: tuple[ProcessRecord, ...] = ()
    left_running: tuple[ProcessRecord, ...] = ()
    attempts: Count = 1
    job: JobSpec
    run: RunRecord | None


@dataclass(frozen=True)
class Record:
    """All that is on disk about one job."""

    job: JobSpec
    run: RunRecord | None = None
    exit: ExitRecord | None = None
    turn: TurnRecord | None = None

    @property
    def boot(self) -> str:
        """The boot of the machine that its clock and pids belong to: a job may wait for its turn across a reboot."""
        return self.run.boot if self.run else self.turn.boot if self.turn else self.job.boot

    @property
    def id(self) -> str:
        return self.job.job_id

    @property
    def started_monotonic(self) -> float:
        """When its command started, or else when it was asked for, by CLOCK_MONOTONIC of its boot, in s."""
        return (self.run.started_monotonic if self.run else None) or self.job.created_monotonic

    @property
    def root(self) -> int | None:
        """The process below which the job lives: its runner; for an adopted job, its first process."""
        return self.job.adopted.pid if self.job.adopted else self.run.pid if self.run else None


class Entry(Model):
    """A line of the journal; `log_bytes` distinguishes prompts. A removed job's status is not known any more."""

    n: Count
    event: Literal[
        "queued", "start", "end", "prompt", "hold", "release", "pause", "resume", "again", "ready", "unready"
    ]
    job_id: Text
    at: Moment
    project: Text | None = None
    waits_for: Text | None = None
    prompt: Text | None = None
    log_bytes: Count | None = None
    status: Text | None = None
    exit_code: int | None = None
    attempt: Count | None = None
    note: Text | None = None


class AttemptRecord(Model):
    """One run of a job's command: how it ended, and the range of its output in the logs."""

    attempt: Count
    started_at: Moment
    begin: Count
    end: Count | None = None
    stderr_begin: Count = 0
    stderr_end: Count | None = None
    ended_at: Moment | None = None
    runtime_s: float | None = None
    exit_code: int | None = None
    signal: str | None = None
    reason: str | None = None


class AttemptsRecord(Model):
    """`attempts.json`: the newest attempts, oldest first."""

    format: int = FORMAT
    attempts: tuple[AttemptRecord, ...]


class ReadyRecord(Model):
    """`ready.json`: whether the job is ready, and since when; `failed`: it was not ready in time, and still is not."""

    format: int = FORMAT
    ready: bool
    failed: bool
    why: Text
    at: Moment
    monotonic: float
    attempt: Count = 1


class Deed(Model):
    """A line of the history: who called which verb on which job, the verdict, and the rule or reason behind it.

    It never holds what was typed, nor the value of a variable.
    """

    at: Moment
    caller: Literal["agent", "person", "tmuxjobs"]
    client: Text = ""
    session: Text = ""
    project: Text = ""
    tool: Text = ""
    job_id: Text = ""
    verdict: Literal["allow", "ask", "deny", "approved", "refused"]
    why: Text = ""

    def text(self) -> str:
        """For a person: when (UTC), who, what, and the verdict with its reason."""
        who = Caller(kind="agent", client=self.client).described() if self.caller == "agent" else self.caller
        what = f"{self.tool} {self.job_id}".strip()
        return f"{self.at:%Y-%m-%d %H:%M:%S}  {who}  {what}  {self.verdict}{f': {self.why}' if self.why else ''}"


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


class Seen:
    """What one client was given: how far each job's output and stderr, what is said only once, and which ends.

    `asking` is the client whose call is being answered.
    """

    def __init__(self) -> None:
        self._cursors: dict[str, tuple[int, int]] = {}
        self._told: set[tuple[str, str]] = set()
        self.lock = threading.Lock()
        self.reported: int | None = None
        """Number of the last entry of the journal that was reported; None before the first call."""
        self.known: set[str] = set()
        """Jobs whose end another answer reported."""
        self.waited_for: set[str] = set()
        self.is_new = True

    def note(self, job_id: str, cursor: int, stderr_cursor: int | None = None) -> None:
        out, err = self.of(job_id)
        self._cursors[job_id] = max(out, cursor), max(err, stderr_cursor or 0)

    def of(self, job_id: str) -> tuple[int, int]:
        return self._cursors.get(job_id, (0, 0))

    def is_reported(self, job_id: str, what: str) -> bool:
        return (job_id, what) in self._told

    def tell(self, job_id: str, what: str) -> None:
        self._told.add((job_id, what))

    @contextlib.contextmanager
    def asks(self) -> Iterator[Self]:
        """Within it, the calls are this client's."""
        token = asking.set(self)
        try:
            yield self
        finally:
            asking.reset(token)


asking: ContextVar[Seen | None] = ContextVar("asking", default=None)
