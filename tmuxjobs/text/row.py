"""One row of the virtual screen: characters, wide ones and tabs, written over each other."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

WIDTH: Final = 16_384
"""Columns of a row; a longer line goes on in the next row, with no newline between (a terminal wraps the same way)."""
MARKS: Final = 64  # characters that a cell holds at most: a terminal keeps fewer combining marks
TAB: Final = 8
GAP: Final = "\0"  # a cell nobody wrote; NUL never gets this far as text
NARROW: Final = re.compile("[ -~\xa0-\xac\xae-\u02ff\u2500-\u25fc\u2800-\u28ff]*")  # one column each, most bars too


@dataclass(eq=False, slots=True)
class Row:
    """One row: plain `text` as long as it was only appended to, else `cells`, one a column ("" goes on a wide one).

    `paid` counts the characters of the stream spent on the row, its newline included. Cells that nobody wrote are
    shown as blanks only as far as this pays for them, so that text never outgrows its stream.
    """

    text: str = ""
    cells: list[str] | None = None
    lead: str = ""
    paid: int = 0
    edge: int = 0
    real: bool = False
    joined: bool = False
    wiped: int = 0  # so many cells at the start nobody wrote since they were erased: no need to erase them again
    bare: bool = False  # found to be blank, and nothing was drawn on it since: wide rows are not looked at again

    def copy(self) -> Row:
        cells = None if self.cells is None else self.cells.copy()
        return replace(self, cells=cells)

    def as_cells(self) -> list[str]:
        if self.cells is None:
            self.cells = []
            put(self, 0, self.text)
            self.text = ""
        return self.cells

    @property
    def blank(self) -> bool:
        if self.cells is None:
            return not self.text
        self.bare = self.bare or not (self.lead or "".join(self.cells).strip(" " + GAP))
        return self.bare

    def render(self, edge: int | None) -> str:
        """The text; printed blanks right of *edge*, where the cursor left the row, are dropped."""
        if self.cells is None:
            return self.text
        edge = self.edge if edge is None else edge
        right = "".join(self.cells[edge:]).rstrip(" \t" + GAP)
        text = (self.lead + "".join(self.cells[:edge]) + right).rstrip(GAP)
        gaps = text.count(GAP)
        return with_gaps(text, gaps, max(0, self.paid - 1 - len(text) + gaps)) if gaps else text


def with_gaps(text: str, gaps: int, room: int) -> str:
    widest = gaps if gaps <= room else room // len(re.findall(GAP + "+", text))
    return re.sub(GAP + "+", lambda gap: " " * min(len(gap[0]), widest), text)


def room_for(line: str, more: str) -> int:
    """How many characters may be added at once to a row of plain text, so that it takes WIDTH columns or a few more."""
    if "\t" not in more and "\t" not in line:
        return WIDTH - len(line)
    room = WIDTH - len(line) - (TAB - 1) * line.count("\t")
    return max(1, room // TAB) if room > 0 else 0


def put(row: Row, column: int, text: str) -> int:
    """Draw *text* over the row's cells from *column*; the column after it."""
    cells = row.as_cells()
    row.bare, row.wiped = False, min(row.wiped, column)
    for number, run in enumerate(text.split("\t")):
        if number:
            column = put_tab(cells, column)
        if NARROW.fullmatch(run):
            column = overwrite(cells, column, list(run)) if run else column
            continue
        for character in run:
            column = _put_character(row, column, character)
    return column


def _put_character(row: Row, column: int, character: str) -> int:
    from wcwidth import wcwidth  # takes 30 ms, and few logs draw such characters

    cells = row.as_cells()
    width = wcwidth(character)
    if width > 0:
        return overwrite(cells, column, [character, *[""] * (width - 1)])
    if column == 0:
        _add_mark(row, -1, character)
        return 0
    base = min(column, len(cells)) - 1
    while base > 0 and not cells[base]:
        base -= 1
    _add_mark(row, -1 if base < 0 or cells[base] == GAP else base, character)
    return column


def _add_mark(row: Row, base: int, character: str) -> None:
    """Add what takes no column to a cell, or to the start of the row."""
    cells = row.as_cells()
    if base < 0:
        row.lead += character if len(row.lead) < MARKS else ""
    elif len(cells[base]) < MARKS:
        cells[base] += character


def put_tab(cells: list[str], column: int) -> int:
    stop = (column // TAB + 1) * TAB
    if column < len(cells):
        return stop
    return overwrite(cells, column, ["\t", *[""] * (stop - column - 1)])


def overwrite(cells: list[str], column: int, new: list[str]) -> int:
    if column > len(cells):
        cells.extend([GAP] * (column - len(cells)))
    split_wide(cells, column)
    split_wide(cells, column + len(new))
    cells[column : column + len(new)] = new
    return column + len(new)


def split_wide(cells: list[str], column: int) -> None:
    """Blank a wide character or tab that the border before *column* runs through."""
    if column >= len(cells) or cells[column]:
        return
    start = end = column
    while start > 0 and not cells[start]:
        start -= 1
    while end < len(cells) and not cells[end]:
        end += 1
    cells[start:end] = [GAP] * (end - start)
