"""The welcome page: what this session is, its jobs, and the keys to go about.

It looks at the job folders every TICK_S and writes only what changed, and it notices who waits for input when no server
does; nothing here is asked for the truth about a job.
"""

from __future__ import annotations

import contextlib
import json
import os
import time

from tmuxjobs import files
from tmuxjobs.contract import LAUNCH_S, MARKS, mark_of
from tmuxjobs.outcome import End, seconds
from tmuxjobs.pane.window import DOWN, UP, Place, Terminal, read_record, without_name, write
from tmuxjobs.system import processes, terminals
from tmuxjobs.system.processes import boot_id, is_alive
from tmuxjobs.visible import visible

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

TICK_S = 2.0
QUIET_S = 1.0
COST, NOTICE_COST = 400, 20
"""Looks at who reads a terminal, and runs of `verbs/notify.py`, take at most one part in so many of a processor."""
RING = "\a"
"""Ctrl-G: who has a notice for the people here presses it, and tmux rings for them. See `Tmux.mark_prompts`."""
SHOWN = "\f"
"""Ctrl-L: tmux presses it when a person comes here from another window."""


# The welcome page


@contextlib.contextmanager
def apart(job: Job) -> Iterator[None]:
    """A fault with one job, a bug too, is shown in its row; the page lives on and shows the others."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        job.fault = f"not readable: {type(error).__name__}"


class Job:
    """What the page shows of a job."""

    def __init__(self, folder: str, asked: dict[str, Any]) -> None:
        self.folder = folder
        self.job_id: str = asked["job_id"]
        self.number: int = asked["number"]
        self.command = " ".join(asked["command"].split())
        self.state = "running"
        self.detail = self.fault = ""
        self.since: float = asked["created_monotonic"]
        self.boot: str = asked["boot"]
        self.machine: str = asked.get("machine") or ""
        self.host: str = asked.get("host") or ""
        self.is_adopted = bool(asked.get("adopted"))
        self.is_marked_lost = self.is_elsewhere = False
        self.run: dict[str, Any] | None = None
        self.asks: tuple[str, str] | None = None
        """What it waits for, and at which prompt."""
        self.size = self.noticed_size = -1
        self.misses = 0
        self.open_line = False

    def look(self, boot: str, machine: str) -> None:
        """Learn whether it has ended; nothing is read again once it has. `boot` and `machine` are ours."""
        if self.state != "running":
            return
        record = read_record(self.folder, "exit.json", files.EXIT)
        if record is not None:
            end = End(record)
            self.state, self.detail = end.state, end.detail
            return
        self.run = self.run or read_record(self.folder, "run.json", files.RUN)
        if self.run is not None:
            # One that was adopted has run since before.
            self.since = self.run.get("started_monotonic") or self.since
        self.is_elsewhere = self.machine not in ("", machine) and (self.boot != boot or not self.is_in_namespace())
        if self.is_elsewhere:
            return
        if self.boot != boot or not self.has_runner():
            # Its runner's last act is the exit record, which may have come between the two looks.
            if read_record(self.folder, "exit.json", files.EXIT) is None:
                self.state, self.detail = "lost", "end not known"
            else:
                self.look(boot, machine)

    def has_runner(self) -> bool:
        """Whether its runner lives, or may still come; as `derive_state` has it."""
        if self.run is None:
            return time.monotonic() - self.since < LAUNCH_S
        return self.is_in_namespace() and is_alive(self.run["pid"], self.run["start"])

    def is_in_namespace(self) -> bool:
        """Whether its pids are ours; as `derive_state` has it."""
        theirs = self.run.get("namespace") if self.run is not None else ""
        return theirs in (None, "", processes.pid_namespace())

    def summary(self) -> str:
        if self.fault:
            return self.fault
        if self.is_elsewhere and self.state == "running":
            return f"running on {visible(self.host)}"
        if self.asks:
            return f"waits for {self.asks[0]}"
        if self.state != "running":
            return f"{self.state} {self.detail}"
        # The page must not be written anew for a second of an hour.
        return f"running {seconds(time.monotonic() - self.since, coarse=True)}"

    def is_quiet(self) -> bool:
        """Whether it runs and has printed nothing for a while; learns how much it has, and whether a line is open."""
        if self.state != "running" or self.run is None or self.is_elsewhere:
            return False
        self.size, self.open_line, written = 0, False, 0.0
        for name in ("output.log", "stderr.log"):
            with contextlib.suppress(OSError, files.Odd):
                log = files.opened(os.path.join(self.folder, name))
                facts = os.fstat(log)
                self.size += facts.st_size
                written = max(written, facts.st_mtime)
                self.open_line |= os.pread(log, 1, max(0, facts.st_size - 1)) not in (b"\n", b"")
                os.close(log)
        return time.time() - written >= QUIET_S


PAGE_JOBS = 200
"""Jobs that have ended stay on the page as long as it has no more than so many."""


class Board:
    """The jobs of a state directory, kept fresh with one `stat` of it and one look at each running job."""

    def __init__(self, state_dir: str) -> None:
        self.folder = os.path.join(state_dir, "jobs")
        self.boot, self.machine = boot_id(), processes.machine_id()
        self.changed = -1
        self.jobs: dict[str, Job] = {}
        self.older: set[str] = set()
        """Jobs that have ended and are not shown any more."""

    def look(self) -> list[Job]:
        """Running jobs first, newest first."""
        with contextlib.suppress(OSError):  # removed by hand: what was known is shown
            changed = os.stat(self.folder).st_mtime_ns
            if changed != self.changed:
                names = [name for name in os.listdir(self.folder) if not name.startswith(".")]
                there = set(names)
                self.jobs = {name: job for name, job in self.jobs.items() if name in there}
                self.older &= there
                unread = [name for name in names if not self.knows(name) and not self.add(name)]
                # A folder without a record is one in the making: look again.
                self.changed = -1 if unread and time.time_ns() - changed < 60e9 else changed
        for job in self.jobs.values():
            job.fault = ""
            with apart(job):
                job.look(self.boot, self.machine)
        shown = sorted(self.jobs.values(), key=lambda job: (job.state != "running", -job.number))
        while len(shown) > PAGE_JOBS and shown[-1].state != "running":
            self.older.add(os.path.basename(shown[-1].folder))
            del self.jobs[os.path.basename(shown.pop().folder)]
        return shown

    def knows(self, name: str) -> bool:
        return name in self.jobs or name in self.older

    def add(self, name: str) -> bool:
        folder = os.path.join(self.folder, name)
        asked = read_record(folder, "job.json", files.JOB)
        if asked is None or asked["job_id"] != name:
            return False
        self.jobs[name] = Job(folder, asked)
        return True


class Ear:
    """Notices which jobs wait for input. One that is silent and has its terminal read is worth an exact look.

    That look is another process, once for each piece of output, and marks the windows as a server does.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.look_at = self.notice_at = 0.0

    def look(self, jobs: Iterable[Job]) -> None:
        """Learn what each of these jobs waits for; cheap when nothing has changed."""
        now = time.monotonic()
        if now < self.look_at:
            return
        began = time.process_time()
        quiet = {}
        for job in jobs:
            with apart(job):
                if job.is_quiet() and job.run is not None:
                    quiet[job.run["tty"]] = job
        reading = self.reading(quiet)
        self.look_at = now + COST * (time.process_time() - began)
        for job in jobs:
            job.misses = 0 if job in reading else job.misses + 1
            # One that polls is now and then met awake: it waits on if it has printed nothing and soon polls again.
            if job.asks and (job.misses > 1 or (job.misses and job.size != job.noticed_size)):
                job.asks, job.noticed_size = None, -1
                self.place.tmux("set-option", "-w", "-t", job.run["pane"] if job.run else "", "@tmuxjobs_input", "")
        if now >= self.notice_at and any(job.size != job.noticed_size for job in reading):
            before = sum(os.times()[2:4])
            said = self.place.command(kind="notice")[0]
            with contextlib.suppress(ValueError):  # the next caller reports what went wrong
                asking = json.loads(said)  # from our own command
                for job in jobs:
                    job.asks = tuple(asking[job.job_id]) if job.job_id in asking else None
            for job in jobs:
                job.noticed_size = job.size if job in reading or job.asks else -1
            self.notice_at = now + NOTICE_COST * (sum(os.times()[2:4]) - before)

    def reading(self, quiet: dict[str, Job]) -> list[Job]:
        found = []
        for tty, attention in terminals.attention(quiet, pause_s=0).items() if quiet else ():
            settings = terminals.terminal(tty)
            hides = settings is not None and settings.hides
            # As `verbs/prompts.py` has it: one that polls, as servers do for keys, asks only behind an open line.
            if (
                attention == "reads"
                or (attention == "polls" and quiet[tty].open_line)
                or (attention == "unknown" and hides)
            ):
                found.append(quiet[tty])
        return found


