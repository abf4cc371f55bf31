"""Turns terminal bytes into the text a person would have read.

Pure: knows no files and no jobs. Text runs through regular expressions at C speed; only lines that really move the
cursor are drawn on a small model of the screen.
"""

from __future__ import annotations

import codecs
import copy
import re
from typing import Final

from tmuxjobs.text.row import REACH, ROWS, set_stop, stop_before
from tmuxjobs.text.virtual_screen import Canvas

MOVES: Final = (
    r"(?:\[[0-9;:]{0,64}[@A-HJKLMPSTXZ`abdefgrsu]|\[(?:[0-9]{1,5};){0,8}4[hl]"
    r"|\[\?(?:[0-9]{1,5};){0,8}(?:47|1047|1049)[hl]|[78DEHMc])"
)
_ENDS: Final = r"\x07\x18\x1a\x1b\n\v\f"  # of a string; a runaway one ends with its line
_STRING: Final = rf"(?:[\]X^_k]|P(?![0-9;]{{0,64}}q))[^{_ENDS}]*"
_SIXEL: Final = r"P[0-9;]{0,64}q[!-~\r\n]*"  # may hold newlines, but never a blank: a runaway one ends at the next word
_CSI: Final = r"\[[0-?]{0,256}[\ -/]{0,8}[@-~]?"
_ENDED: Final = rf"(?:{_SIXEL}|{_STRING})(?:\x07|\x18|\x1a|\x1b\\)?"
STRIPPED: Final = re.compile(
    rf"""\x1b(?: \[[0-9;:]{{0,64}}m
         | (?!{MOVES}|\(0|\)[0-~]) (?: {_CSI} | {_ENDED} | [\ -/]{{1,8}}[0-~]? | [0-~] )? )""",
    re.VERBOSE,
)
INCOMPLETE: Final = re.compile(rf"\x1b(?:\[[0-?]{{0,256}}[ -/]{{0,8}}|{_SIXEL}|{_STRING}|[ -/]{{1,8}})?\Z")
_SIXEL_BEGUN: Final = re.compile(rf"\x1b{_SIXEL}\Z")
_DCS_HEADER: Final = re.compile(r"\x1bP[0-9;]{0,64}\Z")
_PART: Final = re.compile(
    rf"(?P<text>[^\x1b\x0e\x0f]+)|(?P<shift>[\x0e\x0f])|\x1b(?P<slot>[()])(?P<set>[ -/]*[0-~])|\x1b(?P<saved>[78c])"
    rf"|\x1b(?:{_CSI}|{_ENDED}|[ -/]{{1,8}}[0-~]?|[0-~])"
)
# The VT100's set, as tmux draws it; the shapes of `_` and of controls that tmux leaves alone are left alone here.
_GRAPHICS: Final = str.maketrans(
    "+,-.0`abcdefghijklmnopqrstuvwxyz{|}~", "→←↑↓▮◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·"
)  # fmt: skip


def shortest(escape: str) -> str:
    """A short unfinished sequence that continues in the same way, so that an endless string takes no memory."""
    if escape[1:2] not in ("]", "P", "X", "^", "_", "k") or _DCS_HEADER.match(escape):
        return escape
    if _SIXEL_BEGUN.match(escape):
        return "\x1bPq"
    return escape[:2] + "x"


def drawn(data: bytes) -> bytes:
    """The bytes with line drawing replaced by the characters that it shows."""
    if b"\x0e" not in data and b"\x1b(" not in data:
        return data
    text = data.decode("utf-8", "surrogateescape")
    return Charsets(continued=True).resolve(text).encode("utf-8", "surrogateescape")


