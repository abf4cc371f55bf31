"""The only reader of files that may have been replaced by anything: bounded, never blocking, checked; and how the
pane's processes write theirs. Stdlib only.

Instead of a file of ours there may be a FIFO, a device, a folder, a link, another user's file, or a text of any size
and shape. Each is `Odd`. The processes in the panes check a record's fields by a `Shape`, the package by its models.
"""

from __future__ import annotations

import os
import stat
import time

from tmuxjobs.contract import FORMAT
from tmuxjobs.lean import dumps, loads, suppress

TYPE_CHECKING = False  # `typing` takes 2 ms


if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeGuard

    Shape = dict[str, Callable[[Any], bool]]


RECORD_BYTES = 1 << 20


class Odd(Exception):
    """The file is not as it should be. The text is meant to follow its path: "is a FIFO"."""


def why(error: Odd | OSError) -> str:
    """The words to follow `cannot be read: `."""
    return f"it {error}" if isinstance(error, Odd) else error.strerror or str(error)


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
    """The JSON object in the data; raises Odd, and Newer when its format is a later one."""
    try:
        value = loads(data)
    except (ValueError, RecursionError):
        raise Odd("is damaged") from None
    if not isinstance(value, dict):
        raise Odd("is damaged")
    if is_whole(value.get("format")) and value["format"] > FORMAT:
        raise Newer("was written by a newer tmuxjobs")
    return value


def record(path: str, shape: Shape) -> dict[str, Any]:
    """The record in that file, whose fields fit `shape`; raises as `read`, and Odd."""
    fields = fields_of(read(path))
    for name, fits in shape.items():
        if not fits(fields.get(name)):
            raise Odd(f"is damaged: '{name}'")
    return fields


def is_text(value: Any) -> bool:
    """Whether it is text that may be an argument of a program."""
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
    """Whether it is a finite number."""
    return type(value) in (int, float) and -1e300 < value < 1e300


def is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def is_object(value: Any) -> bool:
    return isinstance(value, dict)


def is_pane(value: Any) -> bool:
    return isinstance(value, str) and value[:1] == "%" and value[1:].isdecimal() and value.isascii()


