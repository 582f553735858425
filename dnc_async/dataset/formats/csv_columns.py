"""Determines the type of a CSV column from all of its cells. PURE.

A number is plain: digits, a minus, a point, an exponent; or ``nan`` and ``inf`` among numbers. Other spellings that Python
accepts are text: ``2024_01``, `` 1``, ``+1``, ``0x10`` and other scripts' digits. So are numbers with leading zeros (``007``),
which would be lost. If the column's type does not represent a value exactly, the value is refused, or the column is text.
A column of ISO dates alone, or of ISO times alone, has that type, and so has one of ``true`` and ``false``.

The types are decided from the first rows, and then held: :func:`check_held` names the cell that breaks them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dnc_async.dataset.formats import csv_times
from dnc_async.dataset.schema import Array

_WHOLE = r"(?:0|-?[1-9][0-9]*)"
_SPECIAL = r"(?:-?(?:[iI]nf(?:inity)?|INF(?:INITY)?)|nan|NaN|NAN)"
_NUMBER = rf"(?:-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|{_SPECIAL})"
_IS_WHOLE, _IS_SPECIAL = re.compile(_WHOLE), re.compile(_SPECIAL)
_IS_NUMBER = re.compile(_NUMBER)
_NUMBER_LINES = re.compile(rf"^{_NUMBER}$", re.MULTILINE)
# Up to 15 digits: within the limits of every type. Most columns consist of these, and are checked at once.
_SHORT = r"(?:0|-?[1-9][0-9]{0,14})"
_SHORT_WHOLES = re.compile(rf"(?:{_SHORT}\n)*+{_SHORT}")
_SHORT_DECIMALS = re.compile(
    rf"(?:(?:-?(?:0|[1-9][0-9]{{0,14}})\.[0-9]{{1,40}}(?:[eE][+-]?[0-9]{{1,2}})?|{_SHORT}(?:[eE][+-]?[0-9]{{1,2}})?)?\n)*+"
)
_LEADING_ZEROS = re.compile(r"-?0[0-9]+")
_LIKE_A_NUMBER = re.compile(r"\s*[+\-]?\s*(?:0[xX][0-9a-fA-F]+|\d[\d.,_'\s]*(?:[eE][+-]?\d+)?)\s*%?\s*")
#: Longer texts are not checked for looking like numbers.
_LONGEST_NUMBER = 100
#: If fewer than one cell of a column in this many is a word and the others are numbers, the words count as mistakes.
_RARE = 1000

INTEGER, UNSIGNED, FLOAT, TEXT = "int64", "uint64", "float64", "text"


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its text, and the line where its row begins."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line} has {self.text[:60]!r}"


@dataclass(slots=True)
class CsvColumn:
    """What is known of a column's cells: call :meth:`look` with all of them, then :meth:`decide`."""

    numbers: int = 0
    words: int = 0
    empty: int = 0
    has_fractions: bool = False
    has_specials: bool = False
    has_plain: bool = False
    has_other_words: bool = False
    #: What the words are: dates, times or booleans, ``None`` for others and for numbers.
    sorts: set[str | None] = field(default_factory=set)
    unit: str = "D"
    has_far_years: bool = False
    least: int = 0
    most: int = 0
    first_word: Cell | None = None
    first_empty: Cell | None = None
    largest: Cell | None = None
    inexact: Cell | None = None
    out_of_range: Cell | None = None
    notes: list[str] = field(default_factory=list)

    def look(self, cells: Sequence[str], lines: Sequence[int]) -> None:
        """Take the next cells into account; ``lines`` are the lines where their rows begin."""
        joined = "\n".join(cells)
        if joined.count("\n") != len(cells) - 1:  # a cell of several lines must not count as several numbers
            joined = "\n".join([cell.replace("\n", "¶") for cell in cells])
        if _SHORT_WHOLES.fullmatch(joined):
            self.numbers += len(cells)
            self.has_plain = True
            return
        empty = cells.count("")
        if empty and self.first_empty is None:
            self.first_empty = Cell(lines[cells.index("")], "")
        self.empty += empty
        if _SHORT_DECIMALS.fullmatch(joined + "\n"):
            self.numbers += len(cells) - empty
            self.has_plain |= len(cells) > empty
            self.has_fractions |= "." in joined or "e" in joined or "E" in joined
            return
        numbers = len(_NUMBER_LINES.findall(joined))
        self.numbers += numbers
        if numbers + empty < len(cells):
            self._look_at_sort(cells, joined)
            self._look_at_words(cells, lines, len(cells) - numbers - empty)
        if not self.words:
            self._look_at_numbers(cells, lines)

    def _look_at_sort(self, cells: Sequence[str], joined: str) -> None:
        sort = None if self.numbers or None in self.sorts else csv_times.sort_of(cells, joined)
        self.sorts.add(sort)
        if sort in csv_times.TIMES:
            self.unit = csv_times.longer(self.unit, csv_times.unit_of(cells, sort))
            self.has_far_years |= csv_times.has_far_years(cells)

    def _look_at_words(self, cells: Sequence[str], lines: Sequence[int], words: int) -> None:
        self.words += words
        if self.first_word is None or not self.has_other_words:
            for line, cell in zip(lines, cells, strict=True):
                if cell and not _IS_NUMBER.fullmatch(cell):
                    self.first_word = self.first_word or Cell(line, cell)
                    self.has_other_words |= not _LEADING_ZEROS.fullmatch(cell)
                    if self.has_other_words:
                        break

    def _look_at_numbers(self, cells: Sequence[str], lines: Sequence[int]) -> None:
        for line, cell in zip(lines, cells, strict=True):
            if _IS_WHOLE.fullmatch(cell):
                self._look_at_whole(Cell(line, cell))
            elif _IS_SPECIAL.fullmatch(cell):
                self.has_specials = True
            elif cell:
                self._look_at_float(Cell(line, cell))

    def _look_at_whole(self, cell: Cell) -> None:
        self.has_plain = True
        if len(cell.text) > 40:
            self.out_of_range = self.out_of_range or cell
            self.largest = self.largest or cell
            return
        value = int(cell.text)
        if not -(2**63) <= value < 2**63 and (self.largest is None or value < -(2**63) or value >= 2**64):
            self.largest = cell
        self.least, self.most = min(self.least, value), max(self.most, value)
        if int(float(value)) != value:
            self.inexact = self.inexact or cell

    def _look_at_float(self, cell: Cell) -> None:
        self.has_plain = self.has_fractions = True
        value = float(cell.text)
        mantissa = re.split("[eE]", cell.text)[0]
        if abs(value) == np.inf or (value == 0 and mantissa.strip("-0.")):
            self.out_of_range = self.out_of_range or cell
            return
        whole, _, fraction = mantissa.partition(".")
        if mantissa == cell.text and not fraction.strip("0") and len(whole) > 15 and int(value) != int(whole):
            self.inexact = self.inexact or cell

    def decide(self, name: str) -> str:
        """The column's type. Raises ``ValueError``, which names column, line and remedy, if no type represents all of its cells.

        What the user should know about the choice is added to ``notes``.
        """
        if self.words:
            return self._decide_sort() or self._decide_words(name)
        if self.numbers and not self.has_plain:
            self.notes.append(f"column {name!r} is text: it holds nan or inf, and no number")
            return TEXT
        if self.numbers and not (self.has_fractions or self.has_specials or self.empty):
            return self._decide_whole(name)
        return self._decide_float(name)

    def _decide_sort(self) -> str | None:
        """A type of time, or the booleans, if all words are of that sort and there are no numbers."""
        if self.numbers or len(self.sorts) != 1:
            return None
        sort = next(iter(self.sorts))
        if sort not in csv_times.TIMES:
            return None if self.empty else sort
        if sort == csv_times.ZONED:
            self.notes.append("times with an offset are published as the same instants in UTC")
        return None if self.unit == "ns" and self.has_far_years else f"{sort}:{self.unit}"

    def _decide_words(self, name: str) -> str:
        first = self.first_word
        assert first is not None  # noqa: S101 - it was kept with the first of them
        if self.numbers and self.has_other_words and self.words * _RARE <= self.numbers:
            raise ValueError(
                f"column {name!r}: {first}, which is no plain number, and {self.numbers} other cells are numbers; mend it, or "
                "leave it empty (NaN). If the column is text, read the file yourself and pass its columns"
            )
        if self.numbers:
            self.notes.append(
                f"column {name!r} is text: {first}, which is no plain number; {self.numbers} of its cells are numbers"
            )
        elif len(first.text) <= _LONGEST_NUMBER and _LIKE_A_NUMBER.fullmatch(first.text):
            self.notes.append(f"column {name!r} is text, as it is written: {first}, which is no plain number")
        return TEXT

    def _decide_whole(self, name: str) -> str:
        if self.out_of_range is None and self.least >= -(2**63) and self.most < 2**63:
            return INTEGER
        if self.out_of_range is None and self.least >= 0 and self.most < 2**64:
            return UNSIGNED
        self.notes.append(
            f"column {name!r} is text: {self.largest}, and no whole number of 64 bits holds all of its cells"
        )
        return TEXT

    def _decide_float(self, name: str) -> str:
        if self.out_of_range is not None:
            raise ValueError(f"column {name!r}: {self.out_of_range}, which is beyond the range of float64")
        if self.inexact is not None:
            raise ValueError(f"column {name!r}: {self.inexact}, {self._beside()}")
        return FLOAT

    def _beside(self) -> str:
        """Why a column of whole numbers would have to be one of floats, and what to do."""
        if self.first_empty is not None and not (self.has_fractions or self.has_specials):
            return (
                f"but line {self.first_empty.line} is empty, and float64, which has NaN for it, does not hold that number "
                "exactly; fill the empty cells with whole numbers, or leave these rows out"
            )
        others = "have fractions" if self.has_fractions else "are nan or inf"
        return f"but other cells {others}, and float64 does not hold that number exactly; round it to 15 digits"


