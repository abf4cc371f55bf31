"""Answers about the state of jobs: what every answer has, a line of `list`, and `status`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator

from tmuxjobs.contract import OPEN
from tmuxjobs.models import Model, ProcessRecord, Status, WaitsFor
from tmuxjobs.outcome import seconds, waiting
from tmuxjobs.visible import visible, visible_lines

Line = Annotated[str, AfterValidator(visible)]
"""Text of a job or a caller, on one line."""
Lines = Annotated[str, AfterValidator(visible_lines)]


class Answer(Model):
    """The answer of a verb."""

    def text(self) -> str:
        """The answer for a reader of only the text."""
        raise NotImplementedError

    def fields(self) -> dict[str, Any]:
        """The answer for a reader of only the fields, without empty ones; times to 1 s, durations to 0.1 s."""
        return said(self.model_dump(exclude_defaults=True))


class JobSummary(Answer):
    """One line of `list`. Times are UTC, `runtime` is in seconds, for a lost job possibly only the least."""

    job_id: str
    status: Status
    command: Lines
    started: datetime
    ended: datetime | None = None
    exit_code: int | None = None
    signal: Line | None = None
    reason: Line | None = None
    runtime: float
    runtime_is_exact: bool = True
    ready: bool | None = None
    attempts: int = 1
    waits_for: WaitsFor | None = None
    adopted: datetime | None = None
    left_running: tuple[ProcessRecord, ...] = ()
    project: Line | None = None
    group: Line | None = None
    place: int | None = None
    host: Line | None = None

    def fields(self) -> dict[str, Any]:
        """The fields that do not follow from others."""
        shown = super().fields()
        if self.reason == "exit":
            shown.pop("reason", None)
        return shown

    @property
    def ended_ago(self) -> str:
        """How long ago it ended, as `5m`; empty while it runs."""
        return seconds((datetime.now(UTC) - self.ended).total_seconds(), coarse=True) if self.ended else ""

    @property
    def how(self) -> str:
        """What the status leaves open: a failure's exit code, or what killed it; else empty."""
        if self.status in OPEN:
            ready = {True: "ready", False: "not ready", None: ""}[self.ready]
            attempt = f"attempt {self.attempts}" if self.attempts > 1 and not self.reason else ""
            place = f"place {self.place}: " if self.place else ""
            return place + ", ".join(filter(None, (self.reason, attempt, ready)))
        if self.status == "killed":
            return {"kill": "", "signal": self.signal or ""}.get(self.reason or "", self.reason or "")
        return str(self.exit_code) if self.exit_code else "refused" if self.reason == "refused" else ""

    def text(self) -> str:
        """One line: id, status, runtime, and last the command, which may be anything."""
        shown = shortened(self.command)
        waits = f", waits for {self.waits_for}" if self.waits_for else ""
        how = f"{self.status}{' ' * bool(self.how)}{self.how}"
        adopted = ", adopted" if self.adopted else ""
        left = f", left running: {name_processes(self.left_running)}" if self.left_running else ""
        project = f"  in {self.project}" if self.project else ""
        project = f"  on {self.host}{project}" if self.host else project
        took = seconds(self.runtime, exact=self.runtime_is_exact)
        if self.status == "queued":
            took = f"since {seconds((datetime.now(UTC) - self.started).total_seconds(), coarse=True)}"
        if self.ended:
            took += f", ended {self.ended_ago} ago"
        return f"{self.job_id}  {how}{adopted}{waits}{left}  {took}{project}  {shown}"


