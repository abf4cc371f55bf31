"""The process in the pane: runs one job's command and is the one place that ends it and writes how it ended.

Stdlib only, run by path with `python -I -S`, so that the truth about a job depends on no server being alive. It reads
`job.json` and `env` in the job's folder and writes `run.json` and, when the log is whole or it knows why not,
`exit.json`. CONTRIBUTING.md has the order of acts.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import termios
import time

from tmuxjobs import files, outcome
from tmuxjobs.contract import in_pane
from tmuxjobs.pane import announce
from tmuxjobs.pane.recording import LOOK_S, Recorder, RecorderGone, Refused, Stderr, readable, write_fully
from tmuxjobs.system import processes
from tmuxjobs.visible import visible

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

FORMAT = 1
LAUNCH_S = 60.0  # a runner that comes later does not start: by then the job was told as lost
MARK_S = 60.0
TMUX_END_S = 5.0
HELD_S = 1.0
KILL_S = 5.0
RECORDER_RESTARTS = 20
LOOKS = 5
CHAIN_S = 0.05
ENV_BYTES = 1 << 24
STOP_GRACE_MAX_S = 60.0


def now() -> str:
    seconds = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


def write_json(path: str, value: dict[str, Any]) -> None:
    """Replace the file at `path` by one that holds `value`."""
    beside = path + ".new"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        with open(files.opened(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w") as file:
            json.dump(value, file)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


class Stop:
    """A wish to end the job: why, by which signal, and when patience ends (monotonic s)."""

    def __init__(self, reason: str, number: int, grace_s: float) -> None:
        self.reason = reason
        self.number = number
        self.deadline = time.monotonic() + grace_s
        self.give_up = self.deadline + KILL_S


class Runner:
    def __init__(self, folder: str, tty: str) -> None:
        self.folder = folder
        self.job: dict[str, Any] = files.record(self.path("job.json"), files.JOB)
        self.recorder = Recorder(folder, self.job)
        self.tty = tty
        self.pid = 0
        self.stderr: Stderr | None = None
        self.wakeup = -1
        self.closed = False
        self.closer = ""
        self.env: dict[bytes, bytes] = {}
        self.stop: Stop | None = None
        self.unmet = False
        self.hunting = 0
        self.status: int | None = None
        self.ended_at: str | None = None
        self.ended_monotonic: float | None = None
        self.cpu_user_s = self.cpu_system_s = 0.0
        self.max_rss_bytes = 0
        self.deadline: float | None = None
        self.look_s = 0.02
        self.give_up_at = 0.0
        self.log_notes: list[str] = []
        self.log_doubts: list[str] = []
        self.last_report: dict[str, Any] | None = None
        self.run: dict[str, Any] = {}

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    # Start

    def main(self) -> int:
        os.umask(0o077)
        self.catch_signals()
        if os.path.lexists(self.path("run.json")):
            with contextlib.suppress(Refused):  # our line is not the job's: the log must not get it
                self.recorder.tmux(["pipe-pane", "-t", self.recorder.pane])
            print(f"Job {self.job['job_id']} has already run; `tmuxjobs restart {self.job['job_id']}` runs it again.")
            return 1
        if processes.LINUX:
            processes.become_subreaper()
        try:
            self.claim()
            self.start()
        except Refused as refused:
            return self.refuse(str(refused))
        except files.Odd as odd:
            return self.refuse(f"a file in {self.folder} {odd}")
        except OSError as error:
            return self.refuse(f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror))
        while not self.over():
            self.step()
        code = self.finish()
        if not self.closed and os.path.exists(self.path("exit.json")):
            self.stay()
        return code

    def catch_signals(self) -> None:
        self.wakeup, write = os.pipe()
        for fd in (self.wakeup, write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)

    def claim(self) -> None:
        """Say who runs the job, before anything else can fail."""
        self.run = {
            "format": FORMAT,
            "pid": os.getpid(),
            "start": processes.start_of(os.getpid()),
            "boot": processes.boot_id(),
            "pane": self.recorder.pane,
            "socket": self.recorder.socket,
            "server_pid": self.recorder.server_pid,
            "server_start": self.recorder.server_start,
            "tty": self.tty,
            "namespace": processes.pid_namespace(),
        }
        write_json(self.path("run.json"), self.run)

    def start(self) -> None:
        self.refuse_late_start()
        with contextlib.suppress(termios.error):  # a closed window: SIGHUP is on its way
            settings = termios.tcgetattr(0)
            # A person's Ctrl-S would stop the job; Linux cuts characters, not bytes, on erase with IUTF8.
            settings[0] &= ~(termios.IXON | termios.IXOFF)
            settings[0] |= getattr(termios, "IUTF8", 0)
            termios.tcsetattr(0, termios.TCSANOW, settings)
        self.record()
        self.await_turn()
        env = dict(item.split(b"=", 1) for item in files.read(self.path("env"), ENV_BYTES).split(b"\0") if b"=" in item)
        os.unlink(self.path("env"))
        self.env = env
        env.update({name: os.environb[name] for name in (b"TERM", b"TMUX", b"TMUX_PANE") if name in os.environb})
        self.launch(env)
        self.run.update(
            command_pid=self.pid,
            command_start=processes.start_of(self.pid),
            started_at=now(),
            started_monotonic=time.monotonic(),
        )
        self.write_in_room("run", self.run)
        if self.job["timeout_s"] is not None:
            self.deadline = self.run["started_monotonic"] + self.job["timeout_s"]

    def refuse_late_start(self) -> None:
        if self.job["boot"] != self.run["boot"] or time.monotonic() - self.job["created_monotonic"] > LAUNCH_S:
            raise Refused(f"its window opened more than {LAUNCH_S:.0f} s after it was asked for")

    def await_turn(self) -> None:
        """Of a job that replaces another: that one is ended when we have all that is needed, and not before."""
        ready = self.path("env.ready")
        with contextlib.suppress(FileNotFoundError):  # it replaces none
            os.rename(self.path("env.held"), ready)
        while os.path.exists(ready):
            if time.monotonic() - self.job["created_monotonic"] > LAUNCH_S:
                raise Refused(f"its restart was cut off: nobody let it begin within {LAUNCH_S:.0f} s")
            if readable(self.wakeup, time.monotonic() + 0.02):
                numbers = os.read(self.wakeup, 4096)
                self.closed = self.closed or signal.SIGHUP in numbers
                if self.closed or signal.SIGUSR1 in numbers or signal.SIGTERM in numbers:
                    raise Refused("it was ended before its turn")

    def record(self) -> None:
        try:
            self.recorder.attach()
        except RecorderGone:
            self.recorder.attach()

    def launch(self, env: dict[bytes, bytes]) -> None:
        """Start the command in a foreground process group of its own; raises Refused when it can not be."""
        self.stderr = Stderr(self.recorder, self.tty) if self.job["separate_stderr"] else None
        told, tell = os.pipe()
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
        with contextlib.suppress(OSError):  # the child does the same: whoever comes first
            os.setpgid(self.pid, self.pid)
        for fd in (tell, gate):
            os.close(fd)
        if self.stderr:
            os.close(self.stderr.input)
            try:
                self.stderr.start()
            except RuntimeError:  # the machine is out of processes, which threads are too: pthread_create(3), EAGAIN
                raise Refused(f"its stderr cannot be recorded ({os.strerror(errno.EAGAIN)})") from None
        with contextlib.suppress(BrokenPipeError):  # it was killed before it began
            os.write(go, b"1")
        os.close(go)
        said = b""
        while chunk := os.read(told, 4096):
            said += chunk
        os.close(told)
        if said:
            raise Refused(said.decode(errors="replace"))

    def become_command(self, env: dict[bytes, bytes]) -> None:
        signal.set_wakeup_fd(-1)
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError, ValueError):  # the C library keeps a few for itself
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if self.stderr:
            os.dup2(self.stderr.input, 2)
        os.chdir(self.job["cwd"])
        env[b"PWD"] = os.fsencode(self.job["cwd"])
        os.umask(self.job["umask"])
        shell = self.job["shell"]
        os.execve(shell, [os.path.basename(shell), "-c", self.job["command"]], env)

    # While it runs

    def over(self) -> bool:
        if self.stop and time.monotonic() > self.stop.give_up:
            return True
        if self.status is None:
            return False
        if self.stop:
            return not self.members()
        if not self.holders() and not self.holders():
            return True
        self.tell_background()
        if self.unmet:
            time.sleep(CHAIN_S)  # each of its links wakes us
        return False

    def tell_background(self) -> None:
        """Say once that the command itself has ended and the job runs on in the background."""
        if "command_ended" not in self.run and self.status is not None:
            self.run["command_ended"] = processes.ending_of(self.status)
            with contextlib.suppress(OSError):  # a full disk: it is told in the exit record
                write_json(self.path("run.json"), self.run)

    def step(self) -> None:
        """Wait for the next event and act on it."""
        poll = select.poll()
        for fd in self.watched():
            poll.register(fd, select.POLLIN)
        events = dict(poll.poll(self.patience() * 1000))
        if self.wakeup in events:
            self.take_signals()
        if self.recorder.fd in events:
            self.recorder_gone()
        elif self.run.get("recording", True):
            self.recorder.carry_on()
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.deadline = None
            self.end("timeout", signal.SIGTERM, self.job["grace_s"])
        if self.stop and time.monotonic() >= self.stop.deadline:
            self.signal_all(signal.SIGKILL)

    def watched(self) -> list[int]:
        return [self.wakeup, self.recorder.fd]

    def take_signals(self) -> None:
        numbers = os.read(self.wakeup, 4096)
        if signal.SIGCHLD in numbers:
            self.reap()
        if signal.SIGUSR1 in numbers:
            self.asked()
        if signal.SIGHUP in numbers:
            self.closed = True
            self.end("hangup", signal.SIGHUP, 1.0)
        if signal.SIGTERM in numbers:
            self.end("terminated", signal.SIGTERM, self.job["grace_s"])

    def patience(self) -> float:
        """Seconds until the clock alone asks for a look."""
        if self.stop:
            return 0.05
        waits = [LOOK_S]
        if self.status is not None:
            # Something that still has the terminal: it may let go of it without ending, which nothing tells.
            self.look_s = min(1.0, self.look_s * 2)
            waits.append(self.look_s)
        if self.deadline is not None:
            waits.append(self.deadline - time.monotonic())
        return max(0.0, min(waits))

    def reap(self) -> dict[int, processes.Process]:
        """Take in who has ended or stopped; on Linux {pid: facts} of those that have ended."""
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
                continue  # it had stopped and goes on
            if os.WIFSTOPPED(status):
                # Ctrl-Z: no shell is above the job that could bring it back.
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

        Until it is reaped its pid and the number of its process group are given to nobody else: what is hunted is
        signalled by that group, at once and all together.
        """
        child = os.waitid(os.P_ALL, 0, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        if child is None:
            return 0
        if child.si_code != os.CLD_STOPPED:
            ended[child.si_pid] = processes.Process(name="?", state="Z", ppid=os.getpid())
            with contextlib.suppress(OSError):  # another user's may be hidden, proc(5)
                ended[child.si_pid] = processes.stat_of(child.si_pid)
            with contextlib.suppress(OSError):  # it was the last of its group, or another user's are in it
                group = os.getpgid(child.si_pid)
                if self.hunting and group != os.getpgrp():
                    os.killpg(group, self.hunting)
        return child.si_pid

    def asked(self) -> None:
        """A request to stop lies in `stop.json`: {signal, grace_s}; there is none when the disk is full."""
        request = {"signal": "SIGTERM", "grace_s": self.job["grace_s"]}
        with contextlib.suppress(OSError, files.Odd):
            request = files.record(self.path("stop.json"), files.STOP)
        number = signal.Signals.__members__.get(request["signal"], signal.SIGTERM)
        self.end("kill", number, max(0.0, min(request["grace_s"], STOP_GRACE_MAX_S)))

    def end(self, reason: str, number: int, grace_s: float) -> None:
        self.reap()
        if self.status is not None and not self.members():
            return  # it came too late: the job has ended by itself
        if self.stop is None:
            self.stop = Stop(reason, number, grace_s)
        else:
            again = Stop(reason, number, grace_s)
            if again.deadline < self.stop.deadline:
                self.stop.deadline, self.stop.give_up = again.deadline, again.give_up
        self.signal_all(number)
        if number != signal.SIGKILL:
            self.signal_all(signal.SIGCONT)

    def signal_all(self, number: int) -> None:
        for pid, facts in self.members().items():
            processes.send(pid, facts.start, number)  # one of another user's is named as a survivor later
        if number != signal.SIGCONT and (self.unmet or number == signal.SIGKILL):
            self.hunting = number
            self.hunt()

    def hunt(self) -> None:
        """Signal those that no look at the process table meets: a chain of forks, each of which ends at once."""
        for pid in processes.children():
            with contextlib.suppress(OSError):  # another user's
                os.kill(pid, self.hunting)  # we alone reap it, so its pid is its own
        self.reap()

    def members(self) -> dict[int, processes.Process]:
        """{pid: facts} of every live process that came from the job, whatever it did to get away.

        A look at the process table misses one that ends meanwhile. On Linux all orphans come to us, so that when
        nobody is met somebody of theirs has ended as our child, or there was nobody. Those of a chain of forks are
        named by a link that has ended (`unmet`).
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
        # A zombie is dead, but whom it leaves behind may still name it as parent.
        return {pid: facts for pid, facts in found.items() if facts.state not in "ZX"}

    def holders(self) -> dict[int, processes.Process]:
        """Those of `members` that still have the job's terminal or stderr, and so may still write into its logs."""
        members = self.members()
        # Of those that are not met nobody knows.
        return {pid: facts for pid, facts in members.items() if self.unmet or self.holds_terminal(pid, facts)}

    def holds_terminal(self, pid: int, facts: processes.Process) -> bool:
        if not processes.LINUX or facts.session == os.getsid(0):
            return True
        try:
            return processes.has_open(pid, self.tty) or bool(self.stderr and processes.has_open(pid, self.stderr.name))
        except PermissionError:  # another user's: it can not have our terminal open
            return False
        except OSError:  # it has ended since, and may have left another
            return True

    def recorder_gone(self) -> None:
        """The recorder died while the job runs: attach another and say that bytes may be missing."""
        report = self.recorder.report(0) or {"why": "gone"}
        at = self.log_size()
        # A closed window ends the recorder too, and its SIGHUP may come a moment later.
        deadline = time.monotonic() + 0.3
        while not self.closed and readable(self.wakeup, deadline):
            self.take_signals()
        if self.closed or not self.recorder.server_lives():
            self.last_report = report
            self.watch_no_recorder()
            return
        self.log_notes.append(f"the recorder ended ({report['why']}) at byte {at}, at {now()}")
        try:
            self.attach_another()
            self.log_notes[-1] += "; another took over, output in between may be missing"
            self.run["recording"] = True
        except (Refused, OSError) as error:
            self.log_notes[-1] += f"; nothing was recorded after that: {error}"
            self.run["recording"] = False
            self.watch_no_recorder()
        with contextlib.suppress(OSError):  # a full disk: the exit record has its room
            write_json(self.path("run.json"), self.run)

    def attach_another(self) -> None:
        """As long as it may be tried; raises Refused and OSError of the last try."""
        while True:
            self.recorder.restarts += 1
            self.run["recorder_restarts"] = self.recorder.restarts
            if self.recorder.restarts > RECORDER_RESTARTS:
                raise Refused(f"it had been replaced {RECORDER_RESTARTS} times")
            with contextlib.suppress(RecorderGone):
                return self.recorder.attach()

    def hung_up(self) -> bool:
        return self.stop is not None and self.stop.reason == "hangup"

    def watch_no_recorder(self) -> None:
        """Poll a pipe that never speaks in place of the FIFO that hangs up for ever."""
        os.close(self.recorder.fd)
        self.recorder.fd, self.silent = os.pipe()
        self.recorder.pid = 0

    def log_size(self) -> int:
        try:
            return os.path.getsize(self.path("output.log"))
        except OSError:
            return 0

    # The end

    def finish(self) -> int:
        survivors = self.members() if self.stop else {}
        left = {} if self.stop else self.members()
        self.end_stderr()
        with contextlib.suppress(OSError):  # no terminal any more
            os.tcsetpgrp(0, os.getpgrp())
        log = self.end_log()
        record = self.exit_record(log, survivors, left)
        with contextlib.suppress(OSError):  # a person removed its folder, or put another in the record's place
            self.write_exit(record)
        self.tell_end(record)
        if self.status is None:
            return 1
        if os.WIFSIGNALED(self.status):
            return 128 + os.WTERMSIG(self.status)
        return os.WEXITSTATUS(self.status)

    def end_stderr(self) -> None:
        """Wait until the terminal has all of a separate stderr; note what it does not have."""
        if self.stderr is None:
            return
        self.give_up_at = time.monotonic() + MARK_S
        self.let_flow()
        held_at = time.monotonic() + HELD_S
        has_ended = readable(self.stderr.ended, time.monotonic())
        while not has_ended and self.waits_for_tmux() and time.monotonic() < held_at:
            has_ended = readable(self.stderr.ended, time.monotonic() + 0.05)
            if self.stderr.unshown():
                held_at = time.monotonic() + HELD_S
        if missing := self.stderr.unshown():
            self.log_notes.append(f"{missing} bytes of stderr.log are missing: the terminal did not take them")
        elif not has_ended:
            self.log_notes.append("a process outside the job still has its stderr open; what it writes is not recorded")
        if self.stderr.torn_at is not None:
            at = self.stderr.torn_at
            self.log_doubts.append(f"its runner was stopped, and from byte {at} of stderr on the two may be mixed")

    def let_flow(self) -> None:
        """Undo a person's Ctrl-S: nothing would come out of the terminal."""
        with contextlib.suppress(OSError, termios.error):  # a closed window
            fd = os.open(self.tty, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
            termios.tcflow(fd, termios.TCOON)
            os.close(fd)

    def end_log(self) -> dict[str, Any]:
        """Send the end mark after the last output and wait until the recorder has it; what is known of the log."""
        report = self.last_report
        if report is None and self.run.get("recording", True):
            self.give_up_at = time.monotonic() + MARK_S
            report = self.report_of_mark() if self.send_mark() else self.recorder.report(2.0)
            if report is None and self.run.get("awaits_tmux"):
                self.log_notes.append("tmux was stopped and did not hand over the end of the output")
            elif report is None:
                self.log_notes.append(f"tmux did not hand over the end of the output within {MARK_S:.0f} s")
        if report and report["why"] == "eof":
            what = "the tmux server ended" if self.who_closed() == "tmux-ended" else "the window was closed"
            self.log_notes.append(f"{what}: output that tmux had not handed over is missing")
        elif report and report["why"] != "end":
            self.log_notes.append("the recorder died at the end: the last output may be missing")
        logs = (report or {}).get("logs", {})
        for name, facts in logs.items():
            why = facts.get("why")
            if facts["dropped_bytes"]:
                self.log_notes.append(
                    f"{facts['dropped_bytes']} bytes of {name} are gone ({why or 'limit or full disk'})"
                )
            elif why:
                self.log_notes.append(why)
            self.log_doubts += [facts["doubt"]] if "doubt" in facts else []
        return {
            "complete": False if self.log_notes else None if self.log_doubts else True,
            "why": "; ".join(self.log_notes + self.log_doubts) or None,
            "bytes": logs.get("output.log", {}).get("bytes", self.log_size()),
            "stderr_bytes": logs.get("stderr.log", {}).get("bytes"),
            "dropped_bytes": sum(facts["dropped_bytes"] for facts in logs.values()),
            "recorder_restarts": self.recorder.restarts,
        }

    def send_mark(self) -> bool:
        try:
            fd = os.open(self.tty, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:
            return False
        self.let_flow()
        data = self.recorder.mark(0)
        try:
            while data and self.waits_for_tmux():
                try:
                    data = data[os.write(fd, data) :]
                except BlockingIOError:
                    time.sleep(0.02)  # macOS does not poll a terminal, poll(2)
        except OSError:
            return False
        finally:
            os.close(fd)
        return not data

    def report_of_mark(self) -> dict[str, Any] | None:
        report = None
        while report is None and self.waits_for_tmux():
            report = self.recorder.report(0.5)
        return report

    def waits_for_tmux(self) -> bool:
        """Whether to wait on for the end of the log: MARK_S, but of a stopped tmux until it goes on.

        It has the output and hands it over then. Nobody waits for us who can not ask us to end.
        """
        self.recorder.carry_on()
        if self.stop is None and processes.is_stopped(self.recorder.server_pid):
            self.give_up_at = time.monotonic() + MARK_S
            self.tell_awaited()
            return not self.asked_to_end()
        return time.monotonic() < self.give_up_at

    def tell_awaited(self) -> None:
        """Say once that the command has ended and the end of its log has not come."""
        if "awaits_tmux" not in self.run and self.status is not None:
            self.run.update(command_ended=processes.ending_of(self.status), awaits_tmux=True)
            with contextlib.suppress(OSError):  # a full disk, or a folder that a person removed
                write_json(self.path("run.json"), self.run)

    def asked_to_end(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            numbers = os.read(self.wakeup, 4096)
            return signal.SIGUSR1 in numbers or signal.SIGTERM in numbers
        return False

    def exit_record(
        self, log: dict[str, Any], survivors: dict[int, processes.Process], left: dict[int, processes.Process]
    ) -> dict[str, Any]:
        # None: not even SIGKILL ended it, and it is among the survivors.
        code = None if self.status is None else os.waitstatus_to_exitcode(self.status)
        signaled = code is not None and code < 0
        return {
            "format": FORMAT,
            "ended_at": self.ended_at or now(),
            "runtime_s": round((self.ended_monotonic or time.monotonic()) - self.run["started_monotonic"], 6),
            "exit_code": None if signaled else code,
            "signal": processes.signal_name(-code) if code is not None and code < 0 else None,
            "reason": self.reason(signaled),
            "cpu_user_s": round(self.cpu_user_s, 6),
            "cpu_system_s": round(self.cpu_system_s, 6),
            "max_rss_bytes": self.max_rss_bytes,
            "log": log,
            "survivors": processes.named(survivors),
            "left_running": processes.named(left),
            "job": self.job,
            "run": self.run,
        }

    def reason(self, signaled: bool) -> str:
        """Why it ended: exit, signal, kill, timeout, terminated, window-closed, tmux-ended, or unknown: adopted."""
        if not self.stop:
            return "signal" if signaled else "unknown" if self.status is None else "exit"
        return self.who_closed() if self.hung_up() else self.stop.reason

    def who_closed(self) -> str:
        """Whether the terminal went with its window or with all of tmux; a look of 0.5 s at the most, once."""
        self.closer = self.closer or ("tmux-ended" if self.server_ends() else "window-closed")
        return self.closer

    def server_ends(self) -> bool:
        # A server that is ending closes its panes some milliseconds before it is gone.
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            if not self.recorder.server_lives():
                return True
            time.sleep(0.02)
        return False

    def write_in_room(self, name: str, record: dict[str, Any]) -> None:
        """Into the room taken at the start, then under its name: neither needs a free block."""
        data = json.dumps(record).encode() + b"\n"
        path = self.path(f"{name}.room")
        try:
            fd = files.opened(path, os.O_WRONLY | os.O_CREAT)
        except files.Odd:  # someone has put another thing there
            write_json(self.path(f"{name}.json"), record)
            return
        os.pwrite(fd, data, 0)
        os.ftruncate(fd, len(data))
        os.close(fd)
        os.replace(path, self.path(f"{name}.json"))

    def write_exit(self, record: dict[str, Any]) -> None:
        self.write_in_room("exit", record)
        for name in ("recorder", "stop.json", "env", "env.held", "env.ready", "run.room", "run.json.new"):
            with contextlib.suppress(OSError):
                os.unlink(self.path(name))

    def tell_end(self, record: dict[str, Any]) -> None:
        """Tell the window, the list of windows and the hook; the record is there, so nobody waits for this."""
        end = outcome.End(record)
        notify = self.job.get("notify", "always")
        speak = notify == "always" or (notify == "failure" and end.state != "done")
        self.show_end(end.line() + "\a" * speak)
        if speak and self.job.get("on_end"):
            announce.run_hook(self.job["on_end"], announce.hook_environment(self.folder, record, end))
        # The kernel hangs up the command and us at once: our signal may come after the command's end.
        if readable(self.wakeup, time.monotonic()):
            self.closed = self.closed or signal.SIGHUP in os.read(self.wakeup, 4096)
        if self.closed:
            return
        mark = ["set-option", "-w", "-t", self.recorder.pane]
        commands = [[*mark, "@tmuxjobs_state", end.state], [*mark, "@tmuxjobs_end", end.short]]
        if speak:
            # Last: the person may have renamed the session.
            session = ["set-option", "-t", f"={self.job.get('session', 'mcp-jobs')}:"]
            commands += [[*session, "@tmuxjobs_notice_at", str(int(time.time()))]]
            commands += [[*session, "@tmuxjobs_notice", f"{self.job['job_id']}: {end.words}"]]
        with contextlib.suppress(Refused, OSError):  # the window or the session went meanwhile
            self.recorder.tmux(*commands, bound_s=TMUX_END_S)

    def show_end(self, line: str) -> None:
        # Leaves a full-screen program's alternate screen, modes, colours and hidden cursor behind.
        text = f"\x1b[?1047l\x1b[?1000;1002;1003;1006;1004;2004l\x1b7\x1b[r\x1b8\x1b[m\r\n\x1b[K{line}"
        with contextlib.suppress(OSError):
            fd = os.open(self.tty, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
            announce.for_keys(fd)
            write_fully(fd, text.encode(), time.monotonic() + 0.5)

    def stay(self) -> None:
        """Become the small process that keeps the finished window and reads its keys."""
        argv = self.keeper()
        if processes.LINUX:
            processes.become_subreaper(on=False)  # nobody would reap the orphans of what was left running
        with contextlib.suppress(OSError):  # no more Python there: the window is told as dead by tmux
            # In the job's own environment, which is kept nowhere else: there it is run again.
            os.execve(argv[0], argv, self.env)

    def take_back(self) -> None:
        """What the start has begun."""
        self.signal_all(signal.SIGKILL)

    def keeper(self) -> list[str]:
        return in_pane(self.job["python"], self.job["pane"], "finished", self.folder)

    def refuse(self, why: str) -> int:
        """The command never ran: say so on disk and in the window."""
        self.take_back()
        if self.recorder.ready:
            self.end_log()
        record = {"format": FORMAT, "ended_at": now(), "reason": "not-started", "error": why}
        with contextlib.suppress(OSError):  # a full disk: who started it sees that nobody runs it
            self.write_exit(record | {"job": self.job, "run": self.run or None})
        with contextlib.suppress(OSError):
            os.write(1, f"[{self.job['job_id']} did not start: {visible(why)}]\r\n".encode())
        return 126
