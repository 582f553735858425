"""Reads any source as half-batches of columns, in memory bounded by the batch.

The rows of a source arrive in blocks of any size and leave in pieces of the requested sizes: how the source was divided into
blocks does not change the dataset. Rows of a block are copied before the next block is requested, because the source may fill
the same arrays again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dnc_async.dataset.formats.options import VALID_SUFFIX, ReadOptions
from dnc_async.dataset.schema import Columns, Schema, schema_of
from dnc_async.errors import DatasetError
from dnc_async.publish.columns import columns_of, describe
from dnc_async.publish.opening import Opener
from dnc_async.publish.shuffling import Ready

_END = object()
#: A limit, because a header of a hundred bytes may claim 10^14 samples of zero bytes.
_MOST_WITHOUT_VALUES = 2**20
_AS_THEY_ARE = ReadOptions()

#: Called with the bytes that were read so far, and the size of the file.
Reading = Callable[[int, int], None]


class RowStream:
    """The rows of a source as columns: ``await take(n)`` returns the next ``n`` rows in pieces, fewer at the end."""

    def __init__(
        self,
        source: object,
        *,
        samples: bool = False,
        options: ReadOptions = _AS_THEY_ARE,
        reading: Reading | None = None,
    ) -> None:
        self._options = options
        self._notes: list[str] = []
        self._source = Opener(options, self._notes)
        self._blocks = self._source.open(source, samples=samples)
        self._reading = reading
        self._parts: list[Columns] = []
        self._rows = 0
        self._seen = 0
        self._ended = False
        self._schema: Schema | None = None

    @property
    def where(self) -> str:
        """What begins the error messages."""
        return self._source.where

    @property
    def notes(self) -> tuple[str, ...]:
        """The messages of the file's reader for the user."""
        return (*self._notes, *(() if self._source.file is None else self._source.file.notes))

    async def open(self) -> Schema:
        """Read the first rows; raises :class:`~dnc_async.errors.DatasetError` if there are none."""
        await self._fill(1)
        if self._schema is None or not self._rows:
            raise DatasetError(f"{self._source.where}: the dataset is empty: it has no samples to publish")
        return self._schema

    async def peek(self, rows: int) -> list[Columns]:
        """The next rows, fewer at the end, which a later :meth:`take` returns again."""
        await self._fill(rows)
        return first_rows(self._parts, rows)[0]

    async def take(self, rows: int) -> list[Columns]:
        """The next rows, fewer at the end; none when there are no more. They are valid until the next call."""
        await self._fill(rows)
        taken, self._parts = first_rows(self._parts, rows)
        self._rows -= count_rows(taken)
        return taken

    def check_unchanged(self) -> None:
        """Raise :class:`~dnc_async.errors.DatasetError` if the source's file changed since it was opened."""
        if self._source.file is not None:
            self._source.file.check_unchanged()

    async def aclose(self) -> None:
        """Close the source's generator and file, if it has any."""
        try:
            close = getattr(self._blocks, "aclose", None)
            if close is not None:
                await close()
        finally:
            if self._source.file is not None:
                self._source.file.close()

    async def _fill(self, rows: int) -> None:
        while self._rows < rows and not self._ended:
            if self._source.is_lent:
                self._parts = [_copied(part) for part in self._parts]
            block = await anext(self._blocks, _END)
            if self._reading is not None and self._source.file is not None:
                self._reading(self._source.file.read_bytes, self._source.file.size_bytes)
            if block is _END:
                self._ended = True
            elif block is not None:
                self._add(block)
            del block

    def _add(self, block: object) -> None:
        where = (
            f"block {self._seen} of {self._source.where}"
            if self._seen and self._source.file is None
            else self._source.where
        )
        where = where if self._source.file is None else self._source.file.place
        if isinstance(block, Ready):
            columns, structure = block.columns, block.structure
        else:
            columns, structure = columns_of(block, where=where, options=self._options, notes=self._notes)
        self._seen += 1
        self._complete_masks(columns)
        rows = len(next(iter(columns.values())))
        if not rows:  # the type of an empty list is not known
            return
        schema = schema_of(columns, structure)
        if self._schema is None:
            classes = {} if self._source.file is None else self._source.file.classes
            self._schema = dataclasses.replace(schema, classes=tuple(classes.items()))
        elif (schema.columns, schema.structure) != (self._schema.columns, self._schema.structure):
            before = {column.name for column in self._schema.columns}
            mask = next((name for name in columns if name.endswith(VALID_SUFFIX) and name not in before), None)
            if mask is not None:
                raise DatasetError(
                    f"{where}, column {mask.removesuffix(VALID_SUFFIX)!r}: a value is missing, and none was before; "
                    "fill it in, or pass missing='fill'"
                )
            raise DatasetError(
                f"{where} has {describe(schema)}, but the blocks before it had {describe(self._schema)}; convert all to one"
            )
        if rows > _MOST_WITHOUT_VALUES and not schema.smallest_sample_bytes:
            raise DatasetError(f"{where}: {rows} samples or more that hold no values ({describe(schema)})")
        self._parts.append(columns)
        self._rows += rows

    def _complete_masks(self, columns: Columns) -> None:
        """Add the masks that the blocks before had, where no value of this one is missing."""
        for column in () if self._schema is None else self._schema.ordered:
            name = column.name.removesuffix(VALID_SUFFIX)
            if column.name not in columns and name != column.name and name in columns:
                order = [each.name for each in self._schema.ordered] if self._schema is not None else []
                columns[column.name] = np.ones((len(columns[name]), *column.shape), dtype=np.bool_)
                ordered = {each: columns[each] for each in sorted(columns, key=lambda each: _place(order, each))}
                columns.clear()
                columns.update(ordered)


def first_rows(parts: Sequence[Columns], rows: int) -> tuple[list[Columns], list[Columns]]:
    """Divide pieces of a dataset into the first rows, fewer if there are not enough, and the rest; nothing is copied."""
    taken: list[Columns] = []
    for position, part in enumerate(parts):
        length = count_rows([part])
        if length > rows:
            if rows:
                taken.append(_sliced(part, slice(None, rows)))
            return taken, [_sliced(part, slice(rows, None)), *parts[position + 1 :]]
        taken.append(part)
        rows -= length
    return taken, []


def _sliced(part: Columns, rows: slice) -> Columns:
    return type(part)((name, array[rows]) for name, array in part.items())


def count_rows(parts: Sequence[Columns]) -> int:
    """The number of rows in several pieces."""
    return sum(len(next(iter(part.values()))) for part in parts)


def _copied(part: Columns) -> Columns:
    """A piece in its own memory; copied unless it is already."""
    return part if isinstance(part, _Owned) else _Owned((name, array.copy()) for name, array in part.items())


class _Owned(dict[str, Any]):
    """Columns to which nothing else refers."""


def _place(order: list[str], name: str) -> int:
    return order.index(name) if name in order else len(order)
