"""The agent on another host, which answers our processes: records, bytes of logs, processes, terminals, tmux.

It keeps its client up to date: changes of a job are reported when the kernel notices them, and before every answer.
It decides nothing and stores nothing; without it all jobs run on. It is run by path with `python -I -S`, like
`pane/__main__.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from tmuxjobs import files
from tmuxjobs.contract import FIRST, LAUNCH_S, mark_of
from tmuxjobs.errors import StateError
from tmuxjobs.far import folders, machine
from tmuxjobs.far.machine import FRAME_BYTES, FUNCTIONS, Stream, frame, plain
from tmuxjobs.pane import queue
from tmuxjobs.store import disk
from tmuxjobs.store.index import ID, Index
from tmuxjobs.system import beside, processes
from tmuxjobs.system.watch import watching

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    Facts = dict[str, tuple[int, int, int]]

RECORDS = {
    "job.json",
    "turn.json",
    "run.json",
    "slurm.json",
    "exit.json",
    "gone.json",
    "approval.json",
    "attempts.json",
    "ready.json",
    "output.gaps",
    "stderr.gaps",
}
LOGS = {f"{stem}{end}" for stem in ("output", "stderr") for end in (".log", ".raw", ".first.log")}
SIGNS = {"env", "env.held", "env.ready"}
"""Files of a job that are reported: RECORDS with their content, LOGS with their size, SIGNS only as present."""
BREATH_S = 0.005
"""Seconds between two rounds of news while they follow each other."""
RECHECK_S = 5.0
LOCK_S = 10.0
SILENT_S = 120.0
"""Seconds of silence before the agent ends: its client writes more often, and sshd notices a dead link hours later."""
ASKED_AT_ONCE = 32
RECORD_BYTES = 1 << 24


class Known:
    """A job as it was last reported; one that has ended is checked again only on request."""

    def __init__(self) -> None:
        self.facts: Facts = {}
        self.ended = False
        self.runner: tuple[int, str] | None = None
        self.command: int | None = None
        self.stands = (False, False)
        self.watch = contextlib.ExitStack()
        self.watched: tuple[int, str] | None = None


class Agent:
    def __init__(self, unit: str, out: int) -> None:
        self.unit = unit
        self.state = state = os.path.dirname(os.path.dirname(unit))
        self.jobs = os.path.join(state, "jobs")
        self.index = Index(Path(state))
        self.out = out
        self.known: dict[str, Known] = {}
        self.waits: dict[str, Any] = {"entries": {}, "groups": ""}
        self.lock = threading.RLock()
        self.news = threading.Event()
        self.salt: bytes | None = None
        self.places = threading.Semaphore(ASKED_AT_ONCE)

    # What is reported

    def write(self, fields: dict[str, Any], data: bytes = b"") -> None:
        whole = memoryview(frame(fields, data))
        while whole:
            whole = whole[os.write(self.out, whole) :]

    def hello(self) -> None:
        here, tmux = processes.here(), shutil.which("tmux") or ""
        self.write(
            {
                "state": self.state,
                "mark": mark_of(self.state),
                "unit": self.unit,
                "python": os.path.join(self.unit, "tmuxjobs-job"),
                "here": {"machine": here.machine, "boot": here.boot, "namespace": here.namespace},
                "node": os.uname().nodename,
                "home": os.path.expanduser("~"),
                "environ": dict(os.environ),
                "umask": machine.own_umask(),
                "tmux": tmux,
                "tmux_said": machine.version_of(tmux) if tmux else "",
                "usual": machine.usual(),
                "sockets": machine.sockets(),
                **self.clocks(),
            }
        )

    def clocks(self) -> dict[str, float]:
        return {"monotonic": time.monotonic(), "time": time.time()}

    def follow(self) -> None:
        """Report what has changed, whenever the kernel notices a change."""
        with watching(Path(self.jobs), None, self.news.set):
            while True:
                self.news.wait(RECHECK_S)
                self.news.clear()
                with self.lock:
                    self.tell()
                time.sleep(BREATH_S)

    def tell(self, asked: Iterable[str] = ()) -> None:
        """Report what has changed since the last report; of jobs known to have ended, only those in `asked`."""
        self.tell_queue()
        there = {name for name in os.listdir(self.jobs) if ID.fullmatch(name)}
        for gone in self.known.keys() - there:
            self.known.pop(gone).watch.close()
            self.write({"gone": gone})
        for name in there:
            known = self.known.get(name)
            if known is None or not known.ended or name in asked:
                self.tell_job(name)

    def tell_queue(self) -> None:
        """Report which jobs wait, and after which others, and what a person has set for the groups."""
        before, entries = self.waits["entries"], {}
        for entry in queue.waiting(self.state):
            text = before.get(entry.name)
            entries[entry.name] = " ".join(queue.befores(self.state, entry)) if text is None else text
        groups = disk.content(Path(self.state, "groups.json")) or b""
        waits = {"entries": entries, "groups": groups.decode(errors="replace")}
        if waits != self.waits:
            self.waits = waits
            self.write({"waits": waits})

    def tell_job(self, job_id: str) -> None:
        known, looked_at = self.known.setdefault(job_id, Known()), time.time_ns()
        facts = self.facts_of(job_id)
        if "job.json" not in facts and "exit.json" not in facts:
            return  # it is being removed
        self.watch(job_id, known)
        changed = {name: fact for name, fact in facts.items() if known.facts.get(name) != fact}
        without = [name for name in known.facts if name not in facts]
        report: dict[str, Any] = {}
        parts = []
        for name, fact in changed.items():
            data = b""
            if name in RECORDS:
                try:
                    data = files.read(os.path.join(self.jobs, job_id, name), RECORD_BYTES)
                except (OSError, files.Odd):  # gone, or not a file of ours
                    facts.pop(name)
                    continue
            if name == "run.json":
                with contextlib.suppress(files.Odd):
                    run = files.fields_of(data)
                    known.runner = (int(run["pid"]), str(run["start"]))
                    known.command = run.get("command_pid")
            report[name] = [fact[0], fact[1], len(data) if name in RECORDS else -1]
            parts.append(data)
        alive = known.runner is not None and "exit.json" not in facts and processes.is_alive(*known.runner)
        if known.runner is not None and not alive and "exit.json" not in facts and self.has_ended(job_id):
            self.tell_job(job_id)  # it has ended between the two checks
            return
        stopped = alive and known.command is not None and beside.stopped(known.command)
        if report or without or (alive, stopped) != known.stands:
            runner = known.runner[0] if known.runner else None
            stands: dict[str, Any] = {"runner": runner, "alive": alive, "stopped": stopped, "whole": not known.facts}
            stands |= {"ended": "exit.json" in facts, "at": looked_at}
            self.write({"job": job_id, "files": report, "without": without, **stands}, b"".join(parts))
        known.facts, known.stands, known.ended = facts, (alive, stopped), "exit.json" in facts
        if known.ended:
            known.watch.close()
        elif known.runner is not None and known.watched != known.runner:
            self.watch(job_id, known)

    def has_ended(self, job_id: str) -> bool:
        return os.path.lexists(os.path.join(self.jobs, job_id, "exit.json"))

    def watch(self, job_id: str, known: Known) -> None:
        if known.ended or (known.watched is not None and known.watched == (known.runner or (0, ""))):
            return
        known.watch.close()
        known.watched = known.runner or (0, "")
        pid = known.runner[0] if known.runner else None
        known.watch.enter_context(watching(Path(self.jobs, job_id), pid, self.news.set))

    def facts_of(self, job_id: str) -> Facts:
        found: Facts = {}
        with contextlib.suppress(OSError):
            for entry in os.scandir(os.path.join(self.jobs, job_id)):
                if entry.name in RECORDS or entry.name in LOGS or entry.name in SIGNS:
                    with contextlib.suppress(OSError):
                        facts = entry.stat(follow_symlinks=False)
                        found[entry.name] = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
        return found

    # What is asked

    def serve(self, asked: Stream) -> None:
        """Answer questions until the client is gone, each in a thread: one may wait for a tmux that hangs."""
        with contextlib.suppress(EOFError, TimeoutError):
            while True:
                fields, data = asked.frame()
                if "do" not in fields:
                    continue  # a sign of life
                self.places.acquire()
                threading.Thread(target=self.answer, args=(fields, data), daemon=True).start()

    def answer(self, fields: dict[str, Any], data: bytes) -> None:
        """Answer a question, after a report of what has changed; what continues after that is answered when it ends."""
        try:
            said = outcome(lambda: getattr(self, f"do_{fields['do']}")(data, **fields.get("with", {})))
            more, then = said.pop("data", b""), said.pop("then", None)
            with self.lock:
                with contextlib.suppress(FileNotFoundError):
                    self.tell(fields.get("jobs", ()))
                self.write({"id": fields["id"], **said}, more)
            if then is not None:
                said = outcome(then)
                more = said.pop("data", b"")
                with self.lock:
                    self.write({"then": fields["id"], **said}, more)
        finally:
            self.places.release()

    def do_begin(self, _: bytes, *, have: dict[str, int]) -> dict[str, Any]:
        """Begin to report, except on ended jobs whose record the client has already."""
        with self.lock:
            for job_id, at in have.items():
                with contextlib.suppress(OSError):
                    if os.lstat(os.path.join(self.jobs, job_id, "exit.json")).st_mtime_ns == at:
                        known = self.known[job_id] = Known()
                        known.ended = True
        threading.Thread(target=self.follow, daemon=True).start()
        return {"ids": list(filter(ID.fullmatch, os.listdir(self.jobs))), "salt": self.its_salt()}

    def its_salt(self) -> str:
        """The salt of this host's ids."""
        return (disk.content(Path(self.state, "salt")) or b"").decode("ascii", "replace")

    def do_sync(self, _: bytes) -> dict[str, Any]:
        return self.clocks()

    def do_read(self, _: bytes, *, job_id: str, name: str, at: int, size: int) -> dict[str, Any]:
        """Bytes of a log; fewer where it ends."""
        if name not in LOGS:
            raise PermissionError(1, "is not a log", name)
        try:
            fd = files.opened(os.path.join(self.folder(job_id), name))
        except FileNotFoundError:
            return {}
        except files.Odd as odd:
            raise StateError(f"'{name}' of job '{job_id}' {odd}.") from None
        try:
            return {"data": os.pread(fd, min(size, FRAME_BYTES), at)}
        finally:
            os.close(fd)

    def do_run(self, data: bytes, *, argv: list[str], env: dict[str, str], timeout: float) -> dict[str, Any]:
        """Run a command; `late` says that it was ended because it took longer than its bound."""
        environ = {key: value for key, value in os.environ.items() if key not in ("TMUX", "TMUX_PANE")}
        source = subprocess.PIPE if data else subprocess.DEVNULL
        with subprocess.Popen(
            argv, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**environ, **env}, cwd="/"
        ) as process:
            try:
                out, err = process.communicate(data or None, timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                return {"late": True}
        return {"code": process.returncode, "data": out, "said": err.decode(errors="backslashreplace")}

    def do_call(self, _: bytes, *, name: str, given: list[Any], named: dict[str, Any]) -> dict[str, Any]:
        return {"value": plain(FUNCTIONS[name](*given, **named))}

    def do_start(
        self, data: bytes, *, short: str, env: int, held: bool, elsewhere: list[str], socket: str
    ) -> dict[str, Any]:
        """Make a job, and then open its window unless it waits for its turn; the result of that is reported later."""
        job = files.fields_of(data[env:])
        if not job.get("adopted"):
            folders.refuse(job)
        with self.locked():
            self.clear_marks()
            made = folders.made(self.index, job, data[:env], short=short, elsewhere=elsewhere, held=held)
        opens = made and not job.get("queue") and not job.get("adopted")
        argv = folders.window(self.state, job, socket) if opens else []
        then = functools.partial(self.do_run, b"", argv=argv, env={}, timeout=LAUNCH_S) if argv else None
        return {"job_id": job["job_id"], "salt": self.its_salt(), "opens": bool(argv), "then": then}

    def again(self, job_id: str) -> str:
        """Start the job anew that has ended, and give the new one's id; raises StateError, OSError and Odd."""
        job, env = folders.anew(self.folder(job_id))
        folders.refuse(job)
        with self.locked():
            folders.made(self.index, job, env, short=job_id.rpartition("-")[0], elsewhere=(), held=False)
        socket = os.path.basename(os.environ["TMUX"].rsplit(",", 2)[0])
        opened = self.do_run(b"", argv=folders.window(self.state, job, socket), env={}, timeout=LAUNCH_S)
        if opened.get("code") != 0:
            self.do_remove(b"", job_ids=[job["job_id"]])
            raise StateError(f"tmux opened no window: {opened.get('said', '').strip() or 'it does not answer'}")
        return str(job["job_id"])

    def do_answer(self, _: bytes, *, job_id: str, answer: dict[str, Any]) -> dict[str, Any]:
        """Record whether a job that a person must approve may run; the first answer counts."""
        return {"first": files.write_once(os.path.join(self.folder(job_id), "approval.json"), answer)}

    def do_fifo(self, _: bytes, *, job_id: str) -> dict[str, Any]:
        """Make the FIFO of a recorder that starts along with the runner, and answer its path."""
        path = os.path.join(self.folder(job_id), FIRST)
        with contextlib.suppress(OSError):  # the runner says what cannot be made here
            files.new_fifo(path)
        return {"path": path}

    def do_write(self, data: bytes, *, job_id: str, name: str) -> dict[str, Any]:
        if name not in ("stop.json", "pressed.json"):
            raise PermissionError(1, "is not a request to a runner", name)
        disk.replace(Path(self.state), Path(self.folder(job_id), name), data)
        return {}

    def do_unlink(self, _: bytes, *, job_id: str, name: str) -> dict[str, Any]:
        if name not in disk.TRANSIENT:
            raise PermissionError(1, "is not a request to a runner", name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.folder(job_id), name))
        return {}

    def do_let_go(self, _: bytes, *, job_id: str) -> dict[str, Any]:
        os.rename(os.path.join(self.folder(job_id), "env.ready"), os.path.join(self.folder(job_id), "env"))
        return {}

    def do_remove(self, _: bytes, *, job_ids: list[str]) -> dict[str, Any]:
        with self.locked():
            for job_id in job_ids:
                folder = Path(self.folder(job_id))
                if disk.owns(folder):
                    disk.discard(Path(self.state), folder)
                if not disk.is_there(str(folder), "job.json"):
                    self.unmark(job_id)
        return {}

    def do_tidy(self, _: bytes) -> dict[str, Any]:
        with self.locked():
            left = folders.tidy(self.state, self.unit)
        threading.Thread(target=folders.remove, args=(left,), daemon=True).start()
        return {}

    def clear_marks(self) -> None:
        """Remove what processes that were killed while making a job have left; call it under the lock."""
        for name in self.index.marked(processes.machine_id()):
            if not any(os.path.lexists(os.path.join(self.jobs, name, one)) for one in ("job.json", "exit.json")):
                for place in (f".new-{name}", f".removed-{name}"):
                    disk.discard(Path(self.state), Path(self.jobs, place))
                self.index.unmark(name)

    def unmark(self, job_id: str) -> None:
        self.index.unmark(job_id)
        queue.leave(self.state, job_id)

    def folder(self, job_id: str) -> str:
        if not ID.fullmatch(job_id):
            raise PermissionError(1, "is not a job", job_id)
        return os.path.join(self.jobs, job_id)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock over starts and removals, as `Store.lock` does."""
        fd = files.opened(os.path.join(self.state, "lock"), os.O_RDWR | os.O_CREAT)
        try:
            deadline = time.monotonic() + LOCK_S
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise StateError(f"Another tmuxjobs has held the lock for {LOCK_S:.0f} s.") from None
                    time.sleep(0.005)
            yield
        finally:
            os.close(fd)


def outcome(act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `act` returns, or why it failed, as {"fault": ...}."""
    try:
        return act()
    except StateError as error:
        return {"fault": str(error)}
    except OSError as error:
        return {"fault": f"{error.strerror or type(error).__name__}: {error.filename}".removesuffix(": None")}
    except Exception as error:  # noqa: BLE001 - the client waits for an answer
        return {"fault": f"a bug in the agent: {type(error).__name__} {error}"}


def main(unit: str) -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # what is printed by mistake is not an answer
    agent = Agent(unit, out)
    agent.hello()
    with contextlib.suppress(BrokenPipeError):
        agent.serve(Stream(0, silent_s=SILENT_S))
    os._exit(0)


def again(unit: str, job_id: str) -> None:
    """At a key in its window."""
    try:
        print(json.dumps({"job_id": Agent(unit, 2).again(job_id)}))
    except (StateError, OSError, files.Odd) as error:
        sys.exit(f"tmuxjobs: {error}")
