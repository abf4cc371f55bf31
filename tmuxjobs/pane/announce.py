"""Announces a job's end to people: the terminal made ready for keys, the hook, a bug of ours. Stdlib only."""

from __future__ import annotations

import os
import termios
import time

from tmuxjobs.files import Odd
from tmuxjobs.lean import signal, suppress
from tmuxjobs.outcome import End
from tmuxjobs.pane.recorder_link import Refused, write_fully

TYPE_CHECKING = False  # `typing` takes 2 ms

if TYPE_CHECKING:
    from typing import Any

HOOK_S = 60.0
PLAIN = "\x1b[?1047l\x1b[?1000;1002;1003;1006;1004;2004l\x1b7\x1b[r\x1b8\x1b[m"
"""Leaves a full-screen program's alternate screen, modes, colours and hidden cursor behind."""


def show(tty: str, line: str) -> None:
    with suppress(OSError):
        fd = os.open(tty, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        for_keys(fd)
        write_fully(fd, f"{PLAIN}\r\n\x1b[K{line}".encode(), time.monotonic() + 0.5)


def for_keys(fd: int) -> None:
    """Discard unread input and switch to unbuffered, unechoed keys, before the keys are named."""
    with suppress(termios.error):  # no terminal any more
        settings = termios.tcgetattr(fd)
        settings[3] &= ~(termios.ICANON | termios.ECHO)
        termios.tcsetattr(fd, termios.TCSANOW, settings)
        termios.tcflush(fd, termios.TCIFLUSH)


def end_marks(pane: str, end: End) -> list[list[str]]:
    """The tmux commands that mark a window as that of a job that has ended."""
    marks = (("@tmuxjobs_state", end.state), ("@tmuxjobs_end", end.short), ("-qu", "@tmuxjobs_held"))
    return [["set-option", "-w", "-t", pane, *one] for one in marks]


def hook_environment(folder: str, record: dict[str, Any], end: End) -> dict[str, str]:
    """Our environment plus the TMUXJOBS_* facts, so that `tmuxjobs` in the hook finds this job."""
    job = record["job"]
    facts = {
        "JOB_ID": job["job_id"],
        "STATUS": end.state,
        "EXIT_CODE": record.get("exit_code"),
        "SIGNAL": record.get("signal"),
        "REASON": record["reason"],
        "RUNTIME": record["runtime_s"],
        "SUMMARY": f"{job['job_id']}: {end.words}",
        "COMMAND": job["command"],
        "CWD": job["cwd"],
        "LOG_PATH": os.path.join(folder, "output.log"),
        "STATE_DIR": os.path.dirname(os.path.dirname(folder)),
        "SESSION": job.get("session", "mcp-jobs"),
        "SOCKET_NAME": os.path.basename((record["run"] or job["queue"])["socket"]),
    }
    ours = {f"TMUXJOBS_{name}": "" if value is None else str(value) for name, value in facts.items()}
    return {**{name: value for name, value in os.environ.items() if not name.startswith("TMUXJOBS_")}, **ours}


def speaks(job: dict[str, Any], end: End) -> bool:
    """Whether people are notified of such an end."""
    notify = job.get("notify", "always")
    return bool(notify == "always" or (notify == "failure" and end.state != "completed"))


def notice(job: dict[str, Any], words: str) -> list[list[str]]:
    """The tmux commands that show the notice in our session."""
    session = ["set-option", "-t", f"={job.get('session', 'mcp-jobs')}:"]
    return [[*session, "@tmuxjobs_notice_at", str(int(time.time()))], [*session, "@tmuxjobs_notice", words]]


def run_hook(command: str, env: dict[str, str]) -> None:
    """Run it in a process of its own: it delays nothing, and a closed window does not end it."""
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
            with suppress(OSError, ValueError):  # the C library keeps a few for itself
                signal.signal(number, signal.SIG_DFL)
        hook(command, env)
    finally:
        os._exit(0)


def hook(command: str, env: dict[str, str]) -> None:
    """Run it, for HOOK_S at the most."""
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", command], env, setpgroup=0)
    deadline = time.monotonic() + HOOK_S
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
            break
        time.sleep(0.1)


def why_not(error: Exception, folder: str) -> str:
    """What to say of the start that failed so."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, Odd):
        return f"a file in {folder} {error}"
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    return f"this is a bug of tmuxjobs; what happened is in {save_bug(os.path.dirname(os.path.dirname(folder)))}"


def save_bug(state: str) -> str:
    """Where the traceback of the exception is, as by `bugs.py`: a private file in the state directory; or why not."""
    import platform
    import traceback

    path = os.path.join(state, f"bug-{os.getpid()}-{os.urandom(3).hex()}.txt")
    text = f"Python {platform.python_version()} on {platform.platform()}\n{__file__}\n{traceback.format_exc()}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as failed:
        return f"no file ({failed.strerror})"
    return path
