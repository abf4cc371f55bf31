"""The runner's end of the recorder: starts it with `pipe-pane`, reads its reports, keeps it running. Stdlib only.

One FIFO connects the two: the command starts once the recorder has reported there; end of file means that it died.
A separate stderr reaches the recorder through the terminal too, between marks.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import select
import sys
import termios
import time

from tmuxjobs.contract import FIRST, PANE, command_line, in_pane, mark_of, marks_of, recorder_line
from tmuxjobs.lean import loads, signal, suppress
from tmuxjobs.system.processes import LINUX, ending_code, is_alive, is_ending, is_stopped, send, start_of

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

RECORDER_S = 30.0
TMUX_S = 30.0
# Between two checks of the recorder. A stopped one makes tmux grow by up to 15 MB/s; on macOS a check needs a process.
RECORDER_CHECK_S = 2.0 if LINUX else 20.0
# The same while nothing is printed. The recorder reports when something is, unless it was stopped before.
QUIET_CHECK_S = 30.0
SHELL_S = 1.0
# The first wait for a recorder that starts at the same time as we do.
FIRST_S = 0.5
OTHER_SERVER = "another-server"
STDERR_BYTES = 32768


class Refused(Exception):
    """The command was not started; the text says why."""


class NotApproved(Refused):
    """The job must not run; the text says who refused it, and why."""


class RecorderGone(Refused):
    """The recorder ended before it was ready; another may succeed."""


class RecorderLink:
    """The runner's end of the recorder: the FIFO, its reports, and the tmux call that attaches a new one."""

    def __init__(self, folder: str, job: dict[str, Any]) -> None:
        self.folder = folder
        self.job = job
        self.pane = os.environ["TMUX_PANE"]
        self.socket, server_pid, _ = os.environ["TMUX"].rsplit(",", 2)
        self.server_pid = int(server_pid)
        self.server_start = ""
        with suppress(OSError):  # it has just ended
            self.server_start = start_of(self.server_pid)
        self.path = os.path.join(folder, "recorder")
        self.fd = -1
        self.pid = 0
        self.start = ""
        self.look_s = QUIET_CHECK_S
        self.look_at = time.monotonic() + self.look_s
        self.printed_at = 0.0
        self.text = b""
        self.restarts = 0
        self.ready = False
        self.since = str(int(time.time()))

    def listen(self) -> None:
        """Open the FIFO of the recorder that was requested along with our window, if any, so that it sees us."""
        with suppress(OSError):
            self.fd = os.open(os.path.join(self.folder, FIRST), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def start_first(self) -> None:
        """Wait until that recorder is ready, or attach one if there is none or it has died; raises as `attach` does."""
        with suppress(RecorderGone):
            report = self.report(FIRST_S) if self.fd >= 0 else None
            if self.fd < 0:
                self.attach()
            elif report is not None or self.is_piped():
                self.begin(report or self.first_report())
            else:  # a person's hook kept it from our pane
                raise RecorderGone
            return
        self.attach()

    def attach(self) -> None:
        """Start a recorder and wait until it is ready; raises Refused when it does not start."""
        if self.fd >= 0:
            os.close(self.fd)
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        os.mkfifo(self.path, 0o600)
        self.fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.text = b""
        facts = self.job["nonce"], str(self.job["max_output_bytes"]), "1" if self.job["separate_stderr"] else "0"
        argv = in_pane(sys.executable, PANE, "recorder", *facts, os.path.basename(self.path))
        line = recorder_line(argv, self.job["job_id"], self.path)
        self.tmux(*self.marks("running"), ["pipe-pane", "-t", self.pane, line])
        self.begin(self.first_report())

    def begin(self, report: dict[str, Any] | None) -> None:
        """Continue with the recorder that sent this first report; raises Refused when it is not usable."""
        if report is None:
            raise Refused(f"the recorder of its output did not start within {RECORDER_S:.0f} s")
        if report["why"] == "gone":
            raise RecorderGone("the recorder of its output was killed")
        if report["why"] != "ready":
            raise Refused(f"its output cannot be recorded ({report.get('error', report['why'])})")
        self.ready = True
        self.pid = report["pid"]
        with suppress(OSError):  # it has just ended
            self.start = start_of(self.pid)

    def marks(self, state: str) -> list[list[str]]:
        """The tmux commands that name the window and mark it with its job and the job's state."""
        job_id, root = self.job["job_id"], mark_of(os.path.dirname(os.path.dirname(self.folder)))
        marks = marks_of(self.pane, job_id, root, state=state, at=self.since)
        return [*marks, ["rename-window", "-t", self.pane, job_id]]

    def first_report(self) -> dict[str, Any] | None:
        """The first report, as `report` returns it; None after RECORDER_S.

        Only tmux notices that a shell died before it opened the FIFO, and only once tmux writes to it: so print a mark.
        """
        deadline = time.monotonic() + RECORDER_S
        while time.monotonic() < deadline:
            report = self.report(SHELL_S)
            if report is not None:
                return report
            with suppress(OSError):  # a closed window
                fd = os.open(os.ttyname(0), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
                write_fully(fd, self.mark(1), time.monotonic())
                os.close(fd)
            report = self.report(0.1)
            if report is not None:
                return report
            if not self.is_piped():
                return self.report(0) or {"why": "gone"}
        return None

    def is_piped(self) -> bool:
        return self.tmux(["display-message", "-p", "-t", self.pane, "#{pane_pipe}"]).strip() == b"1"

    def mark(self, kind: int) -> bytes:
        """A mark, which the recorder removes from the output: 0 ends it; 1 begins stdout, 2 stderr, 3 our own text."""
        return b"\x1b]7717;%b;%d\x07" % (self.job["nonce"].encode(), kind)

    def carry_on(self, tty: str) -> None:
        """Continue a recorder that somebody has stopped: tmux keeps whatever it does not read, without a bound."""
        if time.monotonic() >= self.look_at:
            printed_at = self.printed_at
            with suppress(OSError):  # a closed window
                self.printed_at = os.stat(tty).st_mtime  # on Linux exact to 8 s
            self.look_s = RECORDER_CHECK_S if printed_at != self.printed_at else min(2 * self.look_s, QUIET_CHECK_S)
            self.look_at = time.monotonic() + self.look_s
            if self.pid and is_stopped(self.pid):
                self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """Signal the recorder; nothing happens when it has ended."""
        if self.start:
            send(self.pid, self.start, number)

    def tmux(self, *commands: list[str], bound_s: float = TMUX_S) -> bytes:
        """Run tmux commands and return what they print; raises Refused.

        Another server on the same socket is not asked: our pane's id names another pane there. Only that server itself
        can tell, since ours may end at any time.
        """
        if not self.server_lives():
            raise Refused("the tmux server ended")
        ours = f"#{{==:#{{pid}},{self.server_pid}}}"
        argv = [self.job["tmux"], "-S", self.socket, "if-shell", "-F", ours, command_line(commands)]
        argv.append(f"display-message -p {OTHER_SERVER}")
        read, write = os.pipe()
        actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, write, 1)]
        actions += [(os.POSIX_SPAWN_DUP2, write, 2)]
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)
        os.close(write)
        said = b""
        deadline = time.monotonic() + bound_s
        while readable(read, deadline):
            chunk = os.read(read, 4096)
            if not chunk:
                break
            said += chunk
        else:
            os.kill(pid, signal.SIGKILL)
        os.close(read)
        code = ending_code(os.waitpid(pid, 0)[1])
        if code == -signal.SIGKILL:
            raise Refused(f"tmux did not answer within {bound_s:.0f} s")
        if code:
            raise Refused(f"tmux refused ({said.decode(errors='replace').strip() or f'code {code}'})")
        if said.strip() == OTHER_SERVER.encode():
            raise Refused("the tmux server ended")
        return said

    def server_lives(self) -> bool:
        """Whether the tmux server that opened our window is alive, not merely another process with its pid.

        A killed one closes its terminals one by one, which takes a busy machine a second; it counts as ended then.
        """
        if not is_alive(self.server_pid, self.server_start):
            return False
        try:
            return not (LINUX and is_ending(f"/proc/{self.server_pid}"))
        except OSError:  # it has ended meanwhile
            return False

    def report(self, bound_s: float) -> dict[str, Any] | None:
        """The recorder's next report, {"why": "gone"} when it died, None when the bound in seconds has passed."""
        deadline = time.monotonic() + bound_s
        while True:
            while b"\n" not in self.text:
                if not readable(self.fd, deadline):
                    return None
                chunk = os.read(self.fd, 4096)
                if not chunk:
                    return {"why": "gone"}
                self.text += chunk
            line, self.text = self.text.split(b"\n", 1)
            report: dict[str, Any] = loads(line)
            if report.get("server", self.server_pid) != self.server_pid:
                continue  # our window was opened again: the recorder of the first one came late
            if report["why"] != "prints":
                return report
            self.look_s = RECORDER_CHECK_S
            self.look_at = time.monotonic() + RECORDER_CHECK_S


