"""Reads CSV files: the types of their columns are decided from the first rows of all files, and then held.

The separator is found in the first lines: a comma, a semicolon, a tab or ``|``. An ambiguous file is refused, with the line.
Small files are read row by row, in Python. Larger ones are read by pyarrow, if it is installed, with the same result.
"""

from __future__ import annotations

import csv
import importlib.util
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from dnc_async.dataset.formats.compression import ByteStream
from dnc_async.dataset.formats.csv_columns import CsvColumn, check_held, convert
from dnc_async.dataset.formats.csv_names import is_like_a_value, names_problem
from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.formats.protocol import Source
from dnc_async.dataset.formats.source_file import SourceFile, StdinFile
from dnc_async.dataset.formats.text_lines import LineReader, Utf8Stream, count_lines
from dnc_async.dataset.limits import MAX_COLUMNS
from dnc_async.dataset.schema import Columns
from dnc_async.errors import DatasetError

_BLOCK_ROWS, _BLOCK_CHARACTERS = 4096, 4 * 2**20
#: The types are decided from so many rows and so many characters of the first file, and a share of that of each other one.
_LOOK_ROWS, _LOOK_CHARACTERS = 10_000, 2**20
#: Blocks that pyarrow converts.
_FAST_BYTES = 8 * 2**20
_SEPARATORS = ",;\t|"
_SAMPLED_ROWS = 20
#: The longest cell, in characters; an unclosed quote is found no later.
_LONGEST_CELL = 2**24
_SEPARATOR_LINE = re.compile(r"\"?sep=.\"?\s*", re.IGNORECASE)

Block = tuple[list[list[str]], Sequence[int]]
Records = Any  # csv names the type of its readers in C alone


class Csv:
    """CSV and TSV files, compressed or not."""

    name = "csv"
    suffixes = (".csv", ".tsv", ".tab", ".psv")
    is_compressible = True

    @staticmethod
    def recognises(head: bytes) -> bool:
        """It is never told by its content."""
        return False

    def read(self, source: Source, options: ReadOptions) -> Iterator[Columns | None]:
        """Yield blocks of rows as dicts of columns, named by the first line; ``None`` while the types are decided."""
        # The limit applies to the whole process, so it is only ever raised.
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_CELL))
        first: _Table | None = None
        columns: list[CsvColumn] = []
        seen = 0
        tables = []
        for file in _with_content(source):
            table = _Table(file, options, tuple(first.names) if first else ())
            if first is None:
                first, columns = table, [CsvColumn() for _ in table.names]
            tables.append(table)
            for rows, lines in table.head(len(source.files)):
                for column, cells in zip(columns, zip(*rows, strict=True), strict=False):
                    column.look(cells, lines)
                seen += len(rows)
                yield None
            file.rest()
        kinds = self._decided(columns, tables, source)
        for table in tables:
            source.current = table.file
            yield from table.columns(kinds, seen)
            table.file.rest()

    @staticmethod
    def _decided(columns: list[CsvColumn], tables: list[_Table], source: Source) -> list[str]:
        names = tables[0].names
        try:
            kinds = [column.decide(name) for column, name in zip(columns, names, strict=True)]
        except ValueError as error:
            where = tables[0].file.path if len(tables) == 1 else source.where
            raise DatasetError(f"{where}, {error}") from error
        source.notes += [note for column in columns for note in column.notes]
        return kinds


def _with_content(source: Source) -> list[SourceFile]:
    """The files without empty ones, which some writers leave beside others."""
    full = [file for file in source.files if file.size_bytes or isinstance(file, StdinFile)]
    if not full or len(full) == len(source.files):
        return source.files
    source.notes.append(f"{len(source.files) - len(full)} empty files are left out")
    return full


