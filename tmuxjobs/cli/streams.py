"""Standard output and error of a command: what cannot be written never stops its work, and is remembered."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, TextIO


class Outlet(io.FileIO):
    """Keeps the first error and drops what comes after it.

    So rich does not end the program at a closed pipe, nor does the interpreter complain when it flushes at exit.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        while self.error is None:
            try:
                # None: the pipe is full, and whoever shares it has made it non-blocking.
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
        """What kept text from being written. A reader that has left is no error."""
        error = self._outlet.error
        return None if error is None or error.errno == errno.EPIPE else error

    @property
    def unread(self) -> bool:
        """The reader of this pipe has left."""
        if self._outlet.error is not None:
            return self._outlet.error.errno == errno.EPIPE
        poll = select.poll()
        poll.register(self._outlet, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))


def take_over() -> Stream:
    """Put a `Stream` in the place of standard output and error; answers the one for output."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115
    sys.stdout, sys.stderr = output, _ = Stream(sys.stdout), Stream(sys.stderr)
    return output
