"""Delivers blocks that are in memory already: read-ahead blocks, and blocks that another want requested.

Each block is delivered in a worker thread, to all wants for it, including those that are added meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from anyio.abc import TaskGroup

from dnc_async.gateways.pending import Pending
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.block import Block


class BlockDelivery:
    """Delivers blocks to the wants for them. ``in_progress`` are the multihashes of the blocks that are being delivered."""

    def __init__(
        self,
        pending: Pending,
        *,
        in_worker: Callable[..., Awaitable[Any]],
        settle: Callable[[BlockWant, Exception | None], None],
    ) -> None:
        """``settle`` is called for each want that accepted a block, with the error of its ``accept`` callback or ``None``."""
        self._pending = pending
        self._in_worker = in_worker
        self._settle = settle
        self._next: dict[bytes, Block] = {}
        self.in_progress: set[bytes] = set()

    def __repr__(self) -> str:
        return f"<BlockDelivery {len(self.in_progress)} in progress, {len(self._next)} more next>"

    @property
    def is_idle(self) -> bool:
        """Whether no block is being delivered or added."""
        return not (self._next or self.in_progress)

    def add(self, block: Block) -> None:
        """Deliver this block when :meth:`start` is called next."""
        self._next[block.cid.multihash] = block

    def start(self, tasks: TaskGroup) -> None:
        """Start a task for each added block, except for those that are being delivered already."""
        added, self._next = self._next, {}
        for block in (block for multihash, block in added.items() if multihash not in self.in_progress):
            self.in_progress.add(block.cid.multihash)
            tasks.start_soon(self._deliver, block)

    async def _deliver(self, block: Block) -> None:
        seen: set[BlockWant] = set()
        while wants := [want for want in self._pending.wants_for(block.cid.multihash) if want not in seen]:
            offers = [want.offer for want in wants]
            results = await self._in_worker(lambda offers: [offer(block) for offer in offers], offers)
            for want, accepted in zip(wants, results, strict=True):
                if accepted is not None:  # else another thread accepts it, and its caller settles the want
                    self._settle(want, accepted.error)
                want.call_done()
            seen.update(wants)
        self.in_progress.discard(block.cid.multihash)
