"""Arguments that several verbs take, checked with one sentence each."""

from __future__ import annotations

import math
from typing import Literal, get_args

from typing_extensions import TypedDict

from tmuxjobs.errors import InvalidInput

Until = Literal["exit", "pattern", "idle", "input", "port", "url"]
UNTIL: tuple[Until, ...] = get_args(Until)
Mode = Literal["any", "all"]
WAIT_S = 50.0
"""The default of a wait, and the most for a call over MCP: many clients cut a call off after 60 s."""
CHARS = 2_000
"""How much output the answer of a wait has."""
OUTPUT_CHARS = 20_000


class Conditions(TypedDict, total=False):
    """What ends a wait before the job's end; every one that is given counts."""

    until: Until | None
    pattern: str | None
    fail_pattern: str | None
    literal: bool
    idle: float | None
    """Seconds without output."""
    port: int | None
    """A TCP port that the job listens on; 0 for any."""
    url: str | None


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
