"""The machine, the tmux server and the records of another host: what `Machine`, `Tmux` and `Store` are here.

Every request goes over a connection. `Mirror` holds the records as last reported, and for each log a file of its size
without bytes; writes go to the other host, where the agent does them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, get_type_hints

from pydantic import TypeAdapter

from tmuxjobs.contract import argument
from tmuxjobs.errors import HostError, TmuxError
from tmuxjobs.far import machine
from tmuxjobs.far.machine import Machine, plain
from tmuxjobs.outcome import Here
from tmuxjobs.pane import queue
from tmuxjobs.pane.turns import MOVE_S
from tmuxjobs.settings import Settings
from tmuxjobs.store import disk
from tmuxjobs.store.store import Store
from tmuxjobs.tmux.session import Opening, Tmux, check_version

FORGET_S = 60.0
REMOVE_S = 60.0
TELLING_S = 10.0
ALIVE = ".alive"
P = ParamSpec("P")
R = TypeVar("R")


class Ask(Protocol):
    """Asks the agent; returns the fields of its answer, and the bytes. Raises HostError."""

    def __call__(self, do: str, data: bytes = b"", **given: Any) -> tuple[dict[str, Any], bytes]: ...


def _far(function: Callable[P, R], *, bound_s: float = 0.0) -> Callable[Concatenate[FarMachine, P], R]:
    """A method that calls the same function on the other machine, where it may take `bound_s` seconds."""

    @functools.cache
    def adapter() -> TypeAdapter[R]:
        # Its arguments' types may be imported only for type checkers.
        returned = type("Returned", (), {"__annotations__": {"return": function.__annotations__["return"]}})
        return TypeAdapter(get_type_hints(returned, function.__globals__)["return"])

    @functools.wraps(function)
    def method(self: FarMachine, /, *args: P.args, **named: P.kwargs) -> R:
        given = {"name": function.__name__, "given": plain(args), "named": plain(named)}
        fields, _ = self.ask("call", bound_s=bound_s, **given)
        return adapter().validate_python(fields["value"])

    return method


class FarMachine:
    """What `Machine` has, for the other machine."""

    as_now = _far(Machine.as_now)
    answers = _far(Machine.answers)
    below = _far(Machine.below)
    cancel = _far(Machine.cancel)
    change = _far(Machine.change)
    change_group = _far(Machine.change_group)
    free_bytes = _far(Machine.free_bytes)
    fronts = _far(Machine.fronts)
    asking = _far(Machine.asking)
    handlers = _far(Machine.handlers)
    look = _far(Machine.look)
    listening = _far(Machine.listening)
    move = _far(machine.move, bound_s=MOVE_S)
    places = _far(machine.places)
    send = _far(Machine.send)
    start = _far(Machine.start, bound_s=MOVE_S)
    start_of = _far(Machine.start_of)
    alive = _far(Machine.alive)
    set_echo = _far(Machine.set_echo)
    terminal = _far(Machine.terminal)
    unread = _far(Machine.unread)
    usage = _far(Machine.usage)
    of_jobs = _far(Machine.of_jobs)
    of_pane = _far(Machine.of_pane)
    reads_by_script = _far(Machine.reads_by_script)
    real = _far(Machine.real)
    runners = _far(Machine.runners)

    _folder = _far(Machine.folder)
    _program = _far(Machine.program)
    _usual_locale = _far(Machine.usual_locale)

    place = _far(machine.place)
    forget_files = _far(machine.forget_files, bound_s=FORGET_S)

    def __init__(self, ask: Ask, facts: dict[str, Any]) -> None:
        self.ask = ask
        self.facts = facts
        self.ahead = 0.0
        self.usual: dict[str, Any] = {}
        """Answers that hold until a start is refused: the next start asks again."""

    def folder(self, base: str, wanted: str) -> list[str]:
        """As `Machine.folder`; for a folder that is not there it is asked each time, as a person may make it."""
        return list(self._once(FarMachine._folder, base, wanted, holds=lambda found: not found[1]))

    def program(self, name: str, path: str) -> str:
        return str(self._once(FarMachine._program, name, path, holds=bool))

    def usual_locale(self) -> str:
        return str(self._once(FarMachine._usual_locale, holds=lambda _: True))

    def _once(self, ask: Callable[..., Any], *given: str, holds: Callable[[Any], object]) -> Any:
        key = json.dumps([ask.__name__, given])
        if key not in self.usual:
            answer = ask(self, *given)
            if not holds(answer):
                return answer
            self.usual[key] = answer
        return self.usual[key]

    def take_usual(self, answers: list[list[Any]]) -> None:
        """Keep the usual answers that a new connection has reported."""
        self.usual = {json.dumps([name, given]): answer for name, given, answer in answers}

    def here(self) -> Here:
        return Here(**self.facts["here"])

    def monotonic(self) -> float:
        """The other machine's clock, as exactly as a round trip lets us know."""
        return time.monotonic() + self.ahead


