"""Reads CSV files with a header line, in two passes: one to learn the type of each column, one for the rows.

The first pass reads everything, so that a file's types do not depend on how it is cut into blocks. The separator is found in
the first lines: a comma, a semicolon, a tab or ``|``. An ambiguous file is refused, with the line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from dnc_async.dataset.formats.csv_columns import CsvColumn, convert
from dnc_async.dataset.formats.csv_names import is_like_a_value, names_problem
from dnc_async.dataset.formats.source_file import SourceFile
from dnc_async.dataset.formats.text_lines import LineReader, count_lines
from dnc_async.dataset.schema import Columns
from dnc_async.errors import DatasetError

_BLOCK_ROWS, _BLOCK_CHARACTERS = 4096, 4 * 2**20
_SEPARATORS = ",;\t|"
_SAMPLED_ROWS = 20
#: The longest cell, in characters; an unclosed quote is found no later.
_LONGEST_CELL = 2**24
_SEPARATOR_LINE = re.compile(r"\"?sep=.\"?\s*", re.IGNORECASE)

Block = tuple[list[list[str]], Sequence[int]]
Records = Any  # csv names the type of its readers in C alone


def read_csv(source: SourceFile) -> Iterator[Columns | None]:
    """Yield blocks of rows as dicts of columns, named by the first line; ``None`` for each block of the first pass."""
    # The limit applies to the whole process, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
    table = _Table(source)
    columns = [CsvColumn() for _ in table.names]
    for rows, lines in table.blocks():
        for column, cells in zip(columns, zip(*rows, strict=True), strict=False):
            column.look(cells, lines)
        yield None
    try:
        kinds = [column.decide(name) for column, name in zip(columns, table.names, strict=True)]
    except ValueError as error:
        raise DatasetError(f"{source.path}, {error}") from error
    source.notes += [note for column in columns for note in column.notes]
    try:
        for rows, _ in table.blocks():
            cells_of = list(zip(*rows, strict=True)) or [()] * len(kinds)
            yield {name: convert(cells, kind) for name, cells, kind in zip(table.names, cells_of, kinds, strict=True)}
    except (ValueError, OverflowError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{source.path} changed while it was read ({error}); upload it when it is at rest"
        ) from error


class _Table:
    """The rows of a file; ``names`` are the fields of its first line."""

    def __init__(self, source: SourceFile) -> None:
        self._source = source
        head = LineReader(source).first()
        self._separator = _separator_of(head, f"{source.path}")
        rows = [row for row in islice(csv.reader(head, delimiter=self._separator), _SAMPLED_ROWS) if row]
        self.names: list[str] = rows[0] if rows else []
        problem = names_problem(self.names, rows[1:])
        if problem is not None:
            raise DatasetError(f"{source.path}: {problem}")
        self._empty_line = 0

    def blocks(self) -> Iterator[Block]:
        """Yield all rows except the names, with the lines where they begin; at least one block."""
        reader = LineReader(self._source)
        records = csv.reader(iter(reader), delimiter=self._separator, strict=True)
        self._empty_line = 0
        names_follow, line = True, 1
        while rows := self._some(records, reader, line):
            lines: Sequence[int] = range(line, line + len(rows))
            if records.line_num >= line + len(rows):  # some of them have several lines
                lines = _first_lines(rows, line)
            line = records.line_num + 1
            if names_follow:
                if not any(rows):
                    continue
                place = next(i for i, row in enumerate(rows) if row)
                rows, lines, names_follow = rows[place + 1 :], lines[place + 1 :], False
            yield self._checked(rows, lines)

    def _some(self, records: Records, reader: LineReader, line: int) -> list[list[str]]:
        """The next rows; ``line`` is where the first one begins."""
        rows: list[list[str]] = []
        reader.characters = 0
        reader.forget()
        try:
            for row in islice(records, _BLOCK_ROWS):
                rows.append(row)
                if reader.characters >= _BLOCK_CHARACTERS:
                    break
        except csv.Error as error:
            raise self._broken(error, reader.lines(line, records.line_num), line, records.line_num) from error
        return rows

    def _checked(self, rows: list[list[str]], lines: Sequence[int]) -> Block:
        """Check that each row has as many fields as there are names; empty lines are removed."""
        width = len(self.names)
        if set(map(len, rows)) - {width}:
            for row, line in zip(rows, lines, strict=True):
                if row and len(row) != width:
                    raise self._error(line, self._unlike(row))
                self._note_empty(row, line)
            lines = [line for row, line in zip(rows, lines, strict=True) if row]
            rows = [row for row in rows if row]
        elif rows:
            self._note_empty(rows[0], lines[0])
        if width > 1 and self.names in rows:
            line = lines[rows.index(self.names)]
            raise self._error(line, "the line of names stands here again; are these several files joined?")
        return rows, lines

    def _unlike(self, row: list[str]) -> str:
        said = f"{len(row)} fields, expected {len(self.names)} as in the first line; "
        if self.names[0].startswith(("#", "%")):
            return f"{said}that one begins with {self.names[0][0]!r}: if it is a comment, delete it"
        if len(row) == len(self.names) + 1 and not row[-1]:
            return f"{said}a separator ends this line, and none ends that one"
        return f"{said}a value with {self._separator!r} in it must stand in quotes"

    def _note_empty(self, row: list[str], line: int) -> None:
        """In a table of one column an empty line could be a value, so it is allowed at the end of the file only."""
        if row and self._empty_line and len(self.names) == 1:
            raise self._error(self._empty_line, 'an empty line in a table of one column; write an empty value as ""')
        self._empty_line = self._empty_line or (0 if row else line)

    def _broken(self, error: csv.Error, lines: Sequence[str], line: int, last: int) -> DatasetError:
        place, is_open = _last_opened(lines, self._separator)
        opened = line + place
        said = str(error)
        if "end of data" in said:
            return self._error(
                opened, 'the quote that opens in this line is never closed; close it, or write it twice ("")'
            )
        if "limit" in said and not is_open:
            return self._error(last, f"a value is longer than {_LONGEST_CELL} characters")
        if "limit" in said:
            return self._error(
                opened, f"the quote that opens in this line is not closed within {_LONGEST_CELL} characters"
            )
        return self._error(
            last,
            f"text follows a closing quote (one that opened in line {opened}); a quote within a value is written twice "
            '("")',
        )

    def _error(self, line: int, said: str) -> DatasetError:
        return DatasetError(f"{self._source.path}, line {line}: {said}")


def _separator_of(head: list[str], where: str) -> str:
    """The separator on which the first lines agree. Raises if several are possible."""
    if head and _SEPARATOR_LINE.fullmatch(head[0]):
        raise DatasetError(f"{where}, line 1: {head[0].strip()!r} is a word to Excel, and no names; delete this line")
    widths = {separator: _widths(head, separator) for separator in _SEPARATORS}
    several = [separator for separator, found in widths.items() if found[:1] > [1]]
    agreed = [separator for separator in several if len(set(widths[separator])) == 1]
    if len(agreed) > 1:
        raise DatasetError(
            f"{where}: the fields may be separated by {' or '.join(map(repr, agreed))}; use one, and quote values "
            "that hold the other"
        )
    if several:
        return agreed[0] if agreed else max(several, key=lambda separator: widths[separator][0])
    _check_single(head, widths, where)
    return ","


def _widths(head: list[str], separator: str) -> list[int]:
    """The numbers of fields in the first rows; without the last row if it may be cut off."""
    try:
        rows = [row for row, _ in zip(csv.reader(head, delimiter=separator), range(_SAMPLED_ROWS), strict=False) if row]
    except csv.Error:
        return [1]
    return [len(row) for row in rows]


def _check_single(head: list[str], widths: dict[str, list[int]], where: str) -> None:
    """Raise if a table of one column seems to have several, with a separator that is not supported."""
    for separator in _SEPARATORS[1:]:
        below = set(widths[separator][1:])
        if len(below) == 1 and below != {1}:
            raise DatasetError(
                f"{where}: the first line names one column, but the rows have {below.pop()} fields separated by {separator!r}; "
                "name each of them"
            )
    rows = [line.split() for line in head[:_SAMPLED_ROWS] if line.strip()]
    width = len(rows[0]) if rows else 0
    is_regular = width > 1 and len(rows) > 1 and all(len(row) == width for row in rows)
    if is_regular and any(all(is_like_a_value(row[i]) for row in rows[1:]) for i in range(width)):
        raise DatasetError(f"{where}: the fields seem to be separated by spaces; separate them by commas")


def _first_lines(rows: list[list[str]], line: int) -> list[int]:
    """The line where each row begins; cells may have several lines."""
    lines = []
    for row in rows:
        lines.append(line)
        line += 1 + sum(count_lines(cell) for cell in row if "\n" in cell or "\r" in cell)
    return lines


def _last_opened(record: Sequence[str], separator: str) -> tuple[int, bool]:
    """The index of the line in which the last quote opened, and whether it is still open at the end."""
    opened, is_inside, is_start = 0, False, True
    for number, line in enumerate(record):
        place = 0
        while place < len(line):
            letter = line[place]
            if is_inside and letter == '"':
                if line[place + 1 : place + 2] == '"':
                    place += 1
                else:
                    is_inside = False
            elif not is_inside and letter == '"' and is_start:
                opened, is_inside = number, True
            is_start = not is_inside and letter in (separator, "\n", "\r")
            place += 1
    return opened, is_inside
