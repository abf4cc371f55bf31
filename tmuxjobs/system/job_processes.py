"""What the process table says: which processes live, and which belong to a job."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path

from tmuxjobs.contract import IN_OURS, MARK_IN_JOBS
from tmuxjobs.errors import StateError
from tmuxjobs.named import ProcessRecord
from tmuxjobs.system import processes

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    import psutil as psutil
else:

    class Late:
        """psutil, imported on first use, as that takes 10 ms; `proc.py` where there is none, as on another host."""

        def __getattr__(self, name: str) -> Any:
            try:
                return getattr(import_module("psutil"), name)
            except ImportError:
                return getattr(import_module("tmuxjobs.system.proc"), name)

    psutil = Late()

LINUX = sys.platform.startswith("linux")
BEGUN_S = 1.0


def start_of(pid: int) -> str | None:
    """What distinguishes a process from a later one with its pid, as `runner.py` records it; None if there is none.

    A zombie counts as ended: pid 1 may leave one forever.
    """
    if not LINUX:
        return _output_of("/bin/ps", "-o", "lstart=", "-p", str(pid)) or None
    try:
        facts = processes.stat_of(pid)
    except (FileNotFoundError, ProcessLookupError, PermissionError, IndexError, ValueError):
        return None
    except OSError as error:
        # Out of file descriptors: a job whose runner cannot be checked is not lost.
        raise StateError(f"The process table cannot be read ({error.strerror}); try again.") from None
    return None if facts.state in "ZX" else facts.start


def alive(pid: int, start: str) -> bool:
    """Whether that very process lives, not a later one with its pid."""
    return start_of(pid) == start


def as_now(named: ProcessRecord) -> ProcessRecord | None:
    """That very process with its present name, which a program that it has become since may have changed."""
    if named.start is None or start_of(named.pid) != named.start:
        return None
    with contextlib.suppress(psutil.Error):
        return replace(named, name=psutil.Process(named.pid).name())
    return None


def _output_of(*argv: str) -> str:
    with psutil.Popen(argv, stdout=-1, env={"TZ": "UTC", "LC_ALL": "C"}) as process:
        return str(process.communicate(timeout=10)[0].decode()).strip()


@dataclass(frozen=True)
class Look:
    """A live process that may be inspected; `start` is as `start_of` returns it."""

    argv: tuple[str, ...]
    cwd: str
    start: str
    started_at: datetime
    age_s: float


def look(pid: int) -> Look | None:
    """What is known of a process that tmux has started; None when it has ended or is another user's."""
    start = start_of(pid)
    if start is None:
        return None
    try:
        process, deadline = psutil.Process(pid), time.monotonic() + BEGUN_S
        # Before execve(2) it is tmux itself, and while that is carried out it has no arguments.
        while (not process.cmdline() or process.name() == "tmux: server") and time.monotonic() < deadline:
            time.sleep(0.005)
        began = datetime.fromtimestamp(process.create_time(), timezone.utc)  # noqa: UP017 - Python 3.8
        argv = tuple(process.cmdline())
        age_s = max(0.0, time.time() - process.create_time())
        return Look(argv, process.cwd(), start, began, age_s) if argv else None
    except psutil.Error:
        return None


def open_files(pid: int) -> tuple[int, int] | None:
    """How many files a process has open and how many it may; None where that cannot be known."""
    try:
        process = psutil.Process(pid)
        return process.num_fds(), process.rlimit(psutil.RLIMIT_NOFILE)[0]
    except (psutil.Error, AttributeError):
        return None


def free_terminals() -> int | None:
    """How many more pseudo-terminals can be opened; None where that cannot be known."""
    folder = Path("/proc/sys/kernel/pty")
    try:
        free = int((folder / "max").read_text()) - int((folder / "nr").read_text())
        # A container's own terminals may be fewer than the machine's.
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        options = [mount[3] for mount in mounts if mount[1:3] == ["/dev/pts", "devpts"]][-1:]
        if most := re.search(r"\bmax=(\d+)", "".join(options)):
            free = min(free, int(most[1]) - sum(name.isdigit() for name in os.listdir("/dev/pts")))
    except (OSError, ValueError):
        return None
    return free


