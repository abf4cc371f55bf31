"""The process that checks whether a job is ready, a fork of its runner; see `attempts.py`. Stdlib only.

It reads the log's new lines, finds which process of the job listens on a port, requests a URL, or runs a command.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import time

from tmuxjobs import files
from tmuxjobs.contract import FORMAT
from tmuxjobs.pane import turns
from tmuxjobs.pane.command import enter
from tmuxjobs.pane.recorder_link import RecorderLink, Refused
from tmuxjobs.system import processes

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

TMUX_S = 5.0
FIRST_S, GROWTH = 0.05, 1.5
MOST_S = {"pattern": 0.5, "port": 0.5, "url": 2.0, "command": 5.0}
"""The longest pause (s) between checks of a job that is not ready: the pause grows up to it."""
KEEP_S = {"port": 2.0, "url": 30.0, "command": 15.0}
"""Seconds between checks of a job that is ready: a server logs each request. A match in the log stays valid."""
LATE_S = 5.0
"""Seconds between checks of a job that was not ready in time."""
MISSES = 2
"""How many checks in a row must fail before a job is no longer ready."""
COMMAND_S = 10.0
PATTERN_S = 5.0
"""Of a pattern, for the lines of one look."""
READ_BYTES = 1 << 20
LINE_BYTES = 1 << 16
STANDS_S = 0.5
"""Seconds after which an unfinished line counts as a line."""
ESCAPES = re.compile(
    r"\x1b[\]PX^_].*?(?:\x07|\x1b\\)|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[ -/]*[0-~]|[\x00-\x07\x0b\x0c\x0e-\x1a\x7f]"
)


class Watcher:
    """The process that checks: stdin has the runner's orders, stdout reports a pattern that took too long."""

    def __init__(
        self, folder: str, job: dict[str, Any], env: dict[bytes, bytes], link: RecorderLink, runner: int
    ) -> None:
        self.folder = folder
        self.job = job
        self.env = env
        self.link = link
        self.runner = runner
        self.kind, _, self.what = job["ready_when"].partition(" ")
        self.bound_s = job.get("ready_timeout_s") or 0.0
        self.deadline: float | None = None
        self.attempt = 1
        self.watches = self.ready = self.was_ready = self.failed = False
        self.pause_s = FIRST_S
        self.misses = 0
        self.logs: list[Lines] = []
        self.orders = b""
        self.said: tuple[bool, bool, str] | None = None

    def run(self) -> None:
        """Check until the runner ends."""
        while self.take_orders(self.patience()):
            if self.watches:
                self.look()

    def patience(self) -> float | None:
        if not self.watches or (self.ready and self.kind == "pattern"):
            return None
        if self.ready:
            return KEEP_S[self.kind] if not self.misses else FIRST_S
        if self.deadline is None:
            return self.pause_s
        return max(0.0, min(self.pause_s, self.deadline - time.monotonic()))

    def take_orders(self, bound_s: float | None) -> bool:
        """Wait up to `bound_s` seconds for orders and follow them; False once the runner has ended."""
        poll = select.poll()
        poll.register(0, select.POLLIN)
        if not poll.poll(None if bound_s is None else bound_s * 1000):
            return True
        data = os.read(0, 65536)
        *whole, self.orders = (self.orders + data).split(b"\n")
        for line in whole:
            self.follow(json.loads(line))
        return bool(data)

    def follow(self, order: dict[str, Any]) -> None:
        self.watches = "attempt" in order
        if self.watches:
            self.attempt = order["attempt"]
            names = ("output.log", "stderr.log") if self.job["separate_stderr"] else ("output.log",)
            self.logs = [Lines(os.path.join(self.folder, name), order[name]) for name in names]
            self.pause_s, self.misses = FIRST_S, 0
            if self.attempt == 1:
                self.deadline = time.monotonic() + self.bound_s
                self.tell("not ready yet")
        elif "rest" in order:
            self.ready = False
            self.tell(order["rest"])

    def look(self) -> None:
        why = self.why_not()
        if why is None:
            return
        if not why:
            self.misses = 0
            self.failed = False
            self.ready = self.was_ready = True
            self.deadline = None
            self.tell(f"{self.kind} {self.what}")
        elif self.ready:
            self.misses += 1
            if self.misses >= MISSES:
                self.ready, self.pause_s = False, FIRST_S
                self.tell(f"not ready any more: {why}")
        else:
            self.pause_s = min(MOST_S[self.kind], self.pause_s * GROWTH)
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self.deadline, self.failed = None, True
                self.tell(f"not ready within {self.bound_s:g} s: {why}")
            if self.failed:
                self.pause_s = LATE_S

    def tell(self, why: str) -> None:
        said = (self.ready, self.failed, why)
        if said == self.said:
            return
        try:
            write(self.folder, ready=self.ready, failed=self.failed, why=why, attempt=self.attempt)
        except OSError:  # a full disk: it is written at the next check
            return
        is_news = self.said is None or said[:2] != self.said[:2]
        self.said = said
        words = " ready" if self.ready else " not ready" if self.failed or self.was_ready else ""
        with contextlib.suppress(Refused, OSError):  # the window was closed
            self.link.tmux(["set-option", "-w", "-t", self.link.pane, "@tmuxjobs_ready", words], bound_s=TMUX_S)
        if is_news and (self.ready or self.failed):
            with contextlib.suppress(OSError, files.Odd):  # the next process of ours to check the queue does it
                turns.move(os.path.dirname(os.path.dirname(self.folder)))  # those that come after this job

    def why_not(self) -> str | None:
        """Why the job is not ready; empty when it is, None when an order came first."""
        if self.kind == "port":
            port = int(self.what)
            return "" if any(listeners(self.runner, port).values()) else f"it does not listen on port {port}"
        if self.kind == "url":
            return why_no_answer(self.runner, self.what)
        return self.why_no_match() if self.kind == "pattern" else self.why_refused()

    def why_no_match(self) -> str:
        lines = [line for log in self.logs for line in log.more()]
        if lines:
            self.pause_s = FIRST_S
            import faulthandler  # its timer runs on while `re` holds the interpreter

            faulthandler.dump_traceback_later(PATTERN_S, exit=True, file=1)
            found = any(re.search(self.what, line) for line in lines)
            faulthandler.cancel_dump_traceback_later()
            if found:
                return ""
        return "nothing that it printed matches"

    def why_refused(self) -> str | None:
        """Run the command in the job's folder and environment, for up to COMMAND_S or until an order comes."""
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                for fd in (0, 1):
                    os.dup2(2, fd)
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
                    signal.signal(number, signal.SIG_DFL)
                enter(self.job)
                os.umask(self.job["umask"])
                shell, options = self.job["shell"], self.job.get("shell_options") or ()
                os.execve(shell, [os.path.basename(shell), *options, "-c", self.what], self.env)
            finally:
                os._exit(127)
        deadline = time.monotonic() + COMMAND_S
        pause_s, status = 0.002, None
        poll = select.poll()
        poll.register(0, select.POLLIN)
        while status is None:
            ended, wait_status = os.waitpid(pid, os.WNOHANG)
            if ended:
                status = wait_status
            elif time.monotonic() > deadline or poll.poll(pause_s * 1000):
                break
            pause_s = min(0.1, pause_s * GROWTH)
        with contextlib.suppress(OSError):  # all that it started has ended
            os.killpg(pid, signal.SIGKILL)
        if status is None:
            os.waitpid(pid, 0)
            return None if time.monotonic() <= deadline else f"the command took more than {COMMAND_S:.0f} s"
        return "" if status == 0 else f"the command ended with {processes.ending_of(status)}"


