"""`execute`: check the arguments, take a slot, open the window, and answer: to a person once the command runs."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import shlex
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast, overload

from tmuxjobs.answers import Ran, Started, ran
from tmuxjobs.arguments import CHARS, Asked, Conditions, Turn, checked_seconds, encoded
from tmuxjobs.contract import IN_HOOKS, IN_OURS, MARK_IN_JOBS, OPEN
from tmuxjobs.errors import InvalidInput, LimitReached, StateError, apart
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Caller, JobSpec, Notify
from tmuxjobs.outcome import seconds
from tmuxjobs.policy import callers
from tmuxjobs.settings import LOG_BYTES, parse_size
from tmuxjobs.states import Elsewhere, InSlurmQueue, status_of
from tmuxjobs.store.index import slug
from tmuxjobs.tmux.session import locale_name
from tmuxjobs.verbs import attempts, events, files, hold, prune, queue, slurm
from tmuxjobs.verbs.job_wait import goal
from tmuxjobs.verbs.launch import await_start, is_starting, launch, withdraw
from tmuxjobs.verbs.wait import wait as wait_for

if TYPE_CHECKING:
    from tmuxjobs.policy import places, rules

COMMAND_BYTES = 120_000
"""Linux limits one argument to 128 KiB: execve(2), MAX_ARG_STRLEN."""
GRACE_S = 5.0
ASKED = {"ask_why": "", "ask_s": 0.0, "ask_rules": (), "ask_file": ""}
asks: ContextVar[Mapping[str, Any]] = ContextVar("asks", default=ASKED)
"""The fields of the record that say how a policy judged the job, and that a person must approve it."""
OF_THE_TERMINAL = {"TMUX", "TMUX_PANE", "TERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "COLUMNS", "LINES", "STY"}
SHELL_OPTIONS = re.compile(
    r"([-+][oO] [a-z_]+|-[a-zA-Z]{1,10}|--[a-z-]+)( ([-+][oO] [a-z_]+|-[a-zA-Z]{1,10}|--[a-z-]+))*"
)
NOT_FOR_JOBS = OF_THE_TERMINAL | IN_HOOKS | {IN_OURS}


@overload
def execute(
    there: Host,
    caller: Caller,
    command: str,
    *,
    name: str | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    shell: str | None = None,
    separate_stderr: bool = False,
    max_output_size: int | str | None = None,
    notify: Notify | None = None,
    keep: bool | None = None,
    host: str | None = None,
    wait: None = None,
    max_bytes: int = CHARS,
    **given: Unpack[Asked],
) -> Started: ...


@overload
def execute(
    there: Host,
    caller: Caller,
    command: str,
    *,
    name: str | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    shell: str | None = None,
    separate_stderr: bool = False,
    max_output_size: int | str | None = None,
    notify: Notify | None = None,
    keep: bool | None = None,
    host: str | None = None,
    wait: float,
    max_bytes: int = CHARS,
    **given: Unpack[Asked],
) -> Ran: ...


def execute(
    there: Host,
    caller: Caller,
    command: str,
    *,
    name: str | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    shell: str | None = None,
    separate_stderr: bool = False,
    max_output_size: int | str | None = None,
    notify: Notify | None = None,
    keep: bool | None = None,
    host: str | None = None,
    wait: float | None = None,
    max_bytes: int = CHARS,
    **given: Unpack[Asked],
) -> Started:
    """Start a shell command line in a new window; returns once it runs, or waits for its turn.

    An agent that does not `wait` gets its answer as soon as tmux has opened the window.
    `host` names another machine, as the person's ssh configuration does; `Jobs` has already chosen `there` by it.
    `timeout` is in seconds, `max_output_size` of one log in bytes or like `5GB`; these and `notify` default to the
    settings. With `keep` false the job ends when this process does, however that ends; an agent's does by default
    where `on_disconnect` says so. With `wait` (s) it returns a Ran, which adds what `wait` returns, when the job has
    ended or a condition is met in any of its output; `Turn` and `Lifecycle` describe the other arguments. Raises
    InvalidInput, NotAllowed, LimitReached, TmuxError, StateError, or NotStarted; each leaves nothing behind.
    """
    conditions = cast(Conditions, {name: one for name, one in given.items() if name in Conditions.__annotations__})
    goal(**conditions)
    if conditions.get("until") == "ready" and not given.get("ready_when"):
        raise InvalidInput("until='ready' needs `ready_when`.")
    if given.get("after") or given.get("reuse"):
        there.fresh()
    facts = queue.asked(there, cast(Turn, given))
    checked_seconds("wait", wait or 0.0, least=0.0)
    environment = environment_of(there, env or {})
    asked = {
        **checked(there, command, cwd, shell, environment),
        "timeout_s": checked_seconds("timeout", timeout) if timeout is not None else there.settings.job_timeout,
        "separate_stderr": separate_stderr,
        **size_of(there, max_output_size),
        **attempts.asked_of(given),
        "notify": notify or there.settings.notify,
        "env_names": tuple(sorted(env or {})),
        "caller": caller,
        "ends_with": None if callers.is_kept(caller, keep, there.settings.on_disconnect) else there.this_process(),
        "queue": facts,
    }
    if sync := given.get("sync"):
        asked["sync"] = sync
    asked["detached"] = slurm.is_detached(given)
    asked["slurm"] = slurm.checked(there, given, asked, environment.get("PATH", os.defpath))
    if not there.had_session:
        there.ensure_session()
    queue.move(there)
    if given.get("reuse") and not name:
        raise InvalidInput("reuse needs `name`: it answers about the job of that name that has not ended.")
    if sync:
        files.send(there, caller, sync)
    try:
        job_id = create(there, slug(name or command), asked, environment, reuse=bool(given.get("reuse")))
        with queue.turn(there, job_id, facts) as starts:
            if starts:
                # A queued job keeps its turn until its start is over, and an answer must say that a person is asked.
                soon = caller.kind == "agent" and wait is None and facts is None and not asks.get()["ask_why"]
                launch(there, job_id, opened=soon)
        if facts is not None:
            await_start(there, job_id)  # another process may have given it its turn first
        answer = started(there, job_id)
    except NotEnded as other:
        job_id = str(other)
        answer = started(there, job_id).model_copy(update={"reused": True})
    if wait is None and answer.status in OPEN:
        return answer
    if answer.waits_for == "approval":
        return Ran(**dict(answer), reason="approval", runtime=0.0, stdout="", cursor=0)
    waited = wait_for(there, job_id, cursor=0, timeout=wait or 0.0, max_bytes=max_bytes, **conditions)
    return ran(answer, waited).model_copy(update={"asked_to_wait": wait is not None})


def started(host: Host, job_id: str) -> Started:
    """The answer about a job whose command runs or has run."""
    prune.prune_windows_soon(host)
    job = host.look(job_id)
    facts: dict[str, Any] = {}
    if job.queued:
        facts["note"] = str(queue.places(host, [job]).get(job_id, ""))
    if job.awaits_approval:
        with contextlib.suppress(StateError):  # the person is asked all the same
            events.note(host, "prompt", job.spec, waits_for="approval", prompt=job.spec.command, log_bytes=0)
        bound = seconds(job.spec.ask_s, coarse=True)
        facts["waits_for"] = "approval"
        facts["note"] = (
            f"{job.detail}. Nothing has run. They answer in its window or by `tmuxjobs approve {job_id}`; `wait` "
            f"reports what they said; without an answer it is refused after {bound}"
        )
    elif isinstance(job.state, InSlurmQueue):
        facts["note"] = f"in Slurm: {job.state.why}; input is refused until it runs"
    elif is_starting(job):
        facts["note"] = "starting"
    where: dict[str, Any] = {"log_path": host.log_path(job.log), "attach": host.attach_line(job)}
    return Started(job_id=job_id, status=job.status, host=host.name or None, **where, **facts)


def refuse_second(host: Host, short: str, caller: Caller) -> None:
    """Raises NotEnded, with the newest one's id, if a job of that name and project runs, starts or waits here."""
    there = {*host.store.unfinished_ids(), *(entry.job_id for entry in queue.waiting(host))}
    named = [one for one in there if one.rpartition("-")[0] == short]
    for record in sorted(filter(None, map(host.store.look, named)), key=lambda one: one.job.number, reverse=True):
        job = host.settle(record)
        if job.status in OPEN and not isinstance(job.state, Elsewhere) and job.spec.caller.project == caller.project:
            raise NotEnded(job.id)


