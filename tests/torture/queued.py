"""Queued jobs in groups, while runners, movers, servers, the welcome page and tmux are killed at random.

A recorder of its own, a file that each job appends to at its start and its end, tells whether one was lost, ran twice
or ran beyond a limit. By name: `python tests/torture/queued.py 2000 600`, jobs and seconds.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import psutil

from tmuxjobs.contract import OPEN
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Record
from tmuxjobs.settings import Settings
from tmuxjobs.system import processes
from tmuxjobs.verbs.group import group

GROUPS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
MOST, TOTAL = 6, 8
SERVERS = 3
SERVE = (
    '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
    '"clientInfo":{"name":"torture","version":"1"}}}\n{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
)
ASK = """
import os
import sys
from tmuxjobs import Jobs, TmuxjobsError
jobs = Jobs.open()
for line in sys.stdin:
    name, group, command = line.rstrip("\\n").split(" ", 2)
    for _ in range(20):
        try:
            os.write(1, f"{jobs.execute(command, name=name, group=group).job_id}\\n".encode())  # others write there too
            break
        except TmuxjobsError:  # tmux was killed, and nothing is left of it
            pass
"""


class World:
    """The jobs, and who works on them; `killed` counts what was killed."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.folder = folder
        self.log = folder / "recorded"
        self.log.touch()
        self.answered = folder / "answered"
        self.chance = random.Random(seed)
        self.killed: Counter[str] = Counter()
        limits = ",".join(f"{name}={limit}" for name, limit in GROUPS.items())
        bounds = {"MAX_JOBS": MOST, "MAX_JOBS_TOTAL": TOTAL, "GROUPS": limits, "KEEP_JOBS": 100_000, "KEEP_WINDOWS": 3}
        self.env = {**os.environ, **{f"TMUXJOBS_{name}": str(value) for name, value in bounds.items()}}
        self.projects = [folder / "red", folder / "blue"]
        for project in self.projects:
            project.mkdir()
        settings = Settings.load(max_jobs=MOST, max_jobs_total=TOTAL, groups=GROUPS)
        self.host = Host(settings, environ=self.env, cwd=folder)
        self.host.store.prepare()
        self.servers: list[subprocess.Popen[bytes]] = []
        self.asking: list[subprocess.Popen[bytes]] = []

    def ask(self, count: int) -> None:
        """Let a process for each server queue its share, and keep a command line as one more."""
        names = [f"t{number}" for number in range(count)]
        for place in range(SERVERS):
            lines = []
            for name in names[place::SERVERS]:
                group = self.chance.choice(sorted(GROUPS))
                said = f'echo "%s $TMUXJOBS_JOB_ID {group} $EPOCHREALTIME" >> {self.log}'
                lines.append(f"{name} {group} {said % 's'}; sleep 0.{self.chance.randrange(1, 9)}; {said % 'e'}\n")
            source = self.folder / f"asked{place}"
            source.write_text("".join(lines))
            argv, where, null = [sys.executable, "-c", ASK], self.projects[place % 2], subprocess.DEVNULL
            with source.open("rb") as file, self.answered.open("ab") as out:
                self.asking.append(subprocess.Popen(argv, env=self.env, cwd=where, stdin=file, stdout=out, stderr=null))

    def hold(self, *, on: bool) -> None:
        """Let nothing of any group start, or all go on."""
        for name in GROUPS:
            group(self.host, name, pause=on, resume=not on)

    def serve(self) -> None:
        """Keep as many servers alive as there are to be."""
        for one in [one for one in self.servers if one.poll() is not None]:
            self.servers.remove(one)
            end(one)
        while len(self.servers) < SERVERS:
            argv = [sys.executable, "-m", "tmuxjobs", "serve"]
            pipe, null = subprocess.PIPE, subprocess.DEVNULL
            one = subprocess.Popen(argv, env=self.env, cwd=self.projects[0], stdin=pipe, stdout=null, stderr=null)
            assert one.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                one.stdin.write(SERVE.encode())
                one.stdin.flush()
            self.servers.append(one)

    def ours(self, role: str) -> list[psutil.Process]:
        found = []
        programs = f"{self.host.store.pane}/"
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                argv = process.cmdline()
                if argv[6:7] == [role] and argv[0].startswith(programs):
                    found.append(process)
        return found

    def kill(self) -> None:
        """One of them, at random; a runner's process that moves the queue on looks like a runner."""
        what = self.chance.choices(("runner", "server", "welcome", "tmux", "command"), (10, 4, 2, 1, 4))[0]
        if what == "server":
            self.chance.choice(self.servers).kill()
        elif what == "command":
            listing = subprocess.Popen(
                [sys.executable, "-m", "tmuxjobs", "list"], env=self.env, stdout=subprocess.DEVNULL
            )
            time.sleep(self.chance.random())
            listing.kill()
            listing.wait()
        elif what == "tmux":
            if (pid := self.host.tmux.server_pid()) is None:
                return
            os.kill(pid, signal.SIGKILL)
        else:
            victims = self.ours(what)
            if not victims:
                return
            with contextlib.suppress(psutil.Error):
                self.chance.choice(victims).kill()
        self.killed[what] += 1

    def left(self) -> list[str]:
        return [job.id for job in map(self.host.settle, self.records()) if job.running]

    def records(self) -> list[Record]:
        return [record for name in self.host.store.ids() if (record := self.host.store.look(name)) is not None]

    def waiting(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return len(os.listdir(self.host.store.root / "queue" / processes.machine_id()))
        return 0

    def close(self) -> None:
        for one in (*self.servers, *self.asking):
            end(one)
        with contextlib.suppress(Exception):
            if (pid := self.host.tmux.server_pid()) is not None:
                os.kill(pid, signal.SIGKILL)

    # What is to be so

    def verdict(self) -> list[str]:
        """What went wrong, in words."""
        wrong: list[str] = []
        starts: Counter[str] = Counter()
        ends: Counter[str] = Counter()
        moments: list[tuple[float, int, str, str]] = []
        for line in self.log.read_text().splitlines():
            kind, name, group, at = line.split()
            (starts if kind == "s" else ends)[name] += 1
            moments.append((float(at), -1 if kind == "e" else 1, group, name))
        jobs = {job.id: job for job in map(self.host.settle, self.records())}
        wrong += [f"{name} is gone" for name in self.answered.read_text().split() if name not in jobs]
        wrong += [f"{name} ran {count} times" for name, count in starts.items() if count > 1]
        wrong += [f"{job.id} is {job.status} ({job.detail})" for job in jobs.values() if job.status in OPEN]
        for name, job in jobs.items():
            if job.status == "completed" and (starts[name], ends[name]) != (1, 1):
                wrong.append(f"{job.id} completed with {starts[name]} starts and {ends[name]} ends")
            if job.status == "skipped":
                wrong.append(f"{job.id} was skipped: {job.detail}")
        whole = {name for name, job in jobs.items() if job.status == "completed"}
        running: Counter[str] = Counter()
        for at, change, group, name in sorted(moments):
            if name in whole:
                running[group] += change
                running[""] += change
                if running[group] > GROUPS[group]:
                    wrong.append(f"{running[group]} of group {group} at {at}")
                if running[""] > TOTAL:
                    wrong.append(f"{running['']} in all at {at}")
        begun = [name for _, change, group, name in sorted(moments) if change == 1 and group == "one"]
        order = [jobs[name].spec.number for name in begun if name in jobs]
        late = sum(one > other for one, other in pairwise(order))
        # One that was given back, for its runner or tmux was killed, comes later than its place.
        if late > self.killed["runner"] + TOTAL * self.killed["tmux"]:
            wrong.append(f"{late} of group one started out of order")
        return wrong


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def torture(world: World, count: int, bound_s: float, *, pause_s: float) -> list[str]:
    """Queue so many jobs in groups that are held, let them go, and kill at random until none is left or the time over.

    What went wrong, in words.
    """
    deadline = time.monotonic() + bound_s
    world.serve()
    world.hold(on=True)
    world.ask(count)
    held, deepest = True, 0
    while time.monotonic() < deadline:
        world.serve()
        world.kill()
        time.sleep(pause_s * world.chance.random() * 2)
        asked = all(one.poll() is not None for one in world.asking)
        deepest = max(deepest, world.waiting())
        if held and (asked or time.monotonic() > deadline - bound_s / 2):
            held = False
            world.hold(on=False)
        if asked and not world.waiting() and not world.left():
            break
    # Nobody is killed any more: what waits is to go on, with those alone that live.
    for one in world.asking:
        end(one)
    print(f"{deepest} waited at once, and {world.waiting()} wait when nobody is killed any more", flush=True)
    quiet = time.monotonic() + max(240.0, bound_s)
    world.serve()
    while time.monotonic() < quiet and (world.waiting() or world.left()):
        time.sleep(0.5)
    return world.verdict()


def main() -> None:
    count, bound_s = int(sys.argv[1]), float(sys.argv[2])
    folder = Path(tempfile.mkdtemp(prefix="tj-q", dir="/tmp"))
    for name in ("STATE", "CONFIG", "CACHE", "DATA"):
        os.environ[f"XDG_{name}_HOME"] = str(folder / "home" / name)
    os.environ |= {"HOME": str(folder / "home"), "TMUX_TMPDIR": str(folder), "LANG": "C.UTF-8"}
    (folder / "home").mkdir()
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time())
    world = World(folder, seed=seed)
    began = time.monotonic()
    try:
        wrong = torture(world, count, bound_s, pause_s=0.4)
        stood = Counter(job.status for job in map(world.host.settle, world.records()))
        print(f"seed {seed}, {time.monotonic() - began:.0f} s: {dict(stood)}; killed {dict(world.killed)}")
        print("\n".join(wrong) or "nothing wrong")
    finally:
        world.close()
        if "--keep" not in sys.argv:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
