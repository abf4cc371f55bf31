"""`prune`: retention of finished jobs and their windows by age, count and size."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tmuxjobs.contract import labels
from tmuxjobs.errors import HostError, InvalidInput, LimitReached, StateError, TmuxError, apart, raised
from tmuxjobs.hosts.local import Host, trace_of
from tmuxjobs.models import JobSpec
from tmuxjobs.pane import queue
from tmuxjobs.policy import callers
from tmuxjobs.store import disk, units
from tmuxjobs.tmux.panes import PROJECT, Pane
from tmuxjobs.verbs import events

SOON_S = 0.02
RECORDS_BYTES = 128 << 10
RESERVED_BYTES = 64 << 20
"""The most that a log counts as until it becomes larger, which most never do."""


def prune(
    host: Host, faults: list[str] | None = None, *, everywhere: bool = False, forget: str | None = None
) -> list[str]:
    """Remove finished jobs beyond the configured age and count, and their windows; the removed ids.

    This includes hosts that are connected, with `everywhere` all that can be reached. With `forget` all that is known
    here of that host's jobs is removed, and nothing else; the jobs stay there.

    A job with a fault stays and is named in *faults*; without that list the fault is raised after all else is done.
    A folder that stays because it holds other programs' files is named there too.
    """
    if forget is not None:
        return forget_host(host, forget)
    if faults is None:
        return raised(lambda faults: prune(host, faults, everywhere=everywhere))
    old = _prune(host, faults)
    for other in host.others():
        with contextlib.suppress(HostError):
            if other.is_reached or (everywhere and other.fresh()):
                old += _prune(other, faults)
    left = [folder for folder in map(host.store.folder, old) if os.path.lexists(folder)]
    faults += [f"{folder} stays, for it holds files that tmuxjobs did not make." for folder in left]
    return old


def forget_host(home: Host, name: str) -> list[str]:
    """Remove the mirror of that host; raises InvalidInput if there is none."""
    other = next((one for one in home.others() if one.name == name), None)
    if other is None or not other.store.root.is_dir():
        names = ", ".join(one.name for one in home.others()) or "none"
        raise InvalidInput(f"Nothing is known here of a host '{name}'; hosts in use: {names}.")
    other.close()
    ids = other.store.ids()
    shutil.rmtree(other.store.root, ignore_errors=True)
    return ids


def _prune(host: Host, faults: list[str]) -> list[str]:
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
    old = units.unused(host.store.pane)  # none of another host: its agent removes them
    try:
        records = [host.store.look(name) for name in (host.store.ids() if old else ())]
    except StateError:
        return []  # an unreadable record may be that of a running job
    named = {record.job.pane for record in records if record is not None}
    return [path for path in old if units.main_of(path) not in named]


def ended_unseen(host: Host, faults: list[str]) -> set[str]:
    """Lost jobs without a living process. Reading all processes takes long: never do it under the lock."""
    settled, adopted = [], set()
    for unfinished in host.store.unfinished():
        with apart(unfinished.id, faults):
            job = host.settle(unfinished)
            if job.spec.adopted and host.left(job).ours:
                adopted.add(job.id)
            settled.append(job)
    lost = [job for job in settled if job.lost and job.id not in adopted]
    traces = {job.id: trace_of(job.spec, job.run) for job in lost if job.run is not None and host.is_here(job.run)}
    living = {job_id for job_id, left in host.machine.of_jobs(traces).items() if left.ours}
    return {job.id for job in lost} - living


def ages_of(host: Host, lost: set[str], faults: list[str]) -> dict[str, float]:
    """{job id: seconds since its end} of every job that has ended; `lost` is from `ended_unseen`.

    Jobs that others come after are left out.
    """
    needed = queue.needed(str(host.store.root))
    names = [name for name in host.store.ids() if name not in needed]
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
    """Seconds since it ended. The wall clock jumps, so jobs of this boot are aged by CLOCK_MONOTONIC.

    That clock stops during suspend: a job may stay for longer, never for less. A job of an earlier boot of this machine
    ended before this boot began.
    """
    end = host.ends.get(job_id)
    with contextlib.suppress(StateError):
        if end is None and (record := host.store.look(job_id)) is not None:
            end = host.end_of(record)
            if record.exit is not None:
                host.ends[job_id] = end
    if end is not None and end.monotonic is not None:
        return host.machine.monotonic() - end.monotonic
    age = time.time() - written_at
    return age if end is not None and not end.here else max(age, host.machine.monotonic())


def remove(host: Host, names: Sequence[str]) -> None:
    """Remove these finished jobs; call it under the lock."""
    events.ended(host, names)
    host.store.remove(*names)


def make_room(host: Host, wanted: int, lost: set[str], faults: list[str], *, replaces: str | None = None) -> list[str]:
    """Remove the oldest finished jobs until `wanted` bytes more fit into the total; call it under the lock.

    A running job counts with what it may soon have written, except `replaces`, which is about to be ended. Raises
    LimitReached when running jobs alone take too much.
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
    """The space reserved for a job: up to RESERVED_BYTES for each log, and its records."""
    return min(job.max_output_bytes, RESERVED_BYTES) * (2 if job.separate_stderr else 1) + RECORDS_BYTES


