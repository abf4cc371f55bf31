"""RemoteHost: another machine's jobs as they stand, over one ssh, as `local.Host` has those of this machine.

The jobs' own files are there. Here is a mirror: the records as last reported, and for each log a file of its size
without its bytes, which are read over the wire. The agent on the other side keeps the mirror up to date, so that
waiting for a change of a job means waiting for a change of its mirror.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from tmuxjobs.errors import HostError, InvalidInput, StateError, TmuxError
from tmuxjobs.far.agent import LOGS, RECORDS, SIGNS
from tmuxjobs.hosts.connection import Connection
from tmuxjobs.hosts.local import Host
from tmuxjobs.hosts.remote import FarMachine, FarOpening, FarTmux, Mirror
from tmuxjobs.models import JobSpec, ProcessRecord, Record, RunRecord
from tmuxjobs.states import Job, State, Unreachable
from tmuxjobs.store import disk, units
from tmuxjobs.text.log import readers
from tmuxjobs.tmux.panes import Pane
from tmuxjobs.tmux.session import Opening

RETRY_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between attempts to reach a host again; the last one repeats."""
HELLO = "hello.json"
MIRRORED = RECORDS | LOGS | SIGNS
UNREACHABLE, TRIED = "unreachable", "tried"
TRIED_S = 10.0
ENDING_S = 2.0
TRIES = 2
AGAIN_S = 5.0
"""Seconds within which the runner of a job whose start was cut off must be there."""
AGAIN = {"sync", "read", "start"}
"""What may be asked again when the connection is lost meanwhile: the kept one may just be ending, too."""