class Charsets:
    """Which of the sets G0 and G1 are line drawing, and which one is in use (SO, SI): `ESC ( 0 lqqk` reads `┌──┐`.

    A later part of a stream takes G1 for line drawing: programs choose it once, at their start.
    """

    def __init__(self, *, continued: bool) -> None:
        self._draws = (False, continued)
        self._shifted = False
        self._saved = (False, False)
        """G0 and the shift as ESC 7 saved them; G1 stays as it is, so that most text need not be examined."""

    def copy(self) -> Charsets:
        other = Charsets(continued=False)
        other._draws, other._shifted, other._saved = self._draws, self._shifted, self._saved
        return other

    def without_escapes(self, text: str) -> str:
        """The text without sequences that neither move nor erase, and with line drawing as what it shows."""
        if "\x0e" in text or self._draws[0] or self._shifted or any(self._saved):
            text = self.resolve(text)
        elif "\x0f" in text:
            text = text.replace("\x0f", "")
        if "\x1b" not in text:
            return text
        stripped = STRIPPED.sub("", text)
        # Finding one character costs a fiftieth of finding three.
        if "\x1b" in stripped and (
            ("(" in stripped and "\x1b(0" in stripped) or (")" in stripped and "\x1b)" in stripped)
        ):
            stripped = STRIPPED.sub("", self.resolve(text))
        return stripped

    def resolve(self, text: str) -> str:
        """The text without SO, SI and the sequences that choose a set."""
        return _PART.sub(self._part, text)

    def _part(self, match: re.Match[str]) -> str:
        kind = match.lastgroup
        if kind == "text":
            return match[0].translate(_GRAPHICS) if self._draws[self._shifted] else match[0]
        if kind == "shift":
            self._shifted = match[0] == "\x0e"
            return ""
        if kind == "set":
            draws = match["set"] == "0"
            self._draws = (draws, self._draws[1]) if match["slot"] == "(" else (self._draws[0], draws)
            return ""
        if match[0] == "\x1b7":
            self._saved = self._draws[0], self._shifted
        elif kind == "saved":
            first, self._shifted = self._saved if match[0] == "\x1b8" else (False, False)
            self._draws = first, self._draws[1]
        return match[0]


_BLOCK: Final = 1 << 18  # fits the processor's cache: a third faster than one piece
# BEL, CAN and SUB end strings and SO and SI choose a character set, so they stay until the escapes are gone.
_DROPPED: Final = bytes(set(range(0x20)) - set(b"\a\b\t\n\v\f\r\x0e\x0f\x18\x1a\x1b")) + b"\x7f"
_FEEDS: Final = bytes.maketrans(b"\v\f", b"\n\n")  # to a terminal, all three are line feeds
_C1: Final = re.compile("[\x80-\x9f]+")
_CONTROL: Final = re.compile(r"[\b\r\x1b]")
_ERASE_AHEAD: Final = re.compile(r"\x1b\[0?[JK]")  # nothing at the end of a row; grep and gcc colour with it
_TOKEN: Final = re.compile(
    r"(?P<text>[^\b\n\r\x1b]+)|\x1b\[(?P<parameters>[0-9;:]*)(?P<move>[@-Z`a-z])|\x1b\[\?[0-9;]*(?P<alternate>[hl])"
    r"|\x1b(?P<single>.)|(?P<control>[\b\n\r])"
)


def clean(data: bytes, *, continued: bool = False) -> str:
    """The text of a whole stream, never longer than the stream.

    Full clears keep what they cleared and start a new line. What is drawn on an alternate screen is left out, unless
    the screen was never left: then its last state is shown. With *continued* the data is a later part of a stream, and
    a cursor that moves above its first row finds new rows there instead of the first.
    """
    cleaner = Cleaner(continued=continued)
    texts = [cleaner.feed(data[start : start + _BLOCK]) for start in range(0, len(data), _BLOCK)]
    return "".join(texts) + cleaner.finish()


def settled(data: bytes) -> int:
    """How many of the bytes come before an unfinished escape sequence, character or carriage return at the end."""
    end = len(data)
    escape = data.rfind(b"\x1b")
    if escape >= 0 and INCOMPLETE.match(data[escape:].decode("latin-1")):
        end = escape
    for back in range(1, min(3, end) + 1):
        byte = data[end - back]
        if byte >= 0xC0:
            end -= back if back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) else 0
        if byte < 0x80 or byte >= 0xC0:
            break
    return len(data[:end].rstrip(b"\r"))


def redraws(line: bytes) -> bool:
    """Whether what was already drawn of the line may have been changed, as in a progress bar."""
    if not _CONTROL.search(line.decode("latin-1")):
        return False
    text = _ERASE_AHEAD.sub("", Charsets(continued=True).without_escapes(line.decode("latin-1")))
    return bool(_CONTROL.search(text.rstrip("\r\n")))


def printable_lines(data: bytes) -> str | None:
    """The clean text, line for line that of the data, when no line needs the screen model; else None."""
    text = _without_controls(data).decode("utf-8", "replace")
    text = Charsets(continued=True).without_escapes(_without_c1(text) if b"\xc2" in data else text)
    text = _with_newlines(_without_noise(text))
    if "\x1b" in text:
        text = _ERASE_AHEAD.sub("", text)
    return text if _plain(text) else None


