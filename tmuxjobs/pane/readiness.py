"""Whether a job is ready: a process of ours beside its runner looks, and writes `ready.json`. Stdlib only.

It is none of the job's processes, ends with the runner, and may take as long as it likes: a pattern without end or an
address without an answer holds up nothing else. What it looks for is one line: `port 3000`, `url http://...`,
`pattern REGEX` or `command LINE`.
"""

from __future__ import annotations

import os
import time

from tmuxjobs import files
from tmuxjobs.contract import FORMAT
from tmuxjobs.lean import dumps, signal, suppress
from tmuxjobs.pane.recorder_link import RecorderLink, readable, write_fully
from tmuxjobs.system import processes

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

TELL_S = 5.0
PATTERN_S = 5.0
"""Of a pattern, for the lines of one look."""


class Readiness:
    """The runner's end. `ended` is readable once the process has ended by itself, -1 when that is known."""

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


def write(folder: str, *, ready: bool, failed: bool, why: str, attempt: int) -> None:
    facts = {"ready": ready, "failed": failed, "why": why, "attempt": attempt}
    facts.update(format=FORMAT, at=files.now(), monotonic=time.monotonic())
    files.write_json(os.path.join(folder, "ready.json"), facts)
