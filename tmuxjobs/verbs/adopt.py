"""`adopt`: a window that a person opened in our session becomes a job like others, as far as tmux allows."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tmuxjobs.answers import Adopted
from tmuxjobs.arguments import encoded
from tmuxjobs.contract import IN_OURS, LAUNCH_S
from tmuxjobs.errors import InvalidInput, NotStarted, StateError, TmuxError
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import AdoptedRecord, Caller
from tmuxjobs.store.index import ID, slug
from tmuxjobs.tmux.panes import Place
from tmuxjobs.verbs.execute import create, size_of
from tmuxjobs.verbs.waiter import Watched, run


def adopt(
    home: Host, caller: Caller, window: str | None = None, *, name: str | None = None, host: str | None = None
) -> Adopted:
    """Make a window of our session a job: recorded, waited for and ended like others.

    `window` is its index, name or id, or the id of a pane; by default the one we are in, or the only one that is no
    job. On another machine it is looked for in our session there. Raises InvalidInput, LimitReached, TmuxError,
    StateError, or NotStarted; after each the window is as it was.
    """
    encoded("name", name or "")
    return take(home.chosen(host or ""), caller, window, name)


def take(host: Host, caller: Caller, window: str | None, name: str | None) -> Adopted:
    place = chosen(host, window)
    process = host.machine.look(place.pid)
    if process is None:
        raise InvalidInput(f"The process of {described(place)} has ended, or is another user's: it cannot be adopted.")
    asked = {
        "command": shlex.join(process.argv).removeprefix("-"),
        "cwd": process.cwd,
        "shell": "",
        "timeout_s": None,
        "separate_stderr": False,
        **size_of(host, None),
        "notify": host.settings.notify,
        "env_names": (),
        "caller": caller,
        "adopted": AdoptedRecord(
            pid=place.pid,
            start=process.start,
            tty=place.tty,
            started_at=process.started_at,
            started_monotonic=host.machine.monotonic() - process.age_s,
        ),
    }
    called = Path(process.argv[0].lstrip("-")).name if place.auto_named else place.window_name
    job_id = create(host, slug(name or called), asked, {})
    begin(host, job_id, place)
    job = host.look(job_id)
    return Adopted(
        job_id=job_id,
        status=job.status,
        log_path=host.log_path(job.log),
        attach=host.attach_line(job),
        window=described(place),
        note=f"of its {place.panes} panes the active one was taken" if place.panes > 1 else "",
    )


def described(place: Place) -> str:
    return f"window {place.index}" + ("" if place.auto_named else f" '{place.window_name}'")


# Which window


def chosen(host: Host, window: str | None) -> Place:
    places = host.tmux.places()
    ours = [place for place in places if place.session == host.settings.session]
    if not ours:
        raise InvalidInput(f"There is no tmux session {host.settings.session}, so there is no window to adopt.")
    place = named(host, window, places) if window else here(host, ours) or only_one(host, ours)
    refuse_what_can_not_be(host, place)
    return place


def here(host: Host, ours: Sequence[Place]) -> Place | None:
    """The pane that we run in, if it is among these."""
    server = host.environ.get("TMUX", "").split(",")[1:2]
    pane = host.environ.get("TMUX_PANE")
    return next((place for place in ours if place.pane_id == pane and [str(place.server_pid)] == server), None)


def adoptable(host: Host) -> list[tuple[str, str]]:
    """(id, name) of each window of our session that is not a job."""
    ours = [place for place in host.tmux.places() if place.session == host.settings.session]
    return [(place.window_id, place.window_name) for place in free_of(host, ours)]


def free_of(host: Host, ours: Sequence[Place]) -> list[Place]:
    return [place for place in ours if place.active and not is_job(host, place) and not place.is_welcome]


def only_one(host: Host, ours: Sequence[Place]) -> Place:
    free = free_of(host, ours)
    if len(free) == 1:
        return free[0]
    if free:
        raise InvalidInput(f"Which window? {', '.join(map(described, free))} are no jobs; give an index or a name.")
    raise InvalidInput(
        f"There is no window to adopt: all of {host.settings.session} are jobs. Open one there, or bring one: "
        f"tmux move-window -t {host.settings.session}:"
    )


def named(host: Host, window: str, places: Sequence[Place]) -> Place:
    def found(places: Sequence[Place]) -> list[Place]:
        if window.startswith("%"):
            return [place for place in places if place.pane_id == window]
        names = [(place, (place.index, place.window_id, place.window_name)) for place in places if place.active]
        return [place for place, called in names if window in called]

    ours = [place for place in places if place.session == host.settings.session]
    match found(ours):
        case [one]:
            return one
        case []:
            pass
        case several:
            raise InvalidInput(
                f"'{window}' may be {' or '.join(f'{described(one)} ({one.window_id})' for one in several)}."
            )
    if elsewhere := found(places):
        raise InvalidInput(
            f"'{window}' is a window of session '{elsewhere[0].session}'; bring it over first: tmux move-window -s "
            f"{elsewhere[0].window_id} -t {host.settings.session}:"
        )
    windows = ", ".join(f"{place.index} {place.window_name}" for place in ours if place.active)
    raise InvalidInput(f"There is no window '{window}' in session {host.settings.session}; there are {windows}.")


def is_job(host: Host, place: Place) -> bool:
    """Whether it carries the mark of a job that still exists."""
    if not ID.fullmatch(place.job_id):
        return bool(place.job_id)  # of another program: it must not get into a command of tmux
    if place.root not in ("", host.tmux.root):
        return not place.over  # of another state directory
    with contextlib.suppress(StateError):  # damaged, and yet a job
        return host.store.look(place.job_id) is not None
    return True


def refuse_what_can_not_be(host: Host, place: Place) -> None:
    if is_job(host, place):
        raise InvalidInput(f"{described(place).capitalize()} is job '{place.job_id}' already.")
    if place.is_welcome:
        raise InvalidInput(f"{described(place).capitalize()} is the page with the jobs; open another to adopt.")
    if place.over:
        raise InvalidInput(f"The process of {described(place)} has ended; only one that runs can be adopted.")
    if place.piped:
        raise InvalidInput(
            f"The output of {described(place)} goes into a pipe already, and tmux has one for a pane; `tmux pipe-pane "
            f"-t {place.pane_id}` ends it."
        )


# The process beside it


def begin(host: Host, job_id: str, place: Place) -> None:
    """Start the adopter and wait until it records; on failure leave all as it was and raise."""
    around = {"TMUX": f"{place.socket},{place.server_pid},0", "TMUX_PANE": place.pane_id, IN_OURS: job_id}
    why = "another has adopted it meanwhile"
    claimed = False
    try:
        claimed = host.tmux.claim(place, job_id)
        if claimed:
            host.run_apart(host.unit().argv("adopter"), around, LAUNCH_S)
            why = run(Attachment(host, job_id))
            if not why:
                return
    except (TmuxError, StateError, OSError, subprocess.SubprocessError) as error:
        why = str(error)
    if claimed:
        host.tmux.give_back(place)
    with host.store.lock():
        host.store.remove(job_id)
    raise NotStarted(f"{described(place).capitalize()} was not adopted, and is as it was: {why.rstrip('.')}.")


class Attachment(Watched):
    """The start of an adopter: over, with an empty text, once it records; else with why it does not."""

    RECHECK_S = 0.1  # one that was killed before it wrote anything causes no event

    def __init__(self, host: Host, job_id: str) -> None:
        super().__init__(host.look(job_id), logs=False)
        self.host = host
        self.job_id = job_id
        self.deadline = time.monotonic() + LAUNCH_S

    def check(self) -> str | None:
        record = self.host.store.read(self.job_id)
        if record.run is not None and record.run.command_pid is not None:
            return ""
        if record.exit is not None:
            return record.exit.error or "no reason was given"
        if record.run is not None and not self.host.machine.alive(record.run.pid, record.run.start):
            return "the process that looks after it was killed"
        if time.monotonic() >= self.deadline:
            return f"the process that looks after it did not start within {LAUNCH_S:.0f} s"
        return None
