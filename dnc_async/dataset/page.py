"""Pages: the lists of chunks in a manifest, parsed from bytes that cannot be trusted.

A page lists the directories that contain chunks as ``[CID, [row, …]]``. The row of a chunk is ``[CID, size]`` if its file is
one raw block, or has more than :data:`MAX_LISTED_LEAVES` leaves. Otherwise it is ``[CID, size, leaf size, digests]``: the
leaves are raw blocks (CIDv1, SHA-256) of that size, the last one of what remains, and their digests are concatenated in one
byte string. The CID then is that of the single dag-pb node that links them, as UnixFS defines it (``Data`` with ``filesize``
and ``blocksizes``, links without names, ``Tsize`` the leaf's size). So the node is computed instead of fetched, which saves a
request for each chunk, and a round trip at the start. A reader refuses leaves that give another CID.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import msgpack

from dnc_async.dataset.limits import MAX_COLUMNS, MAX_DIMENSIONS
from dnc_async.errors import CidError, ManifestError
from dnc_async.ipld.block import MAX_BLOCK_BYTES
from dnc_async.ipld.builder import UNIXFS_V1_2025, Root, join_parts
from dnc_async.ipld.cid import DAG_PB, RAW, Cid
from dnc_async.ipld.plan import Leaf
from dnc_async.quoting import quoted

#: The number of chunks in a directory, in plan order, so that one CAR can bring several chunks.
CHUNKS_PER_DIRECTORY = 64
#: If a chunk has more leaves, they are not listed: their root is small compared with them.
MAX_LISTED_LEAVES = 8
_DIGEST_BYTES = 32
#: What is listed in large numbers are CIDs, so an item has this many bytes on average; the columns may have fewer.
_ITEM_BYTES, _ITEMS_AT_LEAST = 12, MAX_COLUMNS * (MAX_DIMENSIONS + 5)
_MAP_ITEMS = 64

Items = TypeVar("Items", list[object], dict[object, object])


class ChunkRow(NamedTuple):
    """A chunk's file as a page lists it. If its leaves are listed, ``leaf_bytes`` is their size, except for the last one's."""

    cid: Cid
    size_bytes: int
    leaf_bytes: int = 0
    digests: bytes = b""


@dataclass(frozen=True, slots=True)
class ChunkDirectory:
    """Up to :data:`CHUNKS_PER_DIRECTORY` chunks, in plan order, in the directory with this CID."""

    cid: Cid
    chunks: tuple[ChunkRow, ...]


@dataclass(frozen=True, slots=True)
class ChunkEntry:
    """One chunk: its row, its number of samples, the CID of its directory, and its place among the files in there."""

    index: int
    row: ChunkRow
    samples: int
    directory: str
    directory_offset: int
    directory_bytes: int

    @property
    def cid(self) -> Cid:
        """The CID of its file."""
        return self.row.cid

    @property
    def size_bytes(self) -> int:
        """The size of its file."""
        return self.row.size_bytes

    @property
    def names_leaves(self) -> bool:
        """Whether its leaves are known without fetching its file's root."""
        return self.cid.codec == RAW or bool(self.row.digests)

    def leaves(self) -> tuple[Leaf, ...]:
        """The leaves of its file; only if it :attr:`names_leaves`.

        Raises :class:`~dnc_async.errors.ManifestError` if they give another CID than its own.
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


def listed(directories: tuple[ChunkDirectory, ...]) -> Iterator[tuple[ChunkRow, str, int, int]]:
    """The chunks of a page: (row, CID of the directory, byte offset in the directory, bytes of the directory)."""
    for directory in directories:
        offset, total, name = 0, sum(row.size_bytes for row in directory.chunks), str(directory.cid)
        for row in directory.chunks:
            yield row, name, offset, total
            offset += row.size_bytes


def encode_page(directories: tuple[ChunkDirectory, ...]) -> bytes:
    """The bytes of a page's file."""
    return bytes(msgpack.packb(page_to_wire(directories)))


def decode_page(data: bytes) -> tuple[ChunkDirectory, ...]:
    """Parse a page's untrusted bytes; raises :class:`~dnc_async.errors.ManifestError`."""
    return page_from_wire(unpack(data, "page of the manifest"))


def page_to_wire(directories: tuple[ChunkDirectory, ...]) -> list[object]:
    """A page as values for msgpack."""
    return [[d.cid.encode(), [_row_to_wire(row) for row in d.chunks]] for d in directories]


def page_from_wire(wire: object) -> tuple[ChunkDirectory, ...]:
    """Parse a page from untrusted values; raises :class:`~dnc_async.errors.ManifestError`."""
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
            row = ChunkRow(cid_from_wire(cid), size_bytes)
            if row.cid.codec != RAW or size_bytes <= MAX_BLOCK_BYTES:
                return row
        case [bytes() as cid, int() as size_bytes, int() as leaf_bytes, bytes() as digests] if (
            0 < leaf_bytes <= MAX_BLOCK_BYTES
            and 0 < len(digests) <= MAX_LISTED_LEAVES * _DIGEST_BYTES
            and len(digests) == -(-size_bytes // leaf_bytes) * _DIGEST_BYTES
        ):
            row = ChunkRow(cid_from_wire(cid), size_bytes, leaf_bytes, digests)
            if row.cid.codec == DAG_PB:
                return row
    raise ManifestError(
        "a page of the manifest lists a chunk neither as [cid, size] nor as [dag-pb cid, size, leaf size, digests of all "
        f"leaves], or a raw block of more than {MAX_BLOCK_BYTES} bytes"
    )


class _ItemLimit:
    """Counts the items of all lists and maps. An empty list of one byte takes 64 bytes in memory, so bytes are no limit."""

    def __init__(self, most: int) -> None:
        self.left = most

    def count(self, items: Items) -> Items:
        """Count a list or map when it is complete; raises ``ValueError`` if they hold too many."""
        self.left -= len(items)
        if self.left < 0:
            raise ValueError("it holds far more items than its size allows")
        return items


def unpack(data: bytes, what: str) -> object:
    """Parse untrusted msgpack; raises :class:`~dnc_async.errors.ManifestError`, which calls it ``what``."""
    items = _ItemLimit(_ITEMS_AT_LEAST + len(data) // _ITEM_BYTES)
    try:
        return msgpack.unpackb(
            data, list_hook=items.count, object_hook=items.count, max_array_len=items.left, max_map_len=_MAP_ITEMS
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise ManifestError(f"the {what} is not msgpack: {error}") from error


def cid_from_wire(data: bytes) -> Cid:
    """Parse the untrusted bytes of a CID; raises :class:`~dnc_async.errors.ManifestError`."""
    try:
        return Cid.decode(data)
    except (CidError, TypeError) as error:
        raise ManifestError(f"the manifest holds something that is not a CID: {quoted(str(data)[:80])}") from error
