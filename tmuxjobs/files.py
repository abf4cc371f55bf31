"""The one reader of files that may have been replaced by anything: bounded, never blocking, checked. Stdlib only.

In the place of a file of ours may be a FIFO, a device, a folder, a link, another user's file, or a text of any size and
shape. Each is `Odd`. The processes in the panes check a record's fields by a `Shape`, the package by its models.
"""

from __future__ import annotations

import json
import os
import stat

from tmuxjobs.contract import FORMAT

TYPE_CHECKING = False  # `typing` takes 2 ms


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeGuard

    Shape = dict[str, Callable[[Any], bool]]


RECORD_BYTES = 1 << 20


class Odd(Exception):
    """What is there is not such a file. The text goes behind its path: "is a FIFO"."""


class Newer(Odd):
    """A record that a later version wrote."""


def opened(path: str | os.PathLike[str], flags: int = os.O_RDONLY, *, follow: bool = False) -> int:
    """A descriptor of a regular file of this user, made with mode 0600 when `flags` have O_CREAT.

    With `follow` it may be a link, and another user's. Raises Odd, FileNotFoundError and other OSErrors.
    """
    more = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags | more, 0o600)
    except OSError:
        # Why it cannot be opened differs by system and flags; what it is does not.
        refuse_odd(os.stat(path, follow_symlinks=follow), follow=follow)
        raise
    try:
        refuse_odd(os.fstat(fd), follow=follow)
    except Odd:
        os.close(fd)
        raise
    return fd


def refuse_odd(facts: os.stat_result, *, follow: bool = False) -> None:
    mode = facts.st_mode
    kinds = ((stat.S_ISLNK, "link"), (stat.S_ISDIR, "directory"), (stat.S_ISFIFO, "FIFO"), (stat.S_ISSOCK, "socket"))
    for is_kind, name in kinds:
        if is_kind(mode):
            raise Odd(f"is a {name}, not a file")
    if not stat.S_ISREG(mode):
        raise Odd("is a device, not a file")
    if not follow and facts.st_uid != os.getuid():
        raise Odd("belongs to another user")


def read(path: str | os.PathLike[str], most: int = RECORD_BYTES, *, follow: bool = False) -> bytes:
    """The whole content of a file of up to `most` bytes; raises as `opened`."""
    fd = opened(path, follow=follow)
    try:
        data = b""
        while len(data) <= most:
            more = os.read(fd, most + 1 - len(data))
            if not more:
                return data
            data += more
    finally:
        os.close(fd)
    raise Odd(f"is larger than {most} bytes")


def fields_of(data: bytes) -> dict[str, Any]:
    """The object that is written there as JSON; raises Odd, and Newer when its format is a later one."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise Odd("is damaged") from None
    if not isinstance(value, dict):
        raise Odd("is damaged")
    if is_whole(value.get("format")) and value["format"] > FORMAT:
        raise Newer("was written by a newer tmuxjobs")
    return value


def record(path: str, shape: Shape) -> dict[str, Any]:
    """The record in that file, whose fields are as `shape` has them; raises as `read`, and Odd."""
    fields = fields_of(read(path))
    for name, fits in shape.items():
        if not fits(fields.get(name)):
            raise Odd(f"is damaged: '{name}'")
    return fields


def is_text(value: Any) -> bool:
    """Text that may be an argument of a program."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def is_whole(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 63


def is_pid(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 31


def is_seconds(value: Any) -> bool:
    """A finite number."""
    return type(value) in (int, float) and -1e300 < value < 1e300


def is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def is_object(value: Any) -> bool:
    return isinstance(value, dict)


def is_pane(value: Any) -> bool:
    return isinstance(value, str) and value[:1] == "%" and value[1:].isdecimal() and value.isascii()


def optional(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


JOB: Shape = {
    "job_id": is_text,
    "number": is_whole,
    "command": is_text,
    "cwd": is_text,
    "shell": is_text,
    "timeout_s": optional(is_seconds),
    "grace_s": is_seconds,
    "separate_stderr": is_flag,
    "max_output_bytes": is_whole,
    "umask": lambda value: is_whole(value) and value <= 0o777,
    "created_monotonic": is_seconds,
    "boot": is_text,
    "machine": optional(is_text),
    "host": optional(is_text),
    "nonce": lambda value: isinstance(value, str) and value.isdecimal() and value.isascii(),
    "tmux": is_text,
    "session": optional(is_text),
    "notify": optional(is_text),
    "on_end": optional(is_text),
    "adopted": optional(is_object),
}
"""Of `job.json`: the fields that the processes in the panes use."""


RUN: Shape = {
    "pid": is_pid,
    "start": is_text,
    "boot": is_text,
    "pane": is_pane,
    "server_pid": is_pid,
    "tty": is_text,
    "started_monotonic": optional(is_seconds),
}
"""Of `run.json`, likewise."""


EXIT: Shape = {
    "reason": is_text,
    "exit_code": optional(is_whole),
    "signal": optional(is_text),
    "runtime_s": optional(is_seconds),
    "job": lambda value: is_object(value) and all(fits(value.get(name)) for name, fits in JOB.items()),
}
"""Of `exit.json`, likewise."""


def is_argv(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_text, value))


INSTALLED: Shape = {"command": is_argv, "notice": is_argv, "needs": is_argv}
"""Of `pane/installed.json`: what runs `tmuxjobs` and a look for prompts, and the files without which neither does."""


STOP: Shape = {"signal": is_text, "grace_s": is_seconds}
"""Of `stop.json`: a request to the runner."""
