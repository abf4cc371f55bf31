"""A runner whose command may run again, attempt after attempt in one window and one log, or is watched for being ready.

Stdlib only. `attempts.json` has each attempt's end and its part of the log; `exit.json` comes after the last one.

Whether a job is ready a process of ours beside its runner looks (`watcher.py`), and writes `ready.json`. It is none of
the job's processes, ends with the runner, and may take as long as it likes: a pattern without end or an address without
an answer holds up nothing else. What it looks for is one line: `port 3000`, `url http://...`, `pattern REGEX` or
`command LINE`.
"""

from __future__ import annotations

import os
import termios
import time

from tmuxjobs.contract import FORMAT
from tmuxjobs.files import now, write_json
from tmuxjobs.lean import dumps, signal, suppress
from tmuxjobs.outcome import is_success
from tmuxjobs.pane.announce import PLAIN
from tmuxjobs.pane.command import INTERRUPTS, Stop
from tmuxjobs.pane.recorder_link import QUIET_CHECK_S, RecorderLink, Refused, readable, write_fully
from tmuxjobs.pane.runner import SERVER_CHECK_S, Runner
from tmuxjobs.pane.runner_log import MARK_S
from tmuxjobs.system import processes

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

FIRST_S, MOST_S = 1.0, 60.0
"""Seconds before the second attempt; the pause doubles with each further one, up to MOST_S."""
STEADY_S = 60.0
"""Under a restart policy, an attempt that ran this long (s) resets the count of attempts and the pauses."""
KEPT = 100
"""How many of the newest attempts are listed."""
OURS, STDOUT = 3, 1
TELL_S = 5.0


