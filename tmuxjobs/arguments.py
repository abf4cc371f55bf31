"""Arguments that several verbs take, checked with one sentence each."""

import math

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
        bound = "above 0" if least else "of 0 or more"
        raise InvalidInput(f"{what} must be a number of seconds {bound}, not {value:g}.")
    return value
