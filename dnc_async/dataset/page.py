"""Pages: the lists of chunks of which a manifest is made, read from bytes that a stranger wrote.

A page lists the directories in which chunks lie as ``[CID, [row, …]]``, and a chunk as the row ``[CID, size]`` where its file
is one raw block, or has more than :data:`MAX_LISTED_LEAVES` leaves. Otherwise the row is ``[CID, size, leaf size, digests]``: the
leaves are raw blocks (CIDv1, SHA-256) of that size, the last one of what remains, and their digests stand one after the other
in one byte string. The CID is then that of a single dag-pb node over them, as UnixFS has it (``Data`` with ``filesize`` and
``blocksizes``, links without names, ``Tsize`` the leaf's size), so it is computed and not fetched: each chunk takes a request
less, and the first ones come a round trip sooner. A reader refuses leaves that make another CID.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgpack

from dnc_async.errors import CidError, ManifestError
from dnc_async.ipld.block import MAX_BLOCK_BYTES
from dnc_async.ipld.builder import UNIXFS_V1_2025, Root, join_parts
from dnc_async.ipld.cid import DAG_PB, RAW, Cid
from dnc_async.ipld.plan import Leaf

#: Chunks lie in directories of so many, in plan order: one CAR can bring as many as are leased.
CHUNKS_PER_DIRECTORY = 64
#: The leaves of a chunk that has more are not listed: their root is small beside them.
MAX_LISTED_LEAVES = 8
_DIGEST_BYTES = 32


class ChunkRow(NamedTuple):
    """One chunk's file as a page lists it; where its leaves are listed, ``leaf_bytes`` is their size, the last one's aside."""

    cid: Cid
    size_bytes: int
    leaf_bytes: int = 0
    digests: bytes = b""


@dataclass(frozen=True, slots=True)
class ChunkDirectory:
    """Up to :data:`CHUNKS_PER_DIRECTORY` chunks, in plan order, beneath one directory's CID."""

    cid: Cid
    chunks: tuple[ChunkRow, ...]


@dataclass(frozen=True, slots=True)
class ChunkEntry:
    """One chunk: its row, its samples, and where its file lies among those of its directory."""

    index: int
    row: ChunkRow
    samples: int
    directory: Cid
    directory_offset: int
    directory_bytes: int

    @property
    def cid(self) -> Cid:
        """Of its file."""
        return self.row.cid

    @property
    def size_bytes(self) -> int:
        """Of its file."""
        return self.row.size_bytes

    @property
    def names_leaves(self) -> bool:
        """Whether its leaves are known without a root."""
        return self.cid.codec == RAW or bool(self.row.digests)

    def leaves(self) -> tuple[Leaf, ...]:
        """Its file's leaves, where it :attr:`names_leaves`.

        Raises :class:`~dnc_async.errors.ManifestError` where they make another CID than its own.
        """
        cid, size, leaf_bytes, digests = self.row
        if cid.codec == RAW:
            return (Leaf(cid, 0, size, None),)
        parts = []
        for number, offset in enumerate(range(0, size, leaf_bytes)):
            digest = digests[number * _DIGEST_BYTES : (number + 1) * _DIGEST_BYTES]
            part_bytes = min(leaf_bytes, size - offset)
            parts.append(Root(Cid.of_sha256(digest), part_bytes, part_bytes))
        if join_parts(parts, UNIXFS_V1_2025)[1].cid != cid:
            raise ManifestError(f"the leaves that are listed for chunk {self.index} are not those of its file {cid}")
        return tuple(Leaf(part.cid, number * leaf_bytes, part.size, None) for number, part in enumerate(parts))


def listed(directories: tuple[ChunkDirectory, ...]) -> Iterator[tuple[ChunkRow, Cid, int, int]]:
    """The chunks of a page: row, directory, and where the file lies among how many bytes of that."""
    for directory in directories:
        offset, total = 0, sum(row.size_bytes for row in directory.chunks)
        for row in directory.chunks:
            yield row, directory.cid, offset, total
            offset += row.size_bytes


def encode_page(directories: tuple[ChunkDirectory, ...]) -> bytes:
    """The bytes of a page's file."""
    return bytes(msgpack.packb(page_to_wire(directories)))


def decode_page(data: bytes) -> tuple[ChunkDirectory, ...]:
    """Read a page's untrusted bytes; raises :class:`~dnc_async.errors.ManifestError`."""
    return page_from_wire(unpack(data, "page of the manifest"))


def page_to_wire(directories: tuple[ChunkDirectory, ...]) -> list[object]:
    """A page as msgpack takes it."""
    return [[d.cid.encode(), [_row_to_wire(row) for row in d.chunks]] for d in directories]


def page_from_wire(wire: object) -> tuple[ChunkDirectory, ...]:
    """A page of untrusted origin; raises :class:`~dnc_async.errors.ManifestError`."""
    if not isinstance(wire, list):
        raise ManifestError("a page of the manifest is not a list of directories")
    return tuple(map(_directory_from_wire, wire))


def _directory_from_wire(wire: object) -> ChunkDirectory:
    match wire:
        case [bytes() as cid, list() as rows] if 0 < len(rows) <= CHUNKS_PER_DIRECTORY:
            return ChunkDirectory(cid_from_wire(cid), tuple(map(_row_from_wire, rows)))
    raise ManifestError("a page of the manifest does not list a directory of chunks as [cid, [row, …]]")


def _row_to_wire(row: ChunkRow) -> list[object]:
    return [row.cid.encode(), row.size_bytes, *([row.leaf_bytes, row.digests] if row.digests else [])]


def _row_from_wire(wire: object) -> ChunkRow:
    match wire:
        case [bytes() as cid, int() as size_bytes]:
            return ChunkRow(cid_from_wire(cid), size_bytes)
        case [bytes() as cid, int() as size_bytes, int() as leaf_bytes, bytes() as digests] if (
            0 < leaf_bytes <= MAX_BLOCK_BYTES
            and 0 < len(digests) <= MAX_LISTED_LEAVES * _DIGEST_BYTES
            and len(digests) == -(-size_bytes // leaf_bytes) * _DIGEST_BYTES
        ):
            row = ChunkRow(cid_from_wire(cid), size_bytes, leaf_bytes, digests)
            if row.cid.codec == DAG_PB:
                return row
    raise ManifestError(
        "a page of the manifest lists a chunk neither as [cid, size] nor as [dag-pb cid, size, leaf size, digests of all leaves]"
    )


def unpack(data: bytes, what: str) -> object:
    """Untrusted msgpack; raises :class:`~dnc_async.errors.ManifestError`, which calls it ``what``."""
    try:
        return msgpack.unpackb(data)  # its limits follow from len(data), which the fetcher has bounded
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise ManifestError(f"the {what} is not msgpack: {error}") from error


def cid_from_wire(data: bytes) -> Cid:
    """Untrusted bytes of a CID; raises :class:`~dnc_async.errors.ManifestError`."""
    try:
        return Cid.decode(data)
    except (CidError, TypeError) as error:
        raise ManifestError(f"the manifest holds something that is not a CID: {str(data)[:80]}") from error
