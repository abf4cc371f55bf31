"""Which foreground process of a terminal asks, which others may work meanwhile, and whether any can. Stdlib only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from tmuxjobs.lean import suppress
from tmuxjobs.system import processes, terminals
from tmuxjobs.system.table import Table, links, stat
from tmuxjobs.system.terminals import EPOLLS, LOCKS, POLLS, READS, SELECTS, Beside, Front, Terminal

WAITS: dict[str, set[int]] = {"x86_64": {34, 61, 130, 247}, "aarch64": {95, 133, 260}}
"""pause(2), wait4(2), rt_sigsuspend(2), waitid(2)."""
WAITS["riscv64"] = WAITS["aarch64"]
WCHAN_WAITS = {"do_wait", "pipe_read", "anon_pipe_read", "sigsuspend", "do_pause", "futex_wait_queue"}


WAITS_BELOW = {"x86_64": {61, 130, 247}, "aarch64": {95, 133, 260}, "riscv64": {95, 133, 260}}
"""Those by which a shell waits for a program that it runs: without pause(2)."""
WCHAN_WAITS_BELOW = {"do_wait", "sigsuspend", "futex_wait_queue"}


def asking(runners: Mapping[str, int]) -> dict[str, tuple[Front, Terminal | None]]:
    """As `terminals.fronts`, each with the settings of the terminal where its input arrives; None if no process waits.

    For a terminal in line mode, `beside` says what the processes beside those that read do.
    """
    found: dict[str, tuple[Front, Terminal | None]] = {}
    table = Table(runners)
    for tty, front in terminals.fronts(runners).items():
        settings = terminals.terminal(front.tty) if front.attention != "none" else None
        if settings is not None and settings.cooked and settings.echo:
            number = terminals.number_of(front.tty)
            others = set(table.group(front.tty, number) if number is not None else ()) - set(front.pids)
            found[tty] = replace(front, beside=_most(map(_of_process, others))), settings
        else:
            found[tty] = front, settings
    return found


def _most(each: Iterable[Beside]) -> Beside:
    return max(each, key=("nobody", "sleeps", "works").index, default="nobody")


def _of_process(pid: int) -> Beside:
    """What it does; `nobody` if it continues only after another process does: it waits for a child, or reads a pipe."""
    try:
        return _most([_of_thread(pid, f"/proc/{pid}/task/{thread}") for thread in os.listdir(f"/proc/{pid}/task")])
    except OSError:  # it has ended
        return "nobody"


def _of_thread(pid: int, folder: str) -> Beside:
    fields = stat(folder)
    if fields is None or fields[0] not in (b"S", b"R", b"D"):
        return "nobody"
    if fields[0] != b"S":
        return "works"
    try:
        return "nobody" if _is_woken(pid, terminals.sleeps_in(folder)) else "sleeps"
    except FileNotFoundError:
        return "works"
    except OSError:
        return "nobody" if _wchan(folder) in WCHAN_WAITS else "sleeps"


def _is_woken(pid: int, call: list[int]) -> bool:
    """Whether only another process or thread here can end this call: no clock does, and no socket."""
    if call and call[0] in WAITS[os.uname().machine]:
        return True
    kind = terminals.kind_of(call)
    if kind == LOCKS:
        return call[4] == 0
    if kind == READS:
        return links(pid).get(call[1], "").startswith("pipe:")
    if kind in (POLLS, SELECTS, EPOLLS):
        fds, every_s = terminals.awaited(pid, call)
        open_on = links(pid)
        return every_s == 0 and not any(open_on.get(fd, "").startswith("socket:") for fd in fds)
    return False


def _wchan(folder: str) -> str:
    try:
        return Path(folder, "wchan").read_text().partition(".")[0]
    except OSError:
        return ""


def stopped(pid: int) -> bool:
    """Whether that process and all below it are stopped (SIGSTOP), but for those that only wait for a child."""
    if not processes.LINUX:
        return processes.is_stopped(pid)
    left, waiting = _living([pid]), []
    found = bool(left)
    while left:
        one, facts = left.popitem()
        below = _living(processes.children(one, threads=facts.threads))
        if facts.state != "T" and not below:
            return False
        waiting += [one] if facts.state != "T" else []
        left.update(below)
    return found and all(map(_waits_below, waiting))


def _living(pids: Iterable[int]) -> dict[int, processes.Process]:
    found = {}
    for pid in pids:
        with suppress(OSError):  # it has ended
            found[pid] = processes.stat_of(pid)
    return {pid: facts for pid, facts in found.items() if facts.state not in "ZX"}


def _waits_below(pid: int) -> bool:
    """Whether the process continues only once a child has ended; False where that cannot be known."""
    with suppress(OSError):
        threads = [f"/proc/{pid}/task/{thread}" for thread in os.listdir(f"/proc/{pid}/task")]
        return all(map(_is_in_wait, threads))
    return False


def _is_in_wait(folder: str) -> bool:
    fields = stat(folder)
    if fields is None or fields[0] != b"S":
        return False
    try:
        call = terminals.sleeps_in(folder)
    except FileNotFoundError:
        return False
    except OSError:
        return _wchan(folder) in WCHAN_WAITS_BELOW
    if terminals.kind_of(call) == LOCKS:
        return call[4] == 0
    return bool(call) and call[0] in WAITS_BELOW.get(os.uname().machine, ())
