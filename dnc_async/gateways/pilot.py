"""Sends the requests of one gateway, and says of each block how that ended."""

from __future__ import annotations

from dnc_async.errors import (
    BlockMismatchError,
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
from dnc_async.gateways.car_landing import CarLanding
from dnc_async.gateways.flight import Desk, Flight
from dnc_async.gateways.score import Score
from dnc_async.gateways.spans import CarAsk
from dnc_async.gateways.transport import Arrivals, CarRequest, Transport, wrong_bytes
from dnc_async.gateways.wanted import WantedBlock
from dnc_async.ipld.block import verify
from dnc_async.ipld.cid import Cid
from dnc_async.telemetry import logger

#: A CAR holds proofs and the names of its blocks beside the bytes that were asked for: half as much again, and this.
_PROOF_BYTES = 2**21
#: An answer is read so long after what came of it before. A silence is judged by more than that.
_PIECE_S = 0.04


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
        except Exception as error:  # noqa: BLE001 - it would end every stream of the client
            logger.exception("%r broke; others go on", flight)
            self._broke(flight, error)
        finally:
            flight.arrivals = None  # it knows the flight: a circle that would keep what the blocks were written to
            self._score.closed_car(flight)
            self._abandon(flight)

    def may_probe(self, now: float) -> bool:
        """Whether a probe may be sent now, which is counted then."""
        return self._score.spends(now)

    @property
    def is_unknown(self) -> bool:
        """Whether it is hoped that it sends CARs, and nothing is under way that will tell."""
        return self._abilities.can_car and not self._abilities.has_sent_car and not self._score.in_flight

    async def probe(self, root: Cid, for_car: bool) -> None:
        """Learn whether the gateway holds a root itself; where it does not say, nothing is learned.

        ``for_car``: ask for a CAR of the root, too. Of several gateways that have none each would else refuse a useful request
        of its own, one after the other.
        """
        try:
            if for_car and not await self._transport.sends_cars(root):
                self._abilities.refused_car()
            if await self._transport.holds(root) is False:
                self._abilities.lacks_root(str(root))
        except GatewayBusyError as error:
            self._score.refused(self._desk.clock(), error.retry_after_s)
            self._desk.busy(self._gateway, error.retry_after_s or 0.0)
        except GatewayError:
            return

    def _broke(self, flight: Flight, cause: Exception) -> None:
        """A mistake of ours costs this request, as if the gateway had failed, and not every stream of the client."""
        for want in list(flight.wants):
            error = GatewayError(
                f"was answered with a mistake: {cause!r}", gateway=self._transport.name, cid=str(want.cid)
            )
            error.__cause__ = cause
            self._fail(flight, want, error)

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
            flight.arrivals = Arrivals(arrived, self._piece_bytes)
            body = await self._transport.raw(want.cid, limit_bytes=want.limit_bytes, arrivals=flight.arrivals)
            if isinstance(body, bytes):
                score.delivered(want, len(body), clock())
                self._desk.progressed(self._gateway)
                await self._desk.land(flight, lambda: [verify(want.cid, body)])
            else:
                landed = await self._desk.land(flight, lambda: [verify(want.cid, body())])
                flight.arrived(len(landed[0][0].data), clock())
        except GatewayError as error:
            self._charge(want, error)
            self._fail(flight, want, error)
        except BlockMismatchError as error:
            self._mismatched(flight, want, error)

    def _piece_bytes(self) -> int:
        """How much of one answer may come to us at once: what this gateway sends of each, of as many as are open, in a while."""
        return int((self._score.rate or 0.0) * _PIECE_S / max(1, self._score.in_flight))

    def _charge(self, want: WantedBlock, error: GatewayError) -> None:
        if isinstance(error, (GatewayMissError, GatewayRefusedError)):
            self._score.missed(want)
        else:
            self._score.failed(want, self._desk.clock(), error.retry_after_s)
            self._desk.busy(self._gateway, error.retry_after_s or 0.0)

    def _fail(self, flight: Flight, want: WantedBlock, error: GatewayError) -> None:
        flight.wants.pop(want, None)
        flight.has_failed = True
        self._score.missed(want)
        self._desk.failed(want, self._gateway, error)

    def _mismatched(self, flight: Flight, want: WantedBlock | None, cause: BlockMismatchError) -> None:
        self._score.mismatched(self._desk.clock())
        asked = str(want.cid) if want is not None else flight.car.path if flight.car is not None else ""
        error = GatewayMismatchError(wrong_bytes(self._transport), gateway=self._transport.name, cid=asked)
        error.__cause__ = cause
        if want is not None:
            self._fail(flight, want, error)
        else:
            self._desk.tell_failure(error, asked)

    # A CAR.

    async def _car(self, flight: Flight, ask: CarAsk) -> None:
        landing = CarLanding(flight, ask, self._score, self._abilities, self._desk)
        request = CarRequest(
            target=ask.target(from_root=self._abilities.is_cold(ask.via.partition("/")[0])),
            asked=ask.path,
            cids=tuple(want.cid for want in flight.wants),
            expected_bytes=ask.expected_bytes,
        )
        limit = ask.expected_bytes + ask.expected_bytes // 2 + _PROOF_BYTES
        try:
            arrivals = Arrivals(landing.arrived)
            await self._transport.car(request, limit_bytes=limit, arrivals=arrivals, feed=landing.feed)
            await landing.close()
        except GatewayError as error:
            await landing.settle()
            self._refused(flight, ask, error)
            return
        except BlockMismatchError as error:
            self._abilities.refused_path(ask.path)
            self._mismatched(flight, next(iter(flight.wants), None), error)
            return
        except IpldError as error:
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
            self._desk.busy(self._gateway, error.retry_after_s or 0.0)
            self._desk.tell_failure(error, ask.path)

    def _truncated(self, flight: Flight, ask: CarAsk, what: str) -> None:
        """What came is kept; the rest is asked for otherwise, and is this gateway's failure where it named the blocks."""
        self._abilities.refused_path(ask.path)
        for want in list(flight.wants):
            if not flight.is_open_ended:
                self._fail(flight, want, GatewayError(what, gateway=self._transport.name, cid=str(want.cid)))