class Lines:
    """The settled lines of a log from an offset on, without escapes and as they were last drawn."""

    def __init__(self, path: str, at: int) -> None:
        self.path = path
        self.at = at
        self.rest = b""
        self.since = 0.0

    def more(self) -> list[str]:
        data = b""
        with contextlib.suppress(OSError, files.Odd):
            raw = os.path.splitext(self.path)[0] + ".raw"  # as in `log.py`
            fd = files.opened(raw if os.path.lexists(raw) else self.path)
            try:
                data = os.pread(fd, READ_BYTES, self.at)
            finally:
                os.close(fd)
        self.at += len(data)
        if data:
            self.since = time.monotonic()
            *whole, self.rest = (self.rest + data).split(b"\n")
            self.rest = self.rest[-LINE_BYTES:]
            return [plain(line[-LINE_BYTES:]) for line in whole]
        if self.rest and self.since and time.monotonic() - self.since >= STANDS_S:
            self.since = 0.0
            return [plain(self.rest)]
        return []


def plain(line: bytes) -> str:
    text = ESCAPES.sub("", line.decode(errors="replace")).rstrip("\r").rpartition("\r")[2]
    while "\b" in text:
        text, before = re.sub(r"[^\b]\b", "", text), text
        text = text if text != before else text.replace("\b", "")
    return text


