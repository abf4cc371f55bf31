"""The command as a person starts it: in a pipe, or on a terminal."""

import contextlib
import fcntl
import os
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from support import wait_until

INSTALLED = Path(sys.executable).with_name("tmuxjobs")
PROGRAM = [str(INSTALLED)] if INSTALLED.exists() else [sys.executable, "-m", "tmuxjobs"]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run() -> Run:
    """`run("status", job_id)`: the command's exit code and what it printed into pipes."""

    def call(
        *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments], env=env, input=stdin, capture_output=True, text=True, encoding="utf-8", timeout=60
        )

    return call


class Terminal:
    """The command on a terminal of its own, whose keys are `type` and whose output is `seen`."""

    # What a script starts in the background ignores Ctrl-C; what a terminal starts does not.
    LAUNCHER = (
        "import fcntl, os, signal, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])"
    )

    def __init__(self, *arguments: str, columns: int, env: Mapping[str, str]) -> None:
        self._seen = bytearray()
        self._end, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        argv = [sys.executable, "-I", "-S", "-c", self.LAUNCHER, *PROGRAM, *arguments]
        self._process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # Linux says EIO when the last process has left the terminal
            while piece := os.read(self._end, 65536):
                self._seen += piece

    @property
    def seen(self) -> str:
        return self._seen.decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def wait_for(self, text: str) -> str:
        return wait_until(lambda: self.seen, lambda seen: text in seen)

    def code(self) -> int:
        """The exit code, once it has ended and all it printed was read."""
        code = self._process.wait(60)
        self._reader.join(10)
        return code

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self._reader.join(10)
        os.close(self._end)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """`terminal("list", columns=40).code()`."""
    with contextlib.ExitStack() as leaving:

        def start(*arguments: str, columns: int = 80, env: Mapping[str, str] | None = None) -> Terminal:
            started = Terminal(*arguments, columns=columns, env=env or os.environ | {"TERM": "xterm-256color"})
            leaving.callback(started.close)
            return started

        yield start
