"""One batch in memory, from its first byte to the arrays that the consumer owns.

A batch's memory is allocated once, as a new array per column, and each chunk's bytes are written directly into its rows, from a
gateway or from the spool. Arrays are never reused: they belong to the consumer. Chunks whose layout depends on their content
are kept whole until they are complete. Columns of ``bytes``, whose sizes are not known before, are joined when the last chunk
is complete, so such a batch is in memory twice for a moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dnc_async.dataset import chunk_format
from dnc_async.dataset.chunk_format import Layouts
from dnc_async.dataset.ragged import Ragged
from dnc_async.dataset.schema import Array, Columns

Segment = tuple[int, memoryview]


class ChunkPlace:
    """Where to write a chunk's bytes: ``segments`` are (offset in the chunk, writable memory), in order."""

    __slots__ = ("_ends", "segments", "size_bytes")

    def __init__(self, segments: Sequence[Segment], size_bytes: int) -> None:
        self.segments = tuple(segments)
        self.size_bytes = size_bytes
        self._ends = tuple(offset + view.nbytes for offset, view in segments)

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Copy verified bytes into the segments; padding between the segments is dropped."""
        source, end = memoryview(data), offset + len(data)
        for (start, view), stop in zip(self.segments, self._ends, strict=True):
            first, last = max(start, offset), min(stop, end)
            if first < last:
                view[first - start : last - start] = source[first - offset : last - offset]

    def between(self, start: int, end: int) -> tuple[Segment, ...]:
        """The parts of the segments for the chunk's bytes from ``start`` to ``end`` (exclusive)."""
        clipped = (
            (max(first, start), view[max(0, start - first) : end - first])
            for (first, view), stop in zip(self.segments, self._ends, strict=True)
            if max(first, start) < min(stop, end)
        )
        return tuple(clipped)


class BatchBuffer:
    """The arrays of one batch, and the place of each chunk in them."""

    def __init__(self, layouts: Layouts, samples: Sequence[int]) -> None:
        """Allocate a batch; ``samples`` are the numbers of samples of its chunks, in order."""
        self._layouts = layouts
        self._schema = schema = layouts.schema
        self._varies = schema.varies
        self._samples = tuple(samples)
        rows = sum(samples)
        self._columns: dict[str, Array] = {
            column.name: column.empty(rows) for column in schema.columns if not column.is_bytes
        }
        self._ragged: dict[str, list[Ragged]] = {column.name: [] for column in schema.columns if column.is_bytes}
        self._raw: dict[int, memoryview] = {}
        self._booleans = [column for column in schema.columns if column.is_boolean]

    def place(self, part: int, size_bytes: int) -> ChunkPlace:
        """Where to write the bytes of the ``part``-th chunk, a file of ``size_bytes``."""
        if self._varies:  # the layout depends on the content: keep it whole, decode when it is complete
            whole = self._raw[part] = _untouched(size_bytes)
            return ChunkPlace([(0, whole)], size_bytes)
        rows = self._rows(part)
        layout = self._layouts.of(self._samples[part])
        header = self._raw[part] = _untouched(len(layout.header))
        segments: list[Segment] = [(0, header)]
        for column, ((offset, size),) in zip(self._schema.columns, layout.segments, strict=True):
            if size:
                segments.append((offset, self._columns[column.name][rows].reshape(-1).view(np.uint8).data))
        return ChunkPlace(segments, size_bytes)

    @property
    def decodes(self) -> bool:
        """Whether :meth:`finish` has to look at a chunk's samples, and not only at its header."""
        return self._varies or bool(self._booleans)

    def finish(self, part: int) -> None:
        """Check a chunk whose bytes have all been written, and decode it if necessary. Call it in the chunks' order.

        Raises :class:`~dnc_async.errors.DecodeError`.
        """
        samples, raw = self._samples[part], self._raw.pop(part)
        if not self._varies:
            self._layouts.check(samples, raw)
            for column in self._booleans:
                chunk_format.check_booleans(column, self._columns[column.name][self._rows(part)])
            return
        for name, values in chunk_format.decode(self._schema, samples, raw).items():
            if isinstance(values, Ragged):
                self._ragged[name].append(values)
            else:
                self._columns[name][self._rows(part)] = values
        if part == len(self._samples) - 1:
            self._ragged = {name: [Ragged.join(parts)] for name, parts in self._ragged.items()}

    def _rows(self, part: int) -> slice:
        start = sum(self._samples[:part])
        return slice(start, start + self._samples[part])

    def batch(self) -> Any:  # noqa: ANN401 - a dict, a tuple or an array: what was uploaded
        """The batch, in the structure that was uploaded."""
        columns: Columns = {}
        for column in self._schema.columns:
            columns[column.name] = self._ragged[column.name][0] if column.is_bytes else self._columns[column.name]
        return self._schema.restore(columns)


def _untouched(size_bytes: int) -> memoryview:
    """New memory that the system provides page by page, as it is written: a promise of a large chunk takes none."""
    return np.empty(size_bytes, dtype=np.uint8).data
