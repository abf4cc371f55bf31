"""Edits a mapping in YAML's block style by whole lines: not a byte beside them changes."""

import json
from collections.abc import Sequence
from typing import Any

import yaml

INDENT = "  "


def load(text: str) -> Any:
    """What it says; an empty file is an empty mapping. Raises ValueError."""
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    return {} if config is None else config


def put(text: str, path: Sequence[str], value: Any) -> str:
    """The text with that value under the two keys of the path, as the first of its section. Raises ValueError."""
    config = load(text)
    section, name, *inside = path
    newline = "\r\n" if "\r\n" in text else "\n"
    if inside:
        return put(take(text, path[:2]), path[:2], config[section][name] | {inside[0]: value})
    if isinstance(config.get(section), dict) and name in config[section]:
        text = take(text, path)
    found = member(yaml.compose(text), section)
    if found is None:
        ends = newline if text and not text.endswith("\n") else ""
        return text + ends + f"{section}:{newline}" + entry(name, value, INDENT, newline)
    key, there = found
    start = line_start(text, key.start_mark.index)
    if isinstance(there, yaml.MappingNode) and not there.flow_style:
        after = line_end(text, key.end_mark.index)
        indent = " " * there.value[0][0].start_mark.column
        return text[:after] + entry(name, value, indent, newline) + text[after:]
    if isinstance(there, yaml.MappingNode) and there.value:
        opened = there.start_mark.index + 1
        return text[:opened] + f"{name}: {json.dumps(value)}, " + text[opened:]
    # Nothing is in it: `{}`, `null`, or not a word.
    end = there.end_mark.index if there.end_mark.index > key.end_mark.index else text.index(":", key.end_mark.index) + 1
    after = line_end(text, end)
    head = text[start : text.index(":", key.end_mark.index) + 1]
    remark = text[end:after].rstrip("\r\n")
    indent = " " * key.start_mark.column + INDENT
    return text[:start] + head + remark + newline + entry(name, value, indent, newline) + text[after:]


def take(text: str, path: Sequence[str]) -> str:
    """The text without the lines of that entry. Raises ValueError."""
    found = member(yaml.compose(text), path[0])
    entries = found[1] if found else None
    ours = member(entries, path[1])
    if found is None or ours is None or not isinstance(entries, yaml.MappingNode):
        return text
    if entries.flow_style:
        number = entries.value.index(ours)
        begins, ends = ours[0].start_mark.index, ours[1].end_mark.index
        if number + 1 < len(entries.value):
            ends = entries.value[number + 1][0].start_mark.index
        elif number:
            begins = entries.value[number - 1][1].end_mark.index
        return text[:begins] + text[ends:]
    start, end = line_start(text, ours[0].start_mark.index), line_end(text, content_end(ours[1]))
    if len(entries.value) > 1:
        return text[:start] + text[end:]
    colon = text.index(":", found[0].end_mark.index) + 1
    return text[:colon] + " {}" + text[colon:start] + text[end:]


def member(node: Any, name: str) -> tuple[Any, Any] | None:
    """The key and the value of that name; ValueError where there is no mapping."""
    if node is None:
        return None
    if not isinstance(node, yaml.MappingNode):
        raise ValueError("it is not laid out as expected")
    return next(((key, value) for key, value in node.value if key.value == name), None)


def content_end(node: Any) -> int:
    """Where its last word ends: a block's own end is where the next thing begins."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style or not node.value:
        end: int = node.end_mark.index
        return end
    last = node.value[-1]
    return content_end(last[1] if isinstance(last, tuple) else last)


def entry(name: str, value: dict[str, Any], indent: str, newline: str) -> str:
    """JSON's words and lists are YAML's too."""
    lines = [f"{indent}{name}:"]
    lines += [f"{indent}{INDENT}{key}: {json.dumps(one, ensure_ascii=False)}" for key, one in value.items()]
    return "".join(line + newline for line in lines)


def line_start(text: str, at: int) -> int:
    return text.rfind("\n", 0, at) + 1


def line_end(text: str, at: int) -> int:
    """Behind the end of that line."""
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1