class Repeating(Runner):
    """One job of one or several attempts. `next_at` (monotonic) is when the next begins, None while one runs."""

    def __init__(self, folder: str, tty: str) -> None:
        super().__init__(folder, tty)
        self.number = 1
        self.in_a_row = 0
        self.began = 0.0
        self.next_at: float | None = None
        self.unsent = b""
        self.error = ""
        self.listed: list[dict[str, Any]] = []
        self.readiness: Readiness | None = None
        self.terminal: list[Any] | None = None

    # An attempt

    def take_environment(self) -> None:
        super().take_environment()
        with suppress(termios.error):  # a closed window
            self.terminal = termios.tcgetattr(0)
        if self.job.get("ready_when") and (not self.job.get("ask_why") or self.run.get("approved")):
            self.readiness = Readiness(self.folder, self.job, self.watch)

    def watch(self, link: RecorderLink, runner: int) -> None:
        """Watch for readiness; runs in a separate process."""
        from tmuxjobs.pane.watcher import Watcher  # what it imports would hold up the start

        Watcher(self.folder, self.job, self.env, link, runner).run()

    def start(self) -> None:
        super().start()
        self.note_begin()

    def note_begin(self) -> None:
        self.began = time.monotonic()
        before = self.listed[-1] if self.listed else {}
        places = {name: before.get(end, 0) for name, end in (("begin", "end"), ("stderr_begin", "stderr_end"))}
        self.listed = [*self.listed[1 - KEPT :], {"attempt": self.number, "started_at": now(), **places}]
        if self.number > 1:
            self.write_list()
        if self.readiness is not None:
            self.readiness.begin(self.number, places["begin"], places["stderr_begin"])

    def begin(self) -> None:
        """Run the command again; an attempt that cannot be started has failed."""
        self.next_at, self.error = None, ""
        self.number += 1
        self.command.again()
        self.run.pop("again_at", None)
        try:
            self.command.launch(self.env, self.recorder)
        except (Refused, OSError) as error:
            self.error = str(error) if isinstance(error, Refused) else os.strerror(error.errno or 0)
            self.take_back()
            if not self.command.pid:  # the machine is out of processes
                self.command.status = 127 << 8
                self.command.ended_at, self.command.ended_monotonic = now(), time.monotonic()
        self.run.update(attempt=self.number, command_pid=self.command.pid or self.run["command_pid"])
        with suppress(OSError):  # it has just ended
            self.run["command_start"] = processes.start_of(self.run["command_pid"])
        self.write_run()
        if self.job["timeout_s"] is not None:
            self.deadline = time.monotonic() + self.job["timeout_s"]
        self.note_begin()

    # Its end

    def over(self) -> bool:
        if self.next_at is not None:
            return self.command.stop is not None
        ended = self.command.status is not None
        if ended and self.command.stop is None and self.goes_on() and (self.has_failed() or super().over()):
            # What an attempt leaves running could keep the port that the next one needs.
            super().end("attempt", signal.SIGTERM, self.job["grace_s"])
            self.command.stop = self.command.stop or Stop("attempt", signal.SIGTERM, 0.0)
        if not super().over():
            return False
        if not self.goes_on() or self.command.members():
            return True
        self.rest()
        return False

    def has_failed(self) -> bool:
        status = self.command.status
        timed_out = self.command.stop is not None and self.command.stop.reason == "timeout"
        return timed_out or status is None or not is_success(processes.ending_code(status), self.job)

    def is_steady(self) -> bool:
        ran = (self.command.ended_monotonic or 0.0) - self.began
        return bool(self.job.get("restart_policy")) and ran >= STEADY_S

    def goes_on(self) -> bool:
        """Whether another attempt follows the one whose command has ended; Ctrl-C in its window ends the job."""
        stop, status = self.command.stop, self.command.status
        if self.closed or status is None or (stop and stop.reason not in ("timeout", "attempt")):
            return False
        code = processes.ending_code(status)
        if not stop and (-code in INTERRUPTS or code - 128 in INTERRUPTS):
            return False
        wanted = self.job.get("restart_policy") == "always" or self.has_failed()
        return wanted and (self.is_steady() or self.in_a_row < (self.job.get("retry") or 0))

    def end(self, reason: str, number: int, grace_s: float) -> None:
        self.command.reap()
        if self.next_at is not None or (self.goes_on() and not self.command.members()):
            self.command.stop = Stop(reason, number, 0.0)
            self.command.ended_at, self.command.ended_monotonic = now(), time.monotonic()
            return
        if self.command.stop and self.command.stop.reason in ("timeout", "attempt") and reason != "timeout":
            self.command.stop.reason = reason  # it ends the job, not only this attempt
        super().end(reason, number, grace_s)

    def rest(self) -> None:
        """Note that the attempt and all that it started have ended, say so in the window, and schedule the next."""
        self.in_a_row = 1 if self.is_steady() else self.in_a_row + 1
        pause_s = min(MOST_S, FIRST_S * 2 ** min(self.in_a_row - 1, 10))
        self.note_end()
        how = self.how()
        self.log.end_stderr()
        if self.command.stderr is not None and not self.command.stderr.unshown():
            self.command.stderr.close()
        self.command.stderr = None
        with suppress(OSError, termios.error):  # a closed window
            os.tcsetpgrp(0, os.getpgrp())
            if self.terminal is not None:
                termios.tcsetattr(0, termios.TCSANOW, self.terminal)
        self.log.let_flow()
        self.command.stop = self.deadline = None
        self.next_at = time.monotonic() + pause_s
        self.run.pop("command_ended", None)
        self.run.update(again_at=self.next_at, last_end=how, loop=self.number - self.in_a_row + 1)
        self.write_run()
        self.write_list()
        if self.readiness is not None:
            self.readiness.rest(f"attempt {self.number} ended with {how}")
        from tmuxjobs.visible import visible  # its patterns take 4 ms

        again = f"attempt {self.number + 1} begins in {pause_s:.0f} s"
        line = f"[{self.job['job_id']}: attempt {self.number} ended with {visible(how)}; {again}]"
        self.unsent = self.recorder.mark(OURS) + f"{PLAIN}\r\n\x1b[K{line}\r\n".encode() + self.recorder.mark(STDOUT)

    def how(self) -> str:
        if self.error:
            return f"exit code 127 ({self.error})"
        by = "its timeout" if self.listed[-1].get("reason") == "timeout" else ""
        return by or processes.ending_of(self.command.status or 0)

    def note_end(self) -> None:
        code = processes.ending_code(self.command.status) if self.command.status is not None else None
        by_signal = code is not None and code < 0
        stop = self.command.stop
        reason = stop.reason if stop and stop.reason != "attempt" else "signal" if by_signal else "exit"
        self.listed[-1].update(
            ended_at=self.command.ended_at or now(),
            runtime_s=round((self.command.ended_monotonic or time.monotonic()) - self.began, 3),
            exit_code=None if by_signal else code,
            signal=processes.signal_name(-code) if code is not None and code < 0 else None,
            reason=reason,
        )
        if not self.run.get("recording", True):
            self.note_places({"output.log": self.log.size()})

    def note_places(self, sizes: dict[str, Any]) -> None:
        """Note how long the logs are at the end of the attempt."""
        self.listed[-1].update(end=sizes["output.log"], stderr_end=sizes.get("stderr.log", 0))
        self.write_list()

    def write_list(self) -> None:
        with suppress(OSError):  # a full disk, or a folder that a person removed
            write_json(self.path("attempts.json"), {"format": FORMAT, "attempts": self.listed})

    def write_run(self) -> None:
        with suppress(OSError):  # likewise
            write_json(self.path("run.json"), self.run)

    # While it waits

    def watched(self) -> list[int]:
        heard = [self.readiness.ended] if self.readiness is not None and self.readiness.ended >= 0 else []
        return [*super().watched(), *heard]

    def step(self) -> None:
        super().step()
        if self.readiness is not None:
            self.readiness.look(stopping=self.command.stop is not None and self.command.stop.reason != "attempt")
        if self.next_at is None or self.command.stop:
            return
        if self.unsent:
            self.send()
        elif "end" not in self.listed[-1] and time.monotonic() > self.next_at + MARK_S:
            self.note_places({"output.log": self.log.size()})
        is_due = time.monotonic() >= self.next_at and not self.run.get("paused")
        if is_due and not self.unsent and "end" in self.listed[-1]:
            self.begin()

    def send(self) -> None:
        """Write as much of our line as the terminal takes; if tmux is stopped, nothing can begin anyway."""
        with suppress(OSError):  # the window was closed: its signal is on its way
            fd = os.open(self.tty, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                self.unsent = self.unsent[os.write(fd, self.unsent) :]
            finally:
                os.close(fd)

    def patience(self) -> float:
        if self.next_at is None or self.command.stop:
            return super().patience()
        left = max(0.0, self.next_at - time.monotonic()) if not self.run.get("paused") else QUIET_CHECK_S
        if self.unsent or not left:
            return 0.05
        return min(left, SERVER_CHECK_S) if self.server.is_polled else left

    def recorder_gone(self, report: dict[str, Any]) -> None:
        if report["why"] != "attempt":
            super().recorder_gone(report)
            if self.next_at is not None and "end" not in self.listed[-1]:
                self.unsent = b""
                self.note_places({"output.log": self.log.size()})
        elif self.next_at is not None and "end" not in self.listed[-1]:
            self.note_places(report["bytes"])

    # The end

    def finish(self) -> int:
        if self.readiness is not None:
            self.readiness.close()
        if self.unsent:
            self.send()
        return super().finish()

    def reason(self, signaled: bool) -> str:
        if self.command.stop and self.command.stop.reason == "attempt":  # what it left behind could not be ended
            return "signal" if signaled else "exit"
        return super().reason(signaled)

    def exit_record(self, log: dict[str, Any], *others: Any) -> dict[str, Any]:
        record = super().exit_record(log, *others)
        if self.number > 1 or self.next_at is not None:
            if "reason" not in self.listed[-1]:
                self.note_end()
            sizes = {"output.log": log["bytes"], "stderr.log": log["stderr_bytes"] or 0}
            if "end" not in self.listed[-1]:
                self.note_places(sizes)
            record["attempts"] = self.number
        if self.number > 1 and record["reason"] in ("exit", "signal", "timeout"):
            which = f"the last of {self.number} attempts" if self.has_failed() else f"at attempt {self.number}"
            record["note"] = ", ".join(filter(None, (self.error, record["note"], which)))
        return record


class Readiness:
    """The runner's end of the process that looks; `ended` is readable once that has ended by itself, -1 when known."""

    def __init__(self, folder: str, job: dict[str, Any], watch: Callable[[RecorderLink, int], None]) -> None:
        """`watch` looks, in the process that is made for it, given a link to tmux and the runner's pid."""
        self.folder = folder
        self.attempt = 1
        self.rests = True
        orders, self.orders = os.pipe()
        self.ended, said = os.pipe()
        os.set_blocking(self.orders, False)
        if processes.LINUX:
            processes.become_subreaper(on=False)  # it is not to count as the job's
        pid = os.fork()
        if pid == 0:
            _apart(RecorderLink(folder, job), watch, orders, said)
        os.waitpid(pid, 0)
        if processes.LINUX:
            processes.become_subreaper()
        os.close(orders)
        os.close(said)

    def begin(self, attempt: int, begin: int, stderr_begin: int) -> None:
        """An attempt has begun, whose part of the logs begins there."""
        self.attempt, self.rests = attempt, False
        self.tell({"attempt": attempt, "output.log": begin, "stderr.log": stderr_begin})

    def rest(self, why: str) -> None:
        """No attempt runs."""
        self.rests = True
        self.tell({"rest": why})

    def look(self, *, stopping: bool) -> None:
        """A job that is being ended is not watched any more; what can be said when nobody watches is said here."""
        if stopping and not self.rests:
            self.rests = True
            self.tell({})
        if self.ended < 0 or not readable(self.ended, 0.0):
            return
        slow = os.read(self.ended, 4096)
        os.close(self.ended)
        self.ended = -1
        from tmuxjobs.pane.watcher import PATTERN_S, write  # as in `Repeating.watch`

        why = f"its pattern took more than {PATTERN_S:.0f} s" if slow else "the process that watched it was killed"
        with suppress(OSError):  # a full disk
            write(self.folder, ready=False, failed=True, why=why, attempt=self.attempt)

    def tell(self, order: dict[str, Any]) -> None:
        with suppress(OSError):  # it has ended, which `look` hears
            write_fully(self.orders, dumps(order).encode() + b"\n", time.monotonic() + TELL_S)

    def close(self) -> None:
        """It ends by that."""
        os.close(self.orders)


def _apart(link: RecorderLink, watch: Callable[[RecorderLink, int], None], orders: int, said: int) -> NoReturn:
    """In a fork of the runner: be the process that looks, in a session of its own and without the runner's files."""
    try:
        runner = os.getppid()
        os.setsid()
        if os.fork() == 0:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            null = os.open(os.devnull, os.O_RDWR)
            for fd, to in ((orders, 0), (said, 1), (null, 2)):
                os.dup2(fd, to, inheritable=False)
            os.closerange(3, 1024)
            watch(link, runner)
    finally:
        os._exit(0)
