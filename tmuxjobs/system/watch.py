"""Watches job folders for changes and runners for their end: inotify and pidfd on Linux, kqueue on macOS.

One thread in each process watches for all that wait. It knows folders and pids, and nothing of what is in them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

BREATH_S = 0.004
"""Seconds between rounds of events that follow each other: a flood of output must not keep this thread busy."""
SHORT_BREATH_S = 0.0005
"""The same after a pause: the end of a job comes some ms after its last output."""
LOGS = ("output.log", "stderr.log")
JOURNAL = "journal"
"""A file in the state directory; like a log it only grows, but its growth counts as a change."""
# inotify(7)
_MODIFY, _MOVED_TO, _CREATE, _DELETE_SELF = 0x2, 0x80, 0x100, 0x400
_EVENT = struct.Struct("iIII")


@dataclass(eq=False)
class Watch:
    """One watch; `call` is called in the watching thread and must not block."""

    call: Callable[[], None]
    logs: bool = True
    """Whether growth of the log counts as a change; may be set at any time."""
    active: bool = True
    """False when no watch could be set: the caller must poll."""


@dataclass(eq=False)
class _Folder:
    """A watched folder, with the runner whose end counts as a change of it."""

    path: Path
    watches: list[Watch] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)


@contextlib.contextmanager
def watching(folder: Path, pid: int | None, call: Callable[[], None], *, logs: bool = True) -> Iterator[Watch]:
    """Within it, each change calls `call`: a record renamed into place, a log grown, process `pid` ended."""
    watch = Watch(call, logs=logs)
    watcher = shared()
    watch.active = watcher is not None and watcher.add(folder, pid, watch)
    try:
        yield watch
    finally:
        if watcher is not None and watch.active:
            watcher.remove(folder, watch)


_lock = threading.Lock()
_own: tuple[int, Watcher | None] = (0, None)


def shared() -> Watcher | None:
    """This process's watcher; None when the kernel does not provide one."""
    global _own
    with _lock:
        pid, watcher = _own
        if pid != os.getpid():
            try:
                watcher = Watcher(_Source())
            except (OSError, AttributeError):  # the limit of instances is reached, or the system has none
                watcher = None
            _own = os.getpid(), watcher
        return watcher


class Watcher:
    """The watching thread, and the watches of each folder."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self.folders: dict[Path, _Folder] = {}
        self._by_handle: dict[int, _Folder] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="tmuxjobs-watching", daemon=True).start()

    def add(self, path: Path, pid: int | None, watch: Watch) -> bool:
        with self._lock:
            folder = self.folders.get(path)
            if folder is None:
                folder = _Folder(path)
                try:
                    self._source.open(folder, pid)
                except OSError:  # no such folder any more, or the limit of watches is reached
                    self._source.close(folder)
                    return False
                self.folders[path] = folder
                self._by_handle.update(dict.fromkeys(folder.handles, folder))
            folder.watches.append(watch)
            return True

    def remove(self, path: Path, watch: Watch) -> None:
        with self._lock:
            folder = self.folders[path]
            folder.watches.remove(watch)
            if not folder.watches:
                del self.folders[path]
                for handle in folder.handles:
                    self._by_handle.pop(handle, None)
                self._source.close(folder)

    def _run(self) -> None:
        breath_s = SHORT_BREATH_S
        while True:
            before = time.monotonic()
            events = self._source.events()
            breath_s = min(2 * breath_s, BREATH_S) if time.monotonic() - before < BREATH_S else SHORT_BREATH_S
            with self._lock:
                for handle, is_log in events:
                    folder = self._by_handle.get(handle)
                    for watch in folder.watches if folder else ():
                        if watch.logs or not is_log:
                            with contextlib.suppress(RuntimeError):  # the event loop that waited is closed
                                watch.call()
            time.sleep(breath_s)


if sys.platform == "linux":

    class _Source:
        """Handles are watch descriptors of inotify, and pidfds below zero."""

        def __init__(self) -> None:
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
            self._poll = select.epoll()
            self._poll.register(self._fd, select.EPOLLIN)

        def _checked(self, result: int) -> int:
            if result < 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            return result

        def open(self, folder: _Folder, pid: int | None) -> None:
            mask = _MODIFY | _MOVED_TO | _CREATE | _DELETE_SELF
            folder.handles.append(self._checked(self._libc.inotify_add_watch(self._fd, os.fsencode(folder.path), mask)))
            if pid is not None:
                with contextlib.suppress(AttributeError, OSError):  # Python 3.8, it has ended, or Linux before 5.3
                    fd = os.pidfd_open(pid)
                    folder.fds.append(fd)
                    folder.handles.append(-fd)
                    self._poll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)

        def close(self, folder: _Folder) -> None:
            for handle in folder.handles:
                if handle > 0:
                    self._libc.inotify_rm_watch(self._fd, handle)
            for fd in folder.fds:
                os.close(fd)

        def events(self) -> list[tuple[int, bool]]:
            """Block until there are events: (handle, whether only a log has grown), each once."""
            found: dict[tuple[int, bool], None] = {}
            for fd, _ in self._poll.poll():
                if fd != self._fd:
                    found[-fd, False] = None
                    continue
                with contextlib.suppress(BlockingIOError):
                    self._parse(os.read(self._fd, 1 << 16), found)
            return list(found)

        def _parse(self, data: bytes, found: dict[tuple[int, bool], None]) -> None:
            at = 0
            while at < len(data):
                handle, mask, _, size = _EVENT.unpack_from(data, at)
                name = data[at + _EVENT.size : at + _EVENT.size + size].rstrip(b"\0").decode(errors="replace")
                if not mask & _MODIFY or name in (*LOGS, JOURNAL):
                    found[handle, bool(mask & _MODIFY) and name in LOGS] = None
                at += _EVENT.size + size

else:

    class _Source:
        """Handles are file descriptors doubled, plus one for a log; a process has its folder's handle."""

        def __init__(self) -> None:
            self._queue = select.kqueue()

        def open(self, folder: _Folder, pid: int | None) -> None:
            own = self._watch(folder, folder.path, is_log=False)
            for name in (*LOGS, JOURNAL):
                with contextlib.suppress(FileNotFoundError):
                    self._watch(folder, folder.path / name, is_log=name in LOGS)
            if pid is not None:
                ended = select.kevent(
                    pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, fflags=select.KQ_NOTE_EXIT, udata=own
                )
                with contextlib.suppress(OSError):  # it has ended
                    self._queue.control([ended], 0)

        def _watch(self, folder: _Folder, path: Path, *, is_log: bool) -> int:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            folder.fds.append(fd)
            handle = 2 * fd + is_log
            folder.handles.append(handle)
            notes = select.KQ_NOTE_WRITE | select.KQ_NOTE_EXTEND | select.KQ_NOTE_DELETE
            flags = select.KQ_EV_ADD | select.KQ_EV_CLEAR
            change = select.kevent(fd, select.KQ_FILTER_VNODE, flags, fflags=notes, udata=handle)
            self._queue.control([change], 0)
            return handle

        def close(self, folder: _Folder) -> None:
            for fd in folder.fds:
                os.close(fd)

        def events(self) -> list[tuple[int, bool]]:
            """Block until there are events: (handle, whether only a log has grown), each once."""
            found = {(event.udata, bool(event.udata % 2)): None for event in self._queue.control(None, 64)}
            return list(found)
