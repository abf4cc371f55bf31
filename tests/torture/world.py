"""A private world to torture tmuxjobs in: its jobs, the truth about each, the tally, and what was left behind."""

import contextlib
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from support import PYTHON, Jobs, in_panes

from tmuxjobs import Settings
from tmuxjobs.job_answers import JobStatus
from tmuxjobs.store.disk import MARKER

RECORDS = {"job.json", "run.json", "exit.json", "gone.json", "told"}
RECORDS |= {f"{stream}.{kind}" for stream in ("output", "stderr") for kind in ("log", "gaps")}
SOURCE_BYTES = 8 << 20
SIGNALS = ("KILL", "SEGV", "TERM", "INT", "ABRT")
SETTLE_S = 60.0
CUT = {"tmux-ended": "the tmux server ended", "window-closed": "the window was closed"}


@dataclass
class Tally:
    """One case's figures; `notes` says what each wrong thing was."""

    tries: int = 0
    jobs: int = 0
    lost_bytes: int = 0
    wrong_ends: int = 0
    leftovers: int = 0
    notes: list[str] = field(default_factory=list)

    def wrong(self, note: str) -> None:
        self.wrong_ends += 1
        self.notes.append(note)

    def add(self, other: "Tally") -> None:
        for name in ("tries", "jobs", "lost_bytes", "wrong_ends", "leftovers"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.notes += other.notes

    @property
    def clean(self) -> bool:
        return not (self.lost_bytes or self.wrong_ends or self.leftovers)


@dataclass(frozen=True)
class Asked:
    """A job and the truth about it: which bytes of the source it prints, and how it ends by itself."""

    job_id: str
    start: int
    size: int
    code: int | None
    signal: str | None

    def told_truly(self, status: JobStatus) -> bool:
        return (status.exit_code, status.signal) == (self.code, self.signal)


class World:
    """Everything below one folder: tmux server, home, state and the source that jobs print from."""

    def __init__(
        self, folder: Path, seed: object, tally: Tally | None = None, *, share: float = 1.0, **settings: object
    ) -> None:
        self.folder = folder
        self.share = share
        self.random = random.Random(str(seed))
        self.tally = tally or Tally()
        self.settings: dict[str, object] = {"max_jobs": 200, "keep_windows": 5, "keep_jobs": 300, **settings}
        self.jobs = self.another()
        self.source = folder / "source"
        if not self.source.exists():
            beside = folder / f"source.{os.getpid()}"
            beside.write_bytes(random.Random(7717).randbytes(SOURCE_BYTES))
            beside.replace(self.source)
        self.data = self.source.read_bytes()
        self.own: set[int] = {os.getpid()}

    def another(self, **settings: object) -> Jobs:
        """Another manager of the same jobs."""
        return Jobs.open(Settings.load(**{**self.settings, **settings}))

    # Jobs

    def count(self, number: int) -> int:
        """So many, or this world's share of them."""
        return max(2, round(number * self.share))

    def size(self, largest: int) -> int:
        """Bytes of output: often none or few, seldom `largest`."""
        return self.random.choice([0, 1, int(largest ** self.random.random()), int(largest ** self.random.random())])

    def start(self, *, largest: int = 1 << 20, pause: float = 0.0, jobs: Jobs | None = None, head: str = "") -> Asked:
        """A job that prints bytes of the source, any bytes there are, and ends with a code or by a signal."""
        size = self.size(largest)
        start = self.random.randrange(SOURCE_BYTES - size + 1)
        by_signal = self.random.random() < 0.2
        name = self.random.choice(SIGNALS) if by_signal else None
        code = None if by_signal else self.random.choice([0, 0, 1, 255, self.random.randrange(256)])
        end = f"kill -{name} $$" if by_signal else f"exit {code}"
        half = size // 2 if pause else 0
        # -echo: a terminal answers queries, and among any bytes there are some.
        command = f"stty -opost -echo; {head}"
        if half:
            command += f"tail -c +{start + 1} source | head -c {half}; "
        command += f"sleep {pause:.3f}; " if pause else ""
        if size - half:
            command += f"tail -c +{start + half + 1} source | head -c {size - half}; "
        started = (jobs or self.jobs).execute(command + end, cwd=str(self.folder), name="torture")
        self.tally.jobs += 1
        return Asked(started.job_id, start, size, code, f"SIG{name}" if name else None)

    def steady(self, *, jobs: Jobs | None = None, seconds: float = 1.0, gate: Path | None = None) -> Asked:
        """A job of one process that has begun to print bytes of the source, some at a time, and needs nothing more.

        With a `gate` it ends only once there is that file.
        """
        size = 200_000
        start = self.random.randrange(SOURCE_BYTES - size + 1)
        script = (
            f"import os, time; file = open('source', 'rb'); file.seek({start})\n"
            f"for _ in range(100): os.write(1, file.read({size // 100})); time.sleep({seconds / 100})\n"
            + (f"while not os.path.exists({str(gate)!r}): time.sleep(0.02)\n" if gate else "")
            + "os._exit(5)"
        )
        command = f"stty -opost -echo; exec {PYTHON} -I -S -c {shlex.quote(script)}"
        jobs = jobs or self.jobs
        started = jobs.execute(command, cwd=str(self.folder), name="steady")
        self.tally.jobs += 1
        deadline = time.monotonic() + 60
        while not jobs.status(started.job_id).log_bytes:
            assert time.monotonic() < deadline, f"{started.job_id} prints nothing"
            time.sleep(0.01)
        return Asked(started.job_id, start, size, 5, None)

    def ended(self, job_id: str, jobs: Jobs | None = None, *, timeout: float = 120.0) -> JobStatus:
        deadline = time.monotonic() + timeout
        pause = 0.005
        while True:
            status = (jobs or self.jobs).status(job_id)
            if status.status != "running":
                return status
            if time.monotonic() > deadline:
                raise AssertionError(f"{job_id} still runs after {timeout:.0f} s: {status.text()}")
            time.sleep(pause)
            pause = min(0.1, pause * 1.3)

    def check(
        self, asked: Asked, status: JobStatus | None = None, *, untouched: bool = True, jobs: Jobs | None = None
    ) -> JobStatus:
        """Compare end and log with the truth; `untouched` says that nobody has done anything to the job."""
        status = status or self.ended(asked.job_id, jobs)
        if untouched and not (asked.told_truly(status) and status.log == "complete"):
            self.tally.wrong(f"{asked.job_id}: told {status.detail}, log {status.log}; true is {asked}")
        if status.log == "complete" and status.reason in ("exit", "signal") and asked.told_truly(status):
            lost = self.lost(asked, status)
            if lost:
                self.tally.lost_bytes += lost
                self.tally.notes.append(f"{asked.job_id}: {lost} of {asked.size} bytes are not as printed")
        return status

    def check_cut(self, asked: Asked, reasons: set[str]) -> None:
        """Ended for one of the reasons, or by itself: then the log is whole, or names what took its end with it."""
        status = self.ended(asked.job_id)
        self.check_printed(asked, status)
        named = any(status.log.startswith(f"incomplete: {CUT[reason]}: ") for reason in reasons)
        if status.reason in reasons and status.status == "killed":
            return
        if status.reason in ("exit", "signal") and asked.told_truly(status) and named:
            return
        self.check(asked, status)

    def check_printed(self, asked: Asked, status: JobStatus) -> None:
        """What a log that may be cut off has is what was printed."""
        data = Path(status.log_path).read_bytes()
        if data != self.data[asked.start : asked.start + asked.size][: len(data)]:
            self.tally.lost_bytes += 1
            self.tally.notes.append(f"{asked.job_id}: its log of {len(data)} bytes is not what was printed")

    def lost(self, asked: Asked, status: JobStatus) -> int:
        """How many bytes are missing or wrong in a log that is told to be complete."""
        data = Path(status.log_path).read_bytes()
        true = self.data[asked.start : asked.start + asked.size]
        if data == true:
            return 0
        return max(1, abs(len(true) - len(data)), sum(one != two for one, two in zip(data, true, strict=False)))

    # tmux

    def tmux(self, *arguments: str, check: bool = True, timeout: float = 30.0) -> str:
        argv = ["tmux", "-u", *arguments]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)}: {done.stderr.strip()}")
        return done.stdout

    def server_pid(self) -> int:
        return int(self.tmux("display-message", "-p", "#{pid}"))

    def pane(self, job_id: str) -> str:
        run = self.jobs.host.store.read(job_id).run
        assert run is not None
        return run.pane

    def recorder(self, job_id: str) -> psutil.Process | None:
        return next(iter(in_panes(self.jobs, "recorder", job_id)), None)

    # What is left

    def processes(self) -> Iterator[psutil.Process]:
        """Live processes of this world, the test's own aside: by their environment, or by where they are."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid in self.own or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                mine = process.environ().get("TMUX_TMPDIR") == os.environ["TMUX_TMPDIR"]
                if mine or process.cwd() == str(self.folder):
                    yield process

    def stray_processes(self) -> list[psutil.Process]:
        return [one for one in self.processes() if not self.belongs(one)]

    def belongs(self, process: psutil.Process) -> bool:
        """The tmux server, the pages in our windows and a person's shells may live between jobs."""
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            return (
                re.fullmatch("tmux(:.*)?", process.name()) is not None
                or line in (["cat"], ["sh"], ["/bin/sh"], ["-sh"])
                or any(part in ("finished", "welcome") for part in line)
            )
        return True

    def settle(self) -> None:
        """Wait until no job of this world lives, then count what must not be there."""
        self.jobs.prune()
        deadline = time.monotonic() + SETTLE_S
        while (strays := self.stray_processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        for one in strays:
            with contextlib.suppress(psutil.Error):
                self.left(f"process {one.pid} {' '.join(one.cmdline())[:150]}")
                one.kill()
        while not all(pane.dead for pane in self.jobs.host.tmux.panes().values()) and time.monotonic() < deadline:
            time.sleep(0.1)  # an end is marked after it is recorded
        self.jobs.prune()
        for name in self.jobs.host.store.ids():
            folder = self.jobs.host.store.jobs / name
            if extra := {entry.name for entry in folder.iterdir()} - RECORDS:
                self.left(f"in {name}: {', '.join(sorted(extra))}")
        usual_of = {
            self.jobs.host.store.root: {
                *("callers", "history", "indexed", "jobs", "journal", "lock", "open", "pane", "salt", "sequence"),
                MARKER,
            },
            Path(os.environ["TMPDIR"]): set(),
        }
        for place, usual in usual_of.items():
            if extra := {entry.name for entry in place.iterdir()} - usual:
                self.left(f"in {place.name}: {', '.join(sorted(extra))}")
        if extra := {entry.name for entry in self.jobs.host.store.jobs.iterdir()} - set(self.jobs.host.store.ids()):
            self.left(f"in jobs: {', '.join(sorted(extra))}")
        if extra := set(self.jobs.host.store.index.marked()) - set(self.jobs.host.store.unfinished_ids()):
            self.left(f"in open: {', '.join(sorted(extra))}")
        self.settle_windows()

    def settle_windows(self) -> None:
        panes = self.jobs.host.tmux.panes()
        for name, pane in panes.items():
            if not pane.dead:
                self.left(f"window of {name}, which does not run")
        if len(panes) > int(str(self.settings["keep_windows"])):
            self.left(f"{len(panes)} windows of ended jobs")
        for name in self.tmux("list-buffers", "-F", "#{buffer_name}", check=False).split():
            self.left(f"tmux buffer {name}")

    def left(self, what: str) -> None:
        self.tally.leftovers += 1
        self.tally.notes.append(f"left behind: {what}")

    def close(self) -> None:
        """End this world's tmux server and whatever lives in it."""
        subprocess.run(["tmux", "kill-server"], capture_output=True, timeout=10)
        deadline = time.monotonic() + 10
        while (living := list(self.processes())) and time.monotonic() < deadline:
            time.sleep(0.05)
        for one in living:
            with contextlib.suppress(psutil.Error):
                one.kill()


@contextlib.contextmanager
def load(hogs: int) -> Iterator[None]:
    """That many processes that eat a processor each."""
    eaters = [subprocess.Popen([sys.executable, "-c", "while True: pass"], cwd="/") for _ in range(hogs)]
    try:
        yield
    finally:
        for eater in eaters:
            eater.kill()
            eater.wait()


@contextlib.contextmanager
def slow_disk(folder: Path) -> Iterator[None]:
    """A process that keeps the disk busy with writes that wait for it."""
    target = folder / "home" / "busy"
    script = f"while :; do dd if=/dev/zero of={target} bs=1M count=32 oflag=dsync conv=notrunc 2>/dev/null; done"
    eater = subprocess.Popen(["/bin/sh", "-c", script], cwd="/", start_new_session=True)
    try:
        yield
    finally:
        os.killpg(eater.pid, signal.SIGKILL)
        eater.wait()
        target.unlink(missing_ok=True)


def environment_of(folder: Path) -> dict[str, str]:
    """Make the world's places; the variables that keep everything inside."""
    home = folder / "home"
    places = {f"XDG_{kind}_HOME": home / f"xdg-{kind.lower()}" for kind in ("STATE", "CONFIG", "CACHE", "DATA")}
    places |= {"HOME": home, "TMUX_TMPDIR": folder, "TMPDIR": folder / "tmp"}
    for place in places.values():
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {name: str(place) for name, place in places.items()} | {"SHELL": "/bin/sh"}


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
