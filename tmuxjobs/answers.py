"""The answers of the verbs, and the text of each: many clients show a model the text alone, so it stands by itself.

What comes from jobs and callers is made visible (`visible.py`) in the fields as in the text, but for paths, which are
to be used, and for raw output, which was asked for. Lines of ours that stand behind or among a job's output begin with
`== ` or come after a line `==`; a line of output that begins like that is shown with a backslash before it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tmuxjobs.fence import FENCE, fenced, printed, quoted
from tmuxjobs.models import Model, ProcessRecord, Status
from tmuxjobs.outcome import seconds
from tmuxjobs.visible import visible, visible_lines

Line = Annotated[str, AfterValidator(visible)]
"""Of a job or a caller, on one line."""
Lines = Annotated[str, AfterValidator(visible_lines)]


class Answer(Model):
    """What a verb answers."""

    def text(self) -> str:
        """The answer for a reader of text alone."""
        raise NotImplementedError


WaitsFor = Literal["input", "password"]


def waiting(waits_for: WaitsFor, prompt: str, attach: str) -> str:
    """What a job waits for, in words that say what to do."""
    if waits_for == "password":
        return f"waits for a password ({prompt!r}): ask the person to type it there: {attach}"
    return f"waits for input: {prompt!r}" if prompt else "waits for input"


class JobSummary(Answer):
    """One line of `list`. Times are UTC, `runtime` is in seconds."""

    job_id: str
    status: Status
    command: Lines
    started: datetime
    ended: datetime | None = None
    exit_code: int | None = None
    signal: Line | None = None
    reason: Line | None = None
    runtime: float
    waits_for: WaitsFor | None = None
    adopted: datetime | None = None

    @property
    def how(self) -> str:
        """What its status leaves open: the exit code of a failure, what killed it; empty where there is no more."""
        if self.status == "killed":
            return {"kill": "", "signal": self.signal or ""}.get(self.reason or "", self.reason or "")
        return str(self.exit_code) if self.exit_code else ""

    def text(self) -> str:
        """One line: id, status, runtime, and last the command, which may be anything."""
        command = " ".join(self.command.split())
        shown = command if len(command) <= 80 else command[:79] + "…"
        waits = f", waits for {self.waits_for}" if self.waits_for else ""
        how = f"{self.status}{' ' * bool(self.how)}{self.how}"
        adopted = ", adopted" if self.adopted else ""
        return f"{self.job_id}  {how}{adopted}{waits}  {seconds(self.runtime)}  {shown}"


class JobList(Answer):
    """The answer of `list`: newest first; `total` counts beyond the limit, `damaged` says what is not readable."""

    jobs: tuple[JobSummary, ...]
    total: int
    damaged: tuple[Line, ...] = ()

    def text(self) -> str:
        """A line a job, and how many are not shown."""
        lines = [job.text() for job in self.jobs]
        if self.total > len(self.jobs):
            lines.append(f"{len(self.jobs)} of {self.total} jobs, newest first; a larger `limit` shows more.")
        lines.extend(self.damaged)
        return "\n".join(lines) or "No jobs."


class JobStatus(JobSummary):
    """The answer of `status`. `log` says whether the log is whole, `cpu` is in seconds, memory in bytes."""

    detail: Line
    pid: int | None = None
    cwd: Line
    log_path: str
    stderr_path: str | None = None
    attach: str
    log: Line
    log_bytes: int
    waiting_for_input: bool = False
    prompt: Line | None = None
    timeout: float | None = None
    cpu: float | None = None
    max_rss_bytes: int | None = None
    left_running: tuple[ProcessRecord, ...] = ()
    survivors: tuple[ProcessRecord, ...] = ()
    not_touched: tuple[ProcessRecord, ...] = ()
    watchers: int = 0
    typed_ago: float | None = None
    held_since: datetime | None = None

    def text(self) -> str:
        """How it stands, what it is, where its log and window are, and what needs someone's attention."""
        how = "" if self.detail == self.status else f" ({self.detail})"
        lines = [f"{self.job_id}: {self.status}{how}, {seconds(self.runtime)}"]
        # Its further lines are set in, for none of ours is.
        lines.append("command: " + self.command.replace("\n", "\n  "))
        lines.append(f"cwd: {self.cwd}")
        lines.append(f"log: {visible(self.log_path)} ({self.log_bytes} bytes, {self.log})")
        if self.adopted:
            lines.append(
                f"A person started it and gave it over (adopted) at {self.adopted:%H:%M:%S} UTC: its log begins there, "
                "`screen` shows what is left from before; its environment is not known, it has no timeout."
            )
        if self.stderr_path:
            lines.append(f"stderr: {visible(self.stderr_path)}")
        if self.status == "running":
            lines.append(f"watch: {visible(self.attach)}")
        if self.waits_for:
            lines.append(f"It {waiting(self.waits_for, self.prompt or '', self.attach)}")
        if self.held_since:
            lines.append(f"A person holds it since {self.held_since:%H:%M:%S} UTC: do not type into it nor end it.")
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


