"""The window of a job that a person must approve before it runs: shows the request, and takes the answer.

The answer is a file, written by the first to answer: a key here, `tmuxjobs approve` or `refuse`, or a client's
question. Without an answer the job is refused after a bound. Nothing here needs a server.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import time
import unicodedata

from tmuxjobs import files
from tmuxjobs.contract import FORMAT
from tmuxjobs.files import now, write_json, write_once
from tmuxjobs.outcome import seconds
from tmuxjobs.pane.recorder_link import NotApproved, Refused
from tmuxjobs.pane.window import ALONE_S, DOWN, UP, Place, split_keys, without_name, write
from tmuxjobs.visible import visible

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

    from tmuxjobs.pane.recorder_link import RecorderLink

ANSWER_CHECK_S = 1.0
"""Seconds between checks for an answer whose signal did not come."""
FACT_CHARS = 240
ENDS = {
    signal.SIGHUP: "its window, or tmux, was closed before a person approved it",
    signal.SIGUSR1: "it was ended before a person approved it",
    signal.SIGTERM: "it was ended before a person approved it",
}


class Approval:
    """The question whether the job may run."""

    def __init__(
        self,
        job: dict[str, Any],
        run: dict[str, Any],
        recorder: RecorderLink,
        folder: str,
        wakeup: int,
        server_end: int,
    ) -> None:
        self.job = job
        self.run = run
        self.recorder = recorder
        self.folder = folder
        self.wakeup = wakeup
        self.server_end = server_end
        self.path = os.path.join(folder, "approval.json")
        self.deadline: float = job["created_monotonic"] + job["ask_s"]
        self.size = os.terminal_size((0, 0))
        self.first = self.shown = 0
        """The first of the command's rows on the screen, and how many rows a person can have read."""
        self.said = ""
        self.always = False

    def ask(self) -> None:
        """Return once the job is approved and `run.json` says so; raises NotApproved and Refused."""
        settings = self.take_terminal()
        try:
            self.tell()
            self.run["approved"] = ""
            write_json(os.path.join(self.folder, "run.json"), self.run)
            answer = self.answer()
        finally:
            signal.signal(signal.SIGWINCH, signal.SIG_DFL)
            with contextlib.suppress(OSError, termios.error):  # the window was closed
                write("\x1b[?7h\x1b[?25h\x1b[?1049l")
                # What was typed here is not for the job.
                termios.tcsetattr(0, termios.TCSAFLUSH, settings)
        self.note(answer)
        if not answer["approved"]:
            raise NotApproved(answer["how"] + (f": {answer['why']}" if answer["why"] else ""))
        self.run["approved"] = answer["how"]
        # Before the command starts, so that a job that has run is never taken for one that waits.
        write_json(os.path.join(self.folder, "run.json"), self.run)
        self.recorder.since = str(int(time.time()))

    def note(self, answer: dict[str, Any]) -> None:
        """Add the answer to the history, wherever it was given."""
        why = answer["how"] + (f": {answer['why']}" if answer["why"] else "")
        deed = {"at": now(), "caller": answer["by"], "job_id": self.job["job_id"], "why": why}
        with contextlib.suppress(OSError, files.Odd):  # a full disk
            path = os.path.join(os.path.dirname(os.path.dirname(self.folder)), "history")
            files.append(path, {**deed, "verdict": "approved" if answer["approved"] else "refused"})

    def take_terminal(self) -> list[Any]:
        """Read keys one by one, dropping those pressed before; returns the terminal's previous settings."""
        signal.signal(signal.SIGWINCH, lambda *_: None)
        try:
            settings = termios.tcgetattr(0)
            ours = termios.tcgetattr(0)
            ours[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
            ours[6][termios.VMIN], ours[6][termios.VTIME] = 1, 0
            termios.tcsetattr(0, termios.TCSAFLUSH, ours)
            write("\x1b[?1049h\x1b[?25l\x1b[?7l")
        except (OSError, termios.error):
            raise NotApproved(ENDS[signal.SIGHUP]) from None
        return settings

    def tell(self) -> None:
        """Notify people, in the list of windows and by a notice and a bell."""
        session = ["set-option", "-t", f"={self.job.get('session') or 'mcp-jobs'}:"]
        notice = [[*session, "@tmuxjobs_notice_at", str(int(time.time()))]]
        notice += [[*session, "@tmuxjobs_notice", f"{self.job['job_id']} waits for approval"]]
        self.recorder.tmux(*self.recorder.marks("asks"))
        if self.job.get("notify") != "never":
            with contextlib.suppress(Refused):  # the person renamed the session
                self.recorder.tmux(*notice)
            write("\a")

    def answer(self) -> dict[str, Any]:
        """Wait for the first answer and return it; after the bound it is a refusal."""
        while True:
            with contextlib.suppress(OSError, files.Odd):
                return files.record(self.path, files.APPROVAL)
            if time.monotonic() >= self.deadline:
                self.give(approved=False, how=f"nobody approved it within {seconds(self.job['ask_s'], coarse=True)}")
                continue
            with contextlib.suppress(OSError):  # the window is being closed: its signal is on the way
                self.draw()
            poll = select.poll()
            for fd in (0, self.wakeup, *([self.server_end] if self.server_end >= 0 else [])):
                poll.register(fd, select.POLLIN)
            events = dict(poll.poll(max(0.0, min(ANSWER_CHECK_S, self.deadline - time.monotonic())) * 1000))
            if self.server_end in events:
                self.give(approved=False, how="the server that asked for it, with which it was to end, has ended")
            elif self.wakeup in events:
                self.take_signals()
            elif events.get(0, 0) & select.POLLIN:
                self.take_key()
            elif 0 in events:
                self.give(approved=False, how=ENDS[signal.SIGHUP])

    def give(self, *, approved: bool, how: str, by: str = "tmuxjobs") -> None:
        """Answer, unless there is an answer; raises NotApproved when it cannot be written down."""
        value = {"format": FORMAT, "approved": approved, "how": how, "why": "", "by": by}
        try:
            write_once(self.path, value)
        except OSError:
            raise NotApproved(f"{how}; and the answer could not be written down") from None

    def take_signals(self) -> None:
        numbers = os.read(self.wakeup, 4096)
        for number, how in ENDS.items():
            if number in numbers:
                self.give(approved=False, how=how)

    def take_key(self) -> None:
        """Act on a single key; several at once were typed or pasted for another program, unless all of them scroll."""
        keys = split_keys(os.read(0, 4096).decode(errors="replace"))
        if all(key in UP + DOWN for key in keys):
            for key in keys:
                self.press(key)
            return
        more = select.poll()
        more.register(0, select.POLLIN)
        while more.poll(ALONE_S * 1000):
            data = os.read(0, 4096)
            if not data:
                break
            keys += split_keys(data.decode(errors="replace"))
        if len(keys) == 1:
            self.press(keys[0])

    def press(self, key: str) -> None:
        always, self.always, self.said = self.always, False, ""
        unread = len(self.rows()) - self.shown
        if always:
            if key == "y":
                self.add_rule()
        elif key in UP + DOWN:
            self.first = max(0, self.first + (1 if key in DOWN else -1))
        elif key in ("y", "a") and unread > 0:
            self.said = f"Read it all first: ↓ shows {unread} more lines of the command."
        elif key == "y":
            self.give(approved=True, how="by a person in its window", by="person")
        elif key == "n":
            self.give(approved=False, how="refused by a person in its window", by="person")
        elif key == "a" and self.job.get("ask_rules"):
            self.always = True

    def add_rule(self) -> None:
        """Add the rule and approve the job with our command, which knows how policies are written."""
        state_dir = os.path.dirname(os.path.dirname(self.folder))
        place = Place(tmux=self.job["tmux"], session=self.job.get("session") or "mcp-jobs", state_dir=state_dir)
        _, error = place.command("approve", "--always", self.job["job_id"])
        self.said = without_name(error)

    # What it shows

    def draw(self) -> None:
        columns, lines = size = os.get_terminal_size(0)
        if size != self.size:  # nobody need have seen what was drawn on a larger one
            self.size, self.shown = size, 0
        top = ["", f" \x1b[1m{visible(self.who())} asks to run this command. Nothing has run yet.\x1b[m", ""]
        bottom = ["", *(row for fact in self.facts() for row in wrapped(*fact, columns)), ""]
        if self.always:
            bottom = ["", f" This rule is added to {visible(self.job.get('ask_file') or '')}, under [policy]:", ""]
            bottom += [row for rule in self.job["ask_rules"] for row in wrapped("   always  ", visible(rule), columns)]
            bottom += ["", " \x1b[1my\x1b[m add it, and run the command   any other key goes back"]
        else:
            always = "   \x1b[1ma\x1b[m always, once you have seen the rule" if self.job.get("ask_rules") else ""
            bottom += [f" \x1b[1my\x1b[m run it   \x1b[1mn\x1b[m refuse it{always}"]
            bottom += [f" \x1b[7m {visible(self.said)} \x1b[m" if self.said else f" {self.bound()}"]
        rows = self.rows()
        room = max(1, lines - len(top) - len(bottom))
        if len(rows) > room:
            room = max(1, room - 1)
        self.first = max(0, min(self.first, len(rows) - room))
        shown = rows[self.first : self.first + room]
        self.shown = max(self.shown, self.first + len(shown))
        if len(rows) > room:
            shown.append(f"   \x1b[2mlines {self.first + 1} to {self.first + room} of {len(rows)}: ↑↓\x1b[m")
        page = [*top, *shown, *bottom][:lines]
        write("\x1b[H" + "\r\n".join(f"{line}\x1b[K" for line in page) + "\x1b[J")

    def who(self) -> str:
        caller = self.job.get("caller") or {}
        return " ".join(str(caller.get(name) or "") for name in ("client", "version")).strip()[:60] or "An agent"

    def rows(self) -> list[str]:
        """All that it runs, as rows of the screen; `$` or `>` begins each line of the command."""
        columns, _ = os.get_terminal_size(0)
        lines = [(f" {'>' if at else '$'} ", line) for at, line in enumerate(self.job["command"].split("\n"))]
        if ready := self.job.get("ready_when"):
            says = " again and again, to know when it is ready: " if ready.startswith("command ") else " ready when: "
            lines.append((says, ready.removeprefix("command ")))
        return [row for start, line in lines for row in wrapped(start, visible(line), columns)]

    def facts(self) -> list[tuple[str, str]]:
        options = " ".join([self.job["shell"], *(self.job.get("shell_options") or ())])
        names = ", ".join(self.job.get("env_names") or ())
        project = (self.job.get("caller") or {}).get("project")
        found = [("folder", self.job["cwd"]), ("project", project), ("shell", options)]
        again, times = self.job.get("restart_policy") or "", self.job.get("retry") or 0
        if again or times:
            again = f"{again or 'on-failure'}, up to {times} times{' in a row' if again else ''}"
        found += [("variables", f"{names} (set for it)" if names else ""), ("runs again", again)]
        found.append(("why", self.job["ask_why"]))
        return [(f" {name:<11}", visible(str(value))[:FACT_CHARS]) for name, value in found if value]

    def bound(self) -> str:
        left = seconds(max(0.0, self.deadline - time.monotonic()), coarse=True)
        return f"Refused in {left} without an answer. In any shell: tmuxjobs approve {self.job['job_id']}"


def wrapped(start: str, text: str, columns: int) -> list[str]:
    """All of the text as rows of the screen, the first after `start`."""
    room = max(1, columns - len(start) - 1)
    rows, row, width = [], "", 0
    for char in text:
        wide = 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if width + wide > room:
            rows.append(row)
            row, width = "", 0
        row += char
        width += wide
    rows.append(row)
    return [(start if at == 0 else " " * len(start)) + row for at, row in enumerate(rows)]
