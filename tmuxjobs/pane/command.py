"""A job's command and all that comes from it: how it starts, which processes belong to it, how all are signalled."""

from __future__ import annotations

import errno
import os
import time

from tmuxjobs import files
from tmuxjobs.files import now
from tmuxjobs.lean import signal, suppress
from tmuxjobs.outcome import seconds
from tmuxjobs.pane.recorder_link import Refused, Stderr
from tmuxjobs.system import processes

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

    from tmuxjobs.pane.recorder_link import RecorderLink

LOOKS = 5
KILL_S = 5.0
PAUSE_S = 2.0
"""Seconds for all of a job to stop: a process that waits for a disk stops later."""
PRESSED_S = 10.0
INTERRUPTS = {int(signal.SIGINT): "C-c", int(signal.SIGQUIT): "C-\\"}


class Stop:
    """A request to end the job: why, with which signal, and its deadlines (monotonic s)."""

    def __init__(self, reason: str, number: int, grace_s: float) -> None:
        self.reason = reason
        self.number = number
        self.deadline = time.monotonic() + grace_s
        self.give_up = self.deadline + KILL_S


class Server:
    """The server that a job ends with, if any; `end` is readable once it has ended or was killed, -1 if unsupported."""

    def __init__(self, job: dict[str, Any], namespace: str) -> None:
        self.facts = job.get("ends_with")
        self.end = -1
        if self.facts is None:
            return
        if job.get("namespace") != namespace:
            raise Refused("it is to end with its server, whose end is not seen from another pid namespace")
        try:
            self.end = processes.end_of(self.facts["pid"], self.facts["start"])
        except ProcessLookupError:
            raise Refused("it is to end with its server, which has ended") from None

    @property
    def is_polled(self) -> bool:
        return self.facts is not None and self.end < 0

    def gone(self, events: dict[int, int]) -> bool:
        """Whether it has ended; True only once."""
        polled = self.is_polled and not processes.is_alive(self.facts["pid"], self.facts["start"])  # type: ignore[index]
        if polled or self.end in events:
            self.facts, self.end = None, -1
            return True
        return False


def enter(job: dict[str, Any]) -> None:
    """Into the job's folder; raises OSError, also where a path leads elsewhere than when a policy judged it."""
    os.chdir(job["cwd"])
    for path, real in job.get("judged") or ():
        if (os.getcwd() if path == job["cwd"] else os.path.realpath(path)) != real:
            raise OSError(errno.EXDEV, "a link leads elsewhere now than when the policy judged it", path)


