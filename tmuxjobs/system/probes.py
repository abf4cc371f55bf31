"""What this machine has: ports that a process tree listens on, what answers at a URL, a locale. Knows no jobs."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from tmuxjobs.system.job_processes import psutil

REQUEST_S = 1.0
LISTEN = b"0A"
ADDRESSES_MAX = 4
LOCALES = ("C.UTF-8", "en_US.UTF-8")
"""The first of these that exists is used: macOS has no C.UTF-8."""


@functools.lru_cache(maxsize=None)  # noqa: UP033 - Python 3.8 has no other
def usual_locale() -> str:
    """The locale of jobs if none is set, as without one programs garble what is not ASCII; empty if there is none."""
    import ctypes

    libc = ctypes.CDLL(None)
    libc.newlocale.restype = ctypes.c_void_p
    libc.newlocale.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
    # LC_CTYPE_MASK of <locale.h>. `setlocale` would change all threads.
    mask = 1 if sys.platform.startswith("linux") else 2
    return next((name for name in LOCALES if libc.newlocale(mask, name.encode(), None)), "")


def listening(root: int, port: int = 0) -> dict[int, str]:
    """{port: name of the process} that `root` or a descendant listens on; only `port` if it is not 0."""
    return {found: name for _, found, name in _of_tree(root, port)}


def _listeners(root: int, port: int) -> dict[str, str]:
    """{address: name of the process} of those in the tree that listen on that port."""
    return {address: name for address, _, name in _of_tree(root, port)}


def _of_tree(root: int, port: int) -> Iterator[tuple[str, int, str]]:
    if sys.platform == "linux" and not _anyone_listens(root, port):
        return
    with contextlib.suppress(psutil.Error):
        for process in (psutil.Process(root), *psutil.Process(root).children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it ended, or is another user's
                for connection in process.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN and port in (0, connection.laddr.port):
                        yield connection.laddr.ip, connection.laddr.port, process.name()


def _anyone_listens(pid: int, port: int) -> bool:
    """Whether anything in the process's network listens, proc_net_tcp(5): cheap, before each process is inspected."""
    wanted = b":%04X" % port if port else b""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{name}").read_bytes().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN and fields[1].endswith(wanted):
                    return True
    return False


def is_address(url: str) -> bool:
    """Whether it is an http or https address that names a host, and no port that cannot exist."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@dataclass(frozen=True)
class Stranger:
    """A process that listens at an address and is not the job's: its name for people, its pid and its ancestors'."""

    name: str
    line: tuple[int, ...]


@dataclass(frozen=True)
class Answered:
    """The HTTP status that a URL answers with; `stranger` is the process that answers, if it is not the job's."""

    code: int
    stranger: Stranger | None = None


def answers(url: str, root: int | None) -> Answered | None:
    """What answers at the URL; None when nothing does within REQUEST_S. Redirects are not followed.

    At an address of this machine the process `root` or a descendant should listen. Among the addresses of the name, one
    where it does comes first.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found: Answered | None = None
    with contextlib.suppress(OSError, UnicodeError):  # the name is not known
        known = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        for address in dict.fromkeys(str(one[4][0]) for one in known[:ADDRESSES_MAX]):
            code = _status(parts, address, port)
            if code is not None:
                stranger = _stranger(root, address, port) if _is_here(address) else None
                if stranger is None:
                    return Answered(code)
                found = found or Answered(code, stranger)
    return found


def _status(parts: SplitResult, address: str, port: int) -> int | None:
    # They take 6 ms to import, in every command.
    import http.client
    import ssl

    connection = http.client.HTTPConnection(parts.hostname or "", port, timeout=REQUEST_S)
    try:
        connection.sock = socket.create_connection((address, port), timeout=REQUEST_S)
        if parts.scheme == "https":
            # A local server signs its own certificate, and the answer itself is not used.
            context = ssl._create_unverified_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=parts.hostname)
        connection.request("GET", f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _is_here(address: str) -> bool:
    """Whether it is an address of this machine."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.is_loopback or ip.is_unspecified:
        return True
    return any(address == one.address for some in psutil.net_if_addrs().values() for one in some)


def _stranger(root: int | None, address: str, port: int) -> Stranger | None:
    """The process that listens there, unless it is `root` or a descendant; one at that very address goes first."""
    anyone = "::" if ":" in address else "0.0.0.0"
    wild = {anyone, "::"}  # which includes IPv4
    tree = _listeners(root, port) if root is not None else {}
    if address in tree:
        return None
    try:
        everyone = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    except psutil.Error:  # macOS shows them only to root
        return None if wild & tree.keys() else Stranger("another process", ())
    there = {one.laddr.ip: one.pid for one in everyone if one.laddr and one.laddr.port == port}
    if address not in there and wild & tree.keys():
        return None
    return _named(next((there[ip] for ip in (address, anyone, "::") if ip in there), None))


def _named(pid: int | None) -> Stranger:
    with contextlib.suppress(psutil.Error):
        if pid is not None:
            process = psutil.Process(pid)
            line = (pid, *(parent.pid for parent in process.parents()))
            return Stranger(f"{process.name()} ({pid})", line)
    return Stranger("a process of another user", ())
