"""Cases that take something away from the machine: the disk, files, processes; and the person's own tmux, compared."""

import contextlib
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from support import PYTHON, Group, Jobs, NotHere, wait_until, with_few_terminals, with_own_pids

from tmuxjobs.errors import JobNotFound, NotStarted, TmuxError, TmuxjobsError

from .cases import HERE, next_job_runs
from .world import RECORDS, World

GROWTH_BYTES = 30 << 20
PROCESSES = "No more processes can be started"
TERMINALS = "All pseudo-terminals are in use"
SAID = ("full", "No space left", "Too many open files", "Read-only", "temporarily unavailable")


@contextlib.contextmanager
def small_disk(world: World, megabytes: int) -> Iterator[Path]:
    """A file system of its own of that size."""
    place = world.folder / "disk"
    place.mkdir(exist_ok=True)
    argv = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(place)]
    if os.getuid() != 0 or subprocess.run(argv, capture_output=True).returncode:
        raise NotHere("a small disk is mounted by root on Linux")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()


def fill(disk: Path, leave: int) -> None:
    """Use up the disk but for `leave` bytes."""
    target = disk / "filler"
    target.unlink(missing_ok=True)
    with contextlib.suppress(OSError), target.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    os.truncate(target, max(0, target.stat().st_size - leave))


def memory_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def full_disk(world: World) -> None:
    """The disk fills before, while and after jobs write: ends are true, and a log that lacks a byte says so."""
    with small_disk(world, 2) as disk:
        jobs = world.another(state_dir=disk / "state")
        world.check(world.start(largest=1000, jobs=jobs), jobs=jobs)
        before = memory_of(world.server_pid())
        for _ in range(4):
            fill(disk, world.random.choice([0, 40960, 81920, 200_000, 400_000, 600_000]))
            asked = []
            for _ in range(3):
                try:
                    asked.append(world.start(largest=1 << 20, pause=0.1, jobs=jobs))
                except TmuxjobsError as error:
                    if not any(word in str(error) for word in SAID):
                        world.tally.wrong(f"a full disk was told as: {error}")
            if world.random.random() < 0.5:
                fill(disk, 0)
            for one in asked:
                status = world.ended(one.job_id, jobs)
                if not one.told_truly(status):
                    world.tally.wrong(f"{one.job_id} on a full disk: told {status.detail}, true is {one}")
                world.check(one, status, untouched=False)
            (disk / "filler").unlink()
            for name in jobs.host.store.ids():
                deadline = time.monotonic() + 60  # a runner writes its record first, and then clears up
                while (extra := extra_files(jobs, name)) and time.monotonic() < deadline:
                    time.sleep(0.02)
                if extra:
                    world.left(f"on a full disk in {name}: {', '.join(sorted(extra))}")
            world.another(state_dir=disk / "state", keep_jobs=0, keep_windows=0).prune()
        if memory_of(world.server_pid()) - before > GROWTH_BYTES:
            world.tally.wrong("tmux grew by the output that the disk had no room for")
        world.check(world.start(largest=1000, jobs=jobs), jobs=jobs)
        world.another(state_dir=disk / "state", keep_jobs=0, keep_windows=0).prune()


def extra_files(jobs: Jobs, job_id: str) -> set[str]:
    return {entry.name for entry in (jobs.host.store.jobs / job_id).iterdir()} - RECORDS


def read_only(world: World) -> None:
    """The state directory cannot be written: starts are refused with the reason, and what runs ends."""
    with small_disk(world, 4) as disk:
        jobs = world.another(state_dir=disk / "state")
        done = world.check(world.start(largest=1000, jobs=jobs), jobs=jobs)
        deadline = time.monotonic() + 60
        while subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True).returncode:
            assert time.monotonic() < deadline, "something has a file open for writing after the job's end"
            time.sleep(0.1)
        try:
            for act in (lambda: jobs.execute("true"), jobs.prune):
                with contextlib.suppress(TmuxjobsError):
                    act()
                    world.tally.wrong("a directory that cannot be written was written")
            if jobs.status(done.job_id).status != done.status:
                world.tally.wrong("an ended job is told otherwise on a read-only disk")
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        world.check(world.start(largest=1000, jobs=jobs), jobs=jobs)
        world.another(state_dir=disk / "state", keep_jobs=0, keep_windows=0).prune()


