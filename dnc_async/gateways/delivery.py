"""Verifies the bodies that arrived, and delivers blocks to all wants for them.

What is only copied to memory is verified and delivered in the event loop at once: to hash it takes less than to hand it to
another thread and back. What is written to a disk is, in a worker thread, for the disk may take long: a run of bodies at a time,
which are waited for if more are on their way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from anyio.abc import TaskGroup

from dnc_async.gateways.pending import Pending
from dnc_async.gateways.request import Request
from dnc_async.gateways.transport import UnverifiedBody
from dnc_async.gateways.want import AcceptResult, BlockWant
from dnc_async.ipld.block import Block, verify_pieces

#: What is verified and copied in the event loop at most: to hash it takes a millisecond or two.
_AT_ONCE_BYTES = 2**21
#: What one call of a worker verifies: enough that the call costs little, and little enough that other workers get some, too.
_RUN_BYTES = 2**20
#: How long a body waits for others of its run.
_LINGER_S = 0.02

Offers = list[tuple[BlockWant, AcceptResult | None]]


class Arrival(NamedTuple):
    """The body of a raw block's request, unverified."""

    request: Request
    want: BlockWant
    body: UnverifiedBody
    received_at: float


class Verdict(NamedTuple):
    """What a body turned out to be: a block, with what became of it at each want, or the ``error`` that it is none.

    ``worked_s`` is the processor time in seconds.
    """

    block: Block | None
    offers: Offers
    error: Exception | None
    worked_s: float


