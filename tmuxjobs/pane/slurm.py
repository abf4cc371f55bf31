"""The runner of a job in Slurm: its command is `srun --pty`, whose own messages go to a pipe and not into the log.

srun passes keys on only once it has set its terminal raw; before that, Ctrl-C withdraws the request. SIGTERM does that
too, or ends srun's step at once; `scancel --signal` reaches the programs themselves. Its exit code does not prove how
the job ended: after `scancel`, a time limit or the failure of a node it may be 0. What Slurm itself reports counts.

Slurm writes the log of a job that `sbatch` runs, and the job survives any process here. Its runner hands it to Slurm,
shows what it prints, passes on signals and records how it ended. If the runner is gone, `hosts/local.py` asks Slurm, or
reads the exit code that the job's own script has left.
"""

from __future__ import annotations

import os
import shlex
import time

from tmuxjobs.files import now, write_json
from tmuxjobs.lean import signal, suppress
from tmuxjobs.pane.command import Command
from tmuxjobs.pane.recorder_link import RecorderLink, Refused, readable
from tmuxjobs.pane.runner import Runner
from tmuxjobs.pane.runner_log import RunnerLog
from tmuxjobs.system import processes, slurm

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ACCEPT_S = 10.0
QUEUED_CHECK_S, QUEUED_CHECK_MOST_S = 1.0, 30.0
"""Seconds between checks of a queued job, at first and at most: srun reports when it gets its resources."""
FORCE_S = 2.0
SETTLE_S = 10.0
"""Seconds for Slurm to end all of a job whose srun has ended. KillWait is 30 s by default: the note says so then."""
RELEASE_S = 1.0
SAID_BYTES = 1 << 14
BROKEN = (b"abort", b"cancel", b"Cancel", b"CANCEL", b"ailure", b"orce")
"""Words in srun's messages that mean its exit code is not the command's."""


