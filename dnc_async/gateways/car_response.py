"""Reads the body of a CAR response: cuts it into blocks, verifies them in a worker thread, and delivers them."""

from __future__ import annotations

import anyio

from dnc_async.errors import (
    CarError,
    IpldError,
)
from dnc_async.gateways.capabilities import Capabilities
from dnc_async.gateways.dag_range import CarQuery
from dnc_async.gateways.request import Request, RequestEvents
from dnc_async.gateways.score import Score
from dnc_async.ipld.block import Block
from dnc_async.ipld.car import CarReader
from dnc_async.ipld.cid import RAW

#: Received bytes are handed to a worker thread this long after the last ones, or when there are this many.
_BATCH_S, _BATCH_BYTES = 0.005, 2**20


class CarResponse:
    """The body of one CAR response."""

    def __init__(
        self, request: Request, query: CarQuery, score: Score, capabilities: Capabilities, events: RequestEvents
    ) -> None:
        self._request = request
        self._query = query
        self._score = score
        self._capabilities = capabilities
        self._events = events
        self._reader = CarReader()
        self._pieces: list[bytes] = []
        self._size = 0
        self._since = float("-inf")
        #: Whether we stopped reading before the body ended.
        self.has_stopped = False

    def count_received(self, size_bytes: int) -> None:
        """Count bytes of the body that arrived; 0 when the answer begins."""
        now, want = self._events.clock(), next(iter(self._request.wants), None)
        self._request.count_received(size_bytes, now)
        if size_bytes and want is None:
            self._score.received_unexpected(size_bytes, now)
        elif size_bytes and want is not None:
            want.first_byte_at = want.first_byte_at or now
            self._score.received(want, size_bytes, now)
        else:
            self._score.first_byte(want, now)
        self._events.bytes_received(self._request.gateway)

    async def feed(self, piece: bytes) -> bool:
        """Take the next piece of the body; returns ``False`` when no more should be read."""
        self._pieces.append(piece)
        self._size += len(piece)
        # A piece that arrives after a pause is processed at once: the next one may take long.
        if self._size < _BATCH_BYTES and self._events.clock() - self._since < _BATCH_S:
            return True
        going_on = await self._process()
        self._since = self._events.clock()
        return going_on

    async def close(self) -> None:
        """Process the end of the body; raises :class:`~dnc_async.errors.CarError` if it was truncated."""
        await self._process()
        try:
            self._reader.close()
        except CarError:
            if not self.has_stopped:
                raise

    async def flush(self) -> None:
        """Deliver the complete blocks of a body that was cut off."""
        try:
            await self._process()
        except IpldError:
            return

    async def _process(self) -> bool:
        pieces, size, self._pieces, self._size = self._pieces, self._size, [], 0
        if not pieces:
            return True
        going_on = True
        for block, wanted in await self._events.deliver(self._request, lambda: self._read(pieces), size):
            self._capabilities.sent_car()
            if not wanted and not self._handle_unwanted(block):
                going_on = False
        if self._request.may_pause and self._events.readahead.is_full:
            going_on = await self._pause() and going_on
        self.has_stopped = not (going_on and (self._request.wants or self._request.is_open_ended))
        return not self.has_stopped

    def _read(self, pieces: list[bytes]) -> list[Block]:
        """Cut pieces of the body into blocks (in a worker thread). An error behind good blocks is raised by the next call."""
        blocks: list[Block] = []
        try:
            for piece in pieces:
                blocks += self._reader.feed(piece)
        except IpldError:
            if not blocks:
                raise
        return blocks

    def _handle_unwanted(self, block: Block) -> bool:
        """Keep or drop a block without a want. Returns ``False`` if it shows that the gateway ignored the range."""
        if block.cid.multihash in self._request.expected:
            return True  # another gateway was faster
        if self._request.is_open_ended:
            if block.cid.codec != RAW and not self._request.has_nodes:
                return True  # who wants only leaves has read the nodes above them already
            if self._request.may_pause or not (self._request.awaits_first or self._events.readahead.is_full):
                self._events.keep_for_later(self._request, block)
        elif block.cid.codec == RAW and not self._query.is_whole and not self._request.has_nodes:
            self._capabilities.ignored_range()
            return False
        return True

    async def _pause(self) -> bool:
        """Stop reading until some of the read-ahead blocks were wanted. Returns ``False`` if that took too long."""
        request = self._request
        for want in request.wants:
            self._score.missed(want)
        self._events.set_paused(request, paused=True)
        try:
            with anyio.move_on_after(self._events.hold_s):
                await self._events.readahead.wait_for_space(unless=lambda: not request.may_pause)
        finally:
            self._events.set_paused(request, paused=False)
        now = self._events.clock()
        self._score.resumed(now)
        for want in request.wants:
            self._score.joined(want, want.size_bytes, now)
        if self._events.readahead.is_full and request.may_pause:
            self._events.readahead.clear()  # not wanted for so long: it would make other requests wait, too
            self._capabilities.refused_path(self._query.path)  # another request would bring the same again
            return False
        return True
