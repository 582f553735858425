"""One request on the wire: for a raw block, or for a CAR with several blocks.

For each block that is expected of it, a request ends in one of three ways: the block is delivered; the request failed, which is
charged to the gateway, and the block is requested from another; or the block is given back without blame: it is still in
``wants`` when the request has ended. Blocks that were delivered stay delivered, whatever happens to the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import anyio

from dnc_async.errors import (
    GatewayError,
)
from dnc_async.gateways.dag_range import CarQuery, Scope
from dnc_async.gateways.readahead import Readahead
from dnc_async.gateways.transport import Arrivals
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.block import Block
from dnc_async.ipld.cid import RAW
from dnc_async.telemetry import RequestEnded, RequestSent

#: How many multihashes of received blocks an open CAR request remembers. After more, no further want may wait for it.
_REMEMBERED_BLOCKS = 8192


class RequestEvents(Protocol):
    """What a request tells the fetcher while it is open, and asks of it. How it ended, the request itself says."""

    readahead: Readahead
    hold_s: float

    def clock(self) -> float:
        """Monotonic time, in seconds."""

    def bytes_received(self, gateway: int) -> None:
        """Some bytes arrived, so the gateway's window may have space for another request."""

    async def deliver(
        self, request: Request, make: Callable[[], Sequence[Block]], size_bytes: int
    ) -> list[tuple[Block, bool]]:
        """Call ``make`` for the verified blocks of ``size_bytes``, and deliver them; returns for each whether it was wanted."""

    def keep_for_later(self, request: Request, block: Block) -> None:
        """Keep a verified block that no stream has requested yet."""

    def set_paused(self, request: Request, *, paused: bool) -> None:
        """A request stops reading, or reads on, because what it brought is not wanted yet."""


class Request:
    """A request to one gateway. ``wants`` are the blocks that are still expected of it, in order."""

    def __init__(
        self, gateway: int, wants: Sequence[BlockWant], car: CarQuery | None, began: float, *, is_hedge: bool
    ) -> None:
        self.gateway = gateway
        self.car = car
        self.blocks = len(wants)
        self.is_hedge = is_hedge
        #: What failed, and for which block; ``None`` if no block was expected any more.
        self.failures: list[tuple[BlockWant | None, GatewayError]] = []
        #: For how many seconds the gateway asked to be left alone.
        self.pause_s = 0.0
        self.received_bytes = 0
        self.first_byte_at: float | None = None
        #: Counts the bytes of a raw block. ``None`` for a CAR, which is read as it arrives, so that nothing is left uncounted.
        self.arrivals: Arrivals | None = None
        self.wants = dict.fromkeys(wants)
        self.began = began
        # Created here and not by the task, because the request may be cancelled before its task has started.
        self.scope = anyio.CancelScope()
        #: Everything before this byte of the CAR's file or directory was received.
        self.position = car.start if car is not None else 0
        #: Whether the CAR brings more blocks than are expected of it now.
        self.is_open_ended = car is not None and (car.scope is Scope.ALL or any(want.has_more for want in wants))
        self.expected = {want.cid.multihash for want in wants}
        self._received: set[bytes] = set()
        #: The groups that want blocks of it: once all of them are closed, the rest of an open-ended CAR is not wanted.
        self.groups = {want.group for want in wants}
        self._first = wants[0]
        #: Whether it is to bring nodes: their children may arrive too, because a block taken for a leaf may have some.
        self.has_nodes = any(want.cid.codec != RAW for want in wants)

    @property
    def has_failed(self) -> bool:
        """Whether any of it failed."""
        return bool(self.failures)

    @property
    def asked(self) -> str:
        """The CID of the block, or the path of the CAR, as text."""
        return str(self._first.cid) if self.car is None else self.car.path

    def __repr__(self) -> str:
        return f"<Request {self.asked} of gateway {self.gateway}, {len(self.wants)} blocks expected>"

    def fail(self, want: BlockWant | None, error: GatewayError) -> None:
        """Note that a block will not come from this request, because of the gateway."""
        if want is not None:
            self.wants.pop(want, None)
        self.failures.append((want, error))
        self.pause_s = max(self.pause_s, error.retry_after_s or 0.0)

    def count_received(self, size_bytes: int, now: float) -> None:
        """Count bytes of the answer that arrived; 0 when the answer begins."""
        self.received_bytes += size_bytes
        self.first_byte_at = self.first_byte_at or now

    def count_unread(self) -> None:
        """Count the bytes of the answer that have arrived in the socket and were not read yet."""
        if self.arrivals is not None:
            self.arrivals.count_unread()

    def sent_event(self, gateway: str, size_bytes: int) -> RequestSent:
        """The event that tells observers that the request was sent; ``size_bytes`` is what it is expected to bring."""
        return RequestSent(
            gateway=gateway,
            asked=self.asked,
            blocks=self.blocks,
            size_bytes=size_bytes,
            hedge=self.is_hedge,
            at=self.began,
        )

    def ended_event(self, gateway: str, now: float) -> RequestEnded:
        """The event that tells observers how the request ended."""
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

    def add(self, want: BlockWant) -> None:
        """Expect one more block, which the CAR will bring anyway."""
        self.wants[want] = None
        self.expected.add(want.cid.multihash)
        self.groups.add(want.group)
        self.has_nodes = self.has_nodes or want.cid.codec != RAW

    def remove(self, want: BlockWant) -> None:
        """Stop expecting a block. Cancels the request if nothing else is expected, unless it is open-ended."""
        self.wants.pop(want, None)
        self._cancel_unless_wanted()

    def remove_group(self, group: object) -> None:
        """A group was closed: cancel the request if no other group needs it."""
        self.groups.discard(group)
        self._cancel_unless_wanted()

    def _cancel_unless_wanted(self) -> None:
        if not self.wants and not (self.is_open_ended and self.groups):
            self.scope.cancel()

    @property
    def may_pause(self) -> bool:
        """Whether reading may stop until the read-ahead blocks are wanted.

        Not while a leaf is expected, because its stream has reserved space for it and waits for nothing else meanwhile; nor
        while the first requested block is still to come, because no stream wants what lies before it.
        """
        return self.is_open_ended and not self.awaits_first and all(want.has_more for want in self.wants)

    @property
    def awaits_first(self) -> bool:
        """Whether the first requested block is still to come."""
        return self._first in self.wants

    def record_received(self, multihash: bytes) -> bool:
        """Remember that the CAR brought a block, wanted or not. Returns ``False`` when no more can be remembered."""
        if self.is_open_ended:
            self._received.add(multihash)
        return len(self._received) < _REMEMBERED_BLOCKS

    def has_received(self, multihash: bytes) -> bool:
        """Whether the CAR brought this block already; it may have been dropped since."""
        return multihash in self._received

    def advance_past(self, want: BlockWant) -> bool:
        """Move ``position`` behind a block that the CAR brought. Returns whether it moved."""
        if self.car is None:
            return False
        own = (each for each in want.within if each.path == self.car.path)
        ends = [each.start if want.has_more else each.end for each in own]
        before, self.position = self.position, max([self.position, *ends])
        return self.position > before
