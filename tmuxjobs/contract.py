"""Names and numbers that the processes in the panes and the package agree on. Stdlib only."""

from __future__ import annotations

import os
import zlib

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
MARKS = {"running": "▸", "asks": "?", "done": "✓", "failed": "✗", "killed": "!", "lost": "~"}
"""How each job stands, in every list that a person sees."""
MARK_IN_JOBS = "TMUXJOBS_JOB_MARK"
"""The variable with `JobSpec.mark`; no setting."""
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
PANE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pane", "__main__.py")
"""The program that runs in panes, here; jobs are run by a copy of it, see `store/units.py`."""


def mark_of(root: str) -> str:
    """What panes carry to tell whose job is in them: two state directories may have given the same id."""
    return f"{zlib.crc32(os.fsencode(os.path.realpath(root))):08x}"


def in_pane(python: str, program: str, role: str, *arguments: str) -> list[str]:
    """The argv of one of our processes in tmux: no site packages, no environment that changes Python, UTF-8."""
    return [python, "-I", "-S", "-X", "utf8", program, role, *arguments]
