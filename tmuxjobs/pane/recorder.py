"""The process behind `pipe-pane`: copies one pane's output into the job's log files.

Stdlib only, a role of `__main__.py`. It drains its input whatever happens to the disk, because tmux puts no
bound on what it keeps for a reader that does not read (3 to 77 MB seen for 67 MB). An offset in a log file is always
the offset in the stream: what is dropped leaves a hole, listed in the `.gaps` file beside the log. At the end it reads
back what it wrote: others may write into the log, cut it or take it away.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import stat
import sys
import threading
import time
from binascii import crc32

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

READ_BYTES = 1 << 18
QUEUE_BYTES = 64 << 20
BLOCK_BYTES = 4096
GAPS_BYTES = 4096
GAPS_MAX = 80
NOTES_MAX = 3
READ_BACK_S = 30.0
ORPHANED_QUIET_MS = 3000
SHELL_FD = 3


class Log:
    """One bounded log file. `limit` is what it may take on disk, in bytes; 0 means no bound."""

    def __init__(self, path: str, limit: int) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.gaps_path = os.path.splitext(path)[0] + ".gaps"
        self.fd = opened(path)
        self.gaps_fd = opened(self.gaps_path)
        self.limit = limit
        self.head = limit // 2 // BLOCK_BYTES * BLOCK_BYTES
        self.full = False
        self.is_astray = False
        self.notes: list[str] = []
        text = os.pread(self.gaps_fd, GAPS_BYTES, 0)
        self.gaps: list[list[int]] = json.loads(text)["gaps"] if text.strip() else []
        # As we leave it: another size is somebody else's doing.
        self.size = os.fstat(self.fd).st_size
        # A recorder before us may have dropped more than the file is long.
        self.at = self.begun_at = max([self.size, *(end for _, end in self.gaps)])
        self.sum = 0
        # Takes its room on disk now, so that a gap can still be noted when the disk is full.
        os.pwrite(self.gaps_fd, text.ljust(GAPS_BYTES), 0)
        self.is_listed = True

    def write_gaps(self) -> None:
        """List them, in a new file when somebody has removed ours."""
        self.is_listed = False
        with contextlib.suppress(OSError):  # a sick disk; it is tried again, and the runner hears the count
            if not has_name(self.gaps_fd, self.gaps_path):
                fd = opened(self.gaps_path)
                os.close(self.gaps_fd)
                self.gaps_fd = fd
            text = json.dumps({"gaps": self.gaps}).encode() if self.gaps else b""
            os.pwrite(self.gaps_fd, text.ljust(GAPS_BYTES - 1) + b"\n", 0)
            os.ftruncate(self.gaps_fd, GAPS_BYTES)
            self.is_listed = True

    def note(self, text: str) -> None:
        if self.at and len(self.notes) < NOTES_MAX:
            self.notes.append(text)

    def look(self) -> None:
        """When somebody has removed, replaced or cut the log, count the loss and go on in the file of its name."""
        if self.is_astray:
            return
        if not has_name(self.fd, self.path):
            what = "replaced by another file" if os.path.lexists(self.path) else "removed or moved"
            self.note(f"{self.name} was {what} at byte {self.at}")
            try:
                self.reopen()
            except OSError as error:
                self.note(f"nothing was recorded after that: {error.strerror}")
                self.full = self.is_astray = True
        elif os.fstat(self.fd).st_size < self.size:
            self.note(f"{self.name} was cut to {os.fstat(self.fd).st_size} bytes at byte {self.at}")
        elif not self.gaps or (self.is_listed and has_name(self.gaps_fd, self.gaps_path)):
            return
        self.size = 0 if self.is_astray else os.fstat(self.fd).st_size
        self.drop(min(self.size, self.at), self.at)
        self.write_gaps()

    def reopen(self) -> None:
        fd = opened(self.path)
        if os.fstat(fd).st_nlink != 1:
            os.close(fd)
            raise OSError(errno.EMLINK, "it is a link to a file elsewhere")
        os.close(self.fd)
        self.fd = fd

    def mark_gone(self, start: int, end: int) -> None:
        """List start..end of the stream as a gap, as one with those that it touches."""
        apart = [gap for gap in self.gaps if gap[0] > end or gap[1] < start]
        merged = [gap for gap in self.gaps if gap not in apart] + [[start, end]]
        self.gaps = sorted([*apart, [min(gap[0] for gap in merged), max(gap[1] for gap in merged)]])

    def drop(self, start: int, end: int) -> None:
        """Count bytes start..end of the stream as gone."""
        if start == end:
            return
        self.mark_gone(start, end)
        if len(self.gaps) > GAPS_MAX:
            nearest = min(range(1, len(self.gaps)), key=lambda i: self.gaps[i][0] - self.gaps[i - 1][1])
            self.gaps[nearest - 1 : nearest + 1] = [[self.gaps[nearest - 1][0], self.gaps[nearest][1]]]
        with contextlib.suppress(OSError):
            # The file's size is the stream's, also where its end is a hole; where there are no holes it would fill up.
            if not self.full:
                size = max(end, os.fstat(self.fd).st_size)
                os.ftruncate(self.fd, size)
                self.size = max(self.size, end)
        self.write_gaps()

    def write(self, data: bytes) -> None:
        self.look()
        view = memoryview(data)
        while view:
            if self.full:
                self.drop(self.at, self.at + len(view))
                self.at += len(view)
                return
            try:
                # In pieces: what is read at once may be more than a small log may take.
                done = os.pwrite(self.fd, view[: self.limit // 16] if self.limit else view, self.at)
            except OSError:
                self.drop(self.at, self.at + len(view))
                self.at += len(view)
                return
            self.sum = crc32(view[:done], self.sum)
            self.at += done
            self.size = max(self.size, self.at)
            view = view[done:]
            self.bound()

    def bound(self) -> None:
        """Keep the first half of the limit and, of the rest, the newest; the middle becomes a hole."""
        if not self.limit:
            return
        start = self.head
        kept_from = next((end for begin, end in self.gaps if begin <= start < end), start)
        # Less a block for the note, one for what is begun, and what `write` writes before this looks.
        room = self.limit - self.head - 2 * BLOCK_BYTES - self.limit // 16
        if self.at - kept_from <= room:
            return
        until = (self.at - room * 3 // 4) // BLOCK_BYTES * BLOCK_BYTES
        self.mark_gone(start, until)
        self.write_gaps()
        try:
            punch(self.fd, kept_from // BLOCK_BYTES * BLOCK_BYTES if kept_from > start else start, until)
        except OSError:
            # No holes on this file system: the first part is kept, what follows is counted.
            self.full = True
            return
        note = f"\n[tmuxjobs: {until - start} bytes from here on are gone: the log may take {self.limit} bytes]\n"
        if until - start > len(note):
            with contextlib.suppress(OSError):  # a full disk; the gap is listed all the same
                os.pwrite(self.fd, note.encode(), start)

    def report(self, *, ended: bool) -> dict[str, object]:
        """What the runner hears: `why` says what somebody else did to the log, `doubt` what is not known of it.

        A log that lacks its end or has gaps is not whole anyway: it is not read back.
        """
        self.look()
        self.write_gaps()
        facts: dict[str, object] = {"bytes": self.at, "dropped_bytes": sum(end - start for start, end in self.gaps)}
        if ended and not self.gaps and not self.notes:
            try:
                if not self.is_as_written():
                    self.note(f"another program wrote into {self.name}")
            except OSError as error:
                facts["doubt"] = f"{self.name} could not be read back: {error.strerror}"
        return {**facts, "why": "; ".join(self.notes)} if self.notes else facts

    def is_as_written(self) -> bool:
        """Whether the file holds what was written, and no more; raises OSError after READ_BACK_S."""
        if os.fstat(self.fd).st_size != self.size:
            return False
        deadline = time.monotonic() + READ_BACK_S
        found, at = 0, self.begun_at
        while at < self.at:
            data = os.pread(self.fd, min(READ_BYTES, self.at - at), at)
            if not data:
                return False
            found = crc32(data, found)
            at += len(data)
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, f"it takes more than {READ_BACK_S:.0f} s")
        return found == self.sum


def opened(path: str) -> int:
    """A descriptor of a regular file of ours, made when there is none; raises OSError for anything else."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.geteuid():
        os.close(fd)
        raise OSError(errno.EINVAL, "it is not a regular file of yours")
    return fd


