"""The state of a job: the states, the one pure function that derives one from the records, and each in words.

A state is a type whose fields exist only when they are true.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_never

from tmuxjobs.models import ExitRecord, JobSpec, Record, RunRecord, Status
from tmuxjobs.outcome import KILLED_BY, LOST, Here, between, by_signal, exit_words, is_of_pipeline, standing

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FORGETTABLE = timedelta(days=1)
"""A host that cannot be reached for longer may be gone."""


@dataclass(frozen=True)
class Starting:
    """It was asked for, and its runner has not yet recorded itself."""


@dataclass(frozen=True)
class AwaitsApproval(Starting):
    """A person is asked in its window whether it may run; nothing has run."""

    why: str


@dataclass(frozen=True)
class Queued:
    """It waits for its turn, and nothing of it runs."""


@dataclass(frozen=True)
class Running:
    """Its runner lives; `command_ended` says how the command ended when the job goes on without it.

    That is for processes it left behind, or because a stopped tmux has the end of its output.
    """

    command_ended: str | None = None
    awaits_tmux: bool = False
    between: str = ""
    """While no attempt runs: how the last one ended, and when the next one begins."""

    @property
    def code(self) -> int | None:
        """The exit code of a command that has ended by itself."""
        words = (self.command_ended or "").rsplit(" ", 1)
        return int(words[1]) if words[0] == "exit code" and words[1].isdecimal() else None


@dataclass(frozen=True)
class Paused(Running):
    """It is stopped (SIGSTOP): it neither works nor prints."""


@dataclass(frozen=True)
class InSlurmQueue(Running):
    """Its runner lives, and Slurm has not let the job run yet: nothing of it has run."""

    why: str = ""


@dataclass(frozen=True)
class Elsewhere(Running):
    """It has no exit record and belongs to another machine with this state directory: only that machine knows more."""

    host: str = ""


@dataclass(frozen=True)
class Unreachable(Running):
    """It had not ended when its host was last reached; no more can be known here until it is reached again."""

    host: str = ""
    since: datetime = EPOCH


@dataclass(frozen=True)
class Exited:
    """The command ended by itself."""

    code: int
    note: str = ""
    success_codes: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Killed:
    """Ended by a signal, a person, a timeout: `reason` says which. `code` is set if it then exited with one."""

    reason: str
    signal: str | None
    code: int | None
    note: str = ""


@dataclass(frozen=True)
class NotStarted:
    """The command never ran."""

    error: str


@dataclass(frozen=True)
class Skipped:
    """Its turn can no longer come: a job that it was to come after failed."""

    why: str


@dataclass(frozen=True)
class Lost:
    """How it ended cannot be known."""

    reason: str
    detail: str


State = Queued | Starting | Running | Exited | Killed | NotStarted | Skipped | Lost


def derive_state(record: Record, here: Here, *, runner_alive: bool, monotonic: float) -> State:
    """The state of a job from its records and the present: whether its runner lives, and the clock in s."""
    if record.exit is not None:
        return _ended(record.exit)
    waits = record.job.queue is not None and record.run is None
    turn = record.turn
    stands = standing(
        here,
        machine=record.job.machine,
        boot=record.boot,
        namespace=record.run.namespace if record.run is not None else None,
        age_s=monotonic - (turn.monotonic if waits and turn is not None else record.job.created_monotonic),
        runner_alive=runner_alive,
    )
    if stands == "other-machine":
        return Elsewhere(host=record.job.host or record.job.machine)
    if waits and (turn is None or turn.why or stands != "starting"):
        return Queued()
    if stands == "starting":
        return Starting()
    asked = record.run is not None and record.job.ask_why and not record.run.approved
    if stands == "running" and asked:
        return AwaitsApproval(record.job.ask_why)
    if stands == "running" and (run := record.run) is not None:
        words = between(run.attempt, run.last_end, run.again_at, monotonic)
        return (Paused if run.paused else Running)(run.command_ended, run.awaits_tmux, words)
    return Lost(stands, "it was cut off while it waited for approval, so nothing ran" if asked else LOST[stands])


def _ended(record: ExitRecord) -> State:
    if record.reason in ("not-started", "refused"):
        return NotStarted(record.error or "no reason was recorded")
    if record.reason == "skipped":
        return Skipped(record.error or "no reason was recorded")
    if record.reason == "exit" and record.exit_code is not None:
        return Exited(record.exit_code, record.note, record.job.success_codes)
    if record.reason == "unknown":
        detail = "it has ended, and tmux, whose child it was, did not report its exit code"
        return Lost("unknown", record.note if record.job.slurm else detail)
    return Killed(record.reason, record.signal, record.exit_code, record.note)


def status_of(state: State) -> Status:
    """The word that agents and people see."""
    match state:
        case Queued() | InSlurmQueue():
            return "queued"
        case Paused():
            return "paused"
        case Unreachable():
            return "unknown"
        case Starting() | Running():
            return "running"
        case Exited(code, _, success_codes):
            return "completed" if code in success_codes else "failed"
        case Killed():
            return "killed"
        case NotStarted():
            return "failed"
        case Skipped():
            return "skipped"
        case Lost():
            return "lost"
        case _:
            assert_never(state)


def describe(state: State) -> str:
    """The state in words that fit after the status."""
    match state:
        case Queued():
            return "waits for its turn"
        case AwaitsApproval(why):
            return f"waits for approval by a person: {why}"
        case Starting():
            return "starting"
        case InSlurmQueue(why=why):
            return f"queued in Slurm: {why}"
        case Elsewhere(host=host):
            return f"running on host '{host}'"
        case Unreachable(host=host, since=since):
            if datetime.now(UTC) - since < FORGETTABLE:
                return f"host {host} unreachable since {since.astimezone():%H:%M}"
            at = f"{since.astimezone():%Y-%m-%d %H:%M}"
            return f"host {host} unreachable since {at}; `tmuxjobs prune --forget {host}` drops its jobs here"
        case Paused():
            return (
                "paused: it neither works nor prints; `resume` continues it, as `kill` does with signal CONT, end=false"
            )
        case Running(None, _, words):
            return words or "running"
        case Running(ended, True):
            return f"the command ended with {ended}; tmux is stopped, and has the end of its output"
        case Running(ended):
            return f"the command ended with {ended}, and processes that it started can still print"
        case Exited(code, note):
            return exit_words(code) + (f", {note}" if note else "")
        case Killed("signal", str() as signal_name, _, note):
            return f"killed by {signal_name}{f', {note}' if note else by_signal(signal_name)}"
        case Killed(reason, None, None, note) if note:
            return f"killed {KILLED_BY.get(reason, reason)}, {note}"
        case Killed(reason, signal_name, code):
            how = f", {signal_name}" if signal_name else f", exit code {code}" if code is not None else ""
            return f"killed {KILLED_BY.get(reason, reason)}{how}"
        case NotStarted(error):
            return f"not started: {error}"
        case Skipped(why):
            return f"skipped: {why}"
        case Lost(_, detail):
            return f"lost: {detail}"
        case _:
            assert_never(state)


@dataclass(frozen=True)
class Job:
    """A job as it was when it was read: its records, its state, and the folder of its files."""

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
        """Whether it has not ended: it runs, is starting, or waits for its turn."""
        return isinstance(self.state, Queued | Starting | Running)

    @property
    def queued(self) -> bool:
        return isinstance(self.state, Queued)

    @property
    def runs(self) -> bool:
        """Whether its runner lives, or may live on another machine (`Elsewhere`)."""
        return isinstance(self.state, Running)

    @property
    def awaits_approval(self) -> bool:
        return isinstance(self.state, AwaitsApproval)

    @property
    def lost(self) -> bool:
        return isinstance(self.state, Lost)

    @property
    def status(self) -> Status:
        return status_of(self.state)

    @property
    def detail(self) -> str:
        """Its state in words."""
        of = self.spec
        others = isinstance(self.state, Exited) and is_of_pipeline(of.command, of.shell, of.shell_options)
        return describe(self.state) + (", of the last command of the pipeline" if others else "")

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