def few_files(world: World) -> None:
    """A manager that runs out of file descriptors says so; its jobs, and those of others, are told truly."""
    script = (
        "import resource, sys; from tmuxjobs import Jobs; from tmuxjobs.errors import TmuxjobsError\n"
        "jobs = Jobs.open(); hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "for limit in (4, 5, 6, 7, 8, 9, 10, 12, 14):\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))\n"
        "    for act in (lambda: jobs.execute('exit 4'), lambda: jobs.list(), lambda: jobs.status(sys.argv[1]),\n"
        "                lambda: jobs.prune()):\n"
        "        try: act()\n"
        "        except TmuxjobsError as error: pass\n"
    )
    asked = world.start(pause=1.0)
    done = subprocess.run([sys.executable, "-c", script, asked.job_id], capture_output=True, text=True, cwd="/")
    if done.returncode:
        world.tally.wrong(f"out of files: {done.stderr[-500:]}")
    world.check(asked)
    while world.jobs.list(status="running", limit=1).total:
        time.sleep(0.1)


def refused(world: World, jobs: Jobs, words: str) -> bool:
    """Whether a start is refused; the words must be in what is said."""
    world.tally.jobs += 1
    try:
        started = jobs.execute("printf 0123456789; exit 7", name="few")
    except TmuxjobsError as error:
        if words not in str(error):
            world.tally.wrong(f"told without '{words}': {error}")
        return True
    status = world.ended(started.job_id, jobs)
    log = Path(status.log_path).read_bytes()
    if (status.exit_code, status.log, log) != (7, "complete", b"0123456789"):
        world.tally.wrong(f"{started.job_id} with little room: {status.detail}, log {status.log}, {log!r}")
    return False


def few_processes(world: World) -> None:
    """tmux and what it starts run out of processes: a start is refused with the reason, and what runs is unharmed."""
    world.check(world.start(largest=1000))
    with contextlib.closing(Group(world.server_pid())) as group:
        running = [world.steady() for _ in range(2)]
        for room in world.random.sample(range(8), 8):
            before = set(world.jobs.host.store.ids())
            group.limit(room)
            if refused(world, world.jobs, PROCESSES) and set(world.jobs.host.store.ids()) != before:
                world.left(f"of a start with room for {room} processes: {set(world.jobs.host.store.ids()) - before}")
        group.limit(None)
        for one in running:
            world.check(one)
        manager_without_processes(world, group.members)
        next_job_runs(world)


def manager_without_processes(world: World, members: Path) -> None:
    """A manager that can start no process says so, and looks at its jobs all the same."""
    script = (
        "import os, sys; from pathlib import Path\n"
        "from tmuxjobs import Jobs; from tmuxjobs.errors import TmuxjobsError\n"
        "jobs = Jobs.open(); members = Path(sys.argv[1]); members.write_text(str(os.getpid()))\n"
        "most = members.with_name('pids.max'); most.write_text(members.with_name('pids.current').read_text())\n"
        "told = []\n"
        "for act in (lambda: jobs.execute('exit 4'), lambda: jobs.status(sys.argv[2]), jobs.list, jobs.prune):\n"
        "    try: act()\n"
        "    except TmuxjobsError as error: told.append(str(error))\n"
        "most.write_text('max'); print('\\n'.join(told))"
    )
    asked = world.steady()
    argv = [sys.executable, "-c", script, str(members), asked.job_id]
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/")
    told = done.stdout.splitlines()
    if done.returncode or not told or not all(PROCESSES in line for line in told):
        world.tally.wrong(f"a manager out of processes: {done.stdout[-500:]} {done.stderr[-500:]}")
    world.check(asked)


def fork_bomb(world: World) -> None:
    """A job takes every process there may be: it is told and ended as any other, and the others are unharmed."""
    world.check(world.start(largest=1000))
    with contextlib.closing(Group(world.server_pid())) as group:
        other = world.steady(seconds=2)
        script = (
            "import os, time\n"
            "try:\n"
            "    while os.fork(): pass\n"
            "except BlockingIOError: os.write(1, b'full')\n"
            "time.sleep(1000)"
        )
        group.limit(world.random.randrange(20, 60))
        bomb = world.jobs.execute(f"exec {PYTHON} -I -S -c {shlex.quote(script)}", name="bomb")
        told = world.jobs.wait(bomb.job_id, cursor=0, pattern="full", timeout=100)
        if told.reason != "pattern" or not refused(world, world.jobs, PROCESSES):
            world.tally.wrong(f"every process was taken and nobody said so: {told.text()}")
        killed = world.jobs.kill(bomb.job_id, grace=1)
        status = world.jobs.status(bomb.job_id)
        log = Path(status.log_path).read_bytes()
        if killed.status != "killed" or killed.survivors or (status.log, log) != ("complete", b"full"):
            world.tally.wrong(f"{killed.text()}; {status.text()}; {log!r}")
        next_job_runs(world)
        world.check(other)


