"""Standard output and error of a command: what cannot be written never stops its work, and is remembered."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, TextIO, cast

from tmuxjobs.outcome import seconds
from tmuxjobs.visible import visible


class Outlet(io.FileIO):
    """Keeps the first error and drops what comes after it.

    So rich does not end the program at a closed pipe, nor does the interpreter complain when it flushes at exit.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        while self.error is None:
            try:
                # None: the pipe is full, and another process that shares it has made it non-blocking.
                if (written := super().write(data)) is not None:
                    return written
                select.select((), (self,), ())
            except OSError as error:
                self.error = error
        return size


class Stream(io.TextIOWrapper):
    """A standard stream over an `Outlet`, with the encoding and buffering of the one it replaces."""

    def __init__(self, replaced: TextIO | None) -> None:
        if isinstance(replaced, io.TextIOWrapper):
            fd, encoding, errors = replaced.fileno(), replaced.encoding, replaced.errors
            by_lines = replaced.line_buffering or replaced.write_through
        else:
            # Closed before we started. Opened for reading, it refuses each write, and no file of ours gets its number.
            fd, encoding, errors, by_lines = os.open(os.devnull, os.O_RDONLY), "utf-8", "replace", False
        self._outlet = Outlet(fd, "w", closefd=False)
        super().__init__(io.BufferedWriter(self._outlet), encoding=encoding, errors=errors, line_buffering=by_lines)

    @property
    def error(self) -> OSError | None:
        """What kept text from being written. A reader that has left is not an error."""
        error = self._outlet.error
        return None if error is None or error.errno == errno.EPIPE else error

    @property
    def unread(self) -> bool:
        """Whether the reader of this pipe has left."""
        if self._outlet.error is not None:
            return self._outlet.error.errno == errno.EPIPE
        poll = select.poll()
        poll.register(self._outlet, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))


def write_all(pieces: Iterable[str | bytes], stream: TextIO, *, paged: bool = False) -> None:
    """Write each piece as it comes; with *paged* what does not fit the terminal goes through a pager."""
    left: Iterator[str | bytes] = iter(pieces)
    if paged and stream.isatty():
        left = _with_pager(cast(Iterator[str], left))
    for piece in left:
        if isinstance(piece, str):
            stream.write(piece)
        else:
            stream.buffer.write(piece)
        stream.flush()
        if isinstance(stream, Stream) and stream.unread:
            return


