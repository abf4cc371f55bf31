"""Streams a job's output to this terminal until it ends: `tail -f` and `execute --wait`. Knows no command line."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Literal

from tmuxjobs.answers import JobStatus, Output, waiting
from tmuxjobs.cli.streams import Stream
from tmuxjobs.cli.terminal_filter import TerminalFilter
from tmuxjobs.errors import TmuxjobsError
from tmuxjobs.jobs import Jobs
from tmuxjobs.system.watch import watching
from tmuxjobs.visible import visible

CtrlC = Literal["pass", "leave", "kill"]
CHARS = 400_000
UNREAD = 128 + signal.SIGPIPE
LOOK_S = 1.0
"""How long without news until someone is told that the job waits for input."""


def follow(
    jobs: Jobs, job_id: str, *, cursor: int, stderr_cursor: int | None = None, pressed: Pressed | None = None
) -> int:
    """Print what comes after the cursors until the job ends; its exit code, as a shell would give it.

    A terminal gets it in colour and without what is meant for the job's own (`filtering.py`), all else clean text. When
    the reader of a pipe leaves first, the job runs on and the code is that of SIGPIPE.
    """
    show = Shown(colours=sys.stdout.isatty())
    record, _ = jobs.host.look(job_id)
    news = News()
    if pressed is not None:
        pressed.wake = news.tell
    folder, runner = jobs.host.store.folder(job_id), record.run.pid if record.run else None
    with watching(folder, runner, news.tell) as watch, show:
        while True:
            news.forget()
            if pressed is not None:
                pressed.act(jobs, job_id)
            page = jobs.output(job_id, cursor=cursor, stderr_cursor=stderr_cursor, max_bytes=CHARS, raw=show.colours)
            cursor, stderr_cursor = page.cursor, page.stderr_cursor
            show(page)
            if page.status != "running" and not page.more:
                return exit_code(jobs.status(job_id))
            if isinstance(sys.stdout, Stream) and sys.stdout.unread:
                return UNREAD
            if page.more:
                continue
            if not news.wait(LOOK_S if watch.told else 0.05):
                show.asks(jobs.status(job_id))


class News:
    """Something has changed: told by the watching thread and by a signal handler, which may not set an Event."""

    def __init__(self) -> None:
        self._told: SimpleQueue[None] = SimpleQueue()

    def tell(self) -> None:
        self._told.put(None)

    def forget(self) -> None:
        while not self._told.empty():
            self._told.get()

    def wait(self, timeout: float) -> bool:
        try:
            self._told.get(timeout=timeout)
        except Empty:
            return False
        return True


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