@contextlib.contextmanager
def few_terminals_only(world: World, most: int) -> Iterator[Jobs]:
    """The jobs of another tmux server, which has so many pseudo-terminals, one of them a person's."""
    started = with_few_terminals(world.folder, most, "tmux", "-L", "few", "new-session", "-d", "-s", "person", "cat")
    assert started.returncode == 0, started.stderr
    try:
        yield world.another(socket_name="few", keep_windows=0)
    finally:
        world.tmux("-L", "few", "kill-server", check=False)


def few_terminals(world: World) -> None:
    """No pseudo-terminal is free: a start is refused with the reason, and what runs is unharmed."""
    with few_terminals_only(world, world.random.randrange(1, 5)) as jobs:
        running = []
        gate = world.folder / "gate"
        with contextlib.suppress(NotStarted, TmuxError):
            while len(running) < 5:
                running.append(world.steady(jobs=jobs, gate=gate))
        if not refused(world, jobs, TERMINALS):
            world.tally.wrong(f"there are more terminals than there may be: {len(running)} jobs run")
        if extra := set(jobs.host.tmux.panes()) - {one.job_id for one in running}:
            world.left(f"windows of {extra}")
        gate.touch()
        for one in running:
            world.check(one, jobs=jobs)
        gate.unlink()
        deadline = time.monotonic() + 60
        while running and refused(world, jobs, TERMINALS):
            assert time.monotonic() < deadline, "no terminal is free though every job has ended"
            jobs.prune()


def restarted_container(world: World) -> None:
    """The state outlives every process, and pids are used again: no stranger is taken for a job's."""
    given = {"TMUXJOBS_STATE_DIR": world.folder / "kept", "TMUXJOBS_SOCKET_NAME": "kept", "PYTHONPATH": HERE.parent}
    argv = ["env", *(f"{name}={value}" for name, value in given.items()), sys.executable, str(HERE / "kept.py")]
    for act in ("before", "after"):
        done = with_own_pids(*argv, act, str(world.random.random()))
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        world.tally.jobs += len(said) if act == "before" else 0
        for note in said if act == "after" else ():
            world.tally.wrong(note)
    shutil.rmtree(world.folder / "kept")


def hostile_files(world: World) -> None:
    """Records that are cut, garbage, of another version, links, FIFOs or folders: a clear error, or the truth."""
    jobs = world.another()
    asked = world.start(largest=1000)
    world.check(asked)
    folder = jobs.host.store.folder(asked.job_id)
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    for _ in range(40):
        name = world.random.choice(sorted(good))
        spoil(world, folder / name, good[name])
        for verb in verbs_of(world.another()):
            try:
                verb(asked.job_id)
            except TmuxjobsError:
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                world.tally.wrong(f"a spoilt {name} gave {type(error).__name__}: {error}")
        if not folder.exists():
            break
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        for path, data in good.items():
            (folder / path).write_bytes(data)
    shutil.rmtree(folder, ignore_errors=True)


def verbs_of(jobs: Jobs) -> list[Callable[[str], object]]:
    def text(job_id: str) -> object:
        return jobs.status(job_id).text()

    def listed(_: str) -> object:
        return jobs.list().text()

    return [text, jobs.tail, jobs.output, jobs.kill, listed, lambda _: jobs.prune()]


def spoil(world: World, path: Path, data: bytes) -> None:
    chance = world.random
    path.unlink()
    match chance.randrange(9):
        case 0:
            path.write_bytes(data[: chance.randrange(len(data) + 1)])
        case 1:
            path.write_bytes(chance.randbytes(chance.randrange(2000)))
        case 2:
            path.symlink_to("/etc/passwd")
        case 3:
            os.mkfifo(path)
        case 4:
            path.mkdir()
        case 5:
            path.write_text(json.dumps(chance.choice([[], {}, None, 7, "x", {"format": 99}, {"job": {}}])))
        case 6:
            path.write_bytes(data)
            os.chown(path, 12345, 12345) if os.getuid() == 0 else path.chmod(0)
        case _ if path.suffix == ".json" and data:
            path.write_text(json.dumps(other_values(world, json.loads(data))))
        case _:
            pass  # it is gone


