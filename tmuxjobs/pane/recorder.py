"""The process behind `pipe-pane`: copies one pane's output into the job's log files.

Stdlib only, a role of `__main__.py`. It drains its input whatever happens to the disk, because tmux buffers without
bound for a reader that does not read (3 to 77 MB seen for 67 MB). It counts what it does not keep. At the end it reads
back what it wrote: other programs may write into the log, cut it or remove it.
"""

from __future__ import annotations

import _thread
import errno
import os
import select
import sys
import time

from tmuxjobs.contract import FIRST, SHELL_FD
from tmuxjobs.lean import dumps, signal, suppress
from tmuxjobs.pane.gaps import SLOW
from tmuxjobs.pane.log import READ_BYTES, Log

SERVER = os.getppid()
"""The tmux server that pipes its pane to us; in our reports, as the recorder of an earlier window may report too."""
TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

QUEUE_BYTES = 64 << 20
ORPHANED_QUIET_MS = 3000
FLOOD_BYTES, FLOOD_S = 1 << 14, 0.01
GATHER_BYTES, GATHER_S = 1 << 18, 0.01
"""In a flood (more than FLOOD_BYTES in FLOOD_S) one read takes this many bytes or what comes in this time (s)."""
FIRST_S = 5.0
PRINTS_S = 20.0
"""Seconds between reports to the runner that output comes; while it does, the runner checks that we are not stopped."""


class Splitter:
    """Finds our marks in the stream, which never reach a log: where stderr begins and ends, and the end.

    Marks hold only digits and punctuation, which no terminal setting rewrites on output.
    """

    STDOUT, STDERR, END, OURS = b"1", b"2", b"0", b"3"

    def __init__(self, nonce: str) -> None:
        self.prefix = b"\x1b]7717;" + nonce.encode() + b";"
        self.held = b""
        self.kind = self.STDOUT

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (kind, bytes), END last: what follows it is ignored. OURS comes once without bytes, where it begins."""
        data = self.held + data
        self.held = b""
        while data:
            at = data.find(self.prefix)
            if at < 0:
                at = self.partial(data)
                self.held = data[at:]
                yield self.kind, data[:at]
                return
            yield self.kind, data[:at]
            end = at + len(self.prefix) + 2
            if len(data) < end:
                self.held = data[at:]
                return
            self.kind = data[end - 2 : end - 1]
            data = data[end:]
            if self.kind in (self.END, self.OURS):
                yield self.kind, b""
            if self.kind == self.END:
                return

    def partial(self, data: bytes) -> int:
        """The offset at which a mark may begin at the end of the data; the data's length if none does."""
        at = data.find(b"\x1b", max(0, len(data) - len(self.prefix) + 1))
        while at >= 0:
            if self.prefix.startswith(data[at:]):
                return at
            at = data.find(b"\x1b", at + 1)
        return len(data)


class Queue:
    """What was read and is not yet written, up to QUEUE_BYTES; the rest is counted, without waiting for room."""

    def __init__(self) -> None:
        self.lock = _thread.allocate_lock()
        self.changed = _thread.allocate_lock()
        """Locked while the writer waits for something to take: importing `threading` would take 4 ms."""
        self.items: list[tuple[bytes, bytes]] = []
        self.dropped: dict[bytes, int] = {}
        self.bytes = 0
        self.why = ""

    def put(self, kind: bytes, data: bytes) -> None:
        with self.lock:
            if self.why or (kind == Splitter.OURS if data else kind not in (Splitter.END, Splitter.OURS)):
                return
            if kind == Splitter.END:
                self.why = "end"
            elif not self.dropped and self.bytes + len(data) <= QUEUE_BYTES:
                self.items.append((kind, data))
                self.bytes += len(data)
            else:
                # After one drop all is dropped until the writer has taken the queue: a gap follows what was queued.
                self.dropped[kind] = self.dropped.get(kind, 0) + len(data)
            self.tell()

    def end(self, why: str) -> None:
        with self.lock:
            self.why = self.why or why
            self.tell()

    def tell(self) -> None:
        if self.changed.locked():
            self.changed.release()

    def take(self) -> tuple[list[tuple[bytes, bytes]], dict[bytes, int]]:
        """Everything queued and what was dropped after it, by kind; both empty once the input has ended."""
        while True:
            with self.lock:
                if self.items or self.dropped or self.why:
                    taken = self.items, self.dropped
                    self.items, self.dropped, self.bytes = [], {}, 0
                    return taken
            self.changed.acquire()


