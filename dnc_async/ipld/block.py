"""The type of verified bytes.

A :class:`Block` exists only if its data hashes to its CID: it is created by :func:`verify` or :func:`make`, and cannot be
created otherwise. Code that has a block need not check it again.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import NoReturn, final

from dnc_async.errors import BlockMismatchError, DagError
from dnc_async.ipld.cid import RAW, Cid
from dnc_async.ipld.multihash import matches_pieces
from dnc_async.ipld.varint import Buffer

#: The largest block that gateways serve, and that we read or make.
MAX_BLOCK_BYTES = 2 * 2**20

#: The bytes of a block, in one piece or several; at least one, which may be empty. Each is a ``bytes`` object, or a view of one.
Pieces = tuple[bytes | memoryview, ...]

_new = object.__new__


@final
class Block:
    """A block whose ``data`` hashes to its ``cid``. Immutable; equal to another with an equal CID.

    ``pieces`` are its bytes as they arrived: who copies them elsewhere need not have them joined first, as ``data`` does.
    """

    __slots__ = ("cid", "pieces", "size_bytes")

    cid: Cid
    pieces: Pieces
    size_bytes: int

    def __init__(self) -> None:
        raise TypeError("a Block is verified data: use verify(cid, data) or make(data)")

    def __repr__(self) -> str:
        return f"<Block {self.cid}, {self.size_bytes} bytes>"

    @property
    def data(self) -> bytes:
        """All of its bytes."""
        pieces = self.pieces
        if len(pieces) == 1 and isinstance(pieces[0], bytes):
            return pieces[0]
        whole = b"".join(pieces)
        _set_pieces(self, (whole,))
        return whole

    def __eq__(self, other: object) -> bool:
        return self.cid == other.cid if isinstance(other, Block) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.cid)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Block cannot be changed: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Block cannot be changed: {name}")

    def __reduce__(self) -> tuple[Callable[[Cid, Buffer], Block], tuple[Cid, bytes]]:
        return verify, (self.cid, self.data)


def verify(cid: Cid, data: Buffer) -> Block:
    """Hash ``data`` and compare; raises :class:`BlockMismatchError`. Mutable data is copied first."""
    return verify_pieces(cid, (data if type(data) is bytes else bytes(data),))


def verify_pieces(cid: Cid, pieces: Pieces) -> Block:
    """As :func:`verify`, for data in pieces, which are not joined."""
    size = sum(map(len, pieces))
    if size > MAX_BLOCK_BYTES:
        raise BlockMismatchError(f"{cid}: {size} bytes are more than a block may have ({MAX_BLOCK_BYTES})")
    if not matches_pieces(cid.multihash, pieces):
        raise BlockMismatchError(f"{cid}: the {size} bytes hash to something else")
    return _construct(cid, pieces, size)


def matching(cid: Cid, data: bytes) -> Block | None:
    """The block, if ``data`` hashes to a CID with sha2-256, else ``None``, for callers that raise their own error."""
    return _construct(cid, (data,), len(data)) if sha256(data).digest() == cid.multihash[2:] else None


def as_link(block: Block, cid: Cid) -> Block:
    """The same block under the CID of a link to it, which may have another codec but must have the same multihash."""
    if block.cid == cid:
        return block
    if block.cid.multihash != cid.multihash:
        raise BlockMismatchError(f"{cid} is another block than {block.cid}")
    return _construct(cid, block.pieces, block.size_bytes)


def make(data: Buffer, codec: int = RAW, hash_name: str = "sha2-256", version: int = 1) -> Block:
    """Compute the CID of ``data``; raises :class:`DagError` if it is larger than a block may be."""
    if len(data) > MAX_BLOCK_BYTES:
        raise DagError(f"a block may have {MAX_BLOCK_BYTES} bytes, not {len(data)}: gateways would not serve it")
    kept = data if type(data) is bytes else bytes(data)
    return _construct(Cid.of(kept, codec, hash_name, version), (kept,), len(kept))


def _construct(cid: Cid, pieces: Pieces, size_bytes: int) -> Block:
    block = _new(Block)
    _set_cid(block, cid)
    _set_pieces(block, pieces)
    _set_size(block, size_bytes)
    return block


_set_cid, _set_pieces, _set_size = (vars(Block)[name].__set__ for name in Block.__slots__)
