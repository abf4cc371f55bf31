"""The answers of the verbs, and the text of each: many clients show a model only the text, so it is complete by itself.

What comes from jobs and callers is made visible (`visible.py`) in the fields and in the text, except paths, which are
to be used, and raw output, which was asked for. Our lines after or among a job's output begin with `== ` or come after
a line `==`; a line of output that begins like that is shown with a backslash before it.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import Field

from tmuxjobs.contract import OPEN
from tmuxjobs.job_answers import (
    Answer,
    Line,
    Lines,
    in_doubt,
    name_processes,
)
from tmuxjobs.models import Model, ProcessRecord, Status, WaitsFor
from tmuxjobs.outcome import seconds, waiting
from tmuxjobs.visible import FENCE, fenced, printed, quoted, visible


def where(started: Started) -> str:
    there = f"{started.host}:" if started.host else ""
    return f"log: {there}{visible(started.log_path)}\nwatch: {visible(started.attach)}"


WAITS: dict[WaitsFor | None, tuple[str, ...]] = {"input": ("it waits for input",), "keys": ("it takes single keys",)}
ENDS_WITH_SCREEN = "a full-screen program: stdout ends with its screen"


def without_notes(shown: dict[str, Any], *said: str) -> dict[str, Any]:
    """The fields, with these parts removed from the note, since other fields have them."""
    note = "; ".join(part for part in shown.pop("note", "").split("; ") if part not in said)
    return shown | ({"note": note} if note else {})


class Started(Answer):
    """The answer of `execute`."""

    job_id: str
    status: Status
    host: str | None = None
    log_path: str
    attach: str
    waits_for: WaitsFor | None = None
    reused: Literal[True] | None = None
    """Nothing was started: a job of that name had not ended."""
    note: Line = ""

    def text(self) -> str:
        """The id, where to look, and the notes."""
        there = f" on {self.host}" if self.host else ""
        if self.reused:
            note = f"\nnote: {self.note}" if self.note else ""
            return f"{self.job_id} has not ended ({self.status}){there}, so nothing was started.\n{where(self)}{note}"
        if self.status == "queued":
            return f"{self.job_id} is queued, {self.note}; `wait` reports its end.\nlog: {visible(self.log_path)}"
        how = f"{self.job_id} waits for approval" if self.waits_for else f"Started {self.job_id} ({self.status})"
        how += there
        note = f"\nnote: {self.note}" if self.note else ""
        return f"{how}.\n{where(self)}{note}"


class Adopted(Started):
    """The answer of `adopt`: the window's job."""

    window: Line

    def text(self) -> str:
        note = f"\nnote: {self.note}" if self.note else ""
        return (
            f"Adopted {self.window} as {self.job_id} ({self.status}).\nlog: {visible(self.log_path)} (from now on)\n"
            f"watch: {visible(self.attach)}{note}"
        )


class Restarted(Started):
    """The answer of `restart`: the new job, and the old one's id."""

    restarted: str


class Output(Answer):
    """The answer of `output`, `tail` and `interact`; `cursor` is the raw offset to go on from.

    The text is clean and what it hides is made visible; raw output is as the job printed it.
    `stderr` is empty unless the job keeps the two apart. `more` says that bytes after `cursor` are already there.
    After typing, `waits_for`, `exit_code` and `full_screen` (the output ends with the screen) say what resulted.
    """

    gives_output: ClassVar[bool] = True
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
    waits_for: WaitsFor | None = None
    full_screen: bool = False
    exit_code: int | None = None
    note: Line = ""

    def fields(self) -> dict[str, Any]:
        """The note says only what no other field does."""
        said = [*WAITS.get(self.waits_for, ()), f"the job ended: exit code {self.exit_code}"]
        return without_notes(super().fields(), *said, *([ENDS_WITH_SCREEN] if self.full_screen else ()))

    def text(self) -> str:
        """The output itself, then one line with the status, the cursor and what is missing."""
        parts = printed(self.stdout, self.stderr)
        facts = [self.status, f"cursor {self.cursor}"]
        if self.stderr_cursor is not None:
            facts.append(f"stderr cursor {self.stderr_cursor}")
        if self.more:
            facts.append("there is more: continue from the cursor")
        if self.note:
            facts.append(self.note)
        nothing = "(no new output)\n" if self.cursor else "(no output)\n"
        return fenced(parts, f"{'' if parts else nothing}[{', '.join(facts)}]")


class WaitedJob(Model):
    """One of several jobs of a wait; `reason` is empty while its wait is not over, the output is as in `output`."""

    job_id: str
    reason: str | None
    status: Status
    exit_code: int | None
    note: Line
    stdout: Lines
    stderr: Lines
    cursor: int

    def parts(self) -> list[str]:
        """One line with id, status, how its wait ended, and the cursor; then the output."""
        code = f" {self.exit_code}" if self.exit_code is not None else ""
        how = f"{self.status}{code}, {self.reason or 'still waited for'}, cursor {self.cursor}"
        return [f"{FENCE} {self.job_id}: {how}", *printed(self.stdout, self.stderr)]


