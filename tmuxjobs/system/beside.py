"""Which foreground process of a terminal asks, and which others beside it may work meanwhile. Stdlib only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from tmuxjobs.system import terminals
from tmuxjobs.system.table import Table, links, stat
from tmuxjobs.system.terminals import EPOLLS, LOCKS, POLLS, READS, SELECTS, Beside, Front, Terminal

WAITS: dict[str, set[int]] = {"x86_64": {34, 61, 130, 247}, "aarch64": {95, 133, 260}}
"""pause(2), wait4(2), rt_sigsuspend(2), waitid(2)."""
WAITS["riscv64"] = WAITS["aarch64"]
WCHAN_WAITS = {"do_wait", "pipe_read", "anon_pipe_read", "sigsuspend", "do_pause", "futex_wait_queue"}


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
