"""Whether something serves: ports that a tree of processes listens on, and a URL that answers. Knows no jobs."""

import contextlib
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psutil

REQUEST_S = 1.0
LISTEN = b"0A"


def listening(root: int, port: int = 0) -> dict[int, str]:
    """{port: name of the process} that `root` or a descendant listens on; only `port` if it is not 0."""
    if sys.platform == "linux" and not _anyone_listens(root, port):
        return {}
    found = {}
    with contextlib.suppress(psutil.Error):
        for process in (psutil.Process(root), *psutil.Process(root).children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it ended, or is another user's
                for connection in process.net_connections("tcp"):
                    if connection.status == psutil.CONN_LISTEN and port in (0, connection.laddr.port):
                        found[connection.laddr.port] = process.name()
    return found


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


def answers(url: str) -> int | None:
    """The HTTP status that the URL answers with, None when it does not within REQUEST_S. Redirects are not followed."""
    # They take 6 ms to import, in every command.
    import http.client
    import ssl

    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        # A local server signs its own certificate, and nothing of the answer is used.
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=REQUEST_S, context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=REQUEST_S)
    try:
        connection.request("GET", f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
