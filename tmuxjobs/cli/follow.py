"""Streams a job's output to this terminal until it ends: `tail -f` and `execute --wait`. Knows no command line."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Literal

from tmuxjobs.answers import JobStatus, Output, waiting
from tmuxjobs.cli.streams import Stream
from tmuxjobs.cli.terminal_filter import TerminalFilter
from tmuxjobs.errors import TmuxjobsError
from tmuxjobs.jobs import Jobs
from tmuxjobs.visible import visible

CtrlC = Literal["pass", "leave", "kill"]
UNREAD = 128 + signal.SIGPIPE


def follow(
    jobs: Jobs, job_id: str, *, cursor: int, stderr_cursor: int | None = None, pressed: Pressed | None = None
) -> int:
    """Print what comes after the cursors until the job ends; its exit code, as a shell would give it.

    A terminal gets it in colour and without what is meant for the job's own (`terminal_filter.py`), all else
    clean text. When the reader of a pipe leaves first, the job runs on and the code is that of SIGPIPE.
    """
    show = Shown(colours=sys.stdout.isatty())
    pages = jobs.follow(job_id, cursor=cursor, stderr_cursor=stderr_cursor, raw=show.colours)
    if pressed is not None:
        pressed.wake = lambda: pages.wake()
    with show:
        for page in pages:
            if pressed is not None:
                pressed.act(jobs, job_id)
            show(page)
            if isinstance(sys.stdout, Stream) and sys.stdout.unread and page.status == "running":
                return UNREAD
            if page.status == "running" and not (page.stdout or page.stderr or page.more):
                show.asks(jobs.status(job_id))
    return exit_code(jobs.status(job_id))


class Shown:
    """What was put on the terminal so far, as far as the next piece depends on it."""

    def __init__(self, *, colours: bool) -> None:
        self.colours = colours
        self.out, self.err = TerminalFilter(), TerminalFilter()
        self.prompt: str | None = None

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        if self.colours:
            sys.stdout.write("\x1b[m")
            sys.stdout.flush()

    def __call__(self, page: Output) -> None:
        text = self.out(page.stdout) if self.colours else page.stdout
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
        if page.stderr:
            sys.stderr.write(self.err(page.stderr) if self.colours else page.stderr)
            sys.stderr.flush()
        if page.note and (page.gone_bytes or not page.more):
            note(page.note)

    def asks(self, status: JobStatus) -> None:
        """Tell once for each prompt that someone must type: this terminal's input is not the job's."""
        if status.waits_for and status.prompt != self.prompt:
            words = waiting(status.waits_for, status.prompt or "", status.attach)
            where = "" if status.attach in words else f"; {status.attach}"
            note(f"{status.job_id} {words}{where}")
        self.prompt = status.prompt if status.waits_for else None


class Pressed:
    """Ctrl-C at this terminal. `pass` gives it to the job, `kill` ends the job, a second one leaves it.

    With `leave` it is not caught and thus raises KeyboardInterrupt wherever it comes. Where it was ignored at the
    start, as in the background of a script, it stays so.
    """

    def __init__(self, meaning: CtrlC) -> None:
        self.meaning = meaning
        self.wake: Callable[[], None] | None = None
        self.times = 0
        self.handled = 0

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        if self.meaning == "leave" or signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            yield
            return
        before = signal.signal(signal.SIGINT, self.press)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def press(self, _number: int, _frame: FrameType | None) -> None:
        self.times += 1
        if self.wake is not None:
            self.wake()

    def act(self, jobs: Jobs, job_id: str) -> None:
        """Do what the newest press means."""
        if self.times == self.handled:
            return
        self.handled = self.times
        if self.times > 1:
            note(f"{job_id} runs on: `tmuxjobs tail -f {job_id}`, `tmuxjobs kill {job_id}`")
            raise KeyboardInterrupt
        try:
            if self.meaning == "kill":
                jobs.kill(job_id)
            else:
                jobs.interact(job_id, keys=["C-c"], wait=0)
        except TmuxjobsError as error:  # it has ended meanwhile, or a person holds it: say so and go on
            note(str(error))


def note(text: str) -> None:
    print(f"[{visible(text)}]", file=sys.stderr, flush=True)


def exit_code(status: JobStatus) -> int:
    """The job's, or 128 and the signal's number, as a shell gives it; 1 when nobody knows."""
    if status.exit_code is not None:
        return status.exit_code
    number = signal.Signals.__members__.get(status.signal or "")
    return 128 + number if number else 1
