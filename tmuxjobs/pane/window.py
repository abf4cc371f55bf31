"""What our processes in windows share (the terminal, calls of tmux and of tmuxjobs), and the finished window."""

from __future__ import annotations

import os
import select
import sys
import termios

from tmuxjobs import files
from tmuxjobs.contract import mark_of
from tmuxjobs.lean import loads, signal, suppress
from tmuxjobs.system.processes import called, is_alive
from tmuxjobs.visible import visible

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

ALONE_S = 0.05
MARK_S = 1.0
"""Seconds between two tries to mark the window, as long as tmux cannot be run or does not answer."""
NONE = "tmuxjobs is not installed on this machine: use it on the one that started the job"
AGENT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "far", "__main__.py")
"""Sent along to machines where tmuxjobs is not installed; it can start a job there."""
GONE = "tmuxjobs was moved or removed: install it, run `tmuxjobs list`, press again"
UP, DOWN = ("\x1b[A", "\x1bOA", "k"), ("\x1b[B", "\x1bOB", "j")


class Terminal:
    """Our terminal: one key at a time, whole lines written, its size."""

    def __init__(self) -> None:
        self.wakeup, self.waker = os.pipe()
        for fd in (self.wakeup, self.waker):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGWINCH, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        settings = termios.tcgetattr(0)
        # No echo, no lines, no signals: Ctrl-C here is just a key.
        settings[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0
        termios.tcsetattr(0, termios.TCSANOW, settings)

    def wake(self) -> None:
        """End the wait for keys; from any thread."""
        with suppress(BlockingIOError):  # it is about to end
            os.write(self.waker, b"\0")

    def size(self) -> tuple[int, int]:
        columns, lines = os.get_terminal_size(0)
        return columns, lines

    def keys(self, bound_s: float | None) -> list[str]:
        """The next keys; none after a resize, after `wake`, or once the bound has passed; exits with the terminal."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(self.wakeup, select.POLLIN)
        events = dict(poll.poll(None if bound_s is None else bound_s * 1000))
        if self.wakeup in events:
            with suppress(BlockingIOError):
                os.read(self.wakeup, 4096)
            return []
        return split_keys(self.read()) if 0 in events else []

    def key_alone(self, bound_s: float | None = None) -> str:
        """The next key; empty after a resize, once the bound has passed, and for several keys at once.

        Several at once were typed or pasted for a program that has ended, as `interact` does.
        """
        keys = self.keys(bound_s)
        more = select.poll()
        more.register(0, select.POLLIN)
        while more.poll(ALONE_S * 1000):
            keys += split_keys(self.read())
        return keys[0] if len(keys) == 1 else ""

    def read(self) -> str:
        try:
            data = os.read(0, 4096)
        except OSError:
            data = b""
        if not data:
            sys.exit()
        return data.decode(errors="replace")


def split_keys(text: str) -> list[str]:
    """Keys that a terminal sends as several characters whole, everything else one by one."""
    keys = []
    while text:
        length = 3 if text.startswith(("\x1b[", "\x1bO")) else 1
        if text.startswith("\x1b["):  # up to a letter or `~`: `\x1b[A`, `\x1b[5~`
            length += next((at for at, one in enumerate(text[2:]) if "@" <= one <= "~"), 0)
        keys.append(text[:length])
        text = text[length:]
    return keys


def write(text: str) -> None:
    data = text.encode(errors="replace")
    while data:
        data = data[os.write(1, data) :]


class Place:
    """Where we are: the tmux server and session, and the state directory; runs tmux and our own command there."""

    def __init__(self, *, tmux: str, session: str, state_dir: str) -> None:
        self.binary = tmux
        self.session = session
        self.state_dir = state_dir
        self.pane = os.environ["TMUX_PANE"]
        self.socket, server_pid, _ = os.environ["TMUX"].rsplit(",", 2)
        self.server_pid = int(server_pid)

    def is_server(self, run: dict[str, Any]) -> bool:
        """Whether our tmux server is the one of that record, and not a later one with its pid."""
        return bool(run["server_pid"] == self.server_pid and is_alive(self.server_pid, run.get("server_start", "")))

    def tmux(self, *arguments: str) -> tuple[str, str]:
        return called([self.binary, "-u", "-S", self.socket, *arguments])

    def command(self, *arguments: str, kind: str = "command") -> tuple[str, str]:
        """(stdout, stderr) of `tmuxjobs ARGUMENTS` for these jobs, or of another program of the installed package.

        It runs the installation that was used last: ours may have been upgraded, moved or removed since.
        """
        installed = read_record(os.path.join(self.state_dir, "pane"), "installed.json", files.INSTALLED)
        if installed is None:
            return "", NONE
        if not all(map(os.path.exists, installed["needs"])):
            return "", GONE
        places = {"STATE_DIR": self.state_dir, "SESSION": self.session, "SOCKET_NAME": os.path.basename(self.socket)}
        ours = {f"TMUXJOBS_{name}": value for name, value in places.items()}
        env = {name: value for name, value in os.environ.items() if not name.startswith("TMUXJOBS_")}
        return called([*installed[kind], *arguments], {**env, **ours})

    def pane_of(self, job_id: str) -> tuple[str, str]:
        """(the job's pane, ""), or ("", why there is none)."""
        facts = "#{@tmuxjobs_job} #{@tmuxjobs_root} #{pane_id}"
        listed, error = self.tmux("list-panes", "-s", "-t", f"={self.session}:", "-F", facts)
        for line in listed.splitlines():
            ours, _, pane = line.rpartition(" ")
            if ours in (f"{job_id} ", f"{job_id} {mark_of(self.state_dir)}"):
                return pane, ""
        return "", error or f"its window is closed: `tmuxjobs output {job_id}` shows what it printed"

    def show(self, job_id: str) -> str:
        """Bring the job's window to the front; returns what prevents it, if anything."""
        pane, why = self.pane_of(job_id)
        return self.tmux("select-window", "-t", pane)[1] if pane else why

    def close(self, job_id: str) -> str:
        """Close the window of a job that has ended; returns what prevents it, if anything."""
        pane, why = self.pane_of(job_id)
        over = "#{||:#{pane_dead},#{!=:#{@tmuxjobs_end},}}"
        return self.tmux("if-shell", "-F", "-t", pane, over, f"kill-pane -t {pane}")[1] if pane else why

    def leave(self) -> str:
        """Send the person who last pressed a key here back to the session they came from, or detach them."""
        facts = "#{client_activity}\t#{pane_id}\t#{client_last_session}\t#{client_name}"
        listed, error = self.tmux("list-clients", "-t", f"={self.session}:", "-F", facts)
        clients = sorted(line.split("\t", 3) for line in listed.splitlines())
        here = [client for client in clients if client[1] == self.pane]
        if not here:
            return error
        _, _, before, name = here[-1]
        if before and not self.tmux("switch-client", "-c", name, "-t", f"={before}:")[1]:
            return ""
        return self.tmux("detach-client", "-t", name)[1]

    def run_again(self, job_id: str) -> str:
        """Start the job again and show the new window; returns what prevents it, if anything."""
        started, error = self.command("restart", "--json", job_id)
        if error == NONE and os.path.exists(AGENT):
            started, error = called([sys.executable, "-I", "-S", "-X", "utf8", AGENT, "again", job_id])
        try:
            return self.show(loads(started)["job_id"])
        except (ValueError, KeyError):
            return without_name(error) or started or "it could not be started"


def without_name(error: str) -> str:
    """The last line of what our command wrote on stderr, without its own name before it."""
    last = error.rpartition("\n")[2]
    return last[len("tmuxjobs: ") :] if last.startswith("tmuxjobs: ") else last


def read_record(folder: str, name: str, shape: files.Shape) -> dict[str, Any] | None:
    """The record, None when there is none or it is damaged; `list` names a damaged one."""
    try:
        return files.record(os.path.join(folder, name), shape)
    except (OSError, files.Odd):
        return None


# A finished job's window


def ended(folder: str, *, marked: bool = True) -> None:
    """Keep the window of a finished job, and do what its keys ask for; mark it first if that has failed before."""
    record = read_record(folder, "exit.json", files.EXIT)
    if record is None:
        sys.exit(f"The job's record '{folder}/exit.json' cannot be read; `tmuxjobs list` says why.")
    job = record["job"]
    state_dir = os.path.dirname(os.path.dirname(folder))
    place = Place(tmux=job["tmux"], session=job.get("session") or "mcp-jobs", state_dir=state_dir)
    terminal = Terminal()
    with suppress(OSError, files.Odd):
        # For an adopted window: its own process had the terminal, and tmux has closed that.
        screen = files.read(os.path.join(folder, "screen"))
        os.unlink(os.path.join(folder, "screen"))
        write(screen.decode(errors="replace"))
    write("\x1b[?25l")
    while True:
        if not marked:
            from tmuxjobs.outcome import End
            from tmuxjobs.pane.announce import end_marks

            words = [word for mark in end_marks(place.pane, End(record)) for word in (";", *mark)]
            marked = not place.tmux(*words[1:])[1]
        key = terminal.key_alone(None if marked else MARK_S)
        if key == "x":
            place.tmux("kill-pane", "-t", place.pane)
            return
        if key == "r":
            write("\r\n running it again ...")
            error = place.run_again(job["job_id"])
            write(f"\r\x1b[K {visible(error)}" if error else "\r\x1b[K it runs again in a window of its own")