class BlockDelivery:
    """Verifies and delivers. ``in_progress`` are the multihashes of the blocks that are being delivered."""

    def __init__(
        self,
        pending: Pending,
        *,
        in_worker: Callable[..., Awaitable[Any]],
        thread_clock: Callable[[], float],
        conclude: Callable[[Arrival, Verdict], None],
        settle: Callable[[BlockWant, Exception | None], None],
    ) -> None:
        """``conclude`` is called with each body's verdict.

        ``settle`` is called for each want that accepted a block, with the error of its ``accept`` callback or ``None``.
        """
        self._pending = pending
        self._in_worker = in_worker
        self._thread_clock = thread_clock
        self._conclude = conclude
        self._settle = settle
        self._arrived: list[Arrival] = []
        self._lingering: list[Arrival] = []
        self._is_urgent = False
        self._blocks: dict[bytes, Block] = {}
        self.in_progress: set[bytes] = set()

    def __repr__(self) -> str:
        following = len(self._blocks) + len(self._arrived) + len(self._lingering)
        return f"<BlockDelivery {len(self.in_progress)} in progress, {following} more next>"

    @property
    def is_idle(self) -> bool:
        """Whether no block is being delivered or added."""
        return not (self._blocks or self._arrived or self._lingering or self.in_progress)

    def add_body(self, arrival: Arrival) -> None:
        """Verify this body, and deliver its block, when :meth:`verify_arrived` is called next."""
        self._arrived.append(arrival)

    def add(self, block: Block) -> None:
        """Deliver this block when :meth:`deliver_added` is called next."""
        self._blocks[block.cid.multihash] = block

    def deliver_added(self, tasks: TaskGroup) -> None:
        """Deliver the added blocks, at once or in a task, except for those that are being delivered already."""
        if not self._blocks:
            return
        blocks, self._blocks = self._blocks, {}
        run = [block for multihash, block in blocks.items() if multihash not in self.in_progress]
        if sum(block.size_bytes for block in run) <= _AT_ONCE_BYTES and all(map(self._is_quick, run)):
            for block in run:
                self._settle_offers(self._offer(block))
        elif run:
            self.in_progress.update(block.cid.multihash for block in run)
            tasks.start_soon(self._deliver, run)

    def verify_arrived(self, tasks: TaskGroup, now: float, *, expects_more: bool) -> None:
        """Verify the bodies that were added, and deliver their blocks.

        ``expects_more``: whether other bodies are on their way, so that a small run may wait for them until :attr:`due_at`.
        """
        arrived, self._arrived, is_urgent, self._is_urgent = self._arrived, [], self._is_urgent, False
        quick: list[Arrival] = []
        for arrival in arrived:
            (quick if self._is_quick_body(arrival) else self._lingering).append(arrival)
        if _size_bytes(quick) > _AT_ONCE_BYTES:
            self._lingering += quick
        else:
            for arrival in quick:
                self._conclude(arrival, self._verify(arrival))
        if not expects_more or is_urgent or _size_bytes(self._lingering) >= _RUN_BYTES or self.due_at <= now:
            lingering, self._lingering = self._lingering, []
            for run in _runs(lingering):
                tasks.start_soon(self._verify_run, run)

    @property
    def due_at(self) -> float:
        """Until when the bodies of the next run wait for others; infinite if there are none. What has yet to be read does not."""
        if not self._lingering:
            return float("inf")
        first = self._lingering[0]
        return float("-inf") if callable(first.body) else first.received_at + _LINGER_S

    @property
    def unverified(self) -> int:
        """How many bodies were added and are not being verified yet."""
        return len(self._arrived) + len(self._lingering)

    def hurry(self) -> None:
        """Let no body wait for others of its run when :meth:`verify_arrived` is called next."""
        self._is_urgent = True

    def clear(self) -> list[Arrival]:
        """Forget what was added and not started; returns the bodies, whose requests are to be concluded otherwise."""
        arrived, self._arrived, self._lingering = [*self._lingering, *self._arrived], [], []
        self._blocks.clear()
        return arrived

    async def verify_all(self, request: Request, make: Callable[[], Sequence[Block]], size_bytes: int) -> list[Verdict]:
        """Call ``make`` for the verified blocks of an answer's next ``size_bytes``, and offer them to their wants."""
        verdicts: list[Verdict]
        if size_bytes > _AT_ONCE_BYTES or not all(want.is_quick() for want in request.wants):
            verdicts = await self._in_worker(self._offer_all, make)
            return verdicts
        began = self._thread_clock()
        blocks = make()
        if all(map(self._is_quick, blocks)):
            return self._offer_each(blocks, began)
        worked_s = self._thread_clock() - began  # somebody else wants them, too, and writes them to a disk
        verdicts = await self._in_worker(lambda: self._offer_each(blocks, self._thread_clock() - worked_s))
        return verdicts

    def _offer_all(self, make: Callable[[], Sequence[Block]]) -> list[Verdict]:
        began = self._thread_clock()
        return self._offer_each(make(), began)

    def _offer_each(self, blocks: Iterable[Block], began: float) -> list[Verdict]:
        offered = [(block, self._offer(block)) for block in blocks]
        worked_s = self._thread_clock() - began
        return [Verdict(block, offers, None, worked_s) for block, offers in offered]

    def _offer(self, block: Block) -> Offers:
        return [(want, want.offer(block)) for want in self._pending.wants_for(block.cid.multihash)]

    def _is_quick(self, block: Block) -> bool:
        return all(want.is_quick() for want in self._pending.wants_for(block.cid.multihash))

    def _is_quick_body(self, arrival: Arrival) -> bool:
        wants = self._pending.wants_for(arrival.want.cid.multihash)
        return not callable(arrival.body) and all(want.is_quick() for want in wants)

    def _verify(self, arrival: Arrival) -> Verdict:
        began, body = self._thread_clock(), arrival.body
        try:
            block = verify_pieces(arrival.want.cid, (body(),) if callable(body) else body)
        except Exception as error:  # noqa: BLE001 - the gateway's error, or a mistake of ours: its request is told
            return Verdict(None, [], error, self._thread_clock() - began)
        offers = self._offer(block)
        return Verdict(block, offers, None, self._thread_clock() - began)

    def _verify_each(self, run: Iterable[Arrival]) -> list[Verdict]:
        return [self._verify(arrival) for arrival in run]

    async def _verify_run(self, run: Sequence[Arrival]) -> None:
        verdicts = await self._in_worker(partial(self._verify_each, run))
        for arrival, verdict in zip(run, verdicts, strict=True):
            self._conclude(arrival, verdict)

    async def _deliver(self, run: Sequence[Block]) -> None:
        """Deliver blocks in a worker thread to all wants for them, including those that are added meanwhile."""
        seen: set[BlockWant] = set()
        while offers := await self._offer_to_new(run, seen):
            self._settle_offers(offers)
            seen.update(want for want, _ in offers)
        self.in_progress.difference_update(block.cid.multihash for block in run)

    async def _offer_to_new(self, run: Sequence[Block], seen: set[BlockWant]) -> Offers:
        """Offer blocks to the wants that have not seen them; returns nothing if there are none."""
        new = [
            (partial(want.offer, block), want)
            for block in run
            for want in self._pending.wants_for(block.cid.multihash)
            if want not in seen
        ]
        if not new:
            return []
        offers = [offer for offer, _ in new]
        results = await self._in_worker(lambda offers: [offer() for offer in offers], offers)
        return [(want, result) for (_, want), result in zip(new, results, strict=True)]

    def _settle_offers(self, offers: Offers) -> None:
        for want, result in offers:
            if result is not None:  # else another thread accepts the block, and its caller settles the want
                self._settle(want, result.error)
            want.call_done()


def _size_bytes(arrived: Iterable[Arrival]) -> int:
    return sum(arrival.want.size_bytes for arrival in arrived)


def _runs(arrived: Iterable[Arrival]) -> Iterator[list[Arrival]]:
    """Cut what arrived into runs that one call of a worker verifies."""
    run: list[Arrival] = []
    size = 0
    for arrival in arrived:
        run.append(arrival)
        size += arrival.want.size_bytes
        if size >= _RUN_BYTES:
            yield run
            run, size = [], 0
    if run:
        yield run
