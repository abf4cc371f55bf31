r"""Text from a job or a caller, made safe to show: characters that do not show, or move those that do, are spelled out.

The notation is Python's: `\x1b`, `\x9b`, `\u202e`, `\U000e0041`, and `\n` where the text must stay on one line. Unlike
`^[` it covers every character, and unlike the symbols from U+2400 on it shows on any terminal and a model knows it.
A backslash of the text itself stays as it is: the result is for reading, not for decoding.

Made visible are the controls C0, DEL and C1; lone surrogates; line and paragraph separators; and what Unicode calls
format or default-ignorable characters: bidirectional controls, tags, zero width spaces, fillers, the byte order mark.
Kept are the few that ordinary text needs, where they can hide nothing: the zero width joiner and non-joiner directly
after a character from U+0600 on (emoji, Persian, Indic scripts), and one of the two variation selectors that choose
between text and emoji after a character that can be either. Within a word of Latin letters all are made visible. The
price is the few flags that are spelled with tags, such as England's. Only what precedes a character decides, so a text
may come in pieces.

Stdlib only, also for the processes in the panes. Ranges: Unicode 16, DerivedCoreProperties.txt, Default_Ignorable.
"""

from __future__ import annotations

import json
import re
from itertools import groupby

CONTROLS = r"\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029"
IGNORED = (
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d"
    r"\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
JOINERS, SELECTORS = r"\u200c\u200d", r"\ufe0e\ufe0f"
NEVER = CONTROLS + IGNORED + JOINERS + SELECTORS
JOINS = rf"[^\x00-\u05ff{NEVER}]"
SELECTS = rf"[^\x00-\u203b{NEVER}]"
HIDDEN = (
    f"[{CONTROLS}{IGNORED}]|(?<!{JOINS})(?<!{SELECTS}[{SELECTORS}])[{JOINERS}]"
    rf"|(?<!{SELECTS})(?<![#*0-9\xa9\xae])[{SELECTORS}]"
)
SPELLED_OUT = 1000
"""Characters that this may add to any text."""
IN_LINES = rf"(?![\n\t])(?:{HIDDEN})"


def visible(text: str, *, lines: bool = False) -> str:
    """The text with every hidden character spelled out; with `lines` newlines and tabs stay as they are."""
    if text.isascii() and text.isprintable():
        return text
    # Compiled, and cached by `re`, only when it is needed: a job's start waits for the import of this module.
    return re.sub(IN_LINES if lines else HIDDEN, lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_lines(text: str) -> str:
    r"""`visible` for a text of several lines, which grows to little more than twice its size.

    Where it would grow further each run of hidden characters is counted instead, `\+7`: an agent pays per character.
    """
    shown = visible(text, lines=True)
    if len(shown) <= 2 * len(text) + SPELLED_OUT:
        return shown
    return re.sub(f"(?:{IN_LINES})+", lambda found: f"\\+{len(found[0])}", text)


def visible_json(text: str) -> str:
    """The same JSON with hidden characters as JSON's own escapes, so that it parses to the same value."""
    return re.sub(HIDDEN, escape_json, text)


def escape_json(found: re.Match[str]) -> str:
    char = found[0]
    return "\\u007f" if char == "\x7f" else json.dumps(char)[1:-1]


FENCE = "=="
FORGED = re.compile(rf"(?:^|(?<=\r))(?=\\*{FENCE}(?:[\s\u2800]|$))", re.MULTILINE)
"""The start of a line of output that begins like ours, with any kind of blank, or like one that has been quoted."""
REPEATS = 4


def printed(stdout: str, stderr: str) -> list[str]:
    """Both streams as text, separately; only the fields of an answer have every line."""
    parts = [folded(stdout)] if stdout else []
    return [*parts, f"{FENCE} stderr\n{folded(stderr)}"] if stderr else parts


def quoted(output: str) -> str:
    """The output with a backslash before each line that could be mistaken for one of ours."""
    return FORGED.sub(r"\\", output)


def fenced(parts: list[str], ours: str) -> str:
    """What a job printed, `==`, and what we say about it; without output there is no `==`."""
    return "\n".join([*parts, *([FENCE] if parts else []), ours])


def folded(output: str) -> str:
    """The quoted output, with a line that repeats shown once with the number of times, if that is shorter."""
    lines: list[str] = []
    for line, group in groupby(quoted(output.rstrip("\n")).split("\n")):
        times = sum(1 for _ in group)
        note = f"{FENCE} this line {times} times"
        fold = times >= REPEATS and (times - 1) * (len(line) + 1) > len(note)
        lines += [line, note] if fold else [line] * times
    return "\n".join(lines)


RULER = r"(?m)^[ \t]*([^\w\s]|_)\1{7}(?:\1*|\1*(?=( [^\n]* \1{8}))\2\1*)[ \t]*$"
"""A line of one repeated character, or of two such parts with a title between them, as pytest draws it."""
RUN = r"([^\w\s]|_)\1{15,}"


FILLER = r"(?m)^([^\w\s])\n(?:\1\n){7,}"
"""Lines of the same single character, as vim shows them after the end of a file."""


def short_rulers(output: str) -> str:
    """The text with `[= x80]` for eighty `=` in a line that only divides, and `[~ on 20 lines]` for such lines.

    What is part of a table or a bar stays.
    """
    short = re.sub(RULER, lambda line: re.sub(RUN, lambda run: f"[{run[1]} x{len(run[0])}]", line[0]), output)
    return re.sub(FILLER, lambda lines: f"[{lines[1]} on {lines[0].count(lines[1])} lines]\n", short)
