"""The welcome page: what this session is, its jobs, and the keys.

It reads the job folders when the kernel reports a change, and every TICK_S while a job runs, and redraws only after a
change. It moves the queue on, and notices which jobs wait for input when no server does; no other part relies on what
it finds.
"""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path

from tmuxjobs import files
from tmuxjobs.contract import OPEN, SGR, STATES, labels, mark_of
from tmuxjobs.pane import queue, turns
from tmuxjobs.pane.board import Board, Ear, Job, apart
from tmuxjobs.pane.line import Line
from tmuxjobs.pane.window import DOWN, UP, Place, Terminal, without_name, write
from tmuxjobs.system.watch import Watch, watching
from tmuxjobs.visible import visible

TICK_S = 2.0
BREATH_S = 0.25
"""The least time (s) between two refreshes, even when more changes are reported."""
PLACE_CHARS = 24
"""How much of the end of a project's path each row shows, when there is more than one project."""
RING = "\a"
"""Ctrl-G, sent to this pane to ring the bell for a notice. See `Tmux.mark_prompts`."""
SHOWN = "\f"
"""Ctrl-L, sent by tmux when a person comes here from another window."""
TOP = "\x14"
"""Ctrl-T, sent by tmux when a person attaches."""


COMING = {"session-window-changed": "C-l", "client-attached": "C-t", "client-session-changed": "C-t"}
"""{hook of our session: the key that reports it to this page}."""


KEYS = {
    "↑↓": ("choose", "choose a job; so do k and j, PageUp and PageDown, Home and End"),
    "Enter": ("go to it", "go to its window, where you can look, scroll and type"),
    "h": ("hold", "keep the agent from typing into it or ending it; again: release it"),
    "r": ("run again", "run the command of an ended job again"),
    "x": ("end", "end it with all that it started, after a question; or close its window"),
    "q": ("leave", "leave; the jobs keep running"),
    "?": ("help", "this; any key goes back"),
}
"""{key: (what it does, the same as a sentence)}."""


PAGE = {"\x1b[5~": -1, "\x1b[6~": 1}
FIRST = ("\x1b[H", "\x1bOH", "\x1b[1~", "g")
LAST = ("\x1b[F", "\x1bOF", "\x1b[4~", "G")
ABOUT = (
    "Commands that a coding agent started run here, each in a window of its own.",
    "They are yours too: look, scroll, type. They run on when you leave.",
)


