"""`doctor`: what would keep jobs from running here, what was left behind, and a real job from start to end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tmuxjobs.answers import Diagnosis, Finding
from tmuxjobs.errors import StateError, TmuxjobsError, apart
from tmuxjobs.hosts import rsync
from tmuxjobs.hosts.hosts import Hosts
from tmuxjobs.hosts.local import Host
from tmuxjobs.job_answers import name_processes
from tmuxjobs.models import Caller, ProcessRecord
from tmuxjobs.outcome import seconds
from tmuxjobs.states import Elsewhere
from tmuxjobs.system import job_processes, probes
from tmuxjobs.tmux.session import UTF8, locale_name
from tmuxjobs.verbs import execute, kill, launch, output, prune, status, token, wait

if TYPE_CHECKING:
    from tmuxjobs.hosts.ssh import RemoteHost

FREE_BYTES = 200 << 20
FREE_FILES = 1000
FILLED = ": free some space there."
PROCESSES = 5
"""Per job: the runner, the recorder with its thread, the command's shell, and an occasional call of tmux."""
LINES = 20_000
TRIAL_S = 60.0
TRIAL = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo $i; done; exit 7"
NAMES = {"options": "tmux options", "trial": "a real job", "room_for_processes": "processes", "not_proved": "process"}
TRIED = b"".join(b"%d\r\n" % number for number in range(1, LINES + 1))


@dataclass(frozen=True)
class Leftover:
    """Something that no running job needs; `remove` removes it."""

    what: str
    remove: Callable[[], object]


def doctor(here: Host, *, fix: bool = False, host: str | None = None) -> Diagnosis:
    """Check everything that jobs need. With `fix`, remove what was left behind, but nothing of a running job.

    With `host` it checks what jobs need on that host, and removes nothing.
    """
    if not host:
        return at_home(here, fix=fix)
    there = Hosts.over(here).named(host)
    findings = found(there, reached)
    for check in (tmux, options, far_disk, files_too, trial) if findings[0].ok else ():
        add(findings, found(there, check))
    return Diagnosis(healthy=all(one.ok for one in findings), checks=tuple(findings))


def reached(host: Host) -> Iterator[Finding]:
    host.reached()
    text = f"by `ssh {host.name}`, where it is {host.node}"
    if host.ahead_s:
        way = "ahead of" if host.ahead_s > 0 else "behind"
        off = seconds(round(abs(host.ahead_s)), coarse=True)
        text += f"; its clock is {off} {way} this one, and its times are by that clock"
    yield Finding(name="reached", ok=True, text=text)


def far_disk(host: Host) -> Iterator[Finding]:
    root = cast("RemoteHost", host).facts["state"]
    free = host.machine.free_bytes(root)
    text = f"{root}, {free >> 20} MB free"
    yield Finding(name="state directory", ok=free >= FREE_BYTES, text=text + ("" if free >= FREE_BYTES else FILLED))


def files_too(host: Host) -> Iterator[Finding]:
    """Jobs run without rsync too: only `sync` and `fetch` need it."""
    try:
        text = f"by {rsync.program(cast('RemoteHost', host))}"
    except TmuxjobsError as error:
        text = f"{error} Jobs run all the same."
    yield Finding(name="sync and fetch", ok=True, text=text)


def at_home(host: Host, *, fix: bool) -> Diagnosis:
    checks = (
        tmux,
        options,
        locale,
        state_dir,
        http_token,
        open_files,
        terminals,
        room_for_processes,
        records,
        other_hosts,
        removed,
    )
    findings: list[Finding] = []
    for check in checks:
        add(findings, found(host, check))
    left, fixed = look_for_leftovers(host, findings), []
    if fix:
        for leftover in left or ():
            leftover.remove()
            fixed.append(leftover.what)
        left = look_for_leftovers(host, [])
    if left is not None:
        findings.append(summed_up("leftovers", [one.what for one in left]))
    for check in (not_proved, trial):
        add(findings, found(host, check))
    return Diagnosis(healthy=all(one.ok for one in findings), checks=tuple(findings), fixed=tuple(fixed))


