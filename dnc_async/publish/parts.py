"""A stream of blocks as CARs of bounded size, for targets that take a DAG in several parts.

Each part's root is a directory that links every block in it. Whoever holds that root keeps the part, although the DAG that
it is a part of is not complete yet: on a server that collects garbage meanwhile nothing is lost.
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
class Part:
    """Blocks to send together, and the directory that holds them."""

    root: Block
    blocks: tuple[Block, ...]

    @property
    def cid(self) -> Cid:
        """The CID of the directory."""
        return self.root.cid

    @property
    def block_count(self) -> int:
        """How many blocks the CAR has."""
        return len(self.blocks) + 1

    def car(self) -> Iterator[bytes]:
        """The CAR in pieces of a block each."""
        yield encode_header([self.root.cid])
        yield encode_section(self.root)
        for block in self.blocks:
            yield encode_section(block)


class PartCutter:
    """A sink that cuts what it gets into parts and gives each to ``send``, which blocks until the part was taken over."""

    def __init__(self, send: Callable[[Part], None]) -> None:
        self._send = send
        self._blocks: dict[bytes, Block] = {}
        self._size = 0

    def put(self, block: Block) -> None:
        """Add a block; sends a part where it does not fit any more."""
        if block.cid.inline is not None or block.cid.multihash in self._blocks:
            return
        if self._size + len(block.data) > PART_BYTES or len(self._blocks) == PART_BLOCKS:
            self.flush()
        self._blocks[block.cid.multihash] = block
        self._size += len(block.data)

    def flush(self) -> None:
        """Send what is left."""
        if not self._blocks:
            return
        blocks, self._blocks, self._size = tuple(self._blocks.values()), {}, 0
        entries = [(f"{number:04d}", Root(block.cid, None, len(block.data))) for number, block in enumerate(blocks)]
        built, _ = build_directory(entries, UNIXFS_V1_2025)
        self._send(Part(built[-1], blocks))
