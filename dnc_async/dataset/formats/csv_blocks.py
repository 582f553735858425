"""Converts a CSV file at speed: pyarrow reads blocks of whole rows, whose types are known.

Nothing is left to pyarrow that it would do in another way than :mod:`dnc_async.dataset.formats.csv_columns`: a block with such
a value, or with a mistake, is given back as ``None``, and read again row by row, which finds the line and the reason.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from dnc_async.dataset.formats.arrow_columns import ArrowColumns
from dnc_async.dataset.formats.csv_columns import FLOAT, INTEGER, TEXT, UNSIGNED
from dnc_async.dataset.formats.extras import pyarrow
from dnc_async.dataset.formats.options import FILL, ReadOptions
from dnc_async.dataset.schema import Columns

_QUOTE, _LF, _CR, _MINUS, _DOT, _ZERO, _X, _LOWER = (np.uint8(each) for each in (34, 10, 13, 45, 46, 48, 120, 32))
#: From here on a float does not hold every whole number.
_EXACT = 2.0**53
_LONG_WHOLE = re.compile(rb"(?<![0-9.eE+])[0-9]{16,}(?:\.0*)?(?![0-9.eE])")
#: Rows of a block that pyarrow converts at once in a thread.
_PARSED_BYTES = 2**20
_SCANNED_BYTES = 2**17


class Cut:
    """The whole rows at the beginning of some bytes; ``block`` is empty if there are none, or if quotes hide where they end."""

    def __init__(self, data: bytes) -> None:
        end = data.rfind(b"\n") + 1
        quotes = np.empty(0, dtype=np.int64)
        if b'"' in data:
            quotes = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == _QUOTE)
            while end and (inside := int(np.searchsorted(quotes, end))) % 2:
                end = data.rfind(b"\n", 0, int(quotes[inside - 1])) + 1
            quotes = quotes[: int(np.searchsorted(quotes, end))]
        self.block = data[:end]
        self.quotes = quotes
        self.bytes = np.frombuffer(self.block, dtype=np.uint8)

    @property
    def lines(self) -> int:
        """The number of lines, also of those within quotes."""
        return int(np.count_nonzero(self.bytes == _LF))


class BlockReader:
    """Converts blocks of rows to columns, where pyarrow is there."""

    def __init__(self, names: Sequence[str], kinds: Sequence[str], separator: str, header: bytes) -> None:
        arrow = pyarrow("csv", "csv")
        self._separator = ord(separator)
        self._header = header
        self._has_whole = any(kind in (INTEGER, UNSIGNED) for kind in kinds)
        self._floats = [name for name, kind in zip(names, kinds, strict=True) if kind == FLOAT]
        self._not_null = [name for name, kind in zip(names, kinds, strict=True) if kind in (INTEGER, UNSIGNED)]
        self._arrow = arrow
        self._columns = ArrowColumns("", ReadOptions(missing=FILL))
        booleans = [kind.split(",") for kind in kinds if "," in kind]
        csv = arrow.csv
        self._csv = csv
        self._read = csv.ReadOptions(column_names=list(names), block_size=_PARSED_BYTES, use_threads=True)
        self._types = csv.ConvertOptions(
            column_types={name: _type(arrow, kind) for name, kind in zip(names, kinds, strict=True)},
            null_values=[""],
            strings_can_be_null=False,
            false_values=[pair[0] for pair in booleans],
            true_values=[pair[1] for pair in booleans],
            check_utf8=True,
        )

    def convert(self, cut: Cut) -> Columns | None:
        """Convert whole rows; ``None`` if they have to be read row by row."""
        block = cut.block
        if not self._is_plain(cut) or not self.is_border_sure(cut):
            return None
        parse = self._csv.ParseOptions(delimiter=chr(self._separator), newlines_in_values=bool(len(cut.quotes)))
        try:
            table = self._csv.read_csv(self._arrow.BufferReader(block), self._read, parse, self._types)
        except self._arrow.ArrowInvalid:
            return None
        if any(table[name].null_count for name in self._not_null):
            return None
        columns = self._columns.of_table(table)
        return columns if all(_are_exact(columns[name], block) for name in self._floats) else None

    def _is_plain(self, cut: Cut) -> bool:
        block = cut.block
        if b"\0" in block or self._header in block:
            return False
        if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
            return False
        return not (self._has_whole and self._has_odd_zero(np.frombuffer(b"\n\n" + block, dtype=np.uint8)))

    def _has_odd_zero(self, data: Any) -> bool:  # noqa: ANN401 - an array
        """Whether a cell may begin with a zero and another digit, or ``0x``: as a number it would lose that.

        The pieces fit into a processor's cache.
        """
        for start in range(0, len(data), _SCANNED_BYTES):
            piece = data[start : start + _SCANNED_BYTES + 3]
            before, zero, after = piece[1:-2], piece[2:-1], piece[3:]
            found = (zero == _ZERO) & ((before < _DOT) | (before == self._separator))
            found &= ((after - _ZERO) <= 9) | ((after | _LOWER) == _X)  # bytes below the digits wrap around
            if found.any() and self._begins_cell(piece, np.flatnonzero(found)):
                return True
        return False

    def _begins_cell(self, piece: Any, places: Any) -> bool:  # noqa: ANN401 - arrays
        """Whether one of these zeros, which are two bytes further, is the first digit of a cell, and not of an exponent."""
        before = np.where(piece[places + 1] == _MINUS, piece[places], piece[places + 1])
        return bool(np.isin(before, np.array([self._separator, _LF, _QUOTE], dtype=np.uint8)).any())

    def is_border_sure(self, cut: Cut) -> bool:
        """Whether a block ends with a row: each quote opens a cell, closes one, or is one of two within one."""
        data, quotes = cut.bytes, cut.quotes
        if len(quotes) % 2:
            return False
        if not len(quotes):
            return True
        opening, closing = quotes[::2], quotes[1::2]
        before = data[np.maximum(opening - 1, 0)]
        doubled = np.concatenate([[False], opening[1:] == closing[:-1] + 1])
        opens = doubled | (before == self._separator) | (before == _LF) | (opening == 0)
        after = data[np.minimum(closing + 1, len(data) - 1)]
        ends = (after == self._separator) | (after == _LF) | (after == _CR) | (closing == len(data) - 1)
        return bool(opens.all() and (ends | (after == _QUOTE)).all())


def _are_exact(values: Any, block: bytes) -> bool:  # noqa: ANN401 - an array
    """Whether floats are those that their text says: neither beyond the range, nor whole numbers that were rounded."""
    sizes = np.abs(values)
    return not (sizes == np.inf).any() and (not (sizes >= _EXACT).any() or _LONG_WHOLE.search(block) is None)


def _type(arrow: Any, kind: str) -> Any:  # noqa: ANN401 - the module, a type
    plain = {INTEGER: arrow.int64(), UNSIGNED: arrow.uint64(), FLOAT: arrow.float64(), TEXT: arrow.string()}
    sort, is_time, unit = kind.partition(":")
    if kind in plain:
        return plain[kind]
    if not is_time:
        return arrow.bool_()
    return arrow.date32() if sort == "date" else arrow.timestamp(unit, tz="UTC" if sort == "zoned" else None)
