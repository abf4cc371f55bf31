"""Terminals and what reads them: their settings, and what the foreground sleeps in. Knows pids, not records.

Linux shows it exactly: proc_pid_syscall(5) has the call a thread sleeps in and the files it waits for. Where that may
not be read (another user's process, or Yama), wchan and the open files decide if they leave only one answer. On other
systems nothing is known, and nothing is reported.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import termios
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tmuxjobs.system.processes import content
from tmuxjobs.system.table import Table, links, stat

LINUX = sys.platform.startswith("linux")
IDLE_S = 0.02
"""Seconds between two samples of a process that polls; CPU use in between means that it is not waiting."""
Attention = Literal["reads", "polls", "unknown", "none"]
"""What foreground processes do about their terminal: wait only for it, wait among others, not readable, nothing."""
Beside = Literal["nobody", "sleeps", "works"]
"""What the others in front do, as `beside.py` finds: wait for those that read, sleep until something else, work."""
READS, POLLS, SELECTS, EPOLLS, LOCKS = range(5)
CALLS: dict[str, dict[int, int]] = {
    "x86_64": {0: READS, 19: READS, 7: POLLS, 271: POLLS, 23: SELECTS, 270: SELECTS, 232: EPOLLS, 281: EPOLLS},
    "aarch64": {63: READS, 65: READS, 73: POLLS, 72: SELECTS, 22: EPOLLS},
}
CALLS["x86_64"][441] = CALLS["aarch64"][441] = EPOLLS
CALLS["x86_64"][202] = CALLS["aarch64"][98] = LOCKS
CALLS["riscv64"] = CALLS["aarch64"]
MILLISECONDS = {7, 232, 281, 22}
"""Calls with a timeout in ms; all others have a timespec, except select(2), 23 on x86_64, with a timeval."""
POLLIN = 0x0041
"""POLLIN | POLLRDNORM, poll(2); EPOLLIN and EPOLLRDNORM are the same bits."""
DESCRIPTORS_MAX = 4096
NO_CODE = (b"\0", b"\xff")
"""_POSIX_VDISABLE: no key is it."""
WCHAN_READS = {"n_tty_read", "wait_woken"}
WCHAN_POLLS = {"poll_schedule_timeout", "do_select", "do_sys_poll", "do_poll"}
WCHAN_EPOLLS = {"ep_poll", "do_epoll_wait"}
OWN = {"anon_inode:[eventfd]", "anon_inode:[signalfd]"}
"""Files by which only the process itself, or a signal, wakes it."""


@dataclass(frozen=True)
class Terminal:
    """A terminal's settings that matter for input: `cooked` takes whole lines, `echo` off hides what is typed.

    `bare` leaves input and output as they are: it is set by programs that pass all of it on to another terminal.
    """

    cooked: bool
    echo: bool
    signals: bool = True
    """Whether Ctrl-C is a signal: line editors leave it one, programs that draw their own screen take every key."""
    bare: bool = False
    quotes: bool = False
    """Whether Ctrl-V makes text of the key after it: readline, zle and libedit take it from the terminal for that.

    Of one that takes lines, whether the terminal itself does so.
    """

    @property
    def hides(self) -> bool:
        """Lines are taken and not shown: what a program sets while it asks for a password."""
        return self.cooked and not self.echo


@dataclass(frozen=True)
class Front:
    """What the foreground processes of a terminal do about input; `tty` is where it arrives: see `_front`.

    With `alone` only the terminal, a signal or the clock wakes a process that polls; `every_s` is after how long the
    clock does, 0 for never, None when that is not known. `is_guest` says that the reader is not of the terminal's
    session, such as gpg's pinentry.
    """

    tty: str
    attention: Attention = "none"
    alone: bool = False
    every_s: float | None = None
    is_guest: bool = False
    pids: tuple[int, ...] = ()
    beside: Beside = "nobody"

    @property
    def attends(self) -> bool:
        """Whether it is known that input would be read."""
        return self.attention in ("reads", "polls")

    @property
    def rank(self) -> int:
        """Which one counts if there are several in the foreground: the lowest."""
        order: tuple[Attention, ...] = ("reads", "polls", "unknown", "none")
        return 2 * order.index(self.attention) - self.alone


def terminal(tty: str) -> Terminal | None:
    """Settings of the terminal at that path; None when it is closed or not ours."""
    try:
        fd = os.open(tty, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        _, output, _, flags, _, _, codes = termios.tcgetattr(fd)
        cooked, echo, signals = (bool(flags & one) for one in (termios.ICANON, termios.ECHO, termios.ISIG))
        bare = not (cooked or signals or output & termios.OPOST)
        free = codes[termios.VLNEXT] in NO_CODE
        quotes = bool(flags & termios.IEXTEN) and not free if cooked else free and signals and not echo
        return Terminal(cooked=cooked, echo=echo, signals=signals, bare=bare, quotes=quotes)
    except termios.error:
        return None
    finally:
        os.close(fd)


def set_echo(tty: str, *, on: bool) -> bool:
    """Whether the terminal has begun, or ceased, to show what is typed; False when it did before, or is closed."""
    try:
        fd = os.open(tty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        modes = termios.tcgetattr(fd)
        if bool(modes[3] & termios.ECHO) is on:
            return False
        modes[3] ^= termios.ECHO
        termios.tcsetattr(fd, termios.TCSANOW, modes)
        return True
    except termios.error:
        return False
    finally:
        os.close(fd)


def unread(tty: str) -> int:
    """How many typed bytes have not been read yet, tty_ioctl(4); 0 when the terminal is closed or not ours."""
    try:
        fd = os.open(tty, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return 0
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
    except OSError:
        return 0
    finally:
        os.close(fd)


def fronts(runners: Mapping[str, int], *, pause_s: float = IDLE_S) -> dict[str, Front]:
    """{terminal: what its foreground processes do about it}; those that read or poll are checked twice.

    `runners` has the pid of each terminal's runner, 0 where that is not known.
    """
    if not LINUX or not runners:
        return {}
    table = Table(runners)
    found = {tty: front for tty in runners if (front := _front(tty, table)) is not None}
    unsure = [tty for tty, front in found.items() if front.attends]
    if unsure and pause_s:
        before = {tty: _work(found[tty].pids) for tty in unsure}
        time.sleep(pause_s)
        for tty in unsure:
            front, again = found[tty], _of_group(found[tty].pids, found[tty].tty)
            if again.attention != front.attention or _work(front.pids) != before[tty]:
                found[tty] = replace(front, attention="none")
    return found


def reads_by_script(tty: str, runner: int) -> bool:
    """Whether a shell that runs a script, or a line of `-c`, reads the terminal, as `read -e` does."""
    pid = reader(tty, runner)
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1] if pid is not None else []
    except OSError:
        return False
    options = [word for word in argv[1:] if word.startswith("-")]
    asked = any("i" in word for word in options if not word.startswith("--"))
    return bool(argv) and Path(argv[0]).name in ("bash", "sh") and not asked and len(options) < len(argv) - 1


def reader(tty: str, runner: int) -> int | None:
    """The pid of the process that waits only for this terminal, if no other could print before the input is read.

    None also where that is not known: for another user's process, one with threads, or one that passes input on.
    """
    number = number_of(tty) if LINUX else None
    if number is None:
        return None
    table = Table({tty: runner})
    group = table.group(tty, number)
    front = _of_group(group, tty)
    if front.attention != "reads" or not front.alone or len(front.pids) != 1 or _inner(front, number, table):
        return None
    [pid] = front.pids
    try:
        if len(os.listdir(f"/proc/{pid}/task")) > 1:
            return None
    except OSError:
        return None
    above, others = pid, set(group)
    while above in others:  # a shell that waits for it prints nothing
        others.discard(above)
        fields = stat(f"/proc/{above}")
        above = int(fields[1]) if fields is not None else 0
    return None if others else pid


def _front(tty: str, table: Table, *, depth: int = 3) -> Front | None:
    """What the foreground processes do; if they only pass input on to a terminal of their own, what those there do.

    sudo, script, expect and rlwrap pass it on. None when the terminal is gone.
    """
    number = number_of(tty)
    if number is None:
        return None
    front = _of_group(table.group(tty, number), tty)
    inner = _inner(front, number, table) if depth and front.attention != "none" else []
    if inner:
        beyond = filter(None, (_front(one, table, depth=depth - 1) for one in inner))
        return min(beyond, key=lambda one: one.rank, default=Front(inner[0]))
    # A program that reads keys or hidden input has set the terminal so: it is worth a search.
    if (
        front.attention == "none"
        and (settings := terminal(tty)) is not None
        and not (settings.cooked and settings.echo)
    ):
        guest = _of_group(table.guests(tty), tty)
        return replace(guest, is_guest=True) if guest.attends else front
    return front


def number_of(tty: str) -> int | None:
    """The number of the device, as in tty_nr of proc_pid_stat(5)."""
    try:
        device = os.stat(tty).st_rdev
    except OSError:
        return None
    minor = os.minor(device)
    return minor & 0xFF | os.major(device) << 8 | (minor & ~0xFF) << 12


def _inner(front: Front, number: int, table: Table) -> list[str]:
    """Terminals that these processes have made: by their open files or, for another user's, by what runs in them."""
    found = []
    for pid in front.pids:
        try:
            for fd, name in links(pid).items():
                if name in ("/dev/ptmx", "/dev/pts/ptmx"):
                    facts = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().split()
                    found += [f"/dev/pts/{facts[facts.index('tty-index:') + 1]}"] if "tty-index:" in facts else []
        except OSError:
            found += table.below(pid, number) if front.attention == "unknown" else []
    return found


