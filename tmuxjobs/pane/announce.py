"""Announces a job's end to people: the terminal made ready for keys, and the hook. Stdlib only."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import time

from tmuxjobs.outcome import End

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

HOOK_S = 60.0


def for_keys(fd: int) -> None:
    """Forget what was typed for the job and never read, and take what comes as keys, before the keys are named."""
    with contextlib.suppress(termios.error):  # no terminal any more
        settings = termios.tcgetattr(fd)
        settings[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(fd, termios.TCSANOW, settings)
        termios.tcflush(fd, termios.TCIFLUSH)


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
    ours = {f"TMUXJOBS_{name}": "" if value is None else str(value) for name, value in facts.items()}
    return {**{name: value for name, value in os.environ.items() if not name.startswith("TMUXJOBS_")}, **ours}


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
