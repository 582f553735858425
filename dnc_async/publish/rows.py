"""Reads any source as half-batches of columns, in memory bounded by the batch.

The rows of a source arrive in blocks of any size and leave in pieces of the requested sizes: how the source was divided into
blocks does not change the dataset. Rows of a block are copied before the next block is requested, because the source may fill
the same arrays again.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import anyio.to_thread
import numpy as np

from dnc_async.dataset.formats import Source, open_source
from dnc_async.dataset.formats.options import VALID_SUFFIX, ReadOptions
from dnc_async.dataset.ragged import Ragged
from dnc_async.dataset.schema import Columns, Schema, schema_of
from dnc_async.errors import ArgumentError, DatasetError
from dnc_async.publish.columns import are_samples, columns_of, describe
from dnc_async.publish.samples import blocks_of_later_samples, blocks_of_list, blocks_of_samples
from dnc_async.publish.tables import is_series, is_table
from dnc_async.publish.threads import in_thread
from dnc_async.publish.values import is_held, is_sequence

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
        self._file: Source | None = None
        self._options = options
        self._notes: list[str] = []
        self.where = "the source"
        #: Whether the source may fill the same arrays again.
        self._is_lent = False
        self._blocks = self._open(source, samples=samples)
        self._reading = reading
        self._parts: list[Columns] = []
        self._rows = 0
        self._seen = 0
        self._ended = False
        self._schema: Schema | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """The messages of the file's reader for the user."""
        return (*self._notes, *(() if self._file is None else self._file.notes))

    async def open(self) -> Schema:
        """Read the first rows; raises :class:`~dnc_async.errors.DatasetError` if there are none."""
        await self._fill(1)
        if self._schema is None or not self._rows:
            raise DatasetError(f"{self.where}: the dataset is empty: it has no samples to publish")
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
        if self._file is not None:
            self._file.check_unchanged()

    async def aclose(self) -> None:
        """Close the source's generator and file, if it has any."""
        try:
            close = getattr(self._blocks, "aclose", None)
            if close is not None:
                await close()
        finally:
            if self._file is not None:
                self._file.close()

    async def _fill(self, rows: int) -> None:
        while self._rows < rows and not self._ended:
            if self._is_lent:
                self._parts = [_copied(part) for part in self._parts]
            block = await anext(self._blocks, _END)
            if self._reading is not None and self._file is not None:
                self._reading(self._file.read_bytes, self._file.size_bytes)
            if block is _END:
                self._ended = True
            elif block is not None:
                self._add(block)
            del block

    def _add(self, block: object) -> None:
        where = f"block {self._seen} of {self.where}" if self._seen and self._file is None else self.where
        where = where if self._file is None else self._file.place
        columns, structure = columns_of(block, where=where, options=self._options, notes=self._notes)
        self._seen += 1
        self._complete_masks(columns)
        rows = len(next(iter(columns.values())))
        if not rows:  # the type of an empty list is not known
            return
        schema = schema_of(columns, structure)
        if self._schema is None:
            self._schema = schema
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

    def _open(self, source: object, *, samples: bool) -> AsyncIterator[Any]:
        if isinstance(source, (str, PathLike)) or _are_paths(source):
            self._only_for_iterables(samples, "a file")
            is_list = isinstance(source, (list, tuple))
            paths = [Path(path).expanduser() for path in (source if is_list else [source])]  # type: ignore[attr-defined]
            self._file = open_source(paths if is_list else paths[0], self._options)
            self.where = self._file.where
            return _of_file(self._file.blocks)
        if isinstance(source, Mapping) or is_table(source) or is_series(source):
            self._only_for_iterables(samples, f"a {type(source).__name__}")
            return _in_thread(iter([source]))
        if isinstance(source, tuple) and not (samples or are_samples(source)):
            return _in_thread(iter([source]))
        if is_sequence(source) and is_held(source):
            return _in_thread(blocks_of_list(list(source), self.where, self._options))
        if isinstance(source, (bytes, bytearray, memoryview)):
            raise ArgumentError(f"source: {type(source).__name__} are one value; a list of bytes is a column of them")
        if isinstance(source, io.IOBase):
            raise ArgumentError("source: an open file; pass its path")
        if isinstance(source, (np.ndarray, Ragged)) or hasattr(source, "__array__"):
            return _in_thread(iter([source]))
        return self._open_lazy(source, samples=samples)

    def _open_lazy(self, source: object, *, samples: bool) -> AsyncIterator[Any]:
        """Open a source that creates its samples, or blocks of them, on request."""
        if hasattr(source, "toarray"):
            raise ArgumentError(f"source: a {type(source).__name__} is sparse; pass its .toarray()")
        if isinstance(source, AsyncIterable):
            self._is_lent = not samples
            return (
                blocks_of_later_samples(aiter(source), where=self.where, options=self._options)
                if samples
                else aiter(source)
            )
        if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
            return _in_thread(blocks_of_samples(_indexed(source), copies=True, where=self.where, options=self._options))
        if isinstance(source, Iterable) and not isinstance(source, (set, frozenset)):
            self._is_lent = not samples
            return _in_thread(
                blocks_of_samples(source, copies=True, where=self.where, options=self._options)
                if samples
                else iter(source)
            )
        raise ArgumentError(
            f"source: cannot publish a {type(source).__name__}; expected a dict of arrays, a tuple (X, y), an array, a list of "
            "samples, the path of a file, or an iterable of dicts of arrays"
        )

    @staticmethod
    def _only_for_iterables(samples: bool, what: str) -> None:
        if samples:
            raise ArgumentError(
                f"samples: {what} holds columns; samples=True is for what yields one sample after another"
            )


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


def _are_paths(source: object) -> bool:
    """Whether it is a list of files. A list of text is a column."""
    return isinstance(source, (list, tuple)) and bool(source) and all(isinstance(each, PathLike) for each in source)


def _place(order: list[str], name: str) -> int:
    return order.index(name) if name in order else len(order)


def _indexed(source: Any) -> Iterator[Any]:  # noqa: ANN401 - of any type that has both
    return (source[index] for index in range(len(source)))


async def _in_thread(blocks: Iterator[Any]) -> AsyncIterator[Any]:
    """Run a caller's iterator, which may be slow, outside of the event loop. A cancellation does not wait for it.

    A block is not kept in memory while the next one is made.
    """
    while True:
        block = await anyio.to_thread.run_sync(next, blocks, _END)
        if block is _END:
            return
        yield block
        del block


async def _of_file(blocks: Iterator[Any]) -> AsyncIterator[Any]:
    """Run a file's reader outside of the event loop, a moment at a time. The file is not closed meanwhile."""
    while True:
        block = await in_thread(next, blocks, _END)
        if block is _END:
            return
        yield block
        del block
