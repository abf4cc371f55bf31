"""`kill`: ask the runner to end the process tree; if no runner is left, end what lives of it. Or only send a signal.

`pause` and `resume` stop and continue the whole tree; the time between does not count toward the timeout.
"""

from __future__ import annotations

import contextlib
import os
import signal as signals
import time
from collections.abc import Callable

from tmuxjobs.answers import Kill
from tmuxjobs.arguments import checked_seconds
from tmuxjobs.errors import InvalidInput, JobEnded, JobNotFound, StateError, TmuxError
from tmuxjobs.hosts.local import Host
from tmuxjobs.job_answers import Edited, name_processes
from tmuxjobs.models import ProcessRecord
from tmuxjobs.states import Job
from tmuxjobs.verbs import events, queue, slurm
from tmuxjobs.verbs.waiter import Watched, run

GRACE_S = 5.0
GRACE_MAX_S = 30.0
ENDING_S = 15.0
KILL_S = 5.0
ENDING = {"SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGABRT", "SIGKILL"}
OF_TERMINALS = ("SIGTSTP", "SIGTTIN", "SIGTTOU")
"""Signals that stop a job like Ctrl-Z; its runner then continues it, as no shell above it could."""


def kill(host: Host, job_id: str, *, signal: str = "TERM", grace: float = GRACE_S, end: bool = True) -> Kill:
    """End the job's whole tree: the signal, then after `grace` seconds (0 to 30) SIGKILL until nothing lives.

    With `end` false the signal is only sent, and the job lives: STOP and CONT to all of it, any other to the programs
    that handle it. Raises InvalidInput where that would end one, and, with `end`, for a signal that does not end a job.
    """
    name = signal_name(signal)
    if end and name not in ENDING:
        raise InvalidInput(
            f"{name} does not end a job. Nothing was sent; with end=false (`--no-end`) it is sent, and the job lives."
        )
    grace = max(0.0, min(checked_seconds("grace", grace, least=0.0), GRACE_MAX_S))
    try:
        job = host.look(job_id)
    except JobNotFound as error:
        runner = host.machine.runners(host.store.jobs).get(job_id)
        if runner is None:
            return Kill(job_id=job_id, status="not_found", detail=str(error).removesuffix("."))
        return end_removed(host, job_id, *runner)
    if not end:
        return send(host, job, name)
    if queue.cancel(host, job):
        queue.move(host)
        return Kill(job_id=job_id, status="killed", detail=host.look(job_id).detail)
    if job.spec.detached and job.running and job.run is not None and not host.lives(job.record):
        return slurm.end(host, job)
    if job.running:
        return stop(host, job, name, grace)
    survivors, ended = end_processes(host, lambda: leftovers(host, job), name, grace)
    doubt = host.left(job).doubt
    words = f"; ended {ended} of its processes that still lived" if ended or survivors else ""
    if job.spec.slurm and (cancelled := slurm.cancel(host, job)):
        words, ended = f"{words}; {cancelled}", 1
    status = "killed" if ended and job.lost else "already_terminated"
    detail = job.detail + words
    return Kill.model_validate(
        {"job_id": job_id, "status": status, "detail": detail, "survivors": survivors, "not_touched": doubt}
    )


