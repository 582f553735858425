"""The parts of protobuf's wire format that dag-pb and UnixFS use (protobuf.dev, "Encoding")."""

from __future__ import annotations

from collections.abc import Iterator

from dnc_async.errors import DagError
from dnc_async.ipld import varint

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield (field number, wire type, value) in order; raises :class:`~dnc_async.errors.DagError`."""
    position, end = 0, len(data)
    while position < end:
        key = data[position]  # most numbers have one byte, and a function call would cost more than decoding it
        if key < 128:
            position += 1
        else:
            key, position = read_varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, position = read_varint(data, position)
            yield number, kind, value
            continue
        if kind == BYTES:
            if position < end and data[position] < 128:
                size = data[position]
                position += 1
            else:
                size, position = read_varint(data, position)
        elif kind == FIXED64:
            size = 8
        elif kind == FIXED32:
            size = 4
        else:
            raise DagError(f"a protobuf field has the wire type {kind}, which nothing here uses")
        if size > end - position:
            raise DagError("a protobuf field is longer than its message")
        yield number, kind, data[position : position + size]
        position += size


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Read a varint of up to ten bytes, as protobuf allows; returns it and its end."""
    value = shift = 0
    try:
        while True:
            byte = data[position]
            position += 1
            if byte < 128:
                return (value | byte << shift) & 0xFFFF_FFFF_FFFF_FFFF, position
            value |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise DagError("a protobuf number has more than ten bytes")
    except IndexError as error:
        raise DagError("a protobuf message ends inside a number") from error


def varint_field(number: int, value: int) -> bytes:
    """Encode a number field."""
    return varint.encode(number << 3 | VARINT) + varint.encode(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """Encode a field of bytes, text or a message."""
    return varint.encode(number << 3 | BYTES) + varint.encode(len(value)) + value
