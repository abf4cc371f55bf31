"""Processes as the runner sees them: the table of all, its own orphans, ends in words. Stdlib only."""

from __future__ import annotations

import os
import select
import sys
import time

from tmuxjobs.lean import signal, suppress
from tmuxjobs.outcome import Here

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

_known: dict[str, str] = {}
"""Values that do not change while this process lives; importing `functools` would take 2 ms."""
_queues: list[Any] = []
"""The queues of `end_of`: each would be closed with its last reference."""
LINUX = sys.platform.startswith("linux")
CALL_S = 20.0
WHOLE_BYTES = 2048
"""The kernel returns up to a page of a list at a time: a piece shorter than this is the last."""
PF_EXITING = 4  # a flag of proc_pid_stat(5), from the kernel's sched.h


def boot_id() -> str:
    """A text that changes with every start of the machine."""
    if "boot" not in _known and LINUX:
        with open("/proc/sys/kernel/random/boot_id") as file:
            _known["boot"] = file.read().strip()
    elif "boot" not in _known:
        _known["boot"] = output_of(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]).strip()
    return _known["boot"]


def machine_id() -> str:
    """What distinguishes this machine from others that share a state directory: 16 hex digits that a restart keeps.

    On Linux from machine-id(5), on macOS from kern.uuid; where there is none, as in many containers, from the host
    name. Machines that were copied with their machine-id count as one. It must not be shown as it is, so it is hashed.
    """
    if "machine" in _known:
        return _known["machine"]
    import hashlib  # takes 1 ms, which not every process in a pane needs

    text = ""
    if LINUX:
        with suppress(OSError, ValueError), open("/etc/machine-id") as file:
            text = file.read(1000).strip()
    else:
        text = output_of(["/usr/sbin/sysctl", "-n", "kern.uuid"]).strip()
    if text in ("", "uninitialized"):
        text = os.uname().nodename
    _known["machine"] = hashlib.sha256(f"tmuxjobs {text}".encode(errors="replace")).hexdigest()[:16]
    return _known["machine"]


def start_of(pid: int) -> str:
    """What distinguishes a process from a later one with its pid: start in clock ticks since boot, proc_pid_stat(5)."""
    if LINUX:
        return stat_of(pid).start
    return output_of(["/bin/ps", "-o", "lstart=", "-p", str(pid)]).strip()


def pid_namespace() -> str:
    """The namespace of our pids, pid_namespaces(7); a container that was restarted may get the same one again."""
    if "namespace" not in _known:
        _known["namespace"] = ""
        with suppress(OSError):
            _known["namespace"] = os.readlink("/proc/self/ns/pid")
    return _known["namespace"]


def here() -> Here:
    """This machine, as this process sees it."""
    return Here(machine=machine_id(), boot=boot_id(), namespace=pid_namespace())


def send(pid: int, start: str, number: int) -> bool:
    """Signal that very process, not a later one with its pid; False when it has ended or is another user's.

    An empty `start` stands for a process that was just seen in the process table (macOS).
    """
    fd = -1
    with suppress(AttributeError, OSError):  # Python 3.8, macOS, Linux before 5.3, or out of files
        fd = os.pidfd_open(pid)
    try:
        if start and start_of(pid) != start:
            return False
        if fd >= 0:
            signal.pidfd_send_signal(fd, number)  # its pid may be another's by now
        else:
            os.kill(pid, number)
    except (ProcessLookupError, FileNotFoundError, PermissionError):
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True


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


def end_of(pid: int, start: str) -> int:
    """A descriptor that polls as readable once that very process has ended; -1 where the system has none.

    Raises ProcessLookupError when it has ended already, even if another process has its pid by now.
    """
    fd = -1
    try:
        if sys.platform.startswith("linux"):
            fd = os.pidfd_open(pid)
        else:
            queue = select.kqueue()
            exits = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, fflags=select.KQ_NOTE_EXIT)
            queue.control([exits], 0)
            _queues.append(queue)
            fd = queue.fileno()
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):  # Python 3.8, Linux before 5.3, or out of files
        pass
    if not is_alive(pid, start):
        raise ProcessLookupError(pid)
    return fd


def output_of(argv: list[str]) -> str:
    import shlex  # takes 5 ms; not called on Linux

    with os.popen("TZ=UTC LC_ALL=C " + shlex.join(argv)) as pipe:
        return pipe.read()


def content(path: str) -> bytes:
    """The content of a file in /proc; raises OSError. Python's file objects take twice as long."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = piece = os.read(fd, 1 << 16)
        while len(piece) > WHOLE_BYTES:
            piece = os.read(fd, 1 << 16)
            data += piece
        return data
    finally:
        os.close(fd)


class Process:
    """What is known of a live process; of the fields with a default, macOS sets only `tty`, and Linux all others."""

    def __init__(
        self, *, name: str, state: str, ppid: int, session: int = 0, tty: str = "", start: str = "", threads: int = 0
    ):
        self.name = name
        self.state = state
        self.ppid = ppid
        self.session = session
        self.tty = tty
        self.start = start
        self.threads = threads


def stat_of(pid: int) -> Process:
    """A process's facts, from /proc/PID/stat; raises OSError when there is no such process."""
    text = content(f"/proc/{pid}/stat")
    name, rest = text[text.index(b"(") + 1 :].rsplit(b")", 1)
    fields = rest.split()
    return Process(
        name=name.decode(errors="replace"),
        # A zombie with threads is a live process whose first thread has ended.
        state="S" if fields[0] == b"Z" and int(fields[17]) > 1 else fields[0].decode(),
        ppid=int(fields[1]),
        session=int(fields[3]),
        start=fields[19].decode(),
        threads=int(fields[17]),
    )


