"""Blocks that are here already, on their way to those who want them and never asked a gateway for them.

They came before they were wanted, or for somebody else. Each is handed over in one hop to a worker thread, to all who want
it by then and to those who come for it meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from anyio.abc import TaskGroup

from dnc_async.gateways.pending import Pending
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.block import Block


class Delivery:
    """Hands blocks over. ``under_way`` are the hashes of those that are being handed: nobody need be asked for them."""

    def __init__(
        self,
        pending: Pending,
        *,
        in_worker: Callable[..., Awaitable[Any]],
        settle: Callable[[BlockWant, Exception | None], None],
    ) -> None:
        """``settle`` is told of each wanted block how it ended."""
        self._pending = pending
        self._in_worker = in_worker
        self._settle = settle
        self._next: dict[bytes, Block] = {}
        self.under_way: set[bytes] = set()

    def __repr__(self) -> str:
        return f"<Delivery {len(self.under_way)} blocks, {len(self._next)} more next>"

    @property
    def is_idle(self) -> bool:
        """Whether no block is here, and no worker has one."""
        return not (self._next or self.under_way)

    def put(self, block: Block) -> None:
        """Have it handed over when :meth:`begin` is called next."""
        self._next[block.cid.multihash] = block

    def begin(self, tasks: TaskGroup) -> None:
        """Start to hand over what was put here; a block that is under way comes to those who want it by that."""
        begun, self._next = self._next, {}
        for block in (block for multihash, block in begun.items() if multihash not in self.under_way):
            self.under_way.add(block.cid.multihash)
            tasks.start_soon(self._hand, block)

    async def _hand(self, block: Block) -> None:
        seen: set[BlockWant] = set()
        while wants := [want for want in self._pending.of(block.cid.multihash) if want not in seen]:
            offers = [want.offer for want in wants]
            results = await self._in_worker(lambda offers: [offer(block) for offer in offers], offers)
            for want, accepted in zip(wants, results, strict=True):
                if accepted is not None:  # else whoever takes it settles it
                    self._settle(want, accepted.error)
                want.tell()
            seen.update(wants)
        self.under_way.discard(block.cid.multihash)