def prune_windows(host: Host) -> None:
    """Close the windows of finished jobs beyond the configured age and count; those that stay show their projects."""
    limit = host.settings.keep_windows_for
    panes = host.tmux.panes()
    show_projects(host, panes)
    for place, (pane, age) in enumerate(finished_windows(host, panes)):
        if (place >= host.settings.keep_windows or age > limit) and not pane.viewers:
            host.tmux.close(pane)


def prune_windows_soon(host: Host) -> None:
    """Run `prune_windows` in a thread a moment later, once for all calls until then; this process does not end before.

    Nothing waits for it. What it leaves undone, because it was killed or tmux did not answer, the next run does.
    """
    if not host.prunes_soon.acquire(blocking=False):
        return

    def work() -> None:
        host.prunes_soon.release()  # this run may miss what is started from now on
        if not host.store.root.is_dir():  # $TMUX_TMPDIR may be gone too, and tmux would use another server
            return
        with contextlib.suppress(TmuxError, StateError):
            prune_windows(host)
            if host.name and has_old(host):
                _prune(host, [])

    try:
        threading.Timer(SOON_S, work).start()
    except RuntimeError:  # the machine is out of processes, which threads are too
        host.prunes_soon.release()


def has_old(host: Host) -> bool:
    """Whether some jobs are beyond the configured age or count, judged by file names and times alone."""
    ended = list(filter(None, (mtime(host.store.jobs / name / "exit.json") for name in host.store.ids())))
    of = host.settings
    return len(ended) > of.keep_jobs or any(time.time() - at >= of.keep_jobs_for for at in ended)


def close_oldest_window(host: Host) -> bool:
    """Close the window of the job that ended first, except one that a person views; False when there is none."""
    unseen = [pane for pane, _ in finished_windows(host, host.tmux.panes()) if not pane.viewers]
    if unseen:
        host.tmux.close(unseen[-1])
    return bool(unseen)


def show_projects(host: Host, panes: Mapping[str, Pane]) -> None:
    """Name the project in each job's window if there are several projects, and in none if there is one."""
    projects: dict[str, str] = {}
    for name in panes:
        with apart(name, []):  # `list` names it
            projects[name] = host.caller_of(name).project
    names = labels(projects.values())
    for name, project in projects.items():
        label = callers.in_tmux(names.get(project, ""))
        if label != panes[name].project:
            with contextlib.suppress(TmuxError):  # the window was closed
                host.tmux.mark_window(panes[name].pane_id, {PROJECT: label or None})


def finished_windows(host: Host, panes: Mapping[str, Pane]) -> list[tuple[Pane, float]]:
    """The windows of finished jobs, the last ended first, and how many seconds ago that was."""
    dead = {name: pane for name, pane in panes.items() if pane.dead and is_ours(host, pane)}
    folders = {name: host.store.jobs / name for name in dead}
    # A lost job has no exit record; its window, where a person sees that it is lost, stays as long as another's.
    written = {name: mtime(folder / "exit.json") or mtime(folder / "output.log") for name, folder in folders.items()}
    ages: dict[str, float] = {}
    for name, at in written.items():
        with apart(name, []):  # `list` names it
            ages[name] = age_of(host, name, at)
    return sorted(((dead[name], age) for name, age in ages.items()), key=lambda one: one[1])


def is_ours(host: Host, pane: Pane) -> bool:
    """Whether its job is in this state directory; a window of 0.1.0 does not say, but the job's record names its pane.

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
