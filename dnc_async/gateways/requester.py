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
from dnc_async.gateways.capabilities import Capabilities
from dnc_async.gateways.car_response import CarResponse
from dnc_async.gateways.request import Request, RequestEvents
from dnc_async.gateways.score import Score
from dnc_async.gateways.spans import CarAsk
from dnc_async.gateways.transport import Arrivals, CarRequest, Transport, wrong_bytes
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.block import verify
from dnc_async.ipld.cid import Cid
from dnc_async.telemetry import logger

#: A CAR holds proofs and the names of its blocks beside the bytes that were asked for: half as much again, and this.
_PROOF_BYTES = 2**21
#: An answer is read so long after what came of it before. A silence is judged by more than that.
_PIECE_S = 0.04


class Requester:
    """Flies for one gateway."""

    def __init__(
        self, gateway: int, transport: Transport, score: Score, capabilities: Capabilities, events: RequestEvents
    ) -> None:
        self._gateway = gateway
        self._transport = transport
        self._score = score
        self._capabilities = capabilities
        self._events = events

    async def perform(self, request: Request) -> None:
        """Bring what is expected; never raises but to be cancelled."""
        try:
            with request.scope:
                if not request.wants:
                    return  # given up before this began
                if request.car is None:
                    await self._raw(request, next(iter(request.wants)))
                else:
                    await self._car(request, request.car)
        except Exception as error:  # noqa: BLE001 - it would end every stream of the client
            logger.exception("%r broke; others go on", request)
            self._broke(request, error)
        finally:
            request.arrivals = None  # it knows the request: a circle that would keep what the blocks were written to
            self._score.closed_car(request)
            self._abandon(request)

    def may_probe(self, now: float) -> bool:
        """Whether a probe may be sent now, which is counted then."""
        return self._score.spends(now)

    @property
    def is_unknown(self) -> bool:
        """Whether it is hoped that it sends CARs, and nothing is under way that will tell."""
        return self._capabilities.can_car and not self._capabilities.has_sent_car and not self._score.in_flight

    async def probe(self, root: Cid, for_car: bool) -> None:
        """Learn whether the gateway holds a root itself; where it does not say, nothing is learned.

        ``for_car``: ask for a CAR of the root, too. Of several gateways that have none each would else refuse a useful request
        of its own, one after the other.
        """
        try:
            if for_car and not await self._transport.sends_cars(root):
                self._capabilities.refused_car()
            if await self._transport.holds(root) is False:
                self._capabilities.lacks_root(str(root))
        except GatewayBusyError as error:
            self._score.refused(self._events.clock(), error.retry_after_s)
            self._events.busy(self._gateway, error.retry_after_s or 0.0)
        except GatewayError:
            return

    def _broke(self, request: Request, cause: Exception) -> None:
        """A mistake of ours costs this request, as if the gateway had failed, and not every stream of the client."""
        for want in list(request.wants):
            error = GatewayError(
                f"was answered with a mistake: {cause!r}", gateway=self._transport.name, cid=str(want.cid)
            )
            error.__cause__ = cause
            self._fail(request, want, error)

    def _abandon(self, request: Request) -> None:
        """Give back what did not come."""
        for want in list(request.wants):
            self._score.missed(want)
            self._events.give_back(want, self._gateway)

    # A raw block.

    async def _raw(self, request: Request, want: BlockWant) -> None:
        score, clock = self._score, self._events.clock

        def arrived(size_bytes: int) -> None:
            request.arrived(size_bytes, clock())
            if size_bytes:
                score.received(want, size_bytes, clock())
                self._events.progressed(self._gateway)
            else:
                want.first_byte_at = want.first_byte_at or clock()
                score.first_byte(want, clock())

        try:
            request.arrivals = Arrivals(arrived, self._piece_bytes)
            body = await self._transport.raw(want.cid, limit_bytes=want.limit_bytes, arrivals=request.arrivals)
            if isinstance(body, bytes):
                score.delivered(want, len(body), clock())
                self._events.progressed(self._gateway)
                await self._events.land(request, lambda: [verify(want.cid, body)])
            else:
                landed = await self._events.land(request, lambda: [verify(want.cid, body())])
                request.arrived(len(landed[0][0].data), clock())
        except GatewayError as error:
            self._charge(want, error)
            self._fail(request, want, error)
        except BlockMismatchError as error:
            self._mismatched(request, want, error)

    def _piece_bytes(self) -> int:
        """How much of one answer may come to us at once: what this gateway sends of each, of as many as are open, in a while."""
        return int((self._score.rate or 0.0) * _PIECE_S / max(1, self._score.in_flight))

    def _charge(self, want: BlockWant, error: GatewayError) -> None:
        if isinstance(error, (GatewayMissError, GatewayRefusedError)):
            self._score.missed(want)
        else:
            self._score.failed(want, self._events.clock(), error.retry_after_s)
            self._events.busy(self._gateway, error.retry_after_s or 0.0)

    def _fail(self, request: Request, want: BlockWant, error: GatewayError) -> None:
        request.wants.pop(want, None)
        request.has_failed = True
        self._score.missed(want)
        self._events.failed(want, self._gateway, error)

    def _mismatched(self, request: Request, want: BlockWant | None, cause: BlockMismatchError) -> None:
        self._score.mismatched(self._events.clock())
        asked = str(want.cid) if want is not None else request.car.path if request.car is not None else ""
        error = GatewayMismatchError(wrong_bytes(self._transport), gateway=self._transport.name, cid=asked)
        error.__cause__ = cause
        if want is not None:
            self._fail(request, want, error)
        else:
            self._events.tell_failure(error, asked)

    # A CAR.

    async def _car(self, request: Request, ask: CarAsk) -> None:
        response = CarResponse(request, ask, self._score, self._capabilities, self._events)
        car_request = CarRequest(
            target=ask.target(from_root=self._capabilities.is_cold(ask.via.partition("/")[0])),
            asked=ask.path,
            cids=tuple(want.cid for want in request.wants),
            expected_bytes=ask.expected_bytes,
        )
        limit = ask.expected_bytes + ask.expected_bytes // 2 + _PROOF_BYTES
        try:
            arrivals = Arrivals(response.arrived)
            await self._transport.car(car_request, limit_bytes=limit, arrivals=arrivals, feed=response.feed)
            await response.close()
        except GatewayError as error:
            await response.settle()
            self._refused(request, ask, error)
            return
        except BlockMismatchError as error:
            self._capabilities.refused_path(ask.path)
            self._mismatched(request, next(iter(request.wants), None), error)
            return
        except IpldError as error:
            self._truncated(request, ask, f"sent a CAR that breaks off: {error}")
            return
        if request.wants and not response.has_stopped:
            self._truncated(request, ask, "sent a CAR that ends without the block")

    def _refused(self, request: Request, ask: CarAsk, error: GatewayError) -> None:
        """A CAR that did not come, or not to its end: raw blocks of the same DAG may be had all the same."""
        first = next(iter(request.wants), None)
        if isinstance(error, GatewayNoCarError):
            self._capabilities.refused_car()
        elif isinstance(error, (GatewayOversizeError, GatewayMissError, GatewayRefusedError)):
            # The first of them: more than was guessed, or all of a file of which a part was asked for.
            self._capabilities.refused_path(ask.path)
        elif first is not None:
            first.plain.add(self._gateway)
            self._charge(first, error)
            self._fail(request, first, error)
        else:
            request.has_failed = True
            self._score.refused(self._events.clock(), error.retry_after_s)
            self._events.busy(self._gateway, error.retry_after_s or 0.0)
            self._events.tell_failure(error, ask.path)

    def _truncated(self, request: Request, ask: CarAsk, what: str) -> None:
        """What came is kept; the rest is asked for otherwise, and is this gateway's failure where it named the blocks."""
        self._capabilities.refused_path(ask.path)
        for want in list(request.wants):
            if not request.is_open_ended:
                self._fail(request, want, GatewayError(what, gateway=self._transport.name, cid=str(want.cid)))
