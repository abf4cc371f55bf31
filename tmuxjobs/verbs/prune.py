"""`prune`: what goes of finished jobs and their windows, and what stays."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from tmuxjobs.errors import LimitReached, StateError, apart, raised
from tmuxjobs.hosts import job_processes
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import JobSpec
from tmuxjobs.store import disk, units
from tmuxjobs.tmux.panes import Pane
from tmuxjobs.verbs import events

RECORDS_BYTES = 128 << 10


def prune(host: Host, faults: list[str] | None = None) -> list[str]:
    """Remove finished jobs beyond the configured age and count, and their windows; the ids that went.

    A job with a fault stays and is named in *faults*; without that list the fault is raised after all else is done.
    """
    if faults is None:
        return raised(lambda faults: prune(host, faults))
    events.journal(host)
    lost = ended_unseen(host, faults)
    ages_of(host, set(), [])  # reads what is not known yet, which may take long
    windows = {name: pane for name, pane in host.tmux.panes().items() if is_ours(host, pane)}
    with host.store.lock():
        host.store.complete_index(anew=True)
        ages = sorted(ages_of(host, lost, faults).items(), key=lambda item: item[1])
        limit = host.settings.keep_jobs_for
        old = [name for place, (name, age) in enumerate(ages) if place >= host.settings.keep_jobs or age >= limit]
        remove(host, old)
        for path in (*host.store.half_made(), *unused_units(host)):
            host.store.discard(path)
        if host.settings.max_total_size is not None:
            old += make_room(host, 0, lost, faults)
    for name in old:
        if name in windows:
            host.tmux.close(windows[name])
    prune_windows(host)
    return old


def unused_units(host: Host) -> list[Path]:
    """Copies of the pane's programs that no job's record names any more; call it under the lock."""
    old = units.unused(host.store.pane)
    try:
        records = [host.store.look(name) for name in (host.store.ids() if old else ())]
    except StateError:
        return []  # one that cannot be read may be of a job that runs
    named = {record.job.pane for record in records if record is not None}
    return [path for path in old if units.main_of(path) not in named]


def ended_unseen(host: Host, faults: list[str]) -> set[str]:
    """Lost jobs of which nothing lives. A look at all processes takes long: never under the lock."""
    settled, adopted = [], set()
    for unfinished in host.store.unfinished():
        with apart(unfinished.id, faults):
            job = host.settle(unfinished)
            if job.spec.adopted and host.left(job).ours:
                adopted.add(job.id)
            settled.append(job)
    lost = [job for job in settled if job.lost and job.id not in adopted]
    traces = {
        job.id: job_processes.Trace.of(job.spec, job.run)
        for job in lost
        if job.run is not None and host.is_here(job.run)
    }
    living = {job_id for job_id, left in job_processes.of_jobs(traces).items() if left.ours}
    return {job.id for job in lost} - living


def ages_of(host: Host, lost: set[str], faults: list[str]) -> dict[str, float]:
    """{job id: seconds since its end} of every job that has ended; `lost` is from `ended_unseen`."""
    names = host.store.ids()
    ended = {name: mtime(host.store.jobs / name / "exit.json") for name in names}
    written = {name: at for name, at in ended.items() if at}
    for name in host.ends.keys() - written.keys():
        host.ends.pop(name, None)
    for record in host.store.unfinished():
        if record.id in lost:
            for path in host.store.transient(record.id):
                host.store.discard(path)
            written[record.id] = record.job.created_at.timestamp()
    ages = {}
    for name, at in written.items():
        with apart(name, faults):
            if name in host.ends or disk.owns(host.store.jobs / name):
                ages[name] = age_of(host, name, at)
    return ages


def age_of(host: Host, job_id: str, written_at: float) -> float:
    """Seconds since it ended. The wall clock jumps, so that a job of this boot is asked by the other one.

    That one stands still while the machine is suspended: a job may stay for longer, never for less. A job of an earlier
    boot of this machine ended before this one began.
    """
    end = host.ends.get(job_id)
    with contextlib.suppress(StateError):
        if end is None and (record := host.store.look(job_id)) is not None:
            end = host.end_of(record)
            if record.exit is not None:
                host.ends[job_id] = end
    if end is not None and end.monotonic is not None:
        return time.monotonic() - end.monotonic
    age = time.time() - written_at
    return age if end is not None and not end.here else max(age, time.monotonic())


def remove(host: Host, names: Sequence[str]) -> None:
    """Remove these finished jobs; call it under the lock."""
    events.ended(host, names)
    for name in names:
        host.store.remove(name)


def make_room(host: Host, wanted: int, lost: set[str], faults: list[str], *, replaces: str | None = None) -> list[str]:
    """Remove the oldest finished jobs until `wanted` bytes more fit into the total; call it under the lock.

    A job that runs counts with all that it may still write, but for the one that is about to be ended. Raises
    LimitReached when these alone take too much.
    """
    total = host.settings.max_total_size or 0
    ages = ages_of(host, lost, faults)
    taken = {name: host.store.size(name) for name in host.store.ids()}
    for record in host.store.unfinished():
        if record.id not in ages and record.id != replaces:
            taken[record.id] = max(taken[record.id], reserved(record.job))
    removed = []
    for name in sorted(ages, key=lambda name: -ages[name]):
        if sum(taken.values()) + wanted <= total:
            break
        del taken[name]
        removed.append(name)
    remove(host, removed)
    if wanted and sum(taken.values()) + wanted > total:
        raise LimitReached(
            f"The logs of {len(taken)} running jobs may take {sum(taken.values())} bytes and this one {wanted}, beyond "
            f"the {total} of TMUXJOBS_MAX_TOTAL_SIZE: wait for a job, or kill one."
        )
    return removed


def reserved(job: JobSpec) -> int:
    """What a job's folder may take on disk: its logs at their bound, and its records."""
    return job.max_output_bytes * (2 if job.separate_stderr else 1) + RECORDS_BYTES


