"""`execute`: check what is asked, take a slot, open the window, and answer once the command runs."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack, overload

from tmuxjobs.answers import Ran, Started, ran
from tmuxjobs.arguments import CHARS, Conditions, checked_seconds, encoded
from tmuxjobs.contract import IN_HOOKS, IN_JOBS, IN_OURS, LAUNCH_S, MARK_IN_JOBS
from tmuxjobs.errors import TERMINALS, InvalidInput, LimitReached, NotAllowed, NotStarted, StateError, TmuxError, apart
from tmuxjobs.hosts import job_processes
from tmuxjobs.hosts.local import Host
from tmuxjobs.models import Elsewhere, JobSpec, Notify, Record, status_of
from tmuxjobs.store.ids import slug
from tmuxjobs.system import processes
from tmuxjobs.tmux.session import Opening
from tmuxjobs.verbs import events, kill, prune
from tmuxjobs.verbs.job_wait import goal
from tmuxjobs.verbs.wait import wait as wait_for
from tmuxjobs.verbs.waiter import Watched, run

COMMAND_BYTES = 120_000
"""Linux gives one argument 128 KiB: execve(2), MAX_ARG_STRLEN."""
GRACE_S = 5.0
CLOSE_S = 5.0
FREED_S = 1.0
"""For a closed window's terminal to be free: its process must end first."""
REOPEN = 3
"""So often a window is opened anew because the session went."""
OF_THE_TERMINAL = {"TMUX", "TMUX_PANE", "TERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "COLUMNS", "LINES", "STY"}
NOT_FOR_JOBS = OF_THE_TERMINAL | IN_HOOKS | {IN_OURS}


@overload
def execute(
    host: Host,
    command: str,
    *,
    name: str | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    shell: str | None = None,
    separate_stderr: bool = False,
    notify: Notify | None = None,
    wait: None = None,
    max_bytes: int = CHARS,
    **conditions: Unpack[Conditions],
) -> Started: ...


@overload
def execute(
    host: Host,
    command: str,
    *,
    name: str | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    shell: str | None = None,
    separate_stderr: bool = False,
    notify: Notify | None = None,
    wait: float,
    max_bytes: int = CHARS,
    **conditions: Unpack[Conditions],
) -> Ran: ...


def execute(
    host: Host,
    command: str,
    *,
    name: str | None = None,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    shell: str | None = None,
    separate_stderr: bool = False,
    notify: Notify | None = None,
    wait: float | None = None,
    max_bytes: int = CHARS,
    **conditions: Unpack[Conditions],
) -> Started:
    """Start a shell command line in a window of its own; answers when it runs.

    `timeout` is in seconds; it and `notify` are the configured ones by default. With `wait` (s) the answer is a Ran: it
    has what `wait` answers too, when the job has ended or a condition is met in any of its output. Raises InvalidInput,
    NotAllowed, LimitReached, TmuxError, StateError, or NotStarted; after each of them nothing is left behind.
    """
    goal(**conditions)
    checked_seconds("wait", wait or 0.0, least=0.0)
    environment = environment_of(host, env or {})
    asked = {
        **checked(host, command, cwd, shell, environment),
        "timeout_s": checked_seconds("timeout", timeout) if timeout is not None else host.settings.job_timeout,
        "separate_stderr": separate_stderr,
        "notify": notify or host.settings.notify,
        "env_names": tuple(sorted(env or {})),
    }
    host.ensure_session()
    job_id = create(host, slug(name or command), asked, environment)
    launch(host, job_id)
    answer = started(host, job_id)
    if wait is None and answer.status == "running":
        return answer
    return ran(answer, wait_for(host, job_id, cursor=0, timeout=wait or 0.0, max_bytes=max_bytes, **conditions))


def started(host: Host, job_id: str) -> Started:
    """The answer about a job whose command runs or has run."""
    with contextlib.suppress(TmuxError):  # the job runs: whatever tmux says now, its id must reach the caller
        prune.prune_windows(host)
    job = host.look(job_id)
    return Started(job_id=job_id, status=job.status, log_path=str(job.log), attach=host.attach_line(job))


def checked(
    host: Host, command: str, cwd: str | None, shell: str | None, environment: Mapping[str, str]
) -> dict[str, Any]:
    """What of a job may be refused before anything is done; raises InvalidInput, NotAllowed."""
    check_command(host, command)
    return {
        "command": command,
        "cwd": str(folder_of(host, cwd)),
        "shell": shell_path(shell, environment.get("PATH", os.defpath)),
    }


def check_command(host: Host, command: str) -> None:
    if not command.strip():
        raise InvalidInput("The command is empty; give a shell command line.")
    size = len(encoded("command", command))
    if size > COMMAND_BYTES:
        raise InvalidInput(
            f"The command is {size} bytes long and may be {COMMAND_BYTES}; write it to a file and run that."
        )
    allowed = host.settings.allowed_commands
    if allowed is not None and not any(re.search(pattern, command, re.IGNORECASE) for pattern in allowed):
        raise NotAllowed(f"The command matches none of the allowed patterns: {', '.join(allowed)}.")


def environment_of(host: Host, given: Mapping[str, str]) -> dict[str, str]:
    for key, value in given.items():
        if not key or "=" in key or not key.isprintable():
            raise InvalidInput(f"{key!r} in env is not a name for a variable.")
        encoded(f"value of '{key}' in env", value)
    ours: dict[str, str] = {key: value for key, value in host.environ.items() if key not in NOT_FOR_JOBS}
    return ours | {"PAGER": "cat", "GIT_PAGER": "cat"} | dict(given)


def folder_of(host: Host, cwd: str | None) -> Path:
    encoded("cwd", cwd or "")
    # A user whom nobody knows leaves the `~` where it is.
    folder = Path(os.path.abspath(host.cwd / os.path.expanduser(cwd or ".")))
    if not os.path.isdir(folder):
        raise InvalidInput(f"cwd '{shortened(str(folder))}' is not a directory.")
    if not os.access(folder, os.X_OK):
        raise InvalidInput(f"cwd '{folder}' may not be entered.")
    return folder


def shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."


def create(
    host: Host, short: str, asked: Mapping[str, Any], environment: dict[str, str], *, replaces: str | None = None
) -> str:
    """Take a slot and lay down the record, under the lock: no two servers count the same slot as free.

    One that replaces a running job takes that one's slot, and its command is held back until `Store.let_go`.
    """
    lost = prune.ended_unseen(host, []) if host.settings.max_total_size is not None else set()
    with host.store.lock():
        running = []  # on this machine: it is its terminals and processes that are limited
        for record in host.store.unfinished():
            if record.id == replaces:
                continue
            status: str = "running"
            with apart(record.id, []):  # it counts; `list` names it
                state = host.state(record)
                status = "" if isinstance(state, Elsewhere) else status_of(state)
            if status == "running":
                running.append(record.id)
        if len(running) >= host.settings.max_jobs:
            raise LimitReached(
                f"{len(running)} jobs run and TMUXJOBS_MAX_JOBS is {host.settings.max_jobs}: wait for one or kill "
                f"one of {', '.join(sorted(running)[:10])}."
            )
        unit = host.unit()
        number = host.store.next_number()
        job_id = f"{short}-{host.store.index.suffix(number)}"
        spec = JobSpec(
            number=number,
            job_id=job_id,
            **asked,
            grace_s=GRACE_S,
            max_output_bytes=host.settings.max_output_size,
            umask=own_umask(),
            created_at=datetime.now(UTC),
            created_monotonic=time.monotonic(),
            boot=job_processes.boot_id(),
            machine=processes.machine_id(),
            host=os.uname().nodename,
            nonce=str(secrets.randbits(63)),
            mark=secrets.token_hex(12),
            tmux=host.tmux.binary,
            python=unit.python,
            recorder=unit.main,
            pane=unit.main,
            session=host.settings.session,
            # A job that a hook started does not run the hook again, forever.
            on_end=None if IN_HOOKS & host.environ.keys() else host.settings.on_end,
        )
        if host.settings.max_total_size is not None:
            prune.make_room(host, prune.reserved(spec), lost, [], replaces=replaces)
        marks = {IN_JOBS: job_id, MARK_IN_JOBS: spec.mark}
        host.store.create(spec, environment | marks, held=replaces is not None)
        try:
            events.started(host, job_id)
        except StateError:
            host.store.remove(job_id)
            raise
    return job_id


def launch(host: Host, job_id: str) -> None:
    """Open the window and wait until the command runs or has run; on failure leave nothing and raise."""
    try:
        why = run(Launch(host, job_id))
    except TmuxError as error:  # the session went, and cannot be made again
        why = str(error)
    if why:
        discard_failed_start(host, job_id)
        raise NotStarted(f"The command did not start: {why.rstrip('.')}.")


class Launch(Watched):
    """The start of a window: over with an empty text once the command runs, has run or is held back, else with why not.

    A window that cannot get a terminal makes the oldest finished windows close, one by one.
    """

    RECHECK_S = 0.1  # a runner that was killed before it wrote anything causes no event

    def __init__(self, host: Host, job_id: str) -> None:
        super().__init__(host.look(job_id), logs=False)
        self.host = host
        self.job_id = job_id
        self.deadline = time.monotonic() + LAUNCH_S
        self.opening: Opening | None = None
        self.reopened = 0
        self.freed_by = 0.0

    def check(self) -> str | None:
        """Opens the window at the first check, and anew when the session went meanwhile."""
        opening = self.opening = self.opening or self.open()
        record = self.host.store.read(self.job_id)
        if record.exit is not None and record.exit.reason == "not-started":
            return record.exit.error or "its runner did not say why"
        if has_run(record) or self.host.store.is_held_back(self.job_id):
            return ""
        if record.run is None and opening.session_gone and self.reopened < REOPEN:
            self.reopened += 1
            self.host.ensure_session()
            self.opening = self.open()
        elif record.run is None and opening.error is not None:
            if TERMINALS not in str(opening.error):
                return str(opening.error)
            if time.monotonic() >= self.freed_by:
                if not prune.close_oldest_window(self.host):
                    return str(opening.error)
                self.freed_by = time.monotonic() + FREED_S
            self.opening = self.open()
        pid = record.run.pid if record.run is not None else opening.pid
        if pid is not None and job_processes.start_of(pid) is None:
            # It may have ended since the look.
            ended = has_run(self.host.store.read(self.job_id))
            return self.check() if ended else "its window was closed or its runner killed before it ran"
        if time.monotonic() >= self.deadline:
            return f"its window did not open within {LAUNCH_S:.0f} s"
        return None

    def open(self) -> Opening:
        return self.host.tmux.open_window(self.job_id, self.host.unit().argv("runner"), answered=self.wake)


def has_run(record: Record) -> bool:
    """Whether the command runs or has run."""
    return record.exit is not None or (record.run is not None and record.run.command_pid is not None)


def discard_failed_start(host: Host, job_id: str) -> None:
    """Remove all of a job that did not start; a runner killed at its fork may have left the command behind."""
    record = host.store.look(job_id)
    if record is not None:
        kill.end_processes(lambda: host.left(host.settle(record)).ours, "SIGKILL", 0.0)
    with host.store.lock():
        host.store.remove(job_id)
    deadline = time.monotonic() + CLOSE_S
    with contextlib.suppress(TmuxError):  # tmux ended or hangs, which is why the job did not start
        pane = host.tmux.panes().get(job_id)
        while pane is not None and not pane.dead and time.monotonic() < deadline:
            time.sleep(0.01)  # its process has written its record and is about to end
            pane = host.tmux.panes().get(job_id)
        if pane is not None:
            host.tmux.close(pane)


def shell_path(given: str | None, path: str) -> str:
    wanted = [given] if given else ["bash", "sh"]
    for name in wanted:
        found = shutil.which(os.path.expanduser(name), path=path) or (shutil.which(name) if not given else None)
        if found:
            return os.path.abspath(found)
    if not given and os.access("/bin/sh", os.X_OK):
        return "/bin/sh"
    name = shortened(given or "bash")
    raise InvalidInput(f"There is no shell '{name}'; give a name on PATH or a path, or leave it out.")


def own_umask() -> int:
    """Ours, to be the job's; Linux tells it without a change that another thread could see."""
    try:
        text = Path("/proc/self/status").read_text()
        return int(re.search(r"^Umask:\s*(\d+)", text, re.MULTILINE)[1], 8)  # type: ignore[index]
    except OSError:
        mask = os.umask(0o022)
        os.umask(mask)
        return mask
