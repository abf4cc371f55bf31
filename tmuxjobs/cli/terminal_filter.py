"""What of a job's terminal stream may reach another terminal: text, colours, and moves and erasures around the cursor.

All else is meant for the job's own window: what asks the terminal (its answer would be typed into the person's shell),
sets its modes, title, keys or clipboard, or leaves the line and the lines around it. Knows no jobs and no terminals.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from tmuxjobs.visible import visible

State = Literal["text", "escape", "intermediate", "sequence", "header", "string", "sixel"]
PASSED: Final = "\b\t\n\r"
ABORTS: Final = "\x18\x1a"
# Its parameters are bounded, for terminals have overflowed on huge ones; a repeat (`b`) would multiply what is printed.
ALLOWED: Final = re.compile(r"(?:[0-9]{0,5}[;:]){0,32}[0-9]{0,5}m|[0-9]{0,4}[A-GPX@`]|[0-2]?K")
WHOLE: Final = re.compile(rf"(?:[{PASSED}]|\x1b\[(?:{ALLOWED.pattern}))+")
"""What passes as it stands: only for speed, the states say the same."""
PARAMETERS: Final = 256
RUNS: Final[dict[State, re.Pattern[str]]] = {
    "text": re.compile(r"[^\x00-\x1f\x7f-\x9f]+"),
    "string": re.compile(r"[^\a\n\x18\x1a\x1b]+"),
    "sixel": re.compile(r"[!-~\r\n]+"),
}


class TerminalFilter:
    """A piece of the stream in, what may be written out; any split of a stream gives the same in total.

    A parser with the states of a VT500 (vt100.net/emu/dec_ansi_parser), so that it takes a sequence to end where the
    terminal does: a control in its midst is obeyed at once, ESC begins anew, CAN and SUB abort. It differs where tmux
    and `clean.py` do: C1 controls in their 8-bit form are dropped, not obeyed, and a string ends with its line.
    Text is made visible, see `visible.py`.
    """

    def __init__(self) -> None:
        self._state: State = "text"
        self._sequence = ""
        self._shown = ""
        """The last two characters of text, if nothing came since: they decide about a joiner behind them."""

    def __call__(self, piece: str) -> str:
        out: list[str] = []
        at = 0
        while at < len(piece):
            runs = RUNS.get(self._state)
            if runs and (run := runs.match(piece, at)):
                out.append(self._show(run[0]) if self._state == "text" else "")
                at = run.end()
            elif self._state == "text" and (run := WHOLE.match(piece, at)):
                self._shown = ""
                out.append(run[0])
                at = run.end()
            else:
                out.append(self._take(piece[at]))
                at += 1
        return "".join(out)

    def _show(self, text: str) -> str:
        before = self._shown
        self._shown = (before + text)[-2:]
        return visible(before + text)[len(visible(before)) :]

    def _take(self, char: str) -> str:
        if char == "\x1b":
            self._state = "escape"
        elif char in ABORTS:
            self._state = "text"
        elif self._state in ("header", "string", "sixel"):
            return self._in_string(char)
        elif char in PASSED:
            self._shown = ""
            return char
        elif char < " " or "\x7f" <= char <= "\x9f":
            pass
        elif char > "~":
            self._state = "text"
            return self._show(char)
        elif self._state == "escape":
            self._escaped(char)
        elif self._state == "intermediate":
            self._state = "intermediate" if char < "0" else "text"
        elif char < "@":
            self._sequence = (self._sequence + char)[:PARAMETERS]
        else:
            self._state = "text"
            if ALLOWED.fullmatch(self._sequence + char):
                self._shown = ""
                return f"\x1b[{self._sequence}{char}"
        return ""

    def _escaped(self, char: str) -> None:
        self._sequence = ""
        if char == "[":
            self._state = "sequence"
        elif char == "P":
            self._state = "header"
        elif char in "]X^_k":
            self._state = "string"
        else:
            self._state = "intermediate" if char < "0" else "text"

    def _in_string(self, char: str) -> str:
        if char in "\a\n" or self._state == "sixel":
            self._state = "text"
            return self(char)
        # A picture's data may hold newlines; it is recognised by how its string begins.
        if self._state == "header" and not (char.isdecimal() or char == ";"):
            self._state = "sixel" if char == "q" else "string"
        return ""
