"""`interact`: type into a job, and answer with what it says in response."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tmuxjobs import output, terminals
from tmuxjobs.checks import compiled, encoded
from tmuxjobs.errors import InvalidInput, JobEnded, TmuxError
from tmuxjobs.models import Record, Running, describe
from tmuxjobs.reading import CHARS, CHARS_MAX, answer_of
from tmuxjobs.results import Output
from tmuxjobs.tmux import Pane, key_name

if TYPE_CHECKING:
    from tmuxjobs.jobs import Jobs

WAIT_S = 5.0
WAIT_MAX_S = 50.0
QUIET_S = 0.15
LONG_QUIET_S = 1.0
LINE_BYTES = 4095
"""What a terminal takes as one line while it is cooked; it cuts what is longer, n_tty(4)."""


def interact(
    jobs: Jobs,
    job_id: str,
    input: str = "",
    *,
    keys: Sequence[str] = (),
    enter: bool = True,
    wait: float = WAIT_S,
    pattern: str | None = None,
) -> Output:
    """Type the text, then press the keys; answers with what the job printed in response.

    Enter follows the text unless it ends with a newline, keys follow, or `enter` is false. The answer comes when
    `pattern` (a regular expression) shows, when the program reads the terminal again, is quiet or has ended, at the
    latest after `wait` seconds (0 to 50). Raises JobNotFound, JobEnded, InvalidInput.
    """
    names = [key_name(key) for key in keys]
    seek = compiled(pattern)
    record, state = jobs.look(job_id)
    if not isinstance(state, Running):
        raise JobEnded(f"Job '{job_id}' takes no input: {describe(state)}.")
    pane = jobs.tmux.panes().get(job_id)
    if pane is None or pane.dead:
        raise TmuxError(f"Job '{job_id}' has no window on this tmux server (socket {jobs.settings.socket_name}).")
    text = input if input.endswith("\n") or names or not enter else input + "\n"
    check_lines(jobs, pane, text)
    path = jobs.log_path(record)
    before = output.log_size(path)
    if text:
        encoded("input", text)
        jobs.tmux.type(pane, text)
    if names:
        jobs.tmux.press(pane, names)
    wait = max(0.0, min(wait, WAIT_MAX_S))
    said = answered(jobs, record, before, wait, seek, echo=text)
    record, state = jobs.look(job_id)
    page = output.read(path, cursor=before, max_chars=CHARS, final=not isinstance(state, Running))
    answer = answer_of(state, page, None)
    note = f"{answer.note}; {said}" if answer.note else said
    return answer.model_copy(update={"stdout": without_echo(answer.stdout, text), "note": note})


def check_lines(jobs: Jobs, pane: Pane, text: str) -> None:
    longest = max((len(line.encode(errors="replace")) for line in text.split("\n")), default=0)
    settings = terminals.terminal(pane.tty)
    if settings is not None and settings.cooked and longest > LINE_BYTES:
        raise InvalidInput(
            f"A line of {longest} bytes would be cut: the program reads whole lines of at most {LINE_BYTES} bytes. "
            "Send shorter lines, or write the text to a file that the job reads."
        )


def answered(jobs: Jobs, record: Record, before: int, wait: float, seek: re.Pattern[str] | None, *, echo: str) -> str:
    """Wait for the response; what ended the wait, in words."""
    path, run = jobs.log_path(record), record.run
    deadline = time.monotonic() + wait
    size, changed = before, time.monotonic()
    while time.monotonic() < deadline:
        now = output.log_size(path)
        if now != size:
            size, changed = now, time.monotonic()
        if seek is not None and now > before:
            text = output.read(path, cursor=before, max_chars=CHARS_MAX, final=True).text
            if seek.search(without_echo(text, echo)):
                return "the pattern showed"
        if not isinstance(jobs.settle(record)[1], Running):
            return "the job ended"
        quiet = time.monotonic() - changed
        if seek is None and now > before and run is not None and run.command_pid is not None:
            if quiet > LONG_QUIET_S:
                return f"quiet for {LONG_QUIET_S:.0f} s"
            if quiet > QUIET_S and jobs.prompt(record) is not None:
                return "it waits for input"
        time.sleep(0.01)
    return f"the wait of {wait:g} s is over; `output` with the cursor goes on"


def without_echo(text: str, typed: str) -> str:
    """The text less the leading lines that only show what was typed, behind a prompt or not."""
    lines = text.split("\n")
    for line in typed.rstrip("\n").split("\n") if typed else ():
        if not lines or not (lines[0].endswith(line) if line else lines[0] == ""):
            break
        lines.pop(0)
    return "\n".join(lines)
