"""Text tables row by row: quoted cells, separators of any length, and rows that a stray mark ran together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from taxadiffusion.readers import bounded

SEPARATORS = (",", "\t", ";", "|")
_ROW_LIKE_SEPARATORS = 3  # a line of prose seldom holds exactly as many separators as a row of four cells
_END = ""  # no line is empty: it holds its end


class Cells(NamedTuple):
    """One row; `num_lines` is more than 1 where a quoted cell holds line ends."""

    cells: list[str]
    num_lines: int = 1
    ended: bool = True
    """Whether a line end follows: the last row of a file that was cut off has none."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Lines that are no row: each counts as a bad row; `reason`, with `{first}` and `{last}` row, is that of all."""

    lines: list[str]
    reason: str

    def told(self, first_row: int) -> str:
        return self.reason.format(first=first_row, last=first_row + len(self.lines) - 1)


_OPEN_MARK = (
    "a quotation mark is opened in row {{first}}, cell {column}, and not closed there: rows {{first}} to {{last}} run "
    "together; close the mark or take it out"
)
_OPEN_IN_ONE_ROW = (
    "a quotation mark is opened in row {{first}}, cell {column}, and never closed; close the mark or take it out"
)


def split_rows(
    lines: Iterator[str | None], separator: str, quote: str = '"', num_columns: int | None = None
) -> Iterator[Cells | Broken]:
    """The rows of a table from its lines (as `bounded.lines` gives them); "" for `quote` takes marks literally.

    A cell is quoted when the mark is its first character, or follows blanks and is closed on the same line. A quoted
    cell may go over several lines. It is broken where other text follows its closing mark on a later line, where no
    closing mark comes within `bounded.MAX_LINE_CHARS` characters, or where its lines are themselves rows of
    `num_columns` cells: a mark that somebody forgot has then swallowed them.
    """
    parser = _Parser(lines, separator, quote, num_columns)
    while (row := parser.next_row()) is not None:
        yield row


class _Parser:
    def __init__(self, lines: Iterator[str | None], separator: str, quote: str, num_columns: int | None) -> None:
        self._lines = lines
        self._separator = separator
        self._quote = quote
        self._num_columns = num_columns
        self._line = ""
        self._consumed: list[str] = []

    def next_row(self) -> Cells | Broken | None:
        try:
            line = next(self._lines)
        except StopIteration:
            return None
        if line is None:
            return Broken([""], f"the line has more than {bounded.MAX_LINE_CHARS} characters")
        if not self._quote or self._quote not in line:
            text = line.rstrip("\r\n")
            return Cells(text.split(self._separator) if text else [], 1, len(text) < len(line))
        self._line, self._consumed = line, [line]
        return self._quoted_row()

    def _quoted_row(self) -> Cells | Broken:
        cells: list[str] = []
        at = 0
        while True:
            if (opened := self._opening(at)) is None:
                end = self._line.find(self._separator, at)
                cells.append(self._line[at:end] if end >= 0 else self._line[at:].rstrip("\r\n"))
            else:
                found = self._quoted_cell(opened, len(cells) + 1)
                if isinstance(found, Broken):
                    return found
                cell, end = found
                cells.append(cell)
            if end < 0:
                return Cells(cells, len(self._consumed), self._line.endswith(("\n", "\r")))
            at = end + len(self._separator)

    def _opening(self, at: int) -> int | None:
        """Where the text of a quoted cell begins, None for a cell without marks."""
        line, quote = self._line, self._quote
        if line.startswith(quote, at):
            return at + len(quote)
        first = at
        while line.startswith(" ", first) and self._separator != " ":
            first += 1
        if first == at or not line.startswith(quote, first):
            return None
        closing = re.compile(
            rf"{re.escape(quote)}(?:[^{re.escape(quote)}]|{re.escape(quote)}{{2}})*{re.escape(quote)} *"
            rf"(?={re.escape(self._separator)}|[\r\n]|$)"
        )
        return first + len(quote) if closing.match(line, first) else None

    def _quoted_cell(self, at: int, column: int) -> tuple[str, int] | Broken:
        """(text, place of the separator after it, -1 at the row's end), from the opening mark on."""
        quote, pieces, num_chars = self._quote, [], len(self._line)
        first_line, inner = len(self._consumed), []
        while True:
            mark = self._line.find(quote, at)
            if mark >= 0 and self._line.startswith(quote, mark + len(quote)):
                pieces.append(self._line[at : mark + len(quote)])
                at = mark + 2 * len(quote)
                continue
            if mark >= 0:
                break
            pieces.append(self._line[at:])
            following = next(self._lines, _END)
            if following is not _END:
                self._consumed.append(following or "")
            if not following or (num_chars := num_chars + len(following)) > bounded.MAX_LINE_CHARS:
                return self._broken(column)
            self._line, at = following, 0
            inner.append(following)
        pieces.append(self._line[at:mark])
        end = self._line.find(self._separator, mark + len(quote))
        tail = (self._line[mark + len(quote) : end] if end >= 0 else self._line[mark + len(quote) :]).rstrip("\r\n")
        if len(self._consumed) > first_line and (tail.strip() or self._are_rows(inner[:-1], self._line[:mark], column)):
            return self._broken(column)
        return "".join(pieces) + (tail if tail.strip() else ""), end

    def _are_rows(self, whole: list[str], last: str, column: int) -> bool:
        """Whether the lines inside a quoted cell are rows: cells enough, and the first of them like the row's own."""
        separator, num_columns = self._separator, self._num_columns or 0
        num_separators = num_columns - 1 if whole else column - 1
        if num_columns < 2 or num_separators < 1:
            return False
        if any(line.count(separator) != num_columns - 1 for line in whole) or last.count(separator) != column - 1:
            return False
        if num_separators >= _ROW_LIKE_SEPARATORS:
            return True
        rows = (self._consumed[0], *whole, *((last,) if column > 1 else ()))
        shapes = {_shape(row.split(separator, 1)[0].strip(self._quote)) for row in rows}
        return len(shapes) == 1 and shapes != {""}

    def _broken(self, column: int) -> Broken:
        words = _OPEN_MARK if len(self._consumed) > 1 else _OPEN_IN_ONE_ROW
        return Broken(self._consumed, words.format(column=column))


def _shape(cell: str) -> str:
    """ "p002.jpg" → "a.a": what two file names or numbers have in common."""
    return re.sub(r"\w+", "a", cell.strip())


def guess_separator(header: str, first: str = ",") -> str:
    """The separator of a header: the one it holds most of outside quotation marks; `first` where several have equal."""
    plain = re.sub(r'"[^"]*"', "", header)
    return max((first, *SEPARATORS), key=plain.count)


def declared_separator(line: str) -> str | None:
    """The separator that a spreadsheet's first line `sep=;` names; None for any other line."""
    found = re.fullmatch(r'\s*"?sep=(.|\\t)"?\s*', line.rstrip("\r\n"), re.IGNORECASE)
    return None if found is None else found[1].replace("\\t", "\t")
