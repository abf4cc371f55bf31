"""Which jobs wait for input: those whose program in front reads the terminal; with prompts, and passwords recognised.

Servers notify people of it, and `main` does for the welcome page when there is no server. An exchange with a
program that reads lines is one `Turn`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tmuxjobs.errors import StateError, TmuxError, apart, raised
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import WaitsFor
from tmuxjobs.states import Job
from tmuxjobs.system import terminals
from tmuxjobs.system.terminals import Front, Terminal
from tmuxjobs.text import paging
from tmuxjobs.text.log import Log, log_size
from tmuxjobs.text.row import cut
from tmuxjobs.tmux.panes import Asking, Pane, Screen

Shows = Callable[[Job], Screen | None]
QUIET_S = 0.05
"""The log is this far behind at most; until then the prompt may be incomplete."""
TICKS_S = 5.0
"""A program that wakes by the clock this often or more may draw each time; if it has not drawn, it waits."""
KEYS_QUIET_S = 0.5
ENDS_S = 10.0
"""A wait for a line of at least this long has a time limit; a program that polls more often works in between."""
SKEW_S = 5.0
"""How far a log's time may be in the future; beyond that it was written before the wall clock was set back."""
TMUX_S = 1.0
"""Limit for tmux to show a screen; a job's state does not depend on it."""
PROMPT_CHARS = 300
KEYS_LINES = 4
"""How many lines are shown of a screen whose program takes single keys."""
TAIL_BYTES = 1 << 16
WORDS = (
    r"(?:pass(?:word|wd|phrase|code)|\bpin\b|\botp\b|one-time (?:code|password)|(?:verification|security|auth\w*) code"
)
WORDS += r"|(?:api|access|secret)[ _-](?:key|token)|\btoken\b)"
SECRET = re.compile(WORDS + r"(?:[^\n:>$#%]|:(?! )){0,80}[:?\u203a\u2023\xbb]?\s*$", re.IGNORECASE)
"""A question for a password: little comes between the word and what is typed, such as for whom it is."""
ASIDE = re.compile(r"\([^()\n]{1,80}\)|\[[^\[\]\n]{1,80}\]")
"""Brackets hold what may be typed, or the default."""
YES_OR_NO = re.compile(r"[(\[]\s*y(es)?\s*[/|,]\s*no?\b", re.IGNORECASE)
AT_A_SHELL = re.compile(r"^[^\n]*[#$%] +\S")
"""A line that is being typed at a shell's prompt."""
HINT = re.compile(WORDS, re.IGNORECASE)
HINT_BYTES = 1 << 14
PLACED = re.compile(rb"\x1b\[[0-9;]*[Hfd]|\x1b\[\?(?:1049|1047|47)h")
"""What who draws the whole screen sends all the time, and others seldom: a place for the cursor."""
CONTROL = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[()][0-9A-Z]|\x1b[ -/]*[0-~]")


@dataclass(frozen=True)
class Prompt:
    """What a job asks for, and the line it asks with: its last line or, if it draws the screen, that of the cursor."""

    waits_for: WaitsFor
    text: str
    full_screen: bool = False
    is_sure: bool = True
    """False for keys of a program that waits for other things too, such as a test runner that watches files."""


def prompt(host: Host, job: Job) -> Prompt | None:
    """What the job waits for now; None when it does not, and when that cannot be known."""
    return raised(lambda faults: prompts(host, [job], faults=faults)).get(job.id)


def prompts(host: Host, jobs: Iterable[Job], *, faults: list[str]) -> dict[str, Prompt]:
    """{job id: what it waits for} for the running jobs that wait, at the cost of one read of the process table.

    A fault in one job's log or terminal is named in *faults*.
    """
    ttys: dict[str, Job] = {}
    begun: dict[str, int | None] = {}
    for job in jobs:
        with apart(job.id, faults):
            # A job of sbatch has no terminal, and that of its runner may belong to another program by now.
            if job.run is not None and not job.spec.detached and host.is_here(job.run) and not is_printing(job):
                ttys[job.run.tty], begun[job.id] = job, _attempt(host, job)
    found: dict[str, Prompt] = {}

    @functools.cache
    def panes() -> dict[str, Pane]:
        try:
            return host.tmux.panes(timeout=TMUX_S)
        except TmuxError:  # asked once, or each job would wait for a stopped tmux
            return {}

    def screen(job: Job) -> Screen | None:
        """What its program shows now; None when the window was closed, and when tmux does not answer within TMUX_S."""
        try:
            pane = panes().get(job.id)
            return host.tmux.screen(pane, live=True, timeout=TMUX_S) if pane is not None else None
        except TmuxError:
            return None

    runners = {tty: job.run.pid for tty, job in ttys.items() if job.run is not None}
    for tty, (front, settings) in (host.machine.asking(runners) if runners else {}).items():
        with apart(ttys[tty].id, faults):
            asked = _asked(ttys[tty], front, settings, screen) if settings is not None else None
            # The screen and the end of the log may be of later than the look at the processes.
            if asked is not None and _attempt(host, ttys[tty]) == begun[ttys[tty].id] is not None:
                found[ttys[tty].id] = asked
    return found