class JobList(Answer):
    """The answer of `list`: newest first; `total` counts beyond the limit, `damaged` says what is not readable.

    If there are jobs of several projects, each names its own; `other_projects` counts those left out for theirs.
    """

    jobs: tuple[JobSummary, ...]
    total: int
    other_projects: int = 0
    damaged: tuple[Line, ...] = ()

    def fields(self) -> dict[str, Any]:
        """What identifies each job and its state, with its start to the minute."""
        jobs = [one.fields() | {"command": shortened(one.command)} for one in self.jobs]
        for one, job in zip(jobs, self.jobs, strict=True):
            one["started"] = f"{job.started.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
            if one.pop("ended", None):
                one["ended_ago"] = job.ended_ago
                del one["runtime"]
            if not one.get("exit_code"):
                one.pop("exit_code", None)
        return super().fields() | {"jobs": jobs}

    def text(self) -> str:
        """One line per job, and how many are not shown."""
        lines = [job.text() for job in self.jobs]
        if self.total > len(self.jobs):
            lines.append(f"{len(self.jobs)} of {self.total} jobs, newest first; a larger `limit` shows more.")
        if self.other_projects:
            lines.append(
                f"{'and' if lines else 'No jobs in this project, and'} {self.other_projects} in other projects"
            )
        lines.extend(self.damaged)
        return "\n".join(lines) or "No jobs."


