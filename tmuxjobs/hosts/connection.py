"""One connection to another host: the system's own ssh, our agent behind it, questions and answers. Knows no jobs.

`ssh` uses the person's configuration. It must not ask anything: what it would ask is reported as an error instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any

from tmuxjobs.contract import FORMAT
from tmuxjobs.errors import HostError, StateError
from tmuxjobs.far.machine import Stream, frame
from tmuxjobs.store import units

CONNECT_S = 15.0
"""Seconds for ssh to reach a host, after which it gives up by itself."""
ARRIVE_S = 40.0
"""Seconds from the start of ssh until the agent answers, if its unit is there: a busy machine takes its time."""
ANSWER_S = 15.0
"""Seconds for an answer, besides the time that the question itself may take."""
SHIP_S = 60.0
"""Seconds for the agent to answer once the unit was sent."""
ALIVE_S = 5
"""Seconds of silence after which ssh checks that the other side is there; after three checks it gives up."""
BEAT_S = 30.0
PERSIST_S = 600
SAID_BYTES = 4096
NOISE_LINES = 2000
"""How many lines a login script may print before our first line."""
PATHS = "/usr/local/bin:/opt/homebrew/bin:/usr/bin:/bin"
"""Where python3 and tmux may be beside the bare PATH that ssh gives."""
FIRST = """import sys,os
v=sys.version_info
os.write(1,("\\n%s {\\"python\\":[%d,%d]}\\n"%(sys.argv[1],v[0],v[1])).encode())
def r(n):
    d=b""
    while len(d)<n:
        m=os.read(0,n-len(d))
        if not m: sys.exit(0)
        d+=m
    return d
