"""What tests share and import by name: waiting for a fact, and a person at a terminal."""

import contextlib
import fcntl
import os
import secrets
import shlex
import shutil
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import psutil
import pytest

import tmuxjobs
from tmuxjobs.answers import Started
from tmuxjobs.contract import IN_OURS, OPEN
from tmuxjobs.hosts.local import Host, Timing
from tmuxjobs.job_answers import JobStatus
from tmuxjobs.models import Caller, Record
from tmuxjobs.store import units

if TYPE_CHECKING:
    from fastmcp import FastMCP

T = TypeVar("T")
PYTHON = shlex.quote(sys.executable)
"""This interpreter, in a line for a shell."""
Tmux = Callable[..., str]


def wait_until(look: Callable[[], T], done: Callable[[T], object] = bool, *, timeout: float = 60) -> T:
    """The first look that is done. Call it by `asyncio.to_thread` where the looked-at thing lives in the event loop."""
    start = time.monotonic()
    while True:
        waited = time.monotonic() - start  # before the look: we may have stood still since the one before
        if done(last := look()):
            return last
        if waited > timeout:
            raise AssertionError(f"not so after {timeout} s; the last look was: {last!r}")
        time.sleep(min(0.005 + waited / 10, 0.05))  # looks take the processor from what they wait for


class Jobs(tmuxjobs.Jobs):
    """The verbs, and beside them the host that tests look into."""

    def __init__(self, host: Host, *, caller: Literal["agent", "person"] | Callable[[], Caller] = "person") -> None:
        super().__init__(host, caller=caller)
        self.host = host

    def called_by(self, caller: Literal["agent", "person"] | Callable[[], Caller]) -> Self:
        """The same jobs, as that caller has them."""
        return type(self)(self.host, caller=caller)


def server_of(jobs: Jobs, **given: Any) -> "FastMCP":
    """The MCP server over them."""
    from tmuxjobs.server.tools import build_server  # noqa: PLC0415 - takes a second to import

    return build_server(jobs.host.settings, opened=lambda _, *, caller: jobs.called_by(caller), **given)


def with_timing(jobs: Jobs, **bounds: float) -> Jobs:
    """The same jobs, by a host with other bounds."""
    host = jobs.host
    return Jobs(Host(host.settings, environ=host.environ, cwd=host.cwd, timing=Timing(**bounds)))


def ended(jobs: Jobs, job_id: str, *, timeout: float = 120) -> JobStatus:
    """The job's status once it does not run any more."""
    return wait_until(lambda: jobs.status(job_id), lambda status: status.status not in OPEN, timeout=timeout)


def in_panes(jobs: Jobs, role: str, job_id: str = "") -> list[psutil.Process]:
    """Our live processes in the panes of these jobs, of that role and, where one is named, for that job."""
    programs = f"{jobs.host.store.pane}/"
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            argv = process.cmdline()
            ours = argv[6:7] == [role] and argv[0].startswith(programs)
            if ours and job_id in ("", process.environ().get(IN_OURS)):
                found.append(process)
    return found


def change_pane(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, change: Callable[[str], str]) -> None:
    """Lets all `Jobs` that are opened from now on run a changed file of the pane's programs."""
    package = Path(shutil.copytree(units.PACKAGE, folder / "tmuxjobs", ignore=shutil.ignore_patterns("__pycache__")))
    path = package / "pane" / name
    path.write_text(change(path.read_text()))
    monkeypatch.setattr(units, "PACKAGE", package)


class NotHere(Exception):
    """This machine does not allow the trial; the text says why."""


def needs(*programs: str) -> None:
    """Skips a test that drives programs which are not ours where one is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


class Group:
    """A control group around one process and what it starts, whose number of processes can be limited."""

    def __init__(self, pid: int) -> None:
        pids = Path("/sys/fs/cgroup/pids")
        self._top = pids if pids.is_dir() else pids.parent
        self._folder = self._top / f"tj{os.getpid()}"
        self.members = self._folder / "cgroup.procs"
        try:
            self._folder.mkdir()
            self.limit(None)
            self.members.write_text(str(pid))
        except OSError:
            with contextlib.suppress(OSError):
                self._folder.rmdir()
            raise NotHere("a control group that limits processes is made by root on Linux") from None

    def limit(self, room: int | None) -> None:
        """Let that many more processes be started; None is no limit."""
        used = int((self._folder / "pids.current").read_text())
        (self._folder / "pids.max").write_text("max" if room is None else str(used + room))

    def close(self) -> None:
        self.limit(None)
        deadline = time.monotonic() + 30
        while left := self.members.read_text().split():
            assert time.monotonic() < deadline, f"{left} cannot be moved"
            for pid in left:
                with contextlib.suppress(OSError):  # it ended
                    (self._top / "cgroup.procs").write_text(pid)
        self._folder.rmdir()


def with_few_terminals(folder: Path, most: int, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run it where there are so many pseudo-terminals, which nobody else sees."""
    place = folder / "pts"
    place.mkdir(exist_ok=True)
    mounts = f"mount -t devpts -o newinstance,ptmxmode=0666,mode=620,max={most} devpts {place}"
    mounts += f" && mount --bind {place} /dev/pts && mount --bind {place}/ptmx /dev/ptmx"

    def run(*inside: str) -> subprocess.CompletedProcess[str]:
        line = ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh", *inside]
        return subprocess.run(line, capture_output=True, text=True, cwd="/")

    if not shutil.which("unshare") or run("true").returncode:
        raise NotHere("terminals of one's own are mounted by root on Linux")
    return run(*argv)