def _with_pager(pieces: Iterator[str]) -> Iterator[str]:
    """Give what does not fit the terminal to $PAGER or less; returns what was not given to it."""
    columns, rows = shutil.get_terminal_size()
    shown = ""
    for piece in pieces:
        shown += piece
        if sum(1 + len(line.expandtabs()) // columns for line in shown.split("\n")) > rows:
            break
    else:
        return iter((shown,))
    command = os.environ.get("PAGER", "less -R")
    words = shlex.split(command)
    if not words or shutil.which(words[0]) is None or os.environ.get("TERM", "dumb") == "dumb":
        return itertools.chain((shown,), pieces)
    pager = subprocess.Popen(command, shell=True, stdin=subprocess.PIPE, encoding="utf-8", errors="replace")
    # Ctrl-C is for the pager while it runs.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert pager.stdin is not None
        with contextlib.suppress(BrokenPipeError), pager.stdin as stdin:  # its reader has left
            for piece in itertools.chain((shown,), pieces):
                stdin.write(piece)
        pager.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    return iter(())


def take_over() -> Stream:
    """Replace standard output and error by a `Stream`; returns the one for output."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    sys.stdout, sys.stderr = output, _ = Stream(sys.stdout), Stream(sys.stderr)
    return output


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """Within it, a line on stderr says `what` and for how long, after the first second; removed afterwards."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    over = threading.Event()
    teller = threading.Thread(target=_tell, args=(what, over), daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _tell(what: str, over: threading.Event) -> None:
    since = time.monotonic()
    shown = False
    while not over.wait(1.0):
        print(f"\r{visible(what)} … {seconds(time.monotonic() - since)}\x1b[K", end="", file=sys.stderr, flush=True)
        shown = True
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


State = Literal["text", "escape", "intermediate", "sequence", "header", "string", "sixel"]
PASSED: Final = "\b\t\n\r"
ABORTS: Final = "\x18\x1a"
# Parameters are bounded, as terminals have overflowed on huge ones; a repeat (`b`) would multiply what is printed.
ALLOWED: Final = re.compile(r"(?:[0-9]{0,5}[;:]){0,32}[0-9]{0,5}m|[0-9]{0,4}[A-GPX@`]|[0-2]?K")
WHOLE: Final = re.compile(rf"(?:[{PASSED}]|\x1b\[(?:{ALLOWED.pattern}))+")
"""What passes unchanged: only for speed, as the states give the same result."""
PARAMETERS: Final = 256
RUNS: Final[dict[State, re.Pattern[str]]] = {
    "text": re.compile(r"[^\x00-\x1f\x7f-\x9f]+"),
    "string": re.compile(r"[^\a\n\x18\x1a\x1b]+"),
    "sixel": re.compile(r"[!-~\r\n]+"),
}


class TerminalFilter:
    """Takes a piece of the stream and returns what may be written; any split of a stream gives the same in total.

    A parser with the states of a VT500 (vt100.net/emu/dec_ansi_parser), so that a sequence ends where it does for the
    terminal: a control within it is obeyed at once, ESC starts a new one, CAN and SUB abort it. It differs where tmux
    and `clean.py` do: C1 controls in their 8-bit form are dropped, not obeyed, and a string ends with its line.
    Text is made visible, see `visible.py`.
    """

    def __init__(self) -> None:
        self._state: State = "text"
        self._sequence = ""
        self._shown = ""
        """The last two characters of text, if nothing came since: they decide about a joiner after them."""

    def __call__(self, piece: str) -> str:
        out: list[str] = []
        at = 0
        while at < len(piece):
            runs = RUNS.get(self._state)
            if runs and (run := runs.match(piece, at)):
                out.append(self._show(run[0]) if self._state == "text" else "")
                at = run.end()
            elif self._state == "text" and (run := WHOLE.match(piece, at)):
                self._shown = ""
                out.append(run[0])
                at = run.end()
            else:
                out.append(self._take(piece[at]))
                at += 1
        return "".join(out)

    def _show(self, text: str) -> str:
        before = self._shown
        self._shown = (before + text)[-2:]
        return visible(before + text)[len(visible(before)) :]

    def _take(self, char: str) -> str:
        if char == "\x1b":
            self._state = "escape"
        elif char in ABORTS:
            self._state = "text"
        elif self._state in ("header", "string", "sixel"):
            return self._in_string(char)
        elif char in PASSED:
            self._shown = ""
            return char
        elif char < " " or "\x7f" <= char <= "\x9f":
            pass
        elif char > "~":
            self._state = "text"
            return self._show(char)
        elif self._state == "escape":
            self._escaped(char)
        elif self._state == "intermediate":
            self._state = "intermediate" if char < "0" else "text"
        elif char < "@":
            self._sequence = (self._sequence + char)[:PARAMETERS]
        else:
            self._state = "text"
            if ALLOWED.fullmatch(self._sequence + char):
                self._shown = ""
                return f"\x1b[{self._sequence}{char}"
        return ""

    def _escaped(self, char: str) -> None:
        self._sequence = ""
        if char == "[":
            self._state = "sequence"
        elif char == "P":
            self._state = "header"
        elif char in "]X^_k":
            self._state = "string"
        else:
            self._state = "intermediate" if char < "0" else "text"

    def _in_string(self, char: str) -> str:
        if char in "\a\n" or self._state == "sixel":
            self._state = "text"
            return self(char)
        # A picture's data may hold newlines; it is recognised by how its string begins.
        if self._state == "header" and not (char.isdecimal() or char == ";"):
            self._state = "sixel" if char == "q" else "string"
        return ""
