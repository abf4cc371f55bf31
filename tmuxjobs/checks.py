"""Arguments that several verbs take, checked with one sentence each."""

import math
import re

from tmuxjobs.errors import InvalidInput


def encoded(what: str, text: str) -> bytes:
    if "\0" in text:
        raise InvalidInput(f"The {what} holds a NUL character, which no program can be given.")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"The {what} is not valid UTF-8.") from None


def checked_seconds(what: str, value: float, *, least: float = 0.001) -> float:
    if not math.isfinite(value) or value < least:
        raise InvalidInput(f"{what} must be a number of seconds above 0, not {value:g}.")
    return value


def compiled(pattern: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern, re.MULTILINE) if pattern is not None else None
    except re.error as error:
        raise InvalidInput(f"'{pattern}' is not a regular expression: {error}.") from None
