"""The window of a job that `sbatch` runs: Slurm writes its log, and it survives any process here.

The runner hands the job to Slurm, shows what it prints, passes on signals and records how it ended. If the runner is
gone, `hosts/local.py` asks Slurm, or reads the exit code that the job's own script has left.
"""

from __future__ import annotations

import os
import shlex
import time

from tmuxjobs.files import now
from tmuxjobs.lean import signal, suppress
from tmuxjobs.pane.command import Command
from tmuxjobs.pane.recorder_link import RecorderLink, Refused
from tmuxjobs.pane.runner_log import RunnerLog
from tmuxjobs.pane.slurm import SlurmCommand, SlurmRunner
from tmuxjobs.system import slurm

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

    from tmuxjobs.system import processes

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
