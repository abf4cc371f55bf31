"""Control characters in a text to type: a tab is text where the program allows that; all others are keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tmuxjobs.errors import InvalidInput
from tmuxjobs.hosts.local import Host
from tmuxjobs.states import Job
from tmuxjobs.system.terminals import Terminal
from tmuxjobs.tmux.keyboard import Tabs, Way
from tmuxjobs.verbs import prompts

if TYPE_CHECKING:
    from tmuxjobs.tmux.panes import Pane

LINE_BYTES = 4095
"""The longest line that a cooked terminal takes; it cuts a longer one, n_tty(4)."""
OF_LINES = frozenset(["gdb", "gdb-multiarch", "sqlite3", "sqlite", "lftp", "ftp", "sftp", "gnuplot", "crash"])
"""Programs with readline that take all of a paste as one line."""
PART_BYTES = 4000
"""A longer line goes in parts into a cooked terminal, which takes each alone."""
KEYS = re.compile(r"\x1b(?:\[[0-?]*[@-~]|O[A-Z])|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Control characters other than tabs and ends of lines, and what arrows and the like send."""


def check_lines(settings: Terminal | None, text: str) -> None:
    longest = max((len(line.encode(errors="replace")) for line in text.split("\n")), default=0)
    if settings is not None and settings.cooked and longest > LINE_BYTES:
        raise InvalidInput(
            f"A line of {longest} bytes would be cut: the program reads whole lines of at most {LINE_BYTES} bytes. "
            "Send shorter lines, or write the text to a file that the job reads."
        )


def check_ends(settings: Terminal) -> None:
    """Refuse a part of a line where Ctrl-D does not hand it over."""
    if not settings.ends:
        raise InvalidInput(
            f"A line of more than {LINE_BYTES} bytes would be cut: the program reads whole lines, and its terminal "
            "has another key than Ctrl-D for the end. Send shorter lines, or let the job read a file."
        )


def way(host: Host, job: Job, pane: Pane, settings: Terminal | None, text: str) -> Way:
    """How to type the text so that it stays as it is."""
    by_line = _takes_lines(host, job, pane, settings, text)
    return Way(by_line, _tabs(job, pane, settings, text, by_line=by_line))


def _takes_lines(host: Host, job: Job, pane: Pane, settings: Terminal | None, text: str) -> bool:
    """Whether each line is typed on its own: to a terminal in line mode, and to an editor of single lines.

    Other editors take several lines as one paste, or they would indent them again.
    """
    if settings is None or settings.cooked:
        return settings is not None
    if "\n" not in text.removesuffix("\n") or pane.alternate or not prompts.edits_lines(job):
        return False
    by_script = host.machine.reads_by_script
    return host.tmux.program(pane) in OF_LINES or by_script(pane.tty, job.run.pid if job.run else 0)


def _tabs(job: Job, pane: Pane, settings: Terminal | None, text: str, *, by_line: bool) -> Tabs:
    """How tabs are typed so that they stay text: as they are for a terminal in line mode and a full-screen program.

    A text of tabs alone, or with other keys in it, is keys.
    """
    if not has_tabs(text) or KEYS.search(text) or settings is None or settings.cooked or pane.alternate:
        return "keys"
    several = "\n" in text.removesuffix("\n") and not by_line
    return "quoted" if settings.quotes and not (several and prompts.edits_lines(job)) else "pasted"


def has_tabs(text: str) -> bool:
    return "\t" in text and text.strip() != ""


def doubt(pane: Pane, settings: Terminal | None, text: str, *, attended: bool) -> str:
    """A note on a text that may not have arrived unchanged, else empty; `attended` says that its reader is known."""
    found = sorted({key(one) for one in KEYS.findall(text)}) if KEYS.sub("", text).strip() else []
    if has_tabs(text) and settings is not None:
        if settings.cooked and not attended and not found:
            return "a line editor that was not reading yet takes a tab in it for a key"
        is_text = not found and (settings.cooked or (settings.quotes and not pane.alternate))
        found += [] if is_text or settings.cooked else ["Tab"]
    return f"the program may have taken {', '.join(found)} in the text for keys" if found else ""


def key(typed: str) -> str:
    """The key for a control character, or for the first one of what a key sends."""
    named = {"\x1b": "Escape", "\x7f": "BSpace", "\x00": "C-Space"}
    return named.get(typed[0]) or f"C-{chr(ord(typed[0]) + 64).lower()}"
