"""Processes as the runner sees them: the table of all, its own orphans, ends in words. Stdlib only."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import signal
import sys

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

LINUX = sys.platform.startswith("linux")
PF_EXITING = 4  # a flag of proc_pid_stat(5), from the kernel's sched.h


def boot_id() -> str:
    if LINUX:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    return output_of(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]).strip()


@functools.lru_cache
def machine_id() -> str:
    """What tells this machine from others that share a state directory: 16 hex digits, the same after a restart.

    On Linux from machine-id(5), on macOS from kern.uuid; where there is none, as in many containers, from the host
    name. Machines that were copied with their machine-id count as one. It must not be shown as it is, so it is hashed.
    """
    import hashlib  # takes 1 ms, which not every process in a pane needs

    text = ""
    if LINUX:
        with contextlib.suppress(OSError, ValueError), open("/etc/machine-id") as file:
            text = file.read(1000).strip()
    else:
        text = output_of(["/usr/sbin/sysctl", "-n", "kern.uuid"]).strip()
    if text in ("", "uninitialized"):
        text = os.uname().nodename
    return hashlib.sha256(f"tmuxjobs {text}".encode(errors="replace")).hexdigest()[:16]


def start_of(pid: int) -> str:
    """What tells a process from a later one with its number: start in clock ticks since boot, proc_pid_stat(5)."""
    if LINUX:
        return stat_of(pid).start
    return output_of(["/bin/ps", "-o", "lstart=", "-p", str(pid)]).strip()


def pid_namespace() -> str:
    """Which pids the numbers here are, pid_namespaces(7); a container that was restarted may have the same again."""
    with contextlib.suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def send(pid: int, start: str, number: int) -> None:
    """Signal that very process, not a later one with its pid; nothing happens when it has ended or is another user's.

    An empty `start` stands for a process that a look has just shown (macOS).
    """
    fd = -1
    with contextlib.suppress(AttributeError, OSError):  # Python 3.8, macOS, Linux before 5.3, or out of files
        fd = os.pidfd_open(pid)
    try:
        if start and start_of(pid) != start:
            return
        if fd >= 0:
            signal.pidfd_send_signal(fd, number)  # its pid may be another's by now
        else:
            os.kill(pid, number)
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return
    finally:
        if fd >= 0:
            os.close(fd)


def is_alive(pid: int, start: str) -> bool:
    """Whether that very process lives, not a later one with its pid."""
    try:
        if LINUX:
            facts = stat_of(pid)
            return facts.state not in "ZX" and facts.start == start
        os.kill(pid, 0)
        return not start or start_of(pid) == start
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return False


def output_of(argv: list[str]) -> str:
    with os.popen("TZ=UTC LC_ALL=C " + shlex.join(argv)) as pipe:
        return pipe.read()


class Process:
    """What is known of a live process; `tty` is for macOS, which does not tell `session` and `start`."""

    def __init__(self, *, name: str, state: str, ppid: int, session: int = 0, tty: str = "", start: str = ""):
        self.name = name
        self.state = state
        self.ppid = ppid
        self.session = session
        self.tty = tty
        self.start = start


def stat_of(pid: int) -> Process:
    """From /proc/PID/stat; raises OSError when there is no such process."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
    name, rest = text[text.index(b"(") + 1 :].rsplit(b")", 1)
    fields = rest.split()
    return Process(
        name=name.decode(errors="replace"),
        # A zombie with threads is a process whose first one has ended, and it lives.
        state="S" if fields[0] == b"Z" and int(fields[17]) > 1 else fields[0].decode(),
        ppid=int(fields[1]),
        session=int(fields[3]),
        start=fields[19].decode(),
    )


def is_stopped(pid: int) -> bool:
    """Whether somebody has stopped that process (SIGSTOP, a debugger not counted)."""
    if LINUX:
        with contextlib.suppress(OSError):  # it has ended
            return stat_of(pid).state == "T"
        return False
    return output_of(["/bin/ps", "-o", "stat=", "-p", str(pid)]).startswith("T")


def all_processes() -> dict[int, Process]:
    """{pid: facts} of every process, zombies among them."""
    table = {}
    if not LINUX:
        for line in output_of(["/bin/ps", "-axo", "pid=,ppid=,tty=,stat=,comm="]).splitlines():
            pid, ppid, tty, state, name = line.split(None, 4)
            table[int(pid)] = Process(name=name, state=state[0], ppid=int(ppid), tty=tty)
    else:
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):  # it ended between the listing and the look
                    table[int(entry)] = stat_of(int(entry))
    return table


def become_subreaper(*, on: bool = True) -> None:
    """Orphans of the job become our children, so that none of them can get away: prctl(2), PR_SET_CHILD_SUBREAPER."""
    import ctypes

    ctypes.CDLL(None).prctl(36, int(on), 0, 0, 0)


def has_open(pid: int, path: str) -> bool:
    """Whether that process has the file open; raises OSError when it has ended or is another user's. Only for Linux."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        folder = f"/proc/{pid}/task/{thread}"
        for name in os.listdir(f"{folder}/fd"):
            with contextlib.suppress(OSError):  # closed since
                if os.readlink(f"{folder}/fd/{name}") == path:
                    return True
        if not is_ending(folder):
            return False
    raise ProcessLookupError


def is_ending(folder: str) -> bool:
    """Whether the thread of that folder in /proc has begun to end: it has no files any more, and may have had some."""
    with open(f"{folder}/stat", "rb") as file:
        fields = file.read().rsplit(b")", 1)[1].split()
    return fields[0] in (b"Z", b"X") or bool(int(fields[6]) & PF_EXITING)


def has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def children() -> list[int]:
    """Our children now, zombies too, by proc_pid_children(5); none where the kernel does not tell."""
    with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]
    return []


def named(processes: dict[int, Process]) -> list[dict[str, Any]]:
    return [{"pid": pid, "name": facts.name, "start": facts.start or None} for pid, facts in sorted(processes.items())]


def ending_of(status: int) -> str:
    """A wait status in words: `exit code 3`, `SIGSEGV`."""
    if os.WIFSIGNALED(status):
        return signal_name(os.WTERMSIG(status))
    return f"exit code {os.WEXITSTATUS(status)}"


def ending_code(status: int) -> int:
    """A wait status as `subprocess` has it: the exit code, or the negative number of the signal."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