class SlurmCommand(Command):
    """srun, and the job that Slurm runs for it; `allocation` is how that stood at the last check."""

    def __init__(self, job: dict[str, Any], tty: str, path: str, *, forked: Callable[[], None] = lambda: None) -> None:
        super().__init__(job, tty)
        self.path = path
        self.forked = forked
        self.srun: str = job["slurm"][0]
        self.name: str = job["job_id"]
        self.environ: dict[bytes, bytes] = {}
        self.fd, self.input = os.pipe()
        self.said = b""
        self.allocation: slurm.Allocation | None = None
        self.doubt = ""
        self.written: dict[str, str] = {}
        self.look_at, self.look_s = 0.0, QUEUED_CHECK_S
        self.forced_at = 0.0

    @property
    def begun(self) -> bool:
        """Whether Slurm has let it run."""
        return self.allocation is not None and self.allocation.node != "" and not self.allocation.queued

    def launch(self, env: dict[bytes, bytes], recorder: RecorderLink) -> None:
        """Start srun and wait until Slurm has taken the job; raises Refused also when Slurm does not take it."""
        self.environ = env
        super().launch(env, recorder)
        self.forked()
        os.close(self.input)
        deadline, pause_s = time.monotonic() + ACCEPT_S, 0.05
        while time.monotonic() < deadline:
            if self.fd < 0:
                time.sleep(pause_s)
            elif readable(self.fd, time.monotonic() + pause_s):
                self.hear()
            ended = self.fd < 0
            self.refresh()
            # Slurm takes a job that can never run, and ends it at once.
            if (self.allocation is not None and (self.allocation.open or self.allocation.node)) or (
                ended and self.doubt
            ):
                return
            if ended:
                raise Refused(f"Slurm refused it: {slurm.last_line(self.said) or 'it did not say why'}")
            pause_s = min(2 * pause_s, 1.0)

    def become_command(self, env: dict[bytes, bytes]) -> None:
        os.dup2(self.input, 2)
        super().become_command(slurm.outside(env))

    def program(self) -> tuple[str, list[str]]:
        shell, argv = super().program()
        return self.srun, [*self.job["slurm"], f"--job-name={self.name}", "--pty", shell, *argv[1:]]

    def hear(self) -> None:
        """Read what srun says; Slurm is asked again at once, as it may be about the job's resources."""
        more = os.read(self.fd, SAID_BYTES)
        if not more:
            os.close(self.fd)
            self.fd = -1
        self.said = (self.said + more)[-SAID_BYTES:]
        self.look_at = 0.0

    def refresh(self) -> None:
        """Ask Slurm, and write what it says to a file for other processes."""
        try:
            self.allocation = slurm.find(self.srun, self.name, self.environ) or self.allocation
            self.doubt = ""
        except slurm.Silent as silent:
            self.doubt = self.doubt or f"Slurm has not answered since {now()}: {silent}"
        allocation = self.allocation
        if allocation is not None:
            facts = {
                "number": allocation.number,
                "state": allocation.state,
                "node": allocation.node,
                "reason": allocation.reason,
            }
            if self.written != {**facts, "doubt": self.doubt}:
                self.written = {**facts, "doubt": self.doubt}
                with suppress(OSError):  # a full disk: `status` knows less of it
                    write_json(self.path, self.written)
        self.look_at = time.monotonic() + self.look_s
        self.look_s = min(2 * self.look_s, QUEUED_CHECK_MOST_S)

    def signal_all(self, number: int) -> None:
        """Let Slurm signal what the job runs; srun withdraws a queued job, or one that does not obey."""
        if number == signal.SIGKILL and self.forced_at and time.monotonic() > self.forced_at + FORCE_S:
            super().signal_all(signal.SIGKILL)
        elif number == signal.SIGKILL or not self.begun:
            if not self.forced_at and number != signal.SIGCONT:
                self.forced_at = time.monotonic()
                super().signal_all(signal.SIGTERM)
        elif self.allocation is not None and self.status is None:
            try:
                slurm.send(self.srun, self.allocation.number, number, self.environ)
            except slurm.Silent:
                super().signal_all(number)

    def pause(self, *, on: bool) -> None:
        self.signal_all(signal.SIGSTOP if on else signal.SIGCONT)

    def settled(self) -> slurm.Allocation | None:
        """The state of the job once Slurm has ended it, or after SETTLE_S; a job that is left over is cancelled."""
        began, pause_s = time.monotonic(), 0.05
        cancelled = False
        while True:
            self.refresh()
            past_s = time.monotonic() - began
            known = self.allocation is None or not self.allocation.open
            if (known and not self.doubt) or past_s > SETTLE_S:
                return self.allocation
            left = self.allocation is not None and self.allocation.open and self.allocation.state != "COMPLETING"
            if left and not cancelled and past_s > RELEASE_S:
                with suppress(slurm.Silent):
                    slurm.cancel(self.srun, self.name, self.environ)
                    cancelled = True
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 1.0)