def free_processes(pid: int) -> int | None:
    """How many more processes may be started below that one, by its control groups and its user's limit.

    None where there is no limit or it cannot be known. Threads count as processes.
    """
    if not LINUX:
        return None
    room = list(_room_in_groups(pid))
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        user, most = process.uids().real, process.rlimit(psutil.RLIMIT_NPROC)[0]
        if user and most != psutil.RLIM_INFINITY:
            every = psutil.process_iter(["uids", "num_threads"])
            used = (one.info["num_threads"] or 0 for one in every if one.info["uids"] and one.info["uids"].real == user)
            room.append(most - sum(used))
    return min(room, default=None)


def _room_in_groups(pid: int) -> Iterator[int]:
    """How many more processes each control group around the process may hold, if it has a limit."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, place = line.split(":", 2)
            if controllers not in ("", "pids"):
                continue
            top = Path("/sys/fs/cgroup", controllers)
            inner = top / place.lstrip("/")
            for group in (inner, *inner.parents):
                with contextlib.suppress(OSError, ValueError):  # no such limit: there is no file, or it says `max`
                    yield int((group / "pids.max").read_text()) - int((group / "pids.current").read_text())
                if group == top:
                    break


@dataclass(frozen=True)
class Trace:
    """What identifies the processes of a job whose runner is gone: `mark`, if not empty, is in their environment.

    `runner`, the leader of their session, and `command` are pids with their starts.
    """

    mark: str
    runner: tuple[int, str]
    command: tuple[int | None, str | None]


@dataclass(frozen=True)
class PaneTrace:
    """What identifies the processes of an adopted window whose adopter is gone.

    `leader` is its first process, `server` its tmux server, each with its start. `environment` is what tmux sets in
    the pane: `TMUX_PANE`, and the beginning of `TMUX`. What left the tree before `since` is the person's own.
    """

    environment: tuple[str, str]
    leader: tuple[int, str]
    server: tuple[int, str]
    since: str


@dataclass(frozen=True)
class Left:
    """Live processes of a job whose runner is gone.

    `ours` are proven to come from it. For those in `doubt` that cannot be known: never signal them.
    """

    ours: tuple[ProcessRecord, ...] = ()
    doubt: tuple[ProcessRecord, ...] = ()


@dataclass(frozen=True)
class Process:
    """A live process, from one reading of the process table; its `start` is as `start_of` returns it."""

    name: str
    parent: int
    session: int
    start: str
    environment: frozenset[bytes]

    def record(self, pid: int) -> ProcessRecord:
        return ProcessRecord(pid=pid, name=self.name, start=self.start)

    def has(self, variable: str, value: str) -> bool:
        return f"{variable}={value}".encode() in self.environment


def of_jobs(traces: Mapping[str, Trace]) -> dict[str, Left]:
    """{job id: its live processes} from one reading of the process table; jobs without any are left out.

    A session's number is not used again while one of its members lives, but after that it may be: it proves nothing
    unless the leader or a member is proven.
    """
    living = _living() if traces else {}
    found = {}
    for job_id, trace in traces.items():
        ours = {
            pid
            for pid, one in living.items()
            if (pid, one.start) == trace.command or (trace.mark and one.has(MARK_IN_JOBS, trace.mark))
        }
        session, since = trace.runner
        members = {pid for pid, one in living.items() if one.session == session and not _is_older(one.start, since)}
        leader = _start_or_zombie(session)
        if leader == since or (members & ours and (leader is None or session in ours)):
            ours |= members
        # Led by another process, or marked as another job's: a stranger for sure.
        doubt = set() if leader else {pid for pid in members if not _is_marked(living[pid])}
        left = _left(living, ours, doubt)
        if left.ours or left.doubt:
            found[job_id] = left
    return found


def of_pane(trace: PaneTrace) -> Left:
    """The live processes of an adopted window whose adopter is gone.

    While its first process and the tmux server live, the pane is the same one; later it may be another's.
    """
    server, server_start = trace.server
    serving = _start_or_zombie(server)
    living = _living()
    leader, start = trace.leader
    same = leader in living and living[leader].start == start
    ours = {pid for pid, one in living.items() if leader in (pid, one.session)} if same else set()
    marked = {
        pid
        for pid, one in living.items()
        if one.has("TMUX_PANE", trace.environment[0])
        and any(variable.startswith(f"TMUX={trace.environment[1]}".encode()) for variable in one.environment)
        and not _is_older(one.start, trace.since)
    }
    if serving == server_start:
        # What a person has started in the pane since is a child of tmux.
        marked -= _with_descendants(living, {pid for pid in marked - ours if living[pid].parent == server})
        ours |= marked if same else set()
    elif serving:
        marked -= {pid for pid in marked if not _is_older(living[pid].start, serving)}
    return _left(living, ours, marked)


def below(root: int, *, itself: bool = False) -> list[ProcessRecord]:
    """Live processes that descend from that one, each after its parent; with `itself`, the root too."""
    found = []
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(root)
        for process in [*([top] if itself else []), *top.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # it ended since
                if start := start_of(process.pid):
                    found.append(ProcessRecord(pid=process.pid, name=process.name(), start=start))
    return found


def handlers(root: int, number: int, *, itself: bool = False) -> list[ProcessRecord]:
    """The processes below that one for which a signal is meant: the first on each branch that handles it.

    Those in the terminal's foreground go first: an interactive shell handles most signals, but they are not meant for
    it. Where handlers are not known, it is the first in the foreground.
    """
    found: list[ProcessRecord] = []
    with contextlib.suppress(psutil.Error, OSError):
        top = psutil.Process(root)
        front = _front(root)
        branches = [top] if itself else top.children()
        handling: list[tuple[psutil.Process, int]] = []
        while branches:
            process = branches.pop()
            with contextlib.suppress(psutil.Error, OSError):
                group = os.getpgid(process.pid)
                if processes.handles(process.pid, number) or (not LINUX and group == front):
                    handling.append((process, group))
                    if group == front:
                        continue
                branches += process.children()
        chosen = [process for process, group in handling if group == front] or _topmost(handling)
        for process in chosen:
            with contextlib.suppress(psutil.Error):
                if start := start_of(process.pid):
                    found.append(ProcessRecord(pid=process.pid, name=process.name(), start=start))
    return sorted(found, key=lambda one: one.pid)


def _topmost(handling: list[tuple[psutil.Process, int]]) -> list[psutil.Process]:
    pids = {process.pid for process, _ in handling}
    return [process for process, _ in handling if not pids & {parent.pid for parent in process.parents()}]


def _front(pid: int) -> int:
    """The foreground process group of that process's terminal, proc_pid_stat(5); 0 when there is none."""
    if not LINUX:
        return int(_output_of("/bin/ps", "-o", "tpgid=", "-p", str(pid)) or 0)
    return int(Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()[5])