class Welcome:
    """The first window: what this is, the jobs, the keys."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.board = Board(place.state_dir)
        self.ear = Ear(place)
        self.terminal = Terminal()
        self.chosen: str | None = None  # nothing chosen is the first
        self.said = ""
        self.to_end: str | None = None
        self.helps = False
        self.shown = ("", 0, 0)
        self.jobs: list[Job] = []
        self.queued = 0
        self.line: Line | None = None
        self.places: dict[str, tuple[int, queue.Entry]] = {}
        self.ways = self.own_keys()

    def run(self) -> None:
        write("\x1b[?1049h\x1b[?25l\x1b[?7l")
        places = (Path(self.place.state_dir), Path(self.place.state_dir, "jobs"))
        with contextlib.ExitStack() as stack:
            watches = [stack.enter_context(watching(one, None, self.terminal.wake, logs=False)) for one in places]
            self.go_about(watches)

    def go_about(self, watches: list[Watch]) -> None:
        while True:
            looked_at = time.monotonic()
            self.move_on()
            self.jobs = self.board.refresh()
            self.mark_lost()
            self.ear.refresh([job for job in self.jobs if job.state != "queued"])
            self.jobs.sort(key=Job.order)
            self.draw()
            keys = self.terminal.keys(self.pause(watched=all(watch.active for watch in watches)))
            while not keys and (rest := looked_at + BREATH_S - time.monotonic()) > 0:
                keys = self.terminal.keys(rest)
            for key in keys:
                self.said = "" if key != RING else self.said
                self.act(key)

    def pause(self, *, watched: bool) -> float | None:
        """Seconds until the next refresh when nothing is reported; None when only a report can bring news."""
        lives = not watched or any(job.state in OPEN and job.state != "queued" for job in self.jobs)
        pause_s = min(TICK_S if lives else math.inf, self.line.look_s if self.line is not None else math.inf)
        return pause_s if pause_s < math.inf else None

    def move_on(self) -> None:
        """Start jobs whose turn has come, even if only by the clock or unnoticed by others; show how many wait."""
        with contextlib.suppress(OSError, files.Odd):
            self.line = turns.move(self.place.state_dir)
        self.places = self.line.places() if self.line is not None else {}
        waiting = len(self.places)
        if waiting != self.queued:
            self.queued = waiting
            session = f"={self.place.session}:"
            self.place.tmux("set-option", "-t", session, "@tmuxjobs_queued", str(waiting or ""))

    def mark_lost(self) -> None:
        """Mark lost adopted jobs: the window outlives its adopter, and would still say that its job runs."""
        for job in self.jobs:
            if not job.is_adopted or job.state != "lost" or job.is_marked_lost:
                continue
            job.is_marked_lost = True
            with apart(job):
                if job.run and job.boot == self.board.here.boot and self.place.is_server(job.run):
                    self.place.tmux("set-option", "-w", "-t", job.run["pane"], "@tmuxjobs_state", "lost")

    def own_keys(self) -> str:
        """The person's own keys for moving about, from tmux; shown in the status line too."""
        prefix = self.place.tmux("show-options", "-A", "-v", "-t", f"={self.place.session}:", "prefix")[0]
        found: dict[str, str] = {}
        for line in self.place.tmux("list-keys", "-T", "prefix")[0].splitlines():
            words = line.split()
            if "prefix" in words:
                at = words.index("prefix")
                found.setdefault(" ".join(words[at + 2 :]), words[at + 1].lstrip("\\"))
        home = self.place.tmux("display-message", "-p", "-t", self.place.pane, "#{window_index}")[0]
        ways = [
            (f"select-window -t :={home}", "jobs"),
            ("next-window", "next"),
            ("previous-window", "previous"),
            ("copy-mode", "scroll"),
            ("detach-client", "leave"),
        ]
        keys = [(f"{prefix} {found[command]}", what) for command, what in ways if command in found and prefix != "None"]
        text = "  ".join(f"{key} {what}" for key, what in keys)
        short = "  ".join(f"{key} {what}" for key, what in keys if what in ("jobs", "leave"))
        hold = next((f"{key} h" for key, what in keys if what == "jobs"), "")
        # tmux draws it as a format: a `#` in a key must not begin one.
        shown = (("", text), ("_short", short), ("_hold", hold))
        marks = [(f"@tmuxjobs_keys{kind}", of.replace("#", "##")) for kind, of in shown]
        for name, value in marks:
            self.place.tmux("set-option", "-t", f"={self.place.session}:", name, value)
        # As for the jobs' windows: a person's own watch over output would report each time this page is redrawn.
        self.place.tmux("set-option", "-w", "-t", self.place.pane, "monitor-activity", "off")
        self.ask_for_notices()
        return text

    def ask_for_notices(self) -> None:
        """Set hooks of our session that press a key here when somebody comes, unless there is a global hook."""
        for hook, key in COMING.items():
            if self.place.tmux("show-hooks", "-g", hook)[0] in ("", hook):
                here = f"if-shell -F '#{{==:#{{pane_id}},{self.place.pane}}}' 'send-keys -t {self.place.pane} {key}'"
                self.place.tmux("set-hook", "-t", f"={self.place.session}:", hook, here)

    def choose_last(self) -> None:
        """Choose the job whose window the person has come from: the next keys are for that job."""
        windows = ("list-windows", "-t", f"={self.place.session}:", "-f", "#{window_last_flag}")
        root, _, last = self.place.tmux(*windows, "-F", "#{@tmuxjobs_root} #{@tmuxjobs_job}")[0].rpartition(" ")
        if last and root in ("", mark_of(self.place.state_dir)):
            self.chosen = last

    def draw(self) -> None:
        columns, rows = self.terminal.size()
        top = ["", " \x1b[1mtmuxjobs\x1b[m", "", *(f" {line}" for line in ABOUT), ""]
        bottom = ["", " " + "   ".join(f"\x1b[1m{key}\x1b[m {what}" for key, (what, _) in KEYS.items())]
        bottom += [f" {self.ways}", " In any shell: tmuxjobs list, status, tail -f, hold, adopt, kill, --help"]
        if rows < 18:
            top, bottom = [" \x1b[1mtmuxjobs\x1b[m"], bottom[1:2]
        if self.said:
            bottom = ["", f" \x1b[1m{visible(self.said)}\x1b[m", *bottom[1:]]
        room = max(1, rows - len(top) - len(bottom))
        lines = [*top, *self.table(columns, room), *bottom]
        if self.helps:
            lines = ["", *(f" \x1b[1m{key:<5}\x1b[m  {words}" for key, (_, words) in KEYS.items()), ""]
            lines = [*lines, *self.marks(columns), "", *bottom[-2:]][-rows:]
        text = "\r\n".join(f"{line}\x1b[K" for line in lines)
        page = f"\x1b[H{text}\x1b[J"
        if (page, columns, rows) != self.shown:
            write(page)
            self.shown = page, columns, rows

    def marks(self, columns: int) -> list[str]:
        """What each mark means, as many in a line as fit."""
        lines, used = [], columns
        for state, (mark, colour) in STATES.items():
            size = len(state) + 4
            if used + size > columns:
                lines.append("")
                used = 0
            lines[-1] += f" \x1b[{SGR[colour]}m{mark}\x1b[m {state} "
            used += size
        return lines

    def table(self, columns: int, room: int) -> list[str]:
        """One line a job, the chosen one always among them."""
        if not self.jobs:
            return [" No jobs yet. An agent starts them by `execute`; you can too:", "   tmuxjobs execute -- make test"]
        names = [job.job_id for job in self.jobs]
        at = names.index(self.chosen) if self.chosen in names else 0
        lines = room - 1 if len(names) > room else room
        first = max(0, min(at - lines // 2, len(names) - lines))
        shown = self.jobs[first : first + lines]
        wide = max(len(job.job_id) for job in shown)
        ends = labels(job.project for job in self.jobs)
        places = {project: visible(end)[-PLACE_CHARS:] for project, end in ends.items()}
        width = max((len(places.get(job.project, "")) for job in shown), default=0)
        table = []
        for job in shown:
            place = f"  {places.get(job.project, ''):<{width}}" if width else ""
            table.append(self.row(job, wide, columns, place=place, chosen=job is self.jobs[at]))
        if len(names) > lines:
            table.append(f"   {len(names) - lines} more: ↑↓ shows them")
        return table

    def row(self, job: Job, wide: int, columns: int, *, place: str, chosen: bool) -> str:
        state = "waits" if job.waits and job.state == "running" else job.state
        mark, colour = STATES[state][0], SGR[STATES[state][1]]
        start = f" {visible(job.job_id):<{wide}}  "
        prompt = f"{job.asks[1].strip()}   " if job.asks and job.asks[1].strip() else ""
        queued = ""
        if job.state == "queued" and self.line is not None and job.job_id in self.places:
            number, entry = self.places[job.job_id]
            queued, prompt = f"{number}", f"{self.line.why(entry)}   "
        rest = f"{place}  {visible(prompt + job.command)}"[: max(0, columns - len(start) - 26)]
        before, behind = (">\x1b[7m", "\x1b[27m") if chosen else (" ", "")
        said = ""
        with apart(job):
            said = f"{visible(job.summary())} {queued}".rstrip()
        start = f"\x1b[{colour}m{mark}\x1b[39m{start}\x1b[{colour}m{said or visible(job.fault):<20}\x1b[39m"
        return f"{before}{start}{behind}{rest}"

    def act(self, key: str) -> None:
        if key == RING:
            write(RING)
            return
        if key in (SHOWN, TOP):
            self.chosen, self.to_end, self.helps = None, None, False
            if key == SHOWN:
                self.choose_last()
            return
        if self.helps or key == "?":
            self.helps = not self.helps
            return
        if key == "q":
            self.said = self.place.leave()
            return
        if self.to_end is not None:
            self.answered(key)
            return
        names = [job.job_id for job in self.jobs]
        if not names:
            return
        at = names.index(self.chosen) if self.chosen in names else 0
        if key in (*UP, *DOWN, *PAGE, *FIRST, *LAST):
            page = self.terminal.size()[1] // 2
            step = 1 if key in DOWN else -1 if key in UP else page * PAGE.get(key, 0)
            at = 0 if key in FIRST else len(names) - 1 if key in LAST else at + step
            self.chosen = names[max(0, min(len(names) - 1, at))]
            return
        job = self.jobs[at]
        if key in ("\r", "\n"):
            self.said = self.place.show(job.job_id)
        elif key == "r":
            self.said = self.place.run_again(job.job_id) if job.state not in OPEN else f"{job.job_id}: {job.summary()}"
        elif key == "h":
            said, error = self.place.command("hold", "--toggle", job.job_id)
            self.said = without_name(error) or said
        elif key == "x" and job.state in (*OPEN, "lost"):
            self.to_end = job.job_id
            self.said = f"End {job.job_id} with all that it started? y ends it."
        elif key == "x":
            self.said = self.place.close(job.job_id)

    def answered(self, key: str) -> None:
        """End the job that was asked about, or not."""
        job_id, self.to_end = self.to_end or "", None
        if key in ("y", "Y"):
            self.said = f"Ending {job_id} ..."
            self.draw()
            said, error = self.place.command("kill", job_id)
            self.said = without_name(error) or said


def welcome(state_dir: str, session: str, tmux: str) -> None:
    Welcome(Place(tmux=tmux, session=session, state_dir=state_dir)).run()
