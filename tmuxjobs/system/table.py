"""One look at the process table: who is in front of a terminal. Stdlib only."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

from tmuxjobs.system import processes


class Table:
    """The process table: the fields of each stat file from the state on, and who is in front where.

    `runners`, by terminal, lead its session, and all of that descend from them: only those are looked at then.
    """

    def __init__(self, runners: Mapping[str, int]) -> None:
        self.runners = runners if processes.tells_children() else {}

    @functools.cached_property
    def fields(self) -> dict[int, list[bytes]]:
        pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
        return {pid: fields for pid in pids if (fields := stat(f"/proc/{pid}")) is not None}

    @functools.cached_property
    def groups(self) -> dict[int, list[int]]:
        """{number of a terminal: pids of its foreground process group}."""
        found: dict[int, list[int]] = {}
        for pid, fields in self.fields.items():
            if _is_in_front(fields):
                found.setdefault(_tty_of(fields), []).append(pid)
        return found

    def group(self, tty: str, number: int) -> list[int]:
        """Pids of the terminal's foreground process group."""
        leader = self.runners.get(tty)
        fields = stat(f"/proc/{leader}") if leader else None
        if not leader or fields is None or _tty_of(fields) != number:
            return self.groups.get(number, [])
        found = [leader] if _is_in_front(fields) else []
        left = _children(leader, fields)
        while left:
            pid = left.pop()
            if (fields := stat(f"/proc/{pid}")) is not None:
                if _tty_of(fields) == number and _is_in_front(fields):
                    found.append(pid)
                left += _children(pid, fields)
        return found

    def guests(self, tty: str) -> list[int]:
        """Those without a terminal of their own that have this one open."""
        return [pid for pid, fields in self.fields.items() if fields[4] == b"0" and _has_open(pid, tty)]

    def below(self, pid: int, number: int) -> list[str]:
        """Terminals of its children other than its own."""
        children = (fields for fields in self.fields.values() if int(fields[1]) == pid)
        numbers = {_tty_of(fields) for fields in children} - {0, number}
        # Unix98 terminals are majors 136 to 143, with 256 minors each.
        return [f"/dev/pts/{(one >> 8 & 0xFF) - 136 << 8 | one & 0xFF | one >> 12 & 0xFFF00}" for one in numbers]


def _is_in_front(fields: list[bytes]) -> bool:
    return fields[2] == fields[5] and fields[0] not in (b"Z", b"X")


def _children(pid: int, fields: list[bytes]) -> list[int]:
    return processes.children(pid, threads=int(fields[17]))


def _tty_of(fields: list[bytes]) -> int:
    return int(fields[4]) & 0xFFFFFFFF


def stat(folder: str) -> list[bytes] | None:
    """Fields of a stat file from the state on, None when it is gone."""
    try:
        return processes.content(f"{folder}/stat").rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return None


def links(pid: int) -> dict[int, str]:
    """{descriptor: what it is open on}; raises OSError."""
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(fd)] = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
    return found


def _has_open(pid: int, tty: str) -> bool:
    try:
        return tty in links(pid).values()
    except OSError:
        return False
