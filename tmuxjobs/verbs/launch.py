"""Opening a job's window, waiting for its start, and removing what is left of a job that did not start."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Literal

from tmuxjobs.contract import FIRST, LAUNCH_S, recorder_line
from tmuxjobs.errors import TERMINALS, HostError, JobNotFound, NotStarted, TmuxError
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Record
from tmuxjobs.states import Job, Starting
from tmuxjobs.system import slurm
from tmuxjobs.tmux.session import Opening
from tmuxjobs.verbs import kill, prune
from tmuxjobs.verbs.waiter import Watched, run

ASK_S = 1.0
"""How long tmux may take to answer before it is checked whether it answers at all."""
CLOSE_S = 5.0
FREED_S = 1.0
"""Seconds for a closed window's terminal to become free: its process must end first."""
REOPEN = 3
"""How many times a window is opened again because the session went away."""


def launch(host: Host, job_id: str, *, opened: bool = False) -> None:
    """Open the window and wait until the command runs or has run; on failure leave nothing and raise.

    With `opened` it is enough that tmux has opened the window; a later failure ends the job.
    """
    try:
        why = run(Launch(host, job_id, opened=opened))
    except HostError as error:  # how far it came is not known
        raise HostError(
            f"{error} Job '{job_id}' was being started there: once the host is reached `status {job_id}` tells whether "
            "it runs."
        ) from None
    except TmuxError:  # tmux does not answer, or the session went away and cannot be made again
        with host.store.lock():
            host.store.remove(job_id)
        raise  # a window that opens after all closes itself, as it has no job
    if why:
        discard_failed_start(host, job_id)
        raise NotStarted(f"The command did not start: {why.rstrip('.')}.")


class Launch(Watched):
    """A wait for a start: answers with an empty text once the command runs, has run or is held back, else with why not.

    While the window cannot get a terminal, the oldest finished windows are closed, one by one.
    """

    RECHECK_S = 0.1  # a runner killed before it wrote anything causes no event

    def __init__(self, host: Host, job_id: str, *, opened: bool) -> None:
        job = host.look(job_id)
        super().__init__(job, logs=False)
        self.host = host
        self.job_id = job_id
        self.enough = opened
        self.spec = job.spec
        self.deadline = time.monotonic() + LAUNCH_S
        self.opening: Opening | None = None
        self.reopened = 0
        self.freed_by = 0.0
        self.ask_at = time.monotonic() + ASK_S
        self.look_at = self.ask_at if host.name else 0.0
        """When to check whether the window's process lives: on another host that takes a round trip."""

    def check(self) -> str | None:
        """Open the window at the first check, and again when the session went away meanwhile."""
        opening = self.opening = self.opening or self.open()
        record = self.host.store.read(self.job_id)
        if record.exit is not None and record.exit.reason == "not-started":
            return record.exit.error or "its runner did not say why"
        if begun(self.host, record) or (self.enough and self.is_open(record, opening.pid)):
            return ""
        if record.run is None and opening.session_gone and self.reopened < REOPEN:
            self.reopened += 1
            self.host.ensure_session()
            self.opening = self.open()
        elif record.run is None and isinstance(opening.error, HostError):
            raise opening.error
        elif record.run is None and opening.error is not None:
            if TERMINALS not in str(opening.error):
                return str(opening.error)
            if time.monotonic() >= self.freed_by:
                if not prune.close_oldest_window(self.host):
                    return str(opening.error)
                self.freed_by = time.monotonic() + FREED_S
            self.opening = self.open()
        elif record.run is None and opening.unanswered and time.monotonic() >= self.ask_at:
            self.ask_at = math.inf
            self.host.tmux.server_pid()  # raises TmuxError when tmux is stopped; a person's hook delays no other call
        pid = record.run.pid if record.run is not None else opening.pid
        if pid is not None and time.monotonic() >= self.look_at and self.host.machine.start_of(pid) is None:
            # It may have ended since the record was read.
            ended = has_run(self.host.store.read(self.job_id))
            return self.check() if ended else "its window was closed or its runner killed before it ran"
        if time.monotonic() >= self.deadline:
            return f"its window did not open within {LAUNCH_S:.0f} s"
        return None

    def is_open(self, record: Record, pid: int | None) -> bool:
        """Whether its window is open; from now on each look at the job shows if the process in it ends too early."""
        if pid is None or record.run is not None or self.host.name:
            return pid is not None
        start = self.host.machine.start_of(pid)
        if start is not None:
            self.host.store.note_opened(self.job_id, pid, start)
        return start is not None

    def open(self) -> Opening:
        """Open the window and start its recorder at the same time; a job that awaits approval has no recorder yet."""
        if (opening := self.host.opening(self.job_id, self.wake)) is not None:
            return opening
        unit, spec, line = self.host.unit(), self.spec, None
        if not spec.ask_why and not spec.detached:
            facts = spec.nonce, str(spec.max_output_bytes), "1" if spec.separate_stderr else "0"
            fifo = str(self.host.store.await_recorder(self.job_id))
            line = recorder_line(unit.argv("recorder", *facts, FIRST), self.job_id, fifo)
        return self.host.tmux.open_window(self.job_id, unit.argv("runner"), line=line, answered=self.wake)