def found(host: Host, check: Callable[[Host], Iterator[Finding]]) -> list[Finding]:
    """The check's findings; a TmuxjobsError becomes one too, because its text says what to do."""
    faults: list[str] = []
    try:
        with apart("", faults):
            return list(check(host))
    except TmuxjobsError as error:
        faults = [str(error)]
    name = NAMES.get(check.__name__, check.__name__.replace("_", " "))
    return [Finding(name=name, ok=False, text=fault) for fault in faults]


def look_for_leftovers(host: Host, findings: list[Finding]) -> list[Leftover] | None:
    """None when the check itself failed; the findings say why."""
    faults: list[str] = []
    left: list[Leftover] | None = []
    try:
        with apart("", faults):
            left = list(leftovers(host, faults))
    except TmuxjobsError as error:
        left = None
        faults.append(str(error))
    add(findings, [Finding(name="leftovers", ok=False, text=fault) for fault in faults])
    return left


def add(findings: list[Finding], more: Iterable[Finding]) -> None:
    """Add the findings that are new: without tmux, many checks fail for that one reason."""
    findings += [one for one in more if one.ok or one.text not in {known.text for known in findings}]


def summed_up(name: str, left: list[str]) -> Finding:
    if not left:
        return Finding(name=name, ok=True, text="none")
    return Finding(name=name, ok=False, text=f"{'; '.join(left)}. `tmuxjobs doctor --fix` removes them.")


def tmux(host: Host) -> Iterator[Finding]:
    yield Finding(name="tmux", ok=True, text=f"{host.tmux.version()} at {host.tmux.binary}")


def options(host: Host) -> Iterator[Finding]:
    """Checks only options that would end jobs; a person may set all others as they like."""
    value = host.tmux.server_option("exit-unattached")
    if value == "on":
        text = (
            "exit-unattached is on, so tmux would end with every job when nobody is attached. Take it out of your "
            "tmux.conf and run: tmux set-option -s exit-unattached off"
        )
        yield Finding(name="tmux options", ok=False, text=text)
    else:
        yield Finding(name="tmux options", ok=True, text="no server runs yet" if value is None else "fine")


def locale(host: Host) -> Iterator[Finding]:
    name = locale_name(host.environ)
    effect, cure = "programs may print `?` for letters beyond ASCII.", "Set LANG=C.UTF-8 where tmuxjobs is started."
    if not name and (given := probes.usual_locale()):
        yield Finding(name="locale", ok=True, text=f"none is set, so jobs get LANG={given}")
    elif not UTF8.search(name):
        text = f"{name or 'none is set'}: jobs run all the same, but {effect} {cure}"
        yield Finding(name="locale", ok=True, text=text)
    elif is_installed(name):
        yield Finding(name="locale", ok=True, text=name)
    else:
        yield Finding(name="locale", ok=False, text=f"{name} is not installed here, so {effect} {cure}")


def is_installed(name: str) -> bool:
    """Whether the C library has that locale. Asks in a child: `setlocale` would change all threads of this process."""
    code = "import locale, sys; locale.setlocale(locale.LC_CTYPE, sys.argv[1])"
    argv = [sys.executable, "-I", "-S", "-c", code, name]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30).returncode == 0


def state_dir(host: Host) -> Iterator[Finding]:
    host.store.prepare()
    root = host.store.root
    disk = os.statvfs(root)
    free = disk.f_bavail * disk.f_frsize
    if free < FREE_BYTES:
        text = (
            f"the disk of {root} is nearly full, {free >> 20} MB are free: free some space, or set TMUXJOBS_STATE_DIR"
        )
        yield Finding(name="state directory", ok=False, text=f"{text} to another disk.")
    elif disk.f_files and disk.f_favail < FREE_FILES:
        text = f"the disk of {root} can hold only {disk.f_favail} more files: remove some."
        yield Finding(name="state directory", ok=False, text=text)
    else:
        yield Finding(name="state directory", ok=True, text=f"{root}, {free >> 20} MB free")


