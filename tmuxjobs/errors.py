"""The errors that tmuxjobs reports, each with a message that says what to do next.

TmuxjobsError
├── InvalidInput      an argument that cannot be used
├── SettingsError     a setting that cannot be used; nothing starts
├── StateError        the state directory cannot be used
├── TmuxError         tmux is missing, too old, refuses or does not answer
│   └── HostError     another host cannot be reached, or lacks what jobs need there
├── JobNotFound       no job has that id
├── JobEnded          the job is not running any more
├── OtherHost         another machine with this state directory runs the job
├── Held              a person has taken the job over
├── OtherProject      an agent's project is not the job's
├── NotAllowed        a policy or the allowed patterns refuse it
├── LimitReached      as many jobs as may run are running
├── NotStarted        the command could not be started; nothing is left of it
└── InstallError      a client's configuration cannot be changed; it is as it was
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from tmuxjobs.visible import visible

T = TypeVar("T")

PROCESSES = (
    "No more processes can be started: end some, or raise their limit (`ulimit -u`, or the container's or unit's own)."
)
TERMINALS = (
    "All pseudo-terminals are in use: close some windows or terminals, or raise their limit (sysctl kernel.pty.max; on "
    "macOS kern.tty.ptmx_max)."
)
FILES = "tmux may open no more files: close some windows, or raise `ulimit -n` before it starts."
RAN_OUT = {
    "Resource temporarily unavailable": PROCESSES,
    "fork failed: No space left on device": TERMINALS,
    "fork failed: Device not configured": TERMINALS,
    "fork failed: Too many open files": FILES,
}
"""{what the system or tmux says when something is used up: what that means to a person}."""


class TmuxjobsError(Exception):
    """Base of all: its text is one sentence for a person or a model, and one more when something is used up.

    It quotes what callers gave and what other programs said, so all of it is made visible.
    """

    lines = False
    """Whether the text may have several lines."""

    def __init__(self, text: str) -> None:
        cures = [cure for said, cure in RAN_OUT.items() if said in text and cure not in text]
        super().__init__(visible(" ".join([text, *cures]), lines=self.lines))


class InvalidInput(TmuxjobsError):
    """An argument that cannot be used."""


class SettingsError(TmuxjobsError):
    """A setting that cannot be used."""


class StateError(TmuxjobsError):
    """The state directory cannot be used."""


class TmuxError(TmuxjobsError):
    """tmux is missing, too old, refuses, or did not answer within its bound."""


class HostError(TmuxError):
    """Another host, or the tmux there, cannot be reached, or lacks what jobs need."""


class JobNotFound(TmuxjobsError):
    """No job has that id; the text names the nearest ids."""

    def __init__(self, job_id: str, nearest: Iterable[str] = ()) -> None:
        self.job_id = job_id
        names = " or ".join(f"'{name}'" for name in nearest)
        hint = f" Did you mean {names}?" if names else ""
        super().__init__(f"No job '{job_id}'.{hint} `list` shows all.")


class JobEnded(TmuxjobsError):
    """The job is not running any more."""


class OtherHost(TmuxjobsError):
    """Another machine with this state directory runs the job: its processes and its window are there."""

    def __init__(self, job_id: str, host: str) -> None:
        self.job_id = job_id
        super().__init__(f"Job '{job_id}' runs on host '{host}': nothing was done to it here; do this on that host.")


class Held(TmuxjobsError):
    """A person has taken the job over: an agent may not act on it."""

    def __init__(self, job_id: str, *, since: datetime, for_s: float) -> None:
        self.job_id = job_id
        self.since = since
        super().__init__(
            f"A person has held '{job_id}' since {since:%H:%M:%S} UTC (for {for_s:.0f} s): nothing was done to it. "
            "They work in its window: read along with `output`, ask them, or do other work until they release it."
        )


class OtherProject(TmuxjobsError):
    """The job belongs to another project than the agent's."""

    def __init__(self, job_id: str, project: str) -> None:
        self.job_id = job_id
        super().__init__(
            f"Job '{job_id}' belongs to another project, {project}: nothing was done to it; ask the person there, or "
            "let them set TMUXJOBS_SCOPE=all."
        )


class NotAllowed(TmuxjobsError):
    """A policy or the allowed patterns refuse it to this caller."""


class LimitReached(TmuxjobsError):
    """As many jobs as may run are running."""


class NotStarted(TmuxjobsError):
    """The command could not be started; nothing is left of it."""


class InstallError(TmuxjobsError):
    """A client's configuration cannot be changed; it is as it was."""

    lines = True


@contextlib.contextmanager
def apart(job_id: str, faults: list[str]) -> Iterator[None]:
    """Within it, what goes wrong with one job, also a bug, is named in *faults* and hides no other job.

    Without an id it is a bug that concerns all jobs. A job that is gone by now is not named; other TmuxjobsErrors, such
    as of tmux, are raised.
    """
    try:
        yield
    except JobNotFound:
        pass
    except StateError as error:
        faults.append(str(error))
    except TmuxjobsError:
        raise
    except Exception as error:  # noqa: BLE001 - one job's bug must not hide the other jobs
        at = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__} {str(error)[:200]!r} in {Path(at.filename).name}, line {at.lineno}"
        whose = f"Job '{job_id}' cannot be shown whole: t" if job_id else "T"
        faults.append(f"{whose}his is a bug in tmuxjobs, {what}.")


def raised(work: Callable[[list[str]], T]) -> T:
    """The result of the work; raises StateError for the faults that it has named."""
    faults: list[str] = []
    done = work(faults)
    if faults:
        raise StateError(" ".join(faults))
    return done
