"""The layout of a chunk: self-contained, aligned, without pickle, the same bytes on every machine.

::

    0      8 bytes   magic b"DNCCHUNK"
    8      4 bytes   length of the header, unsigned, little-endian
    12     header    msgpack: [version, samples, [[name, dtype, shape, [segment bytes, …]], …]]
    …      zeros     up to a multiple of 64: here the data begins
    …      segments  each column's, in the header's order, each padded with zeros to a multiple of 64

A column of fixed size has one segment, the samples in C order, little-endian. A column of text or bytes has two:
``samples + 1`` offsets (``<u8``, the first 0), and the UTF-8, or the bytes, of all samples end to end.

Where the header follows from the schema and the number of samples (neither text nor bytes), so does every position in the
chunk: a reader can place bytes into its arrays before it has seen the header, and checks the header when it is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from dnc_async.dataset.ragged import Ragged, Text
from dnc_async.dataset.schema import Array, Column, Columns, Schema
from dnc_async.errors import ArgumentError, DecodeError

MAGIC = b"DNCCHUNK"
VERSION = 1
ALIGNMENT = 64
_PIECE_BYTES = 2**20
_TEXTS_AT_ONCE = 2**14
_PREFIX = len(MAGIC) + 4
_LARGEST_SEGMENT = 2**63
#: So many texts are decoded at a time: each takes far more memory than its offset in the chunk.
_TEXTS_AT_ONCE = 2**14


def _aligned(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is in a chunk: ``segments`` are the (offset, bytes) of each column."""

    header: bytes
    segments: tuple[tuple[tuple[int, int], ...], ...]
    size_bytes: int


def _layout(schema: Schema, samples: int, lengths: list[list[int]]) -> Layout:
    rows = [[c.name, c.dtype, list(c.shape), sizes] for c, sizes in zip(schema.columns, lengths, strict=True)]
    body = msgpack.packb([VERSION, samples, rows])
    header = (MAGIC + len(body).to_bytes(4, "little") + body).ljust(_aligned(_PREFIX + len(body)), b"\0")
    position, segments = len(header), []
    for sizes in lengths:
        placed = []
        for size in sizes:
            placed.append((position, size))
            position += _aligned(size)
        segments.append(tuple(placed))
    return Layout(header=header, segments=tuple(segments), size_bytes=position)


def fixed_layout(schema: Schema, samples: int) -> Layout:
    """The layout that follows from the schema and the number of samples; no column may vary in length."""
    return _layout(schema, samples, [[column.sample_bytes * samples] for column in schema.columns])


class Encoded:
    """One chunk, encoded while it is iterated over; ``layout`` gives its size before. ``parts`` are pieces of its columns.

    A column of fixed size is not copied as a whole, so a chunk takes little memory beside its rows.
    """

    def __init__(self, schema: Schema, parts: Sequence[Columns]) -> None:
        samples = sum(len(next(iter(part.values()))) for part in parts)
        self._columns = [_segments(column, [part[column.name] for part in parts]) for column in schema.columns]
        sizes = [[segment.size_bytes for segment in column] for column in self._columns]
        self.layout = _layout(schema, samples, sizes)

    def __iter__(self) -> Iterator[bytes | memoryview]:
        """Yield the chunk's bytes, in pieces of about a megabyte at most."""
        yield self.layout.header
        for column in self._columns:
            for segment in column:
                yield from segment.pieces()
                yield bytes(_aligned(segment.size_bytes) - segment.size_bytes)


def encode(schema: Schema, columns: Columns) -> bytearray:
    """Encode one chunk as a whole."""
    return bytearray().join(Encoded(schema, [columns]))


@dataclass(frozen=True, slots=True)
class _Segment:
    """Rows of arrays, one after the other, as little-endian bytes."""

    arrays: Sequence[Array]
    dtype: np.dtype[Any]

    @property
    def size_bytes(self) -> int:
        return sum(array.size for array in self.arrays) * self.dtype.itemsize

    def pieces(self) -> Iterator[memoryview]:
        for array in self.arrays:
            if not array.size or not self.dtype.itemsize:
                continue
            rows = max(1, _PIECE_BYTES * len(array) // (array.size * self.dtype.itemsize))
            for start in range(0, len(array), rows):
                piece = np.ascontiguousarray(array[start : start + rows], dtype=self.dtype)
                data = piece.reshape(-1).view(np.uint8).data
                yield from (data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES))


def _segments(column: Column, arrays: Sequence[Array | Ragged]) -> list[_Segment]:
    if not column.varies:
        fixed = [array for array in arrays if not isinstance(array, Ragged)]
        return [_Segment(fixed, np.dtype(column.dtype))]
    encoded = [array if isinstance(array, Ragged) else _utf8(array) for array in arrays]
    lengths = np.concatenate([np.diff(each.offsets) for each in encoded])
    return [_offsets(lengths), _Segment([each.values for each in encoded], np.dtype(np.uint8))]


def _utf8(array: Array) -> Text:
    """Encode strings, a piece at a time, because Python's strings take several times their bytes."""
    offsets = np.zeros(len(array) + 1, dtype=np.int64)
    pieces = []
    for start in range(0, len(array), _TEXTS_AT_ONCE):
        texts = array[start : start + _TEXTS_AT_ONCE].tolist()
        joined = "".join(texts)
        pieces.append(joined.encode("utf-8"))
        texts = texts if len(pieces[-1]) == len(joined) else [text.encode("utf-8") for text in texts]
        offsets[start + 1 : start + 1 + len(texts)] = list(map(len, texts))
    return Text(np.frombuffer(b"".join(pieces), dtype=np.uint8), np.cumsum(offsets))