def send(host: Host, job: Job, name: str) -> Kill:
    """Send the signal to the processes that it is meant for, and end nothing."""
    root = job.record.root
    if not job.runs or root is None:
        raise JobEnded(f"Job '{job.id}' takes no signal: {job.detail}.")
    number, itself = signals.Signals[name], job.spec.adopted is not None
    if name in ("SIGSTOP", "SIGCONT") and by_runner(host, job, paused=name == "SIGSTOP"):
        note_pause(host, job, paused=name == "SIGSTOP")
        return Kill(job_id=job.id, status="signalled", detail=f"{name} sent to all of it; the job was not ended")
    if job.spec.slurm and name != "SIGKILL":
        slurm.send(host, job, number)
        return Kill(job_id=job.id, status="signalled", detail=f"{name} sent by Slurm; the job was not ended")
    if name in ("SIGSTOP", "SIGCONT"):
        meant = host.machine.below(root, itself=itself)
    elif name in ("SIGKILL", *OF_TERMINALS):
        instead = "leave out end=false" if name == "SIGKILL" else "STOP stops the job and CONT continues it"
        raise InvalidInput(f"{name} cannot be sent without ending the job; {instead}. Nothing was sent.")
    else:
        meant = host.machine.handlers(root, number, itself=itself)
    sent = tuple(one for one in meant if host.machine.send(one.pid, one.start or "", number))
    if not sent:
        raise InvalidInput(
            f"No program of job '{job.id}' handles {name}, so nothing was sent: the signal would end it or do nothing. "
            "Leave out end=false to end the job."
        )
    return Kill(
        job_id=job.id, status="signalled", detail=f"{name} sent to {name_processes(sent)}; the job was not ended"
    )


def stop(host: Host, job: Job, signal: str, grace: float) -> Kill:
    """Ask the runner, the one place that kills, and wait for its record."""
    job_id = job.id
    host.store.request_stop(job_id, signal=signal, grace_s=grace)
    job = run(Ending(host, job, grace + ENDING_S))
    if job.exit is None:
        return kill(host, job_id, signal=signal, grace=grace)
    host.store.withdraw_stop(job_id)
    return Kill(
        job_id=job_id,
        status="killed" if job.exit.reason not in ("exit", "signal") else "already_terminated",
        detail=job.detail,
        survivors=job.exit.survivors,
    )


class Ending(Watched):
    """A wait for a job that was asked to end: over once its runner has recorded that or is gone. Signals the runner."""

    def __init__(self, host: Host, job: Job, bound_s: float) -> None:
        super().__init__(job, logs=False)
        self.host = host
        self.job_id = job.id
        self.bound_s = bound_s
        self.deadline = time.monotonic() + bound_s
        self.signalled = False

    def check(self) -> Job | None:
        job = self.host.look(self.job_id)
        if job.exit is not None or job.lost:
            return job
        if job.run is None and queue.cancel(self.host, job):  # the process that began to start it was killed
            return self.host.look(self.job_id)
        if not self.signalled and (job.runs or job.awaits_approval) and job.run is not None:
            self.signalled = True
            self.host.machine.send(job.run.pid, job.run.start, signals.SIGUSR1)
        if time.monotonic() >= self.deadline:
            raise TmuxError(
                f"Job '{job.id}' was asked to end and has not after {self.bound_s:.0f} s: tmux may hang; "
                "`status` says when it has ended."
            )
        return None


def end_removed(host: Host, job_id: str, runner: int, start: str) -> Kill:
    """End a job whose folder was removed while it ran: its runner knows what belongs to it."""
    bound = GRACE_S + ENDING_S
    deadline = time.monotonic() + bound
    host.machine.send(runner, start, signals.SIGTERM)
    while host.machine.alive(runner, start):
        if time.monotonic() > deadline:
            raise TmuxError(f"Job '{job_id}' was asked to end and still runs after {bound:.0f} s: tmux may hang.")
        time.sleep(0.01)
    pane = host.tmux.panes().get(job_id)
    if pane is not None and pane.dead:
        host.tmux.close(pane)
    return Kill(job_id=job_id, status="killed", detail="ended; nothing else is known, as its folder was removed")


def leftovers(host: Host, job: Job) -> tuple[ProcessRecord, ...]:
    """The processes of an ended job that still live."""
    if job.exit is None:
        return host.left(job).ours
    return host.alive_of(job, job.exit.left_running + job.exit.survivors)