class Start(Watched):
    """A wait for a start by any process: over once the command runs, has run, is held back or cannot run any more."""

    def __init__(self, host: Host, job: Job) -> None:
        super().__init__(job, logs=False)
        self.host = host
        self.job_id = job.id
        self.deadline = time.monotonic() + LAUNCH_S

    def check(self) -> Literal[True] | None:
        job = self.host.look(self.job_id)
        over = begun(self.host, job.record) or not is_starting(job) or time.monotonic() >= self.deadline
        return True if over else None


def await_start(host: Host, job_id: str) -> None:
    """Wait until a job that is just starting has started, LAUNCH_S at most; not for one that is gone."""
    with contextlib.suppress(JobNotFound):
        job = host.look(job_id)
        if is_starting(job) and not begun(host, job.record):
            run(Start(host, job))


def is_starting(job: Job) -> bool:
    """Whether its runner does not yet run its command."""
    return type(job.state) is Starting or (job.runs and job.run is not None and job.run.command_pid is None)


def begun(host: Host, record: Record) -> bool:
    """Whether the command runs, has run or is held back."""
    asked = record.run is not None and record.run.approved == ""
    return asked or has_run(record) or host.store.is_held_back(record.id)


def has_run(record: Record) -> bool:
    """Whether the command runs or has run."""
    return record.exit is not None or (record.run is not None and record.run.command_pid is not None)


def discard_failed_start(host: Host, job_id: str) -> None:
    """Remove everything of a job that did not start; a runner killed at its fork may have left the command behind."""
    record = host.store.look(job_id)
    if record is not None:
        kill.end_processes(host, lambda: host.left(host.settle(record)).ours, "SIGKILL", 0.0)
        if record.job.detached and record.job.slurm:  # its runner may have been killed after it had handed it to Slurm
            with contextlib.suppress(slurm.Silent):
                slurm.cancel(record.job.slurm[0], job_id, host.environ)
    with host.store.lock():
        host.store.remove(job_id)
    deadline = time.monotonic() + CLOSE_S
    with contextlib.suppress(TmuxError):  # tmux ended or hangs, which is why the job did not start
        pane = host.tmux.panes().get(job_id)
        while pane is not None and not pane.dead and time.monotonic() < deadline:
            time.sleep(0.01)  # its process has written its record and is about to end
            pane = host.tmux.panes().get(job_id)
        if pane is not None:
            host.tmux.close(pane)


def withdraw(host: Host, job_id: str) -> None:
    """Undo a job whose window is open, and leave nothing of it."""
    job = host.look(job_id)
    if job.running:
        kill.stop(host, job, "SIGTERM", 0.0)
    discard_failed_start(host, job_id)
