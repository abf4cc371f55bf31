"""A small model of a screen: what the moves and erasures of terminal output leave on its rows. Knows no bytes.

Whatever a sequence asks for, it touches at most ROWS rows or the cells of one row, each in one operation on a list.
"""

from __future__ import annotations

import copy
from typing import Final

from tmuxjobs.text.row import GAP, NARROW, TAB, WIDTH, Row, put, room_for, split_wide

ROWS: Final = 200
"""Rows that a redraw can still reach; above them text is final."""
_REACH: Final = 1_000  # cursor moves end at this column, or a row's end if that is later, as at a screen's right edge
_UNTOUCHED: Final = Row()
"""Stands for each row that nothing was done to; the cursor's row is always one of its own."""


class Canvas:
    """The last rows of a stream and the cursor in them. Its height is not known, so absolute rows count from a "page":
    the row where the last full clear, or the first absolute move, put the home position. A page below the row that text
    flows in (apt's status line) stays below it."""

    def __init__(self, *, continued: bool, keeps_history: bool = True) -> None:
        self._rows = [Row(paid=1)]
        self._row = 0
        self._column: int | None = None  # None: at the end of a row of plain text
        self._page: int | None = None
        self._saved: tuple[Row, int] | None = None
        self._homed = False
        self._continued = continued
        self._keeps_history = keeps_history
        self._started = False
        self._final: list[str] = []

    def copy(self) -> Canvas:
        other = copy.copy(self)
        other._rows = [row if row is _UNTOUCHED else row.copy() for row in self._rows]
        other._final = self._final.copy()
        if self._saved is not None and self._saved[0] in self._rows:
            other._saved = other._rows[self._rows.index(self._saved[0])], self._saved[1]
        return other

    def drain(self) -> str:
        """The text of the rows that left the window since the last call."""
        text = "".join(self._final)
        self._final.clear()
        return text

    def text(self) -> str:
        """The rows, without blank ones below the cursor: those are left over from what was erased."""
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
        if row is _UNTOUCHED:
            row = self._rows[self._row] = Row()
        return row

    def pay(self, length: int) -> None:
        row = self._rows[self._row]
        if row is _UNTOUCHED:
            row = self._here
        row.paid += length

    @property
    def flows(self) -> bool:
        """Whether text can simply be appended."""
        return self._column is None and self._row == len(self._rows) - 1 and not self._homed

    def flow(self, text: str) -> None:
        """Append text that moves the cursor in no other way than newlines."""
        parts = text.split("\n") if len(text) < ROWS else text.rsplit("\n", ROWS)
        if len(parts) > ROWS and "\n" in parts[0]:
            for row in self._rows:
                self._emit(row)
            if self._keeps_history:
                self._final.append(parts[0])
            self._rows, self._row, self._page = [Row(real=True, joined=True, paid=1)], 0, None
        else:
            self._append(parts[0])
        for part in parts[1:]:
            self._newline()
            self._append(part)

    def write(self, text: str) -> None:
        self._homed = False
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
            if self._column > _REACH:
                self._column = min(self._column, max(_REACH, len(row.as_cells())))
            part, room = text, WIDTH - self._column
            if len(text) > room // TAB:
                part = text[:room] if NARROW.fullmatch(text, 0, room) else text[: max(1, room // TAB)]
            row.paid += len(part)
            self._column = put(row, self._column, part)
            text = text[len(part) :]

    def control(self, character: str, length: int) -> None:
        self._homed = False
        if character == "\n":
            self._newline()
            return
        if character == "\r":
            self._return()
        elif character == "\b":
            self._go(self._row, self._place() - 1)
        elif character == "7":
            self._saved = self._here, self._place()
        elif character == "8":
            self._restore()
        elif character == "E":
            self._newline()
        elif character == "D":
            self._down(1, scrolls=True)
        elif character == "M":
            self._up(1, scrolls=False)
        elif character == "c":
            self._clear()
        self.pay(length)

    def move(self, final: str, parameters: str, length: int) -> None:
        first, second = (_number(parameters, index) for index in (0, 1))
        homed, self._homed = self._homed, final in "Hf" and first <= 1 and second <= 1
        count = max(1, first)
        if final in "AF":
            self._up(count)
        elif final in "BEe":
            self._down(count)
        elif final in "Ca":
            self._forward(self._place() + count)
        elif final == "D":
            self._go(self._row, self._place() - count)
        elif final in "G`":
            self._forward(count - 1)
        elif final in "Hf":
            self._goto(count, max(1, second) - 1)
        elif final == "d":
            self._goto(count, self._place())
        elif final == "s" and not parameters:
            self._saved = self._here, self._place()
        elif final == "u" and not parameters:
            self._restore()
        elif final == "J":
            self._erase_display(first, homed)
        else:
            self._edit_row(final, first, count)
        if final in "EF":
            self._return()
        if final != "K" and not (final == "J" and first == 0 and not homed):
            self.pay(length)

    def _edit_row(self, final: str, first: int, count: int) -> None:
        column = self._place()
        cells = self._here.as_cells()
        if final == "K":
            self._erase_line(first)
        elif final == "X":
            self._blank(column, column + count)
        elif final == "P":
            split_wide(cells, column)
            split_wide(cells, column + count)
            del cells[column : column + count]
            self._here.wiped = min(self._here.wiped, column)
        elif final == "@" and column < len(cells):
            split_wide(cells, column)
            cells[column:column] = [GAP] * min(count, max(0, _REACH - column))
            split_wide(cells, WIDTH)
            del cells[WIDTH:]
        elif final == "L":
            self._leave()
            new = [_UNTOUCHED] * min(count, ROWS - len(self._rows))
            self._rows[self._row : self._row] = new
            self._shift_page(len(new))
        elif final == "M":
            gone = min(count, len(self._rows) - self._row)
            del self._rows[self._row : self._row + gone]
            self._shift_page(-gone)
            if self._row == len(self._rows):
                self._rows.append(_UNTOUCHED)

    def _shift_page(self, rows: int) -> None:
        """Rows came or went at the cursor."""
        if self._page is not None and self._page > self._row:
            self._page = max(self._row, self._page + rows)

    def _erase_line(self, how: int) -> None:
        row, column = self._here, self._place()
        cells = row.as_cells()
        if how == 0:
            split_wide(cells, column)
            del cells[column:]
        elif how == 1:
            self._blank(0, column + 1)
        elif how == 2:
            cells.clear()
        if not cells and column == 0:
            row.cells, row.lead, self._column = None, "", None

    def _blank(self, start: int, end: int) -> None:
        row = self._here
        cells = row.as_cells()
        end = min(end, len(cells))
        if start == 0:
            start, row.wiped = row.wiped, max(row.wiped, end)
        if start < end:
            split_wide(cells, start)
            split_wide(cells, end)
            cells[start:end] = [GAP] * (end - start)

    def _erase_display(self, how: int, homed: bool) -> None:
        if how == 2 or (how == 0 and homed):
            self._clear()
        elif how == 0:
            self._erase_line(0)
            del self._rows[self._row + 1 :]
            if self._page is not None and self._page > self._row:
                self._page = None
        elif how == 1:
            self._erase_line(1)

    def _clear(self) -> None:
        """Keep what stands on the page as history and start a new one below."""
        if self._page is None or any(not row.blank for row in self._rows[self._page :]):
            self._open_page()
        else:
            self._go(self._page, 0)

    def _open_page(self) -> None:
        self._leave()
        while len(self._rows) > 1 and self._row < len(self._rows) - 1 and not self._rows[-1].real:
            self._rows.pop()
        if not self._rows[-1].blank:
            self._rows.append(_UNTOUCHED)
        self._row = self._page = len(self._rows) - 1
        self._go(self._row, 0)
        self._trim()

    def _goto(self, line: int, column: int) -> None:
        if self._page is None:
            self._open_page()
        row = (self._page or 0) + min(line, ROWS) - 1
        self._reach(row)
        self._forward(column)

    def _up(self, count: int, *, scrolls: bool = True) -> None:
        column = self._place()
        inside = self._page is not None and self._row >= self._page
        top = self._page if inside and self._page is not None else 0
        missing = min(count - self._row, ROWS - len(self._rows))
        if scrolls and self._continued and not self._started and self._page is None and missing > 0:
            self._leave()
            self._rows[:0] = [_UNTOUCHED] * missing
            self._row += missing
        self._go(max(top, self._row - count), column)

    def _down(self, count: int, *, scrolls: bool = False) -> None:
        column = self._place()
        row = min(self._row + count, self._row + 1 if scrolls else max(self._row, ROWS - 1))
        if row >= len(self._rows):
            self._reach(row)
            row = self._row
        self._go(row, column)

    def _reach(self, row: int) -> None:
        """Go to a row, which may be below the last one."""
        self._leave()
        self._rows.extend([_UNTOUCHED] * (row + 1 - len(self._rows)))
        self._row = row
        self._trim()

    def _forward(self, column: int) -> None:
        row = self._here
        self._go(self._row, min(column, max(_REACH, len(row.cells or row.text), self._column or 0)))

    def _return(self) -> None:
        row = self._here
        self._column = None if row.cells is None and not row.text else 0

    def _restore(self) -> None:
        if self._saved is None:
            return
        row, column = self._saved
        if row in self._rows:
            self._go(self._rows.index(row), column)
        else:
            self._saved = None

    def _place(self) -> int:
        """The cursor's column; a row of plain text is laid out in cells to know it."""
        if self._column is None:
            self._column = len(self._here.as_cells())
        return self._column

    def _go(self, row: int, column: int) -> None:
        self._leave()
        self._row, self._column = row, max(0, column)

    def _leave(self) -> None:
        row = self._rows[self._row]
        if row is not _UNTOUCHED:  # one that nothing was done to shows no blanks
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

    def _newline(self) -> None:
        self._leave()
        self._here.real = True
        self._row += 1
        if self._page == self._row:
            self._scroll_above_page()
        elif self._row == len(self._rows):
            self._rows.append(Row())
        row = self._here
        row.real = True
        row.paid += 1
        self._return()
        self._trim()

    def _scroll_above_page(self) -> None:
        if all(row.blank for row in self._rows[self._row :]):
            del self._rows[self._row :]
            self._page = None
            self._rows.append(_UNTOUCHED)
            return
        self._rows.insert(self._row, _UNTOUCHED)
        self._page = self._row + 1

    def _trim(self) -> None:
        if len(self._rows) <= ROWS or not self._row:
            return
        above = min(len(self._rows) - ROWS, self._row)
        for row in self._rows[:above]:
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


def _number(parameters: str, index: int) -> int:
    """A parameter of a sequence; one that is missing, or no number, is 0."""
    fields = parameters.split(";", index + 1)
    if len(fields) <= index or not fields[index].isdecimal():
        return 0
    return int(fields[index][:6])
