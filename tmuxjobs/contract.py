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
    # A person's own watch over silence or output would speak up about every job.
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
"""{how a job stands: (its mark, its colour)}, in the order of counts; in every list that a person sees.

One that `waits` for a person has the status running.
"""
OPEN = ("running", "paused", "queued", "unknown")
"""The statuses of a job that has not ended."""
SGR = {"red": 31, "green": 32, "yellow": 33, "blue": 34, "magenta": 35, "cyan": 36}
"""{colour: the number that sets it on a terminal}."""
MARK_IN_JOBS = "TMUXJOBS_JOB_MARK"
"""The variable with `JobSpec.mark`; no setting."""
SET_HERE: dict[str, str | None] = {}
"""Variables that are set for this process alone, with what each was before, None for not set: so jobs get them."""
LAUNCH_S = 60.0
"""A job without a runner is starting for this long; the runner refuses to start a later one."""
IN_JOBS = "TMUXJOBS_JOB_ID"
"""Set in every job's environment, beside `MARK_IN_JOBS`; neither is a setting."""
PROGRAM = "tmuxjobs-job"
"""The name of the link to Python that runs in panes. `comm` and argv[0] follow it: `pkill python` does not hit us."""
IN_OURS = "TMUXJOBS_RUN"
"""The job's id, set for our own processes in panes, whose arguments name no job; no setting, and not set in jobs."""
IN_HOOKS = {
    f"TMUXJOBS_{name}"
    for name in ("STATUS", "EXIT_CODE", "SIGNAL", "REASON", "RUNTIME", "SUMMARY", "COMMAND", "CWD", "LOG_PATH")
}
"""Set for the `on_end` command by the runner, beside IN_JOBS; no settings either."""
SHELL_FD = 3
"""By which the shell before a recorder holds its FIFO open."""
PANE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pane", "__main__.py")
"""The program that runs in panes, here; jobs are run by a copy of it, see `store/units.py`."""


def mark_of(root: str) -> str:
    """What panes carry to tell whose job is in them: two state directories may have given the same id."""
    return f"{crc32(os.fsencode(os.path.realpath(root))):08x}"


WELCOME = "@tmuxjobs_welcome"
"""The option of our session with the pane of its first window."""
FIRST = "recorder.first"
"""The FIFO of the recorder that is asked for along with the window; one that the runner asks for has another."""


def tmux_format(text: str) -> str:
    """`text` quoted for sh inside a tmux command that expands formats and strftime: no live `#` or `%` is left."""
    quoted = text.replace("'", "'\"'\"'").replace("#", "##''").replace("%", "%%")
    return f"'{quoted}'"


def argument(value: object) -> str:
    """tmux takes a `;` at an argument's end for the end of a command, tmux(1); alone it is meant so."""
    text = str(value)
    return f"{text[:-1]}\\;" if text.endswith(";") and text != ";" else text


def recorder_line(argv: list[str], job_id: str, fifo: str) -> str:
    """What `pipe-pane` runs: that recorder. Its last argument is the name of the FIFO.

    The shell opens it, long before the recorder can: from then on its death is seen at once. Opened read-write, since
    write-only would block forever if the runner were gone. Where there is no FIFO, the shell would make a file.
    """
    fifo, ours = tmux_format(fifo), f"{IN_OURS}={tmux_format(job_id)}"
    return f"[ -p {fifo} ] && {ours} exec {' '.join(map(tmux_format, argv))} {SHELL_FD}<>{fifo}"


def marks_of(target: str, job_id: str, root: str, *, state: str, at: str) -> list[list[str]]:
    """The commands by which a window says whose it is, and how its job stands since when."""
    marks = {"@tmuxjobs_job": job_id, "@tmuxjobs_root": root}
    options = {**WINDOW, "@tmuxjobs_state": state, "@tmuxjobs_at": at}
    return [
        *(["set-option", "-p", "-t", target, name, value] for name, value in marks.items()),
        *(["set-option", "-w", "-t", target, name, value] for name, value in options.items()),
    ]


CALL_BYTES = 12_000
"""tmux takes no more than 16 KB in one call."""


def new_window(session: str, job_id: str, root: str, argv: list[str], token: str, line: str | None) -> list[str]:
    """The tmux command that starts a window of that job with `argv` in it and prints the pid there.

    In the same call it gets its marks, and `line` gets its output, where a person's hook has neither split nor
    renamed it, nor held us up until others did so: by `token` alone, a word that no other window has, the pane is
    known, for another one of the window may be in front.
    """
    where = ["-d", "-a", "-t", f"={session}:$", "-n", job_id, "-c", "/", "-e", f"{IN_OURS}={job_id}"]
    command = ["new-window", "-P", "-F", "#{pane_pid}", *where, "--", *argv, token]
    if line is None:
        return command
    pane = f"={session}:={job_id}"
    marks = marks_of(pane, job_id, root, state="running", at=str(int(time.time())))
    # As tmux parses them, each word in quotes: tmux(1), PARSING SYNTAX.
    words = [
        ["'" + word.replace("'", "'\\''") + "'" for word in one] for one in [*marks, ["pipe-pane", "-t", pane, line]]
    ]
    commands = " ; ".join(map(" ".join, words))
    if len(commands.encode()) + sum(len(word.encode()) for word in argv) >= CALL_BYTES:
        return command
    is_new = f"#{{&&:#{{m:*{token}*,#{{pane_start_command}}}},#{{==:#{{@tmuxjobs_job}},}}}}"
    return [*command, ";", "if-shell", "-F", "-t", pane, is_new, commands]


def labels(projects: Iterable[str]) -> dict[str, str]:
    """{project: the shortest end of its path that no other has}; empty when there is but one project."""
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
