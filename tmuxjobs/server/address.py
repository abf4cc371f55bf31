"""Where HTTP is served: the address or socket file that clients connect to, and who else could reach or replace it."""

import errno
import fcntl
import ipaddress
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tmuxjobs.errors import InvalidInput

LONGEST: Final = 103
"""Bytes of a socket file's path: 108 on Linux, 104 on macOS, with a zero byte at the end (unix(7), unix(4))."""
QUEUE: Final = 512
"""Connections that the kernel keeps until they are accepted."""
ANSWER_S: Final = 1.0
LOCK_S: Final = 10.0
NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors of a machine without IPv6 for ::1, which `localhost` stands for too."""


@dataclass(frozen=True)
class Listener:
    """Sockets that already listen, and where clients find them."""

    sockets: list[socket.socket]
    text: str
    host: str | None = None
    file: Path | None = None
    identity: tuple[int, int] | None = None

    def leave(self) -> None:
        """Remove our socket file; call it while we listen, as then no other server replaces it."""
        with suppress(OSError):  # gone already
            if self.file is not None and _identity(self.file) == self.identity:
                self.file.unlink()


def listen(where: str, *, remote: bool) -> Listener:
    """Listen at HOST:PORT or unix:PATH; raises InvalidInput when that cannot be done, or not safely."""
    kind, _, path = where.partition(":")
    if kind == "unix":
        return _at_file(path)
    host, _, port = where.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidInput(f"--http takes HOST:PORT, like 127.0.0.1:8765, or unix:PATH, not '{where}'.")
    return _at_address(where, host.removeprefix("[").removesuffix("]"), int(port), remote=remote)


def _at_address(where: str, host: str, port: int, *, remote: bool) -> Listener:
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))
        if not remote and not all(_is_loopback(address) for _, address in addresses):
            raise InvalidInput(
                f"'{where}' can be reached from other machines, and without TLS they can read the token and all else: "
                f"serve on 127.0.0.1:{port} and come in by ssh, or add --allow-remote."
            )
        refused: OSError | None = None
        for family, address in addresses:
            try:
                sockets.append(socket.create_server((address, port), family=family, backlog=QUEUE))
            except OSError as error:
                # If one address of several is taken, clients could send our token to another server.
                if error.errno not in NOT_HERE:
                    raise
                refused = error
        if refused is not None and not sockets:
            raise refused
    except (OSError, ValueError) as error:  # ValueError: the resolver takes no such name
        for one in sockets:
            one.close()
        said = _reason(error) if isinstance(error, OSError) else "that is not a host name"
        raise InvalidInput(f"'{where}' cannot be served on ({said}); give another one.") from None
    # A request may always name an address that it was sent to, but 0.0.0.0 is not one.
    name = None if host in {address for _, address in addresses} else host
    return Listener(sockets, f"http://{where}/mcp", host=name)


def _reason(error: OSError) -> str:
    """The system's words, without the address that Python adds; the resolver has other error numbers."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _at_file(given: str) -> Listener:
    if not given:
        raise InvalidInput("--http unix: needs the path of a socket file, like unix:/run/user/1000/tmuxjobs.sock.")
    try:
        file = Path(given).expanduser().absolute()
        if len(os.fsencode(file)) > LONGEST:
            raise InvalidInput(f"'{file}' is longer than the {LONGEST} bytes that a socket's path may have.")
        _check_folder(file.parent)
        # Under the lock, or one of two servers that start at once would remove the other's file.
        with _locked(file.parent):
            _remove_dead(file)
            sock = socket.socket(socket.AF_UNIX)
            try:
                mask = os.umask(0o177)
                try:
                    sock.bind(str(file))
                finally:
                    os.umask(mask)
                sock.listen(QUEUE)
                return Listener([sock], f"the socket {file}, path /mcp", file=file, identity=_identity(file))
            except BaseException:
                sock.close()
                raise
    except RuntimeError:
        raise InvalidInput(f"'{given}' begins with the home of a user who does not exist.") from None
    except (OSError, ValueError) as error:
        said = _reason(error) if isinstance(error, OSError) else error
        raise InvalidInput(f"'{given}' cannot be served on ({said}); give another path.") from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder; raises InvalidInput when another process has held it for LOCK_S."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    deadline = time.monotonic() + LOCK_S
    try:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if time.monotonic() > deadline:
                raise InvalidInput(f"Another process has held the lock of '{folder}' for {LOCK_S:.0f} s; try again.")
            time.sleep(0.01)
        yield
    finally:
        os.close(fd)


def _check_folder(folder: Path) -> None:
    """Raises InvalidInput if another user could replace our socket: clients would send them the token."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise InvalidInput(f"'{folder}' must be a folder of yours in which nobody else may write; give another path.")
    for above in (*folder.parents, *folder.resolve().parents):
        facts = above.lstat()
        anybody = facts.st_mode & 0o002 and not facts.st_mode & stat.S_ISVTX
        if facts.st_uid not in (0, os.getuid()) if stat.S_ISLNK(facts.st_mode) else anybody:
            raise InvalidInput(f"Others may replace '{above}' or what is in it; give a path elsewhere.")


def _remove_dead(file: Path) -> None:
    """Remove the socket of a server that has ended; raises InvalidInput when anything else is there."""
    try:
        facts = file.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(facts.st_mode) or facts.st_uid != os.getuid():
        raise InvalidInput(f"'{file}' is there and is not a socket of yours; give another path.")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(ANSWER_S)
        try:
            probe.connect(str(file))
        except ConnectionRefusedError:
            file.unlink()
            return
        except OSError:  # it is full or hangs, but it is there
            pass
    raise InvalidInput(f"A server listens at '{file}' already; end it, or give another path.")


def _identity(file: Path) -> tuple[int, int]:
    facts = file.lstat()
    return facts.st_dev, facts.st_ino
