"""Terminals and who reads them: their settings, and what the processes in front sleep in. Knows pids, not records.

Linux tells exactly: proc_pid_syscall(5) has the call a thread sleeps in and the files it waits for. Where that may not
be looked at (another user's process, or Yama), wchan and the open files tell it when they leave one answer only.
Elsewhere nothing is known, and nothing is said.
"""

from __future__ import annotations

import os
import struct
import sys
import termios
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LINUX = sys.platform.startswith("linux")
IDLE_S = 0.02
"""Between two looks at a process that polls: one that works meanwhile does not wait for anybody."""
Attention = Literal["reads", "polls", "unknown", "none"]
"""What the processes in front do about their terminal: are blocked in a read, poll it, cannot be looked at."""
READS, POLLS, SELECTS, EPOLLS = range(4)
CALLS: dict[str, dict[int, int]] = {
    "x86_64": {0: READS, 19: READS, 7: POLLS, 271: POLLS, 23: SELECTS, 270: SELECTS, 232: EPOLLS, 281: EPOLLS},
    "aarch64": {63: READS, 65: READS, 73: POLLS, 72: SELECTS, 22: EPOLLS},
}
CALLS["x86_64"][441] = CALLS["aarch64"][441] = EPOLLS
CALLS["riscv64"] = CALLS["aarch64"]
POLLIN = 0x0041
"""POLLIN | POLLRDNORM, poll(2); EPOLLIN and EPOLLRDNORM are the same bits."""
DESCRIPTORS_MAX = 4096
WCHAN_READS = {"n_tty_read", "wait_woken"}
WCHAN_POLLS = {"poll_schedule_timeout", "do_select", "do_sys_poll", "do_poll"}
WCHAN_EPOLLS = {"ep_poll", "do_epoll_wait"}


@dataclass(frozen=True)
class Terminal:
    """A terminal's settings that matter for input: `cooked` takes whole lines, `echo` off hides what is typed."""

    cooked: bool
    echo: bool

    @property
    def hides(self) -> bool:
        """Lines are taken and not shown: what a program sets while it asks for a password."""
        return self.cooked and not self.echo