def write_all(queue: Queue, logs: dict[bytes, Log], fifo: int) -> None:
    """The writing thread: ends the process after the last byte, with a report to the runner."""
    try:
        while True:
            items, dropped = queue.take()
            if not items and not dropped:
                leave(logs, fifo, queue.why)
            for kind, data in items:
                if kind == Splitter.OURS:
                    tell_place(logs, fifo)
                else:
                    logs.get(kind, logs[Splitter.STDOUT]).write(data)
            is_place = dropped.pop(Splitter.OURS, None) is not None
            for kind, size in dropped.items():
                logs.get(kind, logs[Splitter.STDOUT]).skip(size, SLOW)
            if is_place:
                tell_place(logs, fifo)
    finally:
        os._exit(1)  # a bug: the runner notices and attaches another


def tell_place(logs: dict[bytes, Log], fifo: int) -> None:
    """Report to the runner how long its logs are where an attempt has ended."""
    report = {"why": "attempt", "bytes": {log.name: log.at for log in logs.values()}}
    with suppress(OSError):  # it may be gone
        os.write(fifo, dumps(report).encode() + b"\n")


def tell_prints(fifo: int) -> None:
    poll = select.poll()
    poll.register(fifo, select.POLLOUT)
    if poll.poll(0) == [(fifo, select.POLLOUT)]:  # a runner that was stopped does not read
        with suppress(OSError):
            os.write(fifo, b'{"why": "prints"}\n')


def leave(logs: dict[bytes, Log], fifo: int, why: str) -> NoReturn:
    report = {"why": why, "server": SERVER, "logs": {log.name: log.report(ended=why == "end") for log in logs.values()}}
    with suppress(OSError):  # the runner may be gone; the logs are complete all the same
        os.write(fifo, dumps(report).encode() + b"\n")
    os._exit(0)


def note_gone(folder: str) -> None:
    """Record when the runner died: only we see it, and it tells later how long a lost job ran."""
    from tmuxjobs import files

    with suppress(OSError, files.Odd):
        if not os.path.lexists(os.path.join(folder, "exit.json")):
            files.write_json(os.path.join(folder, "gone.json"), {"monotonic": time.monotonic()})


class Input:
    """Our input, which tmux passes on 4 KB at a time.

    In a flood the kernel gathers the pieces (MSG_WAITALL, recv(2)) and takes in each as it comes. If we read each
    piece, we would take the processor from the programs that print; if we slept, tmux would wait: the buffer is small.
    """

    def __init__(self) -> None:
        self.since, self.come = 0.0, 0
        self.floods = False
        self.socket: Any = None

    def read(self, now: float) -> bytes:
        if now - self.since > FLOOD_S:
            # What comes after a pause is not a flood, and must not wait for more.
            self.floods = self.come > FLOOD_BYTES and now - self.since < 5 * FLOOD_S
            self.since, self.come = now, 0
        data = b""
        if self.floods or self.come > FLOOD_BYTES:
            with suppress(OSError):  # it is not a socket
                data = self.gathered()
        data = data or os.read(0, READ_BYTES)
        self.come += len(data)
        return data

    def gathered(self) -> bytes:
        import _socket  # few jobs print so much

        if self.socket is None:
            self.socket = _socket.socket(fileno=0)
            bound = b"".join(part.to_bytes(8, sys.byteorder) for part in (0, int(GATHER_S * 1e6)))  # a timeval
            self.socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, bound)
        return bytes(self.socket.recv(GATHER_BYTES, _socket.MSG_WAITALL))


