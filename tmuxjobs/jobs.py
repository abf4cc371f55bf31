"""Class Jobs: the verbs for one caller, an agent or a person.

It decides what a caller may do: with a job that a person holds, or that belongs to another project or machine, by the
rules in `policy/callers.py`; and which commands they may start, by the policies that bind them.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypeVar, cast

from tmuxjobs import verbs
from tmuxjobs.errors import JobNotFound, NotAllowed
from tmuxjobs.hosts.hosts import Hosts
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Caller, Seen, asking
from tmuxjobs.policy import callers
from tmuxjobs.settings import Settings

if TYPE_CHECKING:
    from tmuxjobs.answers import Output
    from tmuxjobs.policy.rules import Policy, Verdict
    from tmuxjobs.verbs.wait import Tasks

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


class Named:
    """A verb that is not imported yet, by the names that lead to it."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __getattr__(self, name: str) -> Named:
        return Named(*self.names, name)

    def verb(self) -> Any:
        return functools.reduce(getattr, self.names, verbs)


if TYPE_CHECKING:
    from tmuxjobs import verbs as late
else:
    late = Named()


class Made:
    """A method that is made when it is first used."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, jobs: Jobs | None, owner: type) -> Any:
        setattr(owner, self._name, self._make())
        return getattr(jobs or owner, self._name)


def _late(made: F) -> F:
    """Makes the method when it is first used, so that verbs are imported only when needed."""

    def named(*given: Any) -> Made:
        return Made(lambda: made(*(one.verb() if isinstance(one, Named) else one for one in given)))

    return cast(F, named)


@_late
def _verb(function: Callable[Concatenate[Host, P], R]) -> Callable[Concatenate[Jobs, P], R]:
    """A verb of this machine as a method."""

    @functools.wraps(function)
    def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._client():
            return function(self._host, *args, **kwargs)

    return method


@_late
def _of(function: Callable[Concatenate[Host, P], R]) -> Callable[Concatenate[Jobs, P], R]:
    """A verb about the job it names first, wherever that is."""

    @functools.wraps(function)
    def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._client():
            return self._given(args, kwargs, function(self._having(_named(args, kwargs)), *args, **kwargs))

    return method


def _named(args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
    """The job that the arguments name first."""
    return str(args[0] if args else kwargs["job_id"])


@_late
def _asked(function: Callable[Concatenate[Host, Caller, P], R]) -> Callable[Concatenate[Jobs, P], R]:
    """A verb that depends on who asks."""

    @functools.wraps(function)
    def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._client():
            return function(self._host, self._caller, *args, **kwargs)

    return method


@_late
def _everywhere(function: Callable[Concatenate[Sequence[Host], Caller, P], R]) -> Callable[Concatenate[Jobs, P], R]:
    """A verb over this machine and all others in use."""

    @functools.wraps(function)
    def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._client():
            return function(self._hosts.usable(self._caller), self._caller, *args, **kwargs)

    return method


@_late
def _task(function: Callable[Concatenate[Tasks, P], R]) -> Callable[Concatenate[Jobs, P], R]:
    """A verb about waits that a client polls."""

    @functools.wraps(function)
    def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._client():
            return function(self._tasks, *args, **kwargs)

    return method


@_late
def _start(function: Callable[Concatenate[Host, Caller, P], R]) -> Callable[Concatenate[Jobs, P], R]:
    """A verb that starts the command it is given: refused (NotAllowed) if a policy of this caller denies it.

    If a policy says ask, the job waits until a person approves it.
    """

    @functools.wraps(function)
    def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        given: dict[str, Any] = {"command": args[0], **kwargs} if args else {**kwargs}
        host = self._hosts.chosen(given.get("host"), self._caller)
        given.update(verbs.files.placed(host, self._caller, given))
        with verbs.events.noted(self._host, self._caller, "execute") as act:
            self._refuse_hidden("execute")
            question = None
            if self._policies:
                verdict = self._check(host, given)
                act.verdict, act.why = verdict.kind, verdict.rule
                if verdict.kind == "deny":
                    raise NotAllowed(f"This is not allowed: {verdict.why}. Nothing was started.")
                question = self._question(verdict)
            with self._client(), verbs.execute.to_approve(question):
                answer: R = cast(Any, function)(host, self._caller, **given)
            act.job_id = getattr(answer, "job_id", "")
            return answer

    return method


@_late
def _asked_async(
    function: Callable[Concatenate[Host, Caller, P], Awaitable[R]],
) -> Callable[Concatenate[Jobs, P], Awaitable[R]]:
    """As `_asked`, for an event loop."""

    @functools.wraps(function)
    async def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._client():
            return await function(self._host, self._caller, *args, **kwargs)

    return method


@_late
def _here(verb: str, function: Callable[Concatenate[Host, P], R]) -> Callable[Concatenate[Jobs, P], R]:
    """A verb about the window of the job it names first: refused (OtherHost) for a job of another machine."""

    @functools.wraps(function)
    def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        job_id = _named(args, kwargs)
        host = self._having(job_id)
        host.refuse_elsewhere(job_id)
        with verbs.events.noted(self._host, self._caller, verb, job_id) if verb else contextlib.nullcontext():
            return function(host, *args, **kwargs)

    return method


@_late
def _act(verb: str, function: Callable[Concatenate[Host, P], R]) -> Callable[Concatenate[Jobs, P], R]:
    """A verb that acts on the job it names first: refused (OtherHost) for a job of another machine.

    For an agent it is refused (OtherProject, Held, NotAllowed) for a job of another project, while a person holds that
    job, and if a policy does not allow it.
    """

    @functools.wraps(function)
    def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        host = self._having(_named(args, kwargs))
        with self._client(), self._checked(host, verb, kwargs, _named(args, kwargs)):
            return self._given(args, kwargs, function(host, *args, **kwargs))

    return method


@_late
def _act_asked(verb: str, function: Callable[Concatenate[Host, Caller, P], R]) -> Callable[Concatenate[Jobs, P], R]:
    """As `_act`, for a verb that depends on who asks."""

    @functools.wraps(function)
    def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        host = self._having(_named(args, kwargs))
        checked = self._checked(host, verb, kwargs, _named(args, kwargs))
        with self._client(), checked as question, verbs.execute.to_approve(question):
            return function(host, self._caller, *args, **kwargs)

    return method


@_late
def _act_async(function: Callable[Concatenate[Host, P], Awaitable[R]]) -> Callable[Concatenate[Jobs, P], Awaitable[R]]:
    """As `_act`, for an event loop."""

    @functools.wraps(function)
    async def method(self: Jobs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        from asyncio import to_thread  # takes 25 ms, and only the server has an event loop

        def check() -> Host:
            host = self._having(_named(args, kwargs))
            with self._checked(host, "interact", kwargs, _named(args, kwargs)):
                return host

        host = await to_thread(check)
        return self._given(args, kwargs, await function(host, *args, **kwargs))

    return method


class Jobs:
    """All jobs of one state directory, in one session of one tmux server."""

    execute = _start(late.execute.execute)
    adopt = _asked(late.adopt.adopt)
    adoptable = _verb(late.adopt.adoptable)
    whole_id = _verb(late.status.whole_id)
    with_window = _verb(late.status.with_window)
    list = _everywhere(late.status.list)
    status = _of(late.status.status)
    usage = _verb(late.status.usage)
    output = _of(late.output.output)
    whole = _of(late.output.whole)
    mirror = _of(late.files.Mirror)
    tail = _of(late.output.tail)
    follow = _of(late.output.Follow)
    last_lines = _verb(late.output.last_lines)
    search = _of(late.search.search)
    screen = _here("", late.output.screen)
    interact = _act("interact", late.interact.interact)
    type = _act("interact", late.unseen.type)
    interact_async = _act_async(late.interact.interact_async)
    kill = _act("kill", late.kill.kill)
    restart = _act_asked("restart", late.restart.restart)
    fetch = _act_asked("fetch", late.files.fetch)
    hold = _here("hold", late.hold.hold)
    release = _here("release", late.hold.release)
    approve = _asked(late.approve.approve)
    refuse = _asked(late.approve.refuse)
    settle = _of(late.approve.settle)
    history = _verb(late.events.history)
    wait = _asked(late.wait.wait_for)
    wait_async = _asked_async(late.wait.wait_for_async)
    running = _asked(late.wait.running)
    group = _verb(late.group.group)
    pause = _act("pause", late.kill.pause)
    resume = _act("resume", late.kill.resume)
    queue = _act("queue", late.queue.edit)
    move_on = _verb(late.queue.move_on)
    prune = _verb(late.prune.prune)
    doctor = _verb(late.doctor.doctor)
    token = _verb(late.token.token)
    token_value = _verb(late.token.token_value)
    notice_prompts = _verb(late.prompts.notice_prompts)
    events = _asked(late.events.events)
    follow_events = _asked(late.news.follow)
    event_line = _asked(late.news.line)
    also_ended = _asked(late.news.also_ended)
    mark_reported = _verb(late.news.mark_reported)
    task_begins = _task(late.wait.Tasks.begins)
    create_task = _task(late.wait.Tasks.create)
    read_task = _task(late.wait.Tasks.read)
    check_task = _task(late.wait.Tasks.check)
    cancel_task = _task(late.wait.Tasks.cancel)

    def __init__(self, host: Host, *, caller: Literal["agent", "person"] | Callable[[], Caller] = "person") -> None:
        self._host = host
        self._hosts = Hosts.over(host)
        self._asks = caller if callable(caller) else functools.partial(Caller, kind=caller)
        self._read: tuple[int, builtins.list[Policy]] | None = None
        self._seen = Seen()

    @classmethod
    def open(
        cls,
        settings: Settings | None = None,
        *,
        caller: Literal["agent", "person"] | Callable[[], Caller] = "person",
    ) -> Self:
        """The jobs of these settings for that caller, which may be a function that says at each call who asks.

        Raises SettingsError or StateError. tmux is called only when a verb needs it.
        """
        return cls(Host.open(settings), caller=caller)

    @property
    def _caller(self) -> Caller:
        """Who calls now, with the project of the folder that they work in."""
        return self._asks().model_copy(update={"project": self._project})

    def attach(self, job_id: str | None = None) -> builtins.list[str]:
        """The command that shows the session, or one job's window, to a person; raises JobNotFound, TmuxError."""
        return (self._having(job_id) if job_id else self._host).attach_argv(job_id)

    def _having(self, job_id: str) -> Host:
        """The host that has the job; this machine if none has it that this caller may use."""
        return self._hosts.having(job_id, self._caller)

    def _client(self) -> AbstractContextManager[Seen]:
        """Within it, verbs know what the caller has seen: the client that a server answers, else these `Jobs`."""
        return (asking.get() or self._seen).asks()

    @functools.cached_property
    def _tasks(self) -> Tasks:
        return verbs.wait.Tasks(self._host)

    @functools.cached_property
    def _project(self) -> str:
        return callers.project_of(self._host.cwd)

    @property
    def _policies(self) -> builtins.list[Policy]:
        """The policies that bind this caller, read again when the person has changed theirs; raises SettingsError."""
        settings, read = self._host.settings, self._read
        changed_at = settings.policy_changed_at if settings.policy is not None else 0
        # If the agent may write to the file, a change need not be the person's.
        within = read is not None and any(policy.covers(settings.policy_file) for policy in read[1])
        if read is None or (read[0] != changed_at and not within):
            self._read = read = changed_at, settings.policies(self._host.cwd, agent=self._caller.kind == "agent")
        return read[1]

    def _refuse_hidden(self, verb: str) -> None:
        if any(verb in policy.hidden for policy in self._policies):
            raise NotAllowed(f"The policy gives agents no `{verb}` here; ask the person to do it.")

    @contextlib.contextmanager
    def _checked(
        self, host: Host, verb: str, given: Mapping[str, Any], job_id: str
    ) -> Iterator[Mapping[str, Any] | None]:
        """Within it, this caller acts on that job; yields what a person must be asked first, if anything.

        Raises OtherHost, NotAllowed, and for an agent OtherProject and Held.
        """
        caller, question = self._caller, None
        with verbs.events.noted(self._host, caller, verb, job_id) as act:
            self._refuse_hidden(verb)
            host.refuse_elsewhere(job_id)
            if caller.kind == "agent":
                with contextlib.suppress(JobNotFound):  # `kill` ends a job whose folder was removed
                    callers.refuse_other_project(caller, host.store.read(job_id).job, self._host.settings.scope)
                verbs.hold.refuse_if_held(host, job_id)
            if verb != "kill" or given.get("end") is False:  # `kill` ends a start as well
                verbs.launch.await_start(host, job_id)
            if self._policies and given.get("command"):
                spec = host.look(job_id).spec
                if spec.env_names:
                    what = "has variables of its own, with which no policy can judge another command"
                    raise NotAllowed(f"Job '{job_id}' {what}; `kill` it and `execute` what you need.")
                verdict = self._check(host, verbs.execute.again(spec, command=given["command"]))
                act.verdict, act.why = verdict.kind, verdict.rule
                if verdict.kind != "allow":
                    raise NotAllowed(f"This is not allowed: {verdict.why}. Nothing was changed.")
            if self._policies and (verb == "restart" or (verb == "interact" and caller.kind == "agent")):
                question = self._refuse_unless_allowed(host, act, verb, job_id, given.get("env") or {})
            bound = self._policies if caller.kind == "agent" else []
            with verbs.files.writing_by(bound) if verb == "fetch" else contextlib.nullcontext():
                yield question

    def _refuse_unless_allowed(
        self, host: Host, act: verbs.events.Act, verb: str, job_id: str, env: Mapping[str, str]
    ) -> Mapping[str, Any] | None:
        """Typing into a job, or starting it again, needs what starting its command needs; raises NotAllowed."""
        job = host.look(job_id)
        if job.spec.adopted is not None:
            if verb == "interact":
                what = "is an adopted window, and no policy can tell what input to it would do"
                raise NotAllowed(f"Job '{job_id}' {what}: nothing was typed.")
            return None  # `restart` says that it cannot be run again
        verdict = self._check(host, verbs.execute.again(job.spec, env=env))
        act.verdict, act.why = verdict.kind, verdict.rule
        if verb == "interact":
            approved = job.run is not None and job.run.approved
            if verdict.kind == "deny" or (verdict.kind == "ask" and not approved and not job.awaits_approval):
                raise NotAllowed(f"Job '{job_id}' runs what you may not run here, so nothing was typed: {verdict.why}.")
            return None
        runs = f" Job '{job_id}' was not ended." if job.running else ""
        if verdict.kind == "deny":
            raise NotAllowed(f"This is not allowed: {verdict.why}. Nothing was started.{runs}")
        if verdict.kind == "ask" and runs:
            how = "`kill` it, then `restart` asks the person"
            raise NotAllowed(f"A person must approve this: {verdict.why}.{runs} {how}.")
        return self._question(verdict)

    def _question(self, verdict: Verdict) -> Mapping[str, Any] | None:
        from tmuxjobs.policy.load import question

        return question(self._policies, verdict)

    def check(
        self,
        command: str,
        *,
        cwd: str | None = None,
        shell: str | None = None,
        env: Mapping[str, str] | None = None,
        ready_when: str | None = None,
    ) -> Verdict:
        """What the policies of this caller say about starting that; `allow` without any. Raises InvalidInput."""
        given = {"command": command, "cwd": cwd, "shell": shell, "env": env, "ready_when": ready_when}
        return self._check(self._host, given)

    def _check(self, host: Host, given: Mapping[str, Any]) -> Verdict:
        from tmuxjobs.policy.rules import verdict_on  # its parser is needed only with a policy

        return verdict_on(self._policies, verbs.execute.to_judge(host, given))

    def _given(self, args: tuple[object, ...], named: Mapping[str, object], answer: R) -> R:
        """Return the answer, and note how far it gives the output of the job that the arguments name first."""
        if getattr(answer, "gives_output", False):  # its module takes 6 ms to import, and `list` needs none of it
            output, seen = cast("Output", answer), asking.get() or self._seen
            seen.note(_named(args, named), output.cursor, output.stderr_cursor)
        return answer
