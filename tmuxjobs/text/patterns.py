"""Checks patterns; finds which lines of a log stay, as a line that is drawn over does not count for a wait; and tells
which lines a search can skip: those that need no cleaning and lack a text that every match holds.

It knows the part of regular expressions that `re` and `regex` read alike; about any other it says nothing.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

from tmuxjobs.errors import InvalidInput
from tmuxjobs.text.log import Log

if TYPE_CHECKING:
    import regex

REPEATS_MAX: Final = 1_000_000
STANDS_S: Final = 2.0
"""Test runners redraw their frames each second."""
NEAR: Final = 1 << 16
"""How many bytes around a line are read; a line with more after it has scrolled away."""
CLOSE: Final = 1 << 12
"""A cursor that moved up within this many bytes of a line belongs to the same frame."""
_TOKEN: Final = re.compile(
    rb"(?P<newline>\n)|\x1b\[(?P<count>[0-9]*)(?P<move>[ABEF])|(?P<clear>\x1b\[[23]J|\x1bc)|(?P<erase>\x1b\[[0-9]*[JK])"
    rb"|(?P<other>\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.))|(?P<text>[^\x00-\x1f\x1b]+)|[\x00-\x1f]"
)
_NEWLINE: Final = re.compile(r"(?<!\\)\\(?:x0[aA]|u000[aA]|012)|\[(?:\\n|\\r|\n|\r)+\]")
"""Other ways to write one."""
_UP: Final = re.compile(rb"\x1b\[[0-9]*[AF]")
_REPEAT: Final = re.compile(r"\{(\d*),?(\d*)\}")


def compiled(pattern: str, *, literal: bool = False, ignore_case: bool = False) -> regex.Pattern[str]:
    """The compiled pattern; raises InvalidInput, in one sentence, for one that is empty, wrong or too large."""
    import regex  # takes 15 ms, and only searching needs it

    if not pattern:
        raise InvalidInput("The pattern is empty.")
    repeats = 1
    for least, most in _REPEAT.findall(pattern):
        repeats *= max(1, int(most or least or 1)) if len(most or least) < 8 else REPEATS_MAX + 1
    if not literal and (repeats > REPEATS_MAX or len(pattern) > 10_000):
        raise InvalidInput(f"The pattern is too large: {pattern[:80]!r} repeats more than {REPEATS_MAX:,} times.")
    flags = regex.MULTILINE | (regex.IGNORECASE if ignore_case else 0)
    try:
        return regex.compile(regex.escape(pattern) if literal else pattern, flags)
    except (regex.error, RecursionError, OverflowError, ValueError) as error:
        raise InvalidInput(f"The pattern {pattern[:80]!r} is not a regular expression: {error}.") from None


def of_lines(pattern: str, *, literal: bool = False, ignore_case: bool = False) -> regex.Pattern[str]:
    """As `compiled`, for what is looked for in each line by itself."""
    found = compiled(pattern, literal=literal, ignore_case=ignore_case)
    refuse_newline(pattern, literal=literal)
    return found


def refuse_newline(pattern: str, *, literal: bool = False) -> None:
    """Raises InvalidInput for one whose every match has a newline: no line has one."""
    sets = [frozenset((pattern,))] if literal else needles(_NEWLINE.sub(r"\\n", pattern))
    if any(all("\n" in text for text in texts) for texts in sets):
        raise InvalidInput(
            f"The pattern {pattern[:80]!r} would never match, for each line is looked at by itself, without its "
            "newline: give what stands in one line."
        )


def stays(log: Log, start: int, end: int) -> bool | None:
    """Whether the line between these offsets stays: False when it was drawn over, None when that may still happen.

    While the cursor is hidden or moves up, a line stays once the program leaves it alone: it redraws what is below,
    clears the screen, which keeps what it has shown, or shows the cursor again.
    """
    after = log.read(end, min(log.end, end + NEAR))
    line = log.read(start, end)
    finished = line.endswith(b"\n")
    row = int(finished)
    went_up = False
    for token in _TOKEN.finditer(after) if finished else ():
        kind = token.lastgroup
        if kind == "newline" and went_up:
            return True
        if kind == "newline":
            row += 1
        elif kind == "move":
            steps, up = int(token["count"] or 1), token["move"] in b"AF"
            row, went_up = row + (-steps if up else steps), went_up or up
        elif kind == "clear" or token[0] == b"\x1b[?25h":
            return True
        elif kind in ("erase", "text") and row <= 0:
            return False
    if log.end - end > NEAR:
        return True
    drawn = log.read(max(log.floor(start), start - NEAR), end)
    hidden = drawn.rfind(b"\x1b[?25l") > drawn.rfind(b"\x1b[?25h")
    redrawn = not finished and b"\r" in line.rstrip(b"\r")
    return None if hidden or redrawn or _UP.search(drawn[-CLOSE:]) else True


if TYPE_CHECKING:
    import ctypes

    import regex

_PLAIN: Final = bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100)) + b"\t"
_RETURN: Final = re.compile(rb"\r[^\n]")
_C1: Final = re.compile(rb"\xc2[\x80-\x9f]")
_LONG: Final = 1 << 16
_UNMARKED: Final = bytes(set(range(0x100)) - {1, 10})
_CROSSING: Final = re.compile(r"\\[sDWnr]|\[\^")
_CLASSES: Final = "dDwWsSbB"
_LITERAL_ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r"}
_GROUP: Final = re.compile(r"\((?:(?!\?|\*)|\?:|\?P?<[A-Za-z_]\w*>|\?>)")
_LOOK: Final = re.compile(r"\(\?<?[=!]")
_SET: Final = re.compile(r"\[\^?\]?(?:\\[^\W\d_]|\\[^\w]|[^\]\\\[])*\]")
_SET_OPERATOR: Final = re.compile(r"&&|\|\||~~|--")
_QUANTIFIER: Final = re.compile(r"(?:(?P<some>\+)|(?P<any>[*?])|\{(?P<least>\d{0,6})(?:,\d{0,6})?\})[?+]?")
Needles = frozenset[str]
"""One of these is in every match."""


class _Unknown(Exception):
    """The pattern has a part that this module does not know."""


def needles(pattern: str) -> list[Needles]:
    """Sets of texts, none of them empty: a text that the pattern matches holds a member of each set."""
    try:
        alternatives, end = _alternatives(pattern, 0)
        if end != len(pattern):
            return []
    except (_Unknown, RecursionError):
        return []
    return alternatives[0] if len(alternatives) == 1 else _any_of(alternatives)


def _any_of(alternatives: list[list[Needles]]) -> list[Needles]:
    """The union of each alternative's set whose shortest text is longest; nothing when one has no set."""
    if not all(alternatives):
        return []
    return [frozenset().union(*(max(sets, key=lambda one: min(map(len, one))) for sets in alternatives))]


