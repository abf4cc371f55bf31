"""`hold` and `release`: a person takes a job over; and what is known of the people around a job.

A hold is a mark on the job's window, `since:,client,client,`, so it ends with the window. It is over when those clients
have detached, or nobody attached to the session has pressed a key for `hold_for`: derived at each check, never timed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tmuxjobs import files
from tmuxjobs.answers import HoldAnswer
from tmuxjobs.errors import Held, JobEnded, JobNotFound, StateError, TmuxError
from tmuxjobs.hosts.local import Host
from tmuxjobs.outcome import seconds
from tmuxjobs.states import Job
from tmuxjobs.store import disk
from tmuxjobs.tmux.panes import Client
from tmuxjobs.verbs import events

TMUX_S = 2.0
"""A tmux that hangs must not hold up `status`."""


@dataclass(frozen=True)
class People:
    """Who is at a job: `watchers` see its window now; one of them last pressed a key `typed_ago` seconds ago."""

    watchers: int = 0
    typed_ago: float | None = None
    held_since: float | None = None


def hold(host: Host, job_id: str, *, toggle: bool = False) -> HoldAnswer:
    """Keep the agent from typing into a running job and from ending it; with `toggle`, release one that is held.

    Raises JobNotFound, JobEnded, TmuxError.
    """
    job = host.look(job_id)
    if not job.running:
        raise _ended(job)
    around = host.tmux.around(job_id)
    if around is None:
        raise TmuxError(f"Job '{job_id}' has no window on this tmux server (socket {host.settings.socket_name}).")
    if toggle and _held_since(host, around.held, around.clients) is not None:
        return release(host, job_id)
    pids = [client.pid for client in _of_session(host, around.clients)]
    since = int(time.time() + host.ahead_s)
    bound = f"{host.settings.hold_for:.0f}"
    mark = f"{since}:" + "".join(f",{pid}" for pid in pids) + "," * bool(pids)
    _note(host, job_id, needed=not pids)
    host.tmux.mark_window(around.pane_id, {"@tmuxjobs_held": mark, "@tmuxjobs_held_for": bound})
    job = host.look(job_id)
    if not job.running:  # it ended meanwhile, and what is left of a job had been removed by then
        host.tmux.mark_window(around.pane_id, {"@tmuxjobs_held": None})
        _forget(host, job_id)
        raise _ended(job)
    if _held_since(host, around.held, around.clients) is None:
        with contextlib.suppress(StateError):  # it is held all the same
            events.note(host, "hold", job.spec)
    ends = ", detach" if pids else ""
    idle = seconds(host.settings.hold_for, coarse=True)
    return HoldAnswer(job_id=job_id, held=True, detail=f"yours until you release it{ends} or idle for {idle}")


def _ended(job: Job) -> JobEnded:
    return JobEnded(f"{job.id} has ended ({job.status}): there is nothing to hold.")


def release(host: Host, job_id: str) -> HoldAnswer:
    """Give a held job back to the agent. Raises JobNotFound."""
    record = host.store.read(job_id)
    around = host.tmux.around(job_id)
    held = around is not None and _held_since(host, around.held, around.clients) is not None
    if around is not None and around.held:
        host.tmux.mark_window(around.pane_id, {"@tmuxjobs_held": None})
        _forget(host, job_id)
        with contextlib.suppress(StateError):  # it is released all the same
            events.note(host, "release", record.job)
    return HoldAnswer(job_id=job_id, held=False, detail="released" if held else "it was not held")


def people(host: Host, job_id: str) -> People:
    """The people at the job now; nobody when tmux does not answer."""
    if not _may_be_at(host, job_id):
        return People()
    try:
        around = host.tmux.around(job_id, timeout=TMUX_S)
    except TmuxError:
        return People()
    if around is None:
        return People()
    seen = [client for client in around.clients if client.window_id == around.window_id]
    typed = max((client.active_at for client in seen), default=None)
    return People(
        watchers=len(seen),
        typed_ago=None if typed is None else max(0.0, time.time() + host.ahead_s - typed),
        held_since=_held_since(host, around.held, around.clients),
    )


def held(host: Host, job_ids: Sequence[str]) -> set[str]:
    """Which of the jobs a person holds, as far as tmux answers."""
    found = set()
    with contextlib.suppress(TmuxError):
        for job_id in filter(functools.partial(_may_be_at, host), job_ids):
            around = host.tmux.around(job_id, timeout=TMUX_S)
            if around is not None and _held_since(host, around.held, around.clients) is not None:
                found.add(job_id)
    return found


def refuse_if_held(host: Host, job_id: str) -> None:
    """Raises Held if a person holds the job; for an agent's verbs that would disturb them."""
    if not _may_be_at(host, job_id):
        return
    around = host.tmux.around(job_id)
    if around is None or not around.held:
        return
    since = _held_since(host, around.held, around.clients)
    with contextlib.suppress(JobNotFound):
        since = since if host.look(job_id).running else None
    if since is not None:
        since -= host.ahead_s
        raise Held(job_id, since=datetime.fromtimestamp(since, UTC), for_s=time.time() - since)
    host.tmux.mark_window(around.pane_id, {"@tmuxjobs_held": None})
    _forget(host, job_id)
    with contextlib.suppress(StateError, JobNotFound):  # it lapsed all the same
        events.note(host, "release", host.store.read(job_id).job)


def _may_be_at(host: Host, job_id: str) -> bool:
    """Whether a person may be at the job or hold it: with nobody attached and no hold, tmux is not asked."""
    return host.tmux.has_clients() or disk.is_there(str(host.store.folder(job_id)), disk.HELD)


def _note(host: Host, job_id: str, *, needed: bool) -> None:
    """Make every process ask tmux about the hold. With nobody attached this is `needed`, and raises StateError."""
    if host.name:  # its tmux is asked each time
        return
    path = host.store.folder(job_id) / disk.HELD
    try:
        os.close(files.opened(path, os.O_WRONLY | os.O_CREAT))
    except (OSError, files.Odd) as error:
        if needed:
            raise StateError(f"The job cannot be held: '{path}' cannot be made: {files.why(error)}.") from None


def _forget(host: Host, job_id: str) -> None:
    disk.unlink(host.store.folder(job_id) / disk.HELD)


def _held_since(host: Host, mark: str, clients: tuple[Client, ...]) -> float | None:
    """Seconds since the epoch; None when the job is not held, or not any more."""
    text, _, pids = mark.partition(":")
    if not text.isdigit():
        return None
    here = _of_session(host, clients)
    if pids and not {str(client.pid) for client in here} & set(pids.split(",")):
        return None
    active = max([float(text), *(client.active_at for client in here)])
    return float(text) if time.time() + host.ahead_s - active < host.settings.hold_for else None


def _of_session(host: Host, clients: tuple[Client, ...]) -> list[Client]:
    return [client for client in clients if client.session == host.settings.session]
