"""Sharded directories (HAMT): which slot of which level a name belongs to.

The digest is 64 bits of murmur3 (x64, 128), big-endian. Each level takes log2(fanout) bits of it, most significant first, and a
link's name begins with its slot in upper-case hex.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import mmh3

from dnc_async.errors import DagError
from dnc_async.ipld.unixfs import UnixFs

HASH_TYPE = 0x22  # murmur3-x64-64
_DIGEST_BITS = 64
_MIN_FANOUT, _MAX_FANOUT = 8, 1024


def digest(name: str) -> int:
    """The 64-bit hash of a name, which decides its slots."""
    return mmh3.hash64(name.encode("utf-8", "surrogateescape"), x64arch=True, signed=False)[0]


def step(value: int, depth: int, bits: int) -> int:
    """The slot of a digest at a depth; raises :class:`~dnc_async.errors.DagError` if no bits are left."""
    shift = _DIGEST_BITS - (depth + 1) * bits
    if shift < 0:
        raise DagError("a sharded directory is deeper than its hash has bits")
    return value >> shift & ((1 << bits) - 1)


def width(fanout: int) -> int:
    """The number of hex digits in a slot's prefix."""
    return len(f"{fanout - 1:X}")


def shape(body: UnixFs) -> tuple[int, int]:
    """(bits per level, digits of a prefix) of a shard; raises :class:`~dnc_async.errors.DagError` if it is not supported."""
    fanout = body.fanout or 0
    if not _MIN_FANOUT <= fanout <= _MAX_FANOUT or fanout & (fanout - 1):
        raise DagError(f"a sharded directory has the fanout {fanout}, expected a power of two from 8 to 1024")
    if body.hash_type != HASH_TYPE:
        raise DagError(f"a sharded directory uses the hash {body.hash_type}, expected murmur3 ({HASH_TYPE})")
    return fanout.bit_length() - 1, width(fanout)


@functools.cache
def slots(bits: int, digits: int) -> Mapping[str, int]:
    """The slots of a shard by the prefix of a link's name."""
    return {f"{index:0{digits}X}": index for index in range(1 << bits)}