def _alternatives(pattern: str, at: int) -> tuple[list[list[Needles]], int]:
    """What each alternative needs, up to the end of the group or of the pattern."""
    found = []
    while True:
        sets, at = _sequence(pattern, at)
        found.append(sets)
        if pattern[at : at + 1] != "|":
            return found, at
        at += 1


def _sequence(pattern: str, at: int) -> tuple[list[Needles], int]:
    sets: list[Needles] = []
    run = ""
    while at < len(pattern) and pattern[at] not in "|)":
        literal, inner, at = _atom(pattern, at)
        quantifier = _QUANTIFIER.match(pattern, at)
        at = quantifier.end() if quantifier else at
        needed = quantifier is None or bool(quantifier["some"]) or int(quantifier["least"] or 0) > 0
        if needed and literal is not None:
            run += literal
        if quantifier or literal is None:
            sets += [frozenset((run,))] if run else []
            run = ""
        if needed:
            sets += inner
    return sets + ([frozenset((run,))] if run else []), at


def _atom(pattern: str, at: int) -> tuple[str | None, list[Needles], int]:
    """The character that the atom is, or None; what else it needs; where it ends."""
    character = pattern[at]
    if character in ".^$":
        return None, [], at + 1
    if character == "[":
        found = _SET.match(pattern, at)
        if found is None or _SET_OPERATOR.search(found[0]):
            raise _Unknown
        return None, [], found.end()
    if character == "(":
        look, group = _LOOK.match(pattern, at), _GROUP.match(pattern, at)
        begun = look or group
        if begun is None:
            raise _Unknown
        alternatives, end = _alternatives(pattern, begun.end())
        if pattern[end : end + 1] != ")":
            raise _Unknown
        inner = alternatives[0] if len(alternatives) == 1 else _any_of(alternatives)
        return None, [] if look else inner, end + 1
    if character == "\\":
        escaped = pattern[at + 1 : at + 2]
        if escaped in _LITERAL_ESCAPES:
            return _LITERAL_ESCAPES[escaped], [], at + 2
        if escaped and escaped in _CLASSES:
            return None, [], at + 2
        if not escaped or escaped.isalnum() or not escaped.isascii():
            raise _Unknown
        return escaped, [], at + 2
    if character in "*+?{":
        raise _Unknown
    return character, [], at + 1


def stays_in_line(pattern: str) -> bool:
    """Whether no part of it matches a newline or sees across one: a line by itself gives the same matches."""
    try:
        if _alternatives(pattern, 0)[1] != len(pattern):
            return False
    except (_Unknown, RecursionError):
        return False
    return pattern.isascii() and pattern.isprintable() and not _CROSSING.search(pattern)


def in_bytes(pattern: regex.Pattern[str]) -> regex.Pattern[bytes]:
    """The same expression for ASCII text as it is in a file."""
    import regex  # takes 15 ms, and only searching needs it

    return regex.compile(pattern.pattern.encode(), pattern.flags & (regex.MULTILINE | regex.IGNORECASE))


def marked_lines(data: bytes) -> int:
    """How many of the lines hold a mark, the byte 1."""
    return data.translate(None, _UNMARKED).count(b"\x01\n")


def plain_lines(data: bytes) -> int:
    """How many lines there are if all end in a newline and need no cleaning: visible text and tabs; else -1."""
    if not data.endswith(b"\n"):
        return -1
    ends = data.translate(None, _PLAIN)
    count = len(ends)
    if ends != b"\n" * count:
        count //= 2
        # A carriage return that is not at the end of its line goes back to its start.
        if ends != b"\r\n" * count or _RETURN.search(data):
            return -1
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            return -1
        if b"\xc2" in data and _C1.search(data):
            return -1
    return count


def holds(data: bytes, text: bytes) -> bool:
    """Whether *data* holds *text*; by the C library, which takes a third of the time of `in`."""
    if len(data) < _LONG or not hasattr(_c_library(), "memmem"):
        return text in data
    import ctypes  # takes 3 ms, and only searching needs it

    find = _c_library().memmem
    find.restype, size = ctypes.c_void_p, ctypes.c_size_t
    return find(data, size(len(data)), text, size(len(text))) is not None


@cache
def _c_library() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None)