class SlurmRunner(Runner):
    """A runner whose timeout counts from when Slurm lets the job run."""

    def __init__(self, folder: str, tty: str) -> None:
        super().__init__(folder, tty)
        self.counts = False

    def make_command(self) -> Command:
        self.slurm = SlurmCommand(self.job, self.tty, self.path("slurm.json"), forked=self.note_pid)
        return self.slurm

    def note_pid(self) -> None:
        self.run["srun_pid"] = self.slurm.pid
        with suppress(OSError):  # a full disk: it is known a moment later
            write_json(self.path("run.json"), self.run)

    def start(self) -> None:
        super().start()
        self.deadline = None
        if not self.slurm.begun:
            self.mark("queued")
        self.begin_to_count()

    def mark(self, state: str) -> None:
        """Show the job's state in the list of windows."""
        with suppress(Refused, OSError):  # the window was closed
            self.recorder.tmux(["set-option", "-w", "-t", self.recorder.pane, "@tmuxjobs_state", state])

    def begin_to_count(self) -> None:
        if self.counts or not self.slurm.begun:
            return
        self.counts = True
        self.mark("running")
        self.run.update(started_at=now(), started_monotonic=time.monotonic())
        with suppress(OSError):  # a full disk: the exit record has its room
            write_json(self.path("run.json"), self.run)
        if self.job["timeout_s"] is not None:
            self.deadline = time.monotonic() + self.job["timeout_s"]

    def watched(self) -> list[int]:
        return [*super().watched(), *([self.slurm.fd] if self.slurm.fd >= 0 else [])]

    def patience(self) -> float:
        if self.slurm.begun or self.command.stop:
            return super().patience()
        return min(super().patience(), max(0.0, self.slurm.look_at - time.monotonic()))

    def step(self) -> None:
        super().step()
        if self.slurm.fd >= 0 and readable(self.slurm.fd, time.monotonic()):
            self.slurm.hear()
        if not self.slurm.begun and not self.command.stop and time.monotonic() >= self.slurm.look_at:
            self.slurm.refresh()
            self.begin_to_count()

    def exit_record(
        self, log: dict[str, Any], survivors: dict[int, processes.Process], left: dict[int, processes.Process]
    ) -> dict[str, Any]:
        record = super().exit_record(log, survivors, left)
        allocation = self.slurm.settled()
        # What was measured is srun's own.
        record.update(cpu_user_s=0.0, cpu_system_s=0.0, max_rss_bytes=0)
        if allocation is None or self.slurm.doubt:
            record["note"] = self.slurm.doubt or "Slurm does not know how it ended"
            if not self.command.stop and record["exit_code"] == 0 and any(word in self.slurm.said for word in BROKEN):
                record.update(reason="unknown", exit_code=None)
            return record
        if allocation.state == "CANCELLED" and self.command.stop is None:
            kept = slurm.kept(self.slurm.srun, allocation.number, self.slurm.environ)
            allocation.by = kept.by if kept is not None else ""
        slurm.tell_end(record, allocation, asked=self.command.stop is not None)
        if self.command.stop is None and allocation.state not in slurm.BY_SLURM and not allocation.node:
            record["note"] = f"Slurm did not run it: {slurm.last_line(self.slurm.said) or allocation.reason}"
        return record


SCRIPT = """#!/bin/sh
umask {umask:04o}
: > {end}.new
cd {cwd} 2>> {log} || exit
trap : HUP INT QUIT TERM USR1 USR2
(exec {command}) >> {log} 2>&1
code=$?
echo $code > {end}.new && mv {end}.new {end}
exit $code
"""
"""The log has no messages of Slurm or of this shell: dash prints "Terminated" to the stderr of a simple command, so
the command is in parentheses. The traps are for the shell only: what it runs has the signals as they were."""
BATCH_CHECK_S = 1.0
"""Seconds between checks of the log and the end, which another machine writes: the kernel does not report that."""
AGAIN_S = 0.3
"""Seconds between queries to Slurm while the job ends."""
COPY_BYTES = 1 << 16
SERVER_S = 0.5
"""Seconds within which a tmux server that closes all windows has ended."""


class NoRecorder(RecorderLink):
    """A link without a recorder, because Slurm writes the log: only the calls of tmux remain."""

    def listen(self) -> None:
        self.fd, self.silent = os.pipe()
        self.look_at = float("inf")

    def start_first(self) -> None:
        self.ready = True
        self.tmux(*self.marks("running"))

    def carry_on(self, tty: str) -> None:
        pass


class BatchLog(RunnerLog):
    def end(self) -> dict[str, Any]:
        facts = {"stderr_bytes": None, "dropped_bytes": 0, "recorder_restarts": 0}
        return {"complete": True, "why": None, "bytes": self.size(), **facts}


