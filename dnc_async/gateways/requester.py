"""Sends requests to one gateway, and processes the answers; a request says afterwards what of it failed."""

from __future__ import annotations

from typing import NamedTuple

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
from dnc_async.gateways.dag_range import CarQuery
from dnc_async.gateways.request import Request, RequestEvents
from dnc_async.gateways.score import Score
from dnc_async.gateways.transport import Arrivals, CarRequest, Transport, UnverifiedBody, mismatch_message
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.cid import Cid
from dnc_async.telemetry import logger

#: A CAR contains proofs and CIDs beside the requested bytes. It may be half as large again as those, and this much more.
_PROOF_BYTES = 2**21
#: A body is read in pieces of this duration. It is short beside the silence after which a request counts as late.
_PIECE_S = 0.04


class Probed(NamedTuple):
    """The answer to a probe: whether the gateway does not hold the root itself, and for how many seconds it wants a pause."""

    lacks_root: bool = False
    pause_s: float = 0.0


class Requester:
    """Sends the requests to one gateway."""

    def __init__(
        self, gateway: int, transport: Transport, score: Score, capabilities: Capabilities, events: RequestEvents
    ) -> None:
        self.gateway = gateway
        self._transport = transport
        self._score = score
        self._capabilities = capabilities
        self._events = events

    async def execute(self, request: Request) -> UnverifiedBody | None:
        """Send a request and read its answer to the end. Raises nothing but cancellation.

        Returns the body of a raw block, which the caller has to verify: it calls :meth:`reject` if it is not the block. In any
        case it calls :meth:`end` when the request has ended.
        """
        body: UnverifiedBody | None = None
        try:
            with request.scope:
                if not request.wants:
                    pass  # all were withdrawn before this task started
                elif request.car is None:
                    body = await self._raw(request, next(iter(request.wants)))
                else:
                    await self._car(request, request.car)
        except Exception as error:  # noqa: BLE001 - else it would end every stream of the client
            self._break(request, error)
        finally:
            request.arrivals = None  # breaks a reference cycle, which would keep the memory of the blocks alive
        return body

    def end(self, request: Request) -> None:
        """Expect nothing more of the request."""
        self._score.closed_car(request)
        for want in request.wants:
            self._score.missed(want)

    def reject(self, request: Request, want: BlockWant, error: Exception) -> None:
        """The body of a raw block could not be read, or is not the block."""
        if isinstance(error, GatewayError):
            self._charge(want, error)
            self._fail(request, want, error)
        elif isinstance(error, BlockMismatchError):
            self._mismatched(request, want, error)
        else:
            self._break(request, error)

    def spend_probe(self, now: float) -> bool:
        """Whether the gateway allows a probe now; if so, it counts as a request."""
        return self._score.spend_request(now)

    @property
    def may_have_cars(self) -> bool:
        """Whether it is not known if the gateway sends CARs, and no open request will tell."""
        return self._capabilities.can_car and not self._capabilities.has_sent_car and not self._score.in_flight

    async def probe(self, root: Cid, for_car: bool) -> Probed:
        """Ask the gateway whether it holds a root itself; an error or an unclear answer changes nothing.

        ``for_car``: also request a CAR of the root block. Without this, each of several gateways that send no CARs would have
        to refuse a useful request first, one after the other.
        """
        try:
            if for_car and not await self._transport.sends_cars(root):
                self._capabilities.refused_car()
            if await self._transport.holds(root) is not False:
                return Probed()
        except GatewayBusyError as error:
            self._score.refused(self._events.clock(), error.retry_after_s)
            return Probed(pause_s=error.retry_after_s or 0.0)
        except GatewayError:
            return Probed()
        self._capabilities.add_missing_root(str(root))
        return Probed(lacks_root=True)

    def _break(self, request: Request, cause: Exception) -> None:
        """Treat a mistake of ours as a failure of the gateway: it costs this request, and not every stream of the client."""
        logger.error("%r broke; others go on", request, exc_info=cause)
        for want in list(request.wants):
            error = GatewayError(
                f"was answered with a mistake: {cause!r}", gateway=self._transport.name, cid=str(want.cid)
            )
            error.__cause__ = cause
            self._fail(request, want, error)

    # A raw block.

    async def _raw(self, request: Request, want: BlockWant) -> UnverifiedBody | None:
        score, clock = self._score, self._events.clock

        def count(size_bytes: int) -> None:
            request.count_received(size_bytes, clock())
            if size_bytes:
                score.received(want, size_bytes, clock())
                self._events.bytes_received(self.gateway)
            else:
                want.first_byte_at = want.first_byte_at or clock()
                score.first_byte(want, clock())

        try:
            request.arrivals = Arrivals(count, self._piece_bytes)
            sent = await self._transport.raw(want.cid, limit_bytes=want.limit_bytes, arrivals=request.arrivals)
        except GatewayError as error:
            self.reject(request, want, error)
            return None
        body = (sent,) if isinstance(sent, bytes) else sent
        if isinstance(body, tuple):
            score.delivered(want, sum(map(len, body)), clock())
            self._events.bytes_received(self.gateway)
        return body

    def _piece_bytes(self) -> int:
        """In what pieces to read a body: the bytes that each of the open requests receives in ``_PIECE_S`` seconds."""
        return int((self._score.rate or 0.0) * _PIECE_S / max(1, self._score.in_flight))

    def _charge(self, want: BlockWant, error: GatewayError) -> None:
        if isinstance(error, (GatewayMissError, GatewayRefusedError)):
            self._score.missed(want)
        else:
            self._score.failed(want, self._events.clock(), error.retry_after_s)

    def _fail(self, request: Request, want: BlockWant, error: GatewayError) -> None:
        request.fail(want, error)
        self._score.missed(want)

    def _mismatched(self, request: Request, want: BlockWant | None, cause: BlockMismatchError) -> None:
        self._score.mismatched(self._events.clock())
        asked = str(want.cid) if want is not None else request.car.path if request.car is not None else ""
        error = GatewayMismatchError(mismatch_message(self._transport), gateway=self._transport.name, cid=asked)
        error.__cause__ = cause
        if want is not None:
            self._fail(request, want, error)
        else:
            request.fail(None, error)

    # A CAR.

    async def _car(self, request: Request, query: CarQuery) -> None:
        response = CarResponse(request, query, self._score, self._capabilities, self._events)
        car_request = CarRequest(
            target=query.target(from_root=self._capabilities.lacks_root(query.via.partition("/")[0])),
            asked=query.path,
            cids=tuple(want.cid for want in request.wants),
            expected_bytes=query.expected_bytes,
        )
        limit = query.expected_bytes + query.expected_bytes // 2 + _PROOF_BYTES
        try:
            arrivals = Arrivals(response.count_received)
            await self._transport.car(car_request, limit_bytes=limit, arrivals=arrivals, feed=response.feed)
            await response.close()
        except GatewayError as error:
            await response.flush()
            self._refused(request, query, error)
            return
        except BlockMismatchError as error:
            self._capabilities.refused_path(query.path)
            self._mismatched(request, next(iter(request.wants), None), error)
            return
        except IpldError as error:
            self._truncated(request, query, f"sent a CAR that breaks off: {error}")
            return
        if request.wants and not response.has_stopped:
            self._truncated(request, query, "sent a CAR that ends without the block")

    def _refused(self, request: Request, query: CarQuery, error: GatewayError) -> None:
        """Record why a CAR did not arrive, or not completely: raw blocks of the same DAG may still be available."""
        first = next(iter(request.wants), None)
        if isinstance(error, GatewayNoCarError):
            self._capabilities.refused_car()
        elif isinstance(error, (GatewayOversizeError, GatewayMissError, GatewayRefusedError)):
            # GatewayOversizeError: the file is larger than was guessed, or the gateway sent all of it instead of the range.
            self._capabilities.refused_path(query.path)
        elif first is not None:
            first.raw_only.add(self.gateway)
            self._charge(first, error)
            self._fail(request, first, error)
        else:
            self._score.refused(self._events.clock(), error.retry_after_s)
            request.fail(None, error)

    def _truncated(self, request: Request, query: CarQuery, what: str) -> None:
        """Record that a CAR ended too early. What it brought is kept; the rest is requested from elsewhere, or as raw blocks.

        The missing blocks are charged to the gateway if the request asked for exactly those.
        """
        self._capabilities.refused_path(query.path)
        for want in list(request.wants):
            if not request.is_open_ended:
                self._fail(request, want, GatewayError(what, gateway=self._transport.name, cid=str(want.cid)))