class Command:
    """The command's process and its descendants; `stop` is set once they are to end, `status` once the command has."""

    def __init__(self, job: dict[str, Any], tty: str) -> None:
        self.job = job
        self.tty = tty
        self.pid = 0
        self.stderr: Stderr | None = None
        self.stop: Stop | None = None
        self.status: int | None = None
        self.ended_at: str | None = None
        self.ended_monotonic: float | None = None
        self.cpu_user_s = self.cpu_system_s = 0.0
        self.max_rss_bytes = 0
        self.unmet = False
        """Whether a process of the job lives that no reading of the process table shows."""
        self.hunting = 0
        self.oom_kills = processes.oom_kills()

    def again(self) -> None:
        """Forget how it ended, before it is launched again; the resource usage is added up."""
        self.pid = self.hunting = 0
        self.stderr = self.status = self.ended_at = self.ended_monotonic = None

    def launch(self, env: dict[bytes, bytes], recorder: RecorderLink) -> None:
        """Start the command in its own foreground process group; raises Refused when it cannot be started."""
        self.stderr = Stderr(recorder, self.tty) if self.job["separate_stderr"] else None
        failure, tell = os.pipe()
        gate, go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(go)
                if not os.read(gate, 1):
                    os._exit(127)
                os.setpgid(0, 0)
                os.tcsetpgrp(0, os.getpid())
                self.become_command(env)
            except OSError as error:
                os.write(tell, f"{error.strerror}: {os.fsdecode(error.filename or self.job['shell'])}".encode())
            finally:
                os._exit(127)
        with suppress(OSError):  # the child does the same: either may come first
            os.setpgid(self.pid, self.pid)
        for fd in (tell, gate):
            os.close(fd)
        if self.stderr:
            os.close(self.stderr.input)
            try:
                self.stderr.start()
            except RuntimeError:  # the machine is out of processes, which threads are too: pthread_create(3), EAGAIN
                raise Refused(f"its stderr cannot be recorded ({os.strerror(errno.EAGAIN)})") from None
        with suppress(BrokenPipeError):  # it was killed before it began
            os.write(go, b"1")
        os.close(go)
        said = b""
        while chunk := os.read(failure, 4096):
            said += chunk
        os.close(failure)
        if said:
            raise Refused(said.decode(errors="replace"))

    def become_command(self, env: dict[bytes, bytes]) -> None:
        signal.set_wakeup_fd(-1)
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            with suppress(OSError, ValueError):  # the C library keeps a few for itself
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if self.stderr:
            os.dup2(self.stderr.input, 2)
        enter(self.job)
        env[b"PWD"] = os.fsencode(self.job["cwd"])
        if "GPG_TTY" not in self.job.get("env_names", ()):
            env[b"GPG_TTY"] = os.fsencode(self.tty)  # an inherited one names another terminal
        os.umask(self.job["umask"])
        os.execve(*self.program(), env)

    def program(self) -> tuple[str, list[str]]:
        """The program that the command's process becomes, and its argv."""
        shell, options = self.job["shell"], self.job.get("shell_options") or ()
        return shell, [os.path.basename(shell), *options, "-c", self.job["command"]]

    def reap(self) -> dict[int, processes.Process]:
        """Handle children that have ended or stopped; on Linux returns {pid: facts} of those that have ended."""
        ended: dict[int, processes.Process] = {}
        while True:
            try:
                wanted = self.next_to_reap(ended) if processes.LINUX else -1
                if wanted == 0:
                    return ended
                pid, status, usage = os.wait4(wanted, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return ended
            if pid == 0 and wanted == -1:
                return ended
            if pid == 0:
                continue  # it had stopped and has continued
            if os.WIFSTOPPED(status):
                # Ctrl-Z: there is no shell above the job that could continue it.
                if pid == self.pid and os.WSTOPSIG(status) == signal.SIGTSTP:
                    os.killpg(pid, signal.SIGCONT)
                continue
            self.cpu_user_s += usage.ru_utime
            self.cpu_system_s += usage.ru_stime
            self.max_rss_bytes = max(self.max_rss_bytes, usage.ru_maxrss * (1024 if processes.LINUX else 1))
            if pid == self.pid:
                self.status = status
                self.ended_at, self.ended_monotonic = now(), time.monotonic()

    def next_to_reap(self, ended: dict[int, processes.Process]) -> int:
        """A child that has ended or stopped, 0 when there is none; adds its facts to `ended`.

        Until it is reaped, its pid and the number of its process group are not used again: while hunting, that whole
        group is signalled at once.
        """
        child = os.waitid(os.P_ALL, 0, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        if child is None:
            return 0
        if child.si_code != os.CLD_STOPPED:
            ended[child.si_pid] = processes.Process(name="?", state="Z", ppid=os.getpid())
            with suppress(OSError):  # another user's may be hidden, proc(5)
                ended[child.si_pid] = processes.stat_of(child.si_pid)
            with suppress(OSError):  # it was the last of its group, or another user's are in it
                group = os.getpgid(child.si_pid)
                if self.hunting and group != os.getpgrp():
                    os.killpg(group, self.hunting)
        return child.si_pid

    def note(self, code: int | None, pressed_path: str) -> str:
        """What is known about the sender of a signal that was not ours."""
        ends = code is not None and (code > 0 or -code in INTERRUPTS)
        with suppress(OSError, files.Odd):
            pressed = files.record(pressed_path, files.PRESSED)
            ago = (self.ended_monotonic or 0.0) - float(pressed["monotonic"])
            if ends and 0 <= ago <= PRESSED_S and pressed["key"] == INTERRUPTS.get(-(code or 0), pressed["key"]):
                return f"{seconds(ago)} after `interact` pressed {pressed['key']}"
        more = processes.oom_kills() - self.oom_kills
        if code == -signal.SIGKILL and more > 0:
            which = "a process" if more == 1 else f"{more} processes"
            return f"and while it ran the kernel ended {which} for lack of memory"
        return ""

    def signal_all(self, number: int) -> None:
        for pid, facts in self.members().items():
            processes.send(pid, facts.start, number)  # another user's process is named as a survivor later
        if number != signal.SIGCONT and (self.unmet or number == signal.SIGKILL):
            self.hunting = number
            self.hunt()

    def pause(self, *, on: bool) -> None:
        """Stop the whole job, with what it starts meanwhile, or continue it; returns once the kernel has done so."""
        deadline = time.monotonic() + PAUSE_S
        looks = 0
        while time.monotonic() < deadline:
            late = {pid: facts for pid, facts in self.members().items() if (facts.state == "T") != on}
            # The first pass may miss what one of them started just before it stopped.
            looks = 0 if late else looks + 1
            if looks == 2 or (looks and not on):
                return
            for pid, facts in late.items():
                processes.send(pid, facts.start, signal.SIGSTOP if on else signal.SIGCONT)
            time.sleep(0.002)

    def hunt(self) -> None:
        """Signal a chain of forks, each of which ends at once, so that no reading of the process table shows it."""
        for pid in processes.children():
            with suppress(OSError):  # another user's
                os.kill(pid, self.hunting)  # only we reap it, so its pid is not used again
        self.reap()

    def members(self) -> dict[int, processes.Process]:
        """{pid: facts} of every live process that came from the job, whatever it did to get away.

        Reading the process table misses a process that ends meanwhile. On Linux all orphans become our children: if
        the table shows none, one of them has ended as our child, or there was none. A chain of forks is named by a
        link that has ended (`unmet`).
        """
        self.unmet = False
        for _ in range(LOOKS):
            self.reap()
            if processes.LINUX and self.status is not None and not processes.has_children():
                return {}
            found = self.found_members()
            if found or not processes.LINUX:
                return found
            passed = self.reap()
            if not passed:
                return {}
        self.unmet = True
        return passed

    def found_members(self) -> dict[int, processes.Process]:
        table = processes.all_processes()
        found: dict[int, processes.Process] = {}
        grown = {os.getpid()}
        while grown:
            grown = {pid for pid, facts in table.items() if facts.ppid in grown and pid not in found}
            found.update({pid: table[pid] for pid in grown})
        if not processes.LINUX:
            ours = os.path.basename(self.tty)
            own = os.getpid()
            found.update({p: f for p, f in table.items() if f.tty and ours.endswith(f.tty) and p != own})
        # A zombie is dead, but its children may still name it as their parent.
        return {pid: facts for pid, facts in found.items() if facts.state not in "ZX"}

    def holders(self) -> dict[int, processes.Process]:
        """Those of `members` that still have the job's terminal or stderr, and so may still write into its logs."""
        members = self.members()
        # For a process that the table does not show, this is not known.
        return {pid: facts for pid, facts in members.items() if self.unmet or self.holds_terminal(pid, facts)}

    def holds_terminal(self, pid: int, facts: processes.Process) -> bool:
        if not processes.LINUX or facts.session == os.getsid(0):
            return True
        try:
            return processes.has_open(pid, self.tty) or bool(self.stderr and processes.has_open(pid, self.stderr.name))
        except PermissionError:  # another user's: it cannot have our terminal open
            return False
        except OSError:  # it has ended since, and may have left another
            return True
