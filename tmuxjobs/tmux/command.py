"""One bounded call of tmux through libtmux: knows a socket and an environment, and nothing of sessions."""

import contextlib
import subprocess
from collections.abc import Mapping
from typing import Any

import libtmux
from libtmux.common import tmux_cmd

from tmuxjobs.contract import argument
from tmuxjobs.errors import TmuxError


class Call(tmux_cmd):
    """One tmux call: like libtmux's own, but bounded, with a standard input and an environment of its own."""

    def __init__(self, *args: Any, tmux_bin: str, env: Mapping[str, str], stdin: bytes = b"", timeout: float) -> None:
        self.cmd = [tmux_bin, *map(argument, args)]
        source = subprocess.PIPE if stdin else subprocess.DEVNULL
        try:
            self.process = subprocess.Popen(  # type: ignore[assignment]
                self.cmd, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(env)
            )
        except OSError as error:
            raise TmuxError(f"tmux cannot be called: {error.strerror}; see to it and try again.") from None
        try:
            out, err = self.process.communicate(stdin or None, timeout=timeout)  # type: ignore[arg-type]
        except subprocess.TimeoutExpired:
            # Not `communicate` again: a stopped server keeps our pipes open, in flight on its socket.
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # what was not written cannot be
                        pipe.close()
            raise TmuxError(
                f"tmux did not answer within {timeout:.0f} s: its server hangs or is stopped; see to it and try again."
            ) from None
        self.returncode = self.process.returncode
        self.stdout = _text(out).removesuffix("\n").split("\n") if out else []
        self.stderr = [line for line in _text(err).split("\n") if line]


def _text(data: Any) -> str:
    return bytes(data).decode(errors="backslashreplace")


class Done:
    """What a call on another host gave; its fields are those of a `Call`."""

    def __init__(self, out: bytes, err: bytes, code: int) -> None:
        self.returncode = code
        self.stdout = _text(out).removesuffix("\n").split("\n") if out else []
        self.stderr = [line for line in _text(err).split("\n") if line]


class Server(libtmux.Server):
    """libtmux's server whose every command is a `Call`."""

    def __init__(self, *, socket_name: str, tmux_bin: str, env: Mapping[str, str], call_s: float) -> None:
        super().__init__(socket_name=socket_name, tmux_bin=tmux_bin)
        self._binary = tmux_bin
        self._call_s = call_s
        # -u: without a UTF-8 locale tmux answers `_` for what is not ASCII, and hosts start servers with no locale.
        self._env = {key: value for key, value in env.items() if key not in ("TMUX", "TMUX_PANE")}

    def cmd(self, cmd: str, *args: Any, target: str | int | None = None, **bounds: Any) -> tmux_cmd:
        bounds["timeout"] = bounds.get("timeout") or self._call_s
        aimed = ("-t", target, *args) if target is not None else args
        return Call("-u", f"-L{self.socket_name}", cmd, *aimed, tmux_bin=self._binary, env=self._env, **bounds)