def optional(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


QUEUE: Shape = {
    "group": is_text,
    "priority": lambda value: type(value) is int,
    "most": is_whole,
    "total": is_whole,
    "limit": is_whole,
    "not_before": optional(is_seconds),
    "after": lambda value: isinstance(value, list) and all(map(is_text, value)),
    "socket": is_text,
}
"""Of the `queue` in `job.json`."""


JOB: Shape = {
    "job_id": is_text,
    "number": is_whole,
    "command": is_text,
    "cwd": is_text,
    "shell": is_text,
    "shell_options": optional(lambda value: isinstance(value, list) and all(map(is_text, value))),
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
    "ends_with": optional(lambda value: is_object(value) and is_pid(value.get("pid")) and is_text(value.get("start"))),
    "namespace": optional(is_text),
    "ask_why": optional(is_text),
    "ask_s": optional(is_seconds),
    "ask_rules": optional(lambda value: isinstance(value, list) and all(map(is_text, value))),
    "ask_file": optional(is_text),
    "env_names": optional(lambda value: isinstance(value, list) and all(map(is_text, value))),
    "caller": optional(is_object),
    "queue": optional(lambda value: is_object(value) and all(fits(value.get(name)) for name, fits in QUEUE.items())),
    "detached": optional(is_flag),
    "slurm": optional(lambda value: isinstance(value, list) and all(map(is_text, value))),
    "retry": optional(is_whole),
    "restart_policy": optional(is_text),
    "success_codes": optional(lambda value: isinstance(value, list) and all(map(is_whole, value))),
    "ready_when": optional(is_text),
    "ready_timeout_s": optional(is_seconds),
    "judged": optional(
        lambda value: isinstance(value, list) and all(isinstance(one, list) and all(map(is_text, one)) for one in value)
    ),
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
    "attempt": optional(is_whole),
    "again_at": optional(is_seconds),
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
"""Of `pane/installed.json`: the commands of `tmuxjobs` and of a check for prompts, and the files that both need."""


PRESSED: Shape = {"key": is_text, "monotonic": is_seconds}
"""Of `pressed.json`: a key that interrupts programs, and when `interact` pressed it."""


GONE: Shape = {"monotonic": is_seconds}
"""Of `gone.json`: when the recorder saw that its runner was gone."""


OPENED: Shape = {"pid": is_pid, "start": is_text, "namespace": is_text}
"""Of `opened.json`: the process that tmux has started in a job's window, before it has recorded itself."""


APPROVAL: Shape = {
    "approved": is_flag,
    "how": is_text,
    "why": is_text,
    "by": lambda value: value in ("person", "tmuxjobs"),
}
"""Of `approval.json`: the answer whether a job may run, who gave it, and the reason given."""


TURN: Shape = {"boot": is_text, "monotonic": is_seconds, "why": is_text}
"""Of `turn.json`: when a process began to open the window of a job that waited; `why` that failed."""


READY: Shape = {"ready": is_flag, "failed": is_flag, "why": is_text, "monotonic": is_seconds}
"""Of `ready.json`: whether a job is ready now, since when, and whether it did not become ready in time."""


GROUPS: Shape = {"groups": is_object}
"""Of `groups.json`, beside `jobs/`."""


SLURM: Shape = {"number": is_text, "state": is_text, "node": is_text, "reason": is_text, "doubt": is_text}
"""Of `slurm.json`: a job's state in Slurm; `doubt` says since when that is not known."""


STOP: Shape = {"signal": is_text, "grace_s": is_seconds}
"""Of `stop.json`: a request to the runner."""


TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any


def now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


def toml(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """The text of a person's file, which may be a link into their dotfiles, and its parsed content.

    Raises Odd for what is not TOML, and as `read`.
    """
    import tomllib  # Python 3.8, which may run in panes, has none

    try:
        text = read(path, follow=True).decode()
        return text, tomllib.loads(text)
    except RecursionError:
        raise Odd("is nested too deeply") from None
    except ValueError as error:
        raise Odd(f"is not TOML: {' '.join(str(error).split())}") from None


def replace_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace a person's file by one that holds the text, with the mode that it had, else 0600. Raises OSError."""
    folder, name = os.path.split(os.fspath(path))
    beside = os.path.join(folder, f".{name}.{os.urandom(4).hex()}")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        with suppress(FileNotFoundError):
            os.chmod(beside, os.stat(path).st_mode & 0o777)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


def write_json(path: str, value: dict[str, Any]) -> None:
    """Replace the file at `path` by one that holds `value`."""
    beside = path + ".new"
    try:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        with open(opened(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as file:
            file.write(dumps(value))
        os.replace(beside, path)
    except OSError:
        with suppress(OSError):
            os.unlink(beside)
        raise


def new_fifo(path: str) -> None:
    """Make a FIFO that no process has open; raises OSError.

    When a window is opened again because its tmux server ended, the recorder of the first one may still report to the
    FIFO that was there.
    """
    with suppress(FileNotFoundError):
        if stat.S_ISFIFO(os.lstat(path).st_mode):
            os.unlink(path)
    os.mkfifo(path, 0o600)


def write_once(path: str, value: dict[str, Any]) -> bool:
    """Create a complete file with `value`, unless there is one; of several processes only the first gets True."""
    beside = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    try:
        with open(opened(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as file:
            file.write(dumps(value))
        os.link(beside, path)
    except FileExistsError:
        return False
    finally:
        with suppress(OSError):
            os.unlink(beside)
    return True


def append(path: str, value: dict[str, Any]) -> None:
    """Add a line with `value` in one write, as others append too; after a line that was cut off, begin a new one."""
    fd = opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        size = os.fstat(fd).st_size
        cut = b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""
        os.write(fd, cut + dumps(value).encode() + b"\n")
    finally:
        os.close(fd)


def write_in_room(folder: str, name: str, record: dict[str, Any]) -> None:
    """Write the record into the room taken at the start, then rename that: neither needs a free block."""
    data = dumps(record).encode() + b"\n"
    room, path = (os.path.join(folder, f"{name}.{kind}") for kind in ("room", "json"))
    try:
        fd = opened(room, os.O_WRONLY | os.O_CREAT)
    except Odd:  # someone has put something else there
        write_json(path, record)
        return
    os.pwrite(fd, data, 0)
    os.ftruncate(fd, len(data))
    os.close(fd)
    os.replace(room, path)