def _of_group(pids: Iterable[int], tty: str) -> Front:
    """The one of lowest rank, with the pids of all that pay attention."""
    each = {pid: _of_process(pid, tty) for pid in pids}
    best = min(each.values(), key=lambda front: front.rank, default=Front(tty))
    return replace(best, pids=tuple(pid for pid, front in each.items() if front.attention != "none"))


def _work(pids: Iterable[int]) -> list[tuple[int, bytes, bytes]]:
    """Their CPU time, in ticks."""
    found = ((pid, stat(f"/proc/{pid}")) for pid in pids)
    return [(pid, fields[11], fields[12]) for pid, fields in found if fields is not None]


def _of_process(pid: int, tty: str) -> Front:
    nothing = Front(tty)
    fields = stat(f"/proc/{pid}")
    if fields is None or (fields[17] == b"1" and fields[0] != b"S"):
        return nothing
    if fields[17] == b"1":
        return _of_thread(pid, f"/proc/{pid}", tty)
    try:
        threads = sorted(map(int, os.listdir(f"/proc/{pid}/task")))
    except OSError:
        return nothing
    said, is_main_idle = nothing, False
    for thread in threads:
        folder = f"/proc/{pid}/task/{thread}"
        fields = stat(folder)
        if fields is None or fields[0] not in (b"S", b"R"):
            continue  # stopped, or in the middle of something
        if fields[0] == b"R":
            return nothing
        one = _of_thread(pid, folder, tty)
        if thread == pid:
            is_main_idle = len(threads) > 1 and one.attention == "none" and _waits_for_a_thread(folder)
        elif one.attention in ("reads", "polls") and not is_main_idle:
            # A console beside other threads that work is like a poll: it is there all the time.
            one = replace(one, attention="polls", alone=False)
        said = min(said, one, key=lambda front: front.rank)
    return said


