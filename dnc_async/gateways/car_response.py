"""The body of a CAR on the wire: cut into blocks, verified in a worker thread, and handed to whoever wants them."""

from __future__ import annotations

import anyio

from dnc_async.errors import (
    CarError,
    IpldError,
)
from dnc_async.gateways.capabilities import Capabilities
from dnc_async.gateways.request import Request, RequestEvents
from dnc_async.gateways.score import Score
from dnc_async.gateways.spans import CarAsk
from dnc_async.ipld.block import Block
from dnc_async.ipld.car import CarReader
from dnc_async.ipld.cid import RAW

#: Bytes are hashed in a worker thread, so long after those before them, or so many at once.
_HOP_S, _HOP_BYTES = 0.005, 2**20


class CarResponse:
    """The body of one CAR on its way to whoever wants its blocks."""

    def __init__(
        self, request: Request, ask: CarAsk, score: Score, capabilities: Capabilities, events: RequestEvents
    ) -> None:
        self._request = request
        self._ask = ask
        self._score = score
        self._capabilities = capabilities
        self._events = events
        self._reader = CarReader()
        self._pieces: list[bytes] = []
        self._size = 0
        self._since = float("-inf")
        #: Whether it was we who wanted no more.
        self.has_stopped = False

    def arrived(self, size_bytes: int) -> None:
        """The answer begins (0), or so many bytes more have come."""
        now, want = self._events.clock(), next(iter(self._request.wants), None)
        self._request.arrived(size_bytes, now)
        if size_bytes and want is None:
            self._score.received_more(size_bytes, now)
        elif size_bytes and want is not None:
            want.first_byte_at = want.first_byte_at or now
            self._score.received(want, size_bytes, now)
        else:
            self._score.first_byte(want, now)
        self._events.progressed(self._request.gateway)

    async def feed(self, piece: bytes) -> bool:
        """Take a piece of the body; ``False`` where no more of it should come."""
        self._pieces.append(piece)
        self._size += len(piece)
        # What comes after a pause goes on at once: the next piece may be long in coming.
        if self._size < _HOP_BYTES and self._events.clock() - self._since < _HOP_S:
            return True
        going_on = await self._hop()
        self._since = self._events.clock()
        return going_on

    async def close(self) -> None:
        """The body has ended; raises :class:`~dnc_async.errors.CarError` where it should not have ended there."""
        await self._hop()
        try:
            self._reader.close()
        except CarError:
            if not self.has_stopped:
                raise

    async def settle(self) -> None:
        """Keep what came whole of a body that broke off."""
        try:
            await self._hop()
        except IpldError:
            return

    async def _hop(self) -> bool:
        pieces, self._pieces, self._size = self._pieces, [], 0
        if not pieces:
            return True
        going_on = True
        for block, wanted in await self._events.land(self._request, lambda: self._read(pieces)):
            self._capabilities.sent_car()
            if not wanted and not self._stray(block):
                going_on = False
        if self._request.may_wait and self._events.readahead.is_full:
            going_on = await self._hold() and going_on
        self.has_stopped = not (going_on and (self._request.wants or self._request.is_open_ended))
        return not self.has_stopped

    def _read(self, pieces: list[bytes]) -> list[Block]:
        """The blocks of some pieces, in a worker thread; what is wrong behind them is raised next time, or at the end."""
        blocks: list[Block] = []
        try:
            for piece in pieces:
                blocks += self._reader.feed(piece)
        except IpldError:
            if not blocks:
                raise
        return blocks

    def _stray(self, block: Block) -> bool:
        """A block that nobody waits for; ``False`` where it shows that the range was not kept."""
        if block.cid.multihash in self._request.expected:
            return True  # somebody else was faster
        if self._request.is_open_ended:
            if block.cid.codec != RAW and not self._request.has_nodes:
                return True  # whoever wants leaves alone knows what is above them
            if self._request.may_wait or not (self._request.awaits_first or self._events.readahead.is_full):
                self._events.keep(self._request, block)
        elif block.cid.codec == RAW and not self._ask.is_whole and not self._request.has_nodes:
            self._capabilities.ignored_range()
            return False
        return True

    async def _hold(self) -> bool:
        """Read no further until some of what came early was wanted; ``False`` where that takes too long."""
        request = self._request
        for want in request.wants:
            self._score.missed(want)
        self._events.holds(request, holding=True)
        try:
            with anyio.move_on_after(self._events.hold_s):
                await self._events.readahead.until_room(unless=lambda: not request.may_wait)
        finally:
            self._events.holds(request, holding=False)
        now = self._events.clock()
        self._score.resumed(now)
        for want in request.wants:
            self._score.joined(want, want.size_bytes, now)
        if self._events.readahead.is_full and request.may_wait:
            self._events.readahead.clear()  # nobody has wanted it for so long: it would keep others waiting, too
            self._capabilities.refused_path(self._ask.path)  # it would only be the same again
            return False
        return True