def http_token(host: Host) -> Iterator[Finding]:
    """Checked before `--fix` closes the file to others: they may have read it already."""
    path = token.token_path(host)
    if os.path.lexists(path):
        token.token_value(host)
        yield Finding(name="http token", ok=True, text=str(path))


def open_files(host: Host) -> Iterator[Finding]:
    """tmux needs two files per job, and at its limit it stops answering people too."""
    server = host.tmux.server_pid()
    used = job_processes.open_files(server) if server is not None else None
    if used is None:
        yield Finding(name="open files", ok=True, text="no tmux server to look at")
        return
    count, limit = used
    wanted = 2 * host.settings.max_jobs + 20
    text = f"tmux has {count} of {limit} files open"
    if limit - count < wanted:
        text += (
            f", and {host.settings.max_jobs} jobs need {wanted}: raise `ulimit -n` before tmux starts, or lower "
            "TMUXJOBS_MAX_JOBS."
        )
    yield Finding(name="open files", ok=limit - count >= wanted, text=text)


def terminals(host: Host) -> Iterator[Finding]:
    free = job_processes.free_terminals()
    if free is None:
        return
    enough = free >= host.settings.max_jobs
    text = f"{free} more can be opened"
    if not enough:
        text += f", and {host.settings.max_jobs} jobs may run: close some, or raise the sysctl kernel.pty.max."
    yield Finding(name="terminals", ok=enough, text=text)


def room_for_processes(host: Host) -> Iterator[Finding]:
    server = host.tmux.server_pid()
    free = job_processes.free_processes(server if server is not None else os.getpid())
    if free is None:
        return
    wanted = PROCESSES * host.settings.max_jobs
    text = f"{free} more can be started"
    if free < wanted:
        text += (
            f", and {host.settings.max_jobs} jobs need {wanted} and more: end some, raise their limit (`ulimit -u`, or "
            "the container's or unit's own), or lower TMUXJOBS_MAX_JOBS."
        )
    yield Finding(name="processes", ok=free >= wanted, text=text)


def records(host: Host) -> Iterator[Finding]:
    damaged: list[str] = []
    names = [name for name in host.store.ids() if is_readable(host, name, damaged)]
    text = " ".join(damaged) or f"{len(names)} jobs, all readable"
    yield Finding(name="records", ok=not damaged, text=text)


def is_readable(host: Host, job_id: str, damaged: list[str]) -> bool:
    """Whether its records can be read; if not, *damaged* says why."""
    with apart(job_id, damaged):
        host.look(job_id)
        return True
    return False


def other_hosts(host: Host) -> Iterator[Finding]:
    """Jobs whose state only another machine knows. If that machine is gone for good, a person has to say so."""
    found = []
    for record in host.store.unfinished():
        with apart(record.job.job_id, []):  # the check `records` names it
            state = host.state(record)
            if isinstance(state, Elsewhere):
                found.append(f"{record.job.job_id} on '{state.host}'")
    if found:
        names = ", ".join(sorted(found))
        text = f"{names}; if a host is gone for good, remove the folders of its jobs in {host.store.jobs}."
        yield Finding(name="jobs of other hosts", ok=True, text=text)


def removed(host: Host) -> Iterator[Finding]:
    """Jobs that run although a person removed their folder. Only the person knows whether they are wanted."""
    found = [name for name in sorted(job_processes.runners(host.store.jobs)) if is_removed(host, name)]
    if found:
        text = f"{', '.join(found)} run though their folders were removed: `tmuxjobs kill JOB` ends them."
        yield Finding(name="removed jobs", ok=False, text=text)


