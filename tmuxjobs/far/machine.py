"""What is asked of the machine that jobs run on: of this one by `Machine`, of another one by name.

That goes over the wire in frames: a line of JSON, and behind it as many bytes as it says. Also what an agent says of
its machine before anybody asks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path

from tmuxjobs.named import ProcessRecord
from tmuxjobs.pane import turns
from tmuxjobs.system import beside, job_processes, probes, processes, terminals

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


VERSION_S = 5.0
FRAME_BYTES = 1 << 26
"""No frame is larger."""
READ_BYTES = 1 << 18


def folder(base: str, wanted: str) -> list[str]:
    """A job's folder, and what is wrong with it: it `is not a directory`, it `may not be entered`."""
    # A user whom nobody knows leaves the `~` where it is.
    path = os.path.abspath(os.path.join(base, os.path.expanduser(wanted)))
    if not os.path.isdir(path):
        return [path, "is not a directory"]
    return [path, "" if os.access(path, os.X_OK) else "may not be entered"]


def real(path: str) -> str:
    """Where the path leads, without links."""
    return os.path.realpath(path)


def free_bytes(path: str) -> int:
    """Of the disk that has that file, for us."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def program(name: str, path: str) -> str:
    """Where the program of that name or path is; empty for none."""
    found = shutil.which(os.path.expanduser(name), path=path) or ""
    return os.path.abspath(found) if found else ""


def place(folders: list[str]) -> None:
    """Make these folders, private; the first is a copy that is brought up to date now."""
    for folder in folders:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod(os.path.dirname(folders[0]), 0o700)
    os.utime(folders[0])


def forget_files(copy: str, names: list[str]) -> None:
    """Remove these files of a copy, without following any link in it."""
    for name in names:
        *folders, last = [part for part in name.split("/") if part not in ("", ".")] or [""]
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:  # a job has put something else there
            at = opened(stack, copy)
            for folder in folders:
                if folder == "..":
                    raise NotADirectoryError
                at = opened(stack, folder, at)
            os.unlink(last, dir_fd=at)


def opened(stack: contextlib.ExitStack, folder: str, at: int | None = None) -> int:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    stack.callback(os.close, fd)
    return fd


class Machine:
    """This one: each is the function of that name."""

    alive = staticmethod(job_processes.alive)
    as_now = staticmethod(job_processes.as_now)
    asking = staticmethod(beside.asking)
    answers = staticmethod(probes.answers)
    below = staticmethod(job_processes.below)
    cancel = staticmethod(turns.cancel)
    change = staticmethod(turns.change)
    change_group = staticmethod(turns.change_group)
    folder = staticmethod(folder)
    free_bytes = staticmethod(free_bytes)
    fronts = staticmethod(terminals.fronts)
    handlers = staticmethod(job_processes.handlers)
    here = staticmethod(processes.here)
    look = staticmethod(job_processes.look)
    listening = staticmethod(probes.listening)
    monotonic = staticmethod(time.monotonic)
    move = staticmethod(turns.move)
    of_jobs = staticmethod(job_processes.of_jobs)
    of_pane = staticmethod(job_processes.of_pane)
    places = staticmethod(turns.places)
    program = staticmethod(program)
    reads_by_script = staticmethod(terminals.reads_by_script)
    real = staticmethod(real)
    runners = staticmethod(job_processes.runners)
    send = staticmethod(processes.send)
    start = staticmethod(turns.start)
    start_of = staticmethod(job_processes.start_of)
    stopped = staticmethod(beside.stopped)
    set_echo = staticmethod(terminals.set_echo)
    terminal = staticmethod(terminals.terminal)
    unread = staticmethod(terminals.unread)
    usage = staticmethod(job_processes.usage)
    usual_locale = staticmethod(probes.usual_locale)


def as_now(one: dict[str, Any]) -> ProcessRecord | None:
    return job_processes.as_now(ProcessRecord(**one))


def of_jobs(traces: dict[str, dict[str, Any]]) -> dict[str, job_processes.Left]:
    return job_processes.of_jobs({job_id: job_processes.Trace(**_tuples(trace)) for job_id, trace in traces.items()})


def of_pane(trace: dict[str, Any]) -> job_processes.Left:
    return job_processes.of_pane(job_processes.PaneTrace(**_tuples(trace)))


def move(state: str) -> None:
    turns.move(state)


def places(state: str, job_ids: list[str]) -> dict[str, tuple[int, int, str]]:
    return turns.places(state, job_ids)


def runners(jobs: str) -> dict[str, tuple[int, str]]:
    return job_processes.runners(Path(jobs))


def usage(roots: dict[str, bool]) -> dict[int, tuple[float, int]]:
    return job_processes.usage({int(root): itself for root, itself in roots.items()})


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        as_now,
        forget_files,
        place,
        folder,
        free_bytes,
        move,
        of_jobs,
        of_pane,
        program,
        real,
        runners,
        usage,
        job_processes.alive,
        job_processes.below,
        job_processes.handlers,
        job_processes.look,
        job_processes.start_of,
        turns.cancel,
        turns.change,
        turns.change_group,
        places,
        turns.start,
        probes.answers,
        probes.listening,
        probes.usual_locale,
        processes.send,
        beside.asking,
        terminals.fronts,
        terminals.reads_by_script,
        terminals.set_echo,
        terminals.terminal,
        terminals.unread,
    )
}


def plain(value: Any) -> Any:
    """The value as JSON can have it: of dataclasses their fields, of mappings with numbers as keys their names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value


