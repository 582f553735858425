"""Cuts a stream of blocks into CARs of limited size, for targets that receive a DAG in several parts.

Each part's root is a directory that links every block of the part. A server that keeps this root keeps the part, although the
DAG to which it belongs is not complete yet, so garbage collection removes nothing meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dnc_async.ipld.block import Block
from dnc_async.ipld.builder import UNIXFS_V1_2025, Root, build_directory
from dnc_async.ipld.car import encode_header, encode_section
from dnc_async.ipld.cid import Cid

PART_BYTES = 16 * 2**20
PART_BLOCKS = 1024


@dataclass(frozen=True, slots=True)
class CarPart:
    """Blocks that are sent together, and the directory that links them."""

    root: Block
    blocks: tuple[Block, ...]

    @property
    def cid(self) -> Cid:
        """The CID of the directory."""
        return self.root.cid

    @property
    def block_count(self) -> int:
        """The number of blocks in the CAR."""
        return len(self.blocks) + 1

    def car(self) -> Iterator[bytes]:
        """The CAR in pieces, one for each block."""
        yield encode_header([self.root.cid])
        yield encode_section(self.root)
        for block in self.blocks:
            yield encode_section(block)


class PartCutter:
    """A sink that cuts blocks into parts and calls ``send`` with each, which blocks until the target has taken it."""

    def __init__(self, send: Callable[[CarPart], None]) -> None:
        self._send = send
        self._blocks: dict[bytes, Block] = {}
        self._size = 0

    def put(self, block: Block) -> None:
        """Add a block; sends the current part if the block does not fit."""
        if block.cid.inline is not None or block.cid.multihash in self._blocks:
            return
        if self._size + len(block.data) > PART_BYTES or len(self._blocks) == PART_BLOCKS:
            self.flush()
        self._blocks[block.cid.multihash] = block
        self._size += len(block.data)

    def flush(self) -> None:
        """Send the rest."""
        if not self._blocks:
            return
        blocks, self._blocks, self._size = tuple(self._blocks.values()), {}, 0
        entries = [(f"{number:04d}", Root(block.cid, None, len(block.data))) for number, block in enumerate(blocks)]
        built, _ = build_directory(entries, UNIXFS_V1_2025)
        self._send(CarPart(built[-1], blocks))