class RemoteHost(Host):
    """One host by its name in the person's ssh configuration."""

    def __init__(self, home: Host, name: str) -> None:
        given = home.settings.hosts.get(name)
        mirror = home.settings.state_dir / "hosts" / name
        settings = home.settings.model_copy(update={"state_dir": mirror, "on_end": None, "max_total_size": None})
        super().__init__(settings, environ={}, cwd=Path("/"), timing=home.timing)
        self.home = home
        self.name = name
        self.given_state = given.state_dir if given else ""
        self.ssh = shlex.split(home.settings.ssh)
        self.facts: dict[str, Any] = {"here": {"machine": "", "boot": "", "namespace": ""}, "state": "", "tmux": ""}
        self.machine: Any = FarMachine(self.ask, self.facts)
        self.store = self.mirror = Mirror(mirror, self.ask, home.store, self.machine.monotonic)
        self.journal, self.history = home.journal, home.history
        self.tmux = FarTmux(self.ask, self.known, name, settings, home.timing.tmux)
        self.living: dict[str, tuple[int | None, bool]] = {}
        self.held_up: dict[str, bool] = {}
        self._openings: dict[str, FarOpening] = {}
        self._connection: Connection | None = None
        self._connecting = threading.RLock()
        self._trying = threading.Lock()
        self._retry_at = 0.0
        self._why = ""
        self._closed = False
        with contextlib.suppress(OSError, ValueError):
            self.facts.update(json.loads((mirror / HELLO).read_text()))
        readers.setdefault(mirror, self.read_log)

    # The connection

    def connection(self) -> Connection:
        """The open connection, or a new one; raises HostError, at once if an attempt has failed just before."""
        with self._connecting:
            if self._closed:  # a late thread must not connect again
                raise HostError(f"The connection to host '{self.name}' is closed.")
            if self._connection is not None and not self._connection.lost.is_set():
                return self._connection
            if time.monotonic() < self._retry_at:
                raise HostError(self._why)
            self.store.prepare()
            began = time.monotonic()
            try:
                try:
                    self._connect()
                except HostError:
                    if time.monotonic() - began > ENDING_S:
                        raise
                    self._connect()  # perhaps the kept connection was just ending
            except HostError as error:
                self._retry_at = time.monotonic() + RETRY_S[0]
                self._why = str(error)
                self._note_unreachable()
                with contextlib.suppress(OSError):
                    (self.store.root / TRIED).touch(mode=0o600)
                raise
            self._retry_at = 0.0
            assert self._connection is not None
            return self._connection

    def _connect(self) -> None:
        connection = Connection(self.name, self.ssh, self.given_state, on_report=self.on_report)
        hello = connection.hello
        self.machine.ahead = hello["monotonic"] - time.monotonic()
        ahead_s = hello["time"] - time.time()
        self.mirror.skew_ns = int(ahead_s * 1e9)
        # A hello that came late, over a slow line or to a busy machine, tells an old time.
        is_old = ahead_s <= 0 <= hello["time"] - connection.asked_at
        self.ahead_s = ahead_s if abs(ahead_s) > 1 and not is_old else 0.0
        self.environ = hello.pop("environ")
        self.machine.take_usual(hello.pop("usual"))
        self.cwd = Path(hello["home"])
        self.tmux.root = hello["mark"]
        self.facts.update(hello)
        have = {}
        before = self.store.ids()
        for job_id in before:
            with contextlib.suppress(OSError):
                have[job_id] = (self.store.jobs / job_id / "exit.json").stat().st_mtime_ns
        try:
            fields, _ = connection.ask("begin", bound_s=60, have=have)
        except HostError:
            connection.close()
            raise
        # What another process of ours has started since is not in that answer.
        for gone in set(before) - set(fields["ids"]):
            self.mirror.forget(gone)
        self.mirror.take_salt(fields["salt"])
        disk.replace(self.store.root, self.store.root / HELLO, json.dumps(hello).encode())
        self._connection = connection
        with contextlib.suppress(OSError):
            (self.store.root / TRIED).unlink(missing_ok=True)
            (self.store.root / UNREACHABLE).unlink()

    def ask(self, do: str, data: bytes = b"", **given: Any) -> tuple[dict[str, Any], bytes]:
        readers.setdefault(self.store.root, self.read_log)  # another instance in this process may have been closed
        for _ in range(TRIES if do in AGAIN else 0):
            connection = self.connection()
            try:
                return connection.ask(do, data, **given)
            except HostError:
                if not connection.lost.is_set():
                    raise
        return self.connection().ask(do, data, **given)

    def known(self) -> dict[str, Any]:
        """What the agent reported of the machine when last connected; raises HostError while it cannot be reached."""
        self.connection()
        return self.facts

    def reached(self) -> Self:
        self.ask("sync")
        return self

    def connected(self) -> Self:
        self.connection()
        return self

    def make(
        self, short: str, spec: Callable[[int, str], JobSpec], env: Mapping[str, str], *, held: bool = False
    ) -> JobSpec:
        """Create a job in one round trip: it gets its number and id there, and its window is opened meanwhile."""
        there = [one.store for one in (self.home, *self.home.others()) if one is not self]
        elsewhere = [job_id for store in there for job_id in store.ids() if job_id.rpartition("-")[0] == short]
        opening = FarOpening(self.name)
        environment = b"\0".join(os.fsencode(f"{key}={value}") for key, value in env.items())
        asked = {"short": short, "env": len(environment), "held": held, "elsewhere": elsewhere}
        data = environment + spec(1, f"{short}-0000").model_dump_json().encode()
        try:
            fields, _ = self.ask("start", data, then=opening.take, socket=self.settings.socket_name, **asked)
        except HostError:
            self.machine.usual.clear()  # what was known of folders and shells may be why
            raise
        self.mirror.take_salt(fields["salt"])
        made = self.store.read(fields["job_id"]).job
        if made.queue is not None or made.adopted is not None:
            return made
        self._openings[made.job_id] = opening
        if not fields["opens"]:
            # An agent that was cut off has made it, and may have opened its window or not.
            cut = threading.Timer(AGAIN_S, opening.take, ({"lost": "the job's start was cut off"}, b""))
            cut.daemon = True
            cut.start()
        return made

    def run_apart(self, argv: Sequence[str], env: Mapping[str, str], bound_s: float) -> None:
        apart = ["sh", "-c", 'exec "$@" </dev/null >/dev/null 2>&1', "sh", *argv]
        fields, _ = self.ask("run", argv=apart, env=dict(env), timeout=bound_s, bound_s=bound_s)
        if fields.get("code") != 0:
            raise HostError(f"'{argv[0]}' failed on host '{self.name}'.")

    def answer(self, job_id: str, answer: Mapping[str, Any]) -> bool:
        return bool(self.ask("answer", jobs=[job_id], job_id=job_id, answer=dict(answer))[0]["first"])

    def opening(self, job_id: str, answered: Callable[[], None]) -> Opening | None:
        opening = self._openings.pop(job_id, None)
        if opening is not None:
            opening.answered = answered
        return opening

    def fresh(self, *job_ids: str) -> bool:
        """Whether the mirror is up to date; a host that cannot be reached is not an error."""
        try:
            if self.is_reached or not self._was_just_tried():
                self.ask("sync", jobs=job_ids)
                return True
        except HostError:
            pass
        self._reach_soon(RETRY_S[0])  # this process may go on to wait for a job there
        return False

    def _was_just_tried(self) -> bool:
        """Whether it could not be reached a moment ago, by any of our processes."""
        with contextlib.suppress(OSError):
            return time.time() - (self.store.root / TRIED).stat().st_mtime < TRIED_S
        return False

    def close(self) -> None:
        self._closed = True
        if readers.get(self.store.root) == self.read_log:
            del readers[self.store.root]
        with self._connecting:
            if self._connection is not None:
                self._connection.lost.set()  # this is not a loss, and none is to be reported
                self._connection.close()

    @property
    def is_reached(self) -> bool:
        return self._connection is not None and not self._connection.lost.is_set()

    def _note_unreachable(self) -> None:
        with contextlib.suppress(OSError):
            os.close(os.open(self.store.root / UNREACHABLE, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    @property
    def unreachable_at(self) -> datetime:
        """Since when none of our processes has reached it."""
        with contextlib.suppress(OSError):
            return datetime.fromtimestamp((self.store.root / UNREACHABLE).stat().st_mtime, UTC)
        return datetime.now(UTC)

    # The mirror

    def on_report(self, fields: dict[str, Any], data: bytes) -> None:
        """Take in a report of the agent; runs in the connection's thread, which must not ask."""
        if "job" in fields:
            self._on_job_report(fields["job"], fields, data)
        elif "waits" in fields:
            self.mirror.lay_queue(**fields["waits"])
        elif "gone" in fields:
            self.mirror.forget(fields["gone"])
        elif "lost" in fields:
            self._note_unreachable()
            self._wake_all()
            self._reach_soon(0.0)

    def _reach_soon(self, pause_s: float) -> None:
        """Try to reach the host again while a job may run there, so that all that wait for it are notified early."""
        if self._trying.acquire(blocking=False):
            again = threading.Thread(target=self._reach_again, args=(pause_s,), daemon=True)
            again.name = f"tmuxjobs-{self.name}-again"
            again.start()

    def _reach_again(self, pause_s: float) -> None:
        tries = 0
        time.sleep(pause_s)
        while self._is_missed:
            with contextlib.suppress(HostError):
                self.connection()
                self._wake_all()
                break
            time.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
            tries += 1
        self._trying.release()
        if self._is_missed:  # it was lost again just now
            self._reach_soon(RETRY_S[0])

    @property
    def _is_missed(self) -> bool:
        """Whether it is out of reach, and a job may run there."""
        if self._closed or self.is_reached:
            return False
        return any(not self.store.has_ended(one) for one in self.store.ids())

    def _wake_all(self) -> None:
        for job_id in [one for one in self.store.ids() if not self.store.has_ended(one)]:
            self.mirror.wake(self.store.jobs / job_id)

    def _on_job_report(self, job_id: str, fields: dict[str, Any], data: bytes) -> None:
        if not fields["ended"] and self.store.has_ended(job_id):
            return  # another of our processes, which writes into the mirror too, has had a later report
        folder = self.store.folder(job_id)
        folder.mkdir(mode=0o700, exist_ok=True)
        lives = bool(fields["alive"])
        was = self.living.get(job_id, (None, False))[1]
        if lives:
            self.living[job_id] = fields["runner"], True
        self.held_up[job_id] = bool(fields.get("stopped"))
        parts = {}
        at = 0
        for name, (mtime_ns, size, has) in fields["files"].items():
            parts[name] = mtime_ns, size, data[at : at + has] if has >= 0 else None
            at += max(0, has)
        for name in sorted(parts, key=lambda one: (one == "exit.json", one == "job.json")):
            self.mirror.lay(folder / name, *parts[name])
        others = set(os.listdir(folder)) & MIRRORED - parts.keys() if fields["whole"] else set()
        for name in {*fields["without"], *others} - {"exit.json"}:  # which may have come just now
            path = folder / os.path.basename(name)
            with contextlib.suppress(OSError):
                if name not in LOGS or path.stat().st_mtime_ns + self.mirror.skew_ns <= fields["at"]:
                    path.unlink()
        self.living[job_id] = fields["runner"], lives
        if was and not lives:
            self.mirror.wake(folder)

    def read_log(self, path: Path, at: int, size: int) -> bytes:
        """Bytes of a log, over the wire; raises StateError."""
        try:
            return self.ask("read", job_id=path.parent.name, name=path.name, at=at, size=size)[1]
        except HostError as error:
            raise StateError(f"{error} The job's output is on that host.") from None

    def attach_argv(self, job_id: str | None = None) -> list[str]:
        """As on this machine, but by ssh with a terminal; inside tmux, in a window of its own."""
        self.reached().ensure_session()
        pane = self.tmux.panes().get(job_id) if job_id is not None else None
        if job_id is not None and pane is None:
            self.store.read(job_id)
            raise TmuxError(
                f"The window of job '{job_id}' is closed; `tmuxjobs output {job_id}` shows what it printed."
            )
        argv = self.connection().argv("-t", self._attach(pane))
        if not self.home.environ.get("TMUX"):
            return argv
        return [self.home.tmux.binary, "new-window", "-n", job_id or self.name, "--", *argv]

    def _attach(self, pane: Pane | None) -> str:
        """The command line to run there, for any login shell that knows `exec env`."""
        names = [name for name in ("TMUX_TMPDIR", "PATH") if name in self.environ]
        target = pane.pane_id if pane else f"={self.settings.session}:"
        argv = ["env", *(f"{name}={self.environ[name]}" for name in names), self.tmux.binary, "-u"]
        return "exec " + shlex.join([*argv, f"-L{self.settings.socket_name}", "attach-session", "-t", target])

    # As it stands

    def unit(self) -> units.Unit:
        facts = self.known()
        folder = Path(facts["unit"])
        return units.Unit(str(folder), facts["python"], units.main_of(folder))

    def lives(self, record: Record) -> bool:
        """Whether our agent says so, or has not reported this runner yet, of which another of our processes knows."""
        runner, alive = self.living.get(record.id, (None, False))
        return record.run is not None and (alive or runner != record.run.pid)

    def state(self, record: Record) -> State:
        if record.exit is None and not self.is_reached:
            return Unreachable(host=self.name, since=self.unreachable_at)
        return super().state(record)

    def is_here(self, run: RunRecord | None) -> bool:
        return self.is_reached and super().is_here(run)

    def is_stopped(self, record: Record) -> bool:
        return self.is_reached and self.held_up.get(record.id, False)

    @property
    def root(self) -> str:
        return str(self.facts["state"])

    def log_path(self, path: Path) -> str:
        """The path on the other host."""
        return f"{self.facts['state']}/{path.relative_to(self.store.root)}"

    def attach_line(self, job: Job) -> str:
        return f"tmuxjobs attach {job.id}"

    def this_process(self) -> ProcessRecord:
        raise InvalidInput(f"A job on host '{self.name}' cannot end with this process; start it with keep=true.")

    @property
    def umask(self) -> int:
        return int(self.facts["umask"])

    @property
    def node(self) -> str:
        return str(self.facts["node"])