class FarServer:
    """The other machine's tmux: each call is one bounded command over the connection."""

    def __init__(self, ask: Ask, name: str, socket_name: str, binary: str, call_s: float) -> None:
        self._ask = ask
        self._name = name
        self._socket_name = socket_name
        self._binary = binary
        self._call_s = call_s

    def cmd(
        self, cmd: str, *args: Any, target: str | int | None = None, stdin: bytes = b"", timeout: float | None = None
    ) -> Any:
        from tmuxjobs.tmux.command import Done  # libtmux takes 70 ms

        bound = timeout or self._call_s
        aimed = ("-t", target, *args) if target is not None else args
        argv = [self._binary, "-u", f"-L{self._socket_name}", cmd, *map(argument, aimed)]
        fields, out = self._ask("run", stdin, bound_s=bound, argv=argv, env={}, timeout=bound)
        if "late" in fields:
            raise TmuxError(
                f"tmux on host '{self._name}' did not answer within {bound:.0f} s: its server hangs or is stopped."
            )
        return Done(out, fields["said"].encode(), fields["code"])


class FarTmux(Tmux):
    """Our session on the other host."""

    def __init__(self, ask: Ask, facts: Callable[[], dict[str, Any]], name: str, settings: Settings, call_s: float):
        super().__init__(socket_name=settings.socket_name, session=settings.session, root="", environ={}, call_s=call_s)
        self._ask = ask
        self._facts = facts
        self._name = name
        self._far: FarServer | None = None

    @property
    def socket(self) -> str:
        return f"{self._facts()['sockets']}/{self.socket_name}"

    @property
    def server(self) -> Any:
        if self._far is None:
            path = self._facts()["tmux"]
            if not path:
                raise HostError(f"Host '{self._name}' has no tmux: install tmux 3.2a or newer there.")
            check_version(self._facts()["tmux_said"])
            self._far = FarServer(self._ask, self._name, self.socket_name, path, self.call_s)
        return self._far

    def version(self) -> str:
        return str(self._facts()["tmux_said"])

    def has_clients(self) -> bool:
        """Whether a client may be attached: tmux there checks that, in the same round trip as the request itself."""
        return True


class FarOpening(Opening):
    """A window that is opened on the other host while its job is made."""

    def __init__(self, name: str) -> None:
        super().__init__(lambda: None)
        self._name = name

    def take(self, fields: dict[str, Any], out: bytes) -> None:
        """Take the agent's report of how it went, or that the connection was `lost`."""
        from tmuxjobs.tmux.command import Done

        if "lost" in fields:
            self.error = HostError(f"The connection to host '{self._name}' is lost: {fields['lost']}.")
        elif "code" in fields:
            self.error = None
            self.note(Done(out, fields["said"].encode(), fields["code"]))
        else:
            said = fields.get("fault") or "tmux did not answer: its server hangs or is stopped"
            self.error = TmuxError(f"tmux on host '{self._name}' opened no window: {said}.")
        self.answered()