def checked(
    host: Host, command: str, cwd: str | None, shell: str | None, environment: Mapping[str, str]
) -> dict[str, Any]:
    """The arguments, checked before anything is done; raises InvalidInput."""
    check_command(host, command)
    return {
        "command": command,
        "cwd": str(folder_of(host, cwd)),
        **shell_of(host, shell, environment.get("PATH", os.defpath)),
    }


def to_judge(host: Host, given: Mapping[str, Any]) -> rules.Asked:
    """The arguments of a start, for a policy; raises InvalidInput."""
    from tmuxjobs.policy.rules import Asked as Judged  # noqa: PLC0415 - its parser is needed only with a policy

    env = given.get("env") or {}
    environment = environment_of(host, env)
    what = checked(host, given["command"], given.get("cwd"), given.get("shell"), environment)
    kind, _, line = attempts.checked_ready(given.get("ready_when") or "port 1").partition(" ")
    return Judged(
        what["command"],
        Path(what["cwd"]),
        what["shell"],
        env,
        environment.keys(),
        there=there_of(host, given.get("sync") or "") if host.name else None,
        shell_options=what.get("shell_options", ()),
        ready=line if kind == "command" else None,
    )


def there_of(host: Host, sync: str) -> places.There:
    """Another machine's folders, for a policy."""
    from tmuxjobs.policy.places import There  # noqa: PLC0415

    real = functools.cache(host.machine.real)
    return There(host.name, lambda path: real(str(path)), lambda source: files.copy_of(host, source), sync)


