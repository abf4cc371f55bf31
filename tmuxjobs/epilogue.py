"""How a job's end is told to people: in words, in the last line of its window, by the hook. Stdlib only."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
if TYPE_CHECKING or __package__:
    from tmuxjobs.visible import visible
else:
    from visible import visible

HOOK_S = 60.0


def for_keys(fd: int) -> None:
    """Forget what was typed for the job and never read, and take what comes as keys, before the keys are named."""
    with contextlib.suppress(termios.error):  # no terminal any more
        settings = termios.tcgetattr(fd)
        settings[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(fd, termios.TCSANOW, settings)
        termios.tcflush(fd, termios.TCIFLUSH)


class End:
    """How a job ended, for people: `state` is its mark, `short` what stands beside it, `words` the whole."""

    def __init__(self, record: dict[str, Any]) -> None:
        code, name, reason = record["exit_code"], record["signal"], record["reason"]
        took = seconds(record["runtime_s"])
        self.adopted = record["job"].get("adopted") is not None
        unknown = "exit code not known" if self.adopted else "not even SIGKILL ended it"
        how = name or (unknown if code is None else f"exit code {code}")
        self.took = took
        if reason == "exit":
            self.state = "done" if code == 0 else "failed"
            self.short = took if code == 0 else f"exit {code}"
            self.words = f"{self.state} after {took}, exit code {code}"
        elif reason == "unknown":
            self.state, self.short = "lost", "lost"
            self.words = f"ended after {took}, nobody knows how"
        else:
            why = {"signal": "by a signal", "kill": "on request", "timeout": "by its timeout"}.get(reason, reason)
            self.state = "killed"
            self.short = {"kill": "killed", "signal": name or "signal"}.get(reason, reason)
            self.words = f"killed {why} after {took}, {how}"
        log = record["log"]
        self.more = ", log incomplete" if log["complete"] is False else ""
        if record["left_running"]:
            self.more += f", left running: {', '.join(visible(one['name']) for one in record['left_running'][:3])}"

    def line(self) -> str:
        """The line at the end of the window; its keys are read by `pages.py`."""
        colour = {"done": "30;42", "failed": "97;41"}.get(self.state, "97;45")
        at = time.strftime("%H:%M:%S")
        again = "" if self.adopted else "\x1b[1mr\x1b[m run again  "
        return f"\x1b[{colour}m {self.words}{self.more} \x1b[m at {at}  {again}\x1b[1mx\x1b[m close "


def seconds(value: float) -> str:
    """A duration as a person says it: `0.4s`, `12s`, `3m05s`, `2h04m`, `3d02h`."""
    whole = int(value)
    if whole < 10:
        return f"{value:.1f}s"
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def hook_environment(folder: str, record: dict[str, Any], end: End) -> dict[str, str]:
    """Ours with the facts, and with what makes a `tmuxjobs` in the hook look where this job is."""
    job = record["job"]
    facts = {
        "JOB_ID": job["job_id"],
        "STATUS": {"done": "completed"}.get(end.state, end.state),
        "EXIT_CODE": record["exit_code"],
        "SIGNAL": record["signal"],
        "REASON": record["reason"],
        "RUNTIME": record["runtime_s"],
        "SUMMARY": f"{job['job_id']}: {end.words}",
        "COMMAND": job["command"],
        "CWD": job["cwd"],
        "LOG_PATH": os.path.join(folder, "output.log"),
        "STATE_DIR": os.path.dirname(os.path.dirname(folder)),
        "SESSION": job.get("session", "mcp-jobs"),
        "SOCKET_NAME": os.path.basename(record["run"]["socket"]),
    }
    told = {f"TMUXJOBS_{name}": "" if value is None else str(value) for name, value in facts.items()}
    return {name: value for name, value in os.environ.items() if not name.startswith("TMUXJOBS_")} | told


def run_hook(command: str, env: dict[str, str]) -> None:
    """Run it apart from us, for HOOK_S at the most: it holds up nothing, and a closed window does not end it."""
    if os.fork():
        return
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.closerange(3, 256)
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
            with contextlib.suppress(OSError, ValueError):  # the C library keeps a few for itself
                signal.signal(number, signal.SIG_DFL)
        pid = os.posix_spawn("/bin/sh", ["sh", "-c", command], env, setpgroup=0)
        deadline = time.monotonic() + HOOK_S
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.killpg(pid, signal.SIGKILL)
                break
            time.sleep(0.1)
    finally:
        os._exit(0)
