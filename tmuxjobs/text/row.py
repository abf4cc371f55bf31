"""One row of the virtual screen: characters, wide ones and tabs, written over each other; and the rows that scroll."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final

WIDTH: Final = 16_384
"""Columns of a row; a longer line goes on in the next row, with no newline between (a terminal wraps the same way)."""
MARKS: Final = 64  # characters that a cell holds at most: a terminal keeps fewer combining marks
TAB: Final = 8
REACH: Final = 1_000  # cursor moves end at this column, or a row's end if that is later, as at a screen's right edge
Stops = list[int] | None
"""Columns of tab stops that a program has set; None: one every TAB columns."""
GAP: Final = "\0"  # a cell that was never written; NUL never gets this far as text
NARROW: Final = re.compile("[ -~\xa0-\xac\xae-\u02ff\u2500-\u25fc\u2800-\u28ff]*")  # one column each, most bars too


@dataclass(eq=False, slots=True)
class Row:
    """One row: plain `text` as long as it was only appended to, else `cells`, one a column ("" continues a wide one).

    `paid` counts the characters of the stream spent on the row, including its newline. Cells that were never written
    are shown as blanks only as far as this pays for them, so that text never outgrows its stream.
    """

    text: str = ""
    cells: list[str] | None = None
    lead: str = ""
    paid: int = 0
    edge: int = 0
    real: bool = False
    joined: bool = False
    wiped: int = 0  # this many cells at the start were not written since they were erased: no need to erase them again
    bare: bool = False  # found to be blank, and not drawn on since: wide rows are not examined again

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
        """The text, without printed blanks right of *edge*, where the cursor left the row."""
        if self.cells is None:
            return self.text
        edge = self.edge if edge is None else edge
        right = "".join(self.cells[edge:]).rstrip(" \t" + GAP)
        text = (self.lead + "".join(self.cells[:edge]) + right).rstrip(GAP)
        gaps = text.count(GAP)
        return with_gaps(text, gaps, max(0, self.paid - 1 - len(text) + gaps)) if gaps else text


UNTOUCHED: Final = Row()
"""Stands for each row that was not touched; the cursor's row is replaced before it is changed."""


def with_gaps(text: str, gaps: int, room: int) -> str:
    widest = gaps if gaps <= room else room // len(re.findall(GAP + "+", text))
    return re.sub(GAP + "+", lambda gap: " " * min(len(gap[0]), widest), text)