def convert(cells: Sequence[str], kind: str) -> Array:
    """Convert cells to an array of the type that was decided."""
    if kind == TEXT:
        return np.array(cells, dtype=np.dtypes.StringDType())
    if kind == FLOAT:
        return np.array([float(cell) if cell else np.nan for cell in cells], dtype=np.float64)
    if kind in (INTEGER, UNSIGNED):
        return np.array([int(cell) for cell in cells], dtype=kind)
    sort, is_time, unit = kind.partition(":")
    if is_time:
        return csv_times.times_of(cells, sort, unit)
    false, true = kind.split(",")
    return np.array([{false: False, true: True}[cell] for cell in cells], dtype=np.bool_)


_EXPECTED = {INTEGER: "whole number of 64 bits", UNSIGNED: "whole number of 64 bits", FLOAT: "plain number"}


def check_held(name: str, cells: Sequence[str], lines: Sequence[int], kind: str, seen: int) -> None:
    """Raise ``ValueError``, which names column, line and remedy, unless all cells are of the type that the first rows had."""
    if kind == TEXT or (kind in (INTEGER, FLOAT) and _SHORT_WHOLES.fullmatch("\n".join(cells))):
        return
    column = CsvColumn()
    for line, cell in zip(lines, cells, strict=True):
        if not _is_of(cell, kind, column, line):
            expected = _EXPECTED.get(kind, "ISO time as those before" if ":" in kind else "boolean as those before")
            word = Cell(line, cell)
            remedy = "mend it, or read the file yourself and pass its columns"
            said = f"{word}, which is no {expected}" if cell else f"line {line} is empty, and expected is a {expected}"
            raise ValueError(f"column {name!r}: {said}; the first {seen} rows decide a column's type: {remedy}")


def _is_of(cell: str, kind: str, column: CsvColumn, line: int) -> bool:
    if kind in (INTEGER, UNSIGNED):
        least, most = (-(2**63), 2**63) if kind == INTEGER else (0, 2**64)
        return bool(_IS_WHOLE.fullmatch(cell)) and len(cell) < 40 and least <= int(cell) < most
    if kind == FLOAT:
        if cell and not _IS_NUMBER.fullmatch(cell):
            return False
        if cell and not _IS_SPECIAL.fullmatch(cell):
            column.look([cell], [line])
        return column.inexact is None and column.out_of_range is None
    sort, is_time, unit = kind.partition(":")
    if not is_time:
        return cell in kind.split(",")
    if not cell:
        return True
    return (
        csv_times.sort_of([cell], cell) == sort
        and csv_times.longer(unit, csv_times.unit_of([cell], sort)) == unit
        and not (unit == "ns" and csv_times.has_far_years([cell]))
    )
