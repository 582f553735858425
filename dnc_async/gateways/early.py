"""Verified blocks that came before anybody wanted them: what a CAR brings besides, kept for a moment. Bounded."""

from __future__ import annotations

import anyio

from dnc_async.ipld.block import Block


class EarlyBlocks:
    """Blocks by multihash. ``is_full`` asks whoever brings more to wait: what comes in one piece may lie above the limit."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._blocks: dict[bytes, Block] = {}
        self._size = 0
        self._changed = anyio.Event()

    def __repr__(self) -> str:
        return f"<EarlyBlocks {len(self._blocks)} blocks, {self._size} of {self._limit_bytes} bytes>"

    @property
    def is_full(self) -> bool:
        """Whether nothing more should come for now."""
        return self._size >= self._limit_bytes

    def put(self, block: Block) -> None:
        """Keep a block, also where it is full: who puts looks at that before more is read."""
        if block.cid.multihash not in self._blocks:
            self._blocks[block.cid.multihash] = block
            self._size += len(block.data)

    def take(self, multihash: bytes) -> Block | None:
        """Hand a block out, and forget it."""
        return self._forget(multihash) if multihash in self._blocks else None

    def clear(self) -> None:
        """Forget all of them."""
        for multihash in list(self._blocks):
            self._forget(multihash)

    async def until_room(self) -> None:
        """Wait while it is full."""
        while self.is_full:
            await self._changed.wait()

    def _forget(self, multihash: bytes) -> Block:
        block = self._blocks.pop(multihash)
        self._size -= len(block.data)
        self._changed.set()
        self._changed = anyio.Event()
        return block
