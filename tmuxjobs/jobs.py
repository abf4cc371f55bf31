"""Class Jobs: the verbs for one caller, an agent or a person.

What a caller may do to a job that a person holds, or that another machine has, is decided here; which commands may be
started, in `verbs/execute.py`.
"""

from __future__ import annotations

import builtins
import functools
from collections.abc import Awaitable, Callable
from typing import Concatenate, Literal, ParamSpec, Self, TypeVar

from tmuxjobs import verbs
from tmuxjobs.hosts.local import Host
from tmuxjobs.settings import Settings

Caller = Literal["agent", "person"]
P = ParamSpec("P")
R = TypeVar("R")


def _verb(function: Callable[Concatenate[Host, P], R]) -> Callable[Concatenate[Jobs, P], R]:
    """The verb as a method."""

    @functools.wraps(function)
    def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return function(self.host, *args, **kwargs)

    return method


def _here(function: Callable[Concatenate[Host, P], R]) -> Callable[Concatenate[Jobs, P], R]:
    """A verb about the window of the job it names first: refused (OtherHost) for a job of another machine."""

    @functools.wraps(function)
    def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self.host.refuse_elsewhere(str(args[0] if args else kwargs["job_id"]))
        return function(self.host, *args, **kwargs)

    return method


def _act(function: Callable[Concatenate[Host, P], R]) -> Callable[Concatenate[Jobs, P], R]:
    """A verb that acts on the job it names first: refused (OtherHost) for a job of another machine.

    An agent's is refused (Held) while a person holds that job.
    """

    @functools.wraps(function)
    def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self._check(str(args[0] if args else kwargs["job_id"]))
        return function(self.host, *args, **kwargs)

    return method


def _act_async(function: Callable[Concatenate[Host, P], Awaitable[R]]) -> Callable[Concatenate[Jobs, P], Awaitable[R]]:
    """As `_act`, for an event loop."""

    @functools.wraps(function)
    async def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        from asyncio import to_thread  # takes 25 ms, and only the server has an event loop

        await to_thread(self._check, str(args[0] if args else kwargs["job_id"]))
        return await function(self.host, *args, **kwargs)

    return method


class Jobs:
    """All jobs of one state directory, in one session of one tmux server."""

    execute = _verb(verbs.execute.execute)
    adopt = _verb(verbs.adopt.adopt)
    adoptable = _verb(verbs.adopt.adoptable)
    list = _verb(verbs.status.list)
    status = _verb(verbs.status.status)
    usage = _verb(verbs.status.usage)
    output = _verb(verbs.output.output)
    tail = _verb(verbs.output.tail)
    follow = _verb(verbs.follow.Follow)
    last_lines = _verb(verbs.follow.last_lines)
    search = _verb(verbs.search.search)
    screen = _here(verbs.screen.screen)
    interact = _act(verbs.interact.interact)
    interact_async = _act_async(verbs.interact.interact_async)
    kill = _act(verbs.kill.kill)
    restart = _act(verbs.restart.restart)
    hold = _here(verbs.hold.hold)
    release = _here(verbs.hold.release)
    wait = _verb(verbs.wait.wait)
    wait_async = _verb(verbs.wait.wait_async)
    prune = _verb(verbs.prune.prune)
    doctor = _verb(verbs.doctor.doctor)
    token = _verb(verbs.token.token)
    token_value = _verb(verbs.token.token_value)
    notice_prompts = _verb(verbs.notify.notice_prompts)
    events = _verb(verbs.events.journal)

    def __init__(self, host: Host, *, caller: Caller = "person") -> None:
        self.host = host
        self.caller = caller
        self.tasks = verbs.task.Tasks(host)

    @classmethod
    def open(cls, settings: Settings | None = None) -> Self:
        """Ready for every verb; raises SettingsError or StateError. tmux is called only when a verb needs it."""
        return cls(Host.open(settings))

    def _check(self, job_id: str) -> None:
        """Whether this caller may act on that job now; raises OtherHost, or Held for an agent."""
        self.host.refuse_elsewhere(job_id)
        if self.caller == "agent":
            verbs.hold.refuse_if_held(self.host, job_id)

    def called_by(self, caller: Caller) -> Jobs:
        """The same jobs, as that caller has them."""
        return Jobs(self.host, caller=caller)

    @property
    def settings(self) -> Settings:
        """Those that it was opened with."""
        return self.host.settings

    def attach_argv(self, job_id: str | None = None) -> builtins.list[str]:
        """The command that shows the session, or one job's window, to a person; raises JobNotFound, TmuxError."""
        return self.host.attach_argv(job_id)