def terminal(tty: str) -> Terminal | None:
    """Settings of the terminal at that path; None when it is closed or not ours."""
    try:
        fd = os.open(tty, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        flags = termios.tcgetattr(fd)[3]
        return Terminal(cooked=bool(flags & termios.ICANON), echo=bool(flags & termios.ECHO))
    except termios.error:
        return None
    finally:
        os.close(fd)


def attention(ttys: Iterable[str], *, pause_s: float = IDLE_S) -> dict[str, Attention]:
    """{terminal: what those in front do about it}; one that polls or has threads is looked at twice."""
    groups = _foreground(ttys)
    found = {tty: _of_group(pids, tty) for tty, pids in groups.items()}
    unsure = [tty for tty, said in found.items() if said in ("reads", "polls")]
    if unsure and pause_s:
        before = {tty: _work(groups[tty], tty) for tty in unsure}
        time.sleep(pause_s)
        for tty in unsure:
            if _of_group(groups[tty], tty) != found[tty] or _work(groups[tty], tty) != before[tty]:
                found[tty] = "none"
    return found


def _foreground(ttys: Iterable[str]) -> dict[str, list[int]]:
    """{terminal: pids of its foreground process group}, in one pass over the process table."""
    if not LINUX:
        return {}
    numbers: dict[int, str] = {}
    for tty in ttys:
        try:
            device = os.stat(tty).st_rdev
        except OSError:
            continue
        minor = os.minor(device)
        numbers[minor & 0xFF | os.major(device) << 8 | (minor & ~0xFF) << 12] = tty  # proc_pid_stat(5), tty_nr
    found: dict[str, list[int]] = {tty: [] for tty in numbers.values()}
    for entry in os.listdir("/proc") if numbers else ():
        if entry.isdigit() and (fields := _stat(f"/proc/{entry}")) is not None:
            number = int(fields[4]) & 0xFFFFFFFF
            if number in numbers and fields[2] == fields[5] and fields[0] not in (b"Z", b"X"):
                found[numbers[number]].append(int(entry))
    return found


def _stat(folder: str) -> list[bytes] | None:
    """Fields of a stat file from the state on, None when it is gone."""
    try:
        return Path(folder, "stat").read_bytes().rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return None


def _of_group(pids: list[int], tty: str) -> Attention:
    found = {_of_process(pid, tty) for pid in pids}
    order: tuple[Attention, ...] = ("reads", "polls", "unknown")
    return next((said for said in order if said in found), "none")


def _work(pids: list[int], tty: str) -> list[tuple[int, bytes, bytes]]:
    """CPU time, in ticks, of those that pay attention to the terminal."""
    return [
        (pid, fields[11], fields[12])
        for pid in pids
        if _of_process(pid, tty) in ("reads", "polls") and (fields := _stat(f"/proc/{pid}")) is not None
    ]


def _of_process(pid: int, tty: str) -> Attention:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return "none"
    said: Attention = "none"
    for thread in threads:
        folder = f"/proc/{pid}/task/{thread}"
        fields = _stat(folder)
        if fields is None or fields[0] not in (b"S", b"R"):
            continue  # stopped, or in the middle of something
        if fields[0] == b"R":
            return "none"
        one = _of_thread(pid, folder, tty)
        # A console beside the work of others is like a poll: it is there all the time.
        one = "polls" if one == "reads" and len(threads) > 1 and int(thread) != pid else one
        order: tuple[Attention, ...] = ("reads", "polls", "unknown", "none")
        said = min(said, one, key=order.index)
    return said


def _of_thread(pid: int, folder: str, tty: str) -> Attention:
    try:
        return _of_call(pid, _sleeps_in(folder), tty)
    except FileNotFoundError:
        return "none"
    except OSError:
        return _of_wchan(pid, folder, tty)


def _sleeps_in(folder: str) -> list[int]:
    """Number and arguments of the system call a thread is in, [] when it is in none; raises OSError."""
    calls = CALLS.get(os.uname().machine)
    if calls is None:
        raise PermissionError
    words = Path(folder, "syscall").read_text().split()
    return [int(word, 0) for word in words] if words and words[0] not in ("running", "-1") else []


def _of_call(pid: int, call: list[int], tty: str) -> Attention:
    """From the exact call; raises OSError when its arguments may not be looked at."""
    kind = CALLS[os.uname().machine].get(call[0]) if call else None
    if kind == READS:
        return "reads" if _is_terminal(pid, call[1], tty) else "none"
    waits = False
    if kind == POLLS:
        size = min(call[2], DESCRIPTORS_MAX) * 8
        polled = struct.iter_unpack("iHH", _memory(pid, call[1], size))
        waits = any(events & POLLIN and _is_terminal(pid, fd, tty) for fd, events, _ in polled)
    elif kind == SELECTS:
        bits = _memory(pid, call[2], (min(call[1], DESCRIPTORS_MAX) + 7) // 8) if call[2] else b""
        chosen = [place * 8 + bit for place, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1]
        waits = any(_is_terminal(pid, fd, tty) for fd in chosen)
    elif kind == EPOLLS:
        waits = _epoll_has(pid, call[1], tty)
    return "polls" if waits else "none"


def _memory(pid: int, address: int, size: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        return os.pread(file.fileno(), size, address)


def _epoll_has(pid: int, fd: int, tty: str) -> bool:
    """Whether an epoll descriptor waits for input from the terminal, proc_pid_fdinfo(5)."""
    for line in Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines():
        words = line.split()
        if line.startswith("tfd:") and int(words[3], 16) & POLLIN and _is_terminal(pid, int(words[1]), tty):
            return True
    return False


def _is_terminal(pid: int, fd: int, tty: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}") in (tty, "/dev/tty")
    except FileNotFoundError:
        return False


def _of_wchan(pid: int, folder: str, tty: str) -> Attention:
    """From the kernel function a thread sleeps in and the files it could be waiting for; unknown when several could."""
    try:
        wchan = Path(folder, "wchan").read_text().partition(".")[0]  # the compiler's `.constprop.0`
        files = {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        epolls = [fd for fd, name in files.items() if name == "anon_inode:[eventpoll]"]
        if wchan in WCHAN_EPOLLS:
            return "polls" if any(_epoll_has(pid, fd, tty) for fd in epolls) else "none"
    except FileNotFoundError:
        return "none"
    except OSError:
        return "unknown"
    if wchan in ("", "0"):
        return "unknown"
    if wchan not in WCHAN_READS | WCHAN_POLLS or not {tty, "/dev/tty"} & set(files.values()):
        return "none"
    others = {name.partition(":")[0] for name in files.values() if not name.startswith("/") or name == "/dev/ptmx"}
    if wchan in WCHAN_READS:
        # Sockets, inotify and the other end of a terminal are read in the same function.
        return "unknown" if others & {"socket", "anon_inode", "/dev/ptmx"} else "reads"
    keys = (settings := terminal(tty)) is not None and not settings.cooked
    # With pipes open it takes a terminal set for single keys, as line editors do only while they read.
    return "unknown" if others & {"socket", "/dev/ptmx"} or ("pipe" in others and not keys) else "polls"
