"""Sends blocks to one client, piece by piece. While the client does not read, what is to be sent is not held in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from dnc_async.ipld import varint
from dnc_async.ipld.cid import Cid

from .outlet import PIECE_BYTES
from .steps import HeldBlock

if TYPE_CHECKING:
    from .hooks import ResponseHooks, Sink
    from .memory import Account
    from .open_blocks import OpenBlocks
    from .outlet import Outlet
    from .steps import Turn

TakeTurn = Callable[[], Coroutine[Any, Any, "Turn[None]"]]
Reread = Callable[[Cid], Awaitable[bytes]]

_LARGE_BYTES = 64 * 1024  # from here on, copying a block costs more than one more write
_GRACE_S = 0.25  # what a client does not read is let go after so long, or at once where memory is scarce


class Sender:
    """Sends the body of one answer. ``reread`` obtains a block again that was let go."""

    def __init__(
        self,
        outlet: Outlet,
        sink: Sink,
        hooks: ResponseHooks,
        account: Account,
        reread: Reread,
        open_blocks: OpenBlocks,
    ) -> None:
        self._outlet = outlet
        self._sink = sink
        self._hooks = hooks
        self._account = account
        self._reread = reread
        self._open_blocks = open_blocks
        self._run: list[HeldBlock] = []
        self._ahead: asyncio.Task[Turn[None]] | None = None

    async def send_block(self, block: HeldBlock, start: int, stop: int) -> None:
        """Send a part of a block."""
        self._run = [block]
        self._account.set(block.held_bytes)
        await self._send_pieces(block, start, stop)

    async def send_header(self, header: bytes) -> None:
        """Send the header of a CAR."""
        await self._write(header)

    async def send_car(self, turn: Turn[None], take_turn: TakeTurn) -> None:
        """Send the blocks of ``turn`` and all others as CAR sections: those of one turn, while the next turn is taken.

        Raises what the last turn raised, after the blocks before.
        """
        try:
            while True:
                self._run = turn.blocks
                self._account.set(sum(block.held_bytes for block in self._run) + self._open_blocks.held_bytes)
                if self._account.is_scarce:
                    self._open_blocks.empty()
                elif not turn.done:
                    self._ahead = asyncio.create_task(take_turn())
                await self._send_run()
                if turn.error is not None:
                    raise turn.error
                if turn.done:
                    return
                ahead, self._ahead = self._ahead, None
                turn = await (ahead or take_turn())
        finally:
            if self._ahead is not None:
                self._ahead.cancel()
                await asyncio.wait({self._ahead})  # until no thread is at it

    async def _send_run(self) -> None:
        """Send blocks as CAR sections, after the hooks: small ones joined, large ones in pieces."""
        small: list[bytes] = []
        small_bytes = 0
        for block in self._run:
            if block.data is None:
                block.data = await self._reread(block.cid)
            block.change(self._hooks)
            # It may be let go while what comes before it is sent.
            name, size_bytes = block.cid.encode(), block.held_bytes
            small += (varint.encode(len(name) + size_bytes), name)
            if size_bytes < _LARGE_BYTES and block.data is not None:
                small.append(block.data)
                small_bytes += size_bytes
            if size_bytes >= _LARGE_BYTES or small_bytes >= _LARGE_BYTES:
                await self._write(b"".join(small))
                small.clear()
                small_bytes = 0
            if size_bytes >= _LARGE_BYTES:
                await self._send_pieces(block, 0, size_bytes)
            block.data = None
        if small:
            await self._write(b"".join(small))

    async def _send_pieces(self, block: HeldBlock, start: int, stop: int) -> None:
        for at in range(start, stop, PIECE_BYTES):
            await self._wait_for_room()
            if block.data is None:
                block.data = await self._reread(block.cid)
            await self._sink(block.data[at : min(at + PIECE_BYTES, stop)])  # a view would hold all of it while it waits

    async def _write(self, piece: bytes) -> None:
        await self._wait_for_room()
        await self._sink(piece)

    async def _wait_for_room(self) -> None:
        """Wait until the client has read most of what was sent; hold nothing for one that takes long."""
        if await self._outlet.room(0 if self._account.is_scarce else _GRACE_S):
            return
        blocks = list(self._run)
        if self._ahead is not None:
            await asyncio.wait({self._ahead})  # a turn is short
            with contextlib.suppress(Exception):  # raised where it is awaited
                blocks += self._ahead.result().blocks
        for block in blocks:
            block.let_go()
        self._open_blocks.empty()
        self._account.set(sum(block.held_bytes for block in blocks))
        await self._outlet.room()