COLOURS = {"asks": "33", "running": "34", "done": "32", "failed": "31", "killed": "35", "lost": "31"}


COMING = "session-window-changed"


KEYS = (("↑↓", "choose"), ("Enter", "go to it"), ("h", "hold it, or release"), ("r", "run again"))


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
        self.shown = ("", 0, 0)
        self.jobs: list[Job] = []
        self.ways = self.own_keys()

    def run(self) -> None:
        write("\x1b[?1049h\x1b[?25l\x1b[?7l")
        while True:
            self.jobs = self.board.look()
            self.mark_lost()
            self.ear.look(self.jobs)
            self.draw()
            for key in self.terminal.keys(TICK_S):
                self.said = "" if key != RING else self.said
                self.act(key)

    def mark_lost(self) -> None:
        """An adopted window outlives who watched over it, and then goes on saying that its job runs."""
        for job in self.jobs:
            if not job.is_adopted or job.state != "lost" or job.is_marked_lost:
                continue
            job.is_marked_lost = True
            with apart(job):
                if job.run and job.boot == self.board.boot and self.place.is_server(job.run):
                    self.place.tmux("set-option", "-w", "-t", job.run["pane"], "@tmuxjobs_state", "lost")

    def own_keys(self) -> str:
        """The person's own keys for going about, from tmux; shown in the status line too."""
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
        # Drawn by tmux as a format: no key may be taken for one.
        shown = (("", text), ("_short", short), ("_hold", hold))
        marks = [(f"@tmuxjobs_keys{kind}", of.replace("#", "##")) for kind, of in shown]
        for name, value in marks:
            self.place.tmux("set-option", "-t", f"={self.place.session}:", name, value)
        # As of the jobs' windows: a person's own watch over output would tell every time this page is drawn anew.
        self.place.tmux("set-option", "-w", "-t", self.place.pane, "monitor-activity", "off")
        self.ask_to_be_told()
        return text

    def ask_to_be_told(self) -> None:
        """Of who comes here, by a hook of our session; one of the person's own for all sessions goes first."""
        if self.place.tmux("show-hooks", "-g", COMING)[0] in ("", COMING):
            here = f"if-shell -F '#{{==:#{{pane_id}},{self.place.pane}}}' 'send-keys -t {self.place.pane} C-l'"
            self.place.tmux("set-hook", "-t", f"={self.place.session}:", COMING, here)

    def choose_last(self) -> None:
        """The job whose window the person has come from: its keys are the next they press."""
        windows = ("list-windows", "-t", f"={self.place.session}:", "-f", "#{window_last_flag}")
        root, _, last = self.place.tmux(*windows, "-F", "#{@tmuxjobs_root} #{@tmuxjobs_job}")[0].rpartition(" ")
        if last and root in ("", mark_of(self.place.state_dir)):
            self.chosen = last

    def draw(self) -> None:
        columns, rows = self.terminal.size()
        top = ["", " \x1b[1mtmuxjobs\x1b[m", "", *(f" {line}" for line in ABOUT), ""]
        bottom = ["", " " + "   ".join(f"\x1b[1m{key}\x1b[m {what}" for key, what in KEYS)]
        bottom += [f" {self.ways}", " In any shell: tmuxjobs list, status, tail -f, hold, adopt, kill, --help"]
        if rows < 18:
            top, bottom = [" \x1b[1mtmuxjobs\x1b[m"], bottom[1:2]
        if self.said:
            bottom = ["", f" \x1b[1m{visible(self.said)}\x1b[m", *bottom[1:]]
        room = max(1, rows - len(top) - len(bottom))
        text = "\r\n".join(f"{line}\x1b[K" for line in [*top, *self.table(columns, room), *bottom])
        page = f"\x1b[H{text}\x1b[J"
        if (page, columns, rows) != self.shown:
            write(page)
            self.shown = page, columns, rows

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
        table = [self.row(job, wide, columns, chosen=job is self.jobs[at]) for job in shown]
        if len(names) > lines:
            table.append(f"   {len(names) - lines} more: ↑↓ shows them")
        return table

    def row(self, job: Job, wide: int, columns: int, *, chosen: bool) -> str:
        state = "asks" if job.asks else job.state
        colour = COLOURS[state]
        start = f" {visible(job.job_id):<{wide}}  "
        prompt = f"{job.asks[1].strip()}   " if job.asks and job.asks[1].strip() else ""
        rest = f"  {visible(prompt + job.command)}"[: max(0, columns - len(start) - 26)]
        mark = (">\x1b[7m", "\x1b[27m") if chosen else (" ", "")
        said = ""
        with apart(job):
            said = visible(job.summary())
        start = f"\x1b[{colour}m{MARKS[state]}\x1b[39m{start}\x1b[{colour}m{said or visible(job.fault):<20}\x1b[39m"
        return f"{mark[0]}{start}{mark[1]}{rest}"

    def act(self, key: str) -> None:
        if key == RING:
            write(RING)
            return
        if key == SHOWN:
            self.choose_last()
            return
        names = [job.job_id for job in self.jobs]
        if not names:
            return
        at = names.index(self.chosen) if self.chosen in names else 0
        if key in UP + DOWN:
            self.chosen = names[max(0, min(len(names) - 1, at + (1 if key in DOWN else -1)))]
            return
        job = self.jobs[at]
        if key in ("\r", "\n"):
            self.said = self.place.show(job.job_id)
        elif key == "r":
            self.said = self.place.run_again(job.job_id) if job.state != "running" else "It runs."
        elif key == "h":
            said, error = self.place.command("hold", "--toggle", job.job_id)
            self.said = without_name(error) or said


def welcome(state_dir: str, session: str, tmux: str) -> None:
    Welcome(Place(tmux=tmux, session=session, state_dir=state_dir)).run()
