"""Unsigned LEB128 as multiformats defines it: at most 9 bytes, and only the shortest form.

A malformed number raises :class:`ValueError`, which the calling module converts to its own error.
"""

from __future__ import annotations

MAX_BYTES = 9

Buffer = bytes | bytearray | memoryview

_SMALL = tuple(bytes((value,)) for value in range(128))


def encode(value: int) -> bytes:
    """Encode a non-negative number."""
    if 0 <= value < 128:
        return _SMALL[value]
    if value < 0:
        raise ValueError(f"a varint cannot hold {value}")
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def size(value: int) -> int:
    """The number of bytes that :func:`encode` returns."""
    return max(1, (value.bit_length() + 6) // 7)


def read(data: Buffer, offset: int) -> tuple[int, int]:
    """Read the number at ``offset``; returns it and where it ends."""
    value = shift = 0
    for position in range(offset, min(offset + MAX_BYTES, len(data))):
        byte = data[position]
        if byte < 128:
            if byte == 0 and shift:
                raise ValueError("a varint is longer than it needs to be")
            return value | byte << shift, position + 1
        value |= (byte & 127) << shift
        shift += 7
    if len(data) - offset >= MAX_BYTES:
        raise ValueError(f"a varint has more than {MAX_BYTES} bytes")
    raise ValueError("the bytes end inside a varint")