def _plain(text: str) -> bool:
    return "\x1b" not in text and "\r" not in text and "\b" not in text


def _without_controls(data: bytes) -> bytes:
    """Without control characters; also without CRs if each belongs to a CRLF, three times as fast as replacing them."""
    only_crlf = data.count(b"\r") == data.count(b"\r\n")
    return data.translate(_FEEDS, _DROPPED + b"\r" if only_crlf else _DROPPED)


def _without_noise(text: str) -> str:
    for noise in "\a\x18\x1a":
        if noise in text:  # takes a thirtieth of a replacement that finds nothing
            text = text.replace(noise, "")
    return text


def _without_c1(text: str) -> str:
    """C1 controls are dropped, not obeyed, as in tmux; in UTF-8 their first byte is 0xC2."""
    return _C1.sub("", text)


def _with_newlines(text: str) -> str:
    if "\r" not in text:
        return text
    if "\r\r" in text:
        text = re.sub("\r{2,}", "\r", text)
    return text.replace("\r\n", "\n")


class Cleaner:
    """`clean`, a piece at a time: any split of a stream gives the same text in total.

    `shows_alternate` set to False leaves out an alternate screen even while the program is still on it.
    """

    def __init__(self, *, continued: bool = False) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._escape = ""
        self._return = ""
        self._charsets = Charsets(continued=continued)
        self._screen = Canvas(continued=continued)
        self._alternate: Canvas | None = None
        self.shows_alternate = True

    def feed(self, data: bytes) -> str:
        """Take the next bytes; return the text that has become final. A newline comes with the text after it."""
        held = self._decoder.getstate()[0]
        text = self._decoder.decode(_without_controls(data))
        self._take(_without_c1(text) if b"\xc2" in held + data else text)
        return self._screen.drain()

    def copy(self) -> Cleaner:
        """A second cleaner that continues from the same place."""
        other = copy.copy(self)
        other._decoder = copy.copy(self._decoder)
        other._charsets = self._charsets.copy()
        other._screen = self._screen.copy()
        other._alternate = self._alternate and self._alternate.copy()
        return other

    @property
    def in_sequence(self) -> bool:
        """Whether the stream ends inside an escape sequence."""
        return bool(self._escape)

    @property
    def pending(self) -> str:
        """The text that a redraw could still change: what `finish` would return if nothing more came."""
        text = self._screen.text()
        if self._alternate is None or not self.shows_alternate:
            return text
        shown = self._alternate.text()
        separator = "\n" if shown and not self._screen.at_line_start() else ""
        return text + separator + shown

    def finish(self) -> str:
        """The rest of the text. An unfinished escape sequence is dropped, an unfinished character becomes U+FFFD."""
        self._take(self._decoder.decode(b"", True))
        self._escape = ""
        if self._return:
            self._draw(self._return)
            self._return = ""
        return self._screen.drain() + self.pending

    def _take(self, text: str) -> None:
        text = self._escape + text
        escape = text.rfind("\x1b")
        self._escape = ""
        if escape >= 0 and INCOMPLETE.match(text, escape):
            self._escape = shortest(text[escape:])
            text = text[:escape]
        text = self._return + _without_noise(self._charsets.without_escapes(text))
        self._return = "\r" if text.endswith("\r") else ""
        self._draw(_with_newlines(text.rstrip("\r") if self._return else text))

    def _draw(self, text: str) -> None:
        screen = self._alternate or self._screen
        if screen.flows:
            bare = _ERASE_AHEAD.sub("", text) if "\x1b" in text else text
            if _plain(bare):
                screen.flow(bare)
                return
        position = 0
        while position < len(text):
            position = self._draw_some(text, position)

    def _draw_some(self, text: str, position: int) -> int:
        """Draw the plain lines from *position*, or else the next line; return where that ends."""
        screen = self._alternate or self._screen
        if screen.flows:
            hit = _CONTROL.search(text, position)
            plain = text.rfind("\n", position, hit.start()) + 1 if hit else len(text)
            if plain > position:
                screen.flow(text[position:plain])
                return plain
        end = text.find("\n", position) + 1 or len(text)
        line = text[position:end]
        bare = _ERASE_AHEAD.sub("", line) if screen.flows else line
        if screen.flows and _plain(bare):
            screen.flow(bare)
        else:
            self._interpret(line)
        return end

    def _interpret(self, line: str) -> None:
        for token in _TOKEN.finditer(line):
            kind, length = token.lastgroup, token.end() - token.start()
            screen = self._alternate or self._screen
            if kind == "text":
                screen.write(token[0])
            elif kind == "alternate":
                self._switch(token[0].endswith("h"), length)
            elif kind == "move":
                move(screen, token["move"], token["parameters"], length)
            else:
                control(screen, token["single"] or token["control"], length)

    def _switch(self, enter: bool, length: int) -> None:
        if not enter:
            self._alternate = None
        elif self._alternate is None:
            self._alternate = Canvas(continued=False, keeps_history=False)
            self._alternate.pay(length)