def with_own_pids(*argv: str, stdin: str = "", timeout: float = 250) -> subprocess.CompletedProcess[str]:
    """Run it as the first process of a pid namespace; with it all ends that it has started."""

    def run(*inside: str) -> subprocess.CompletedProcess[str]:
        line = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *inside]
        return subprocess.run(line, input=stdin, capture_output=True, text=True, cwd="/", timeout=timeout)

    if not shutil.which("unshare") or run("true").returncode:
        raise NotHere("a pid namespace of one's own is made by root on Linux")
    return run(*argv)


def log_of(status: JobStatus | Started) -> bytes:
    return Path(status.log_path).read_bytes()


def contents(folder: Path) -> dict[Path, bytes]:
    """Of every file below it; one that goes meanwhile is not there."""
    found = {}
    for place, _, names in os.walk(folder):  # unlike `rglob` it bears a folder that goes
        for path in (Path(place, name) for name in names):
            with contextlib.suppress(OSError):
                if path.is_file():
                    found[path] = path.read_bytes()
    return found


def record_of(jobs: Jobs, job_id: str) -> Record:
    return jobs.host.store.read(job_id)


def own_seconds() -> int:
    """For a `sleep` that `sleeping` tells from those of all other tests, which may run beside this one."""
    return 1000 + secrets.randbelow(10**8)


def sleeping(seconds: int) -> list[psutil.Process]:
    """The live processes that sleep for just that long, which is one job's mark: one of them has no environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline() == ["sleep", str(seconds)] and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


class Person:
    """A real tmux client on a terminal of its own: what a person who attaches is to tmux."""

    # A terminal without its session would get no Ctrl-C; `preexec_fn` is not safe beside threads.
    LAUNCHER = "import os, sys; os.login_tty(0); os.execvp(sys.argv[1], sys.argv[1:])"

    def __init__(self, tmux: Tmux, *, target: str, rows: int, columns: int) -> None:
        self._tmux = tmux
        self._seen = bytearray()
        self._terminal, theirs = os.openpty()
        self.tty = os.ttyname(theirs)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        argv = [sys.executable, "-I", "-S", "-c", self.LAUNCHER, "tmux", "-u", "attach-session", "-t", target]
        self._client = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {"TERM": "xterm-256color"}
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            wait_until(lambda: self._client.poll() is not None or self.attached)
            assert self.attached, f"tmux attach ended: {self.seen!r}"
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._terminal, 65536)
            except OSError:  # Linux says EIO when the last process has left the terminal
                return
            if not piece:
                return
            self._seen += piece

    @property
    def attached(self) -> bool:
        return self._client.poll() is None and self.tty in self._tmux("list-clients", "-F", "#{client_tty}").split()

    @property
    def seen(self) -> str:
        """Everything tmux has sent to this terminal, escapes and all."""
        return self._seen.decode(errors="replace")

    def type(self, text: str) -> None:
        """Key presses: a line ends in `\\r`, Ctrl-C is `\\x03`."""
        os.write(self._terminal, text.encode())

    def screen(self) -> str:
        """The pane this person looks at, as it is now."""
        panes = dict(
            line.split(" ", 1) for line in self._tmux("list-clients", "-F", "#{client_tty} #{pane_id}").splitlines()
        )
        return self._tmux("capture-pane", "-p", "-t", panes[self.tty])

    def detach(self) -> None:
        self._tmux("detach-client", "-t", self.tty)
        self._client.wait(60)

    def close(self) -> None:
        """As when the terminal's window is closed; safe to call again."""
        if self._client.poll() is None:
            self._client.kill()
        self._client.wait(60)
        self._reader.join(60)
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1


