"""Streams a job's output to this terminal until it ends, and hands the job what is typed here or comes by a pipe.

Knows no command line.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Literal

from tmuxjobs.answers import Output
from tmuxjobs.arguments import Pipe
from tmuxjobs.cli.streams import Stream, TerminalFilter
from tmuxjobs.contract import OPEN
from tmuxjobs.errors import TmuxjobsError
from tmuxjobs.job_answers import JobStatus
from tmuxjobs.jobs import Jobs
from tmuxjobs.outcome import waiting
from tmuxjobs.visible import visible

CtrlC = Literal["pass", "leave", "kill"]
UNREAD = 128 + signal.SIGPIPE


def follow(
    jobs: Jobs,
    job_id: str,
    *,
    cursor: int,
    stderr_cursor: int | None = None,
    pressed: Pressed | None = None,
    types: Callable[[], bool] = lambda: False,
) -> int:
    """Print what comes after the cursors until the job ends; its exit code, as a shell would give it.

    A terminal gets it in colour and without what is meant for the job's terminal (`streams.py`), all else clean text.
    While it `types` it hands the job what this terminal or a pipe brings, so only a full-screen program's prompt is
    announced. When the reader of a pipe leaves first, the job runs on and the code is that of SIGPIPE.
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
            if isinstance(sys.stdout, Stream) and sys.stdout.unread and page.status in OPEN:
                return UNREAD
            if page.status in OPEN and not (page.stdout or page.stderr or page.more):
                typed, status = types(), jobs.status(job_id)
                show.asks(status) if status.full_screen or not typed else None
    return exit_code(jobs.status(job_id))


class Shown:
    """Prints pages on the terminal, and remembers what the next one depends on."""

    def __init__(self, *, colours: bool) -> None:
        self.colours = colours
        self.out, self.err = TerminalFilter(), TerminalFilter()
        self.asked: tuple[str, str | None] | None = None

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
        """Print once for each prompt that someone must type: this terminal's input is not the job's."""
        asked = (status.waits_for, status.prompt) if status.waits_for else None
        if status.waits_for and asked != self.asked:
            prompt = status.prompt or ""
            words = waiting(status.waits_for, prompt, status.attach, full_screen=status.full_screen)
            where = "" if status.attach in words else f"; {status.attach}"
            note(f"{status.job_id} {words}{where}")
        self.asked = asked