class Waited(Answer):
    """The answer of `wait`: `reason` says what ended it, the rest is as in `output`.

    For several jobs `job_id` is the one that ended the wait, or failed; `jobs` has each, within the same budget.
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
    failed: tuple[str, ...] = ()

    def fields(self) -> dict[str, Any]:
        """Several jobs each have their own, except the reason; note and `prompt` say only what no other field does."""
        shown = super().fields()
        if self.jobs or (self.status in OPEN and self.reason != "timeout"):
            shown.pop("runtime", None)
        if self.reason == self.waits_for:
            shown.pop("waits_for", None)
        if self.prompt and self.stdout.rstrip().endswith(self.prompt.rstrip()):
            shown.pop("prompt", None)
        for name in ("status", "exit_code", "stdout", "stderr", "cursor", "failed") if self.jobs else ():
            shown.pop(name, None)
        for one in shown.get("jobs", ()):
            if one.get("reason") == "exit":
                del one["reason"]
            if one.get("note") == f"exit code {one.get('exit_code')}":
                del one["note"]
            if one["status"] not in OPEN:
                del one["cursor"]
        shown["note"] = self.without_prompt(self.note)
        return without_notes(shown, *filter(self.is_said, self.note.split("; ")))

    def is_said(self, part: str) -> bool:
        """Whether the fields already say what a part of the note does: how a job ended."""
        # The note of a match has a line of the job's.
        return self.reason not in ("pattern", "fail_pattern") and part == f"exit code {self.exit_code}"

    def without_prompt(self, note: str) -> str:
        """The note without what the fields say, what a job waits for and its prompt, and without the caller's URL."""
        if self.reason == "url":
            return re.sub(r"^https?://\S+ (?=answers)", "", note)
        if self.waits_for not in ("input", "password"):
            return note
        for part in (f" ({self.prompt!r})", f": {self.prompt!r}", "it waits for a password: "):
            note = note.replace(part, "", 1)
        note = note.replace(f"it {waiting('input', '', '', full_screen=True)}", "full-screen: `screen` shows it", 1)
        return "; ".join(part for part in note.split("; ") if part not in WAITS["input"])

    def text(self) -> str:
        """The output, for several jobs that of each, then one line with why the wait is over."""
        parts = [part for job in self.jobs for part in job.parts()] or printed(self.stdout, self.stderr)
        note = f": {self.note}" if self.note else ""
        facts = f"{self.job_id} {self.status}, {seconds(self.runtime)}, cursor {self.cursor}"
        if self.reason in ("pattern", "fail_pattern"):
            # The note has the line that matched, which is the job's: nothing of ours may follow it.
            return fenced(parts, f"[{self.reason}; {facts}{note}]")
        return fenced(parts, f"[{self.reason}{note}; {facts}]")


class Ran(Waited, Started):
    """The answer of `execute` with `wait`: the fields of both answers.

    `restarted` is the job that it replaces, if this is the answer of `restart`.
    """

    restarted: str = ""
    asked_to_wait: bool = Field(default=True, exclude=True)

    def fields(self) -> dict[str, Any]:
        """Says where the log and window are only while the job runs, or without a wait: else the output is here."""
        shown = super().fields()
        if self.asked_to_wait:
            shown.pop("log_path", None)
        if self.asked_to_wait and self.status not in OPEN:
            shown.pop("attach", None)
        if "note" in shown and "attach" in shown:
            shown["note"] = shown["note"].replace(self.attach, "`attach`")
        return shown

    def text(self) -> str:
        """The text of `wait`, and where to watch while the job runs on."""
        again = f"\n{self.restarted} was started again as {self.job_id}." if self.restarted else ""
        again += f"\n{self.job_id} had not ended, so nothing was started." if self.reused else ""
        more = f"\nwatch: {visible(self.attach)}" if self.status in OPEN else ""
        return Waited.text(self) + again + more