class JobStatus(JobSummary):
    """The answer of `status`. `log` says whether the log is whole, `cpu` is in seconds, memory in bytes."""

    detail: Line
    caller: Line = ""
    pid: int | None = None
    cwd: Line
    log_path: str
    stderr_path: str | None = None
    attach: str
    slurm: Line = ""
    log: Line
    log_bytes: int
    waiting_for_input: bool = False
    prompt: Line | None = None
    full_screen: bool = False
    timeout: float | None = None
    cpu: float | None = None
    max_rss_bytes: int | None = None
    survivors: tuple[ProcessRecord, ...] = ()
    not_touched: tuple[ProcessRecord, ...] = ()
    watchers: int = 0
    typed_ago: float | None = None
    held_since: datetime | None = None
    ready_when: Line = ""
    ready_note: Line = ""
    earlier: tuple[Line, ...] = ()

    @property
    def has_window(self) -> bool:
        """Whether a person can view it now, and type into it."""
        return self.status in ("running", "paused") or (self.status == "queued" and self.slurm != "")

    def fields(self) -> dict[str, Any]:
        """The fields: window and pid only while the job runs, the log's state only if something is wrong."""
        shown = super().fields()
        if self.log in ("recording", "complete"):
            del shown["log"]
        if self.has_window:
            shown["waiting_for_input"] = self.waiting_for_input
        else:
            shown.pop("attach", None)
            shown.pop("pid", None)  # it may be another's by now
        if not shown.get("cpu"):
            shown.pop("cpu", None)
        if self.detail == self.status or self.signal or self.exit_code is not None:
            shown.pop("detail", None)  # other fields say it
        if self.project == self.cwd:
            shown.pop("project", None)
        return shown

    def text(self) -> str:
        """Its state, what it is, where its log and window are, and what needs someone's attention."""
        how = self.detail if self.detail.startswith(self.status) else f"{self.status} ({self.detail})"
        lines = [f"{self.job_id}: {how}, {seconds(self.runtime, exact=self.runtime_is_exact)}"]
        # Its further lines are indented, as none of ours is.
        lines.append("command: " + self.command.replace("\n", "\n  "))
        pid = f"pid {self.pid}, " if self.pid is not None else ""
        began = "queued" if self.status == "queued" and self.place else "started"
        lines.append(f"{pid}{began} at {self.started.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
        lines.append(f"cwd: {self.cwd}")
        if self.project:
            lines.append(f"project: {self.project}, started by {self.caller}")
        lines.append(f"log: {visible(self.log_path)} ({self.log_bytes} bytes, {self.log})")
        if self.slurm:
            lines.append(f"slurm: {self.slurm}")
        if self.adopted:
            lines.append(
                f"A person started it and gave it over (adopted) at {self.adopted:%H:%M:%S} UTC: its log begins there, "
                "`screen` shows what is left from before; its environment is not known, it has no timeout."
            )
        if self.earlier:
            lines.append("; ".join(self.earlier))
        if self.ready is not None:
            note = f": {self.ready_note}" if self.ready_note else ""
            lines.append(f"{'ready' if self.ready else 'not ready'} ({self.ready_when}){note}")
        if self.stderr_path:
            lines.append(f"stderr: {visible(self.stderr_path)}")
        if self.has_window:
            lines.append(f"watch: {visible(self.attach)}")
        if self.waits_for:
            words = waiting(self.waits_for, self.prompt or "", self.attach, full_screen=self.full_screen)
            lines.append(f"It {words}")
        if self.held_since:
            lines.append(f"A person has held it since {self.held_since:%H:%M:%S} UTC: do not type into it nor end it.")
        if self.watchers:
            who = "A person watches" if self.watchers == 1 else f"{self.watchers} people watch"
            lines.append(f"{who} it; last key {seconds(self.typed_ago or 0.0)} ago.")
        if self.left_running:
            lines.append(f"It left running: {name_processes(self.left_running)}. `kill` ends them.")
        if self.survivors:
            lines.append(f"Could not be ended: {name_processes(self.survivors)}.")
        if self.not_touched:
            lines.append(in_doubt(self.not_touched))
        return "\n".join(lines)


class Group(Answer):
    """The answer of `group`; a `limit` of 0 is none, `paused_jobs` are those that its pause has stopped."""

    group: str
    limit: int
    paused: bool
    running: int
    queued: int
    paused_jobs: tuple[str, ...] = ()

    def text(self) -> str:
        """The state of the group."""
        limit = f"{self.limit} may run at once" if self.limit else "no limit of its own"
        held = ", paused: none of those that wait starts" if self.paused else ""
        jobs = f", paused with it: {', '.join(self.paused_jobs)}" if self.paused_jobs else ""
        return f"group {self.group}: {self.running} running, {self.queued} queued, {limit}{held}{jobs}."


class Edited(Answer):
    """The answer of `queue`, `pause` and `resume`: the job's state now."""

    job_id: str
    status: Status
    detail: Line

    def text(self) -> str:
        """Its place in the queue and why it waits, or its state."""
        return f"{self.job_id}: {self.detail}."


def shortened(command: str) -> str:
    """The command on one line of at most 80 characters."""
    command = " ".join(command.split())
    return command if len(command) <= 80 else command[:79] + "…"


def said(value: dict[str, Any]) -> dict[str, Any]:
    """The value as for JSON, without what is null or empty."""
    brief = {name: _brief(part) for name, part in value.items()}
    return {name: part for name, part in brief.items() if part not in (None, "", [], {})}


def _brief(value: Any) -> Any:
    match value:
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case float():
            shown = round(value, 1)
            return shown if shown % 1 else int(shown)
        case dict():
            return said(value)
        case tuple() | list():
            return [_brief(part) for part in value]
    return value


def in_doubt(processes: tuple[ProcessRecord, ...]) -> str:
    """A note about processes that may be the job's, without proof."""
    return f"May be left of it, but nothing proves it, so `kill` does not touch: {name_processes(processes)}."


def name_processes(processes: tuple[ProcessRecord, ...]) -> str:
    return ", ".join(f"{visible(process.name)} ({process.pid})" for process in processes)


FILES = 50
"""The most names that are given."""


class Fetched(Answer):
    """The answer of `fetch`: what was missing or different here, by its names in `to`; `note` has what was left out."""

    job_id: str
    to: str
    files: tuple[Line, ...] = ()
    size_bytes: int = 0
    note: Line = ""

    def text(self) -> str:
        note = f"\n[{self.note}]" if self.note else ""
        if not self.files:
            return f"Fetched nothing into {visible(self.to)}.{note}"
        shown = [*self.files[:FILES], *([f"and {len(self.files) - FILES} more"] if len(self.files) > FILES else [])]
        names = "\n".join(shown)
        return f"Fetched {len(self.files)} files ({self.size_bytes} bytes) into {visible(self.to)}:\n{names}{note}"

    def fields(self) -> dict[str, Any]:
        shown = super().fields()
        if len(self.files) > FILES:
            shown |= {"files": [*self.files[:FILES], f"and {len(self.files) - FILES} more"]}
        return shown