def is_stopped(pid: int) -> bool:
    """Whether somebody has stopped that process (SIGSTOP, a debugger not counted)."""
    if LINUX:
        with suppress(OSError):  # it has ended
            return stat_of(pid).state == "T"
        return False
    return output_of(["/bin/ps", "-o", "stat=", "-p", str(pid)]).startswith("T")


def handles(pid: int, number: int) -> bool | None:
    """Whether that process has a handler for the signal, proc_pid_status(5); None where that is not known (macOS)."""
    if not LINUX:
        return None
    with suppress(OSError), open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def all_processes() -> dict[int, Process]:
    """{pid: facts} of every process, zombies included."""
    table = {}
    if not LINUX:
        for line in output_of(["/bin/ps", "-axo", "pid=,ppid=,tty=,stat=,comm="]).splitlines():
            pid, ppid, tty, state, name = line.split(None, 4)
            table[int(pid)] = Process(name=name, state=state[0], ppid=int(ppid), tty=tty)
    else:
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with suppress(OSError):  # it has ended since the listing
                    table[int(entry)] = stat_of(int(entry))
    return table


def called(argv: list[str], env: dict[str, str] | None = None, *, bound_s: float = CALL_S) -> tuple[str, str]:
    """What a program prints to stdout and to stderr; it is killed after `bound_s` seconds, and stderr says so."""
    read, out = os.pipe()
    read_err, err = os.pipe()
    actions = (
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, out, 1),
        (os.POSIX_SPAWN_DUP2, err, 2),
    )
    try:
        pid = os.posix_spawn(argv[0], argv, env or dict(os.environ), file_actions=actions)
    except OSError as error:  # the program is gone, or the machine out of processes: the page lives on
        os.close(read)
        os.close(read_err)
        return "", f"{argv[0]}: {error.strerror}"
    finally:
        os.close(out)
        os.close(err)
    said = {read: b"", read_err: b""}
    deadline = time.monotonic() + bound_s
    poll = select.poll()
    for fd in said:
        poll.register(fd, select.POLLIN)
    open_fds = set(said)
    while open_fds:
        events = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not events:
            os.kill(pid, signal.SIGKILL)
            said[read_err] += f"{argv[0]}: no answer within {bound_s:.0f} s".encode()
            break
        for fd, _ in events:
            chunk = os.read(fd, 65536)
            said[fd] += chunk
            if not chunk:
                poll.unregister(fd)
                open_fds.discard(fd)
    os.close(read)
    os.close(read_err)
    os.waitpid(pid, 0)
    return said[read].decode(errors="replace").strip(), said[read_err].decode(errors="replace").strip()


def become_subreaper(*, on: bool = True) -> None:
    """Make orphans of the job our children, so that none can get away: prctl(2), PR_SET_CHILD_SUBREAPER."""
    try:
        import _ctypes

        prctl = _ctypes.dlsym(_ctypes.dlopen(None, os.RTLD_NOW), "prctl")  # type: ignore[arg-type]
        _ctypes.call_cdeclfunction(prctl, (36, int(on), 0, 0, 0))
    except AttributeError:  # a Python with another `_ctypes`; `ctypes` takes 3 ms
        import ctypes

        ctypes.CDLL(None).prctl(36, int(on), 0, 0, 0)


def has_open(pid: int, path: str) -> bool:
    """Whether that process has the file open; raises OSError when it has ended or is another user's. Only for Linux."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        folder = f"/proc/{pid}/task/{thread}"
        for name in os.listdir(f"{folder}/fd"):
            with suppress(OSError):  # closed since
                if os.readlink(f"{folder}/fd/{name}") == path:
                    return True
        if not is_ending(folder):
            return False
    raise ProcessLookupError


def is_ending(folder: str) -> bool:
    """Whether the thread of that folder in /proc has begun to end: it no longer has files, but may have had some."""
    with open(f"{folder}/stat", "rb") as file:
        fields = file.read().rsplit(b")", 1)[1].split()
    return fields[0] in (b"Z", b"X") or bool(int(fields[6]) & PF_EXITING)


def oom_kills() -> int:
    """How many processes the kernel has ended on this machine for lack of memory; 0 where it does not report that."""
    with suppress(OSError, ValueError), open("/proc/vmstat", "rb") as file:
        found = file.read().partition(b"\noom_kill ")[2]
        return int(found.split(b"\n")[0] or 0)
    return 0


def has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def tells_children() -> bool:
    """Whether the kernel lists a process's children, proc_pid_children(5)."""
    return os.path.exists(f"/proc/self/task/{os.getpid()}/children")


def children(parent: int = 0, *, threads: int = 0) -> list[int]:
    """The present children of a process, by default ours, zombies too; none where the kernel does not list them.

    If `threads` is known to be 1, no other threads are listed.
    """
    parent = parent or os.getpid()
    found = []
    with suppress(OSError):
        for thread in [str(parent)] if threads == 1 else os.listdir(f"/proc/{parent}/task"):
            with suppress(OSError):
                found += [int(pid) for pid in content(f"/proc/{parent}/task/{thread}/children").split()]
    return found


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
    from signal import Signals  # takes 4 ms, and most jobs end without one

    try:
        return Signals(number).name
    except ValueError:
        return f"SIG{number}"
