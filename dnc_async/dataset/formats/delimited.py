"""CSV files with a header line, read twice: once to learn the type of each column, once for the rows.

A column becomes ``int64`` when every field is a whole number, ``float64`` when every field is a number or empty (empty is
NaN), else text. The first pass reads everything, so that a file gives the same types however it is cut into blocks.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dnc_async.dataset.schema import Array, Columns
from dnc_async.errors import DatasetError

_BLOCK_ROWS = 4096
_INT64 = np.iinfo(np.int64)

# The kinds of a column, from narrow to wide: a field can only widen its column.
_INTEGER, _NUMBER, _TEXT = range(3)


def read_csv(path: Path) -> Iterator[Columns]:
    """Blocks of rows as a dict of columns, named as in the first line."""
    try:
        names, kinds = _learn(path)
        for block in _row_blocks(path, names):
            fields = zip(*block, strict=True) if block else iter([()] * len(names))
            yield {
                name: _column(list(column), kinds[i])
                for i, (name, column) in enumerate(zip(names, fields, strict=True))
            }
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 text at byte {error.start}; convert the file first") from error


def _learn(path: Path) -> tuple[list[str], list[int]]:
    names = _header(path)
    kinds = [_INTEGER] * len(names)
    for block in _row_blocks(path, names):
        for row in block:
            for i, field in enumerate(row):
                if kinds[i] != _TEXT:
                    kinds[i] = max(kinds[i], _kind(field))
    return names, kinds


def _header(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        names = next(csv.reader(file), [])
    if not names:
        raise DatasetError(f"{path}: is empty; expected a first line with the names of the columns")
    if len(set(names)) != len(names):
        raise DatasetError(f"{path}: a column name stands twice in the first line: {names}")
    return names


def _row_blocks(path: Path, names: list[str]) -> Iterator[list[list[str]]]:
    block: list[list[str]] = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        next(reader, None)
        try:
            for row in reader:
                if not row:  # an empty line, as at the end of many files
                    continue
                if len(row) != len(names):
                    raise DatasetError(f"{path}, line {reader.line_num}: {len(row)} fields, expected {len(names)}")
                block.append(row)
                if len(block) == _BLOCK_ROWS:
                    yield block
                    block = []
        except csv.Error as error:
            raise DatasetError(f"{path}, line {reader.line_num}: {error}") from error
    yield block


def _kind(field: str) -> int:
    try:
        if _INT64.min <= int(field) <= _INT64.max:
            return _INTEGER
    except ValueError:
        if not field:
            return _NUMBER
    try:
        float(field)
    except ValueError:
        return _TEXT
    return _NUMBER


def _column(fields: list[str], kind: int) -> Array:
    if kind == _INTEGER:
        return np.array([int(field) for field in fields], dtype=np.int64)
    if kind == _NUMBER:
        return np.array([float(field) if field else np.nan for field in fields], dtype=np.float64)
    return np.array(fields, dtype=np.dtypes.StringDType())