def _attempt(host: Host, job: Job) -> int | None:
    """Which attempt runs now; None once one has ended: only after that is recorded does our runner print."""
    now = host.store.look(job.id)
    if now is None or now.exit is not None or now.run is None or now.run.again_at is not None:
        return None
    return now.run.attempt


def question(size: int) -> str:
    """By what `Seen` knows a question that was told: how much its job has printed, of both logs."""
    return f"prompt at {size}"


def is_printing(job: Job, *, within: float = QUIET_S) -> bool:
    """Whether its log has grown in that time (s)."""
    for path in job.logs:
        try:
            # A log from the future was written before the wall clock was set back.
            if -SKEW_S < time.time() - path.stat().st_mtime < within:
                return True
        except OSError:
            continue
    return False


def _asked(job: Job, front: Front, settings: Terminal, shown_by: Shows) -> Prompt | None:
    if front.attention == "none" or (front.attention == "unknown" and not settings.hides):
        return None
    if not settings.cooked:
        return _of_keys(job, front, settings, shown_by)
    line = _last_line(job, shown_by)
    if front.beside != "nobody" and not settings.hides and _goes_on(job, front, line):
        return None
    waits = front.attention in ("reads", "unknown") or (front.alone and front.every_s == 0)
    if not waits:
        # A program that polls for a line now and then, or waits for other things too, may be at work meanwhile.
        ends = front.alone and front.every_s is not None and front.every_s >= ENDS_S
        if not line or not (
            ends or settings.hides or (front.every_s is None and not is_printing(job, within=TICKS_S / 3))
        ):
            return None
    text = line or _line_before(job)
    secret = (settings.hides and line) or asks_a_secret(text)
    return Prompt("password" if secret else "input", text[-PROMPT_CHARS:])


def asks_a_secret(line: str) -> bool:
    """Whether the line asks for a password, as it is or without what stands in brackets."""
    if YES_OR_NO.search(line) or AT_A_SHELL.search(line):
        return False
    return SECRET.search(line) is not None or SECRET.search(ASIDE.sub("", line)) is not None


def _goes_on(job: Job, front: Front, line: str) -> bool:
    """Whether the others in front work or print: who asks leaves its line open, and then nothing more comes."""
    if line:
        return is_printing(job, within=TICKS_S / 3)
    return front.beside == "works" or is_printing(job, within=TICKS_S)


def _of_keys(job: Job, front: Front, settings: Terminal, shown_by: Shows) -> Prompt | None:
    """The prompt of a program that reads single keys: the line with the cursor.

    A program that only passes keys on to a place that cannot be examined is not known to wait.
    """
    if settings.bare and front.attention == "polls" and not front.alone:
        return None
    every_s = front.every_s or 0.0
    if 0 < every_s <= TICKS_S and is_printing(job, within=1.0 + every_s) and not edits_lines(job):
        return None
    screen = shown_by(job)
    if screen is None:
        line = _last_line(job, shown_by)
        return Prompt("input", line[-PROMPT_CHARS:]) if line or front.attention == "reads" else None
    row = screen.lines[screen.cursor_row] if screen.cursor_row < len(screen.lines) else ""
    shown = "\n".join([line.rstrip() for line in screen.lines if line.strip()][-KEYS_LINES:])
    if screen.alternate:
        asks = front.is_guest and HINT.search("\n".join(screen.lines)) is not None
        return Prompt("password" if asks else "input", row.strip()[-PROMPT_CHARS:], full_screen=True)
    if not screen.cursor_visible:
        if is_printing(job, within=KEYS_QUIET_S):
            return None
        secret = front.alone and HINT.search(shown) is not None
        sure = front.attention == "reads" or front.alone
        return Prompt("password" if secret else "keys", shown[-PROMPT_CHARS:], is_sure=sure)
    text = cut(row, screen.cursor_column)
    if text.strip():
        line = _last_line(job, shown_by)
        # A line longer than a row of the screen is whole in the log.
        text = line if line.rstrip().endswith(text.rstrip()) else text
    elif front.attention == "reads":
        text = _line_before(job)
    else:
        return None
    return Prompt("password" if asks_a_secret(text) else "input", text[-PROMPT_CHARS:])