def room_for(line: str, more: str) -> int:
    """How many characters may be added at once to a row of plain text, so that it takes about WIDTH columns at most."""
    if "\t" not in more and "\t" not in line:
        return WIDTH - len(line)
    room = WIDTH - len(line) - (TAB - 1) * line.count("\t")
    return max(1, room // TAB) if room > 0 else 0


def put(row: Row, column: int, text: str, stops: Stops = None, *, inserts: bool = False) -> int:
    """Draw *text* over the row's cells from *column*, or insert it there; return the column after it."""
    cells = row.as_cells()
    row.bare, row.wiped = False, min(row.wiped, column)
    for number, run in enumerate(text.split("\t")):
        if number:
            column = put_tab(cells, column, stops)
        if inserts and run:
            insert(row, column, put(Row(), 0, run))
        if NARROW.fullmatch(run):
            column = overwrite(cells, column, list(run)) if run else column
            continue
        for character in run:
            column = _put_character(row, column, character)
    return column


def cut(text: str, column: int) -> str:
    """The part of the text before that column, padded with blanks."""
    cells = Row(text=text).as_cells()
    return "".join(cells[:column]) + " " * (column - len(cells))


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
    """Add a character that takes no column to a cell, or to the start of the row."""
    cells = row.as_cells()
    if base < 0:
        row.lead += character if len(row.lead) < MARKS else ""
    elif len(cells[base]) < MARKS:
        cells[base] += character


def put_tab(cells: list[str], column: int, stops: Stops = None) -> int:
    stop = next_stop(column, stops)
    if column < len(cells):
        return stop
    return overwrite(cells, column, ["\t", *[""] * (stop - column - 1)])


def next_stop(column: int, stops: Stops) -> int:
    """Where a tab leads. Without a further stop that is the last column: REACH, as the screen is not known."""
    if stops is None:
        return (column // TAB + 1) * TAB
    index = bisect_right(stops, column)
    return stops[index] if index < len(stops) else max(column + 1, REACH)


def stop_before(column: int, count: int, stops: Stops) -> int:
    """Where *count* backward tabs lead."""
    if stops is None:
        return max(0, (column + TAB - 1) // TAB - count) * TAB
    index = bisect_left(stops, column) - count
    return stops[index] if index >= 0 else 0


def set_stop(column: int, stops: Stops, *, is_one: bool) -> list[int]:
    """The stops with one at *column*, or without one there."""
    stops = list(range(TAB, REACH + TAB, TAB)) if stops is None else stops
    index = bisect_left(stops, column)
    return stops[:index] + [column] * is_one + stops[bisect_right(stops, column) :]


def edit(row: Row, column: int, final: str, how: int) -> None:
    """Change a row as a sequence does that does not write: K and X erase, P removes cells, @ makes room for some."""
    cells, count = row.as_cells(), max(1, how)
    if final == "P":
        split_wide(cells, column)
        split_wide(cells, column + count)
        del cells[column : column + count]
        row.wiped = min(row.wiped, column)
    elif final == "@":
        insert(row, column, min(count, max(0, REACH - column)))
    elif final == "X":
        _blank(row, column, column + count)
    elif how == 0:
        split_wide(cells, column)
        del cells[column:]
    elif how == 1:
        _blank(row, 0, column + 1)
    elif how == 2:
        cells.clear()


def insert(row: Row, column: int, count: int) -> None:
    """Insert *count* unwritten cells at *column*."""
    cells = row.as_cells()
    if column < len(cells):
        split_wide(cells, column)
        cells[column:column] = [GAP] * count
        split_wide(cells, WIDTH)
        del cells[WIDTH:]


def _blank(row: Row, start: int, end: int) -> None:
    cells = row.as_cells()
    end = min(end, len(cells))
    if start == 0:
        start, row.wiped = row.wiped, max(row.wiped, end)
    if start < end:
        split_wide(cells, start)
        split_wide(cells, end)
        cells[start:end] = [GAP] * (end - start)


def overwrite(cells: list[str], column: int, new: list[str]) -> int:
    if column > len(cells):
        cells.extend([GAP] * (column - len(cells)))
    split_wide(cells, column)
    split_wide(cells, column + len(new))
    cells[column : column + len(new)] = new
    return column + len(new)


def split_wide(cells: list[str], column: int) -> None:
    """Blank a wide character or tab that crosses the left edge of *column*."""
    if column >= len(cells) or cells[column]:
        return
    start = end = column
    while start > 0 and not cells[start]:
        start -= 1
    while end < len(cells) and not cells[end]:
        end += 1
    cells[start:end] = [GAP] * (end - start)


ROWS: Final = 200
"""Rows that a redraw can still reach; above them text is final."""
REAL: Final = attrgetter("real")


class Region:
    """The rows of a page that scroll, between the margins that a program has set (DECSTBM).

    Counts from the page's first row, given as its place in a list of rows. The height of a screen is not known: until
    margins are set `bottom` is None. `height` is the lowest row that was ever addressed. A program that sets margins
    uses all rows, so once margins were reset the screen ends there.
    """

    def __init__(self, top: int = 0, bottom: int | None = None, *, height: int = 0, is_reset: bool = False) -> None:
        self.top = top
        self.bottom = bottom
        self.height = height
        self._is_reset = is_reset
        self._is_whole = False

    def changed(self, first: int, last: int) -> Region | None:
        """The region with other margins: rows from 1, 0 for the default. None for fewer than two rows: no change."""
        top, bottom = max(1, first) - 1, min(last, ROWS) - 1
        if not last:
            known = self.height - 1 if self.bottom is not None and self.height > top + 1 else None
            return Region(min(top, ROWS - 1), known, height=self.height, is_reset=True)
        if top >= bottom:
            return None
        new = Region(top, bottom, height=self.height)
        if self.bottom is not None and not top and bottom + 1 >= self.height:
            new._is_whole = self._is_whole if bottom == self.bottom else bottom > self.bottom + 1
        new.height = max(self.height, last if last < ROWS else 0)
        return new

    def passed_by(self, line: int) -> bool:
        """Whether that row, from 1, is the one below the screen: enlighten goes there to scroll."""
        if self._is_whole and line == self.height + 1:
            return True
        if self.height < line < ROWS:
            self.height, self._is_whole = line, False
            if self._is_reset and self.bottom is not None:
                self.bottom = line - 1
        return False

    def ends_at(self, row: int, page: int | None) -> bool:
        """Whether a line feed in that row scrolls."""
        return self.bottom is not None and page is not None and row == page + self.bottom

    def first_row(self, row: int, page: int | None) -> int:
        """The first row that the cursor can move up to from a row."""
        if page is None or row < page:
            return 0
        return page + (self.top if row >= page + self.top else 0)

    def end(self, rows: list[Row], row: int, page: int | None) -> int | None:
        """The place after its last row, if known and if *row* is in the region; all of its rows then exist."""
        if self.bottom is None or page is None or not self.top <= row - page <= self.bottom:
            return None
        end = page + self.bottom + 1
        rows.extend([UNTOUCHED] * (end - len(rows)))
        return end

    def insert(self, rows: list[Row], row: int, page: int | None, count: int) -> int:
        """Insert blank rows before *row* and return how many; as many are pushed out at the bottom margin."""
        if (end := self.end(rows, row, page)) is None:
            count = max(0, min(count, ROWS - len(rows)))
        else:
            count = min(count, end - row)
            del rows[end - count : end]
        rows[row:row] = [UNTOUCHED] * count
        return count

    def delete(self, rows: list[Row], row: int, page: int | None, count: int) -> int:
        """Remove rows from *row* on and return how many; blank ones come in at the bottom margin."""
        end = self.end(rows, row, page)
        count = min(count, (end or len(rows)) - row)
        del rows[row : row + count]
        if end is not None:
            rows[end - count : end - count] = [UNTOUCHED] * count
        return count

    def scroll(self, rows: list[Row], page: int, count: int) -> int:
        """Turn its first rows into text above the page, as tmux does into history; blank ones come in at the bottom
        margin. Returns how many rows the page moves down."""
        top = page + self.top
        end = self.end(rows, top, page)
        count = count if end is None else min(count, end - top)
        gone = rows[top : top + count]
        rows[top : top + count] = []
        kept = list(filter(REAL, gone))
        rows[page:page] = kept
        if end is not None:
            end += len(kept) - len(gone)
            rows[end:end] = [UNTOUCHED] * len(gone)
        return len(kept)