class Mirror(Store):
    """The records of one host's jobs; requests and removals go to that host."""

    def __init__(self, root: Path, ask: Ask, home: Store, monotonic: Callable[[], float]) -> None:
        super().__init__(root)
        self._ask = ask
        self._home = home
        self._monotonic = monotonic
        self._pressed: set[str] = set()
        self.skew_ns = 0
        """How far the clock there is ahead of ours."""

    def prepare(self) -> None:
        for folder in (self.root.parent, self.root, self.jobs):
            folder.mkdir(mode=0o700, exist_ok=True)

    def ids(self) -> list[str]:
        """The ids that were reported; none for a host that was never reached."""
        return super().ids() if self.jobs.is_dir() else []

    def lock(self) -> contextlib._GeneratorContextManager[None]:
        """Hold the lock of the state directory here, which has journal and history; the agent takes the one there."""
        return self._home.lock()

    def complete_index(self, *, anew: bool = False) -> None:
        """Do nothing: the marks are on the other host; here every job without an exit record counts."""

    def await_recorder(self, job_id: str) -> Path:
        return Path(self._ask("fifo", job_id=job_id)[0]["path"])

    def let_go(self, job_id: str) -> None:
        self._ask("let_go", jobs=[job_id], job_id=job_id)

    def request_stop(self, job_id: str, *, signal: str, grace_s: float) -> None:
        request = json.dumps({"signal": signal, "grace_s": grace_s}).encode()
        self._ask("write", request, job_id=job_id, name="stop.json")

    def note_pressed(self, job_id: str, key: str) -> None:
        record = json.dumps({"key": key, "monotonic": self._monotonic()}).encode()
        self._ask("write", record, job_id=job_id, name="pressed.json")
        self._pressed.add(job_id)

    def forget_pressed(self, job_id: str) -> None:
        if job_id in self._pressed:  # each question is a round trip
            self._pressed.remove(job_id)
            with contextlib.suppress(HostError):
                self._ask("unlink", job_id=job_id, name="pressed.json")

    def withdraw_stop(self, job_id: str) -> None:
        with contextlib.suppress(HostError):
            self._ask("unlink", job_id=job_id, name="stop.json")

    def remove(self, *job_ids: str) -> None:
        if job_ids:
            self._ask("remove", job_ids=job_ids, bound_s=REMOVE_S)
        for job_id in job_ids:
            self.forget(job_id)

    def forget(self, job_id: str) -> None:
        """Remove the job from the mirror: it is gone on the other host."""
        self._ended.pop(job_id, None)
        shutil.rmtree(self.folder(job_id), ignore_errors=True)

    def forget_environment(self, job_id: str) -> None:
        if disk.is_there(str(self.folder(job_id)), "env"):
            with contextlib.suppress(HostError):
                self._ask("unlink", jobs=[job_id], job_id=job_id, name="env")

    def half_made(self) -> list[Path]:
        """What was being written here when a process of ours was killed.

        On the other host that is removed now, with copies of the pane's programs that no job needs any more.
        """
        self._ask("tidy")
        before = time.time() - TELLING_S
        every = (*self.jobs.glob("*/*"), *self.root.glob("*.*"))
        found = [path for path in every if re.search(rf"[a-z0-9]{disk.BESIDE[:-1]}$", path.name)]
        old = [path for path in found if disk.mtime(path) < before]
        for path in old:
            if path.parent == self.root:
                disk.unlink(path)
        return [path for path in old if path.parent != self.root]

    # What is reported

    def lay(self, path: Path, mtime_ns: int, size: int, content: bytes | None) -> None:
        if disk.IN_JOB.fullmatch(path.name) is None:
            return
        try:
            if content is None:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                try:
                    mtime_ns -= self.skew_ns
                    laid = os.fstat(fd)
                    if size < laid.st_size and mtime_ns <= laid.st_mtime_ns:
                        return  # another of our processes has a later report
                    if laid.st_size != size:
                        os.ftruncate(fd, size)
                    os.utime(fd, ns=(mtime_ns, mtime_ns))
                finally:
                    os.close(fd)
                return
            with contextlib.suppress(FileNotFoundError):
                if path.lstat().st_mtime_ns > mtime_ns:
                    return  # another of our processes has a later report
            beside = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
            with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(content)
            os.utime(beside, ns=(mtime_ns, mtime_ns))
            os.replace(beside, path)
        except OSError as error:
            raise disk.unusable(self.root, error) from None

    def lay_queue(self, entries: Mapping[str, str], groups: str) -> None:
        """Write down which jobs wait there, as if they waited here, so that all that read a queue find them."""
        place = Path(queue.place(str(self.root)))
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            there = set(os.listdir(place))
            for name in there - entries.keys():
                (place / name).unlink(missing_ok=True)
            for name in entries.keys() - there:
                with open(place / os.path.basename(name), "w") as file:
                    file.write(entries[name])
            disk.replace(self.root, self.root / "groups.json", groups.encode() or b'{"format": 1, "groups": {}}')
        except OSError as error:
            raise disk.unusable(self.root, error) from None

    def wake(self, folder: Path) -> None:
        """Make all callers that wait for a change of that job check again."""
        with contextlib.suppress(OSError):
            (folder / ALIVE).unlink(missing_ok=True)
            (folder / ALIVE).touch(mode=0o600)

    def take_salt(self, salt: str) -> None:
        """Keep the salt of the other host's ids, so that they are read the same way here."""
        if salt and disk.content(self.root / "salt") != salt.encode():
            disk.replace(self.root, self.root / "salt", salt.encode())
            self.index.forget_salt()
