"""Who waits for input: a job whose program in front reads the terminal, with its prompt; passwords are recognised."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tmuxjobs.answers import WaitsFor
from tmuxjobs.errors import TmuxError, apart, raised
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Job
from tmuxjobs.system import terminals
from tmuxjobs.system.terminals import Terminal
from tmuxjobs.text import paging
from tmuxjobs.text.log import log_size

QUIET_S = 0.05
SKEW_S = 5.0
"""The log is this far behind at the most; until then the prompt may not be whole."""
TMUX_S = 1.0
"""Bound for tmux to say which programs are full-screen; a job's state does not depend on it."""
PROMPT_CHARS = 300
SECRET = re.compile(r"(password|passphrase|passcode|\bpin\b|verification code)[^\n]{0,80}[:?>]\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Prompt:
    """What a job asks for, and the line it asks with: its last one, or that of the cursor on a full screen."""

    waits_for: WaitsFor
    text: str


def prompt(host: Host, job: Job) -> Prompt | None:
    """What the job waits for now; None when it does not, and when that cannot be known."""
    return raised(lambda faults: prompts(host, [job], faults=faults)).get(job.id)


def prompts(host: Host, jobs: Iterable[Job], *, faults: list[str]) -> dict[str, Prompt]:
    """{job id: what it waits for} of those running jobs that do, at the price of one look at the process table.

    A fault in one job's log or terminal is named in *faults*.
    """
    ttys: dict[str, Job] = {}
    settings: dict[str, Terminal] = {}
    for job in jobs:
        with apart(job.id, faults):
            if job.run is not None and host.is_here(job.run) and not is_printing(job):
                terminal = terminals.terminal(job.run.tty)
                if terminal is not None:
                    ttys[job.run.tty], settings[job.run.tty] = job, terminal
    found: dict[str, Prompt] = {}
    screens: Mapping[str, bool] | None = None
    for tty, attention in (terminals.attention(settings) if settings else {}).items():
        job, job_id = ttys[tty], ttys[tty].id
        if attention == "none" or (attention == "unknown" and not settings[tty].hides):
            continue
        with apart(job_id, faults):
            line = _last_line(host, job)
            if not line and attention != "unknown":
                if screens is None:
                    screens = _screens(host)
                if screens.get(job_id):
                    found[job_id] = Prompt("input", _line_of_cursor(host, job_id))
                    continue
            if line or attention == "reads":
                text = line or _line_before(job)
                secret = (settings[tty].hides and line) or SECRET.search(text)
                found[job_id] = Prompt("password" if secret else "input", text[-PROMPT_CHARS:])
    return found


def is_printing(job: Job, *, within: float = QUIET_S) -> bool:
    """Whether its log has grown in that time (s)."""
    for path in job.logs:
        try:
            # A log from the future is of before the wall clock was set back.
            if -SKEW_S < time.time() - path.stat().st_mtime < within:
                return True
        except OSError:
            continue
    return False


def _last_line(host: Host, job: Job) -> str:
    line = next(filter(None, map(paging.last_line, job.logs)), "")
    if not line and job.spec.adopted and not log_size(job.log):
        return _line_of_cursor(host, job.id)  # it had been asked before the log began
    return line


def _line_before(job: Job) -> str:
    """The last line that is not blank, as a question may end with a newline."""
    lines = paging.tail(job.log, lines=5, max_chars=PROMPT_CHARS * 5).text.split("\n")
    return next((line for line in reversed(lines) if line.strip()), "")


def _screens(host: Host) -> Mapping[str, bool]:
    """{job id: whether a full-screen program has its window}; empty when tmux does not say within TMUX_S."""
    try:
        return {pane.job_id: pane.alternate for pane in host.tmux.panes(timeout=TMUX_S).values()}
    except TmuxError:
        return {}


def _line_of_cursor(host: Host, job_id: str) -> str:
    try:
        pane = host.tmux.panes(timeout=TMUX_S).get(job_id)
        if pane is None:
            return ""
        screen = host.tmux.screen(pane)
    except TmuxError:  # the window was closed, or tmux hangs
        return ""
    return screen.lines[screen.cursor_row].strip() if screen.cursor_row < len(screen.lines) else ""