def _offsets(lengths: npt.NDArray[np.int64]) -> _Segment:
    offsets = np.zeros(len(lengths) + 1, dtype="<u8")
    np.cumsum(lengths, out=offsets[1:])
    return _Segment([offsets], offsets.dtype)


class Layouts:
    """The layouts of a dataset's chunks whose columns all have a fixed size; each is computed once."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._by_samples: dict[int, Layout] = {}

    def __repr__(self) -> str:
        return f"<Layouts for {', '.join(map(str, self._by_samples)) or 'no'} samples>"

    def of(self, samples: int) -> Layout:
        """The layout of a chunk with this number of samples."""
        layout = self._by_samples.get(samples)
        if layout is None:
            layout = self._by_samples[samples] = fixed_layout(self.schema, samples)
        return layout

    def check(self, samples: int, header: bytes | memoryview) -> None:
        """Raise :class:`~dnc_async.errors.DecodeError` unless this is the header of a chunk with this number of samples."""
        if header != self.of(samples).header:
            raise DecodeError(
                f"the chunk is not laid out as its manifest says: expected {samples} samples of {self.schema}"
            )


def check_booleans(column: Column, values: Array) -> None:
    """Raise :class:`~dnc_async.errors.DecodeError` if a sample of a boolean column is neither 0 nor 1: numpy would go wrong."""
    if column.is_boolean and values.size and (values.view(np.uint8) > 1).any():
        raise DecodeError(f"column {column.name!r} of the chunk has a boolean that is neither 0 nor 1")


def decode(schema: Schema, samples: int, chunk: bytearray | memoryview) -> Columns:
    """The columns of a whole chunk, as new writable arrays; the values of ``bytes`` stay in ``chunk``, without a copy.

    Raises :class:`~dnc_async.errors.DecodeError` if the chunk is not what the manifest says: a CID proves that the publisher
    wrote it, not that it is true.
    """
    data = memoryview(chunk)
    layout = _read_header(schema, samples, data)
    columns: Columns = {}
    for column, placed in zip(schema.columns, layout.segments, strict=True):
        parts = [data[offset : offset + size] for offset, size in placed]
        columns[column.name] = _read(column, samples, parts)
    return columns


def _read(column: Column, samples: int, parts: list[memoryview]) -> Array | Ragged:
    if column.is_bytes:
        return _bytes(column, samples, parts)
    return _text(column, samples, parts) if column.is_text else _fixed(column, samples, parts[0])


def _read_header(schema: Schema, samples: int, data: memoryview) -> Layout:
    problem = DecodeError(f"the chunk is not laid out as its manifest says: expected {samples} samples of {schema}")
    if len(data) < _PREFIX or data[: len(MAGIC)] != MAGIC:
        raise problem
    length = int.from_bytes(data[len(MAGIC) : _PREFIX], "little")
    expected = [2 if column.varies else 1 for column in schema.columns]
    longest = _layout(schema, samples, [[_LARGEST_SEGMENT] * count for count in expected])
    if length > len(longest.header):  # it would take far more memory than its bytes
        raise problem
    try:
        _, _, rows = msgpack.unpackb(data[_PREFIX : _PREFIX + length])
        lengths = [[int(size) for size in row[3]] for row in rows]
        layout = _layout(schema, samples, lengths)
    except (ValueError, TypeError, LookupError, OverflowError, msgpack.UnpackException) as error:
        raise problem from error
    if bytes(data[: len(layout.header)]) != layout.header or layout.size_bytes != len(data):
        raise problem
    if [len(sizes) for sizes in lengths] != expected or any(size < 0 for sizes in lengths for size in sizes):
        raise problem
    return layout


def _fixed(column: Column, samples: int, part: memoryview) -> Array:
    if part.nbytes != column.sample_bytes * samples:
        raise DecodeError(f"column {column.name!r} of the chunk has {part.nbytes} bytes for {samples} samples")
    out = column.empty(samples)
    out.reshape(-1).view(np.uint8)[:] = part
    check_booleans(column, out)
    return out


def _text(column: Column, samples: int, parts: list[memoryview]) -> Array:
    problem = DecodeError(f"the text column {column.name!r} of the chunk is damaged")
    if parts[0].nbytes != 8 * (samples + 1):
        raise problem
    offsets, out = np.frombuffer(parts[0], dtype="<u8"), column.empty(samples)
    if offsets[0] != 0 or offsets[-1] != parts[1].nbytes or (offsets[1:] < offsets[:-1]).any():
        raise problem
    try:
        for start in range(0, samples, _TEXTS_AT_ONCE):
            some = offsets[start : start + _TEXTS_AT_ONCE + 1].tolist()
            out[start : start + _TEXTS_AT_ONCE] = [str(parts[1][a:b], "utf-8") for a, b in pairwise(some)]
    except UnicodeDecodeError as error:
        raise problem from error
    return out


def _bytes(column: Column, samples: int, parts: list[memoryview]) -> Ragged:
    problem = DecodeError(f"the column {column.name!r} of the chunk is damaged: its offsets are not those of its bytes")
    if parts[0].nbytes != 8 * (samples + 1):
        raise problem
    try:
        return Ragged(np.frombuffer(parts[1], dtype=np.uint8), np.frombuffer(parts[0], dtype="<u8"))
    except ArgumentError as error:
        raise problem from error
