"""What was typed into a job by us, so that whoever looks for a pattern does not take the echo for output.

`typed.jsonl` in the job's folder: where the log stood, and the lines. What is hidden as it is typed is never in it.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from tmuxjobs import files
from tmuxjobs.files import Odd

TYPED_BYTES = 1 << 16
LINE_BYTES = 4096


@dataclass(frozen=True)
class Typed:
    """A line that was typed: its echo begins at or before offset `at` of the log, behind a prompt or not."""

    at: int
    line: str


def note(folder: Path, at: int, text: str) -> None:
    """Write down what is about to be typed; what is long was pasted, and only its first lines are kept."""
    lines = [line for line in text[:LINE_BYTES].split("\n") if line]
    path = folder / "typed.jsonl"
    record = json.dumps({"at": at, "lines": lines}).encode() + b"\n"
    with contextlib.suppress(OSError, Odd):  # a full disk: the echo may count as output then
        fd = files.opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with open(fd, "ab", buffering=0) as file:
            if os.fstat(fd).st_size > TYPED_BYTES:
                file.truncate(0)
            file.write(record)


def typed(folder: Path) -> list[Typed]:
    """All lines that were typed."""
    found = []
    with contextlib.suppress(OSError, Odd):
        for record in files.read(folder / "typed.jsonl").splitlines():
            with contextlib.suppress(Odd):  # cut off by a full disk or a kill
                fields = files.fields_of(record)
                at, lines = fields.get("at"), fields.get("lines")
                if not files.is_whole(at) or not isinstance(lines, list) or not all(map(files.is_text, lines)):
                    continue
                for line in lines:
                    found.append(Typed(at, line))
                    # Each line is echoed with its end, and behind a prompt of its own at the most.
                    at += 2 * len(line.encode()) + 2
    return found


def is_echo(folder: Path, start: int, line: str) -> bool:
    """Whether a line of the log that begins at offset `start` only shows what was typed; `line` may be cut with `…`."""
    shown = line.strip("…").rstrip()
    for one in typed(folder):
        wanted = one.line.rstrip()
        ends = shown.endswith(wanted) or (shown != line.rstrip() and shown in wanted)
        # The end of the line is behind the place where the log stood: what was printed earlier is no echo.
        if wanted and start <= one.at <= start + 4 * len(line.encode()) + 256 and ends:
            return True
    return False
