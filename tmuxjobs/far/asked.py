"""The functions that may be asked for on another host, by name, and their answers as JSON."""

from __future__ import annotations

import dataclasses
import os
import shutil
from datetime import datetime
from pathlib import Path

from tmuxjobs.far import tidy
from tmuxjobs.named import ProcessRecord
from tmuxjobs.pane import turns
from tmuxjobs.system import beside, job_processes, probes, processes, terminals

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def folder(base: str, wanted: str) -> list[str]:
    """A job's folder, and what is wrong with it: it `is not a directory`, it `may not be entered`."""
    # A user whom nobody knows leaves the `~` where it is.
    path = os.path.abspath(os.path.join(base, os.path.expanduser(wanted)))
    if not os.path.isdir(path):
        return [path, "is not a directory"]
    return [path, "" if os.access(path, os.X_OK) else "may not be entered"]


def free_bytes(path: str) -> int:
    """Of the disk that has that file, for us."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


def program(name: str, path: str) -> str:
    """Where the program of that name or path is; empty for none."""
    found = shutil.which(os.path.expanduser(name), path=path) or ""
    return os.path.abspath(found) if found else ""


def as_now(one: dict[str, Any]) -> ProcessRecord | None:
    return job_processes.as_now(ProcessRecord(**one))


def of_jobs(traces: dict[str, dict[str, Any]]) -> dict[str, job_processes.Left]:
    return job_processes.of_jobs({job_id: job_processes.Trace(**_tuples(trace)) for job_id, trace in traces.items()})


def of_pane(trace: dict[str, Any]) -> job_processes.Left:
    return job_processes.of_pane(job_processes.PaneTrace(**_tuples(trace)))


def move(state: str) -> None:
    turns.move(state)


def places(state: str, job_ids: list[str]) -> dict[str, tuple[int, int, str]]:
    return turns.places(state, job_ids)


def runners(jobs: str) -> dict[str, tuple[int, str]]:
    return job_processes.runners(Path(jobs))


def usage(roots: dict[str, bool]) -> dict[int, tuple[float, int]]:
    return job_processes.usage({int(root): itself for root, itself in roots.items()})


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        as_now,
        tidy.forget_files,
        tidy.place,
        folder,
        free_bytes,
        move,
        of_jobs,
        of_pane,
        program,
        runners,
        usage,
        job_processes.alive,
        job_processes.below,
        job_processes.handlers,
        job_processes.look,
        job_processes.start_of,
        turns.cancel,
        turns.change,
        turns.change_group,
        places,
        turns.start,
        beside.asking,
        probes.answers,
        probes.listening,
        probes.usual_locale,
        processes.send,
        terminals.fronts,
        terminals.set_echo,
        terminals.terminal,
        terminals.unread,
    )
}


def plain(value: Any) -> Any:
    """The value as JSON can have it: of dataclasses their fields, of mappings with numbers as keys their names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value
