"""One log of a job, as its recorder writes it: bounded, and text at every moment. Stdlib only.

A log without gaps is one file, `output.log`, whose offsets are those of the stream. At the first gap the stream moves
to `output.raw`, a file with holes, which keeps the offsets. `output.log` is then a new file with the newest output,
restarted from time to time, so that it stays small, is text, and `tail -f` can follow it. Meanwhile the first part is
moved as text to `output.first.log`; at the end that receives all that is kept, with a line in place of each gap, and
becomes `output.log`. `output.gaps` lists what is gone, and how much of the stream is in that text.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from binascii import crc32

from tmuxjobs.lean import suppress
from tmuxjobs.pane.gaps import CHANGED, FULL, LIMIT, SICK, Gap, Gaps, has_name, opened, replaced

READ_BYTES = 1 << 18
MOVE_BYTES = 1 << 20
BLOCK_BYTES = 4096
NOTES_MAX = 3
READ_BACK_S = 30.0
GATHER_S = 20.0
WINDOW_BYTES = 64 << 20
FOLLOW_BYTES_S = 1 << 30
# This much of the disk stays free, except for the first bytes of each log: a person who makes room needs output.
FREE_BYTES = 1 << 30
FREE_PART = 20
FIRST_BYTES = 1 << 16
FREE_CHECK_S = 1.0
OURS = "[tmuxjobs: "


class Log:
    """One bounded log. `limit` is what its files may take on disk, in bytes; 0 means no bound."""

    def __init__(self, path: str, limit: int) -> None:
        stem = os.path.splitext(path)[0]
        self.path, self.name = path, os.path.basename(path)
        self.raw_path, self.first_path, self.new_path = stem + ".raw", stem + ".first.log", stem + ".new"
        self.gaps = Gaps(stem + ".gaps")
        self.limit = limit
        self.head = limit // 2 // BLOCK_BYTES * BLOCK_BYTES
        self.window = limit // 16 or WINDOW_BYTES
        self.full = self.is_astray = False
        self.notes: list[str] = []
        self.free = 0
        self.look_at = 0.0
        self.live_fd = self.first_fd = -1
        self.live_size = 0
        self.sum = 0
        self.gaps.is_split = self.gaps.moved > 0 or os.path.lexists(self.raw_path)
        if self.gaps.moved and not os.path.lexists(self.first_path):
            give_name(self.path, self.first_path)  # an earlier recorder has gathered it all
        self.fd = opened(self.file)
        # As we leave it: any other size means that another program changed the file.
        self.size = os.fstat(self.fd).st_size
        # An earlier recorder may have dropped bytes beyond the end of the file.
        self.at = self.begun_at = max(self.size, self.gaps.end)
        if self.gaps.is_split:
            self.stretch(self.at)
            self.gaps.write()
            self.go_on_live()

    @property
    def file(self) -> str:
        return self.raw_path if self.gaps.is_split else self.path

    # What is gone

    def note(self, text: str) -> None:
        if self.at and len(self.notes) < NOTES_MAX:
            self.notes.append(text)

    def verify(self) -> None:
        """If somebody has removed, replaced or cut the log, count the loss and continue in the file of that name."""
        if self.is_astray:
            return
        name = os.path.basename(self.file)
        if not has_name(self.fd, self.file):
            what = "replaced by another file" if os.path.lexists(self.file) else "removed or moved"
            self.note(f"{name} was {what} at byte {self.at}")
            try:
                self.reopen()
            except OSError as error:
                self.note(f"nothing was recorded after that: {error.strerror}")
                self.full = self.is_astray = True
        elif os.fstat(self.fd).st_size < self.size:
            self.note(f"{name} was cut to {os.fstat(self.fd).st_size} bytes at byte {self.at}")
        elif not self.gaps.all or self.gaps.is_there():
            return
        self.size = 0 if self.is_astray else os.fstat(self.fd).st_size
        self.drop(max(self.gaps.moved, min(self.size, self.at)), self.at, CHANGED)
        self.gaps.write()

    def reopen(self) -> None:
        fd = opened(self.file)
        if os.fstat(fd).st_nlink != 1:
            os.close(fd)
            raise OSError(errno.EMLINK, "it is a link to a file elsewhere")
        self.fd = replaced(self.fd, fd)

    def drop(self, start: int, end: int, why: str) -> None:
        """Count bytes start..end of the stream as gone."""
        if start >= end:
            return
        self.gaps.mark(start, end, why)
        if not self.is_astray:
            self.split()
            if not self.full:
                self.stretch(end)
        self.gaps.write()

    def stretch(self, end: int) -> None:
        """Give a file with holes the stream's size, even if it ends in one; without holes it would fill up."""
        with suppress(OSError):
            size = max(end, os.fstat(self.fd).st_size)
            if self.gaps.is_split:
                os.ftruncate(self.fd, size)
                self.size = max(self.size, end)

    # What comes

    def write(self, data: bytes) -> None:
        self.verify()
        view = memoryview(data)
        while view:
            why = (CHANGED if self.is_astray else LIMIT) if self.full else ""
            if why or not self.has_room(len(view)):
                return self.skip(len(view), why or FULL)
            if self.gaps.all:
                self.split()
            try:
                # In pieces: one read may be more than a small log may take.
                done = os.pwrite(self.fd, view[: self.limit // 16] if self.limit else view, self.at)
            except OSError as error:
                is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
                return self.skip(len(view), FULL if is_full else SICK)
            if not self.gaps.all:  # else it is not read back
                self.sum = crc32(view[:done], self.sum)
            self.at += done
            self.size = max(self.size, self.at)
            self.bound()
            if self.gaps.is_split:
                self.show(view[:done])
                with suppress(OSError):  # it is tried again
                    self.move(2 * done)
            view = view[done:]
        return None

    def skip(self, size: int, why: str) -> None:
        """Count the next `size` bytes of the stream as not kept."""
        begins = not self.gaps.all or self.gaps.all[-1].end < self.at
        self.drop(self.at, self.at + size, why)
        self.at += size
        if begins and self.gaps.is_split:
            self.show(memoryview(f"\n[tmuxjobs: output from here on is not kept: {why}]\n".encode()))

    def has_room(self, size: int) -> bool:
        """Whether the disk has more free than it must keep; asked again after 1/16 of the rest or FREE_CHECK_S."""
        if self.at + size <= FIRST_BYTES:
            return True
        self.free -= size
        if self.free < 0 or time.monotonic() >= self.look_at:
            facts = os.fstatvfs(self.fd)
            floor = min(FREE_BYTES, facts.f_blocks * facts.f_frsize // FREE_PART)
            self.free = (facts.f_bavail * facts.f_frsize - floor - size) // 16
            self.look_at = time.monotonic() + FREE_CHECK_S
        return self.free >= 0

    def bound(self) -> None:
        """Keep the first half of the limit and, of the rest, the newest; the middle becomes a hole."""
        if not self.limit:
            return
        start, kept_from = self.head, self.gaps.kept_from(self.head)
        # Less a block for a line, one partly filled, and what `write` adds or `move` duplicates before the next check.
        room = self.limit - self.head - 2 * BLOCK_BYTES - self.limit // 16
        until = (self.at - (room - self.window) * 7 // 8) // BLOCK_BYTES * BLOCK_BYTES
        if until <= kept_from or self.at - kept_from <= room - (self.window if self.gaps.is_split else 0):
            return
        self.gaps.mark(start, until, LIMIT)
        self.split()
        self.gaps.write()
        try:
            punch(self.fd, kept_from // BLOCK_BYTES * BLOCK_BYTES if kept_from > start else start, until)
        except OSError:
            # No holes on this file system: the first part is kept, what follows is counted.
            self.full = True
            self.gaps.all = [gap for gap in self.gaps.all if gap.start != start]
            self.gaps.write()

    # As text

    def split(self) -> None:
        """Give the name to a new file for what comes: after a gap this file would no longer be text."""
        if self.gaps.is_split or not has_name(self.fd, self.path):
            return
        try:
            give_name(self.path, self.raw_path)
        except OSError:
            return
        self.gaps.is_split = True
        self.gaps.write()
        self.show(memoryview(b""))

    def show(self, data: memoryview) -> None:
        """Append to the file that people follow, or restart it; what cannot be written is missing only there."""
        with suppress(OSError):
            if not has_name(self.live_fd, self.path):
                if not self.may_replace():
                    return
                self.begin_live()
            elif self.live_size + len(data) > self.window:
                # Leave `tail -f` a moment to read its end.
                time.sleep(min(0.1, self.window / FOLLOW_BYTES_S))
                self.begin_live_anew(self.preface(len(data)))
                data = data[continued(bytes(data[:3])) :]
            self.live_size += len(data)
            while data:
                data = data[os.write(self.live_fd, data) :]
            return
        self.live_size = self.window  # restarted once there is room

    def begin_live(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self.new_path)
        fd = opened(self.new_path, os.O_APPEND)
        self.live_fd = replaced(self.live_fd, fd)
        try:
            self.live_size = os.write(fd, self.preface(0))
            os.rename(self.new_path, self.path)
        except OSError:
            os.unlink(self.new_path)
            raise

    def begin_live_anew(self, preface: bytes) -> None:
        """Restart the same file; at every moment it begins with the line that says it is ours."""
        fd = opened(self.path)
        try:
            self.live_size = os.pwrite(fd, preface, 0)
            os.ftruncate(fd, len(preface))
        finally:
            os.close(fd)

    def go_on_live(self) -> None:
        """Continue the file that people follow, if an earlier recorder left one."""
        with suppress(OSError):  # a new one is made
            if not os.path.lexists(self.path) or self.may_replace():
                return
            fd = opened(self.path, os.O_APPEND)
            if os.pread(fd, len(OURS), 0) in (b"", OURS.encode()):
                self.live_fd, self.live_size = fd, os.fstat(fd).st_size
            else:
                os.close(fd)  # another program's

    def preface(self, size: int) -> bytes:
        """The first line of that file, which continues with the last `size` bytes."""
        gone = ", ".join(f"{lost:,} are gone: {why}" for why, lost in self.gaps.lost().items()) or "none are gone"
        return (
            f"{OURS}the newest output; {self.at - size:,} bytes came before it, of which {gone}. The first are in "
            f"{os.path.basename(self.first_path)}; once the job has ended, all that is kept is in this file]\n"
        ).encode()

    def first(self) -> int:
        """The descriptor of the text so far; if another program cut or removed that, the text counts as lost."""
        if not has_name(self.first_fd, self.first_path):
            self.first_fd = replaced(self.first_fd, opened(self.first_path))
        size = self.gaps.place(self.gaps.moved)
        if os.fstat(self.first_fd).st_size < size:
            self.note(f"{os.path.basename(self.first_path)} was removed or changed")
            gone, size = self.gaps.moved, 0
            self.gaps.forget_text()
            self.gaps.mark(0, gone, CHANGED)
            self.gaps.write()
        if os.fstat(self.first_fd).st_size > size:
            os.ftruncate(self.first_fd, size)  # left unfinished by a recorder that was killed
        return self.first_fd

    def move(self, most: int, *, final: bool = False) -> bool:
        """Move up to `most` bytes of the first part (with `final`: of all) into the text; False when none are left."""
        end = self.at if final else min(self.head, self.at)
        gap = next((gap for gap in self.gaps.all if gap.end > self.gaps.moved), None)
        is_in_gap = gap is not None and gap.start <= self.gaps.moved
        if self.full or self.gaps.moved >= end or (gap and is_in_gap and gap.end >= end and not final):
            return False
        fd, begun = self.first(), self.gaps.moved
        if gap and is_in_gap:
            self.move_gap(fd, gap)
            self.gaps.write()
            return True
        until = min(end, gap.start if gap else end, begun + min(most, MOVE_BYTES, self.limit // 16 or MOVE_BYTES))
        data = os.pread(self.fd, until - begun, begun)
        if not data:
            return False  # cut by another program: `verify` reports it
        self.gaps.moved += os.pwrite(fd, data, self.gaps.place(begun))
        self.gaps.write()
        start, until = begun // BLOCK_BYTES * BLOCK_BYTES, self.gaps.moved // BLOCK_BYTES * BLOCK_BYTES
        if self.gaps.is_listed and start < until:
            with suppress(OSError):  # no holes on this file system: these bytes are there twice until the end
                punch(self.fd, start, until)
        return self.gaps.is_listed

    def move_gap(self, fd: int, gap: Gap) -> None:
        """Write the gap's line, and drop characters that the gap cuts: `grep` would take the text for binary."""
        size = self.gaps.place(self.gaps.moved)
        tail = os.pread(fd, min(4, size), max(0, size - 4))
        cut = cut_character(tail)
        gap.start -= cut
        if gap.end < self.at:
            gap.end += continued(os.pread(self.fd, 3, gap.end))
        begins_line = tail[: len(tail) - cut][-1:] in (b"", b"\n")
        line = f"[tmuxjobs: {gap.end - gap.start:,} bytes are missing here: {gap.why}]\n".encode()
        line = line if begins_line else b"\n" + line
        os.ftruncate(fd, size - cut)
        with suppress(OSError):
            gap.line = os.pwrite(fd, line, size - cut)
        if gap.line < len(line):  # a full disk: only the list says it
            os.ftruncate(fd, size - cut)
            gap.line = 0
        self.gaps.moved = gap.end

    def gather(self) -> None:
        """Make the log one text again; it stays as it is if that takes over GATHER_S or the disk is full."""
        if not self.gaps.is_split or self.is_astray or not self.may_replace():
            return None
        deadline = time.monotonic() + GATHER_S
        with suppress(OSError):
            if self.gaps.all and not self.gaps.moved and self.gaps.kept_from(self.gaps.all[0].start) == self.at:
                return self.close_with_line()
            self.first()
            while self.move(MOVE_BYTES, final=True):
                if time.monotonic() > deadline:
                    return None
            if self.gaps.moved == self.at:
                self.take_name(self.first_path)
        return None

    def close_with_line(self) -> None:
        """Finish a log of which only the beginning is kept: with the gaps' lines appended, the file is the text."""
        self.gaps.moved = self.gaps.all[0].start
        try:
            for gap in self.gaps.all:
                self.move_gap(self.fd, gap)
        except OSError:
            self.gaps.forget_text()
            raise
        self.take_name(self.raw_path)

    def take_name(self, path: str) -> None:
        os.rename(path, self.path)
        with suppress(FileNotFoundError):
            os.unlink(self.raw_path)
        self.gaps.is_split = False
        self.fd = replaced(self.fd, opened(self.path))
        self.gaps.write()

    def may_replace(self) -> bool:
        """Whether no other program has put a file in the place of the one that people follow."""
        with suppress(OSError):
            there = os.lstat(self.path)
            for ours in (self.file, self.first_path):
                with suppress(OSError):
                    if os.path.samestat(there, os.lstat(ours)):
                        return True
            return bool(has_name(self.live_fd, self.path))
        return True

    # Its end

    def report(self, *, ended: bool) -> dict[str, object]:
        """The report to the runner: `why` says what another program did to the log, `doubt` what is not known of it.

        A log that lacks its end or has gaps is incomplete anyway and is not read back.
        """
        self.verify()
        self.gather()
        self.gaps.write()
        lost = self.gaps.lost()
        facts: dict[str, object] = {"bytes": self.at, "dropped_bytes": sum(lost.values())}
        if lost:
            facts["lost"] = lost
        if ended and not self.gaps.all and not self.notes:
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


def give_name(path: str, name: str) -> None:
    """Give the file that name too; where hard links do not work, rename it."""
    try:
        os.link(path, name)
    except OSError:
        os.rename(path, name)


def continued(data: bytes) -> int:
    """How many bytes at the start belong to a character that began earlier."""
    return len(data) - len(data.lstrip(bytes(range(0x80, 0xC0))))


def cut_character(tail: bytes) -> int:
    """How many bytes at the end, of up to 4, begin a character that does not end there."""
    for size in range(1, min(4, len(tail) + 1)):
        first = tail[-size]
        if first < 0x80:
            return 0
        if first >= 0xC0:
            return size if size < (2 if first < 0xE0 else 3 if first < 0xF0 else 4) else 0
    return 0


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