def end_processes(
    host: Host, look: Callable[[], tuple[ProcessRecord, ...]], signal: str, grace: float
) -> tuple[tuple[ProcessRecord, ...], int]:
    """Signal what `look` finds, then send SIGKILL, repeatedly as they may fork; the survivors, and how many ended."""
    met: set[ProcessRecord] = set()
    for number, bound in ((signals.Signals[signal], grace), (signals.SIGKILL, KILL_S)):
        deadline = time.monotonic() + bound
        signalled: set[ProcessRecord] = set()
        # Twice: a process that is starting a program has no environment for a moment, so one search may miss it.
        while living := look() or look():
            for one in set(living) - signalled:
                if one.start:
                    host.machine.send(one.pid, one.start, number)
                signalled.add(one)
            met |= signalled
            if time.monotonic() >= deadline:
                break
            time.sleep(0.02)
    survivors = look()
    return survivors, len({(one.pid, one.start) for one in met} - {(one.pid, one.start) for one in survivors})


def signal_name(name: str) -> str:
    full = name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"
    if full not in signals.Signals.__members__:
        raise InvalidInput(
            f"'{name}' is not a signal; use TERM, INT, HUP, KILL, or with end=false USR1, STOP, CONT, ..."
        )
    return full


PAUSE_S = 10.0


def pause(host: Host, job_id: str) -> Edited:
    """Stop a running job with all that it started, until `resume`. Raises JobNotFound, InvalidInput, JobEnded."""
    return set_paused(host, job_id, paused=True)


def resume(host: Host, job_id: str) -> Edited:
    """Continue a paused job, no matter who paused it. Raises as `pause` does."""
    return set_paused(host, job_id, paused=False)


def set_paused(host: Host, job_id: str, *, paused: bool) -> Edited:
    job = host.look(job_id)
    if job.queued:
        raise InvalidInput(f"Job '{job_id}' waits for its turn: pause its group, or `kill` cancels it.")
    if job.status == "queued":
        raise InvalidInput(f"Job '{job_id}' is {job.detail}: nothing of it runs, so nothing can be paused.")
    if not job.runs or job.record.root is None:
        raise JobEnded(f"Job '{job_id}' does not run: {job.detail}.")
    before = job
    if not by_runner(host, job, paused=paused):
        number = signals.SIGSTOP if paused else signals.SIGCONT
        for one in host.machine.below(job.record.root, itself=job.spec.adopted is not None):
            host.machine.send(one.pid, one.start or "", number)
    job = host.look(job_id)
    note_pause(host, before, paused=paused)
    return Edited(job_id=job_id, status=job.status, detail=job.detail)


def note_pause(host: Host, before: Job, *, paused: bool) -> None:
    if (before.status == "paused") != paused:
        with contextlib.suppress(StateError):  # a full disk: it is paused all the same
            events.note(host, "pause" if paused else "resume", before.spec)


def by_runner(host: Host, job: Job, *, paused: bool) -> bool:
    """Have the job's runner do it, and wait until it has; False if it cannot (an older one). Raises TmuxError."""
    if job.run is None or job.run.paused is None or job.spec.adopted is not None:
        return False
    host.store.request_stop(job.id, signal="SIGSTOP" if paused else "SIGCONT", grace_s=0.0)
    run(Pausing(host, job, paused=paused))
    host.store.withdraw_stop(job.id)
    return True


class Pausing(Watched):
    """A wait until the runner has recorded that the job is paused, or goes on, or the job has ended."""

    def __init__(self, host: Host, job: Job, *, paused: bool) -> None:
        super().__init__(job, logs=False)
        self.host = host
        self.job = job
        self.paused = paused
        self.asked = False
        self.deadline = time.monotonic() + PAUSE_S

    def check(self) -> Job | None:
        job = self.host.look(self.job.id)
        if not self.asked and job.run is not None:
            self.asked = True
            self.host.machine.send(job.run.pid, job.run.start, signals.SIGUSR1)
            return None
        if not job.runs or (
            job.run and job.run.paused == self.paused and not os.path.lexists(job.folder / "stop.json")
        ):
            return job
        if time.monotonic() >= self.deadline:
            raise TmuxError(
                f"The runner of job '{job.id}' has not answered for {PAUSE_S:.0f} s; `status` shows its state."
            )
        return None
