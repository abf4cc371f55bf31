"""The process beside an adopted window: a runner of a job whose first process is not its child but tmux's.

It has no terminal, and outlives the process that started it. The kernel reports when the job's first process ends;
tmux, or a recent Linux, reports how. No mark can follow the last output: tmux closes the terminal at once (3.2a to
3.8).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import sys
import time

from tmuxjobs import files
from tmuxjobs.contract import IN_OURS, WINDOW
from tmuxjobs.files import now, write_in_room
from tmuxjobs.pane.command import Command, Stop
from tmuxjobs.pane.recorder_link import RecorderLink, Refused, readable
from tmuxjobs.pane.runner import Runner
from tmuxjobs.pane.runner_log import RunnerLog
from tmuxjobs.system.processes import LINUX, Process, all_processes, is_alive, send, start_of

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

ASK_S = 5.0
TELL_S = 5.0
SHOW_S = 10.0
DEAD_S = 0.3
"""Limit for tmux to notice that the process of a pane has ended, whose terminal it has closed."""
END_S = 0.5
TAIL = "tmux closes the window's terminal as its process ends, so the very last output may be missing"
# ioctl_pidfd(2), Linux 6.15
PIDFD_GET_INFO = 0xC040FF0B
PIDFD_INFO_EXIT = 8
PIDFD = hasattr(os, "pidfd_open")  # Linux, from Python 3.9 on


class Adopted(Command):
    """The first process of an adopted window, and what came from it."""

    def __init__(self, job: dict[str, Any], recorder: RecorderLink) -> None:
        self.adopted: dict[str, Any] = job["adopted"]
        super().__init__(job, self.adopted["tty"])
        self.recorder = recorder
        self.pid = self.adopted["pid"]
        self.since = start_of(os.getpid())
        self.gone = False
        self.gone_ticks = 0
        self.met: dict[int, str] = {}

    def signal_all(self, number: int) -> None:
        super().signal_all(number)
        # An interactive shell ignores SIGTERM; on SIGHUP it ends and saves its history.
        if number == signal.SIGTERM and not self.gone and ignores(self.pid, number):
            send(self.pid, self.adopted["start"], signal.SIGHUP)

    def members(self) -> dict[int, Process]:
        """{pid: facts} of the first process, its descendants, its session, and newer processes with its pane's mark.

        Orphans do not become our children. A process that left the tree before the adoption is the person's own, and so
        is what they start in the pane once the first process has ended.
        """
        table = all_processes()
        table.pop(os.getpid(), None)
        first = table.get(self.pid)
        whole = first is not None and first.start == (self.adopted["start"] if LINUX else first.start) and not self.gone
        anew = {pid for pid, facts in table.items() if facts.ppid == self.recorder.server_pid and pid != self.pid}
        marked = {pid for pid, facts in table.items() if self.is_marked(pid, facts)} - set(descendants(table, anew))
        grown = marked | {pid for pid, facts in table.items() if self.met.get(pid) == facts.start}
        if whole:
            ours = os.path.basename(self.tty)
            grown |= {pid for pid, facts in table.items() if self.pid in (pid, facts.session)}
            grown |= {pid for pid, facts in table.items() if facts.tty and ours.endswith(facts.tty)}
        found = descendants(table, grown)
        self.met = {pid: facts.start for pid, facts in found.items()}
        return {pid: facts for pid, facts in found.items() if facts.state not in "ZX"}

    def is_marked(self, pid: int, facts: Process) -> bool:
        if not LINUX or int(facts.start) < int(self.since):
            return False
        if self.gone and int(facts.start) > self.gone_ticks:
            return False
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environ = file.read().split(b"\0")
        except OSError:  # it ended, or is another user's
            return False
        tmux = f"TMUX={self.recorder.socket},{self.recorder.server_pid},".encode()
        return f"TMUX_PANE={self.recorder.pane}".encode() in environ and any(one.startswith(tmux) for one in environ)


class AdoptedLog(RunnerLog):
    """A log without an end mark: tmux closes the terminal with the first process, so it may be incomplete."""

    def send_mark(self) -> bool:
        """Ask the recorder to end instead; it has all that tmux has read."""
        self.recorder.signal(signal.SIGUSR1)
        return True

    def report_of_mark(self) -> dict[str, Any] | None:
        report = super().report_of_mark()
        if report is not None and report["why"] == "eof" and self.is_pane_dead():
            return as_end(report)
        return report

    def is_pane_dead(self) -> bool:
        command = ["display-message", "-p", "-t", self.recorder.pane, "#{pane_dead}"]
        try:
            return self.recorder.tmux(command, bound_s=ASK_S).strip() == b"1"
        except Refused:
            return False

    def end(self) -> dict[str, Any]:
        log = super().end()
        return {**log, "complete": None, "why": TAIL} if log["complete"] else log


class Adopter(Runner):
    command: Adopted

    def __init__(self, folder: str) -> None:
        super().__init__(folder, "")
        self.adopted = self.command.adopted
        self.tty = self.command.tty
        self.ended_fd = -1
        self.last_line = ""

    def make_command(self) -> Command:
        return Adopted(self.job, self.recorder)

    def make_log(self) -> RunnerLog:
        return AdoptedLog(self.folder, self.command, self.recorder, self.run, self.asked_to_end)

    # Start

    def start(self) -> None:
        self.refuse_late_start()
        os.unlink(self.path("env"))
        if PIDFD:
            self.ended_fd = os.pidfd_open(self.command.pid)
        if start_of(self.command.pid) != self.adopted["start"]:
            raise Refused("its process has ended")
        self.recorder.since = str(int(time.time() - time.monotonic() + self.adopted["started_monotonic"]))
        self.recorder.start_first()
        self.recorder.tmux(["set-option", "-w", "-t", self.recorder.pane, "@tmuxjobs_adopted", "1"])
        self.run.update(command_pid=self.command.pid, command_start=self.adopted["start"])
        self.run.update({name: self.adopted[name] for name in ("started_at", "started_monotonic")})
        write_in_room(self.folder, "run", self.run)

    def take_back(self) -> None:
        """Leave the window as it was, except for its name, which the caller restores."""
        pane = ["-t", self.recorder.pane]
        names = [*WINDOW, *(f"@tmuxjobs_{name}" for name in ("state", "at", "adopted", "end"))]
        unset = [["set-option", "-wu", *pane, name] for name in names]
        with contextlib.suppress(Refused, OSError):  # it was closed
            marks = [["set-option", "-pu", *pane, name] for name in ("@tmuxjobs_job", "@tmuxjobs_root")]
            self.recorder.tmux(["pipe-pane", *pane], *marks, *unset)

    def close_window(self) -> None:
        """Do nothing: the window is the person's, and so is what runs in it."""

    # While it runs

    def watched(self) -> list[int]:
        return [*super().watched(), *([self.ended_fd] if PIDFD and not self.command.gone else [])]

    def patience(self) -> float:
        return super().patience() if PIDFD else min(super().patience(), END_S)

    def step(self) -> None:
        super().step()
        if not self.command.gone and self.has_ended():
            self.command.gone = True
            self.command.gone_ticks = ticks()
            self.command.ended_at, self.command.ended_monotonic = now(), time.monotonic()
            self.learn_status()

    def has_ended(self) -> bool:
        if PIDFD:
            return readable(self.ended_fd, time.monotonic())
        return not is_alive(self.command.pid, self.adopted["start"])

    def over(self) -> bool:
        """Whether the job is over: its terminal ends with its first process, and no survivor can write into the log."""
        if self.command.stop and time.monotonic() > self.command.stop.give_up:
            return True
        return self.command.gone and not (self.command.stop and self.command.members())

    def learn_status(self) -> None:
        """Learn how the first process ended, if possible; returns once tmux has handed its output to the recorder."""
        self.log.give_up_at = time.monotonic() + TELL_S
        while self.log.waits_for_tmux():
            self.command.status = self.kernel_status() if self.command.status is None else self.command.status
            facts = self.ask_tmux()
            if facts == [] or (facts is None and not self.recorder.server_lives()):
                self.hang_up()
                return
            if facts and facts[0] == "1":
                # A pane is dead when its terminal is closed; tmux may learn of the process's end a moment later.
                self.command.status = wait_status(*facts[1:]) if self.command.status is None else self.command.status
                if self.command.status is not None:
                    return
            time.sleep(0.02)

    def kernel_status(self) -> int | None:
        """How it ended: from proc_pid_stat(5) until tmux reaps it, later from its pidfd where Linux reports it."""
        if not LINUX:
            return None
        with contextlib.suppress(OSError):
            with contextlib.suppress(FileNotFoundError):
                os.readlink(
                    f"/proc/{self.command.pid}/cwd"
                )  # a zombie has none; without permission here, `stat` would hide the exit code too
            with open(f"/proc/{self.command.pid}/stat", "rb") as file:
                fields = file.read().rsplit(b")", 1)[1].split()
            if fields[0] == b"Z" and fields[19].decode() == self.adopted["start"]:
                return int(fields[49])
        info = bytearray(struct.pack("Q56x", PIDFD_INFO_EXIT))
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.ended_fd, PIDFD_GET_INFO, info)
            if struct.unpack_from("Q", info)[0] & PIDFD_INFO_EXIT:
                return int(struct.unpack_from("i", info, 60)[0])
        return None

    def ask_tmux(self) -> list[str] | None:
        """[whether dead, exit code, signal] of our pane; [] when it was closed, None when tmux does not answer."""
        command = ["list-panes", "-a", "-F", "#{pane_id}:#{pane_dead}:#{pane_dead_status}:#{pane_dead_signal}"]
        try:
            said = self.recorder.tmux(command, bound_s=ASK_S).decode(errors="replace")
        except Refused:
            return None
        panes = [line.split(":") for line in said.splitlines()]
        return next((facts for pane, *facts in panes if pane == self.recorder.pane), [])

    def hang_up(self) -> None:
        """End the job, because its window was closed or tmux ended."""
        self.closed = True
        self.command.stop = self.command.stop or Stop("hangup", signal.SIGHUP, 1.0)
        self.command.signal_all(signal.SIGHUP)
        self.command.signal_all(signal.SIGCONT)

    def recorder_gone(self, report: dict[str, Any]) -> None:
        facts = self.ask_tmux()
        deadline = time.monotonic() + DEAD_S
        while facts and facts[0] == "0" and report["why"] == "eof" and time.monotonic() < deadline:
            time.sleep(0.02)
            facts = self.ask_tmux()
        if facts == [] or (facts is None and not self.recorder.server_lives()):
            self.log.end_here(report)
            self.hang_up()
        elif facts and facts[0] == "1" and report["why"] == "eof":
            self.log.end_here(as_end(report))
        else:
            super().recorder_gone(report)

    # The end

    def show_end(self, line: str) -> None:
        self.last_line = line  # no terminal any more: `stay` makes another

    def stay(self) -> None:
        """Start a process in the dead pane that shows its last screen and how the job ended, and takes the keys."""
        facts = self.ask_tmux()
        if facts and facts[0] == "0":
            self.take_back()  # someone has started another process in the window: that one is not a job
            return
        pane, path = ["-t", self.recorder.pane], self.path("screen")
        try:
            shown = self.recorder.tmux(["capture-pane", "-p", "-e", *pane]).rstrip().split(b"\n")
            # Once tmux knows how it ended, it scrolls by a line and writes into the last one that the pane is dead.
            text = b"\n".join(shown[:-1] if facts and any(facts[1:]) else shown).rstrip()
            with open(files.opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
                file.write(b"\r\n".join([*text.split(b"\n"), self.last_line.encode()]))
            ours = ["-e", f"{IN_OURS}={self.job['job_id']}"]
            self.recorder.tmux(["respawn-pane", *pane, "-c", "/", *ours, *self.keeper()])
            deadline = time.monotonic() + SHOW_S
            while os.path.exists(path) and self.ask_tmux() and time.monotonic() < deadline:
                time.sleep(0.02)
        except (Refused, OSError, files.Odd):  # it was closed meanwhile
            pass
        with contextlib.suppress(OSError):  # the process that shows it has removed it
            os.unlink(path)


def as_end(report: dict[str, Any]) -> dict[str, Any]:
    """The report of a recorder whose pane is dead: tmux 3.8 closes its pipe with the terminal, older ones leave it."""
    return {**report, "why": "end"}


def ticks() -> int:
    """Now, in the unit of a process's start (proc_pid_stat(5)); Linux only."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")) if LINUX else 0


def descendants(table: dict[int, Process], pids: set[int]) -> dict[int, Process]:
    """{pid: facts} of `pids` and all their descendants."""
    found: dict[int, Process] = {}
    while pids:
        found.update({pid: table[pid] for pid in pids})
        pids = {pid for pid, facts in table.items() if facts.ppid in pids and pid not in found}
    return found


def wait_status(code: str, name: str) -> int | None:
    """What tmux reports, as a status of wait(2); tmux 3.2a does not report signals."""
    if code:
        return int(code) << 8
    number = int(name) if name.isdigit() else getattr(signal, f"SIG{name.upper()}", None)
    return None if number is None else int(number)


def ignores(pid: int, number: int) -> bool:
    """Whether a process ignores a signal, proc_pid_status(5); False where that cannot be known."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("SigIgn:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def detached(folder: str) -> None:
    """Run the adopter so that it survives the process that started it, with its terminal and its job."""
    if os.fork():
        os._exit(0)
    os.setsid()
    sys.exit(Adopter(folder).main())
