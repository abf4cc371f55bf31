"""What tmux says about panes and clients, and the formats that ask for it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from tmuxjobs.contract import WELCOME, command_line

LOOK = "@tmuxjobs_look"
NOW = f"#{{{LOOK}}} #{{{WELCOME}}}#{{W:#{{P:#{{?#{{==:#{{pane_id}},#{{{WELCOME}}}}}, there,}}}}}}"
"""How our session looks, and its page: `look-1f %0 there`, without the last word if that was closed."""
MARK = "@tmuxjobs_job"
ROOT = "@tmuxjobs_root"
"""The mark of the job's state directory; 0.1.0 set none."""
PROJECT = "@tmuxjobs_project"
"""The job's project, set on windows if the server has jobs of several projects."""
OVER = "#{||:#{pane_dead},#{@tmuxjobs_end}}"
"""The job in the pane has ended: its runner says so, and keeps the window for its keys; or the pane is dead."""
FORMAT = "\t".join(
    f"#{{{name}}}"
    for name in (
        MARK,
        ROOT,
        "pane_id",
        "window_id",
        "pane_tty",
        OVER[2:-1],
        "pane_pipe",
        "pane_in_mode",
        "window_active_clients",
        "alternate_on",
        PROJECT,
    )
)
PLACE_OF_CURSOR = "#{history_size}:#{cursor_y}:#{cursor_x}"
"""Changes with what a program prints, but not when a person views the pane or scrolls back."""
PLACE = (
    "session_name",
    "window_index",
    "window_id",
    "pane_id",
    "pane_active",
    "window_panes",
    "pane_pid",
    "pane_tty",
    OVER[2:-1],
    "pane_pipe",
    MARK,
    ROOT,
    "pid",
    "socket_path",
    WELCOME,
    "automatic-rename",
    "window_name",
)
PLACE_FORMAT = "\t".join(f"#{{{name}}}" for name in PLACE)


@dataclass(frozen=True)
class Pane:
    """What tmux says about a pane that carries a job's mark.

    `dead` says that its job has ended; `viewers` is how many clients see its window. `root` is the mark of its state
    directory, empty for a job of 0.1.0: another state directory may have a job of that id.
    """

    job_id: str
    pane_id: str
    window_id: str
    tty: str
    dead: bool
    piped: bool
    in_mode: bool
    viewers: int
    alternate: bool
    root: str
    project: str


@dataclass(frozen=True)
class Asking:
    """A pane's question: `question` distinguishes it from the next, `notice` is the message to people, or None."""

    question: str
    notice: str | None


@dataclass(frozen=True)
class Client:
    """A person's attached terminal; `active_at` is the time of its last key, in s since the epoch."""

    pid: int
    active_at: int
    window_id: str
    session: str


@dataclass(frozen=True)
class AnyPane:
    """A pane of any session; `job_id` is its mark or empty, `over` says that its program has ended.

    `auto_named` says that tmux names its window after what runs in it.
    """

    session: str
    index: str
    window_id: str
    pane_id: str
    active: bool
    panes: int
    pid: int
    tty: str
    over: bool
    piped: bool
    job_id: str
    root: str
    server_pid: int
    socket: str
    is_welcome: bool
    auto_named: bool
    window_name: str


@dataclass(frozen=True)
class Around:
    """A job's window, the mark of a hold on it, and all clients of the server."""

    pane_id: str
    window_id: str
    held: str
    clients: tuple[Client, ...]


@dataclass(frozen=True)
class Screen:
    """What a pane shows; `lines` come without trailing blanks, `mode` is tmux's (copy-mode) or empty."""

    lines: tuple[str, ...]
    columns: int
    rows: int
    cursor_column: int
    cursor_row: int
    cursor_visible: bool
    alternate: bool
    mode: str
    title: str


SCREEN_FORMAT = "\t".join(
    f"#{{{name}}}"
    for name in (
        "pane_width",
        "pane_height",
        "cursor_x",
        "cursor_y",
        "cursor_flag",
        "alternate_on",
        "pane_mode",
        "scroll_position",
        "copy_cursor_x",
        "copy_cursor_y",
        "pane_title",
    )
)


def page_again(session: str, welcome: Sequence[str], gone: str) -> list[str]:
    """The command that opens the closed page anew, in the first free place and in front of nobody, unless it is there.

    Where a person's hook renames it, it is not opened again and again.
    """
    name = f"jobs-{secrets.token_hex(4)}"
    commands = [
        ["new-window", "-d", "-t", session, "-n", name, "-c", "/", *welcome],
        ["set-option", "-t", session, WELCOME, ""],
        ["set-option", "-F", "-t", f"{session}={name}", WELCOME, "#{pane_id}"],
        ["rename-window", "-t", f"{session}={name}", "jobs"],
    ]
    return ["if-shell", "-F", "-t", session, f"#{{==:#{{{WELCOME}}},{gone}}}", command_line(commands)]
