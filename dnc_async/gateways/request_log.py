"""What each gateway was asked and has sent: for the statistics, and told to observers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dnc_async.errors import GatewayError, GatewayMismatchError
from dnc_async.gateways.request import Request
from dnc_async.gateways.score import Score
from dnc_async.gateways.transport import Transport
from dnc_async.ipld.block import Block
from dnc_async.ipld.cid import Cid
from dnc_async.telemetry import BlockReceived, GatewayStatistics, Observers, RequestEnded, RequestFailed, RequestSent


class RequestLog:
    """Counts the received bytes of each gateway, and tells ``observers`` of requests, blocks and failures.

    Events are made only where somebody observes them.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._names: list[str] = []
        self._received_bytes: list[int] = []
        self.observers = Observers()

    def __repr__(self) -> str:
        return f"<RequestLog of {len(self._names)} gateways, {sum(self._received_bytes)} bytes received>"

    def add_gateway(self, transport: Transport) -> None:
        """Add a gateway; its number is the place at which it was added."""
        self._names.append(transport.name)
        self._received_bytes.append(0)

    def sent(self, request: Request, size_bytes: int) -> None:
        """A request was sent that is expected to bring ``size_bytes``."""
        if self.observers.hear(RequestSent):
            self.observers.tell(request.sent_event(self._names[request.gateway], size_bytes))

    def ended(self, request: Request) -> None:
        """A request has ended, in whatever way."""
        self._received_bytes[request.gateway] += request.received_bytes
        if self.observers.hear(RequestEnded):
            self.observers.tell(request.ended_event(self._names[request.gateway], self._clock()))

    def received(self, request: Request, block: Block, cid: Cid) -> None:
        """A request brought a block, which was wanted as ``cid``."""
        if self.observers.hear(BlockReceived):
            name, seconds = self._names[request.gateway], self._clock() - request.began
            self.observers.tell(BlockReceived(gateway=name, cid=str(cid), size_bytes=block.size_bytes, seconds=seconds))

    def failed(self, error: GatewayError, cid: str) -> None:
        """A request for a block or a CAR failed."""
        mismatch = isinstance(error, GatewayMismatchError)
        self.observers.tell(RequestFailed(gateway=error.gateway, cid=cid, reason=str(error), mismatch=mismatch))

    def statistics(self, scores: Sequence[Score], open_requests: Iterable[Request]) -> tuple[GatewayStatistics, ...]:
        """The statistics of each gateway (from any thread, perhaps while a gateway is being added)."""
        received = list(self._received_bytes)
        for request in open_requests:
            received[request.gateway] += request.received_bytes
        return tuple(
            GatewayStatistics(
                url=name,
                blocks=score.blocks,
                bytes=score.bytes,
                rejected=score.rejected,
                failures=score.failures,
                in_flight=score.in_flight,
                rate=score.rate,
                latency_s=score.latency_s,
                jitter_s=score.jitter_s,
                received_bytes=received_bytes,
            )
            for name, score, received_bytes in zip(tuple(self._names), scores, received, strict=False)
        )