def control(canvas: Canvas, character: str, length: int) -> None:
    """Obey a control character, or what follows ESC; *length* is that of the whole sequence."""
    if canvas.homed:
        canvas.settle(character)
    canvas.homed, canvas.last = False, ""
    if character == "\n":
        canvas.newline()
        return
    if character == "\r":
        canvas.carriage_return()
    elif character == "\b":
        canvas.go(canvas.place() - 1)
    elif character == "7":
        canvas.save()
    elif character == "8":
        canvas.restore()
    elif character == "E":
        canvas.newline()
    elif character == "D":
        canvas.down(1, scrolls=True)
    elif character == "H":
        canvas.stops = set_stop(min(canvas.place(), REACH), canvas.stops, is_one=True)
    elif character == "M":
        canvas.up(1, scrolls=True)
    elif character == "c":
        canvas.reset()
    canvas.pay(length)


def move(canvas: Canvas, final: str, parameters: str, length: int) -> None:
    """Obey a sequence that begins with ESC [ and ends with *final*."""
    if canvas.homed:
        canvas.settle(final)
    first, second = (_number(parameters, index) for index in (0, 1))
    homed, canvas.homed = canvas.homed, final in "Hf" and first <= 1 and second <= 1
    last, canvas.last = canvas.last, ""
    count = max(1, first)
    if final in "AF":
        canvas.up(count)
    elif final in "BEe":
        canvas.down(count)
    elif final in "Ca":
        canvas.forward(canvas.place() + count)
    elif final == "D":
        canvas.go(canvas.place() - count)
    elif final in "G`":
        canvas.forward(count - 1)
    elif final in "Hf":
        canvas.goto(count, max(1, second) - 1)
    elif final == "d":
        canvas.goto(count, canvas.place())
    elif final == "s" and not parameters:
        canvas.save()
    elif final == "u" and not parameters:
        canvas.restore()
    elif final == "J":
        canvas.erase_display(first, homed)
    elif final == "b":
        _repeat(canvas, last, count)
    elif final in "STrghlZ":
        _change(canvas, final, first, second)
    else:
        canvas.edit_row(final, first)
    if final in "EF":
        canvas.carriage_return()
    if final != "K" and not (final == "J" and first == 0 and not homed):
        canvas.pay(length)


def _repeat(canvas: Canvas, last: str, count: int) -> None:
    """Repeat the last character; this adds characters that the stream does not have, so `credit` limits them."""
    count = min(count, canvas.credit, max(0, REACH - canvas.place()))
    if last and last not in "\t\n" and count:
        canvas.credit -= count
        canvas.write(last * count)
    canvas.last = ""


def _change(canvas: Canvas, final: str, first: int, second: int) -> None:
    """Obey sequences for scrolling, margins, tab stops and modes."""
    if final == "S":
        canvas.scroll(min(max(1, first), ROWS))
    elif final == "T":
        canvas.scroll_back(min(max(1, first), ROWS))
    elif final == "r":
        canvas.set_margins(first, second)
    elif final == "Z":
        canvas.go(stop_before(canvas.place(), max(1, first), canvas.stops))
    elif final == "g":
        canvas.stops = [] if first == 3 else set_stop(canvas.place(), canvas.stops, is_one=False)
    else:
        canvas.inserts = final == "h"


def _number(parameters: str, index: int) -> int:
    """A parameter of a sequence; 0 when it is missing or not a number."""
    fields = parameters.split(";", index + 1)
    if len(fields) <= index or not fields[index].isdecimal():
        return 0
    return int(fields[index][:6])
