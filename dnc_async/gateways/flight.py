"""One request on the wire: a raw block, or a CAR that brings a run of blocks.

A flight ends in one of few ways for each block that it was to bring: it lands, it failed (its gateway is to blame, and somebody
else is asked), or it is given back without blame. Blocks that have landed stay, whatever becomes of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import anyio

from dnc_async.errors import (
    BlockMismatchError,
    CarError,
    GatewayBusyError,
    GatewayError,
    GatewayMismatchError,
    GatewayMissError,
    GatewayNoCarError,
    GatewayOversizeError,
    GatewayRefusedError,
    IpldError,
)
from dnc_async.gateways.abilities import Abilities
from dnc_async.gateways.early import EarlyBlocks
from dnc_async.gateways.score import Score
from dnc_async.gateways.spans import CarAsk, Scope
from dnc_async.gateways.transport import Transport
from dnc_async.gateways.wanted import WantedBlock
from dnc_async.ipld.block import Block, verify
from dnc_async.ipld.car import CarReader
from dnc_async.ipld.cid import RAW, Cid
from dnc_async.telemetry import RequestEnded

#: A CAR holds proofs and the names of its blocks beside the bytes that were asked for: half as much again, and this.
_PROOF_BYTES = 2**21
#: Of an open CAR it is remembered what it has brought; if that is more, nothing is expected of it any more.
_BROUGHT_BLOCKS = 8192
#: Bytes are hashed in a worker thread, so long after those before them, or so many at once.
_HOP_S, _HOP_BYTES = 0.005, 2**20


class Desk(Protocol):
    """What a flight needs of the fetcher."""

    early: EarlyBlocks
    hold_s: float

    def clock(self) -> float:
        """Seconds, monotonic."""

    def progressed(self, gateway: int) -> None:
        """Some bytes came: there may be room to ask for more."""

    async def land(self, flight: Flight, make: Callable[[], Sequence[Block]]) -> list[tuple[Block, bool]]:
        """Make verified blocks in a worker thread and hand them to whoever wants them; says of each whether anybody did."""

    def keep(self, flight: Flight, block: Block) -> None:
        """A block came that nobody wanted when it did."""

    def failed(self, want: WantedBlock, gateway: int, error: GatewayError) -> None:
        """The gateway could not bring this block."""

    def tell_failure(self, error: GatewayError, cid: str) -> None:
        """The gateway failed, and no block was lost by it."""

    def give_back(self, want: WantedBlock, gateway: int) -> None:
        """The gateway will not bring this block, and is not to blame."""

    def holds(self, flight: Flight, *, holding: bool) -> None:
        """A flight waits, or no longer waits, until what it brought is wanted."""


class Flight:
    """A request to one gateway, and the blocks that are still expected of it, in order."""

    def __init__(
        self, gateway: int, wants: Sequence[WantedBlock], car: CarAsk | None, began: float, *, is_hedge: bool
    ) -> None:
        self.gateway = gateway
        self.car = car
        self.asked = str(wants[0].cid) if car is None else car.path
        self.blocks = len(wants)
        self.is_hedge = is_hedge
        self.has_failed = False
        self.received_bytes = 0
        self.first_byte_at: float | None = None
        self.wants = dict.fromkeys(wants)
        self.began = began
        # The scope is made now, not by the task: the blocks may be given up before that has begun.
        self.scope = anyio.CancelScope()
        self.position = car.start if car is not None else 0
        #: Whether it brings more than is expected of it now.
        self.is_open_ended = car is not None and (car.scope is Scope.ALL or any(want.has_more for want in wants))
        self.expected = {want.cid.multihash for want in wants}
        self._brought: set[bytes] = set()
        #: Whose blocks it was to bring: when the last of them has left, nobody will want what else it brings.
        self.groups = {want.group for want in wants}
        self._first = wants[0]
        #: Whether children may come that were not asked for: what was taken for a leaf may be none.
        self.has_nodes = any(want.cid.codec != RAW for want in wants)

    def __repr__(self) -> str:
        return f"<Flight {self.asked} of gateway {self.gateway}, {len(self.wants)} blocks expected>"

    def arrived(self, size_bytes: int, now: float) -> None:
        """Its answer begins, or so many bytes more of it have come."""
        self.received_bytes += size_bytes
        self.first_byte_at = self.first_byte_at or now

    def ended(self, gateway: str, now: float) -> RequestEnded:
        """How it went."""
        outcome: Literal["answered", "failed", "cancelled"] = "answered"
        if self.has_failed:
            outcome = "failed"
        elif self.scope.cancel_called:
            outcome = "cancelled"
        return RequestEnded(
            gateway=gateway,
            asked=self.asked,
            blocks=self.blocks,
            received_bytes=self.received_bytes,
            hedge=self.is_hedge,
            sent_at=self.began,
            first_byte_at=self.first_byte_at,
            at=now,
            outcome=outcome,
        )

    def join(self, want: WantedBlock) -> None:
        """Expect one more of what it will bring anyway."""
        self.wants[want] = None
        self.expected.add(want.cid.multihash)
        self.groups.add(want.group)
        self.has_nodes = self.has_nodes or want.cid.codec != RAW

    def release(self, want: WantedBlock) -> None:
        """Expect a block no more; a flight of which nothing is expected ends, but for one that brings what comes next."""
        self.wants.pop(want, None)
        self._end_unless_wanted()

    def leave(self, group: object) -> None:
        """A group was closed."""
        self.groups.discard(group)
        self._end_unless_wanted()

    def _end_unless_wanted(self) -> None:
        if not self.wants and not (self.is_open_ended and self.groups):
            self.scope.cancel()

    @property
    def may_wait(self) -> bool:
        """Whether it may be held: it brings what comes next, and of what came before that nothing is missing.

        A leaf is wanted when there is a place for it, so whoever waits for one takes nothing else meanwhile. What lies before
        the block for which it was asked, nobody takes at all.
        """
        return self.is_open_ended and not self.awaits_first and all(want.has_more for want in self.wants)

    @property
    def awaits_first(self) -> bool:
        """Whether the block for which it was asked is still to come."""
        return self._first in self.wants

    def brought(self, multihash: bytes) -> bool:
        """A block of its CAR has come, wanted or not; says whether more can be remembered."""
        if self.is_open_ended:
            self._brought.add(multihash)
        return len(self._brought) < _BROUGHT_BLOCKS

    def has_brought(self, multihash: bytes) -> bool:
        """Whether a block has come that may have been wanted by nobody then, or was forgotten since."""
        return multihash in self._brought

    def advance(self, want: WantedBlock) -> bool:
        """A block of its CAR has come: note how far it is; says whether that is further than before."""
        if self.car is None:
            return False
        own = (each for each in want.within if each.path == self.car.path)
        ends = [each.start if want.has_more else each.end for each in own]
        before, self.position = self.position, max([self.position, *ends])
        return self.position > before


class Pilot:
    """Flies for one gateway."""

    def __init__(self, gateway: int, transport: Transport, score: Score, abilities: Abilities, desk: Desk) -> None:
        self._gateway = gateway
        self._transport = transport
        self._score = score
        self._abilities = abilities
        self._desk = desk

    async def fly(self, flight: Flight) -> None:
        """Bring what is expected; never raises but to be cancelled."""
        try:
            with flight.scope:
                if not flight.wants:
                    return  # given up before this began
                if flight.car is None:
                    await self._raw(flight, next(iter(flight.wants)))
                else:
                    await self._car(flight, flight.car)
        finally:
            self._score.closed_car(flight)
            self._abandon(flight)

    def may_probe(self, now: float) -> bool:
        """Whether a probe may be sent now, which is counted then."""
        return self._score.spends(now)

    async def probe(self, root: Cid) -> None:
        """Learn whether the gateway holds a root itself; where it does not say, nothing is learned."""
        try:
            if await self._transport.holds(root) is False:
                self._abilities.lacks_root(str(root))
        except GatewayBusyError as error:
            self._score.refused(self._desk.clock(), error.retry_after_s)
        except GatewayError:
            return

    def _abandon(self, flight: Flight) -> None:
        """Give back what did not come."""
        for want in list(flight.wants):
            self._score.missed(want)
            self._desk.give_back(want, self._gateway)

    # A raw block.

    async def _raw(self, flight: Flight, want: WantedBlock) -> None:
        score, clock = self._score, self._desk.clock

        def arrived(size_bytes: int) -> None:
            flight.arrived(size_bytes, clock())
            if size_bytes:
                score.received(want, size_bytes, clock())
                self._desk.progressed(self._gateway)
            else:
                want.first_byte_at = want.first_byte_at or clock()
                score.first_byte(want, clock())

        try:
            data = await self._transport.raw(want.cid, limit_bytes=want.limit_bytes, arrived=arrived)
        except GatewayError as error:
            self._charge(want, error)
            self._fail(flight, want, error)
            return
        score.delivered(want, len(data), clock())
        self._desk.progressed(self._gateway)
        try:
            await self._desk.land(flight, lambda: [verify(want.cid, data)])
        except BlockMismatchError as error:
            self._mismatched(flight, want, error)

    def _charge(self, want: WantedBlock, error: GatewayError) -> None:
        if isinstance(error, (GatewayMissError, GatewayRefusedError)):
            self._score.missed(want)
        else:
            self._score.failed(want, self._desk.clock(), error.retry_after_s)

    def _fail(self, flight: Flight, want: WantedBlock, error: GatewayError) -> None:
        flight.wants.pop(want, None)
        flight.has_failed = True
        self._score.missed(want)
        self._desk.failed(want, self._gateway, error)

    def _mismatched(self, flight: Flight, want: WantedBlock | None, cause: BlockMismatchError) -> None:
        self._score.mismatched(self._desk.clock())
        asked = str(want.cid) if want is not None else flight.car.path if flight.car is not None else ""
        wrong = "sent bytes that do not hash to the CID; they were thrown away"
        error = GatewayMismatchError(wrong, gateway=self._transport.name, cid=asked)
        error.__cause__ = cause
        if want is not None:
            self._fail(flight, want, error)
        else:
            self._desk.tell_failure(error, asked)

    # A CAR.

    async def _car(self, flight: Flight, ask: CarAsk) -> None:
        self._score.opened_car(flight, ask)
        landing = CarLanding(flight, ask, self._score, self._abilities, self._desk)
        target = ask.target(from_root=self._abilities.is_cold(ask.via.partition("/")[0]))
        limit = ask.expected_bytes + ask.expected_bytes // 2 + _PROOF_BYTES
        try:
            await self._transport.car(
                target, asked=ask.path, limit_bytes=limit, arrived=landing.arrived, feed=landing.feed
            )
            await landing.close()
        except GatewayError as error:
            await landing.settle()
            self._refused(flight, ask, error)
            return
        except BlockMismatchError as error:
            self._abilities.refused_path(ask.path)
            self._mismatched(flight, next(iter(flight.wants), None), error)
            return
        except CarError as error:
            self._truncated(flight, ask, f"sent a CAR that breaks off: {error}")
            return
        if flight.wants and not landing.has_stopped:
            self._truncated(flight, ask, "sent a CAR that ends without the block")

    def _refused(self, flight: Flight, ask: CarAsk, error: GatewayError) -> None:
        """A CAR that did not come, or not to its end: raw blocks of the same DAG may be had all the same."""
        first = next(iter(flight.wants), None)
        if isinstance(error, GatewayNoCarError):
            self._abilities.refused_car()
        elif isinstance(error, (GatewayOversizeError, GatewayMissError, GatewayRefusedError)):
            # The first of them: more than was guessed, or all of a file of which a part was asked for.
            self._abilities.refused_path(ask.path)
        elif first is not None:
            first.plain.add(self._gateway)
            self._charge(first, error)
            self._fail(flight, first, error)
        else:
            flight.has_failed = True
            self._score.refused(self._desk.clock(), error.retry_after_s)
            self._desk.tell_failure(error, ask.path)

    def _truncated(self, flight: Flight, ask: CarAsk, what: str) -> None:
        """What came is kept; the rest is asked for otherwise, and is this gateway's failure where it named the blocks."""
        self._abilities.refused_path(ask.path)
        for want in list(flight.wants):
            if not flight.is_open_ended:
                self._fail(flight, want, GatewayError(what, gateway=self._transport.name, cid=str(want.cid)))


