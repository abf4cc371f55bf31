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
from tmuxjobs.tmux.panes import AnyPane
from tmuxjobs.verbs.execute import create, size_of
from tmuxjobs.verbs.waiter import Watched, run


def adopt(
    home: Host, caller: Caller, window: str | None = None, *, name: str | None = None, host: str | None = None
) -> Adopted:
    """Make a window of our session a job: recorded, waited for and ended like others.

    `window` is its index, name or id, or the id of a pane; by default the one we are in, or the only one that is not
    a job. On another machine it is a window of our session there. Raises InvalidInput, LimitReached, TmuxError,
    StateError, or NotStarted; after each the window is as it was.
    """
    encoded("name", name or "")
    return take(home.chosen(host or ""), caller, window, name)


def take(host: Host, caller: Caller, window: str | None, name: str | None) -> Adopted:
    pane = chosen(host, window)
    process = host.machine.look(pane.pid)
    if process is None:
        raise InvalidInput(f"The process of {described(pane)} has ended, or is another user's: it cannot be adopted.")
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
            pid=pane.pid,
            start=process.start,
            tty=pane.tty,
            started_at=process.started_at,
            started_monotonic=host.machine.monotonic() - process.age_s,
        ),
    }
    called = Path(process.argv[0].lstrip("-")).name if pane.auto_named else pane.window_name
    job_id = create(host, slug(name or called), asked, {})
    begin(host, job_id, pane)
    job = host.look(job_id)
    return Adopted(
        job_id=job_id,
        status=job.status,
        log_path=host.log_path(job.log),
        attach=host.attach_line(job),
        window=described(pane),
        note=f"of its {pane.panes} panes the active one was taken" if pane.panes > 1 else "",
    )


def described(pane: AnyPane) -> str:
    return f"window {pane.index}" + ("" if pane.auto_named else f" '{pane.window_name}'")


# Which window


def chosen(host: Host, window: str | None) -> AnyPane:
    panes = host.tmux.every_pane()
    ours = [pane for pane in panes if pane.session == host.settings.session]
    if not ours:
        raise InvalidInput(f"There is no tmux session {host.settings.session}, so there is no window to adopt.")
    pane = named(host, window, panes) if window else here(host, ours) or only_one(host, ours)
    refuse_what_can_not_be(host, pane)
    return pane


def here(host: Host, ours: Sequence[AnyPane]) -> AnyPane | None:
    """The pane that we run in, if it is one of these."""
    server = host.environ.get("TMUX", "").split(",")[1:2]
    own = host.environ.get("TMUX_PANE")
    return next((pane for pane in ours if pane.pane_id == own and [str(pane.server_pid)] == server), None)


def adoptable(host: Host) -> list[tuple[str, str]]:
    """(id, name) of each window of our session that is not a job."""
    ours = [pane for pane in host.tmux.every_pane() if pane.session == host.settings.session]
    return [(pane.window_id, pane.window_name) for pane in free_of(host, ours)]


def free_of(host: Host, ours: Sequence[AnyPane]) -> list[AnyPane]:
    return [pane for pane in ours if pane.active and not is_job(host, pane) and not pane.is_welcome]


def only_one(host: Host, ours: Sequence[AnyPane]) -> AnyPane:
    free = free_of(host, ours)
    if len(free) == 1:
        return free[0]
    if free:
        raise InvalidInput(f"Which window? {', '.join(map(described, free))} are not jobs; give an index or a name.")
    raise InvalidInput(
        f"There is no window to adopt: all of {host.settings.session} are jobs. Open one there, or bring one: "
        f"tmux move-window -t {host.settings.session}:"
    )


def named(host: Host, window: str, panes: Sequence[AnyPane]) -> AnyPane:
    def found(panes: Sequence[AnyPane]) -> list[AnyPane]:
        if window.startswith("%"):
            return [pane for pane in panes if pane.pane_id == window]
        names = [(pane, (pane.index, pane.window_id, pane.window_name)) for pane in panes if pane.active]
        return [pane for pane, called in names if window in called]

    ours = [pane for pane in panes if pane.session == host.settings.session]
    match found(ours):
        case [one]:
            return one
        case []:
            pass
        case several:
            raise InvalidInput(
                f"'{window}' may be {' or '.join(f'{described(one)} ({one.window_id})' for one in several)}."
            )
    if elsewhere := found(panes):
        raise InvalidInput(
            f"'{window}' is a window of session '{elsewhere[0].session}'; bring it over first: tmux move-window -s "
            f"{elsewhere[0].window_id} -t {host.settings.session}:"
        )
    windows = ", ".join(f"{pane.index} {pane.window_name}" for pane in ours if pane.active)
    raise InvalidInput(f"There is no window '{window}' in session {host.settings.session}; there are {windows}.")


def is_job(host: Host, pane: AnyPane) -> bool:
    """Whether it carries the mark of a job that still exists."""
    if not ID.fullmatch(pane.job_id):
        return bool(pane.job_id)  # another program's: it must not get into a tmux command
    if pane.root not in ("", host.tmux.root):
        return not pane.over  # a job of another state directory
    with contextlib.suppress(StateError):  # a damaged record is still a job
        return host.store.look(pane.job_id) is not None
    return True


def refuse_what_can_not_be(host: Host, pane: AnyPane) -> None:
    if is_job(host, pane):
        raise InvalidInput(f"{described(pane).capitalize()} is job '{pane.job_id}' already.")
    if pane.is_welcome:
        raise InvalidInput(f"{described(pane).capitalize()} is the page with the jobs; open another to adopt.")
    if pane.over:
        raise InvalidInput(f"The process of {described(pane)} has ended; only one that runs can be adopted.")
    if pane.piped:
        raise InvalidInput(
            f"The output of {described(pane)} goes into a pipe already, and tmux has one for a pane; `tmux pipe-pane "
            f"-t {pane.pane_id}` ends it."
        )


# The process beside it


def begin(host: Host, job_id: str, pane: AnyPane) -> None:
    """Start the adopter and wait until it records; on failure leave everything as it was and raise."""
    around = {"TMUX": f"{pane.socket},{pane.server_pid},0", "TMUX_PANE": pane.pane_id, IN_OURS: job_id}
    why = "another has adopted it meanwhile"
    claimed = False
    try:
        claimed = host.tmux.claim(pane, job_id)
        if claimed:
            host.run_apart(host.unit().argv("adopter"), around, LAUNCH_S)
            why = run(Attachment(host, job_id))
            if not why:
                return
    except (TmuxError, StateError, OSError, subprocess.SubprocessError) as error:
        why = str(error)
    if claimed:
        host.tmux.give_back(pane)
    with host.store.lock():
        host.store.remove(job_id)
    raise NotStarted(f"{described(pane).capitalize()} was not adopted, and is as it was: {why.rstrip('.')}.")


class Attachment(Watched):
    """A wait for an adopter to start: answers with an empty text once it records, else with why it does not."""

    RECHECK_S = 0.1  # an adopter killed before it wrote anything causes no event

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
