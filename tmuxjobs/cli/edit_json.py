"""Edits JSON as people and editors keep it, with comments and trailing commas: not a byte beside the edit changes."""

import json
import re
from collections.abc import Iterator, Sequence
from json.decoder import JSONDecoder
from typing import Any, NamedTuple

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n\r]*|/\*.*?\*/', re.DOTALL)
TRAILING = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)
SPACE = " \t\n\r"
BOM = "\ufeff"
INDENT = "  "


class Member(NamedTuple):
    """Where a member of an object stands in the text: its key, its value, and the comma behind it, if there is one."""

    key: str
    start: int
    value: int
    end: int
    comma: int | None


def load(text: str) -> Any:
    """What it says; an empty file is an empty object. Raises ValueError."""
    plain = without_commas(without_comments(text))
    try:
        return json.loads(plain) if plain.strip() else {}
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def without_comments(text: str) -> str:
    """Comments, and a mark of the encoding, as blanks: every place stays what it was."""
    plain = TOKEN.sub(lambda found: found[0] if found[0][0] == '"' else " " * len(found[0]), text)
    return " " + plain[1:] if plain.startswith(BOM) else plain


def without_commas(plain: str) -> str:
    return TRAILING.sub(lambda found: found[0] if found[1] else " ", plain)


def put(text: str, path: Sequence[str], value: Any) -> str:
    """The text with that value there, in objects that are made where they are missing."""
    if not load(text) and not without_comments(text).strip():
        newline = newline_of(text)
        ends = newline if text and not text.endswith("\n") else ""
        return text + ends + shown(nested(path, value), "", newline, INDENT) + newline
    plain = without_comments(text)
    opened, depth = first(plain, 0), 0
    members = list(members_of(plain, opened))
    while found := last(members, path[depth]):
        depth += 1
        if depth == len(path):
            in_line = "\n" not in text[opened : found.end]
            new = (
                dense(value) if in_line else shown(value, indent_at(text, found.start), newline_of(text), unit_of(text))
            )
            return text[: found.value] + new + text[found.end :]
        opened = found.value
        members = list(members_of(plain, opened))
    return inserted(text, plain, opened, members, path[depth], nested(path[depth + 1 :], value))


def take(text: str, path: Sequence[str]) -> str:
    """The text without that member and without the comma and the line that were there for it."""
    plain = without_comments(text)
    opened = first(plain, 0)
    for key in path[:-1]:
        parent = last(list(members_of(plain, opened)), key)
        if parent is None:
            return text
        opened = parent.value
    members = list(members_of(plain, opened))
    found = last(members, path[-1])
    if found is None:
        return text
    number = members.index(found)
    before = members[number - 1].comma if number and found.comma is None else None
    start, end = found.start, found.end if found.comma is None else found.comma + 1
    head = text[:start].rstrip(" \t")
    tail = text[end:].lstrip(" \t")
    if (not head or head[-1] in "\n\r") and tail[:1] in ("\n", "\r"):
        start = len(head)
        end = len(text) - len(tail) + (2 if tail.startswith("\r\n") else 1)
    elif found.comma is not None:
        end = len(text) - len(tail)
    elif before is not None and before + 1 == len(head):
        start = len(head)
    kept = text[:start] if before is None else text[:before] + text[before + 1 : start]
    rest = text[end:]
    if len(members) == 1 and len(kept.rstrip()) == opened + 1 and rest.lstrip()[:1] == "}":
        return kept.rstrip() + rest.lstrip()
    return kept + rest


def members_of(plain: str, opened: int) -> Iterator[Member]:
    """The members of the object that opens there; raises ValueError when none does."""
    if plain[opened : opened + 1] != "{":
        raise ValueError("it is not laid out as expected")
    decoder = JSONDecoder()
    lean = without_commas(plain)
    at = first(plain, opened + 1)
    while plain[at] != "}":
        key, end = decoder.raw_decode(plain, at)
        value = first(plain, first(plain, end) + 1)
        _, end = decoder.raw_decode(lean, value)
        after = first(plain, end)
        comma = after if plain[after] == "," else None
        yield Member(key, at, value, end, comma)
        at = after if comma is None else first(plain, after + 1)


def first(plain: str, start: int) -> int:
    """The place of the next character that is not a space."""
    while start < len(plain) and plain[start] in SPACE:
        start += 1
    return start


def last(members: list[Member], key: str) -> Member | None:
    """Of members with the same key the one that counts."""
    return next((one for one in reversed(members) if one.key == key), None)


def nested(path: Sequence[str], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


def inserted(text: str, plain: str, opened: int, members: list[Member], key: str, value: Any) -> str:
    """With the member as the last of the object that opens there, laid out like its neighbours."""
    newline, unit = newline_of(text), unit_of(text)
    closed = close_of(plain, opened, members)
    outer = indent_at(text, opened)
    inner = indent_at(text, members[0].start) if members and starts_line(text, members[0].start) else outer + unit
    in_line = "\n" not in (text[opened:closed] if members else text.strip(SPACE)) and plain[:closed].strip() != "{"
    entry = f"{json.dumps(key)}: " + (dense(value) if in_line else shown(value, inner, newline, unit))
    if not members and in_line:
        return text[: opened + 1] + entry + text[opened + 1 :]
    if not members:
        held = text[opened + 1 : closed].rstrip(SPACE)
        return text[: opened + 1] + held + newline + inner + entry + newline + outer + text[closed:]
    end, comma = members[-1].end, members[-1].comma
    if in_line:
        return text[:end] + ", " + entry + text[end:]
    # What stands behind the last member on its line is a remark about it.
    at = line_end(plain, (comma or end - 1) + 1)
    head = text[:end] + ("," if comma is None else "") + text[end:at]
    return (
        head
        + newline
        + inner
        + entry
        + ("" if comma is None else ",")
        + (text[at:] if text[at : at + 1] in ("\n", "\r") else newline + outer + text[at:].lstrip(" \t"))
    )


def close_of(plain: str, opened: int, members: list[Member]) -> int:
    if not members:
        return first(plain, opened + 1)
    end, comma = members[-1].end, members[-1].comma
    return first(plain, end if comma is None else comma + 1)


def line_end(plain: str, at: int) -> int:
    """The end of that line where only blanks follow on it, else the place itself."""
    end = at
    while end < len(plain) and plain[end] in " \t":
        end += 1
    return end if end < len(plain) and plain[end] in "\n\r" else at


def starts_line(text: str, at: int) -> bool:
    head = text[:at].rstrip(" \t")
    return not head or head[-1] in "\n\r"


def indent_at(text: str, at: int) -> str:
    """The blanks that the line of that place begins with."""
    line = text[max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1 :].removeprefix(BOM)
    return line[: len(line) - len(line.lstrip(" \t"))]


def newline_of(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def unit_of(text: str) -> str:
    """One step of its indentation."""
    found = re.search(r'[{\[,][^\S\n\r]*[\n\r]+([ \t]+)"', text)
    return found[1] if found else INDENT


def dense(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def shown(value: Any, indent: str, newline: str, unit: str) -> str:
    return json.dumps(value, indent=unit, ensure_ascii=False).replace("\n", newline + indent)
