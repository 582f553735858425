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

from dataclasses import dataclass
from itertools import pairwise

import msgpack
import numpy as np

from dnc_async.dataset.ragged import Ragged
from dnc_async.dataset.schema import Array, Column, Columns, Schema
from dnc_async.errors import ArgumentError, DecodeError

MAGIC = b"DNCCHUNK"
VERSION = 1
ALIGNMENT = 64
_PREFIX = len(MAGIC) + 4


def _aligned(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies in a chunk: ``segments`` holds (offset, bytes) for each column."""

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
    """The layout that follows from the schema alone; no column of the schema may vary."""
    return _layout(schema, samples, [[column.sample_bytes * samples] for column in schema.columns])


def encode(schema: Schema, columns: Columns) -> bytearray:
    """One chunk from columns of equal length that fit the schema."""
    samples = len(next(iter(columns.values())))
    parts = [_column_segments(column, columns[column.name]) for column in schema.columns]
    layout = _layout(schema, samples, [[part.nbytes for part in column] for column in parts])
    out = bytearray(layout.size_bytes)
    out[: len(layout.header)] = layout.header
    for column, placed in zip(parts, layout.segments, strict=True):
        for part, (offset, size) in zip(column, placed, strict=True):
            out[offset : offset + size] = part.reshape(-1).view(np.uint8).data
    return out


def _column_segments(column: Column, array: Array | Ragged) -> list[Array]:
    if isinstance(array, Ragged):
        return [array.offsets.astype("<u8"), np.ascontiguousarray(array.values)]
    if not column.is_text:
        return [np.ascontiguousarray(array)]
    encoded = [str(sample).encode("utf-8") for sample in array]
    offsets = np.zeros(len(encoded) + 1, dtype="<u8")
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    return [offsets, np.frombuffer(b"".join(encoded), dtype=np.uint8)]


def check_header(schema: Schema, samples: int, header: bytes) -> None:
    """Raise :class:`~dnc_async.errors.DecodeError` unless this is the header of such a chunk, whose layout does not vary."""
    if header != fixed_layout(schema, samples).header:
        raise DecodeError(f"the chunk is not laid out as its manifest says: expected {samples} samples of {schema}")


def decode(schema: Schema, samples: int, data: bytearray) -> Columns:
    """The columns of a whole chunk, as fresh writable arrays; the values of ``bytes`` stay in ``data``, without a copy.

    Raises :class:`~dnc_async.errors.DecodeError` where the chunk does not hold what the manifest promises: a CID
    proves who said it, not that it is true.
    """
    layout = _read_header(schema, samples, data)
    columns: Columns = {}
    for column, placed in zip(schema.columns, layout.segments, strict=True):
        parts = [memoryview(data)[offset : offset + size] for offset, size in placed]
        columns[column.name] = _read(column, samples, parts)
    return columns


def _read(column: Column, samples: int, parts: list[memoryview]) -> Array | Ragged:
    if column.is_bytes:
        return _bytes(column, samples, parts)
    return _text(column, samples, parts) if column.is_text else _fixed(column, samples, parts[0])


def _read_header(schema: Schema, samples: int, data: bytearray) -> Layout:
    problem = DecodeError(f"the chunk is not laid out as its manifest says: expected {samples} samples of {schema}")
    if len(data) < _PREFIX or data[: len(MAGIC)] != MAGIC:
        raise problem
    length = int.from_bytes(data[len(MAGIC) : _PREFIX], "little")
    try:
        _, _, rows = msgpack.unpackb(memoryview(data)[_PREFIX : _PREFIX + length])
        lengths = [[int(size) for size in row[3]] for row in rows]
        layout = _layout(schema, samples, lengths)
    except (ValueError, TypeError, IndexError, OverflowError, msgpack.UnpackException) as error:
        raise problem from error
    expected = [2 if column.varies else 1 for column in schema.columns]
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
    return out


def _text(column: Column, samples: int, parts: list[memoryview]) -> Array:
    problem = DecodeError(f"the text column {column.name!r} of the chunk is damaged")
    if parts[0].nbytes != 8 * (samples + 1):
        raise problem
    offsets = np.frombuffer(parts[0], dtype="<u8").tolist()
    if offsets[0] != 0 or offsets[-1] != parts[1].nbytes or any(a > b for a, b in pairwise(offsets)):
        raise problem
    try:
        values = [str(parts[1][a:b], "utf-8") for a, b in pairwise(offsets)]
    except UnicodeDecodeError as error:
        raise problem from error
    return np.array(values, dtype=np.dtypes.StringDType())


def _bytes(column: Column, samples: int, parts: list[memoryview]) -> Ragged:
    problem = DecodeError(f"the column {column.name!r} of the chunk is damaged: its offsets are not those of its bytes")
    if parts[0].nbytes != 8 * (samples + 1):
        raise problem
    try:
        return Ragged(np.frombuffer(parts[1], dtype=np.uint8), np.frombuffer(parts[0], dtype="<u8"))
    except ArgumentError as error:
        raise problem from error