def usual() -> list[list[Any]]:
    """What most starts ask of a machine, and its answers: [[name, arguments, answer]]."""
    path = os.environ.get("PATH", os.defpath)
    asked: tuple[tuple[str, list[str]], ...]
    asked = (("folder", [os.path.expanduser("~"), "."]), ("program", ["bash", path]), ("usual_locale", []))
    return [[name, given, plain(FUNCTIONS[name](*given))] for name, given in asked]


def version_of(tmux: str) -> str:
    """What tmux prints as its version; empty if it does not answer."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([tmux, "-V"], capture_output=True, timeout=VERSION_S).stdout.decode().strip()
    return ""


def sockets() -> str:
    """Where tmux has its sockets: below TMUX_TMPDIR, or /tmp where there is none."""
    above = next(filter(os.path.isdir, (os.environ.get("TMUX_TMPDIR") or "/tmp", "/tmp")), "/tmp")
    return os.path.join(os.path.realpath(above), f"tmux-{os.getuid()}")


def own_umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def frame(fields: dict[str, Any], data: bytes = b"") -> bytes:
    """One frame; without data nothing is behind the line."""
    return json.dumps({**fields, "bytes": len(data)} if data else fields).encode() + b"\n" + data


class Stream:
    """Frames and lines from a descriptor, each wait until a deadline by the monotonic clock, or without one.

    With `silent_s` none bears a longer silence.
    """

    def __init__(self, fd: int, *, silent_s: float | None = None) -> None:
        self.fd = fd
        self._silent_s = silent_s
        self._held = b""

    def line(self, deadline: float | None = None) -> bytes:
        """The next line; raises EOFError and TimeoutError."""
        at = 0
        while (end := self._held.find(b"\n", at)) < 0:
            at = len(self._held)
            self._fill(deadline)
        found, self._held = self._held[:end], self._held[end + 1 :]
        return found

    def exactly(self, size: int, deadline: float | None = None) -> bytes:
        """So many bytes; raises EOFError and TimeoutError."""
        parts, missing = [self._held[:size]], size - len(self._held)
        self._held = self._held[size:]
        while missing > 0:
            self._fill(deadline)
            parts.append(self._held[:missing])
            taken, self._held = len(self._held), self._held[missing:]
            missing -= taken
        return b"".join(parts)

    def frame(self, deadline: float | None = None) -> tuple[dict[str, Any], bytes]:
        """The next frame; raises EOFError, TimeoutError, and ValueError for what is none."""
        fields = json.loads(self.line(deadline))
        size = fields.get("bytes", 0)
        if not isinstance(size, int) or not 0 <= size <= FRAME_BYTES:
            raise ValueError(size)
        return fields, self.exactly(size, deadline) if size else b""

    def _fill(self, deadline: float | None) -> None:
        if len(self._held) > FRAME_BYTES:
            raise ValueError("a line without end")
        left = self._silent_s if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([self.fd], [], [], left)[0]:
            raise TimeoutError
        data = os.read(self.fd, READ_BYTES)
        if not data:
            raise EOFError
        self._held += data
