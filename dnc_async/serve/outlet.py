"""A response whose body is written as the client reads it, and given up when it does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http import StreamWriter
    from aiohttp.web import BaseRequest

#: The largest piece of a body. A client that does not read lets the server hold one, and what _HIGH_BYTES allows.
PIECE_BYTES = 2**17
_HIGH_BYTES = 2**15


class Outlet(web.StreamResponse):
    """A response whose pieces go to the connection one by one: the next one when it has taken most of the last.

    A client that takes less than a piece in ``patience_s`` seconds is cut off.
    """

    def __init__(self, headers: Mapping[str, str], *, patience_s: float) -> None:
        super().__init__(headers=headers)
        self._patience_s = patience_s
        self._draining: asyncio.Task[None] | None = None
        self._waiting_since: float | None = None

    @property
    def waiting_s(self) -> float:
        """How long the client has not read what is to be read before more is written."""
        return 0.0 if self._waiting_since is None else asyncio.get_running_loop().time() - self._waiting_since

    async def prepare(self, request: BaseRequest) -> AbstractStreamWriter | None:
        """Begin the answer."""
        if request.transport is None:
            raise ConnectionResetError("the client is gone")
        self._transport = request.transport
        self._transport.set_write_buffer_limits(high=_HIGH_BYTES)
        return await super().prepare(request)

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write a piece when the client has read most of what was written before. Raises :class:`ConnectionError`."""
        await self.room()
        await cast("StreamWriter", self._payload_writer).write(data, drain=False)

    async def write_eof(self, data: bytes = b"") -> None:
        """End the body when the client has read most of it."""
        if self._payload_writer is not None:  # aiohttp ends each body again
            await self.room()
        await super().write_eof(data)

    async def room(self, within_s: float | None = None) -> bool:
        """Wait until the client has read most of what was written; returns ``False`` if it did not within so many seconds.

        Without a limit it is given up after its patience: the connection is cut, and :class:`ConnectionError` raised.
        """
        if self._draining is None:
            if not self._transport.get_write_buffer_size():
                return True
            self._draining = asyncio.create_task(cast("StreamWriter", self._payload_writer).drain())
            self._draining.add_done_callback(_note)
        loop = asyncio.get_running_loop()
        if self._waiting_since is None:
            self._waiting_since = loop.time()
        limit_s = self._patience_s - (loop.time() - self._waiting_since) if within_s is None else within_s
        done, _ = await asyncio.wait({self._draining}, timeout=max(0.0, limit_s))
        if done:
            draining, self._draining, self._waiting_since = self._draining, None, None
            draining.result()
            return True
        if within_s is not None:
            return False
        self._transport.abort()
        raise ConnectionResetError("the client does not read")

    def close(self) -> None:
        """Wait for the client no more."""
        if self._draining is not None:
            self._draining.cancel()


def _note(draining: asyncio.Task[None]) -> None:
    """Have asyncio not complain where nobody waits any more for a client that is gone."""
    if not draining.cancelled():
        draining.exception()