def again(spec: JobSpec, **others: object) -> dict[str, Any]:
    """The arguments by which that job would be started again, with others in their place."""
    shell = shlex.join((spec.shell, *spec.shell_options))
    asked = {"command": spec.command, "cwd": spec.cwd, "shell": shell, "ready_when": spec.ready_when}
    return {**asked, "sync": spec.sync, **others}


def size_of(host: Host, asked: int | str | None) -> dict[str, Any]:
    """The record's size limit for a log, from the argument or the settings."""
    if asked is None:
        return {"max_output_bytes": host.settings.max_output_size}
    try:
        size = parse_size(asked)
    except ValueError as error:
        raise InvalidInput(f"max_output_size cannot be used: {error}.") from None
    if not isinstance(size, int) or not LOG_BYTES <= size < 1 << 60:
        raise InvalidInput(f"max_output_size must be at least {LOG_BYTES} bytes, not {asked}.")
    return {"max_output_bytes": size, "max_output_given": True}


def check_command(host: Host, command: str) -> None:
    if not command.strip():
        raise InvalidInput("The command is empty; give a shell command line.")
    size = len(encoded("command", command))
    if size > COMMAND_BYTES:
        raise InvalidInput(
            f"The command is {size} bytes long, over the limit of {COMMAND_BYTES}; write it to a file and run that."
        )


def environment_of(host: Host, given: Mapping[str, str]) -> dict[str, str]:
    for key, value in given.items():
        if not key or "=" in key or not key.isprintable():
            raise InvalidInput(f"{key!r} in env is not a name for a variable.")
        encoded(f"value of '{key}' in env", value)
    ours: dict[str, str] = {key: value for key, value in host.environ.items() if key not in NOT_FOR_JOBS}
    asked = ours | {"PAGER": "cat", "GIT_PAGER": "cat"} | dict(given)
    if not locale_name(asked) and "LANG" not in given:
        asked |= {"LANG": locale} if (locale := host.machine.usual_locale()) else {}
    return asked


def folder_of(host: Host, cwd: str | None) -> Path:
    encoded("cwd", cwd or "")
    folder, fault = host.machine.folder(str(host.cwd), cwd or ".")
    if fault:
        where = f" on host '{host.name}'" if host.name else ""
        raise InvalidInput(f"cwd '{shortened(folder)}' {fault}{where}.")
    return Path(folder)


def shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."


class NotEnded(Exception):
    """The id of a job of the same name and project that has not ended."""