def drain(queue: Queue, splitter: Splitter, fifo: int, asked: int, folder: str) -> str:
    """Read until the input ends ("eof") or, once asked to end, until it is empty ("end").

    Once the runner is gone, read until nothing has come for ORPHANED_QUIET_MS.
    """
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(fifo, 0)
    poll.register(asked, select.POLLIN)
    wait_ms = None
    source, told_at = Input(), time.monotonic() + 1.0 - PRINTS_S
    while True:
        events = dict(poll.poll(wait_ms))
        if not events:
            return "eof" if wait_ms else "end"
        if asked in events:
            poll.unregister(asked)
            wait_ms = 0
        if fifo in events:
            # A pane that stays after its process keeps our input open forever: the runner's end must be seen here.
            poll.unregister(fifo)
            if wait_ms is None:
                note_gone(folder)
            wait_ms = ORPHANED_QUIET_MS if wait_ms is None else wait_ms
        if 0 in events:
            now = time.monotonic()
            data = source.read(now)
            if not data:
                return "eof"
            # Here and not in the writer: a mark must be seen even when the queue is full.
            for kind, part in splitter.feed(data):
                queue.put(kind, part)
            if now - told_at > PRINTS_S:
                told_at = now
                tell_prints(fifo)


def catch_request() -> int:
    """A descriptor that is readable after SIGUSR1, with which a runner that cannot print an end mark asks us to end."""
    asked, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    return asked


def is_awaited(fifo: int, gate: str) -> bool:
    """Whether the runner listens; with the gate FIRST it starts along with us, so wait for it up to FIRST_S."""
    poll = select.poll()
    poll.register(fifo, 0)
    deadline = time.monotonic() + (FIRST_S if gate == FIRST else 0.0)
    while poll.poll(0):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.0005)
    return True


def main(folder: str, nonce: str, limit: str, separate: str, gate: str = "recorder") -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    try:
        fifo = os.open(os.path.join(folder, gate), os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:  # its runner was killed before this
        sys.exit(1)
    os.set_blocking(fifo, True)
    if fifo != SHELL_FD:
        # The shell's descriptor reads too: while it is open, the end of the runner would never be seen.
        with suppress(OSError):
            os.close(SHELL_FD)
    if not is_awaited(fifo, gate):
        sys.exit(1)
    names = {Splitter.STDOUT: "output.log"}
    if separate == "1":
        names[Splitter.STDERR] = "stderr.log"
    try:
        logs = {}
        for kind, name in names.items():
            logs[kind] = Log(os.path.join(folder, name), int(limit))
    except (OSError, ValueError) as error:
        text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        os.write(fifo, dumps({"why": "failed", "server": SERVER, "error": f"{name}: {text}"}).encode() + b"\n")
        sys.exit(1)
    queue, splitter = Queue(), Splitter(nonce)
    asked = catch_request()
    try:
        # The first report is sent before anything is queued, so the writer's own comes after it.
        _thread.start_new_thread(write_all, (queue, logs, fifo))
    except RuntimeError:  # the machine is out of processes, which threads are too: pthread_create(3), EAGAIN
        os.write(fifo, dumps({"why": "failed", "server": SERVER, "error": os.strerror(errno.EAGAIN)}).encode() + b"\n")
        sys.exit(1)
    try:
        os.write(fifo, dumps({"why": "ready", "server": SERVER, "pid": os.getpid()}).encode() + b"\n")
    except OSError:  # its runner was killed meanwhile; the writer would wait forever
        os._exit(1)
    why = "eof"
    with suppress(OSError):  # an input that fails has ended
        why = drain(queue, splitter, fifo, asked, folder)
    queue.put(splitter.kind, splitter.held)
    queue.end(why)
    while True:
        time.sleep(3600)  # until the writer ends us