n=b""
while n[-1:]!=b"\\n": n+=r(1)
exec(compile(r(int(n)),"arrive","exec"))
"""
"""What python3 runs first, whatever its version: it reports that, and reads the program that follows."""
MINIMUM = (3, 8)
ASKS = {
    "Host key verification failed": "its host key is not known here, or has changed: run `{ssh}` once in a terminal "
    "and read what it says",
    "Permission denied": "it accepts none of our keys: make `{ssh}` work without a question (ssh-add, ssh-copy-id)",
    "Could not resolve hostname": "there is no host of that name: hosts are named as in ~/.ssh/config",
    "Connection refused": "nothing answers there (connection refused)",
    "Connection timed out": "it did not answer",
    "No route to host": "it cannot be reached (no route to host)",
    "Network is unreachable": "there is no network",
}
"""What ssh says, and what that means to a person."""


Later = Callable[[dict[str, Any], bytes], None]


def unheard(_fields: dict[str, Any], _data: bytes) -> None:
    """Ignore an answer that nobody waits for."""


def program() -> bytes:
    """The text of the program that is sent first."""
    return (units.PACKAGE / "far" / "arrive.py").read_bytes()


class Connection:
    """One connection, open until `lost`, after which callers make a new one; any thread may ask."""

    def __init__(
        self, name: str, ssh: Sequence[str], state: str, *, on_report: Callable[[dict[str, Any], bytes], None]
    ) -> None:
        self.name = name
        self.ssh = list(ssh)
        self.lost = threading.Event()
        self.why = ""
        self.hello: dict[str, Any] = {}
        self.asked_at = 0.0
        """When we last sent something before the hello came, by our wall clock."""
        self._on_report = on_report
        self._answers: dict[int, Future[tuple[dict[str, Any], bytes]]] = {}
        self._later: dict[int, Later] = {}
        self._lock = threading.Lock()
        self._number = 0
        # A file: the process of the kept connection has it open as long as it lives.
        try:
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 - `_release` closes it
        except OSError as error:
            raise HostError(
                f"Host '{name}' cannot be used: no temporary file can be made ({error.strerror})."
            ) from None
        try:
            # Ctrl-C in a terminal is for us, not for ssh.
            self._process = subprocess.Popen(
                self.argv("-T", "sh"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._said.close()
            raise HostError(f"ssh cannot be run ({error.strerror}): install it to use other hosts.") from None
        asked, answered = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answered is not None
        self._in, self._out = asked, answered
        self._stream = Stream(answered.fileno())
        try:
            self._arrive(state)
        except (EOFError, ValueError, OSError, KeyError) as error:
            why = self._reason(error)
            self._release()
            raise HostError(why) from None
        except BaseException:
            self._release()
            raise
        threading.Thread(target=self._listen, name=f"tmuxjobs-{name}", daemon=True).start()
        threading.Thread(target=self._beat, name=f"tmuxjobs-{name}-beat", daemon=True).start()

    def argv(self, *words: str) -> list[str]:
        """The ssh command to that host, over the one kept connection; `words` are its options and what it runs."""
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": f"{CONNECT_S:.0f}",
            "ServerAliveInterval": f"{ALIVE_S}",
            "ServerAliveCountMax": "3",
            **kept(self.ssh, self.name),
        }
        *before, last = words
        return [*self.ssh, *(f"-o{key}={value}" for key, value in options.items()), *before, "--", self.name, last]

    # The beginning

    def _arrive(self, state: str) -> None:
        """Let the other side find our unit, or send it; raises EOFError, TimeoutError, ValueError and OSError."""
        deadline = time.monotonic() + ARRIVE_S
        nonce = f"tmuxjobs-{secrets.token_hex(8)}"
        none = shlex.quote(f'{nonce} {{"python": null}}')
        self._write(
            f"PATH=$PATH:{PATHS}; export PATH; if command -v python3 >/dev/null 2>&1; "
            f"then exec python3 -I -S -u -c {shlex.quote(FIRST)} {nonce}; else echo; echo {none}; fi\n".encode()
        )
        for _ in range(NOISE_LINES):
            line = self._stream.line(deadline)
            if line.startswith(nonce.encode()):
                break
        else:
            raise ValueError("a login script there prints without end")
        version = json.loads(line.split(b" ", 1)[1])["python"]
        if version is None:
            raise HostError(f"Host '{self.name}' has no python3: install Python 3.8 or newer there.")
        if tuple(version) < MINIMUM:
            raise HostError(f"Host '{self.name}' has Python {version[0]}.{version[1]}: jobs need 3.8 or newer there.")
        sources = units.read_sources()
        digest = hashlib.sha256()
        for name, data in sources.items():
            digest.update(f"\0{name}\0{len(data)}\0".encode() + data)
        text = program()
        marker = json.dumps({"tmuxjobs": "state directory", "format": FORMAT}) + "\n"
        asked = {"state": state, "marker": marker, "names": list(sources), "digest": digest.hexdigest()}
        self.asked_at = time.time()
        self._write(f"{len(text)}\n".encode() + text + json.dumps(asked).encode() + b"\n")
        fields, _ = self._stream.frame(deadline)
        if fields.get("needs") == "unit":
            sizes = {"sizes": [len(data) for data in sources.values()]}
            self.asked_at = time.time()
            self._write(json.dumps(sizes).encode() + b"\n" + b"".join(sources.values()))
            fields, _ = self._stream.frame(time.monotonic() + SHIP_S)
        if "fault" in fields:
            raise HostError(f"Host '{self.name}' cannot hold jobs: {fields['fault']}.")
        self.hello = fields

    def _lines(self) -> list[str]:
        """The last lines that ssh printed to stderr."""
        size = os.fstat(self._said.fileno()).st_size
        data = os.pread(self._said.fileno(), SAID_BYTES, max(0, size - SAID_BYTES))
        return [line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()]

    def _reason(self, error: Exception) -> str:
        """Why there is no connection, in one sentence."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        lines = self._lines()
        said = lines[-1] if lines else ""
        ssh = shlex.join([*self.ssh, self.name])
        meant = next((text for words, text in ASKS.items() if any(words in line for line in lines)), "")
        if isinstance(error, TimeoutError) and not meant:
            meant = f"it did not answer within {ARRIVE_S:.0f} s"
        words = "" if isinstance(error, BrokenPipeError) else str(error)
        what = meant.format(ssh=ssh) or said.rstrip(".") or words or "ssh ended without a message"
        return f"Host '{self.name}' cannot be used: {what}."

    # Questions

    def ask(
        self,
        do: str,
        data: bytes = b"",
        *,
        jobs: Sequence[str] = (),
        bound_s: float = 0.0,
        then: Later | None = None,
        **given: Any,
    ) -> tuple[dict[str, Any], bytes]:
        """Ask the agent; before its answer it reports what has changed, of these `jobs` in any case.

        What continues there after the answer is reported to `then`, in another thread, when it ends or is `lost`.
        Raises HostError when the connection is lost or there is no answer in time, and for what the agent refuses.
        """
        answer: Future[tuple[dict[str, Any], bytes]] = Future()
        with self._lock:
            self._number += 1
            number = self._number
            self._answers[number] = answer
            self._later.update({number: then} if then else {})
        bound = ANSWER_S + bound_s
        try:
            if self.lost.is_set():
                raise ConnectionError
            self._write(frame({"id": number, "do": do, "with": given, "jobs": list(jobs)}, data))
            fields, more = answer.result(bound)
        except TimeoutError:
            self._end(f"it has not answered for {bound:.0f} s")
            raise HostError(f"Host '{self.name}' has not answered for {bound:.0f} s.") from None
        except OSError:
            raise HostError(f"The connection to host '{self.name}' is lost: {self.why or 'ssh has ended'}.") from None
        finally:
            self._answers.pop(number, None)
        if "fault" in fields:
            raise HostError(f"Host '{self.name}' refused it: {str(fields['fault']).rstrip('.')}.")
        return fields, more

    def _write(self, data: bytes) -> None:
        with self._lock:
            if self._in.closed:
                raise ConnectionError
            whole = memoryview(data)
            while whole:
                whole = whole[os.write(self._in.fileno(), whole) :]

    def _listen(self) -> None:
        try:
            while True:
                fields, data = self._stream.frame()
                number = fields.get("id")
                if "then" in fields:
                    self._later.pop(fields["then"], unheard)(fields, data)
                elif number is None:
                    self._on_report(fields, data)
                elif (answer := self._answers.get(number)) is not None:
                    answer.set_result((fields, data))
        except EOFError:
            lines = self._lines()
            self._end(lines[-1].rstrip(".") if lines else "ssh has ended")
        except StateError as error:  # what it reports cannot be written down here
            self._end(str(error).rstrip("."))
        except (OSError, ValueError) as error:
            self._end(f"{type(error).__name__} {error}")
        finally:
            self._release()

    def _beat(self) -> None:
        """Let the agent know that we are alive: without a sign of life it ends."""
        with contextlib.suppress(OSError):
            while not self.lost.wait(BEAT_S):
                self._write(frame({}))

    def _end(self, why: str) -> None:
        self.why = self.why or why
        known = self.lost.is_set()
        self.lost.set()  # before any answer: a caller that asks again checks whether it is lost
        self.close()
        for answer in list(self._answers.values()):
            with contextlib.suppress(InvalidStateError):  # it has come meanwhile
                answer.set_exception(ConnectionError())
        while self._later:
            self._later.popitem()[1]({"lost": self.why}, b"")
        if not known:
            self._on_report({"lost": self.why}, b"")

    def _release(self) -> None:
        self.close()
        with self._lock, contextlib.suppress(OSError):
            self._in.close()
        with contextlib.suppress(OSError):
            self._out.close()
        self._said.close()

    def close(self) -> None:
        """End our ssh; the kept connection stays for a while."""
        with contextlib.suppress(OSError):
            os.kill(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2.0)


def kept(ssh: Sequence[str], name: str) -> dict[str, str]:
    """ssh options for one connection per host that our processes share; none if its socket cannot be placed.

    The path of a socket may have about 100 characters.
    """
    folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"tmuxjobs-{os.getuid()}"
    mark = hashlib.sha256("\0".join([*ssh, name]).encode()).hexdigest()[:12]
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        ours = facts.st_uid == os.getuid() and not facts.st_mode & 0o077 and not folder.is_symlink()
        # ssh first makes a name that is 17 characters longer.
        if ours and len(os.fsencode(folder / mark)) < 80:
            return {"ControlMaster": "auto", "ControlPath": str(folder / mark), "ControlPersist": f"{PERSIST_S}"}
    return {}
