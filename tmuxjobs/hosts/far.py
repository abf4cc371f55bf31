"""The machine and the tmux server of another host: what `Machine` and `Tmux` are here, asked over a connection."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, get_type_hints

from pydantic import TypeAdapter

from tmuxjobs.contract import argument
from tmuxjobs.errors import HostError, TmuxError
from tmuxjobs.far import asked, tidy
from tmuxjobs.far.asked import plain
from tmuxjobs.hosts.machine import Machine
from tmuxjobs.outcome import Here
from tmuxjobs.pane.turns import MOVE_S
from tmuxjobs.settings import Settings
from tmuxjobs.tmux.session import Opening, Tmux, check_version

FORGET_S = 60.0
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
    free_bytes = _far(Machine.free_bytes)
    fronts = _far(Machine.fronts)
    asking = _far(Machine.asking)
    handlers = _far(Machine.handlers)
    look = _far(Machine.look)
    listening = _far(Machine.listening)
    move = _far(asked.move, bound_s=MOVE_S)
    places = _far(asked.places)
    send = _far(Machine.send)
    set_echo = _far(Machine.set_echo)
    start = _far(Machine.start, bound_s=MOVE_S)
    start_of = _far(Machine.start_of)
    alive = _far(Machine.alive)
    terminal = _far(Machine.terminal)
    unread = _far(Machine.unread)
    usage = _far(Machine.usage)
    of_jobs = _far(Machine.of_jobs)
    of_pane = _far(Machine.of_pane)
    runners = _far(Machine.runners)

    _folder = _far(Machine.folder)
    _program = _far(Machine.program)
    _usual_locale = _far(Machine.usual_locale)

    place = _far(tidy.place)
    forget_files = _far(tidy.forget_files, bound_s=FORGET_S)

    def __init__(self, ask: Ask, facts: dict[str, Any]) -> None:
        self.ask = ask
        self.facts = facts
        self.ahead = 0.0
        self.usual: dict[str, Any] = {}
        """Answers that hold until a start is refused: who starts a job there looks again."""

    def folder(self, base: str, wanted: str) -> list[str]:
        """That of a folder that is not there is asked anew: a person may make it."""
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
        """What a new connection says of them."""
        self.usual = {json.dumps([name, given]): answer for name, given, answer in answers}

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
            check_version(self._facts()["tmux_said"])
            self._far = FarServer(self._ask, self._name, self.socket_name, path, self.call_s)
        return self._far

    def version(self) -> str:
        return str(self._facts()["tmux_said"])

    def has_clients(self) -> bool:
        """Whether one may be attached: its tmux is asked, in the same round trip as what is wanted of it."""
        return True


class FarOpening(Opening):
    """A window that is opened there along with the making of its job."""

    def __init__(self, name: str) -> None:
        super().__init__(lambda: None)
        self._name = name

    def take(self, fields: dict[str, Any], out: bytes) -> None:
        """What came of it, by the agent, or `lost`."""
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
