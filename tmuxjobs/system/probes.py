"""What this machine has: ports that a tree of processes listens on, who answers at a URL, a locale. Knows no jobs."""

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
"""Of these the first that there is: macOS has no C.UTF-8."""


@functools.lru_cache(maxsize=None)  # noqa: UP033 - Python 3.8 has no other
def usual_locale() -> str:
    """What jobs get where no locale is set, for without one programs garble what is not ASCII; empty for none."""
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
    """A cheap look at the sockets of the process's network before a dear one at each process, proc_net_tcp(5)."""
    wanted = b":%04X" % port if port else b""
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{name}").read_bytes().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN and fields[1].endswith(wanted):
                    return True
    return False


def is_address(url: str) -> bool:
    """Whether it is an http or https address that names a host, and no port that there is not."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


@dataclass(frozen=True)
class Stranger:
    """Who listens at an address, when it is none of a job's: its name for people, and its pid with its ancestors'."""

    name: str
    line: tuple[int, ...]


@dataclass(frozen=True)
class Answered:
    """The HTTP status that a URL answers with; `stranger` is who answers, when that is not who should."""

    code: int
    stranger: Stranger | None = None


def answers(url: str, root: int | None) -> Answered | None:
    """What answers at the URL; None when nothing does within REQUEST_S. Redirects are not followed.

    At an address of this machine the process `root` or a descendant should listen. Of all addresses that the name has,
    one where it does comes first.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found: Answered | None = None
    with contextlib.suppress(OSError, UnicodeError):  # nobody knows the name
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
            # A local server signs its own certificate, and nothing of the answer is used.
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
    """Who listens there, when it is not `root` nor a descendant. One that listens at that very address goes first."""
    anyone = "::" if ":" in address else "0.0.0.0"
    wild = {anyone, "::"}  # which takes in IPv4 too
    tree = _listeners(root, port) if root is not None else {}
    if address in tree:
        return None
    try:
        everyone = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    except psutil.Error:  # macOS shows them to root alone
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