def has_name(fd: int, path: str) -> bool:
    """Whether the open file still is the one at that path."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError:
        return False


def punch(fd: int, start: int, end: int) -> None:
    """Give the blocks from `start` to `end` back to the file system; raises OSError where that is not supported."""
    if sys.platform == "darwin":
        import fcntl
        import struct

        fcntl.fcntl(fd, 99, struct.pack("=IIqq", 0, 0, start, end - start))  # F_PUNCHHOLE, fcntl(2) of macOS
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, fallocate(2)
    if libc.fallocate(fd, 3, ctypes.c_longlong(start), ctypes.c_longlong(end - start)):
        raise OSError(ctypes.get_errno(), "fallocate")


class Splitter:
    """Finds our marks in the stream: where stderr begins and ends, and the end. A mark never reaches a log.

    Marks hold digits and punctuation only, which no terminal setting rewrites on the way out.
    """

    STDOUT, STDERR, END = b"1", b"2", b"0"

    def __init__(self, nonce: str) -> None:
        self.prefix = b"\x1b]7717;" + nonce.encode() + b";"
        self.held = b""
        self.kind = self.STDOUT

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (kind, bytes); END comes last and what follows it is not looked at."""
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
            if self.kind == self.END:
                yield self.END, b""
                return

    def partial(self, data: bytes) -> int:
        """Where a mark may have begun at the end of the data; its length if none did."""
        at = data.find(b"\x1b", max(0, len(data) - len(self.prefix) + 1))
        while at >= 0:
            if self.prefix.startswith(data[at:]):
                return at
            at = data.find(b"\x1b", at + 1)
        return len(data)