def where(log_path: str, attach: str) -> str:
    return f"log: {visible(log_path)}\nwatch: {visible(attach)}"


class Started(Answer):
    """The answer of `execute`."""

    job_id: str
    status: Status
    log_path: str
    attach: str

    def text(self) -> str:
        """The id and where to look."""
        return f"Started {self.job_id} ({self.status}).\n{where(self.log_path, self.attach)}"


class Adopted(Started):
    """The answer of `adopt`: the window's job."""

    window: Line
    note: Line = ""

    def text(self) -> str:
        """The id, where to look, and what is not known of it."""
        note = f"\nnote: {self.note}" if self.note else ""
        return (
            f"Adopted {self.window} as {self.job_id} ({self.status}).\nlog: {visible(self.log_path)} (from now on)\n"
            f"watch: {visible(self.attach)}{note}"
        )


class Restarted(Started):
    """The answer of `restart`: the new job, and the old one's id."""

    restarted: str
    note: Line = ""

    def text(self) -> str:
        """As of `execute`, and what was not carried over."""
        return super().text() + (f"\nnote: {self.note}" if self.note else "")


class Output(Answer):
    """The answer of `output`, `tail` and `interact`; `cursor` is the raw offset to go on from.

    The text is clean and what it hides is made visible; raw output is as the job printed it.
    `stderr` is empty unless the job keeps the two apart. `more` says that bytes after `cursor` are already there.
    """

    stdout: Lines
    stderr: Lines = ""
    cursor: int
    stderr_cursor: int | None = None
    status: Status
    more: bool = False
    omitted_bytes: int = 0
    omitted_lines: int = 0
    omitted_at: int | None = None
    gone_bytes: int = 0
    note: Line = ""

    def text(self) -> str:
        """The output itself, then one line with the status, the cursor and what is missing."""
        parts = printed(self.stdout, self.stderr)
        facts = [self.status, f"cursor {self.cursor}"]
        if self.stderr_cursor is not None:
            facts.append(f"stderr cursor {self.stderr_cursor}")
        if self.more:
            facts.append("more is there: go on from the cursor")
        if self.note:
            facts.append(self.note)
        nothing = "(no new output)\n" if self.cursor else "(no output)\n"
        return fenced(parts, f"{'' if parts else nothing}[{', '.join(facts)}]")


class WaitedJob(Model):
    """One of several that were waited for; `reason` is empty while its wait is not over, the output as in `output`."""

    job_id: str
    reason: str | None
    status: Status
    exit_code: int | None
    note: Line
    stdout: Lines
    stderr: Lines
    cursor: int

    def parts(self) -> list[str]:
        """One line with id, status, what of the wait, and the cursor; then the output."""
        code = f" {self.exit_code}" if self.exit_code is not None else ""
        how = f"{self.status}{code}, {self.reason or 'still waited for'}, cursor {self.cursor}"
        return [f"{FENCE} {self.job_id}: {how}", *printed(self.stdout, self.stderr)]


class Waited(Answer):
    """The answer of `wait`: `reason` says what ended it, the rest is as in `output`.

    Of several jobs `job_id` is the one that ended the wait, and `jobs` tells of each, within the same budget.
    """

    job_id: str
    reason: str
    status: Status
    exit_code: int | None = None
    runtime: float
    stdout: Lines
    stderr: Lines = ""
    cursor: int
    waits_for: WaitsFor | None = None
    prompt: Line | None = None
    note: Line = ""
    jobs: tuple[WaitedJob, ...] = ()

    def text(self) -> str:
        """The output, of several jobs that of each, then one line with why the wait is over."""
        parts = [part for job in self.jobs for part in job.parts()] or printed(self.stdout, self.stderr)
        note = f": {self.note}" if self.note else ""
        facts = f"{self.job_id} {self.status}, {seconds(self.runtime)}, cursor {self.cursor}"
        if self.reason in ("pattern", "fail_pattern"):
            # The note has the line that matched, which is the job's: nothing of ours comes behind it.
            return fenced(parts, f"[{self.reason}; {facts}{note}]")
        return fenced(parts, f"[{self.reason}{note}; {facts}]")


class Ran(Waited, Started):
    """The answer of `execute` with `wait`: what `wait` answers, and what `execute` does."""

    def text(self) -> str:
        """As of `wait`, and where to look while it runs on."""
        more = f"\n{where(self.log_path, self.attach)}" if self.status == "running" else ""
        return Waited.text(self) + more


class FoundLine(Model):
    """A line that matches; `cursor` is where it begins in its stream, its raw offset.

    After bytes that are gone `line` counts the lines on disk alone, and `line_is_exact` is false.
    """

    stream: str
    line: int
    line_is_exact: bool = True
    cursor: int
    text: Lines
    before: tuple[Lines, ...] = ()
    after: tuple[Lines, ...] = ()


