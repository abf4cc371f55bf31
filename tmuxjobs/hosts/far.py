"""The machine and the tmux server of another host: what `Machine` and `Tmux` are here, asked over a connection."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, get_type_hints

from pydantic import TypeAdapter

from tmuxjobs.errors import HostError, TmuxError
from tmuxjobs.far import asked
from tmuxjobs.far.asked import plain
from tmuxjobs.hosts.machine import Machine
from tmuxjobs.outcome import Here
from tmuxjobs.pane.turns import MOVE_S
from tmuxjobs.settings import Settings
from tmuxjobs.tmux.session import Tmux, check_version

P = ParamSpec("P")
R = TypeVar("R")


class Ask(Protocol):
    """Asks the agent: the fields of its answer, and the bytes; raises HostError."""

    def __call__(self, do: str, data: bytes = b"", **given: Any) -> tuple[dict[str, Any], bytes]: ...


def _far(function: Callable[P, R], *, bound_s: float = 0.0) -> Callable[Concatenate[FarMachine, P], R]:
    """The same function, called on the other machine, where it may take so long."""

    @functools.cache
    def adapter() -> TypeAdapter[R]:
        # What it takes may be named for type checkers alone.
        returned = type("Returned", (), {"__annotations__": {"return": function.__annotations__["return"]}})
        return TypeAdapter(get_type_hints(returned, function.__globals__)["return"])

    @functools.wraps(function)
    def method(self: FarMachine, /, *args: P.args, **named: P.kwargs) -> R:
        given = {"name": function.__name__, "given": plain(args), "named": plain(named)}
        fields, _ = self.ask("call", bound_s=bound_s, **given)
        return adapter().validate_python(fields["value"])

    return method


class FarMachine:
    """What `Machine` has, of the other one."""

    as_now = _far(Machine.as_now)
    answers = _far(Machine.answers)
    below = _far(Machine.below)
    cancel = _far(Machine.cancel)
    change = _far(Machine.change)
    change_group = _far(Machine.change_group)
    folder = _far(Machine.folder)
    free_bytes = _far(Machine.free_bytes)
    fronts = _far(Machine.fronts)
    asking = _far(Machine.asking)
    handlers = _far(Machine.handlers)
    listening = _far(Machine.listening)
    move = _far(asked.move, bound_s=MOVE_S)
    places = _far(asked.places)
    program = _far(Machine.program)
    send = _far(Machine.send)
    start = _far(Machine.start, bound_s=MOVE_S)
    start_of = _far(Machine.start_of)
    alive = _far(Machine.alive)
    terminal = _far(Machine.terminal)
    unread = _far(Machine.unread)
    usage = _far(Machine.usage)
    usual_locale = _far(Machine.usual_locale)
    of_jobs = _far(Machine.of_jobs)
    of_pane = _far(Machine.of_pane)
    runners = _far(Machine.runners)

    def __init__(self, ask: Ask, facts: dict[str, Any]) -> None:
        self.ask = ask
        self.facts = facts
        self.ahead = 0.0

    def here(self) -> Here:
        return Here(**self.facts["here"])

    def monotonic(self) -> float:
        """Its clock, as far as a round trip lets us know."""
        return time.monotonic() + self.ahead


class FarServer:
    """Its tmux, by one bounded command over the connection."""

    def __init__(self, ask: Ask, name: str, socket_name: str, binary: str, call_s: float) -> None:
        self._ask = ask
        self._name = name
        self._socket_name = socket_name
        self._binary = binary
        self._call_s = call_s

    def cmd(
        self, cmd: str, *args: Any, target: str | int | None = None, stdin: bytes = b"", timeout: float | None = None
    ) -> Any:
        from tmuxjobs.tmux.command import Done, argument  # libtmux takes 70 ms

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
    """Our session there."""

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
            check_version(self._said_version(path))
            self._far = FarServer(self._ask, self._name, self.socket_name, path, self.call_s)
        return self._far

    def version(self) -> str:
        return self._said_version(self.binary)

    def _said_version(self, path: str) -> str:
        _, out = self._ask("run", bound_s=self.call_s, argv=[path, "-V"], env={}, timeout=self.call_s)
        return out.decode(errors="replace").strip()