def edits_lines(job: Job) -> bool:
    """Whether a line editor is open: the program has turned bracketed paste on, and not yet off."""
    end = _end_of(job)
    return end.rfind(b"\x1b[?2004h") > end.rfind(b"\x1b[?2004l")


def draws(job: Job) -> bool:
    """Whether, by the end of its log, the program uses the alternate screen or hides the cursor."""
    end = _end_of(job)
    screens = (b"\x1b[?1049h", b"\x1b[?1049l"), (b"\x1b[?1047h", b"\x1b[?1047l"), (b"\x1b[?47h", b"\x1b[?47l")
    return any(end.rfind(on) > end.rfind(off) for on, off in (*screens, (b"\x1b[?25l", b"\x1b[?25h")))


def screen_notes(host: Host, job: Job) -> list[str]:
    """A note when its program has the whole screen now, as far as tmux says within TMUX_S."""
    if job.runs and PLACED.search(_end_of(job)):
        with contextlib.suppress(TmuxError):
            pane = host.tmux.panes(timeout=TMUX_S).get(job.id)
            if pane is not None and pane.alternate and not pane.dead:
                return ["a full-screen program: `screen` shows it"]
    return []


def may_ask_a_secret(job: Job) -> bool:
    """Whether a word that goes with passwords is near the end of its log: without one, it does not ask for one."""
    return HINT.search(CONTROL.sub(b"", _end_of(job)[-HINT_BYTES:]).decode(errors="replace")) is not None


def _end_of(job: Job) -> bytes:
    try:
        with Log(job.log, strict=False) as log:
            return log.read(max(log.floor(log.end), log.end - TAIL_BYTES), log.end)
    except StateError:
        return b""


def _last_line(job: Job, shown_by: Shows) -> str:
    line = next(filter(None, map(paging.last_line, job.logs)), "")
    if not line and job.spec.adopted and not log_size(job.log) and (screen := shown_by(job)) is not None:
        # The question was asked before the log began.
        return screen.lines[screen.cursor_row].strip() if screen.cursor_row < len(screen.lines) else ""
    return line


def _line_before(job: Job) -> str:
    """The last line that is not blank, as a question may end with a newline."""
    page = paging.tail(job.log, lines=5, max_chars=PROMPT_CHARS * 5)
    if page.gone_bytes:
        return ""  # the end of the log is gone
    return next((line for line in reversed(page.text.split("\n")) if line.strip()), "")


SETTLED_S = 1.0
"""Seconds without log growth before people are notified: on a busy machine a question may be logged after its read."""


def notice_prompts(host: Host, faults: list[str] | None = None) -> None:
    """Mark the windows of jobs that wait for input, and notify the people attached to our session once.

    Costs next to nothing while no job runs or nobody is attached. Several processes may do this at once: tmux compares
    and marks in one step. Each job with a fault is named in *faults*; without that list it is raised after all else.
    """
    if faults is None:
        raised(lambda faults: notice_prompts(host, faults))
        return
    jobs = running(host, faults)
    if jobs and host.tmux.attended():
        mark(host, jobs, faults, attended=True)


def running(host: Host, faults: list[str]) -> list[Job]:
    """The running jobs whose windows and terminals are on this machine."""
    found = []
    for record in host.store.unfinished():
        with apart(record.id, faults):
            job = host.settle(record)
            if job.runs and host.is_here(job.run):
                found.append(job)
    return found


def mark(host: Host, jobs: list[Job], faults: list[str], *, attended: bool) -> dict[str, Prompt]:
    """Mark on each window what its job waits for; notices wait until someone is attached."""
    asking = prompts(host, jobs, faults=faults)
    marks: dict[str, Asking | None] = {}
    for job in jobs:
        prompt = asking.get(job.id)
        if job.run is None:
            continue
        if prompt is None or not prompt.is_sure:
            marks[job.run.pane] = None
            continue
        what = "a password" if prompt.waits_for == "password" else "input"
        # The prompt of a shell that a person opened is not a question to them.
        silent = job.spec.notify == "never" or job.spec.adopted is not None or not attended
        with apart(job.id, faults):
            silent = silent or is_printing(job, within=SETTLED_S)
            notice = None if silent else f"{job.id} waits for {what}"
            # The size of the log distinguishes this question from the next.
            marks[job.run.pane] = Asking(str(log_size(job.log)), notice)
    host.tmux.mark_prompts(marks, at=int(time.time()))
    return asking


