"""A small model of a screen: what the moves and erasures of terminal output leave on its rows. Knows no bytes.

Each sequence touches at most ROWS rows or the cells of one row, each in one operation on a list.
"""

from __future__ import annotations

import copy
from typing import Final

from tmuxjobs.text.row import (
    NARROW,
    REACH,
    REAL,
    ROWS,
    TAB,
    UNTOUCHED,
    WIDTH,
    Region,
    Row,
    Stops,
    edit,
    put,
    room_for,
)

REPEATED: Final = 1 << 16
"""Characters that the sequence "repeat the last one" may add to a stream in all."""


class Canvas:
    """The last rows of a stream and the cursor in them. The height is not known, so absolute rows count from a "page":
    the row where the last full clear, or the first absolute move, put the home position. A page below the row that text
    flows in (apt's status line) stays below it."""

    def __init__(self, *, continued: bool, keeps_history: bool = True) -> None:
        self._rows = [Row(paid=1)]
        self._row = 0
        self._column: int | None = None  # None: at the end of a row of plain text
        self._page: int | None = None
        self._saved: tuple[Row, int, int | None] | None = None
        self.homed = self._is_due_home = False
        self._continued = continued
        self._keeps_history = keeps_history
        self._started = False
        self._final: list[str] = []
        self._region = Region()
        self.stops: Stops = None
        self.inserts = False
        self.last = ""
        self.credit = REPEATED

    def copy(self) -> Canvas:
        other = copy.copy(self)
        other._rows = [row if row is UNTOUCHED else row.copy() for row in self._rows]
        other._final = self._final.copy()
        other._region = copy.copy(self._region)
        if self._saved is not None and self._saved[0] in self._rows:
            other._saved = other._rows[self._rows.index(self._saved[0])], *self._saved[1:]
        return other

    def drain(self) -> str:
        """The text of the rows that left the window since the last call."""
        text = "".join(self._final)
        self._final.clear()
        return text

    def text(self) -> str:
        """The rows, without blank ones below the cursor, which are left over from what was erased."""
        parts: list[str] = []
        for number, row in enumerate(self._rows[: self._last_row() + 1]):
            if row.real:
                parts.append(self._separator(row, started=self._started or bool(parts)))
                parts.append(row.render(self._edge() if number == self._row else None))
        return "".join(parts)

    def _last_row(self) -> int:
        last = len(self._rows) - 1
        while last > self._row and self._rows[last].blank:
            last -= 1
        below = self._rows[last + 1 : last + 2]
        return last + (bool(below) and below[0].real and not self._rows[last].blank)

    def at_line_start(self) -> bool:
        text = self.text()
        return text.endswith("\n") or (not text and not self._started)

    @property
    def _here(self) -> Row:
        """The cursor's row."""
        row = self._rows[self._row]
        if row is UNTOUCHED:
            row = self._rows[self._row] = Row()
        return row

    def pay(self, length: int) -> None:
        row = self._rows[self._row]
        if row is UNTOUCHED:
            row = self._here
        row.paid += length

    @property
    def flows(self) -> bool:
        """Whether text can simply be appended."""
        if self._column is not None or self._row < len(self._rows) - 1 or self.homed or self.stops is not None:
            return False
        return self._region.bottom is None or self._page is None or self._at_end

    @property
    def _at_end(self) -> bool:
        """Whether the cursor is in the last row of a screen that scrolls as a whole."""
        return not self._region.top and self._region.ends_at(self._row, self._page)

    def flow(self, text: str) -> None:
        """Append text that moves the cursor only by newlines."""
        self.last = text[-1:] or self.last
        parts = text.split("\n") if len(text) < ROWS else text.rsplit("\n", ROWS)
        if len(parts) > ROWS and "\n" in parts[0]:
            for row in self._rows:
                self._emit(row)
            if self._keeps_history:
                self._final.append(parts[0])
            # The page comes back with the rows that follow, of which there are more.
            self._page = -(self._region.bottom or 0) if self._at_end else None
            self._rows, self._row = [Row(real=True, joined=True, paid=1)], 0
        else:
            self._append(parts[0])
        for part in parts[1:]:
            self.newline()
            self._append(part)

    def write(self, text: str) -> None:
        if self._is_due_home:
            self.settle("text")
        self.homed = False
        self.last = text[-1]
        if self._column is None and self.stops is not None and "\t" in text:
            self.place()
        if self._column is None:
            self._append(text)
            return
        while text:
            if self._column is None or self._column >= WIDTH:
                self._wrap()
                self._append(text)
                return
            row = self._here
            row.real = True
            if self._column > REACH:
                self._column = min(self._column, max(REACH, len(row.as_cells())))
            part, room = text, WIDTH - self._column
            if len(text) > room // TAB:
                part = text[:room] if NARROW.fullmatch(text, 0, room) else text[: max(1, room // TAB)]
            row.paid += len(part)
            self._column = put(row, self._column, part, self.stops, inserts=self.inserts)
            text = text[len(part) :]

    def edit_row(self, final: str, how: int) -> None:
        if final in "LM":
            change = self._region.insert if final == "L" else self._region.delete
            self.go(self.place())
            count = change(self._rows, self._row, self._page, max(1, how))
            self._shift_page(count if final == "L" else -count)
            if self._row == len(self._rows):
                self._rows.append(UNTOUCHED)
            return
        row, column = self._here, self.place()
        edit(row, column, final, how)
        if final == "K" and not row.cells and column == 0:
            row.cells, row.lead, self._column = None, "", None

    def reset(self) -> None:
        self._region, self.stops, self.inserts = Region(), None, False
        self.clear()

    def set_margins(self, first: int, last: int) -> None:
        if (region := self._region.changed(first, last)) is not None:
            self._region, self.homed, self._is_due_home = region, True, True

    def settle(self, following: str) -> None:
        """Go where new margins put the cursor, unless it is moved at once, as by apt, which saved it before."""
        if self._is_due_home:
            self._is_due_home = False
            if following not in "8uHf":
                self.goto(1, 0)

    def scroll(self, count: int) -> None:
        """Scroll up; the cursor stays where it is on the screen."""
        column = self.place()
        self._leave()
        if self._page is not None and self._row >= self._page:
            count = self._region.scroll(self._rows, self._page, count)
            self._page += count
        elif self._page is not None:
            self._rows[self._row + 1 : self._row + 1] = [UNTOUCHED] * count
            self._page += count
        self._extend(self._row + count)
        self._column = column

    def _scroll_at_end(self) -> None:
        if self._row == len(self._rows) - 1 and self._at_end and self._page is not None:
            self._row, self._page = self._row + 1, self._page + 1
        else:
            self.scroll(1)

    def scroll_back(self, count: int) -> None:
        if self._page is None or self._row < self._page:
            self.up(count)
        else:
            self.go(self.place())
            self._region.insert(self._rows, self._page + self._region.top, self._page, count)

    def _shift_page(self, rows: int) -> None:
        """Move the page by the rows that were added or removed at the cursor."""
        if self._page is not None and self._page > self._row:
            self._page = max(self._row, self._page + rows)

    def erase_display(self, how: int, homed: bool) -> None:
        if how == 2 or (how == 0 and homed):
            self.clear()
        elif how == 0:
            self.edit_row("K", 0)
            del self._rows[self._row + 1 :]
            if self._page is not None and self._page > self._row:
                self._page = None
        elif how == 1:
            self.edit_row("K", 1)

    def clear(self) -> None:
        """Keep what is on the page as history and start a new page below."""
        if self._page is None or any(not row.blank for row in self._rows[self._page :]):
            self._open_page()
        else:
            self._go(self._page, 0)

    def _open_page(self) -> None:
        self._leave()
        while len(self._rows) > 1 and self._row < len(self._rows) - 1 and not self._rows[-1].real:
            self._rows.pop()
        if not self._rows[-1].blank:
            self._rows.append(UNTOUCHED)
        self._row = self._page = len(self._rows) - 1
        self._go(self._row, 0)
        self._trim()

    def goto(self, line: int, column: int) -> None:
        if self._page is None:
            self._open_page()
        if self._region.passed_by(line):
            self.scroll(1)
            line -= 1
        row = (self._page or 0) + min(line, ROWS) - 1
        self._reach(row)
        self.forward(column)

    def up(self, count: int, *, scrolls: bool = False) -> None:
        column, top = self.place(), self._region.first_row(self._row, self._page)
        if scrolls and self._page is not None and self._row == self._page + self._region.top:
            self.scroll_back(1)
            return
        missing = min(count - self._row, ROWS - len(self._rows))
        if not scrolls and self._continued and not self._started and self._page is None and missing > 0:
            self._leave()
            self._rows[:0] = [UNTOUCHED] * missing
            self._row += missing
        self._go(max(top, self._row - count), column)

    def down(self, count: int, *, scrolls: bool = False) -> None:
        column = self.place()
        if scrolls and self._region.ends_at(self._row, self._page):
            self.scroll(1)
            return
        end = self._region.end(self._rows, self._row, self._page)
        last = self._row + 1 if scrolls else max(self._row, ROWS - 1 if end is None else end - 1)
        row = min(self._row + count, last)
        if row >= len(self._rows):
            self._reach(row)
            row = self._row
        self._go(row, column)

    def _reach(self, row: int) -> None:
        """Go to a row, which may be below the last one."""
        self._leave()
        self._extend(row)

    def _extend(self, row: int) -> None:
        self._rows.extend([UNTOUCHED] * (row + 1 - len(self._rows)))
        self._row = row
        self._trim()

    def forward(self, column: int) -> None:
        row = self._here
        self._go(self._row, min(column, max(REACH, len(row.cells or row.text), self._column or 0)))

    def carriage_return(self) -> None:
        row = self._here
        self._column = None if row.cells is None and not row.text else 0

    def go(self, column: int) -> None:
        """Go to a column of the cursor's row."""
        self._go(self._row, column)

    def save(self) -> None:
        """Save the cursor: its place on the screen if a region scrolls, else its row in the text."""
        place = None if self._region.bottom is None or self._page is None else self._row - self._page
        self._saved = self._here, self.place(), None if place is None or place < 0 else place

    def restore(self) -> None:
        if self._saved is None:
            return
        row, column, place = self._saved
        if place is not None and self._page is not None:
            self._reach(self._page + place)
            self._go(self._row, column)
        elif row in self._rows:
            self._go(self._rows.index(row), column)
        else:
            self._saved = None

    def place(self) -> int:
        """The cursor's column; a row of plain text is laid out in cells to know it."""
        if self._column is None:
            self._column = len(self._here.as_cells())
        return self._column

    def _go(self, row: int, column: int) -> None:
        self._leave()
        self._row, self._column = row, max(0, column)

    def _leave(self) -> None:
        row = self._rows[self._row]
        if row is not UNTOUCHED:  # an untouched row shows no blanks
            row.edge = self._column or 0

    def _edge(self) -> int:
        return self._column or 0

    def _append(self, text: str) -> None:
        """Append to a row of plain text."""
        row, start = self._here, 0
        if text and len(row.text) + len(text) <= WIDTH // TAB:
            row.text += text
            row.paid += len(text)
            row.real = True
            return
        while start < len(text):
            if (room := room_for(row.text, text[start : start + WIDTH])) <= 0:
                self._wrap()
                row = self._here
                continue
            part = text[start : start + room]
            row.text += part
            row.paid += len(part)
            row.real = True
            start += len(part)

    def _wrap(self) -> None:
        self._leave()
        self._shift_page(1)
        self._row += 1
        self._rows.insert(self._row, Row(real=True, joined=True, paid=1))
        self._column = None
        self._trim()

    def newline(self) -> None:
        self._leave()
        self._here.real = True
        if self._region.bottom is None or not self._region.ends_at(self._row, self._page):
            self._row += 1
        else:
            self._scroll_at_end()
        if self._page == self._row:
            self._scroll_above_page()
        elif self._row == len(self._rows):
            self._rows.append(Row())
        row = self._here
        row.real = True
        row.paid += 1
        self.carriage_return()
        self._trim()

    def _scroll_above_page(self) -> None:
        if all(row.blank for row in self._rows[self._row :]):
            del self._rows[self._row :]
            self._page = None
            self._rows.append(UNTOUCHED)
            return
        self._rows.insert(self._row, UNTOUCHED)
        self._page = self._row + 1

    def _trim(self) -> None:
        if len(self._rows) <= ROWS or not self._row:
            return
        above = min(len(self._rows) - ROWS, self._row)
        for row in filter(REAL, self._rows[:above]):
            self._emit(row)
        del self._rows[:above]
        self._row -= above
        if self._page is not None:
            self._page = self._page - above if self._page >= above else None

    def _emit(self, row: Row) -> None:
        if row.real:
            if self._keeps_history:
                self._final.append(self._separator(row, started=self._started) + row.render(None))
            self._started = True

    @staticmethod
    def _separator(row: Row, *, started: bool) -> str:
        return "\n" if started and not row.joined else ""