def prune_windows(host: Host) -> None:
    """Close the windows of finished jobs beyond the configured age and count."""
    limit = host.settings.keep_windows_for
    for place, (pane, age) in enumerate(finished_windows(host)):
        if (place >= host.settings.keep_windows or age > limit) and not pane.viewers:
            host.tmux.close(pane)


def close_oldest_window(host: Host) -> bool:
    """Close the window of the job that ended first, but for one that a person looks at; False when there is none."""
    unseen = [pane for pane, _ in finished_windows(host) if not pane.viewers]
    if unseen:
        host.tmux.close(unseen[-1])
    return bool(unseen)


def finished_windows(host: Host) -> list[tuple[Pane, float]]:
    """The windows of finished jobs, the last ended first, and how many seconds ago that was."""
    dead = {name: pane for name, pane in host.tmux.panes().items() if pane.dead and is_ours(host, pane)}
    folders = {name: host.store.jobs / name for name in dead}
    # A lost job has no exit record; its window, where a person sees that it is lost, stays as long as another's.
    written = {name: mtime(folder / "exit.json") or mtime(folder / "output.log") for name, folder in folders.items()}
    ages: dict[str, float] = {}
    for name, at in written.items():
        with apart(name, []):  # `list` names it
            ages[name] = age_of(host, name, at)
    return sorted(((dead[name], age) for name, age in ages.items()), key=lambda one: one[1])


def is_ours(host: Host, pane: Pane) -> bool:
    """Whether its job is of this state directory; a window of 0.1.0 does not say, but the job's record names its pane.

    Job ids of 0.1.0 were the same in each state directory.
    """
    with contextlib.suppress(StateError):
        record = None if pane.root else host.store.look(pane.job_id)
        return bool(pane.root) or (record is not None and record.run is not None and record.run.pane == pane.pane_id)
    return False


def mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