class Found(Answer):
    """The answer of `search`. `more` says that the cursors lead to further matches, or to what time did not reach."""

    matches: tuple[FoundLine, ...]
    total: int
    total_is_exact: bool = True
    more: bool = False
    cursor: int
    stderr_cursor: int | None = None
    gone_bytes: int = 0
    status: Status
    note: Line = ""

    def text(self) -> str:
        """As grep shows them, `line:text`, and how many there are."""
        lines = self._rows("stdout")
        errors = self._rows("stderr")
        lines += [f"{FENCE} stderr", *errors] if errors else []
        return fenced(lines, f"[{self._facts()}]")

    def _rows(self, stream: str) -> list[str]:
        matches = [match for match in self.matches if match.stream == stream]
        rows: dict[int, str] = {}
        for match in matches:
            around = (*enumerate(match.before, match.line - len(match.before)), *enumerate(match.after, match.line + 1))
            rows |= {line: f"{line}-{text}" for line, text in around if line not in rows}
        apart = bool(rows)
        rows |= {match.line: f"{match.line}:{match.text}" for match in matches}
        shown: list[str] = []
        for line in sorted(rows):
            shown += ["--"] if apart and shown and line - 1 not in rows else []
            shown.append(rows[line])
        return shown

    def _facts(self) -> str:
        least = "" if self.total_is_exact else "at least "
        facts = [f"{least}{self.total} matching line{'' if self.total == 1 else 's'}, {self.status}"]
        if self.matches:
            facts.append(f"the first at cursor {self.matches[0].cursor}")
        if self.more:
            err = f", stderr_cursor {self.stderr_cursor}" if self.stderr_cursor is not None else ""
            facts.append(f"{len(self.matches)} shown; cursor {self.cursor}{err} goes on")
        if not self.total_is_exact:
            facts.append("the time for one search was over")
        if self.gone_bytes:
            facts.append(f"{self.gone_bytes} bytes are gone")
        if not all(match.line_is_exact for match in self.matches):
            facts.append("line numbers after what is gone count the lines that are left")
        facts += [self.note] if self.note else []
        return "; ".join(facts)


class Screen(Answer):
    """The answer of `screen`. Rows and columns count from 1; `mode` is tmux's while the person scrolls back."""

    screen: Lines
    cursor_row: int
    cursor_column: int
    columns: int
    rows: int
    alternate: bool
    mode: Line = ""
    status: Status
    styled: tuple[str, ...] = Field(default=(), exclude=True, repr=False)
    cursor_visible: bool = Field(default=True, exclude=True)
    png: bytes | None = Field(default=None, exclude=True, repr=False)

    def text(self) -> str:
        """The screen, then one line about it."""
        facts = [self.status, f"{self.columns}x{self.rows}", f"cursor in row {self.cursor_row}"]
        facts[-1] += f", column {self.cursor_column}"
        facts += ["full-screen program"] if self.alternate else []
        facts += [f"the person is in {self.mode}, so this may be an earlier part"] if self.mode else []
        return fenced([quoted(self.screen)] if self.screen else [], f"[{', '.join(facts)}]")


class HoldAnswer(Answer):
    """The answer of `hold` and `release`."""

    job_id: str
    held: bool
    detail: Line

    def text(self) -> str:
        """Whose it is now."""
        return f"{self.job_id}: {self.detail}."


class Kill(Answer):
    """The answer of `kill`."""

    job_id: Line
    status: Literal["killed", "already_terminated", "not_found"]
    detail: Line
    survivors: tuple[ProcessRecord, ...] = ()
    not_touched: tuple[ProcessRecord, ...] = ()

    def text(self) -> str:
        """The answer, who outlived it, and who may be of the job and was not signalled."""
        lives = f" Could not be ended: {name_processes(self.survivors)}." if self.survivors else ""
        how = self.detail if self.detail.startswith(self.status) else f"{self.status}: {self.detail}"
        doubt = f" {in_doubt(self.not_touched)}" if self.not_touched else ""
        return f"{self.job_id}: {how}.{lives}{doubt}"


class Finding(Model):
    """One thing that `doctor` looked at: `text` says what is so and, when it is not `ok`, what to do."""

    name: str
    ok: bool
    text: Line


class Diagnosis(Answer):
    """The answer of `doctor`."""

    healthy: bool
    checks: tuple[Finding, ...]
    fixed: tuple[Line, ...] = ()

    def text(self) -> str:
        """A line a check, and what was removed."""
        lines = [f"{'ok   ' if one.ok else 'WRONG'} {one.name}: {one.text}" for one in self.checks]
        return "\n".join([*(f"removed {what}" for what in self.fixed), *lines])


def in_doubt(processes: tuple[ProcessRecord, ...]) -> str:
    """What to say of processes that nobody can prove to be a job's."""
    return f"May be left of it, but nothing proves it, so `kill` does not touch: {name_processes(processes)}."


def name_processes(processes: tuple[ProcessRecord, ...]) -> str:
    return ", ".join(f"{visible(process.name)} ({process.pid})" for process in processes)


def ran(begun: Started, waited: Waited) -> Ran:
    """The answer of `execute` with `wait`."""
    return Ran(**dict(waited), log_path=begun.log_path, attach=begun.attach)