class _Table:
    """The rows of a file; ``names`` are the fields of its first line, or numbered if it has none."""

    def __init__(self, file: SourceFile, options: ReadOptions, names: tuple[str, ...]) -> None:
        """``names`` are those of the file before, in the order in which the columns are given."""
        self.file = file
        self._where = f"{file.path}"
        self._encoding = options.encoding
        head = LineReader(self._text(), self._where).first()
        self._separator = _separator_of(head, self._where) if file.suffix != ".tsv" else "\t"
        rows = [row for row in islice(csv.reader(head, delimiter=self._separator), _SAMPLED_ROWS) if row]
        self._has_names = options.header is not False
        self._own_names: list[str] = rows[0] if rows else []
        if self._has_names:
            problem = names_problem(self._own_names, rows[1:] if options.header is None else None)
        else:
            self._own_names = [f"column_{place}" for place in range(len(self._own_names))]
            problem = (
                None
                if len(rows[:1]) > 0 and len(self._own_names) <= MAX_COLUMNS
                else "is empty, or has too many columns"
            )
        if problem is not None:
            raise DatasetError(f"{self._where}: {problem}")
        self._check_names(names)
        self.names = list(names) or self._own_names
        self._header = head[0].rstrip("\r\n").encode() if self._has_names and len(self.names) > 1 else b"\0"
        self._names_lines = (
            _lines_of_names(head, self._separator, has_names=self._has_names) if len(self.names) > 1 else None
        )
        self._empty_line = 0
        self._is_whole = False

    def _check_names(self, names: tuple[str, ...]) -> None:
        if names and set(names) != set(self._own_names):
            lacking, more = sorted(set(names) - set(self._own_names)), sorted(set(self._own_names) - set(names))
            said = f"has no column {lacking[0]!r}" if lacking else f"has a column {more[0]!r}"
            raise DatasetError(f"{self._where}: {said}, unlike the files before it; all need the same columns")

    def _text(self, *, last: bool = False) -> Utf8Stream:
        return Utf8Stream(self.file.stream(last=last), self._where, self._encoding)

    def head(self, files: int) -> Iterator[Block]:
        """Yield the first rows, at least one block."""
        rows_left, left = _LOOK_ROWS // files + 100, _LOOK_CHARACTERS // files
        reader = LineReader(self._text(), self._where)
        for rows, lines in self._blocks(reader, 1, names_follow=self._has_names):
            yield rows, lines
            rows_left -= len(rows)
            left -= reader.characters
            if rows_left <= 0 and left <= 0:
                return
        self._is_whole = True

    def columns(self, kinds: list[str], seen: int) -> Iterator[Columns | None]:
        """Yield all rows as columns; ``seen`` rows decided their types."""
        text = self._text(last=True)
        if not self._is_whole and self._names_lines is not None and importlib.util.find_spec("pyarrow") is not None:
            yield from self._fast(text, kinds, seen)
        else:
            yield from self._slow(text, kinds, seen, line=1, names_follow=self._has_names)

    def _fast(self, text: ByteStream, kinds: list[str], seen: int) -> Iterator[Columns | None]:
        """Read with pyarrow; from a row on that is not plain, row by row to the end of its block."""
        from dnc_async.dataset.formats.csv_blocks import BlockReader, Cut  # noqa: PLC0415 - pyarrow takes long

        by_own_order = [kinds[self.names.index(name)] for name in self._own_names]
        reader = BlockReader(self._own_names, by_own_order, self._separator, self._header)
        line, data, names_lines = 1, b"", self._names_lines or 0
        while piece := text.read(_FAST_BYTES):
            data = data + piece if data else piece
            while names_lines and b"\n" in data:
                line, data, names_lines = line + 1, data[data.index(b"\n") + 1 :], names_lines - 1
            cut = Cut(data)
            end = len(cut.block)
            columns = reader.convert(cut) if end else None
            if columns is not None:
                yield {name: columns[name] for name in self.names}
            elif end and reader.is_border_sure(cut):
                yield from self._slow(_Joined(cut.block), kinds, seen, line=line, names_follow=False)
            elif end or len(data) >= _LONGEST_CELL:
                yield from self._slow(_Joined(data, text), kinds, seen, line=line, names_follow=False)
                return
            line, data = line + cut.lines, data[end:]
        yield from self._slow(_Joined(data), kinds, seen, line=line, names_follow=False)

    def _slow(
        self, text: ByteStream, kinds: list[str], seen: int, *, line: int, names_follow: bool
    ) -> Iterator[Columns | None]:
        """Read row by row, in Python."""
        reader = LineReader(text, self._where, line=line)
        try:
            for rows, lines in self._blocks(reader, line, names_follow=names_follow):
                cells_of = list(zip(*rows, strict=True)) or [()] * len(kinds)
                if not self._is_whole:
                    for name, cells, kind in zip(self.names, cells_of, kinds, strict=True):
                        check_held(name, cells, lines, kind, seen)
                yield {
                    name: convert(cells, kind) for name, cells, kind in zip(self.names, cells_of, kinds, strict=True)
                }
        except (ValueError, OverflowError, KeyError) as error:
            if isinstance(error, DatasetError):
                raise
            if not self._is_whole:
                raise DatasetError(f"{self._where}, {error}") from error
            raise DatasetError(
                f"{self._where} changed while it was read ({error}); upload it when it is at rest"
            ) from error

    def _blocks(self, reader: LineReader, line: int, *, names_follow: bool) -> Iterator[Block]:
        """Yield all rows except the names, with the lines where they begin; at least one block."""
        records = csv.reader(iter(reader), delimiter=self._separator, strict=True)
        places = [self._own_names.index(name) for name in self.names] if self.names != self._own_names else None
        start, self._empty_line = line - 1, 0
        while rows := self._some(records, reader, line, start):
            lines: Sequence[int] = range(line, line + len(rows))
            if start + records.line_num >= line + len(rows):  # some of them have several lines
                lines = _first_lines(rows, line)
            line = start + records.line_num + 1
            if names_follow:
                if not any(rows):
                    continue
                place = next(i for i, row in enumerate(rows) if row)
                rows, lines, names_follow = rows[place + 1 :], lines[place + 1 :], False
            rows, lines = self._checked(rows, lines)
            yield [[row[place] for place in places] for row in rows] if places else rows, lines

    def _some(self, records: Records, reader: LineReader, line: int, start: int) -> list[list[str]]:
        """The next rows; ``line`` is where the first one begins, ``start`` the line before those of the reader."""
        rows: list[list[str]] = []
        reader.characters = 0
        reader.forget()
        try:
            for row in islice(records, _BLOCK_ROWS):
                rows.append(row)
                if reader.characters >= _BLOCK_CHARACTERS:
                    break
        except csv.Error as error:
            last = start + records.line_num
            raise self._broken(error, reader.lines(line, last), line, last) from error
        return rows

    def _checked(self, rows: list[list[str]], lines: Sequence[int]) -> Block:
        """Check that each row has as many fields as there are names; empty lines are removed."""
        width = len(self._own_names)
        if set(map(len, rows)) - {width}:
            for row, line in zip(rows, lines, strict=True):
                if row and len(row) != width:
                    raise self._error(line, self._unlike(row))
                self._note_empty(row, line)
            lines = [line for row, line in zip(rows, lines, strict=True) if row]
            rows = [row for row in rows if row]
        elif rows:
            self._note_empty(rows[0], lines[0])
        if width > 1 and self._has_names and self._own_names in rows:
            line = lines[rows.index(self._own_names)]
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
        return DatasetError(f"{self._where}, line {line}: {said}")


class _Joined:
    """A stream of some bytes, and then of another stream."""

    def __init__(self, data: bytes, rest: ByteStream | None = None) -> None:
        self._data = data
        self._rest = rest

    def read(self, size: int) -> bytes:
        if self._data:
            piece, self._data = self._data[:size], self._data[size:]
            return piece
        return b"" if self._rest is None else self._rest.read(size)


def _lines_of_names(head: list[str], separator: str, *, has_names: bool) -> int | None:
    """How many lines come before the first row; ``None`` if lines do not end with LF."""
    if not all(line.endswith("\n") for line in head):
        return None
    if not has_names:
        return 0
    records = csv.reader(head, delimiter=separator)
    next((row for row in records if row), None)
    return records.line_num


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
