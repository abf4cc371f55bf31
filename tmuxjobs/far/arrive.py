"""The first program on another host, sent as text on standard input: it installs our unit and becomes its agent.

Any Python from 3.8 on runs it, without any other file. It finds the unit by the hash of its files, and asks for the
files if it is not there or was changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from pathlib import Path

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

MARKER = "tmuxjobs.json"


def tell(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def exactly(size: int) -> bytes:
    """Read that many bytes and not one more: what follows is for the program that we become."""
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            sys.exit(0)
        data += more
    return data


def line() -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        data += exactly(1)
    found: dict[str, Any] = json.loads(data)
    return found


def usual_state() -> str:
    """The usual state directory of tmuxjobs, as platformdirs gives it."""
    if os.environ.get("TMUXJOBS_STATE_DIR"):
        return os.environ["TMUXJOBS_STATE_DIR"]
    home = os.path.expanduser("~")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Application Support", "tmuxjobs")
    place = os.environ.get("XDG_STATE_HOME", "").strip()
    return os.path.join(place or os.path.join(home, ".local", "state"), "tmuxjobs")


def lay(state: str, marker: str) -> None:
    """Make the state directory, private; raises OSError for one that is not ours to use."""
    os.makedirs(state, mode=0o700, exist_ok=True)
    facts = os.lstat(state)
    if facts.st_uid != os.getuid() or os.path.islink(state):
        raise PermissionError(1, "is a link or another user's", state)
    if not os.path.exists(os.path.join(state, MARKER)):
        # A marker may be there that is being written just now, or that a full disk has left.
        if [name for name in os.listdir(state) if name != MARKER and not name.startswith(f"{MARKER}.")]:
            raise FileExistsError(17, "holds files and is not a state directory of tmuxjobs", state)
        beside = os.path.join(state, f"{MARKER}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            with open(beside, "w") as file:
                file.write(marker)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, os.path.join(state, MARKER))
        except OSError as error:
            os.unlink(beside)
            raise OSError(error.errno, error.strerror, state) from None
    for name in ("", "jobs", "pane"):
        folder = os.path.join(state, name)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.lstat(folder).st_mode & 0o077:
            os.chmod(folder, 0o700)


def digest_of(folder: str, names: list[str]) -> str:
    """The hash of these files as they are there; empty when one is missing."""
    digest = hashlib.sha256()
    try:
        for name in names:
            with open(os.path.join(folder, "tmuxjobs", name), "rb") as file:
                data = file.read()
            digest.update(f"\0{name}\0{len(data)}\0".encode() + data)
    except OSError:
        return ""
    return digest.hexdigest()


def found(pane: str, python: str, names: list[str], digest: str) -> str | None:
    for entry in os.listdir(pane):
        folder = os.path.join(pane, entry)
        ours = re.match("[0-9a-f]{16}$", entry) and os.path.realpath(os.path.join(folder, "tmuxjobs-job")) == python
        if ours and digest_of(folder, names) == digest:
            os.utime(folder)
            return folder
    return None


def made(pane: str, names: list[str], digest: str) -> str:
    """Ask for the files, and have their own code make the unit from them, as it does on our own machine."""
    tell(needs="unit")
    sizes = line()["sizes"]
    place = os.path.join(pane, ".new-" + os.urandom(8).hex())
    os.mkdir(place, 0o700)
    try:
        for name, size in zip(names, sizes):  # noqa: B905 - Python 3.8
            path = os.path.join(place, "tmuxjobs", name)
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(path, "wb") as file:
                file.write(exactly(size))
        if digest_of(place, names) != digest:
            raise OSError(5, "the files did not arrive completely", place)
        sys.path.insert(0, place)
        from tmuxjobs.store import units

        folder = units.prepare(Path(pane)).folder
        for name in names if digest_of(folder, names) != digest else ():  # it was there, and changed
            os.replace(os.path.join(place, "tmuxjobs", name), os.path.join(folder, "tmuxjobs", name))
        return folder
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main() -> None:
    umask = os.umask(0o077)
    asked = line()
    state = os.path.abspath(os.path.expanduser(asked["state"] or usual_state()))
    python, pane = os.path.realpath(sys.executable), os.path.join(state, "pane")
    try:
        lay(state, asked["marker"])
        folder = found(pane, python, asked["names"], asked["digest"]) or made(pane, asked["names"], asked["digest"])
    except OSError as error:
        tell(fault=f"'{error.filename or state}' {error.strerror}")
        return
    program = os.path.join(folder, "tmuxjobs-job")
    agent = os.path.join(folder, "tmuxjobs", "far", "__main__.py")
    os.umask(umask)
    os.execv(program, [program, "-I", "-S", "-X", "utf8", agent])


if __name__ == "__main__":
    main()
