"""The process in the pane: it runs one job's command, and it alone ends the job and records how it ended.

Stdlib only, a role of `__main__.py`, so that no server has to be alive for a job's record to be true. It reads
`job.json` and `env` in the job's folder and writes `run.json` and, once the log is complete or it knows why not,
`exit.json`. CONTRIBUTING.md lists the steps in order.
"""

from __future__ import annotations

import os
import select
import sys
import termios
import time

from tmuxjobs import files, outcome
from tmuxjobs.contract import FORMAT, IN_OURS, LAUNCH_S, PANE, in_pane
from tmuxjobs.files import now, write_in_room, write_json
from tmuxjobs.lean import signal, suppress
from tmuxjobs.pane import announce
from tmuxjobs.pane.command import Command, Server, Stop
from tmuxjobs.pane.recorder_link import QUIET_CHECK_S, NotApproved, RecorderLink, Refused, readable
from tmuxjobs.pane.runner_log import RunnerLog
from tmuxjobs.system import processes

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

TMUX_END_S = 5.0
CHAIN_S = 0.05
ENV_BYTES = 1 << 24
STOP_GRACE_MAX_S = 60.0
SERVER_CHECK_S = 1.0


class Runner:
    """One job from its start to its end."""

    def __init__(self, folder: str, tty: str) -> None:
        self.folder = folder
        self.tty = tty
        self.job: dict[str, Any] = files.record(self.path("job.json"), files.JOB)
        self.recorder = RecorderLink(folder, self.job)
        self.run: dict[str, Any] = {}
        self.command = self.make_command()
        self.log = self.make_log()
        self.wakeup = -1
        self.closed = False
        self.env: dict[bytes, bytes] = {}
        self.deadline: float | None = None
        self.server = Server({}, "")
        self.left_s, self.look_s = 0.0, 0.02
        self.kept_as: list[str] = []

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def make_command(self) -> Command:
        return Command(self.job, self.tty)

    def make_log(self) -> RunnerLog:
        return RunnerLog(self.folder, self.command, self.recorder, self.run, self.asked_to_end)

    # Start

    def main(self) -> int:
        os.umask(0o077)
        self.catch_signals()
        if processes.LINUX:
            processes.become_subreaper()
        try:
            ours = not os.path.lexists(self.path("run.json")) and self.claim()
            if ours:
                self.recorder.listen()
                self.start()
        except NotApproved as refused:
            return self.reject(str(refused))
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller waits to hear of it
            return self.refuse(announce.why_not(error, self.folder))
        if not ours:
            return self.leave()
        while not self.over():
            self.step()
        code = self.finish()
        if not self.closed and os.path.exists(self.path("exit.json")):
            self.stay()
        return code

    def leave(self) -> int:
        with suppress(Refused):
            if not os.path.lexists(self.path("run.json")) and not os.path.lexists(self.path("exit.json")):
                self.close_window()  # it waits for another turn
                return 1
            # The line printed next is ours, not the job's: keep it out of the log.
            self.recorder.tmux(["pipe-pane", "-t", self.recorder.pane])
        print(f"Job {self.job['job_id']} has already run; `tmuxjobs restart {self.job['job_id']}` runs it again.")
        return 1

    def catch_signals(self) -> None:
        self.wakeup, write = os.pipe()
        for fd in (self.wakeup, write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)

    def claim(self) -> bool:
        """Record who runs the job, before anything else can fail; False when it is not ours to run."""
        self.run.update(
            format=FORMAT,
            pid=os.getpid(),
            start=processes.start_of(os.getpid()),
            boot=processes.boot_id(),
            pane=self.recorder.pane,
            socket=self.recorder.socket,
            server_pid=self.recorder.server_pid,
            server_start=self.recorder.server_start,
            tty=self.tty,
            namespace=processes.pid_namespace(),
            paused=False,
        )
        if self.job.get("queue"):
            from tmuxjobs.pane import line

            return line.claim(self.folder, self.run)
        write_json(self.path("run.json"), self.run)
        return True

    def start(self) -> None:
        self.refuse_late_start()
        self.server = Server(self.job, self.run["namespace"])
        with suppress(termios.error):  # a closed window: SIGHUP is on its way
            settings = termios.tcgetattr(0)
            # A person's Ctrl-S would stop the job; Linux cuts characters, not bytes, on erase with IUTF8.
            settings[0] &= ~(termios.IXON | termios.IXOFF)
            settings[0] |= getattr(termios, "IUTF8", 0)
            termios.tcsetattr(0, termios.TCSANOW, settings)
        if self.job.get("ask_why"):
            from tmuxjobs.pane.approval import Approval  # 2 ms

            Approval(self.job, self.run, self.recorder, self.folder, self.wakeup, self.server.end).ask()
        self.recorder.start_first()
        self.await_turn()
        self.take_environment()
        self.command.launch(self.env, self.recorder)
        self.run.update(
            command_pid=self.command.pid,
            command_start=processes.start_of(self.command.pid),
            started_at=now(),
            started_monotonic=time.monotonic(),
        )
        write_in_room(self.folder, "run", self.run)
        if self.job["timeout_s"] is not None:
            self.deadline = self.run["started_monotonic"] + self.job["timeout_s"]
        import resource  # noqa: F401 - `wait4` imports it at its first call, when somebody waits for the end

    def take_environment(self) -> None:
        items = files.read(self.path("env"), ENV_BYTES).split(b"\0")
        self.env = dict(item.split(b"=", 1) for item in items if b"=" in item)
        os.unlink(self.path("env"))
        self.env.update({name: os.environb[name] for name in (b"TERM", b"TMUX", b"TMUX_PANE") if name in os.environb})

    def refuse_late_start(self) -> None:
        late = self.job["boot"] != self.run["boot"] or time.monotonic() - self.job["created_monotonic"] > LAUNCH_S
        if late and not self.job.get("queue"):
            raise Refused(f"its window opened more than {LAUNCH_S:.0f} s after it was asked for")

    def await_turn(self) -> None:
        """If the job replaces another: report that we have all that is needed, and wait until the other has ended."""
        ready = self.path("env.ready")
        with suppress(FileNotFoundError):  # it replaces none
            os.rename(self.path("env.held"), ready)
        while os.path.exists(ready):
            if time.monotonic() - self.job["created_monotonic"] > LAUNCH_S:
                raise Refused(f"its restart was cut off: nobody let it begin within {LAUNCH_S:.0f} s")
            if readable(self.wakeup, time.monotonic() + 0.02):
                numbers = os.read(self.wakeup, 4096)
                self.closed = self.closed or signal.SIGHUP in numbers
                if self.closed or signal.SIGUSR1 in numbers or signal.SIGTERM in numbers:
                    raise Refused("it was ended before its turn")

    # While it runs

    def over(self) -> bool:
        if self.command.stop and time.monotonic() > self.command.stop.give_up:
            return True
        if self.command.status is None:
            return False
        if self.command.stop:
            return not self.command.members()
        if not self.command.holders() and not self.command.holders():
            return True
        self.tell_background()
        if self.command.unmet:
            time.sleep(CHAIN_S)  # each link of the chain wakes us
        return False

    def tell_background(self) -> None:
        """Record once that the command itself has ended while the job runs on in the background."""
        if "command_ended" not in self.run and self.command.status is not None:
            self.run["command_ended"] = processes.ending_of(self.command.status)
            with suppress(OSError):  # a full disk: the exit record says it
                write_json(self.path("run.json"), self.run)

    def step(self) -> None:
        """Wait for the next event and act on it."""
        poll = select.poll()
        for fd in self.watched():
            poll.register(fd, select.POLLIN)
        events = dict(poll.poll(self.patience() * 1000))
        if self.wakeup in events:
            self.take_signals()
        if self.recorder.fd in events and (report := self.recorder.report(0)):
            self.recorder_gone(report)
        elif self.run.get("recording", True):
            self.recorder.carry_on(self.tty)
        if self.server.gone(events):
            self.end("disconnected", signal.SIGTERM, self.job["grace_s"])
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.deadline = None
            self.end("timeout", signal.SIGTERM, self.job["grace_s"])
        if self.command.stop and time.monotonic() >= self.command.stop.deadline:
            self.command.signal_all(signal.SIGKILL)

    def watched(self) -> list[int]:
        return [self.wakeup, self.recorder.fd, *([self.server.end] if self.server.end >= 0 else [])]

    def take_signals(self) -> None:
        numbers = os.read(self.wakeup, 4096)
        if signal.SIGCHLD in numbers:
            self.command.reap()
        if signal.SIGUSR1 in numbers:
            self.asked()
        if signal.SIGHUP in numbers:
            self.closed = True
            self.end("hangup", signal.SIGHUP, 1.0)
        if signal.SIGTERM in numbers:
            self.end("terminated", signal.SIGTERM, self.job["grace_s"])

    def patience(self) -> float:
        """Seconds until the next check that no event triggers."""
        if self.command.stop:
            return 0.05
        waits = [self.recorder.look_at - time.monotonic() if self.run.get("recording", True) else QUIET_CHECK_S]
        if self.command.status is not None:
            # Something still holds the terminal. It may let go of it without ending, which no event reports.
            self.look_s = min(1.0, self.look_s * 2)
            waits.append(self.look_s)
        if self.server.is_polled:
            waits.append(SERVER_CHECK_S)
        if self.deadline is not None:
            waits.append(self.deadline - time.monotonic())
        return max(0.0, min(waits))

    def asked(self) -> None:
        """Act on the request to stop or pause in `stop.json`: {signal, grace_s}; on a full disk there is no file."""
        request = {"signal": "SIGTERM", "grace_s": self.job["grace_s"]}
        with suppress(OSError, files.Odd):
            request = files.record(self.path("stop.json"), files.STOP)
        from signal import Signals  # takes 4 ms, for which the start would wait

        number = int(Signals.__members__.get(request["signal"], signal.SIGTERM))
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self.pause(on=number == signal.SIGSTOP)
            return
        self.end("kill", number, max(0.0, min(request["grace_s"], STOP_GRACE_MAX_S)))

    def pause(self, *, on: bool) -> None:
        """Stop the job, or let it continue; the time in between does not count towards its timeout."""
        self.command.pause(on=on)
        if on and self.deadline is not None:
            self.left_s, self.deadline = self.deadline - time.monotonic(), None
        elif self.left_s and not on:
            self.left_s, self.deadline = 0.0, time.monotonic() + self.left_s
        self.run["paused"] = on
        state = ["set-option", "-w", "-t", self.recorder.pane, "@tmuxjobs_state", "paused" if on else "running"]
        with suppress(Refused, OSError):  # a full disk, or the window was closed
            write_json(self.path("run.json"), self.run)
            os.unlink(self.path("stop.json"))
            self.recorder.tmux(state, bound_s=TMUX_END_S)

    def end(self, reason: str, number: int, grace_s: float) -> None:
        self.command.reap()
        if self.command.status is not None and not self.command.members():
            return  # it came too late: the job has ended by itself
        if self.command.stop is None:
            self.command.stop = Stop(reason, number, grace_s)
        else:
            again = Stop(reason, number, grace_s)
            if again.deadline < self.command.stop.deadline:
                self.command.stop.deadline, self.command.stop.give_up = again.deadline, again.give_up
        self.command.signal_all(number)
        if number != signal.SIGKILL:
            self.command.signal_all(signal.SIGCONT)

    def recorder_gone(self, report: dict[str, Any]) -> None:
        # A closed window ends the recorder too, and its SIGHUP may come a moment later.
        deadline = time.monotonic() + 0.3
        while not self.closed and readable(self.wakeup, deadline):
            self.take_signals()
        self.log.recorder_gone(report, closed=self.closed)

    def asked_to_end(self) -> bool:
        """Whether a signal to end the job has just come."""
        with suppress(BlockingIOError):
            numbers = os.read(self.wakeup, 4096)
            return signal.SIGUSR1 in numbers or signal.SIGTERM in numbers
        return False

    # The end

    def finish(self) -> int:
        survivors = self.command.members() if self.command.stop else {}
        left = {} if self.command.stop else self.command.members()
        self.log.end_stderr()
        with suppress(OSError):  # no terminal any more
            os.tcsetpgrp(0, os.getpgrp())
        log = self.log.end()
        record = self.exit_record(log, survivors, left)
        with suppress(OSError):  # a person removed its folder, or put another in the record's place
            self.write_exit(record)
        self.tell_end(record)
        if self.command.status is None:
            return 1
        if os.WIFSIGNALED(self.command.status):
            return 128 + os.WTERMSIG(self.command.status)
        return os.WEXITSTATUS(self.command.status)

    def exit_record(
        self, log: dict[str, Any], survivors: dict[int, processes.Process], left: dict[int, processes.Process]
    ) -> dict[str, Any]:
        # None: not even SIGKILL ended it, and it is among the survivors.
        code = None if self.command.status is None else processes.ending_code(self.command.status)
        signaled = code is not None and code < 0
        return {
            "format": FORMAT,
            "ended_at": self.command.ended_at or now(),
            "runtime_s": round((self.command.ended_monotonic or time.monotonic()) - self.run["started_monotonic"], 6),
            "exit_code": None if signaled else code,
            "signal": processes.signal_name(-code) if code is not None and code < 0 else None,
            "reason": self.reason(signaled),
            "note": "" if self.command.stop else self.command.note(code, self.path("pressed.json")),
            "cpu_user_s": round(self.command.cpu_user_s, 6),
            "cpu_system_s": round(self.command.cpu_system_s, 6),
            "max_rss_bytes": self.command.max_rss_bytes,
            "log": log,
            "survivors": processes.named(survivors),
            "left_running": processes.named(left),
            "job": self.job,
            "run": self.run,
        }

    def reason(self, signaled: bool) -> str:
        """Why it ended: exit, signal, kill, timeout, terminated, disconnected, window-closed, tmux-ended or unknown."""
        if not self.command.stop:
            return "signal" if signaled else "unknown" if self.command.status is None else "exit"
        hung_up = self.command.stop.reason == "hangup"
        return self.log.who_closed() if hung_up else self.command.stop.reason

    def write_exit(self, record: dict[str, Any]) -> None:
        write_in_room(self.folder, "exit", record)
        made = "recorder recorder.first stop.json pressed.json held env env.held env.ready run.room opened.json"
        for name in f"{made} run.json.new turn.json".split():
            with suppress(OSError):
                os.unlink(self.path(name))
        state = os.path.dirname(os.path.dirname(self.folder))
        if os.path.exists(os.path.join(state, "queue")):  # jobs have waited for their turn here
            from tmuxjobs.pane import turns

            turns.go_on(state)

    def tell_end(self, record: dict[str, Any]) -> None:
        """Announce the end in the window, the list of windows and the hook; the record exists, so nobody waits."""
        end = outcome.End(record)
        speak = announce.speaks(self.job, end)
        self.show_end(end.line() + "\a" * speak)
        if speak and self.job.get("on_end"):
            announce.run_hook(self.job["on_end"], announce.hook_environment(self.folder, record, end))
        # The kernel hangs up the command and us together: our signal may come after the command's end.
        if readable(self.wakeup, time.monotonic()):
            self.closed = self.closed or signal.SIGHUP in os.read(self.wakeup, 4096)
        if self.closed:
            return
        commands = announce.end_marks(self.recorder.pane, end)
        if speak:  # last: the person may have renamed the session
            commands += announce.notice(self.job, f"{self.job['job_id']}: {end.words}")
        try:
            self.recorder.tmux(*commands, bound_s=TMUX_END_S)
        except (Refused, OSError):  # the window or the session is gone, or tmux cannot be run now
            self.kept_as = ["unmarked"]

    def show_end(self, line: str) -> None:
        announce.show(self.tty, line)

    def stay(self) -> None:
        """Become the small process that keeps the finished window and reads its keys."""
        argv = self.keeper()
        if processes.LINUX:
            processes.become_subreaper(on=False)  # nobody would reap the orphans of what was left running
        with suppress(OSError):  # no Python any more: tmux reports the window as dead
            # With the job's own environment, which is kept nowhere else and is needed to run it again.
            os.execve(argv[0], argv, {**self.env, os.fsencode(IN_OURS): os.fsencode(self.job["job_id"])})

    def take_back(self) -> None:
        """Undo what the start has begun."""
        self.command.signal_all(signal.SIGKILL)

    def keeper(self) -> list[str]:
        return in_pane(sys.executable, PANE, "finished", *self.kept_as)

    def reject(self, why: str) -> int:
        """Record and announce that the job was not approved, as for any other end."""
        record = {"format": FORMAT, "ended_at": now(), "reason": "refused", "error": why}
        record.update(job=self.job, run=self.run)
        with suppress(OSError, files.Odd):  # its finished window does without the environment
            self.take_environment()
        with suppress(OSError):  # a person removed its folder
            self.write_exit(record)
        self.closed = not os.isatty(0)
        self.tell_end(record)
        if not self.closed and os.path.exists(self.path("exit.json")):
            self.stay()
        return 126

    def refuse(self, why: str) -> int:
        """Record that the command never ran, and say so in the window."""
        self.take_back()
        if self.recorder.ready:
            self.log.end()
        record = {"format": FORMAT, "ended_at": now(), "reason": "not-started", "error": why}
        with suppress(OSError):  # a full disk: the caller sees that no process runs it
            self.write_exit({**record, "job": self.job, "run": self.run or None})
        from tmuxjobs.visible import visible  # its patterns take 4 ms

        with suppress(OSError, Refused):
            os.write(1, f"[{self.job['job_id']} did not start: {visible(why)}]\r\n".encode())
            if not os.path.lexists(self.path("job.json")):  # the caller has given up and closes no window
                self.close_window()
        return 126

    def close_window(self) -> None:
        self.recorder.tmux(["kill-pane", "-t", self.recorder.pane], bound_s=TMUX_END_S)