def _left(living: Mapping[int, Process], ours: set[int], doubt: set[int]) -> Left:
    ours = _with_descendants(living, ours)
    return Left(*(tuple(living[pid].record(pid) for pid in sorted(pids)) for pids in (ours, doubt - ours)))


def _with_descendants(living: Mapping[int, Process], pids: set[int]) -> set[int]:
    found = grown = pids
    while grown:
        grown = {pid for pid, one in living.items() if one.parent in grown} - found
        found = found | grown
    return found


def _living() -> dict[int, Process]:
    """{pid: facts} of every live process that may be inspected, except ourselves; raises StateError."""
    found = {}
    for pid in psutil.pids():
        start = start_of(pid)
        if start is None or pid == os.getpid():
            continue
        with contextlib.suppress(OSError, psutil.Error):  # it ended, or is another user's
            session, process = os.getsid(pid), psutil.Process(pid)
            with process.oneshot():
                found[pid] = Process(process.name(), process.ppid(), session, start, _environment_of(pid))
    return found


def _environment_of(pid: int) -> frozenset[bytes]:
    """The environment that it was started with; empty for another user's process."""
    with contextlib.suppress(OSError, psutil.Error):
        if LINUX:
            return frozenset(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
        return frozenset(os.fsencode(f"{name}={value}") for name, value in psutil.Process(pid).environ().items())
    return frozenset()


def _is_marked(process: Process) -> bool:
    return any(variable.startswith(f"{MARK_IN_JOBS}=".encode()) for variable in process.environment)


def _start_or_zombie(pid: int) -> str | None:
    """As `start_of`, but also for a process that has ended and was not reaped: its pid is not used again yet."""
    with contextlib.suppress(OSError):
        return processes.start_of(pid) or None
    return None


def _is_older(start: str, since: str) -> bool:
    return LINUX and since.isdecimal() and int(start) < int(since)


def usage(roots: Mapping[int, bool]) -> dict[int, tuple[float, int]]:
    """{root: (processor seconds, resident bytes) of what lives below it}, from one reading of the process table.

    `roots` says of each whether it counts itself: a job's runner does not.
    """
    children: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter(["ppid"]):
        children.setdefault(process.info["ppid"], []).append(process)
    return {root: _usage_below(root, children, itself=itself) for root, itself in roots.items()}


def _usage_below(root: int, children: Mapping[int, list[psutil.Process]], *, itself: bool) -> tuple[float, int]:
    cpu_s, rss, left = _children_s(root), 0, [root]
    if itself:
        with contextlib.suppress(psutil.Error):  # it ended since
            cpu_s, rss = _usage_of(psutil.Process(root))
    while left:
        for process in children.get(left.pop(), ()):
            left.append(process.pid)
            with contextlib.suppress(psutil.Error):  # it ended since
                one_s, one_rss = _usage_of(process)
                cpu_s += one_s
                rss += one_rss
    return cpu_s, rss


def _usage_of(process: psutil.Process) -> tuple[float, int]:
    times = process.cpu_times()
    return times.user + times.system + _children_s(process.pid), process.memory_info().rss


def _children_s(pid: int) -> float:
    """Processor seconds of the children that have ended; 0 where the system does not report them (macOS)."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0))


def runners(jobs: Path) -> dict[str, tuple[int, str]]:
    """{job id: (pid, start)} of this user's live runners of jobs in that folder, by arguments and environment."""
    found = {}
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):  # it ended, or is another user's
            process = psutil.Process(pid)
            job_id = _run_by(process, jobs)
            # Each leads its session; what it has just forked has its arguments too.
            start = start_of(pid) if job_id and os.getsid(pid) == pid else None
            if start is not None and process.uids().real == os.getuid():
                found[job_id] = pid, start
    return found


TOKEN = re.compile("([0-9a-f]{16})?")
"""The argument after the role, by which tmux finds a runner's pane if its recorder starts along with it."""


def _run_by(process: psutil.Process, jobs: Path) -> str:
    """The job of that folder whose runner the process is; empty when it is not a runner."""
    argv = process.cmdline()
    if argv[1:5] != ["-I", "-S", "-X", "utf8"] or len(argv) < 7 or not TOKEN.fullmatch("".join(argv[7:])):
        return ""
    program, role = Path(argv[5]), argv[6]
    if program.name in ("runner.py", "adopter.py"):  # of 0.1.0
        return Path(role).name if Path(role).parent == jobs else ""
    if role not in ("runner", "adopter") or jobs.parent / "pane" not in program.parents:
        return ""
    ours = f"{IN_OURS}=".encode()
    return next((os.fsdecode(one[len(ours) :]) for one in _environment_of(process.pid) if one.startswith(ours)), "")