class BatchCommand(SlurmCommand):
    """The job in Slurm; none of its processes is ours."""

    def __init__(self, job: dict[str, Any], tty: str, path: str) -> None:
        super().__init__(job, tty, path)
        os.close(self.fd)
        os.close(self.input)
        self.fd = -1
        self.folder = os.path.dirname(path)
        self.shown = 0
        self.again_at = 0.0

    def launch(self, env: dict[bytes, bytes], recorder: RecorderLink) -> None:
        self.environ = slurm.outside(env)
        log, script = (os.path.join(self.folder, name) for name in ("output.log", "batch.sh"))
        shell, argv = Command.program(self)
        line = shlex.join([shell, *argv[1:]])
        paths = {"log": log, "cwd": self.job["cwd"], "end": os.path.join(self.folder, "code")}
        quoted = {name: shlex.quote(path) for name, path in paths.items()}
        text = SCRIPT.format(umask=self.job["umask"], command=line, **quoted)
        for path, content in ((log, ""), (script, text)):
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w") as file:
                file.write(content)
        try:
            options = [*self.job["slurm"][1:], f"--chdir={self.job['cwd']}"]
            slurm.submit(self.srun, self.name, script, options, self.environ)
        except slurm.Silent as silent:
            raise Refused(f"Slurm refused it: {silent}") from None
        finally:
            os.unlink(script)
        self.pid = os.getpid()
        self.refresh()

    def refresh(self) -> None:
        super().refresh()
        self.again_at = time.monotonic() + AGAIN_S
        allocation = self.allocation
        if allocation is not None and not allocation.open and not self.doubt and self.status is None:
            self.status, self.ended_at, self.ended_monotonic = allocation.status, now(), time.monotonic()

    def has_changed(self) -> bool:
        """Whether its script has begun, or ended, since Slurm was asked."""
        names = ("code",) if self.begun else ("code", "code.new")
        return any(os.path.exists(os.path.join(self.folder, name)) for name in names)

    def show(self) -> None:
        """Write what is new in the log into the window."""
        with suppress(OSError):  # the window was closed, or takes no more now
            log = os.open(os.path.join(self.folder, "output.log"), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fd = os.open(self.tty, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
                try:
                    while data := os.pread(log, COPY_BYTES, self.shown):
                        self.shown += os.write(fd, data)
                finally:
                    os.close(fd)
            finally:
                os.close(log)

    def signal_all(self, number: int) -> None:
        """Signal the job through Slurm; a queued job, or one that does not obey, is cancelled there."""
        if not self.begun:
            self.refresh()
        if number != signal.SIGKILL and self.begun:
            if self.status is None and self.allocation is not None:
                with suppress(slurm.Silent):
                    slurm.send(self.srun, self.allocation.number, number, self.environ, batch=True)
        elif number != signal.SIGCONT and not self.forced_at:
            with suppress(slurm.Silent):
                slurm.cancel(self.srun, self.name, self.environ)
                self.forced_at = time.monotonic()

    def members(self) -> dict[int, processes.Process]:
        return {}


class BatchRunner(SlurmRunner):
    """A runner whose job survives the end of tmux; if a person closes its window, it ends like any other."""

    left = False

    def __init__(self, folder: str, tty: str) -> None:
        super().__init__(folder, tty)
        self.recorder = self.log.recorder = NoRecorder(folder, self.job)

    def make_command(self) -> Command:
        self.slurm = self.batch = BatchCommand(self.job, self.tty, self.path("slurm.json"))
        return self.batch

    def make_log(self) -> RunnerLog:
        return BatchLog(self.folder, self.command, self.recorder, self.run, self.asked_to_end)

    def end(self, reason: str, number: int, grace_s: float) -> None:
        if reason == "hangup":
            deadline = time.monotonic() + SERVER_S
            while time.monotonic() < deadline and not self.left:
                self.left = not self.recorder.server_lives()
                time.sleep(0.02)
        if not self.left:
            super().end(reason, number, grace_s)

    def over(self) -> bool:
        return self.left or super().over()

    def finish(self) -> int:
        if self.left:
            return 1
        self.batch.show()
        return super().finish()

    def patience(self) -> float:
        return min(super().patience(), BATCH_CHECK_S)

    def step(self) -> None:
        super().step()
        self.batch.show()
        soon = self.command.stop is not None or self.batch.has_changed()
        if self.batch.status is None and time.monotonic() >= (self.batch.again_at if soon else self.batch.look_at):
            self.batch.refresh()
            self.begin_to_count()

    def exit_record(self, *facts: Any) -> dict[str, Any]:
        record = super().exit_record(*facts)
        record["log"]["bytes"] = self.log.size()
        return record
