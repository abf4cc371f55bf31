"""The command without the start of an interpreter and the imports, which take twenty times as long as what it does.

A process that has loaded the command waits here, and forks for each command line. The fork is a process of its own,
with the streams, the terminal, the environment, the working directory and the end that it would have had. What an
interpreter reads when it starts cannot be given to it: see `for_a_start`.
"""

import atexit
import contextlib
import fcntl
import gc
import importlib
import io
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kept_units import keep_units

import tmuxjobs
from tmuxjobs.cli import main

FILES_MAX = 256


def for_a_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Those variables that an interpreter reads when it starts, and the command's modules when they are imported."""
    names = ("PYTHON", "LC_", "FASTMCP_", "PYDANTIC_")
    return {name: value for name, value in environment.items() if name.startswith(names) or name in ("LANG", "TZ")}


class Process:
    """One command: as much of `subprocess.Popen` as is used."""

    def __init__(self, told: socket.socket) -> None:
        self._told = told
        self._text = b""
        self.returncode: int | None = None
        self.pid = self._number(100)  # all is imported first

    def _number(self, timeout: float | None) -> int:
        self._told.settimeout(timeout)
        while b"\n" not in self._text:
            piece = self._told.recv(64)
            assert piece, "the process that has loaded the command is gone"
            self._text += piece
        line, self._text = self._text.split(b"\n", 1)
        return int(line)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            try:
                self.returncode = self._number(timeout)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("tmuxjobs", timeout or 0) from None
            self._told.close()
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended, which is not told yet
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Loaded:
    """The process that waits."""

    def __init__(self, units: Path) -> None:
        self.environment = dict(os.environ)
        self._calls, theirs = socket.socketpair()
        with theirs:
            argv = [sys.executable, str(Path(__file__)), str(theirs.fileno()), str(units)]
            self._process = subprocess.Popen(argv, pass_fds=[theirs.fileno()])

    def can(self, environment: Mapping[str, str]) -> bool:
        return for_a_start(environment) == for_a_start(self.environment)

    def start(
        self, arguments: Sequence[str], *, env: Mapping[str, str] | None, fds: tuple[int, int, int], terminal: bool
    ) -> Process:
        """That command line; on a terminal it leads a session of its own there."""
        asked = {"argv": [*arguments], "env": dict(os.environ if env is None else env)}
        text = json.dumps(asked | {"cwd": os.getcwd(), "terminal": terminal}).encode()
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._calls, [len(text).to_bytes(8, "big")], [theirs.fileno(), *fds])
            self._calls.sendall(text)
        return Process(ours)

    def run(
        self, arguments: Sequence[str], *, env: Mapping[str, str] | None, stdin: str, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Its exit code, and what it printed into pipes."""
        pipes = [os.pipe() for _ in range(3)]
        process = self.start(arguments, env=env, fds=(pipes[0][0], pipes[1][1], pipes[2][1]), terminal=False)
        for fd in (pipes[0][0], pipes[1][1], pipes[2][1]):
            os.close(fd)
        printed: dict[int, bytes] = {}

        def read(number: int) -> None:
            with open(pipes[number][0], "rb") as pipe:
                printed[number] = pipe.read()

        readers = [threading.Thread(target=read, args=(number,), daemon=True) for number in (1, 2)]
        for reader in readers:
            reader.start()
        with contextlib.suppress(BrokenPipeError), open(pipes[0][1], "wb") as pipe:
            pipe.write(stdin.encode())
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        for reader in readers:
            reader.join(timeout)
            assert not reader.is_alive(), "its output is held open"
        out, err = (text_of(printed[number]) for number in (1, 2))
        return subprocess.CompletedProcess(["tmuxjobs", *arguments], code, out, err)

    def close(self) -> None:
        self._calls.close()
        self._process.wait(60)


def text_of(printed: bytes) -> str:
    return io.TextIOWrapper(io.BytesIO(printed), encoding="utf-8").read()


def serve(calls: socket.socket, units: Path) -> None:
    """Until the tests are over. In the fork it returns too, and the command runs."""
    keep_units(units, setattr)

    for module in pkgutil.walk_packages(tmuxjobs.__path__, "tmuxjobs."):
        if not module.name.endswith("__main__") and module.name.split(".")[1] in ("cli", "server", "verbs"):
            importlib.import_module(module.name)
    assert threading.active_count() == 1
    gc.freeze()
    told: dict[int, int] = {}
    signal.signal(signal.SIGCHLD, lambda *_: tell_ends(told))
    while True:
        head, fds, _, _ = socket.recv_fds(calls, 8, 4)
        if not head:
            sys.exit()
        while len(head) < 8:
            head += calls.recv(8 - len(head))
        size = int.from_bytes(head, "big")
        text = b""
        while len(text) < size:
            text += calls.recv(size - len(text))
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # its end is told once it is known
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            become(json.loads(text), fds[1:])
            return
        told[pid], *others = fds
        for fd in others:
            os.close(fd)
        tell(told[pid], pid)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def tell_ends(told: dict[int, int]) -> None:
    """Say the exit code of each that has ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            fd = told.pop(pid)
            tell(fd, os.waitstatus_to_exitcode(status))
            os.close(fd)


def tell(fd: int, number: int) -> None:
    with contextlib.suppress(OSError):  # nobody asks any more
        os.write(fd, b"%d\n" % number)


def become(asked: dict[str, Any], fds: Sequence[int]) -> None:
    """What the interpreter does before it runs a program."""
    if asked["terminal"]:
        os.setsid()
        fcntl.ioctl(fds[0], termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, FILES_MAX) for fd in fds]
    errors = sys.stdout.errors
    for number, fd in enumerate(moved):
        os.dup2(fd, number)
        os.close(fd)
    os.closerange(3, FILES_MAX)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    time.tzset()
    tempfile.tempdir = None
    sys.argv = ["tmuxjobs", *asked["argv"]]
    sys.stdin, sys.stdout = stream(0, "r", errors), stream(1, "w", errors)
    sys.stderr = stream(2, "w", "backslashreplace", buffering=1)


def stream(fd: int, mode: str, errors: str | None, *, buffering: int = -1) -> Any:
    return open(fd, mode, encoding="utf-8", errors=errors, buffering=buffering, closefd=False)


def run() -> None:
    """The command to its end. Not that of the interpreter, which would copy all that the processes share."""
    try:
        main.main()
    except SystemExit as done:
        if done.code is not None and not isinstance(done.code, int):
            raise
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(done.code or 0)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]))
    run()
