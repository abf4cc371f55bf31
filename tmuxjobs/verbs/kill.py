"""`kill`: ask the runner to end the tree; where there is no runner any more, end what lives of it."""

from __future__ import annotations

import signal as signals
import time
from collections.abc import Callable, Sequence

from tmuxjobs.answers import Kill
from tmuxjobs.arguments import checked_seconds
from tmuxjobs.errors import InvalidInput, JobNotFound, TmuxError
from tmuxjobs.hosts import job_processes
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Job, ProcessRecord
from tmuxjobs.system import processes
from tmuxjobs.verbs.waiter import Watched, run

GRACE_S = 5.0
GRACE_MAX_S = 30.0
ENDING_S = 15.0
KILL_S = 5.0


def kill(host: Host, job_id: str, *, signal: str = "TERM", grace: float = GRACE_S) -> Kill:
    """End the job's whole tree: the signal, then after `grace` seconds (0 to 30) SIGKILL until nothing lives."""
    name = signal_name(signal)
    grace = max(0.0, min(checked_seconds("grace", grace, least=0.0), GRACE_MAX_S))
    try:
        job = host.look(job_id)
    except JobNotFound as error:
        runner = job_processes.runners(host.store.jobs).get(job_id)
        if runner is None:
            return Kill(job_id=job_id, status="not_found", detail=str(error).removesuffix("."))
        return end_removed(host, job_id, *runner)
    if job.running:
        return stop(host, job, name, grace)
    survivors, ended = end_processes(lambda: leftovers(host, job), name, grace)
    doubt = host.left(job).doubt
    words = f"; ended {ended} of its processes that still lived" if ended or survivors else ""
    status = "killed" if ended and job.lost else "already_terminated"
    detail = job.detail + words
    return Kill.model_validate(
        {"job_id": job_id, "status": status, "detail": detail, "survivors": survivors, "not_touched": doubt}
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
    """A job that was asked to end: over once its runner has written how, or is gone. Signals its runner."""

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
        if not self.signalled and job.runs and job.run is not None:
            self.signalled = True
            processes.send(job.run.pid, job.run.start, signals.SIGUSR1)
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
    processes.send(runner, start, signals.SIGTERM)
    while job_processes.alive(runner, start):
        if time.monotonic() > deadline:
            raise TmuxError(f"Job '{job_id}' was asked to end and still runs after {bound:.0f} s: tmux may hang.")
        time.sleep(0.01)
    pane = host.tmux.panes().get(job_id)
    if pane is not None and pane.dead:
        host.tmux.close(pane)
    return Kill(job_id=job_id, status="killed", detail="ended; nothing is known of it, for its folder was removed")


def alive_of(host: Host, job: Job, named: Sequence[ProcessRecord]) -> tuple[ProcessRecord, ...]:
    """Those that still live, of processes that a record of the job names."""
    if not host.is_here(job.run):
        return ()
    return tuple(one for one in named if one.start and job_processes.alive(one.pid, one.start))


def leftovers(host: Host, job: Job) -> tuple[ProcessRecord, ...]:
    """What lives of a job that has ended."""
    if job.exit is None:
        return host.left(job).ours
    return alive_of(host, job, job.exit.left_running + job.exit.survivors)


def end_processes(
    look: Callable[[], tuple[ProcessRecord, ...]], signal: str, grace: float
) -> tuple[tuple[ProcessRecord, ...], int]:
    """Signal them, then SIGKILL, whoever a look shows: they fork meanwhile. Survivors, and how many ended."""
    met: set[ProcessRecord] = set()
    for number, bound in ((signals.Signals[signal], grace), (signals.SIGKILL, KILL_S)):
        deadline = time.monotonic() + bound
        signalled: set[ProcessRecord] = set()
        # Twice: a process that is starting a program has no environment for a moment, so one look may miss it.
        while living := look() or look():
            for one in set(living) - signalled:
                if one.start:
                    processes.send(one.pid, one.start, number)
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
        raise InvalidInput(f"'{name}' is not a signal; use TERM, INT, HUP, KILL, ...")
    return full