def _waits_for_a_thread(folder: str) -> bool:
    """Whether a thread waits, without a time limit, for another one of its process."""
    try:
        call = sleeps_in(folder)
    except OSError:
        return False
    return kind_of(call) == LOCKS and call[4] == 0


def _of_thread(pid: int, folder: str, tty: str) -> Front:
    try:
        return _of_call(pid, sleeps_in(folder), tty)
    except FileNotFoundError:
        return Front(tty)
    except OSError:
        return Front(tty, _of_wchan(pid, folder, tty))


def sleeps_in(folder: str) -> list[int]:
    """Number and arguments of the system call a thread is in, [] when it is in none; raises OSError."""
    calls = CALLS.get(os.uname().machine)
    if calls is None:
        raise PermissionError
    words = content(f"{folder}/syscall").split()
    return [int(word, 0) for word in words] if words and words[0] not in (b"running", b"-1") else []


def kind_of(call: list[int]) -> int | None:
    return CALLS[os.uname().machine].get(call[0]) if call else None


def _of_call(pid: int, call: list[int], tty: str) -> Front:
    """The answer from the exact call; raises OSError when its arguments may not be read."""
    kind = kind_of(call)
    if kind == READS:
        return Front(tty, "reads" if _is_terminal(pid, call[1], tty) else "none", alone=True, every_s=0.0)
    if kind not in (POLLS, SELECTS, EPOLLS):
        return Front(tty)
    waits, every_s = awaited(pid, call)
    if not any(_is_terminal(pid, fd, tty) for fd in waits):
        return Front(tty)
    alone = _are_own(pid, waits, tty)
    # An event loop polls its terminal all the time: what that means depends on the terminal's settings.
    reads = alone and every_s == 0 and kind != EPOLLS
    return Front(tty, "reads" if reads else "polls", alone=alone, every_s=every_s)


