"""From whatever a user has to half-batches of columns, in memory bounded by the batch.

The rows of a source come in blocks of any size and leave in pieces of the sizes that were asked for: the cut of the
source into blocks leaves no trace in the dataset.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import anyio.to_thread
import numpy as np

from dnc_async.dataset.formats import read_file
from dnc_async.dataset.ragged import Ragged
from dnc_async.dataset.schema import Columns, Schema, columns_of, join, schema_of
from dnc_async.errors import ArgumentError, DatasetError

_END = object()


class RowStream:
    """The rows of a source as columns: ``await take(n)`` gives the next ``n`` rows, fewer at the end."""

    def __init__(self, source: object) -> None:
        self._blocks = _blocks(source)
        self._parts: list[Columns] = []
        self._rows = 0
        self._seen = 0
        self._ended = False
        self._schema: Schema | None = None

    async def open(self) -> Schema:
        """Read the first rows; raises :class:`~dnc_async.errors.DatasetError` where there are none."""
        await self._fill(1)
        if self._schema is None or not self._rows:
            raise DatasetError("the dataset is empty: it has no samples to publish")
        return self._schema

    async def peek(self, rows: int) -> Columns:
        """The next rows, fewer at the end, which a later :meth:`take` gives again."""
        await self._fill(rows)
        return self._join(min(rows, self._rows), consume=False)

    async def take(self, rows: int) -> Columns | None:
        """The next rows, fewer at the end; ``None`` when there are no more."""
        await self._fill(rows)
        return self._join(min(rows, self._rows), consume=True) if self._rows else None

    async def aclose(self) -> None:
        """Close the source's generator, where it is one."""
        close = getattr(self._blocks, "aclose", None)
        if close is not None:
            await close()

    async def _fill(self, rows: int) -> None:
        while self._rows < rows and not self._ended:
            block = await anext(self._blocks, _END)
            if block is _END:
                self._ended = True
                return
            self._add(block)

    def _add(self, block: object) -> None:
        where = f"block {self._seen} of the source" if self._seen else "the source"
        columns, structure = columns_of(block, where=where)
        schema = schema_of(columns, structure)
        self._seen += 1
        if self._schema is None:
            self._schema = schema
        elif schema != self._schema:
            raise DatasetError(
                f"{where} has {_describe(schema)}, but the blocks before it had {_describe(self._schema)}"
            )
        rows = len(next(iter(columns.values())))
        if rows:
            self._parts.append(columns)
            self._rows += rows

    def _join(self, rows: int, *, consume: bool) -> Columns:
        taken: list[Columns] = []
        missing = rows
        for position, part in enumerate(self._parts):
            length = len(next(iter(part.values())))
            if length > missing:
                taken.append({name: array[:missing] for name, array in part.items()})
                rest = [{name: array[missing:] for name, array in part.items()}, *self._parts[position + 1 :]]
                break
            taken.append(part)
            missing -= length
            rest = self._parts[position + 1 :]
            if not missing:
                break
        if consume:
            self._parts, self._rows = rest, self._rows - rows
        return join(taken)


def _describe(schema: Schema) -> str:
    columns = ", ".join(f"{c.name}: {c.dtype}{list(c.shape) if c.shape else ''}" for c in schema.columns)
    return f"a {schema.structure} of {columns}"


def _blocks(source: object) -> AsyncIterator[Any]:
    if isinstance(source, (str, PathLike)):
        return _in_thread(read_file(Path(source).expanduser()))
    if isinstance(source, (Mapping, tuple, np.ndarray, Ragged)):
        return _in_thread(iter([source]))
    if isinstance(source, AsyncIterable):
        return aiter(source)
    if isinstance(source, Iterable):
        return _in_thread(iter(source))
    raise ArgumentError(
        f"source: cannot publish a {type(source).__name__}; expected a dict of arrays, a tuple (X, y), an array, "
        "the path of a file, or an iterable of dicts of arrays"
    )


async def _in_thread(blocks: Iterator[Any]) -> AsyncIterator[Any]:
    """Run an iterator that may read files, or take its time, off the event loop."""
    while (block := await anyio.to_thread.run_sync(next, blocks, _END)) is not _END:
        yield block