class Queue:
    """What was read and is not yet written, up to QUEUE_BYTES; what does not fit is counted, never waited for."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.items: list[tuple[bytes, bytes]] = []
        self.dropped: dict[bytes, int] = {}
        self.bytes = 0
        self.why = ""

    def put(self, kind: bytes, data: bytes) -> None:
        with self.changed:
            if self.why or not (data or kind == Splitter.END):
                return
            if kind == Splitter.END:
                self.why = "end"
            elif not self.dropped and self.bytes + len(data) <= QUEUE_BYTES:
                self.items.append((kind, data))
                self.bytes += len(data)
            else:
                # All that follows a drop is dropped until the writer comes: a gap is behind what was queued.
                self.dropped[kind] = self.dropped.get(kind, 0) + len(data)
            self.changed.notify()

    def end(self, why: str) -> None:
        with self.changed:
            self.why = self.why or why
            self.changed.notify()

    def take(self) -> tuple[list[tuple[bytes, bytes]], dict[bytes, int]]:
        """Everything queued and what was dropped after it, by kind; both empty once the input has ended."""
        with self.changed:
            while not self.items and not self.dropped and not self.why:
                self.changed.wait()
            taken = self.items, self.dropped
            self.items, self.dropped, self.bytes = [], {}, 0
            return taken


def write_all(queue: Queue, logs: dict[bytes, Log], fifo: int) -> None:
    """The writing thread: ends the process after the last byte, with a report to the runner."""
    while True:
        items, dropped = queue.take()
        if not items and not dropped:
            leave(logs, fifo, queue.why)
        for kind, data in items:
            logs.get(kind, logs[Splitter.STDOUT]).write(data)
        for kind, size in dropped.items():
            log = logs.get(kind, logs[Splitter.STDOUT])
            log.drop(log.at, log.at + size)
            log.at += size


def leave(logs: dict[bytes, Log], fifo: int, why: str) -> NoReturn:
    report = {"why": why, "logs": {log.name: log.report(ended=why == "end") for log in logs.values()}}
    with contextlib.suppress(OSError):  # the runner may be gone; the logs are whole all the same
        os.write(fifo, json.dumps(report).encode() + b"\n")
    os._exit(0)


def drain(queue: Queue, splitter: Splitter, fifo: int, asked: int) -> str:
    """Read until the input ends: "eof"; or, once asked to end, until it is empty: "end".

    With the runner gone, until nothing has come for ORPHANED_QUIET_MS.
    """
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(fifo, 0)
    poll.register(asked, select.POLLIN)
    wait_ms = None
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
            wait_ms = ORPHANED_QUIET_MS if wait_ms is None else wait_ms
        if 0 in events:
            data = os.read(0, READ_BYTES)
            if not data:
                return "eof"
            # Here and not where it is written: a mark must be seen though the queue is full.
            for kind, part in splitter.feed(data):
                queue.put(kind, part)


def catch_request() -> int:
    """A descriptor that is readable after SIGUSR1, by which one who can print no end mark asks us to end."""
    asked, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGUSR1, lambda *_: None)
    return asked


def main(folder: str, nonce: str, limit: str, separate: str) -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    try:
        fifo = os.open(os.path.join(folder, "recorder"), os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:  # its runner was killed before this
        sys.exit(1)
    os.set_blocking(fifo, True)
    if fifo != SHELL_FD:
        # With the shell's own open, which reads too, the end of the runner would never be seen.
        with contextlib.suppress(OSError):
            os.close(SHELL_FD)
    names = {Splitter.STDOUT: "output.log"}
    if separate == "1":
        names[Splitter.STDERR] = "stderr.log"
    try:
        logs = {}
        for kind, name in names.items():
            logs[kind] = Log(os.path.join(folder, name), int(limit))
    except (OSError, ValueError) as error:
        text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        os.write(fifo, json.dumps({"why": "failed", "error": f"{name}: {text}"}).encode() + b"\n")
        sys.exit(1)
    queue, splitter = Queue(), Splitter(nonce)
    # The first report is sent before anything is queued, so the writer's own comes after it.
    writer = threading.Thread(target=write_all, args=(queue, logs, fifo))
    asked = catch_request()
    try:
        writer.start()
    except RuntimeError:  # the machine is out of processes, which threads are too: pthread_create(3), EAGAIN
        os.write(fifo, json.dumps({"why": "failed", "error": os.strerror(errno.EAGAIN)}).encode() + b"\n")
        sys.exit(1)
    try:
        os.write(fifo, json.dumps({"why": "ready", "pid": os.getpid()}).encode() + b"\n")
    except OSError:  # its runner was killed meanwhile; the writer would wait forever
        os._exit(1)
    why = "eof"
    with contextlib.suppress(OSError):  # an input that fails has ended
        why = drain(queue, splitter, fifo, asked)
    queue.put(splitter.kind, splitter.held)
    queue.end(why)
    writer.join()
