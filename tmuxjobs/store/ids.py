"""Job ids: a short name and a suffix that is never given twice."""

import re

ID = re.compile(r"(?!.{65})[a-z0-9]+(-[a-z0-9]+)*")
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def suffix(number: int) -> str:
    """Four or more characters that look random and differ for different numbers.

    Odd multipliers permute the numbers below a power of two, so no two of a length are the same.
    """
    length = 4
    while number >= 32**length:
        number -= 32**length
        length += 1
    scrambled = (number * 0x9E3779B1 + 0x5BD1) % 32**length
    return "".join(ALPHABET[scrambled // 32**place % 32] for place in range(length))


def slug(text: str) -> str:
    """A short name of `[a-z0-9-]` for a command or a given name; `job` when nothing is left of it."""
    words = re.sub(r"[^a-z0-9]+", "-", text[:200].lower()).strip("-")
    short = words[:20].rstrip("-")
    if len(words) > 20 and "-" in short[8:]:
        short = short[: short.rindex("-")]
    return short or "job"
