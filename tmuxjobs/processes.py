"""What the process table says: who lives, and what belongs to a job. Knows pids, not records."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import psutil

from tmuxjobs.errors import StateError

LINUX = sys.platform.startswith("linux")


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
    except (FileNotFoundError, ProcessLookupError, PermissionError, IndexError):
        return None
    except OSError as error:
        # Out of file descriptors: a job whose runner can not be looked at is not lost.
        raise StateError(f"The process table can not be read ({error.strerror}); try again.") from None
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()


def alive(pid: int, start: str) -> bool:
    """Whether that very process lives, not a later one with its pid."""
    return start_of(pid) == start


def _output_of(*argv: str) -> str:
    with psutil.Popen(argv, stdout=-1, env={"TZ": "UTC", "LC_ALL": "C"}) as process:
        return str(process.communicate(timeout=10)[0].decode()).strip()


@dataclass(frozen=True)
class Look:
    """A live process that may be looked at; `start` is as `start_of` tells it."""

    argv: tuple[str, ...]
    cwd: str
    start: str
    started_at: datetime


def look(pid: int) -> Look | None:
    """What is known of a process; None when it has ended or is another user's."""
    start = start_of(pid)
    if start is None:
        return None
    try:
        process = psutil.Process(pid)
        began = datetime.fromtimestamp(process.create_time(), UTC)
        argv = tuple(process.cmdline())
        return Look(argv, process.cwd(), start, began) if argv else None
    except psutil.Error:
        return None


def open_files(pid: int) -> tuple[int, int] | None:
    """How many files a process has open and how many it may; None where that is not to be known."""
    try:
        process = psutil.Process(pid)
        return process.num_fds(), process.rlimit(psutil.RLIMIT_NOFILE)[0]
    except (psutil.Error, AttributeError):
        return None


def free_terminals() -> int | None:
    """How many more pseudo-terminals can be opened; None where that is not to be known."""
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
    """How many more may be started below that process, by its control groups and its user's limit.

    None where there is no limit or it is not to be known. Threads count as processes.
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
    """Of each control group around the process that has a limit of processes, how many more it may hold."""
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


def of_jobs(runners: Mapping[str, tuple[int, str]]) -> dict[str, dict[int, str]]:
    """{job id: {pid: name}} of live processes that came from jobs whose runners are gone, by one look at all.

    `runners` has each job's runner: its pid and start. Its processes are told by the session that it led and by the
    mark in their environment, and nothing older can be its child. Jobs of which nothing lives are left out.
    """
    found: dict[str, dict[int, str]] = {}
    for pid in psutil.pids() if runners else ():
        start = start_of(pid)
        if start is None or pid == os.getpid():
            continue
        with contextlib.suppress(OSError, psutil.Error):  # it ended, or is another user's
            session = os.getsid(pid)
            mine = [job_id for job_id, (runner, _) in runners.items() if runner == session] or [_mark_of(pid)]
            for job_id in mine:
                if job_id in runners and pid != runners[job_id][0] and not _is_older(start, runners[job_id][1]):
                    found.setdefault(job_id, {})[pid] = psutil.Process(pid).name()
    return found


def of_pane(pane: str, *, tmux: str, leader: int, start: str, since: str) -> dict[int, str]:
    """{pid: name} of live processes that came from an adopted window whose adopter is gone.

    `leader` is its first process, with its `start`. Told by descent and session while the leader lives, and by the pane
    in their environment, whose `TMUX` begins with `tmux`; what left the tree before `since` is a person's own.
    """
    found = {}
    below: set[int] = set()
    if alive(leader, start):
        with contextlib.suppress(psutil.Error):  # it ended
            below = {leader, *(child.pid for child in psutil.Process(leader).children(recursive=True))}
    for pid in psutil.pids():
        began = start_of(pid)
        if began is None or pid == os.getpid():
            continue
        with contextlib.suppress(OSError, psutil.Error):  # it ended, or is another user's
            if pid in below or (below and os.getsid(pid) == leader):
                found[pid] = psutil.Process(pid).name()
            elif not _is_older(began, since):
                environ = psutil.Process(pid).environ()
                if environ.get("TMUX_PANE") == pane and environ.get("TMUX", "").startswith(tmux):
                    found[pid] = psutil.Process(pid).name()
    return found


def _is_older(start: str, since: str) -> bool:
    return LINUX and int(start) < int(since)


def _mark_of(pid: int) -> str:
    """The job that the process's environment names; empty when there is none."""
    if not LINUX:
        return psutil.Process(pid).environ().get("TMUXJOBS_JOB_ID", "")
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((os.fsdecode(one[16:]) for one in variables if one.startswith(b"TMUXJOBS_JOB_ID=")), "")


def usage(roots: Mapping[int, bool]) -> dict[int, tuple[float, int]]:
    """{root: (processor seconds, resident bytes) of what lives below it}, by one look at all.

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
    """Processor seconds of the children that have ended; 0 where the system does not tell (macOS)."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0))