def is_removed(host: Host, job_id: str) -> bool:
    with suppress(StateError):  # damaged: the check `records` names it
        return host.store.look(job_id) is None
    return False


def leftovers(host: Host, faults: list[str]) -> Iterator[Leftover]:
    """What killed processes left unfinished, and windows and processes of jobs that do not run.

    A job with a fault yields no leftovers; it is named in *faults*, unless its record is damaged.
    """
    store = host.store
    panes = host.tmux.panes()
    with store.lock():
        names = set(store.ids())
        half_made = store.half_made()
        for path in half_made:
            names.discard(path.name)
            yield Leftover(str(path), lambda path=path: store.discard(path))  # type: ignore[misc]
    for path in store.exposed():
        yield Leftover(f"{path}, which others may read", lambda path=path: close_to_others(path))  # type: ignore[misc]
    for name in sorted(names):
        with apart(name, faults), suppress(StateError):  # damaged: the check `records` names it
            job = host.look(name)
            if job.running:
                continue
            if job.spec.adopted is not None and job.lost:
                continue  # lost only to us: its window and its processes are a person's
            if living := host.left(job).ours:
                what = f"{name_processes(living)} of lost job {name}"
                yield Leftover(what, lambda name=name: kill.kill(host, name, grace=2.0))  # type: ignore[misc]
            for path in store.transient(name):
                yield Leftover(str(path), lambda path=path: store.discard(path))  # type: ignore[misc]
            if job.lost and name in panes and panes[name].dead and prune.is_ours(host, panes[name]):
                yield Leftover(f"window of lost job {name}", lambda name=name: host.tmux.close(panes[name]))  # type: ignore[misc]
    for name in sorted(panes.keys() - names):
        if panes[name].dead and panes[name].root and store.look(name) is None:
            yield Leftover(f"window of removed job {name}", lambda name=name: host.tmux.close(panes[name]))  # type: ignore[misc]


def not_proved(host: Host) -> Iterator[Finding]:
    """Processes that may belong to lost jobs, named for a person to judge."""
    for record in host.store.unfinished():
        doubt: tuple[ProcessRecord, ...] = ()
        with apart(record.id, []):  # `records` names the fault
            doubt = host.left(host.settle(record)).doubt
        for one in doubt:
            text = (
                f"{one.name} ({one.pid}) may be left over from lost job {record.id}, but nothing proves it, so it "
                f"was not touched: check it, and end it with `kill {one.pid}` if it is."
            )
            yield Finding(name="process", ok=True, text=text)


def close_to_others(path: Path) -> None:
    with suppress(OSError):  # gone meanwhile
        path.chmod(path.lstat().st_mode & 0o700)


def trial(host: Host) -> Iterator[Finding]:
    """Run a job that prints 109 KB and exits with code 7, and compare every byte. Leaves nothing behind."""
    started = execute.execute(
        host,
        Caller(),
        TRIAL,
        name="doctor",
        cwd="/",
        shell="/bin/sh",
        engine="local",
        timeout=TRIAL_S,
        queue=False,
        notify="never",
    )
    try:
        wait.wait(host, started.job_id, timeout=TRIAL_S)
        seen = status.status(host, started.job_id)
        data = b"".join(cast("Iterator[bytes]", output.whole(host, started.job_id, raw=True).stdout))
    finally:
        kill.kill(host, started.job_id, grace=0.0)
        launch.discard_failed_start(host, started.job_id)
    good = seen.exit_code == 7 and seen.log == "complete" and data == TRIED
    text = f"started, recorded and ended in {seen.runtime:.1f} s, {len(data)} bytes as printed"
    if not good:
        text = (
            f"a job that prints {len(TRIED)} bytes and ends with code 7 was {seen.detail} with {len(data)} bytes "
            f"(log: {seen.log})."
        )
    yield Finding(name="a real job", ok=good, text=text)