LISTEN = b"0A"
REQUEST_S = 5.0
ADDRESSES_MAX = 4
ANYONE = ("0.0.0.0", "::")
"""The second includes IPv4."""


def listeners(runner: int, port: int) -> dict[str, bool]:
    """{address: whether a descendant of the runner listens there} of all addresses with a listener on the port."""
    return _of_kernel(runner, port) if processes.LINUX else _of_lsof(runner, port)


def _of_kernel(runner: int, port: int) -> dict[str, bool]:
    """From proc_net_tcp(5), which is cheap; each process of the tree is read only if something listens."""
    found: dict[str, list[str]] = {}
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(f"/proc/{runner}/net/{name}", "rb") as file:
            for line in file.read().splitlines()[1:]:
                fields = line.split()
                address, _, number = fields[1].rpartition(b":")
                if fields[3] == LISTEN and int(number, 16) == port:
                    found.setdefault(_address(address), []).append(f"socket:[{fields[9].decode()}]")
    if not found:
        return {}
    held = {name for pid in _below(runner) for name in _open(pid)}
    return {address: not held.isdisjoint(names) for address, names in found.items()}


def _address(text: bytes) -> str:
    """The address as text; the kernel writes words of four bytes in the machine's byte order."""
    import socket  # takes 3 ms

    data = bytes.fromhex(text.decode())
    words = b"".join(data[at : at + 4][::-1] for at in range(0, len(data), 4))
    name = socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, words)
    return name[7:] if name.startswith("::ffff:") else name


def _of_lsof(runner: int, port: int) -> dict[str, bool]:
    tree, pid = set(_below(runner)), 0
    found: dict[str, bool] = {}
    for line in processes.output_of(["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpn"]).splitlines():
        if line.startswith("p"):
            pid = int(line[1:])
        elif line.startswith("n"):
            address = line[1:].rpartition(":")[0].strip("[]")
            address = "::" if address == "*" else address
            found[address] = found.get(address, False) or pid in tree
    return found


def _below(runner: int) -> list[int]:
    table = processes.all_processes()
    found: list[int] = []
    grown = {runner}
    while grown:
        grown = {pid for pid, facts in table.items() if facts.ppid in grown}
        found += grown
    return found


def _open(pid: int) -> list[str]:
    names = []
    with contextlib.suppress(OSError):  # it ended, or is another user's
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # closed since
                names.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return names


def why_no_answer(runner: int, url: str) -> str:
    """Empty when a descendant of the runner answers at the URL with a status below 500, else why not.

    Redirects are not followed. At an address of another machine any answer counts: its process cannot be known.
    """
    import socket
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    why = f"nothing answers at {url}"
    try:
        known = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return f"the host of {url} is not known"
    there = listeners(runner, port)
    for address in list(dict.fromkeys(str(one[4][0]) for one in known))[:ADDRESSES_MAX]:
        names = (address, "::" if ":" in address else ANYONE[0], "::")
        is_ours = next((there[name] for name in names if name in there), None)
        if is_ours is None and _is_here(address):
            continue
        if is_ours is False:
            why = f"another process answers at {url}"
            continue
        code = _status(
            parts.scheme, parts.hostname or "", address, port, f"{parts.path or '/'}?{parts.query}".rstrip("?")
        )
        if code is not None and code < 500:
            return ""
        why = why if code is None else f"{url} answers {code}"
    return why


def _is_here(address: str) -> bool:
    """Whether the address is this machine's: only such an address can be bound."""
    import socket

    with contextlib.suppress(OSError):
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as one:
            one.bind((address, 0))
        return True
    return False


def _status(scheme: str, host: str, address: str, port: int, path: str) -> int | None:
    import http.client
    import socket

    connection = http.client.HTTPConnection(host, port, timeout=REQUEST_S)
    try:
        connection.sock = socket.create_connection((address, port), timeout=REQUEST_S)
        if scheme == "https":
            import ssl

            # A local server signs its own certificate, and the answer itself is not used.
            context = ssl._create_unverified_context()
            connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def write(folder: str, *, ready: bool, failed: bool, why: str, attempt: int) -> None:
    facts = {"ready": ready, "failed": failed, "why": why, "attempt": attempt}
    facts.update(format=FORMAT, at=files.now(), monotonic=time.monotonic())
    files.write_json(os.path.join(folder, "ready.json"), facts)
