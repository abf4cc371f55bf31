"""A job's log as its runner sees it: attaches and replaces the recorder, and waits for the end of the output."""

from __future__ import annotations

import os
import termios
import time

from tmuxjobs.files import now, write_json
from tmuxjobs.lean import suppress
from tmuxjobs.pane.gaps import CHANGED
from tmuxjobs.pane.recorder_link import RECORDER_CHECK_S, RecorderGone, RecorderLink, Refused, readable
from tmuxjobs.system import processes

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tmuxjobs.pane.command import Command

MARK_S = 60.0
HELD_S, LOOK_S = 1.0, 0.05
RECORDER_RESTARTS = 20


class RunnerLog:
    """The log of one job; `run` is the runner's record, `asked_to_end` tells whether a signal to end has just come."""

    def __init__(
        self,
        folder: str,
        command: Command,
        recorder: RecorderLink,
        run: dict[str, Any],
        asked_to_end: Callable[[], bool],
    ) -> None:
        self.folder = folder
        self.command = command
        self.recorder = recorder
        self.run = run
        self.asked_to_end = asked_to_end
        self.closer = ""
        self.give_up_at = 0.0
        self.notes: list[str] = []
        self.doubts: list[str] = []
        self.last_report: dict[str, Any] | None = None

    def recorder_gone(self, report: dict[str, Any], *, closed: bool) -> None:
        """The recorder died while the job runs: attach another and say that bytes may be missing."""
        at = self.size()
        if closed or not self.recorder.server_lives():
            self.end_here(report)
            return
        self.notes.append(f"the recorder ended ({report['why']}) at byte {at}, at {now()}")
        try:
            self.attach_another()
            self.notes[-1] += "; another took over, output in between may be missing"
            self.run["recording"] = True
        except (Refused, OSError) as error:
            self.notes[-1] += f"; nothing was recorded after that: {error}"
            self.run["recording"] = False
            self.watch_no_recorder()
        with suppress(OSError):  # a full disk: the exit record has its room
            write_json(os.path.join(self.folder, "run.json"), self.run)

    def end_here(self, report: dict[str, Any]) -> None:
        """Keep this report of the recorder as the last one: the window is gone as well."""
        self.last_report = report
        self.watch_no_recorder()

    def attach_another(self) -> None:
        """Attach a recorder, and another if that dies, RECORDER_RESTARTS in all; raises Refused and OSError."""
        while True:
            self.recorder.restarts += 1
            self.run["recorder_restarts"] = self.recorder.restarts
            if self.recorder.restarts > RECORDER_RESTARTS:
                raise Refused(f"it had been replaced {RECORDER_RESTARTS} times")
            with suppress(RecorderGone):
                return self.recorder.attach()

    def watch_no_recorder(self) -> None:
        """Poll a pipe that stays silent in place of the FIFO, on which every poll would report a hang-up."""
        os.close(self.recorder.fd)
        self.recorder.fd, self.silent = os.pipe()
        self.recorder.pid = 0

    def size(self) -> int:
        for name in ("output.raw", "output.log"):  # as in `log.py`: offsets are those of the first that exists
            with suppress(OSError):
                return os.path.getsize(os.path.join(self.folder, name))
        return 0

    # Its end

    def end_stderr(self) -> None:
        """Wait until the terminal has all of a separate stderr; note what is missing."""
        if self.command.stderr is None:
            return
        self.give_up_at = time.monotonic() + MARK_S
        self.let_flow()
        held_s = 0.0  # by the looks: in a time in which we stood still, the thread that copies did too
        has_ended = readable(self.command.stderr.ended, time.monotonic())
        while not has_ended and self.waits_for_tmux() and held_s < HELD_S:
            has_ended = readable(self.command.stderr.ended, time.monotonic() + LOOK_S)
            held_s = 0.0 if self.command.stderr.unshown() else held_s + LOOK_S
        if missing := self.command.stderr.unshown():
            self.notes.append(f"{missing} bytes of stderr.log are missing: the terminal did not take them")
        elif not has_ended:
            self.notes.append("a process outside the job still has its stderr open; what it writes is not recorded")
        if self.command.stderr.torn_at is not None:
            at = self.command.stderr.torn_at
            self.doubts.append(f"its runner was stopped, and from byte {at} of stderr on stdout may be mixed into it")

    def let_flow(self) -> None:
        """Undo a person's Ctrl-S, after which nothing comes out of the terminal."""
        with suppress(OSError, termios.error):  # a closed window
            fd = os.open(self.command.tty, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
            termios.tcflow(fd, termios.TCOON)
            os.close(fd)

    def end(self) -> dict[str, Any]:
        """Send the end mark after the last output, wait until the recorder has it, return what is known of the log."""
        report = self.last_report
        if report is None and self.run.get("recording", True):
            self.give_up_at = time.monotonic() + MARK_S
            report = self.report_of_mark() if self.send_mark() else self.recorder.report(2.0)
            if report is None and self.run.get("awaits_tmux"):
                self.notes.append("tmux was stopped and did not hand over the end of the output")
            elif report is None:
                self.notes.append(f"tmux did not hand over the end of the output within {MARK_S:.0f} s")
        if report and report["why"] == "eof":
            what = "the tmux server ended" if self.who_closed() == "tmux-ended" else "the window was closed"
            self.notes.append(f"{what}: output that tmux had not handed over is missing")
        elif report and report["why"] != "end":
            self.notes.append("the recorder died at the end: the last output may be missing")
        logs = (report or {}).get("logs", {})
        for name, facts in logs.items():
            why = facts.get("why")
            lost = facts.get("lost", {})
            for reason, size in lost.items():
                said = why if why and reason == CHANGED else reason
                self.notes.append(f"{size} bytes of {name} are gone ({said})")
            if why and CHANGED not in lost:
                self.notes.append(why)
            self.doubts += [facts["doubt"]] if "doubt" in facts else []
        return {
            "complete": False if self.notes else None if self.doubts else True,
            "why": "; ".join(self.notes + self.doubts) or None,
            "bytes": logs.get("output.log", {}).get("bytes", self.size()),
            "stderr_bytes": logs.get("stderr.log", {}).get("bytes"),
            "dropped_bytes": sum(facts["dropped_bytes"] for facts in logs.values()),
            "recorder_restarts": self.recorder.restarts,
        }

    def send_mark(self) -> bool:
        try:
            fd = os.open(self.command.tty, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
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
        """Whether to keep waiting for the end of the log: for MARK_S, not counting the time that tmux is stopped.

        A stopped tmux hands over its output when it continues. Waiting is safe: a caller can still ask the job to stop.
        """
        if self.recorder.look_s > RECORDER_CHECK_S:
            self.recorder.look_at, self.recorder.look_s = 0.0, RECORDER_CHECK_S
        self.recorder.carry_on(self.command.tty)
        if self.command.stop is None and processes.is_stopped(self.recorder.server_pid):
            self.give_up_at = time.monotonic() + MARK_S
            self.tell_awaited()
            return not self.asked_to_end()
        return time.monotonic() < self.give_up_at

    def tell_awaited(self) -> None:
        """Record once that the command has ended but the end of its log has not come."""
        if "awaits_tmux" not in self.run and self.command.status is not None:
            self.run.update(command_ended=processes.ending_of(self.command.status), awaits_tmux=True)
            with suppress(OSError):  # a full disk, or a folder that a person removed
                write_json(os.path.join(self.folder, "run.json"), self.run)

    def who_closed(self) -> str:
        """Whether only the window was closed or all of tmux ended; takes up to 0.5 s, once."""
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
