"""The command as a person starts it: in a pipe, or on a terminal.

`run` and `terminal` fork it from a process that has loaded it; `real_run` starts an interpreter, as a shell does.
"""

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
from loaded import Loaded
from support import wait_until

INSTALLED = Path(sys.executable).with_name("tmuxjobs")
PROGRAM = [str(INSTALLED)] if INSTALLED.exists() else [sys.executable, "-m", "tmuxjobs"]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def real_run() -> Run:
    """As `run`, by the installed command."""

    def call(
        *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments], env=env, input=stdin, capture_output=True, text=True, encoding="utf-8", timeout=60
        )

    return call


@pytest.fixture
def run(loaded: Loaded, real_run: Run) -> Run:
    """`run("status", job_id)`: the command's exit code and what it printed into pipes."""

    def call(
        *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        environment = os.environ if env is None else env
        if not loaded.can(environment):
            return real_run(*arguments, env=env, stdin=stdin)
        return loaded.run(arguments, env=environment, stdin=stdin, timeout=60)

    return call


class Terminal:
    """The command on a terminal of its own, whose keys are `type` and whose output is `seen`."""

    def __init__(self, loaded: Loaded, *arguments: str, columns: int, env: Mapping[str, str]) -> None:
        self._seen = bytearray()
        self._end, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._process = loaded.start(arguments, env=env, fds=(theirs, theirs, theirs), terminal=True)
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
        self._reader.join(60)
        return code

    def close(self) -> None:
        self._process.kill()
        self._process.wait(60)
        self._reader.join(60)
        os.close(self._end)


@pytest.fixture
def terminal(loaded: Loaded) -> Iterator[Callable[..., Terminal]]:
    """`terminal("list", columns=40).code()`."""
    with contextlib.ExitStack() as leaving:

        def start(*arguments: str, columns: int = 80, env: Mapping[str, str] | None = None) -> Terminal:
            environment = env or os.environ | {"TERM": "xterm-256color"}
            started = Terminal(loaded, *arguments, columns=columns, env=environment)
            leaving.callback(started.close)
            return started

        yield start
