"""What the process table says: who lives, what belongs to a job, who reads a terminal. Knows pids, not records."""

import contextlib
import os
import sys
import termios
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

LINUX = sys.platform.startswith("linux")
TTY_WAITS = {"n_tty_read", "wait_woken", "do_wait_intr"}
POLL_WAITS = {"do_select", "do_sys_poll", "do_poll", "poll_schedule_timeout", "ep_poll", "do_epoll_wait"}


@cache
def boot_id() -> str:
    """A text that changes with every start of the machine."""
    if LINUX:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return _output_of("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid")


def start_of(pid: int) -> str | None:
    """What tells a process from a later one with its pid, as `runner.py` records it; None if there is none.

    A zombie has ended: pid 1 may leave one for ever.
    """
    if not LINUX:
        return _output_of("/bin/ps", "-o", "lstart=", "-p", str(pid)) or None
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def alive(pid: int, start: str) -> bool:
    """Whether that very process lives, not a later one with its pid."""
    return start_of(pid) == start


def _output_of(*argv: str) -> str:
    with psutil.Popen(argv, stdout=-1, env={"TZ": "UTC", "LC_ALL": "C"}) as process:
        return str(process.communicate(timeout=10)[0].decode()).strip()


def of_job(job_id: str, session: int, since: str) -> dict[int, str]:
    """{pid: name} of live processes that came from a job whose runner is gone.

    Told by the session that the runner led and by the mark in their environment; `since` is the runner's start, and
    nothing older can be its child.
    """
    found = {}
    mark = f"TMUXJOBS_JOB_ID={job_id}".encode()
    for pid in psutil.pids():
        start = start_of(pid)
        if start is None or pid in (os.getpid(), session) or (LINUX and int(start) < int(since)):
            continue
        with contextlib.suppress(OSError, psutil.Error):  # it ended, or is another user's
            if os.getsid(pid) == session or _has_mark(pid, mark):
                found[pid] = psutil.Process(pid).name()
    return found


def _has_mark(pid: int, mark: bytes) -> bool:
    if not LINUX:
        return os.fsdecode(mark.split(b"=")[1]) == psutil.Process(pid).environ().get("TMUXJOBS_JOB_ID")
    return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


@dataclass(frozen=True)
class Terminal:
    """A terminal's settings that matter for input: `cooked` takes whole lines, `echo` off hides a password."""

    cooked: bool
    echo: bool


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


def foreground(command_pid: int) -> list[int]:
    """The pids in the foreground process group of that command's terminal."""
    if not LINUX:
        return [command_pid]
    group = _stat_field(command_pid, 5)
    return [pid for pid in psutil.pids() if group is not None and _stat_field(pid, 2) == group]


def _stat_field(pid: int, index: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[index])
    except (OSError, IndexError):
        return None


def reads_terminal(pids: list[int], tty: str) -> bool:
    """Whether one of them sleeps in a read of that terminal, or polls with it as its standard input (Linux only).

    From wchan and the open files, proc(5); poll and select do not tell which file they wait for.
    """
    return any(_sleeps_on(pid, tty) for pid in pids)


def _sleeps_on(pid: int, tty: str) -> bool:
    try:
        wchan = Path(f"/proc/{pid}/wchan").read_text()
        return wchan in TTY_WAITS | POLL_WAITS and os.readlink(f"/proc/{pid}/fd/0") == tty
    except OSError:
        return False
