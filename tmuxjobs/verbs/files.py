"""Files of jobs on other hosts: the copy of a folder that a job runs in, and `fetch`, which brings results here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tmuxjobs import files
from tmuxjobs.arguments import WAIT_S, encoded
from tmuxjobs.errors import InvalidInput, NotAllowed, StateError
from tmuxjobs.hosts import rsync
from tmuxjobs.hosts.local import Host
from tmuxjobs.job_answers import Fetched
from tmuxjobs.models import Caller
from tmuxjobs.text.log import gone_bytes
from tmuxjobs.verbs.waiter import Watched, run

if TYPE_CHECKING:
    from tmuxjobs.hosts.ssh import RemoteHost
    from tmuxjobs.policy.rules import Policy

PIECE = 1 << 22
binding: ContextVar[Sequence[Policy]] = ContextVar("binding", default=())
"""The policies that say now where what is fetched may be written."""
PERSON_S = 3600.0
"""Limit of a person's copy, as they can press Ctrl-C; an agent's must be done within one call."""
LEFT_OUT = 10
"""How many names of what was left out are given."""


def placed(host: Host, caller: Caller, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `execute` that `sync` changes: `sync` as a whole path, and `cwd` in the copy, which it creates.

    Raises InvalidInput, for an agent NotAllowed, and HostError.
    """
    if given.get("sync") is None:
        return {}
    if not host.name:
        raise InvalidInput("`sync` needs `host`: it copies the folder to another machine.")
    source = local_folder(cast("RemoteHost", host).home, caller, given["sync"], "sync")
    if not source.is_dir():
        raise InvalidInput(f"sync '{source}' is not a directory here.")
    cwd = given.get("cwd") or "."
    encoded("cwd", cwd)
    there = cast("RemoteHost", host)
    copy = rsync.copy_of(there, source)
    if cwd.startswith(("/", "~")):
        rsync.make(there, copy)
        return {"sync": str(source), "cwd": cwd}
    if not (source / cwd).is_dir() or os.path.normpath(cwd).startswith(".."):
        raise InvalidInput(f"cwd '{cwd}' is not a directory in '{source}'.")
    inside = os.path.normpath(os.path.join(copy, cwd))
    rsync.make(there, copy, inside)
    return {"sync": str(source), "cwd": inside}


def send(host: Host, caller: Caller, sync: str) -> None:
    """Bring the copy up to date; raises InvalidInput and HostError, and then a job must not start."""
    rsync.send(cast("RemoteHost", host), Path(sync), bound_s(caller))


def copy_of(host: Host, source: Path) -> Path:
    """The folder on that other host which has the copy of that one here."""
    return Path(rsync.copy_of(cast("RemoteHost", host), source))


def is_ours(host: Host, sync: str, cwd: str) -> bool:
    """Whether the job's copy was made from the folder `sync` of this machine: another may have started the job."""
    copy = rsync.copy_of(cast("RemoteHost", host), Path(sync)) if sync else ""
    return bool(copy) and (cwd == copy or cwd.startswith(f"{copy}/"))


@contextlib.contextmanager
def writing_by(policies: Sequence[Policy]) -> Iterator[None]:
    """Within it, a fetch may write only what these policies let a command line write."""
    token = binding.set(policies)
    try:
        yield
    finally:
        binding.reset(token)


def refuse_writing(path: Path) -> None:
    """Raises NotAllowed if a policy does not let that file be written."""
    for policy in binding.get():
        # rsync escapes what cannot be printed, so such a name is not the path that would be written.
        why = "a policy cannot judge a name like that" if "\\#" in str(path) else policy.against_writing(path)
        if why:
            raise NotAllowed(f"This is not allowed: `{path}`: {why}. It was not fetched.")