def main(host: Host) -> None:
    """Check once and print {job id: [what it waits for, prompt]}."""
    faults: list[str] = []
    jobs = running(host, faults)
    asking = mark(host, jobs, faults, attended=host.tmux.attended()) if jobs else {}
    print(json.dumps({job_id: (prompt.waits_for, prompt.text) for job_id, prompt in asking.items()}))
    print(*faults, sep="\n", end="", file=sys.stderr)


BRACKETS = "\x1b[200~\x1b[201~"
"""What tmux puts around a paste for a program that has asked for it."""
ANSWER_BYTES = 1 << 20
"""A longer answer is waited for in the slow way."""


@dataclass(frozen=True)
class Turn:
    """One exchange, begun before the text is typed; `echo` is how many bytes of it the terminal itself shows.

    It is over when the program reads again, and all that it wrote is in the log. Linux counts the bytes that a process
    has read and written, including its ended children, proc_pid_io(5). A program that was blocked reading before the
    text was typed, has read that many bytes since and is blocked reading again has written its answer; the answer is
    complete once the log has grown by as much. No quiet time is needed then.
    """

    job: Job
    tty: str
    runner: int
    pid: int
    typed: int
    echo: int
    counts: tuple[int, int]
    sizes: tuple[int, int]

    @classmethod
    def begin(cls, job: Job, settings: Terminal | None, text: str, *, by_line: bool = False) -> Self | None:
        """Begin a turn; None when the kernel does not show it, or the program may not read each byte of the text."""
        if job.run is None or settings is None or settings.hides or not text.replace("\n", "").isprintable():
            return None
        tty, runner = job.run.tty, job.run.pid
        pid = terminals.reader(tty, runner)
        counts = _counts(pid) if pid is not None else None
        if pid is None or counts is None or terminals.unread(tty):
            return None
        size = len(text.encode(errors="replace"))
        if "\n" in text.removesuffix("\n") and not settings.cooked:
            # It is pasted, and the last Enter comes separately: without counting the brackets, the paste would be all.
            if by_line or not edits_lines(job):
                return None
            size += len(BRACKETS)
        return cls(job, tty, runner, pid, size, size if settings.echo else 0, counts, _sizes(job))

    def is_over(self) -> bool:
        """Whether the program waits for the next line, and its whole answer is in the log; never a guess."""
        if terminals.unread(self.tty) or (counts := _counts(self.pid)) is None:
            return False
        read, written = (now - before for now, before in zip(counts, self.counts, strict=True))
        # What it did between these checks would be in the second count.
        if read < self.typed or terminals.reader(self.tty, self.runner) != self.pid or _counts(self.pid) != counts:
            return False
        grown = self.grown()
        return grown is not None and grown >= written + self.echo

    def is_behind(self) -> bool:
        """Whether the program has written more than the log has: that is on its way, or went elsewhere."""
        counts = _counts(self.pid)
        return counts is not None and (self.grown() or 0) < counts[1] - self.counts[1] + self.echo

    def grown(self) -> int | None:
        """Bytes that were written to the terminal, by the growth of the logs: it turns `\\n` into `\\r\\n`."""
        before, stderr_before = self.sizes
        size, stderr_size = _sizes(self.job)
        if not before < size <= before + ANSWER_BYTES:
            return None
        with Log(self.job.log) as log:
            data = log.read(before, size)
        if len(data) != size - before:
            return None
        return size - before - data.count(b"\n") + stderr_size - stderr_before

    def is_plain(self) -> bool:
        """Whether it asks for the next line as a shell does: it does not draw the screen or ask for a password."""
        settings = terminals.terminal(self.tty)
        hides = settings is None or settings.hides
        return not hides and not draws(self.job) and not asks_a_secret(paging.last_line(self.job.log))


def _counts(pid: int) -> tuple[int, int] | None:
    """Bytes that the process has read and written; None when it has ended or may not be examined."""
    try:
        words = Path(f"/proc/{pid}/io").read_bytes().split()
        return int(words[1]), int(words[3])
    except (OSError, IndexError):
        return None


def _sizes(job: Job) -> tuple[int, int]:
    return log_size(job.log), log_size(job.stderr) if job.stderr else 0