class Stderr:
    """A separate stderr: a pipe that a thread of the runner copies to the window, between two marks.

    A thread, because a separate process could be killed or stopped without the runner's knowledge.
    """

    def __init__(self, recorder: RecorderLink, tty: str) -> None:
        self.marks = recorder.mark(2), recorder.mark(1)
        self.tty = tty
        self.fd, self.input = os.pipe()
        # Hangs up once the pipe has ended and the terminal has all of it.
        self.ended, self._end = os.pipe()
        self.name = f"pipe:[{os.fstat(self.fd).st_ino}]"
        self.taken = self.shown = 0
        self.torn_at: int | None = None

    def start(self) -> None:
        """Start to copy, once the job has been forked; raises RuntimeError when no thread can be started."""
        # A signal would cut its writes short.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            _thread.start_new_thread(self._copy, ())
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _copy(self) -> None:
        tty = -1
        with suppress(OSError):  # a closed window: what comes is still counted
            # Opened by us: a job may make its own descriptor non-blocking, and then a write can be cut short.
            tty = os.open(self.tty, os.O_WRONLY | os.O_NOCTTY)
        while True:
            data = os.read(self.fd, STDERR_BYTES)
            if not data:
                break
            self.taken += len(data)
            with suppress(OSError):  # the window was closed
                self._show(tty, data)
                self.shown += len(data)
        if tty >= 0:
            os.close(tty)
        os.close(self._end)

    def close(self) -> None:
        """Close the descriptors; call this once the copy has ended and has been checked."""
        for fd in (self.fd, self.ended):
            os.close(fd)

    def _show(self, tty: int, data: bytes) -> None:
        # One write: the terminal's lock keeps the marks and what is between them together.
        whole = self.marks[0] + data + self.marks[1]
        done = os.write(tty, whole)
        if done < len(whole):
            # Only SIGSTOP does that, and from here on the job's own output may come in between.
            self.torn_at = self.shown if self.torn_at is None else self.torn_at
            write_fully(tty, whole[done:])

    def unshown(self) -> int:
        """How many bytes were written into the pipe and are not in the terminal."""
        waiting = fcntl.ioctl(self.fd, termios.FIONREAD, bytes(4))
        return self.taken - self.shown + int.from_bytes(waiting, sys.byteorder)


def readable(fd: int, deadline: float) -> bool:
    """Wait until `fd` is readable or hung up; False when the deadline (monotonic s) has passed."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))


def write_fully(fd: int, data: bytes, deadline: float | None = None) -> bool:
    """Write all of it, even to a terminal that the job has made non-blocking; False when `deadline` has passed."""
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            if deadline is not None and time.monotonic() >= deadline:
                return False  # checked here too: macOS cannot poll a terminal, poll(2)
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            if not poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
                return False
        except OSError as error:
            if error.errno != errno.EINTR:
                raise
    return True