class Screen:
    """A person whose whole terminal is seen, status line and all: it is a pane of a second private tmux server."""

    def __init__(self, argv: Sequence[str], *, rows: int, columns: int) -> None:
        self.name = f"screen{columns}x{rows}-{secrets.token_hex(2)}"
        command = shlex.join(["env", "-u", "TMUX", "-u", "TMUX_PANE", *argv])
        size = ["-x", str(columns), "-y", str(rows)]
        keep = ["set-option", "-g", "remain-on-exit", "on"]
        self._tmux("start-server", ";", "set-option", "-g", "status", "off", ";", *keep, ";",
                   "new-session", "-d", "-s", self.name, *size, command)  # fmt: skip

    def _tmux(self, *arguments: str) -> str:
        argv = ["tmux", "-u", "-L", "terminals", "-f", os.devnull, *arguments]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{argv} returned {done.returncode}: {done.stderr}"
        return done.stdout

    def look(self, *options: str) -> str:
        """All that the terminal shows; with `-e` its colours too."""
        return self._tmux("capture-pane", "-p", *options, "-t", self.name)

    def until(self, *parts: str) -> str:
        """The first look that shows all the parts."""
        return wait_until(self.look, lambda text: all(part in text for part in parts))

    def ask(self, name: str) -> str:
        """What that tmux has of this terminal: `pane_title`, `alternate_on`."""
        return self._tmux("display-message", "-p", "-t", self.name, f"#{{{name}}}").strip()

    def set_clipboard(self) -> None:
        """Let programs set the clipboard by an escape, as many terminals do: `buffer_sample` is what it has."""
        self._tmux("set-option", "-s", "set-clipboard", "on")

    def press(self, *keys: str) -> None:
        """Keys in tmux's names: `Enter`, `C-b`, `x`."""
        self._tmux("send-keys", "-t", self.name, *keys)

    def resize(self, rows: int, columns: int) -> None:
        self._tmux("resize-window", "-t", self.name, "-x", str(columns), "-y", str(rows))


_watched: list[tuple[int, str, list[str]]] = []
_hooks: list[object] = []


def _note_look(event: str, arguments: tuple[object, ...]) -> None:
    for thread, folder, seen in _watched:
        path = str(arguments[0]) if event in ("open", "os.listdir", "os.scandir") else ""
        if path.startswith(folder) and threading.get_ident() == thread:
            seen.append(os.path.relpath(path, folder))


@contextlib.contextmanager
def looks_at(folder: Path) -> Iterator[list[str]]:
    """What this thread opens and lists in the folder within it, as the interpreter tells it (PEP 578)."""
    if _note_look not in _hooks:
        _hooks.append(_note_look)
        sys.addaudithook(_note_look)  # it cannot be taken away
    watched = (threading.get_ident(), str(folder), list[str]())
    _watched.append(watched)
    try:
        yield watched[2]
    finally:
        _watched.remove(watched)


def write_finished(jobs: Jobs, count: int, command: str = "true") -> list[str]:
    """Records of that many jobs that have ended, one like the other, as if they had run; their ids, oldest first."""
    store = jobs.host.store
    first = record_of(jobs, ended(jobs, jobs.execute(command, name="first").job_id).job_id)
    assert first.exit is not None
    ids = []
    with store.lock():
        begin = store.next_number()
        # Taken at once: each by itself replaces a file, which takes as long as all else.
        (store.root / "sequence").write_text(str(begin + count - 1))
        for number in range(begin, begin + count):
            ids.append(f"old-{store.index.suffix(number)}")
            job = first.job.model_copy(update={"number": number, "job_id": ids[-1]})
            folder = store.folder(ids[-1])
            folder.mkdir(mode=0o700)
            (folder / "exit.json").write_text(first.exit.model_copy(update={"job": job}).model_dump_json())
        store.callers.write(dict.fromkeys(ids, first.job.caller))
    return ids


def on_another_machine(folder: Path, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it where the machine id, the boot id, the host name, the pids and the tmux server are other ones.

    It has our files, as over NFS; with it all ends that it has started.
    """
    place = folder / "b"
    place.mkdir(exist_ok=True)
    for name, text in (
        ("machine", "0123456789abcdef0123456789abcdef"),
        ("boot", "11111111-2222-4333-8444-555555555555"),
    ):
        (place / name).write_text(f"{text}\n")
    mounts = f"mount --bind {place}/machine /etc/machine-id && hostname machine-b"
    mounts += f" && mount --bind {place}/boot /proc/sys/kernel/random/boot_id"

    def run(*inside: str) -> subprocess.CompletedProcess[str]:
        line = ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
        line += ["sh", "-c", f'{mounts} && exec "$@"', "sh", *inside]
        environment = os.environ | {"TMUX_TMPDIR": str(place)} | variables
        return subprocess.run(line, env=environment, capture_output=True, text=True, cwd="/", timeout=250)

    if not shutil.which("unshare") or run("true").returncode:
        raise NotHere("namespaces of one's own are made by root on Linux")
    return run(*argv)
