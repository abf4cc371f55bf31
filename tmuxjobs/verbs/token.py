"""`token`: the secret that clients send over HTTP, in one file of the state directory, and what keeps it secret."""

import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final

from tmuxjobs.errors import StateError
from tmuxjobs.hosts.local import Host

NAME: Final = "http-token"
SHORTEST, LONGEST = 32, 1024
FORM: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""What a client can send after `Bearer`: RFC 6750, section 2.1."""


def token(host: Host, *, new: bool = False) -> Path:
    """The token's file, made at first use; with `new` the token is replaced. Raises StateError."""
    path = token_path(host)
    # Under the lock, or two servers that start at once could each use a different token.
    with host.store.lock():
        there = _open(path)
        if there is not None:
            os.close(there)
        if new or there is None:
            _write(path, secrets.token_urlsafe(32))
    token_value(host)
    return path


def token_path(host: Host) -> Path:
    """Where the token is, or would be."""
    return host.store.root / NAME


def token_value(host: Host) -> str:
    """The token; raises StateError when there is none, or when others could know it."""
    path = token_path(host)
    fd = _open(path)
    if fd is None:
        raise StateError(f"There is no token in '{path}'; `tmuxjobs token` makes one.")
    try:
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        text = os.read(fd, LONGEST + 2).decode("ascii", "replace").removesuffix("\n")
    except OSError as error:
        raise StateError(f"'{path}' cannot be read ({error.strerror}).") from None
    finally:
        os.close(fd)
    anew = "`tmuxjobs token --new` replaces it."
    if mode & 0o077:
        raise StateError(f"'{path}' has mode {mode:04o}, so others may know the token; {anew}")
    if not (SHORTEST <= len(text) <= LONGEST and FORM.fullmatch(text)):
        raise StateError(f"'{path}' does not hold a token of {SHORTEST} or more letters and digits; {anew}")
    return text


def _open(path: Path) -> int | None:
    """A descriptor of the file, None when nothing is there. A FIFO in its place must not block."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        said = "it is a link" if path.is_symlink() else error.strerror
        raise StateError(f"'{path}' cannot be read ({said}); remove it and run `tmuxjobs token`.") from None
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_nlink > 1:
        os.close(fd)
        raise StateError(f"'{path}' is not a file of yours with one name; remove it and run `tmuxjobs token`.")
    return fd


def _write(path: Path, token: str) -> None:
    """Replace the file; readers see the old or the new one, whole. Call it under the lock."""
    beside = path.with_name(f"{NAME}.new")
    left = _open(beside)  # left by a process that was killed here
    if left is not None:
        os.close(left)
        beside.unlink()
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w") as file:
            file.write(f"{token}\n")
        os.replace(beside, path)
    except OSError as error:
        raise StateError(f"'{path}' cannot be written ({error.strerror}); nothing was changed.") from None
