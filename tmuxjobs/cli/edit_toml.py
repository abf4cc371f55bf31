"""Edits TOML and leaves comments, order and layout: whole tables by lines, what stands inside one by tomlkit."""

import re
import tomllib
from collections.abc import Sequence
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

ANY_HEADER = re.compile(r"[ \t]*\[")
TOKEN = re.compile(r'''#[^\n]*|"""(?:\\.|[^\\])*?"""|\'{3}.*?\'{3}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'''', re.DOTALL)
BARE = re.compile(r"[A-Za-z0-9_-]+")


def load(text: str) -> dict[str, Any]:
    """What it says. Raises ValueError."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def put(text: str, path: Sequence[str], value: Any) -> str:
    """The text with that value there; a table that is new stands at the end."""
    *tables, key = path
    place = load(text)
    for name in tables:
        place = place.get(name, {})
    if isinstance(value, dict) and key not in place:
        newline = "\r\n" if "\r\n" in text else "\n"
        gap = "" if not text else newline if text.endswith("\n") else newline * 2
        appended = text + gap + table(path, value).replace("\n", newline)
        if says(appended, with_value(load(text), path, value)):
            return appended
    return by_tomlkit(text, tables, lambda inner: inner.__setitem__(key, value))


def take(text: str, path: Sequence[str]) -> str:
    """The text without that table or value; remarks behind it belong to what follows."""
    expected = load(text)
    place = expected
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    cut = without_tables(text, path)
    if says(cut, expected) or (len(path) > 1 and not place and says(cut, without(expected, path[:-1]))):
        return cut
    return by_tomlkit(text, path[:-1], lambda inner: inner.__delitem__(path[-1]))


def table(path: Sequence[str], value: dict[str, Any]) -> str:
    head = ".".join(name if BARE.fullmatch(name) else tomlkit.item(name).as_string() for name in path)
    return f"[{head}]\n" + tomlkit.dumps(value)


def by_tomlkit(text: str, tables: Sequence[str], change: Any) -> str:
    """As tomlkit does it. Raises ValueError where it would not give back what it has read."""
    try:
        document = tomlkit.parse(text)
        if tomlkit.dumps(document) != text:
            raise ValueError("it cannot be kept as it is")
        inner: Any = document
        for name in tables:
            inner = inner[name]
        change(inner)
        return tomlkit.dumps(document)
    except (TOMLKitError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is not laid out as expected: {error}") from None


def without_tables(text: str, path: Sequence[str]) -> str:
    """Without the lines of that table and of those below it."""
    names = r"[ \t]*\.[ \t]*".join(
        rf"""(?:{re.escape(name)}|"{re.escape(name)}"|'{re.escape(name)}')""" for name in path
    )
    header = re.compile(rf"[ \t]*\[[ \t]*{names}[ \t]*(?:\.[^\]]*)?\]")
    kept: list[str] = []
    ours: list[str] | None = None
    # Splits at newlines alone, as TOML does, and not within strings of several lines.
    plain = TOKEN.sub(lambda found: re.sub(r"[^\n]", "x", found[0]) if "\n" in found[0] else found[0], text)
    for look, line in zip(plain.split("\n"), re.findall(r"[^\n]*\n|[^\n]+$", text), strict=False):
        if ANY_HEADER.match(look):
            kept += remarks(ours)
            ours = [] if header.match(look) else None
        (kept if ours is None else ours).append(line)
    kept += remarks(ours, at_end=True)
    # The gap before it came with it.
    if ours is not None and kept and not kept[-1].strip():
        kept.pop()
    return "".join(kept)


def remarks(ours: list[str] | None, *, at_end: bool = False) -> list[str]:
    """The lines behind the last value of a table, without the gap before them."""
    lines = ours or []
    end = len(lines)
    while end and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
        end -= 1
    rest = lines[end:]
    while rest and not rest[0].strip():
        rest = rest[1:]
    return rest


def says(text: str, expected: dict[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == expected
    except (ValueError, RecursionError):
        return False


def with_value(config: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    inner = config
    for name in path[:-1]:
        inner = inner.setdefault(name, {})
    inner[path[-1]] = value
    return config


def without(config: dict[str, Any], path: Sequence[str]) -> dict[str, Any]:
    inner = config
    for name in path[:-1]:
        inner = inner[name]
    inner.pop(path[-1], None)
    return config
