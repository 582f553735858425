"""Opens any source: what it is depends on its type alone, and it is then an iterator of blocks of rows."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import numpy as np

from dnc_async.dataset.formats import Source, open_source
from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.order.permutation import permuted
from dnc_async.dataset.ragged import Ragged
from dnc_async.dataset.schema import Columns, Structure, schema_of
from dnc_async.errors import ArgumentError, DatasetError
from dnc_async.publish import shuffling
from dnc_async.publish.columns import are_samples, columns_of, describe
from dnc_async.publish.documents import documents_of, packed
from dnc_async.publish.samples import blocks_of_later_samples, blocks_of_list, blocks_of_samples
from dnc_async.publish.tables import is_series, is_table
from dnc_async.publish.threads import in_thread
from dnc_async.publish.values import is_held, is_sequence

_END = object()


class Opener:
    """One source. ``where`` begins the error messages; ``file`` are its files, if it has any.

    ``is_lent`` says that the source may fill the same arrays again.
    """

    def __init__(self, options: ReadOptions, notes: list[str]) -> None:
        self.file: Source | None = None
        self.where = "the source"
        self.is_lent = False
        self._options = options
        self._notes = notes
        is_seed = options.shuffle is not None and options.shuffle is not False
        self._seed = int(options.shuffle) if is_seed else None  # type: ignore[arg-type]  # it is a number

    def open(self, source: object, *, samples: bool) -> AsyncIterator[Any]:
        """The source's blocks; raises for what is none, before anything is read."""
        if self._options.pack is not None:
            return self._open_documents(source, self._options.pack)
        if isinstance(source, (str, PathLike)) or _are_paths(source):
            self._only_for_iterables(samples, "a file")
            file = self._open_file(source)
            return _of_file(file.blocks if self._seed is None else self._shuffled_file(file))
        if isinstance(source, Mapping) or is_table(source) or is_series(source):
            self._only_for_iterables(samples, f"a {type(source).__name__}")
            return _in_thread(self._whole(source))
        if isinstance(source, tuple) and not (samples or are_samples(source)):
            return _in_thread(self._whole(source))
        return self._open_object(source, samples=samples)

    def _open_object(self, source: object, *, samples: bool) -> AsyncIterator[Any]:
        if is_sequence(source) and is_held(source):
            listed = list(source)
            order = range(len(listed)) if self._seed is None else permuted(len(listed), self._seed).tolist()
            return _in_thread(blocks_of_list([listed[row] for row in order], self.where, self._options))
        if isinstance(source, (bytes, bytearray, memoryview)):
            raise ArgumentError(f"source: {type(source).__name__} are one value; a list of bytes is a column of them")
        if isinstance(source, io.IOBase):
            raise ArgumentError("source: an open file; pass its path")
        if isinstance(source, (np.ndarray, Ragged)) or hasattr(source, "__array__"):
            return _in_thread(self._whole(source))
        return self._open_lazy(source, samples=samples)

    def _open_lazy(self, source: object, *, samples: bool) -> AsyncIterator[Any]:
        """Open a source that creates its samples, or blocks of them, on request."""
        if hasattr(source, "toarray"):
            raise ArgumentError(f"source: a {type(source).__name__} is sparse; pass its .toarray()")
        if isinstance(source, AsyncIterable):
            self._refuse_to_shuffle(source)
            self.is_lent = not samples
            return (
                blocks_of_later_samples(aiter(source), where=self.where, options=self._options)
                if samples
                else aiter(source)
            )
        if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
            indexed = _indexed(source, self._seed)
            return _in_thread(blocks_of_samples(indexed, copies=True, where=self.where, options=self._options))
        if isinstance(source, Iterable) and not isinstance(source, (set, frozenset)):
            self._refuse_to_shuffle(source)
            self.is_lent = not samples
            return _in_thread(
                blocks_of_samples(source, copies=True, where=self.where, options=self._options)
                if samples
                else iter(source)
            )
        raise ArgumentError(
            f"source: cannot publish a {type(source).__name__}; expected a dict of arrays, a tuple (X, y), an array, a list of "
            "samples, the path of a file, or an iterable of dicts of arrays"
        )

    def _refuse_to_shuffle(self, source: object) -> None:
        if self._seed is not None:
            shuffling.refuse(source)

    def _open_file(self, source: Any) -> Source:  # noqa: ANN401 - a path, or several
        is_list = isinstance(source, (list, tuple))
        paths = [Path(path).expanduser() for path in (source if is_list else [source])]
        self.file = open_source(paths if is_list else paths[0], self._options)
        self.where = self.file.where
        return self.file

    def _open_documents(self, source: Any, length: int) -> AsyncIterator[Any]:  # noqa: ANN401 - whatever the caller has
        if isinstance(source, (str, PathLike)) or _are_paths(source):
            blocks = self._open_file(source).blocks
            return _of_file(packed(documents_of(blocks, self.where), length, self.where))
        is_indexed = hasattr(source, "__len__") and hasattr(source, "__getitem__") and not isinstance(source, Mapping)
        if is_indexed:
            return _in_thread(packed(_indexed(source, self._seed), length, self.where))
        if isinstance(source, Mapping) or not isinstance(source, Iterable):
            raise ArgumentError(f"pack: expected documents, one after the other, got a {type(source).__name__}")
        self._refuse_to_shuffle(source)
        return _in_thread(packed(source, length, self.where))

    def _whole(self, source: object) -> Iterator[object]:
        """A source that is in memory, whole or shuffled."""
        if self._seed is None:
            yield source
            return
        columns, structure = columns_of(source, where=self.where, options=self._options, notes=self._notes)
        yield from shuffling.gathered(columns, structure, self._seed)

    def _shuffled_file(self, file: Source) -> Iterator[object]:
        """The rows of a file that its reader has shuffled, or that are held in memory."""
        parts: list[Columns] = []
        structure: Structure = "dict"
        held = 0
        for block in file.blocks:
            if file.is_shuffled or block is None:
                yield block
                continue
            columns, structure = columns_of(block, where=file.place, options=self._options, notes=self._notes)
            parts.append(columns)
            held += shuffling.size_of(columns)
            shuffling.check_held(held, self.where)
        if parts and self._seed is not None:
            self._check_alike(parts, structure)
            yield from shuffling.gathered(shuffling.joined(parts), structure, self._seed)

    def _check_alike(self, parts: list[Columns], structure: Structure) -> None:
        first = schema_of(parts[0], structure)
        for part in parts:
            schema = schema_of(part, structure)
            if schema.columns != first.columns:
                raise DatasetError(
                    f"{self.where} has {describe(schema)}, and {describe(first)} at first; convert all to one"
                )

    @staticmethod
    def _only_for_iterables(samples: bool, what: str) -> None:
        if samples:
            raise ArgumentError(
                f"samples: {what} holds columns; samples=True is for what yields one sample after another"
            )


def _are_paths(source: object) -> bool:
    """Whether it is a list of files. A list of text is a column."""
    return isinstance(source, (list, tuple)) and bool(source) and all(isinstance(each, PathLike) for each in source)


def _indexed(source: Any, seed: int | None) -> Iterator[Any]:  # noqa: ANN401 - of any type that has both
    order = range(len(source)) if seed is None else permuted(len(source), seed).tolist()
    return (source[index] for index in order)


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
    """Run a file's reader outside of the event loop, one block ahead of its consumer. The file is not closed meanwhile."""
    following = asyncio.create_task(in_thread(next, blocks, _END))
    try:
        while True:
            block = await following
            if block is _END:
                return
            following = asyncio.create_task(in_thread(next, blocks, _END))
            yield block
            del block
    finally:
        following.cancel()
        with anyio.CancelScope(shield=True), contextlib.suppress(BaseException):
            await following  # which ends when the reader has returned