def other_values(world: World, record: dict[str, object]) -> dict[str, object]:
    """The record with some fields of another type or size, inner records too."""
    chance = world.random
    odd = [None, -1, 0, 10**30, 1e308, float("inf"), float("nan"), "", "../../x", "\0", [], {}, True, "2026-01-01"]
    changed = dict(record)
    for name in chance.sample(sorted(changed), min(len(changed), 1 + chance.randrange(3))):
        value = changed[name]
        inner = isinstance(value, dict) and chance.random() < 0.7
        changed[name] = other_values(world, value) if inner else chance.choice(odd)  # type: ignore[arg-type]
    return changed


def persons_tmux(world: World) -> None:
    """All of the person's own sessions, options, hooks, buffers, keys and environment are as before."""
    world.tmux("new-session", "-d", "-s", "person", "-n", "mail", "sh")
    world.tmux("set-buffer", "-b", "mine", "keep me")
    world.tmux("set-option", "-g", "status-left", "[#S] mine")
    world.tmux("set-option", "-s", "escape-time", "77")
    world.tmux("set-hook", "-g", "after-split-window", "display-message mine")
    world.tmux("bind-key", "-T", "prefix", "Q", "display-message mine")
    world.tmux("set-environment", "-g", "MINE", "1")
    world.jobs.prune()
    before = dump(world)
    for _ in range(3):
        world.check(world.start(largest=10_000))
    asked = world.jobs.execute("stty -echo; read -r x; echo got $x", cwd=str(world.folder))
    wait_until(lambda: world.jobs.status(asked.job_id).waits_for)
    world.jobs.interact(asked.job_id, "it", wait=50, pattern="got")
    world.jobs.kill(world.jobs.execute("sleep 1000").job_id)
    world.ended(asked.job_id)
    world.another(keep_windows=0).prune()
    after = dump(world)
    for name in before:
        if before[name] != after[name]:
            gone, new = set(before[name]) - set(after[name]), set(after[name]) - set(before[name])
            world.tally.wrong(f"the person's {name} changed: {sorted(gone)} became {sorted(new)}")
    world.tmux("delete-buffer", "-b", "mine")
    for undo in (["-gu", "status-left"], ["-su", "escape-time"]):
        world.tmux("set-option", *undo)
    world.tmux("set-hook", "-gu", "after-split-window")
    world.tmux("kill-session", "-t", "=person")


def dump(world: World) -> dict[str, list[str]]:
    """Everything of the tmux server that is not our session's."""
    asked = {
        "sessions": ("list-sessions", "-f", "#{!=:#{session_name},mcp-jobs}", "-F", "#{session_id} #{session_name}"),
        "windows": ("list-windows", "-t", "=person", "-F", "#{window_id} #{window_name} #{window_layout}"),
        "server options": ("show-options", "-s"),
        "global options": ("show-options", "-g"),
        "global window options": ("show-options", "-gw"),
        "session options": ("show-options", "-t", "=person:"),
        "window options": ("show-options", "-w", "-t", "=person:mail"),
        "hooks": ("show-hooks", "-g"),
        "buffers": ("list-buffers", "-F", "#{buffer_name} #{buffer_sample}"),
        "keys": ("list-keys",),
        "environment": ("show-environment", "-g"),
        "session environment": ("show-environment", "-t", "=person"),
    }
    return {name: world.tmux(*arguments).splitlines() for name, arguments in asked.items()}


def quota(world: World) -> None:
    """All logs together stay within TMUXJOBS_MAX_TOTAL_SIZE, and no job that runs is removed for it."""
    jobs = world.another(state_dir=world.folder / "quota", max_output_size="256KB", max_total_size="2MB")
    gate = world.folder / "gate"
    held = f"until [ -e {gate} ]; do sleep 0.05; done; "
    running = [world.start(largest=100_000, jobs=jobs, head=held) for _ in range(2)]
    for _ in range(12):
        started = jobs.execute("head -c 200000 source", cwd=str(world.folder))
        world.ended(started.job_id, jobs)
        if (size := on_disk(jobs)) > 2 << 20:
            world.tally.wrong(f"all logs take {size} bytes")
    gate.touch()
    for one in running:
        try:
            world.check(one, world.ended(one.job_id, jobs))
        except JobNotFound:
            world.tally.wrong(f"{one.job_id} was removed while it ran")
    gate.unlink()
    shutil.rmtree(world.folder / "quota")


def on_disk(jobs: Jobs) -> int:
    return sum(path.stat().st_blocks * 512 for path in jobs.host.store.jobs.rglob("*.log"))


LIMITS: tuple[Callable[[World], None], ...] = (
    full_disk,
    read_only,
    few_files,
    few_processes,
    fork_bomb,
    few_terminals,
    restarted_container,
    hostile_files,
    persons_tmux,
    quota,
)