class Pressed:
    """Ctrl-C at this terminal. `pass` gives it to the job, `kill` ends the job, a second one leaves it.

    With `leave` it is not caught and thus raises KeyboardInterrupt wherever it comes. If it was ignored at the start,
    as in the background of a script, it stays ignored.
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
            note(f"{job_id} keeps running: `tmuxjobs tail -f {job_id}`, `tmuxjobs kill {job_id}`")
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
    """The job's exit code, or 128 plus the signal's number, as a shell gives it; 1 when it is not known."""
    if status.exit_code is not None:
        return status.exit_code
    number = signal.Signals.__members__.get(status.signal or "")
    return 128 + number if number else 1


PIECE_BYTES = 2048
"""Less than a terminal holds, n_tty(4)."""
BEHIND_S = 0.05
"""Seconds between two checks whether the job has read the last piece, and whether this terminal is ours again."""
LONG_BEHIND_S = 0.5
"""The most between two such checks of a job that does not read for long."""
ENDED_S = 1.0
"""Since the end of a pipe was typed, until the job has it."""
END = b"\x04"


class Typing:
    """Passes on standard input until the job ends. This terminal does not echo meanwhile: the job's does.

    Its Ctrl-C and Ctrl-Z stay signals for us. In the background nothing is read, and an empty pipe or /dev/null is not
    taken as input: the person may answer in the job's window.
    """

    def __init__(self) -> None:
        self.modes: list[Any] | None = None
        self.fd = sys.stdin.fileno() if sys.stdin is not None else -1
        self.over = self._over = -1
        self.pours = False

    def goes_on(self) -> bool:
        """Whether the job gets its input from here: from a terminal, or a pipe that has begun and not ended."""
        return self.is_terminal or self.pours

    @property
    def is_terminal(self) -> bool:
        return self.modes is not None

    @contextlib.contextmanager
    def taken(self) -> Iterator[Typing]:
        """Within it, what is typed is not echoed here, and none of it is left for the shell."""
        kept = {}
        self.over, self._over = os.pipe()
        try:
            if os.isatty(self.fd) and self.is_ours():
                self.modes = termios.tcgetattr(self.fd)
                self.unechoed()
                for number, act in (
                    (signal.SIGTERM, self.leave),
                    (signal.SIGHUP, self.leave),
                    (signal.SIGTSTP, self.stop),
                ):
                    if signal.getsignal(number) == signal.SIG_DFL:
                        kept[number] = signal.signal(number, act)
            yield self
        finally:
            os.close(self._over)
            self.restore()
            for number, before in kept.items():
                signal.signal(number, before)

    def is_ours(self) -> bool:
        try:
            return os.tcgetpgrp(self.fd) == os.getpgrp()
        except OSError:
            return False

    def unechoed(self) -> None:
        """Set the terminal as for a program that edits its own line; signals and output stay as they are."""
        modes = termios.tcgetattr(self.fd)
        modes[0] &= ~(termios.ICRNL | termios.INLCR | termios.IXON)
        modes[3] &= ~(termios.ICANON | termios.ECHO | termios.IEXTEN)
        modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self.fd, termios.TCSANOW, modes)

    def restore(self) -> None:
        """Restore the terminal; what was typed for the job and not read is discarded, or the shell would run it."""
        if self.modes is not None and self.is_ours():
            with contextlib.suppress(termios.error):  # hung up
                termios.tcsetattr(self.fd, termios.TCSAFLUSH, self.modes)

    def leave(self, number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    def stop(self, number: int, _frame: FrameType | None) -> None:
        """Ctrl-Z: give the shell its terminal as it was, and take it again when we continue in the foreground."""
        self.restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        signal.signal(number, self.stop)
        if self.is_ours():
            self.unechoed()

    def to(self, jobs: Jobs, job_id: str) -> None:
        """Pass on all input from now on, in a separate thread."""
        if self.fd < 0 or (not self.is_terminal and (os.isatty(self.fd) or is_nothing(self.fd))):
            return
        self.pours = not self.is_terminal and bool(select.select([self.fd], [], [], 0)[0])
        threading.Thread(target=self._pass_on, args=(jobs, job_id), daemon=True).start()

    def _pass_on(self, jobs: Jobs, job_id: str) -> None:
        try:
            self._hand_on(jobs, job_id)
        finally:
            self.pours = False

    def _hand_on(self, jobs: Jobs, job_id: str) -> None:
        given, pipe = b"", None if self.is_terminal else Pipe()
        with contextlib.suppress(OSError, ValueError):  # closed, or hung up
            while True:
                if self.is_terminal and not self.is_ours():
                    if select.select([self.over], [], [], BEHIND_S)[0]:
                        return
                    continue
                if self.over in select.select([self.fd, self.over], [], [])[0]:
                    return
                data = os.read(self.fd, PIECE_BYTES)
                if not data:
                    # END ends an open line, and then the input.
                    data = END if given.endswith(b"\n") else END * 2 if given else b""
                    if pipe is not None:
                        pipe.ended = True
                else:
                    given = data if pipe is not None else b""
                self.pours = given != b""
                if not data or not self._typed(jobs, job_id, data, pipe):
                    return
                if pipe is not None and pipe.ended:
                    select.select([self.over], [], [], ENDED_S)
                    return

    def _typed(self, jobs: Jobs, job_id: str, data: bytes, pipe: Pipe | None) -> bool:
        pause = BEHIND_S
        while data:
            try:
                count = jobs.type(job_id, data, pipe=pipe)
            except TmuxjobsError as error:
                note(f"standard input: {error}")
                return False
            data = data[count:]
            pause = BEHIND_S if count else min(LONG_BEHIND_S, pause * 1.1)
            if not count and select.select([self.over], [], [], pause)[0]:
                return False
        return True


def is_nothing(fd: int) -> bool:
    """Whether it is a device that is not a terminal, such as /dev/null, or closed."""
    try:
        return stat.S_ISCHR(os.fstat(fd).st_mode)
    except OSError:
        return True
