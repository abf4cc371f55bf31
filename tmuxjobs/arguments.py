"""Arguments that several verbs take, checked with one sentence each."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from typing_extensions import TypedDict

from tmuxjobs.errors import InvalidInput

Until = Literal["exit", "pattern", "idle", "input", "port", "url", "ready"]
RestartPolicy = Literal["on-failure", "always"]
UNTIL: tuple[Until, ...] = get_args(Until)
Mode = Literal["any", "all"]
Scope = Literal["project", "mine", "all"]
"""Whose jobs: the project\'s, those of the same agent in the same session (or of a person), everybody\'s."""
WAIT_S = 50.0
"""The default of a wait, and the most for a call over MCP: many clients cut a call off after 60 s."""
CHARS = 1_400
"""How many characters of output the answer of a wait has."""
OUTPUT_CHARS = 20_000


class Conditions(TypedDict, total=False):
    """What ends a wait before the job's end; each one that is given counts."""

    until: Until | None
    pattern: str | None
    fail_pattern: str | None
    literal: bool
    redraws: bool
    """Whether the patterns also count in what a program draws over."""
    idle: float | None
    """Seconds without output."""
    port: int | None
    """A TCP port that the job listens on; 0 for any."""
    url: str | None


class Turn(TypedDict, total=False):
    """What is asked of a job's turn; a group, priority, time or job to come after lets it wait, like `queue`."""

    queue: bool | None
    """Whether it waits if there is no room; as configured by default."""
    group: str | None
    """Jobs that share a limit."""
    priority: int | None
    after: Sequence[str] | str | None
    """Jobs: `ID` it succeeded, `ID:any` it ended, `ID:ready` it is ready."""
    delay: float | None
    at: str | None
    reuse: bool
    """Start nothing if a job of this name and project has not ended: the answer is about that one."""


class Engine(TypedDict, total=False):
    """What runs a job, if not this machine."""

    engine: Literal["slurm", "local"] | None
    """The configured one by default."""
    resources: Mapping[str, object] | None
    """For Slurm: cpus, memory, gpus, time, partition, detach."""
    sync: str | None
    """A folder here whose copy on the other host is brought up to date first; the job runs in the copy."""


class Lifecycle(TypedDict, total=False):
    """How often a job's command may run, which codes are success, and what shows that it is ready."""

    retry: int | None
    """How often it runs again after a failure; with a restart policy, how often in a row."""
    restart_policy: RestartPolicy | None
    success_codes: Sequence[int] | None
    ready_when: str | None
    """`port N`, `url URL`, `pattern REGEX` or `command LINE`."""
    ready_timeout: float | None


class Asked(Conditions, Turn, Engine, Lifecycle, total=False):
    """All of these, as `execute` takes them."""


@dataclass
class Pipe:
    """What comes by a pipe is text. `hidden` says that a terminal does not show it any more for that."""

    hidden: bool = False
    ended: bool = False
    alone: int = 4
    """How many lines still come one at a time, as answers to questions do: then comes as much as the terminal takes."""
    open: int = 0
    """How many bytes of a line without its end the terminal holds."""
    since: float | None = None
    """Since when no program is seen to read."""


UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|min|[smhdw])\s*")


def duration(text: str) -> float:
    """Seconds, from a number or from `90s`, `10m`, `1h30m`, `14d`; raises ValueError."""
    wanted = text.strip().lower()
    try:
        return float(wanted)
    except ValueError:
        if not re.fullmatch(f"(?:{PART.pattern})+", wanted):
            raise ValueError(
                f"'{text}' is not a duration: write seconds as a number, or like 90s, 10m, 2h, 14d"
            ) from None
    return float(sum(float(count) * UNIT_S[unit] for count, unit in PART.findall(wanted)))


def encoded(what: str, text: str) -> bytes:
    if "\0" in text:
        raise InvalidInput(f"The {what} holds a NUL character, which no program can be given.")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"The {what} is not valid UTF-8.") from None


def checked_seconds(what: str, value: float, *, least: float = 0.001) -> float:
    if not math.isfinite(value) or value < least:
        bound = "above 0" if least else "of 0 or more"
        raise InvalidInput(f"{what} must be a number of seconds {bound}, not {value:g}.")
    return value
