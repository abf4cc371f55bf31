"""The part of psutil that is used, from proc(5) alone, for a Linux host where psutil is not installed."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
from pathlib import Path
from types import SimpleNamespace

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CONN_LISTEN = "LISTEN"
TICKS = os.sysconf("SC_CLK_TCK")
LISTENS = "0A"
"""The state in /proc/net/tcp."""


class Error(Exception):
    """The process has ended, or is another user's."""


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


class Process:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.info: dict[str, Any] = {}
        self._stat()

    def _read(self, name: str) -> bytes:
        try:
            with open(f"/proc/{self.pid}/{name}", "rb") as file:
                return file.read()
        except OSError as error:
            raise Error(str(error)) from None

    def _stat(self) -> list[bytes]:
        """Fields from the state on, proc_pid_stat(5)."""
        return self._read("stat").rsplit(b")", 1)[1].split()

    def oneshot(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def name(self) -> str:
        short = self._read("stat").split(b"(", 1)[1].rsplit(b")", 1)[0].decode(errors="replace")
        whole = os.path.basename((self.cmdline() or [""])[0]) if len(short) >= 15 else ""
        return whole if whole.startswith(short) else short

    def ppid(self) -> int:
        return int(self._stat()[1])

    def cmdline(self) -> list[str]:
        words = self._read("cmdline").split(b"\0")
        return [os.fsdecode(word) for word in words[:-1]]

    def cwd(self) -> str:
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/{self.pid}/cwd")
        raise Error(self.pid)

    def create_time(self) -> float:
        with open("/proc/stat") as file:
            boot = next(int(line.split()[1]) for line in file if line.startswith("btime "))
        return boot + int(self._stat()[19]) / TICKS

    def uids(self) -> SimpleNamespace:
        line = next(line for line in self._read("status").splitlines() if line.startswith(b"Uid:"))
        return SimpleNamespace(real=int(line.split()[1]))

    def username(self) -> str:
        return pwd.getpwuid(self.uids().real).pw_name

    def cpu_times(self) -> SimpleNamespace:
        names = ("user", "system", "children_user", "children_system")
        return SimpleNamespace(**{name: int(field) / TICKS for name, field in zip(names, self._stat()[11:15])})  # noqa: B905

    def memory_info(self) -> SimpleNamespace:
        return SimpleNamespace(rss=int(self._stat()[21]) * os.sysconf("SC_PAGE_SIZE"))

    def children(self, recursive: bool = False) -> list[Process]:
        parents: dict[int, list[Process]] = {}
        for one in process_iter(["ppid"]):
            parents.setdefault(one.info["ppid"], []).append(one)
        found = list(parents.get(self.pid, ()))
        for one in found:
            found += parents.get(one.pid, ()) if recursive else ()
        return found

    def parents(self) -> list[Process]:
        found: list[Process] = []
        with contextlib.suppress(Error):
            pid = self.ppid()
            while pid:
                found.append(Process(pid))
                pid = found[-1].ppid()
        return found

    def net_connections(self, kind: str) -> list[SimpleNamespace]:
        """The connections on which the process listens."""
        inodes = set()
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{self.pid}/fd"):
                with contextlib.suppress(OSError):
                    inodes.add(os.readlink(f"/proc/{self.pid}/fd/{fd}"))
        return [one for one in _listening(self.pid) if f"socket:[{one.inode}]" in inodes]


def process_iter(attributes: list[str]) -> Iterator[Process]:
    for pid in pids():
        with contextlib.suppress(Error):
            one = Process(pid)
            one.info = {name: getattr(one, name)() for name in attributes}
            yield one


def net_connections(kind: str) -> list[SimpleNamespace]:
    """The connections that listen, each with the pid of its process."""
    found = []
    for pid in pids():
        with contextlib.suppress(Error):
            for one in Process(pid).net_connections(kind):
                one.pid = pid
                found.append(one)
    return found


def net_if_addrs() -> dict[str, list[SimpleNamespace]]:
    """Always empty: only loopback counts as an address of this machine."""
    return {}


def _listening(pid: int) -> Iterator[SimpleNamespace]:
    """The connections that listen in the network of that process, proc_net_tcp(5)."""
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                address, port = fields[1].split(":")
                if fields[3] == LISTENS:
                    raw = bytes.fromhex(address)
                    words = [raw[at : at + 4][::-1] for at in range(0, len(raw), 4)]
                    ip = socket.inet_ntop(family, b"".join(words))
                    where = SimpleNamespace(ip=ip, port=int(port, 16))
                    yield SimpleNamespace(laddr=where, status=CONN_LISTEN, inode=fields[9], pid=None)