class CarLanding:
    """The body of one CAR on its way to whoever wants its blocks."""

    def __init__(self, flight: Flight, ask: CarAsk, score: Score, abilities: Abilities, desk: Desk) -> None:
        self._flight = flight
        self._ask = ask
        self._score = score
        self._abilities = abilities
        self._desk = desk
        self._reader = CarReader()
        self._pieces: list[bytes] = []
        self._size = 0
        self._since = float("-inf")
        #: Whether it was we who wanted no more.
        self.has_stopped = False

    def arrived(self, size_bytes: int) -> None:
        """The answer begins (0), or so many bytes more have come."""
        now, want = self._desk.clock(), next(iter(self._flight.wants), None)
        self._flight.arrived(size_bytes, now)
        if size_bytes and want is None:
            self._score.received_more(size_bytes, now)
        elif size_bytes and want is not None:
            want.first_byte_at = want.first_byte_at or now
            self._score.received(want, size_bytes, now)
        else:
            self._score.first_byte(want, now)
        self._desk.progressed(self._flight.gateway)

    async def feed(self, piece: bytes) -> bool:
        """Take a piece of the body; ``False`` where no more of it should come."""
        self._pieces.append(piece)
        self._size += len(piece)
        # What comes after a pause goes on at once: the next piece may be long in coming.
        if self._size < _HOP_BYTES and self._desk.clock() - self._since < _HOP_S:
            return True
        going_on = await self._hop()
        self._since = self._desk.clock()
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
        except (CarError, BlockMismatchError):
            return

    async def _hop(self) -> bool:
        pieces, self._pieces, self._size = self._pieces, [], 0
        if not pieces:
            return True
        going_on = True
        for block, wanted in await self._desk.land(self._flight, lambda: self._read(pieces)):
            self._abilities.sent_car()
            if not wanted and not self._stray(block):
                going_on = False
        if self._flight.may_wait and self._desk.early.is_full:
            going_on = await self._hold() and going_on
        self.has_stopped = not (going_on and (self._flight.wants or self._flight.is_open_ended))
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
        if block.cid.multihash in self._flight.expected:
            return True  # somebody else was faster
        if self._flight.is_open_ended:
            if self._flight.may_wait or not (self._flight.awaits_first or self._desk.early.is_full):
                self._desk.keep(self._flight, block)
        elif block.cid.codec == RAW and not self._ask.is_whole and not self._flight.has_nodes:
            self._abilities.ignored_range()
            return False
        return True

    async def _hold(self) -> bool:
        """Read no further until some of what came early was wanted; ``False`` where that takes too long."""
        flight = self._flight
        for want in flight.wants:
            self._score.missed(want)
        self._desk.holds(flight, holding=True)
        try:
            with anyio.move_on_after(self._desk.hold_s):
                await self._desk.early.until_room(unless=lambda: not flight.may_wait)
        finally:
            self._desk.holds(flight, holding=False)
        now = self._desk.clock()
        self._score.resumed(now)
        for want in flight.wants:
            self._score.joined(want, want.size_bytes, now)
        if self._desk.early.is_full and flight.may_wait:
            self._desk.early.clear()  # nobody has wanted it for so long: it would keep others waiting, too
            self._abilities.refused_path(self._ask.path)  # it would only be the same again
            return False
        return True