class FoundLine(Model):
    """A line that matches; `cursor` is where it begins in its stream, its raw offset.

    After bytes that are gone `line` counts only the lines on disk, and `line_is_exact` is false.
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

    def fields(self) -> dict[str, Any]:
        """The fields, without the stream of a match in stdout, and without the cursor when nothing more can come."""
        shown = super().fields()
        if self.status not in OPEN and not self.more:
            shown.pop("cursor", None)
        for match in shown.get("matches", ()):
            if match["stream"] == "stdout":
                del match["stream"]
        return shown

    def text(self) -> str:
        """The lines, and how many there are."""
        return fenced(self.lines(), self.facts())

    def lines(self) -> list[str]:
        """As grep shows them: `line:text`, and those around them `line-text`."""
        errors = self._rows("stderr")
        return [*self._rows("stdout"), *([f"{FENCE} stderr", *errors] if errors else [])]

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

    def facts(self) -> str:
        """How many lines match, and what else is to be known of them, in brackets."""
        least = "" if self.total_is_exact else "at least "
        facts = [f"{least}{self.total} matching line{'' if self.total == 1 else 's'}, {self.status}"]
        if self.matches:
            facts.append(f"the first at cursor {self.matches[0].cursor}")
        if self.more:
            err = f", stderr_cursor {self.stderr_cursor}" if self.stderr_cursor is not None else ""
            facts.append(f"{len(self.matches)} shown; continue at cursor {self.cursor}{err}")
        if not self.total_is_exact:
            facts.append("the search ran out of time")
        if not all(match.line_is_exact for match in self.matches):
            facts.append("line numbers after the gap count only the lines that are left")
        facts += [self.note] if self.note else []
        return f"[{'; '.join(facts)}]"


class Screen(Answer):
    """The answer of `screen`. Rows and columns count from 1; `mode` is tmux's while the person scrolls back."""

    screen: Lines
    cursor_row: int
    cursor_column: int
    columns: int
    rows: int
    alternate: bool = False
    mode: Line = ""
    status: Status
    styled: tuple[str, ...] = Field(default=(), exclude=True, repr=False)
    cursor_visible: bool = Field(default=True, exclude=True)
    png: bytes | None = Field(default=None, exclude=True, repr=False)

    def fields(self) -> dict[str, Any]:
        """The fields, with a note if the screen is empty, as no other field says so."""
        return super().fields() | ({} if self.screen else {"note": "nothing is on the screen"})

    def text(self) -> str:
        """The screen, then one line about it."""
        facts = [self.status, f"{self.columns}x{self.rows}", f"cursor in row {self.cursor_row}"]
        facts[-1] += f", column {self.cursor_column}"
        facts += ["full-screen program"] if self.alternate else []
        facts += [] if self.screen else ["nothing is on the screen"]
        facts += [f"the person is in {self.mode}, so this may be an earlier part"] if self.mode else []
        return fenced([quoted(self.screen)] if self.screen else [], f"[{', '.join(facts)}]")


class HoldAnswer(Answer):
    """The answer of `hold` and `release`."""

    job_id: str
    held: bool
    detail: Line

    def text(self) -> str:
        """Who has the job now."""
        return f"{self.job_id}: {self.detail}."


class Approval(Answer):
    """The answer of `approve` and `refuse`."""

    job_id: str
    approved: bool
    detail: Line

    def text(self) -> str:
        """What happens to the job now."""
        return f"{self.job_id}: {self.detail}."


class Kill(Answer):
    """The answer of `kill`."""

    job_id: Line
    status: Literal["killed", "already_terminated", "not_found", "signalled", "refused"]
    detail: Line
    survivors: tuple[ProcessRecord, ...] = ()
    not_touched: tuple[ProcessRecord, ...] = ()

    def fields(self) -> dict[str, Any]:
        """How it was killed is included only where that was unusual."""
        shown = super().fields()
        if (self.status, self.detail) == ("killed", "killed on request, SIGTERM"):
            shown.pop("detail", None)
        return shown

    def text(self) -> str:
        """The answer, the processes that survived, and those that may be the job's and were not signalled."""
        lives = f" Could not be ended: {name_processes(self.survivors)}." if self.survivors else ""
        how = self.detail if self.detail.startswith(self.status) else f"{self.status}: {self.detail}"
        doubt = f" {in_doubt(self.not_touched)}" if self.not_touched else ""
        return f"{self.job_id}: {how}.{lives}{doubt}"


class Kills(Answer):
    """The answer of `kill` for several jobs."""

    jobs: tuple[Kill, ...]

    def fields(self) -> dict[str, Any]:
        """The fields of each."""
        return {"jobs": [one.fields() for one in self.jobs]}

    def text(self) -> str:
        """One line per job."""
        return "\n".join(one.text() for one in self.jobs)


class Finding(Model):
    """One finding of `doctor`: `text` says what it found and, when that is not `ok`, what to do."""

    name: str
    ok: bool
    text: Line


class Diagnosis(Answer):
    """The answer of `doctor`."""

    healthy: bool
    checks: tuple[Finding, ...]
    fixed: tuple[Line, ...] = ()

    def text(self) -> str:
        """What was removed, and one line per check."""
        lines = [f"{'ok   ' if one.ok else 'WRONG'} {one.name}: {one.text}" for one in self.checks]
        return "\n".join([*(f"removed {what}" for what in self.fixed), *lines])


def ran(begun: Started, waited: Waited) -> Ran:
    """The answer of `execute`, or of `restart`, with `wait`."""
    given = {**dict(waited), "host": begun.host, "reused": begun.reused}
    answer = Ran(**given, log_path=begun.log_path, attach=begun.attach)
    if isinstance(begun, Restarted):
        notes = "; ".join(filter(None, (begun.note, waited.note)))
        return answer.model_copy(update={"restarted": begun.restarted, "note": notes})
    return answer
