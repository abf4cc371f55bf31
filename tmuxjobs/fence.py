"""Output and our own lines in one text, so that neither can be taken for the other."""

from __future__ import annotations

import re
from itertools import groupby

FENCE = "=="
FORGED = re.compile(rf"(?:^|(?<=\r))(?=\\*{FENCE}(?:[\s\u2800]|$))", re.MULTILINE)
"""Where a line of output begins like ours, whatever kind of blank it has, or like one that has been quoted."""
REPEATS = 4


def printed(stdout: str, stderr: str) -> list[str]:
    """Both as text, apart; the fields of an answer have every line."""
    parts = [folded(stdout)] if stdout else []
    return [*parts, f"{FENCE} stderr\n{folded(stderr)}"] if stderr else parts


def quoted(output: str) -> str:
    """With a backslash before each line that could be taken for one of ours."""
    return FORGED.sub(r"\\", output)


def fenced(parts: list[str], ours: str) -> str:
    """What a job printed, `==`, and what we say of it; without output there is no `==`."""
    return "\n".join([*parts, *([FENCE] if parts else []), ours])


def folded(output: str) -> str:
    """Lines that come many times in a row once, with their number, where that is shorter; quoted."""
    lines: list[str] = []
    for line, group in groupby(quoted(output.rstrip("\n")).split("\n")):
        times = sum(1 for _ in group)
        note = f"{FENCE} this line {times} times"
        fold = times >= REPEATS and (times - 1) * (len(line) + 1) > len(note)
        lines += [line, note] if fold else [line] * times
    return "\n".join(lines)
