"""Verified blocks that came before anybody wanted them: what a CAR brings besides, kept for a moment. Bounded."""

from __future__ import annotations

from collections.abc import Callable

from dnc_async.condition import Condition
from dnc_async.ipld.block import Block

#: What a block takes besides its data, so that millions of tiny ones are not free.
_BLOCK_BYTES = 512


class Readahead:
    """Blocks by multihash. ``is_full`` asks whoever brings more to wait: what comes in one piece may lie above the limit.

    Each came for some groups of wanted blocks (a set that may change), and goes when the last of them is gone.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._blocks: dict[bytes, tuple[Block, set[object]]] = {}
        self._size = 0
        self._room = Condition()

    def __repr__(self) -> str:
        return f"<Readahead {len(self._blocks)} blocks, {self._size} of {self._limit_bytes} bytes>"

    @property
    def is_full(self) -> bool:
        """Whether nothing more should come for now."""
        return self._size >= self._limit_bytes

    def put(self, block: Block, groups: set[object]) -> None:
        """Keep a block for some groups, also where it is full: who puts looks at that before more is read."""
        if block.cid.multihash not in self._blocks and block.cid.inline is None and groups:
            self._blocks[block.cid.multihash] = block, groups
            self._size += len(block.data) + _BLOCK_BYTES

    def pop(self, multihash: bytes) -> Block | None:
        """Hand a block out, and forget it."""
        return self._forget(multihash) if multihash in self._blocks else None

    def clear(self) -> None:
        """Forget all of them."""
        for multihash in list(self._blocks):
            self._forget(multihash)

    def leave(self, group: object) -> None:
        """Forget what came for this group alone."""
        for multihash, (_, groups) in list(self._blocks.items()):
            groups.discard(group)
            if not groups:
                self._forget(multihash)

    async def until_room(self, unless: Callable[[], bool]) -> None:
        """Wait while it is full, ``unless`` something else has come true: who makes it so calls :meth:`look_again`."""
        await self._room.until(lambda: not self.is_full or unless())

    def look_again(self) -> None:
        """Whoever waits for room may have another reason to go on."""
        self._room.notify_all()

    def _forget(self, multihash: bytes) -> Block:
        block, _ = self._blocks.pop(multihash)
        self._size -= len(block.data) + _BLOCK_BYTES
        self.look_again()
        return block