def awaited(pid: int, call: list[int]) -> tuple[list[int], float]:
    """The files that a call which polls waits for input from, and its timeout in s, 0 for none; raises OSError."""
    kind = kind_of(call)
    if kind == POLLS:
        size = min(call[2], DESCRIPTORS_MAX) * 8
        polled = struct.iter_unpack("iHH", _memory(pid, call[1], size))
        return [fd for fd, events, _ in polled if fd >= 0 and events & POLLIN], _timeout(pid, call[0], call[3])
    if kind == SELECTS:
        bits = _memory(pid, call[2], (min(call[1], DESCRIPTORS_MAX) + 7) // 8) if call[2] else b""
        waits = [place * 8 + bit for place, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1]
        return waits, _timeout(pid, call[0], call[5])
    return _in_epoll(pid, call[1]), _timeout(pid, call[0], call[4])


def _timeout(pid: int, number: int, value: int) -> float:
    """The timeout (s) of a call that polls, from its argument, which is ms or an address; 0 for none."""
    if number in MILLISECONDS:
        ms = struct.unpack("i", struct.pack("I", value & 0xFFFFFFFF))[0]
        return max(0.0, ms / 1000) or (0.0 if ms < 0 else 0.001)
    if not value:
        return 0.0
    whole, part = struct.unpack("qq", _memory(pid, value, 16))
    return float(whole + part / (1e6 if number == 23 else 1e9)) or 0.001


def _memory(pid: int, address: int, size: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        try:
            return os.pread(file.fileno(), size, address)
        except OSError as error:
            if error.errno == errno.EIO:  # the process has continued
                raise FileNotFoundError from None
            raise


def _in_epoll(pid: int, fd: int) -> list[int]:
    """What an epoll descriptor waits for input from, proc_pid_fdinfo(5)."""
    lines = Path(f"/proc/{pid}/fdinfo/{fd}").read_text().splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("tfd:") and int(line.split()[3], 16) & POLLIN]


def _are_own(pid: int, fds: list[int], tty: str) -> bool:
    """Whether only the process can write to these files, except the terminal, so that they serve to wake itself."""
    open_on = links(pid)
    names = list(open_on.values())
    sockets = _unix_sockets(pid) if any(open_on.get(fd, "").startswith("socket:") for fd in fds) else set()
    for name in (open_on.get(fd, "") for fd in fds):
        if name in (tty, "/dev/tty") or name in OWN or (name.startswith("pipe:") and names.count(name) > 1):
            continue
        # The two ends of socketpair(2) are numbered one after the other.
        number = int(name[8:-1]) if name.startswith("socket:") else 0
        if not any({number, end} <= sockets and f"socket:[{end}]" in names for end in (number - 1, number + 1)):
            return False
    return True


def _unix_sockets(pid: int) -> set[int]:
    lines = Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]
    return {int(line.split()[6]) for line in lines}


def _is_terminal(pid: int, fd: int, tty: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/fd/{fd}") in (tty, "/dev/tty")
    except FileNotFoundError:
        return False


def _of_wchan(pid: int, folder: str, tty: str) -> Attention:
    """The answer from the kernel function a thread sleeps in and the files it may wait for; unknown if several fit."""
    try:
        wchan = Path(folder, "wchan").read_text().partition(".")[0]  # the compiler's `.constprop.0`
        files = links(pid)
        epolls = [fd for fd, name in files.items() if name == "anon_inode:[eventpoll]"]
        if wchan in WCHAN_EPOLLS:
            return (
                "polls" if any(_is_terminal(pid, one, tty) for fd in epolls for one in _in_epoll(pid, fd)) else "none"
            )
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
    # With pipes open, only a terminal set for single keys proves it: line editors set it only while they read.
    return "unknown" if others & {"socket", "/dev/ptmx"} or ("pipe" in others and not keys) else "polls"
