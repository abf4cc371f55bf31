"""The records that a runner writes: the time, a file replaced whole, a file in the room taken for it, the end."""

from __future__ import annotations

import contextlib
import json
import os
import time

from tmuxjobs import files

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any


def now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


def write_json(path: str, value: dict[str, Any]) -> None:
    """Replace the file at `path` by one that holds `value`."""
    beside = path + ".new"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        with open(files.opened(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as file:
            json.dump(value, file)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def write_in_room(folder: str, name: str, record: dict[str, Any]) -> None:
    """Into the room taken at the start, then under its name: neither needs a free block."""
    data = json.dumps(record).encode() + b"\n"
    room, path = (os.path.join(folder, f"{name}.{kind}") for kind in ("room", "json"))
    try:
        fd = files.opened(room, os.O_WRONLY | os.O_CREAT)
    except files.Odd:  # someone has put another thing there
        write_json(path, record)
        return
    os.pwrite(fd, data, 0)
    os.ftruncate(fd, len(data))
    os.close(fd)
    os.replace(room, path)