def fetch(host: Host, caller: Caller, job_id: str, paths: Sequence[str] | str, *, to: str | None = None) -> Fetched:
    """Copy results of a job on another host here: files and folders by their paths in the job's folder.

    They arrive under the same paths in `to`, by default the folder that `sync` named, else the current one. Raises
    JobNotFound, InvalidInput, HostError, and for an agent NotAllowed.
    """
    spec = host.look(job_id).spec
    if not host.name:
        raise InvalidInput(f"Job '{job_id}' runs on this machine: its files are here, in '{spec.cwd}'.")
    there = cast("RemoteHost", host)
    by_folder: dict[str, list[str]] = {}
    for path in [paths] if isinstance(paths, str) else paths:
        folder, name = part(spec.cwd, caller, path)
        by_folder.setdefault(folder, []).append(name)
    if not by_folder:
        raise InvalidInput("Name what is to be fetched, by its path in the job's folder.")
    place = there.home.cwd
    if to is not None:
        place = local_folder(there.home, caller, to, "to")
    elif is_ours(host, spec.sync, spec.cwd):
        place = Path(spec.sync) / os.path.relpath(spec.cwd, rsync.copy_of(there, Path(spec.sync)))
    size, names, left = 0, list[str](), list[str]()
    for folder, wanted in by_folder.items():
        check = refuse_writing if binding.get() else None
        more, found, out = rsync.fetch(there, folder, wanted, place, bound_s(caller), check)
        size, names, left = size + more, [*names, *found], [*left, *out]
    note = f"left out: {', '.join(left[:LEFT_OUT])}" if left else "" if names else "all of that is here already"
    note += f" and {len(left) - LEFT_OUT} more" if len(left) > LEFT_OUT else ""
    return Fetched(job_id=job_id, to=str(place), files=tuple(names), size_bytes=size, note=note)


class Mirror(Watched):
    """A local copy, byte for byte, of the log of a job on another host; `run` returns when the job has ended.

    What was copied before is not copied again. A log that has dropped bytes is copied whole, once, at the end.
    """

    def __init__(self, host: Host, job_id: str) -> None:
        job = host.look(job_id)
        if not host.name:
            raise InvalidInput(f"Job '{job_id}' runs on this machine: its log is '{job.log}'.")
        super().__init__(job, logs=True)
        self.host = cast("RemoteHost", host)
        self.job_id = job_id
        self.paths = {log: log.with_suffix(".mirror") for log in job.logs}

    def run(self) -> int:
        """Copy until the job ends; the final size in bytes. Raises JobNotFound when it is removed there, StateError."""
        return run(self)

    def check(self) -> int | None:
        job = self.host.look(self.job_id)
        over = job.exit is not None or job.lost
        for log, path in self.paths.items():
            if not self._bring(log, path, over=over):
                return None
        return sum(path.stat().st_size for path in self.paths.values()) if over else None

    def _bring(self, log: Path, path: Path, *, over: bool) -> bool:
        """Copy what is there; return whether all of it came."""
        try:
            with open(files.opened(path, os.O_RDWR | os.O_CREAT), "r+b") as file:
                at, size = os.fstat(file.fileno()).st_size, log.stat().st_size if log.exists() else 0
                if gone_bytes(log):
                    if not over:
                        return False
                    at = 0
                file.truncate(at if at <= size else 0)
                file.seek(0, os.SEEK_END)
                while file.tell() < size:
                    try:
                        data = self.host.read_log(log, file.tell(), min(PIECE, size - file.tell()))
                    except StateError:
                        return False  # out of reach: an event wakes us when it is reached again
                    if not data:
                        return False
                    file.write(data)
                return True
        except OSError as error:
            raise StateError(f"'{path}' cannot be written: {error.strerror}.") from None
        except files.Odd as odd:
            raise StateError(f"'{path}' {odd}: remove it.") from None


def part(cwd: str, caller: Caller, path: str) -> tuple[str, str]:
    """The folder on the host, and the name in it, of a path; raises InvalidInput and NotAllowed."""
    encoded("path", path)
    name = os.path.normpath(os.path.join(cwd, path)) if path else cwd
    inside = os.path.relpath(name, cwd)
    if name == cwd:
        raise InvalidInput("Name files or folders in the job's folder, not all of it.")
    if inside.startswith(".."):
        if caller.kind != "person":
            raise NotAllowed(f"Agents fetch what is in the job's folder, '{cwd}', and '{path}' is not.")
        return os.path.split(name)
    return cwd, inside


def local_folder(home: Host, caller: Caller, path: str, what: str) -> Path:
    """A folder of this machine; an agent's must be in its project. Raises InvalidInput and NotAllowed."""
    encoded(what, path)
    found = Path(os.path.realpath(os.path.join(home.cwd, os.path.expanduser(path))))
    project = os.path.realpath(caller.project or home.cwd)
    if caller.kind != "person" and not found.is_relative_to(project):
        raise NotAllowed(f"Agents copy folders of their project, '{project}', and {what} '{path}' is not in it.")
    return found


def bound_s(caller: Caller) -> float:
    return PERSON_S if caller.kind == "person" else WAIT_S
