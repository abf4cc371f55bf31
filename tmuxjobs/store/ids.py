"""Job ids: a short name and a suffix that is never given twice, and that tells the job's number."""

import re
from functools import cache

ID = re.compile(r"(?!.{65})[a-z0-9]+(-[a-z0-9]+)*")
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
DIGITS = str.maketrans(ALPHABET, "0123456789abcdefghijklmnopqrstuv")
MULTIPLIER, SECOND = 0x9E3779B1, 0x85EBCA6B
"""Odd, so each permutes the numbers below a power of two: no two numbers of a length have the same suffix."""
SHORTEST = 4
SUFFIX = re.compile(f"[{ALPHABET}]{{{SHORTEST},12}}")


def suffix(number: int, salt: int = 0) -> str:
    """Four or more characters that look random and differ for different numbers; with another salt, other ones.

    `salt` has 64 bits; 0 gives the suffixes of 0.1.0.
    """
    length = SHORTEST
    while number >= 32**length:
        number -= 32**length
        length += 1
    first, second, half, bits = _rounds(salt, length)
    scrambled = (number * MULTIPLIER + first) & bits
    if salt:
        scrambled = ((scrambled ^ scrambled >> half) * SECOND + second) & bits
    return "".join(ALPHABET[scrambled // 32**place % 32] for place in range(length))


def number_of(suffix: str, salt: int = 0) -> int:
    """The number with that suffix; -1 for a text that is no suffix."""
    if not SUFFIX.fullmatch(suffix):
        return -1
    scrambled = int(suffix[::-1].translate(DIGITS), 32)
    first, second, half, bits = _rounds(salt, len(suffix))
    if salt:
        scrambled = (scrambled - second) * _inverse(SECOND, bits) & bits
        scrambled ^= scrambled >> half
    return ((scrambled - first) * _inverse(MULTIPLIER, bits) & bits) + _shorter(len(suffix))


def _rounds(salt: int, length: int) -> tuple[int, int, int, int]:
    """What is added in two rounds; by how much is shifted between, half the bits so that it undoes itself; the bits."""
    return (salt & 0xFFFFFFFF) or 0x5BD1, salt >> 32, (5 * length + 1) // 2, 32**length - 1


@cache
def _inverse(factor: int, bits: int) -> int:
    return pow(factor, -1, bits + 1)


@cache
def _shorter(length: int) -> int:
    """How many numbers have a shorter suffix."""
    return sum(32**one for one in range(SHORTEST, length))


def slug(text: str) -> str:
    """A short name of `[a-z0-9-]` for a command or a given name; `job` when nothing is left of it."""
    words = re.sub(r"[^a-z0-9]+", "-", text[:200].lower()).strip("-")
    short = words[:20].rstrip("-")
    if len(words) > 20 and "-" in short[8:]:
        short = short[: short.rindex("-")]
    return short or "job"
