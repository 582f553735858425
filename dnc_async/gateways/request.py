"""One request on the wire: a raw block, or a CAR that brings a run of blocks.

A request ends in one of few ways for each block that it was to bring: it lands, it failed (its gateway is to blame, and somebody
else is asked), or it is given back without blame. Blocks that have landed stay, whatever becomes of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import anyio

from dnc_async.errors import (
    GatewayError,
)
from dnc_async.gateways.readahead import Readahead
from dnc_async.gateways.spans import CarAsk, Scope
from dnc_async.gateways.transport import Arrivals
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.block import Block
from dnc_async.ipld.cid import RAW
from dnc_async.telemetry import RequestEnded

#: Of an open CAR it is remembered what it has brought; if that is more, nothing is expected of it any more.
_BROUGHT_BLOCKS = 8192


class RequestEvents(Protocol):
    """What a request needs of the fetcher."""

    readahead: Readahead
    hold_s: float

    def clock(self) -> float:
        """Seconds, monotonic."""

    def progressed(self, gateway: int) -> None:
        """Some bytes came: there may be room to ask for more."""

    async def land(self, request: Request, make: Callable[[], Sequence[Block]]) -> list[tuple[Block, bool]]:
        """Make verified blocks in a worker thread and hand them to whoever wants them; says of each whether anybody did."""

    def keep(self, request: Request, block: Block) -> None:
        """A block came that nobody wanted when it did."""

    def failed(self, want: BlockWant, gateway: int, error: GatewayError) -> None:
        """The gateway could not bring this block."""

    def tell_failure(self, error: GatewayError, cid: str) -> None:
        """The gateway failed, and no block was lost by it."""

    def busy(self, gateway: int, pause_s: float) -> None:
        """The gateway asked us to come back so much later."""

    def give_back(self, want: BlockWant, gateway: int) -> None:
        """The gateway will not bring this block, and is not to blame."""

    def holds(self, request: Request, *, holding: bool) -> None:
        """A request waits, or no longer waits, until what it brought is wanted."""


class Request:
    """A request to one gateway, and the blocks that are still expected of it, in order."""

    def __init__(
        self, gateway: int, wants: Sequence[BlockWant], car: CarAsk | None, began: float, *, is_hedge: bool
    ) -> None:
        self.gateway = gateway
        self.car = car
        self.asked = str(wants[0].cid) if car is None else car.path
        self.blocks = len(wants)
        self.is_hedge = is_hedge
        self.has_failed = False
        self.received_bytes = 0
        self.first_byte_at: float | None = None
        #: Hears of a raw block as it comes; a CAR is read as it comes, so there is nothing to look at.
        self.arrivals: Arrivals | None = None
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
        #: Whether nodes are wanted of it: children may come that were not asked for, as what was taken for a leaf may be none.
        self.has_nodes = any(want.cid.codec != RAW for want in wants)

    def __repr__(self) -> str:
        return f"<Request {self.asked} of gateway {self.gateway}, {len(self.wants)} blocks expected>"

    def arrived(self, size_bytes: int, now: float) -> None:
        """Its answer begins, or so many bytes more of it have come."""
        self.received_bytes += size_bytes
        self.first_byte_at = self.first_byte_at or now

    def look(self) -> None:
        """Count what has come of its answer and was not read yet."""
        if self.arrivals is not None:
            self.arrivals.look()

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

    def join(self, want: BlockWant) -> None:
        """Expect one more of what it will bring anyway."""
        self.wants[want] = None
        self.expected.add(want.cid.multihash)
        self.groups.add(want.group)
        self.has_nodes = self.has_nodes or want.cid.codec != RAW

    def release(self, want: BlockWant) -> None:
        """Expect a block no more; a request of which nothing is expected ends, but for one that brings what comes next."""
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

    def advance(self, want: BlockWant) -> bool:
        """A block of its CAR has come: note how far it is; says whether that is further than before."""
        if self.car is None:
            return False
        own = (each for each in want.within if each.path == self.car.path)
        ends = [each.start if want.has_more else each.end for each in own]
        before, self.position = self.position, max([self.position, *ends])
        return self.position > before
