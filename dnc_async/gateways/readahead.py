"""Keeps verified blocks that no stream has requested yet, up to a limit: what a CAR brings beside the wanted blocks."""

from __future__ import annotations

from collections.abc import Callable

from dnc_async.condition import Condition
from dnc_async.ipld.block import Block

#: How much memory a block takes besides its data, so that millions of tiny ones are not free.
_BLOCK_BYTES = 512


class Readahead:
    """Verified blocks by multihash.

    Each block is kept for some groups of wants (a set that may change), and is dropped when the last of them is closed. The
    limit may be exceeded by what arrives in one piece: requests stop reading while ``is_full``.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._blocks: dict[bytes, tuple[Block, set[object]]] = {}
        self._size = 0
        self._space = Condition()

    def __repr__(self) -> str:
        return f"<Readahead {len(self._blocks)} blocks, {self._size} of {self._limit_bytes} bytes>"

    @property
    def is_full(self) -> bool:
        """Whether the limit is reached."""
        return self._size >= self._limit_bytes

    def put(self, block: Block, groups: set[object]) -> None:
        """Keep a block for some groups, even if the limit is reached: requests check ``is_full`` before they read on."""
        if block.cid.multihash not in self._blocks and block.cid.inline is None and groups:
            self._blocks[block.cid.multihash] = block, groups
            self._size += block.size_bytes + _BLOCK_BYTES

    def pop(self, multihash: bytes) -> Block | None:
        """Remove and return a block; ``None`` if it is not here."""
        return self._remove(multihash) if multihash in self._blocks else None

    def clear(self) -> None:
        """Drop all blocks."""
        for multihash in list(self._blocks):
            self._remove(multihash)

    def remove_group(self, group: object) -> None:
        """Drop the blocks that were kept for this group alone."""
        for multihash, (_, groups) in list(self._blocks.items()):
            groups.discard(group)
            if not groups:
                self._remove(multihash)

    async def wait_for_space(self, unless: Callable[[], bool]) -> None:
        """Wait while the limit is reached and ``unless()`` is false; call :meth:`recheck` when its value may have changed."""
        await self._space.until(lambda: not self.is_full or unless())

    def recheck(self) -> None:
        """Have each :meth:`wait_for_space` check its condition again."""
        self._space.notify_all()

    def _remove(self, multihash: bytes) -> Block:
        block, _ = self._blocks.pop(multihash)
        self._size -= block.size_bytes + _BLOCK_BYTES
        self.recheck()
        return block
