"""Names and numbers that the processes in the panes and the package agree on. Stdlib only."""

from __future__ import annotations

import os
import time
from binascii import crc32

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION = "0.1.0"
WINDOW = {
    "remain-on-exit": "on",
    "automatic-rename": "off",
    "allow-rename": "off",
    "window-size": "latest",
    "monitor-bell": "on",
    # A person's own monitoring of silence or output would report every job.
    "monitor-activity": "off",
    "monitor-silence": "0",
}
"""Options of a job's window."""
FORMAT = 1
"""Version of the records on disk; a newer one is refused."""
STATES = {
    "running": ("▸", "blue"),
    "waits": ("?", "yellow"),
    "paused": ("‖", "yellow"),
    "queued": ("·", "cyan"),
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "killed": ("!", "magenta"),
    "skipped": ("»", "magenta"),
    "lost": ("~", "red"),
    "unknown": ("-", "yellow"),
}
"""{a job's state: (its mark, its colour)}, in the order of counts; for every list that a person sees.

A job that `waits` for a person has the status running.
"""
OPEN = ("running", "paused", "queued", "unknown")
"""The statuses of a job that has not ended."""
SGR = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}
"""{colour: the number that sets it on a terminal}."""
MARK_IN_JOBS = "TMUXJOBS_JOB_MARK"
"""The variable with `JobSpec.mark`; not a setting."""
SET_HERE: dict[str, str | None] = {}
"""Variables set only for this process, with the value of each before, which jobs get; None if it was not set."""
LAUNCH_S = 60.0
"""A job without a runner counts as starting for this long; a runner that comes later refuses to start it."""
IN_JOBS = "TMUXJOBS_JOB_ID"
"""Set in every job's environment, beside `MARK_IN_JOBS`; neither is a setting."""
PROGRAM = "tmuxjobs-job"
"""The name of the link to Python that runs in panes. `comm` and argv[0] follow it: `pkill python` does not hit us."""
IN_OURS = "TMUXJOBS_RUN"
"""The job's id, set for our own processes in panes, whose arguments name no job; not a setting, and not set in jobs."""
IN_HOOKS = {
    f"TMUXJOBS_{name}"
    for name in ("STATUS", "EXIT_CODE", "SIGNAL", "REASON", "RUNTIME", "SUMMARY", "COMMAND", "CWD", "LOG_PATH")
}
"""Set for the `on_end` command by the runner, beside IN_JOBS; not settings either."""
SHELL_FD = 3
"""The descriptor by which the shell that starts a recorder holds its FIFO open."""
PANE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pane", "__main__.py")
"""This installation's program for panes; jobs are run by a copy of it, see `store/units.py`."""


def mark_of(root: str) -> str:
    """The mark of panes that says which state directory their job is in: two may have given the same id."""
    return f"{crc32(os.fsencode(os.path.realpath(root))):08x}"


WELCOME = "@tmuxjobs_welcome"
"""The option of our session with the pane of its first window."""
FIRST = "recorder.first"
"""The FIFO of the recorder that is started along with the window; one that the runner starts has another."""


def tmux_format(text: str) -> str:
    """`text` quoted for sh inside a tmux command that expands formats and strftime: no live `#` or `%` is left."""
    quoted = text.replace("'", "'\"'\"'").replace("#", "##''").replace("%", "%%")
    return f"'{quoted}'"


def argument(value: object) -> str:
    """An argument for tmux, which takes a `;` at its end as the end of a command, tmux(1); alone it is meant so."""
    text = str(value)
    return f"{text[:-1]}\\;" if text.endswith(";") and text != ";" else text


def recorder_line(argv: list[str], job_id: str, fifo: str) -> str:
    """The command that `pipe-pane` runs to start that recorder. Its last argument is the name of the FIFO.

    The shell opens it long before the recorder could: from then on its death is seen at once. Opened read-write, since
    write-only would block forever if the runner were gone. Without the check for a FIFO, the shell would make a file.
    """
    fifo, ours = tmux_format(fifo), f"{IN_OURS}={tmux_format(job_id)}"
    return f"[ -p {fifo} ] && {ours} exec {' '.join(map(tmux_format, argv))} {SHELL_FD}<>{fifo}"


def marks_of(target: str, job_id: str, root: str, *, state: str, at: str) -> list[list[str]]:
    """The commands that mark a window with its job, the job's state, and since when it has that."""
    marks = {"@tmuxjobs_job": job_id, "@tmuxjobs_root": root}
    options = {**WINDOW, "@tmuxjobs_state": state, "@tmuxjobs_at": at}
    return [
        *(["set-option", "-p", "-t", target, name, value] for name, value in marks.items()),
        *(["set-option", "-w", "-t", target, name, value] for name, value in options.items()),
    ]


def command_line(commands: Iterable[list[str]]) -> str:
    """tmux commands as one argument of another, such as `if-shell`: each word in quotes, tmux(1), PARSING SYNTAX."""
    return " ; ".join(" ".join("'" + word.replace("'", "'\\''") + "'" for word in command) for command in commands)


CALL_BYTES = 12_000
"""tmux takes no more than 16 KB in one call."""


def new_window(session: str, job_id: str, root: str, argv: list[str], token: str, line: str | None) -> list[str]:
    """The tmux command that starts a window of that job with `argv` in it and prints the pid there.

    The same call sets its marks and pipes its output to `line`, unless a person's hook has split or renamed it, or
    delayed us until others did so: only `token`, a word that no other window has, identifies the pane, as another
    pane of the window may be in front.
    """
    where = ["-d", "-a", "-t", f"={session}:$", "-n", job_id, "-c", "/", "-e", f"{IN_OURS}={job_id}"]
    command = ["new-window", "-P", "-F", "#{pane_pid}", *where, "--", *argv, token]
    if line is None:
        return command
    pane = f"={session}:={job_id}"
    marks = marks_of(pane, job_id, root, state="running", at=str(int(time.time())))
    commands = command_line([*marks, ["pipe-pane", "-t", pane, line]])
    if len(commands.encode()) + sum(len(word.encode()) for word in argv) >= CALL_BYTES:
        return command
    is_new = f"#{{&&:#{{m:*{token}*,#{{pane_start_command}}}},#{{==:#{{@tmuxjobs_job}},}}}}"
    return [*command, ";", "if-shell", "-F", "-t", pane, is_new, commands]


def labels(projects: Iterable[str]) -> dict[str, str]:
    """{project: the shortest end of its path that no other has}; empty when there is only one project."""
    parts = {project: project.rstrip("/").split("/") for project in projects if project}
    found = {}
    for project, mine in parts.items() if len(parts) > 1 else ():
        ends = range(1, len(mine) + 1)
        unique = (n for n in ends if sum(other[-n:] == mine[-n:] for other in parts.values()) == 1)
        found[project] = "/".join(mine[-next(unique, len(mine)) :]) or "/"
    return found


def in_pane(python: str, program: str, role: str, *arguments: str) -> list[str]:
    """The argv of one of our processes in tmux: no site packages, no environment that changes Python, UTF-8."""
    return [python, "-I", "-S", "-X", "utf8", program, role, *arguments]