def create(
    host: Host,
    short: str,
    asked: Mapping[str, Any],
    environment: dict[str, str],
    *,
    replaces: str | None = None,
    reuse: bool = False,
) -> str:
    """Take a slot and write the record, under the lock, so that two servers cannot take the same slot.

    `asked` holds the `caller`. A job that replaces a running one takes its slot, and waits for `let_go`.
    """
    lost = prune.ended_unseen(host, []) if host.settings.total_size_given else set()
    with host.store.lock():
        if reuse:
            refuse_second(host, short, asked["caller"])
        if asked.get("queue") is None:
            try:
                refuse_beyond_limits(host, asked["caller"], replaces)
            except LimitReached:
                # We may not know yet that jobs of another host have ended.
                if not host.name or not host.fresh():
                    raise
                refuse_beyond_limits(host, asked["caller"], replaces)
        record = functools.partial(spec_of, host, asked)
        if host.settings.total_size_given:
            prune.make_room(host, prune.reserved(record(1, short)), lost, [], replaces=replaces)
        mark = secrets.token_hex(12)
        record = functools.partial(record, mark=mark)
        spec = host.make(short, record, {**environment, MARK_IN_JOBS: mark}, held=replaces is not None)
        fault: StateError | None = None
        try:
            events.started(host, spec)
        except StateError as error:
            fault = error
        if fault is not None and not host.name:
            host.store.remove(spec.job_id)
    if fault is not None:
        if host.name:  # its window is open
            withdraw(host, spec.job_id)
        raise fault
    return spec.job_id


def spec_of(host: Host, asked: Mapping[str, Any], number: int, job_id: str, *, mark: str = "") -> JobSpec:
    """The record of a job that is started now."""
    unit, here = host.unit(), host.machine.here()
    return JobSpec(
        number=number,
        job_id=job_id,
        **asked,
        **{**ASKED, **asks.get()},
        grace_s=GRACE_S,
        umask=host.umask,
        created_at=datetime.now(UTC),
        created_monotonic=host.machine.monotonic(),
        boot=here.boot,
        namespace=here.namespace,
        machine=here.machine,
        host=host.node,
        nonce=str(secrets.randbits(63)),
        mark=mark,
        tmux=host.tmux.binary,
        python=unit.python,
        recorder=unit.main,
        pane=unit.main,
        session=host.settings.session,
        # A job that a hook started does not run the hook again, or that would never end.
        on_end=None if IN_HOOKS & host.environ.keys() else host.settings.on_end,
    )


def refuse_beyond_limits(host: Host, caller: Caller, replaces: str | None) -> None:
    """Raises LimitReached. Counts this machine's jobs, as its terminals and processes are what is limited."""
    running: dict[str, Caller] = {}
    for record in host.store.unfinished():
        if record.id == replaces:
            continue
        status: str = "running"
        with apart(record.id, []):  # it counts; `list` names it
            state = host.state(record)
            status = "" if isinstance(state, Elsewhere) else status_of(state)
        if status in OPEN:
            running[record.id] = record.job.caller
    callers.refuse_beyond_limits(
        caller,
        running,
        lambda ids: hold.held(host, ids),
        allowed=host.settings.scope,
        most=host.settings.max_jobs,
        total=host.settings.total_jobs,
    )


@contextlib.contextmanager
def to_approve(question: Mapping[str, Any] | None) -> Iterator[None]:
    """Make jobs that are started within it wait until a person approves them, if there is a question."""
    token = asks.set({**ASKED, **(question or {})})
    try:
        yield
    finally:
        asks.reset(token)


def shell_of(host: Host, given: str | None, path: str) -> dict[str, Any]:
    """The shell by name or path, with its options: `bash -l`. We add `-c` ourselves."""
    with contextlib.suppress(InvalidInput):
        return {"shell": shell_path(host, given, path)}
    try:
        name, *words = shlex.split(given or "")
    except ValueError:
        name, words = given or "", []
    if words and not SHELL_OPTIONS.fullmatch(" ".join(words)):
        raise InvalidInput(f"shell takes a shell and its options, like 'bash -l', not '{shortened(given or '')}'.")
    options = [re.sub(r"^(-[a-zA-Z]*)c", r"\1", word) for word in words]
    return {
        "shell": shell_path(host, name or given, path),
        "shell_options": tuple(word for word in options if word != "-"),
    }


def shell_path(host: Host, given: str | None, path: str) -> str:
    wanted = [given] if given else ["bash", "sh", "/bin/sh"]
    for name in wanted:
        for where in (path, *(() if given else (host.environ.get("PATH", os.defpath),))):
            if found := host.machine.program(name, where):
                return found
    name = shortened(given or "bash")
    raise InvalidInput(f"There is no shell '{name}'; give a name on PATH or a path, or leave it out.")
