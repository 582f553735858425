"""The fetcher: wanted blocks in, verified blocks out, over all gateways at once.

The scoreboard decides, one dispatcher sends, and a task per request brings the body. Hashing blocks and handing them to
whoever wants them is one hop to a worker thread. A block that a gateway could not give, or gave wrong, goes back among the
wanted ones and is asked of another; when all have failed for it, whoever wants it is told why each of them did. A block that
came counts for everybody who wants it, whoever asked for it; what nobody wants yet is kept for a moment.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
from anyio.abc import TaskGroup

from dnc_async.condition import Condition
from dnc_async.errors import GatewayError, GatewayMismatchError, StreamClosedError
from dnc_async.gateways.delivery import Delivery
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.pending import Pending
from dnc_async.gateways.probes import Probes
from dnc_async.gateways.readahead import Readahead
from dnc_async.gateways.request import Request
from dnc_async.gateways.requester import Requester
from dnc_async.gateways.retries import HedgeBudget, Patience
from dnc_async.gateways.scoreboard import Scoreboard, Span
from dnc_async.gateways.transport import Transport
from dnc_async.gateways.want import Accepted, BlockWant
from dnc_async.ipld.block import Block
from dnc_async.ipld.cid import Cid
from dnc_async.telemetry import BlockReceived, GatewayStatistics, Observers, RequestFailed, RequestSent, logger

#: A pause that a gateway asks for is worth a word from so many seconds on.
_TOLD_PAUSE_S = 5.0
#: Some bytes that came are no reason to look for room again so soon.
_LOOK_S = 0.001

P = ParamSpec("P")
T = TypeVar("T")


class Fetcher:
    """Fetches for all streams of a client. :meth:`run` must be running for anything to happen.

    ``hedge_share``: how many bytes may be asked for twice, of those that were delivered (and 4 MiB more).
    ``early_bytes``: how much is kept of what came before it was wanted, and ``hold_s``: how long a CAR that brings more of
    it is held open. ``requests_per_minute``: what each of the gateways allows, where that is known.
    """

    def __init__(
        self,
        transports: Sequence[Transport],
        *,
        executor: Executor,
        clock: Callable[[], float],
        thread_clock: Callable[[], float] = time.thread_time,
        dice: Callable[[], float] = random.random,
        attempts: int,
        patience_s: float,
        busy_patience_s: float,
        requests_per_gateway: int,
        in_flight_bytes: int,
        hedge_share: float,
        early_bytes: int,
        hold_s: float,
        requests_per_minute: Sequence[float | None] = (),
    ) -> None:
        """Over these gateways."""
        self._hedges = HedgeBudget(hedge_share)
        self._transports = tuple(transports)
        self._executor = executor
        self.clock = clock
        self._thread_clock = thread_clock
        self._patience = Patience(attempts=attempts, seconds=patience_s, busy_seconds=busy_patience_s)
        self._told_busy: dict[int, float] = {}
        self._board = Scoreboard(
            len(self._transports),
            max_requests=requests_per_gateway,
            max_bytes=in_flight_bytes,
            jitter=dice,
            requests_per_minute=requests_per_minute,
            can_car=[transport.has_cars for transport in self._transports],
        )
        self._requesters = [self._requester(i) for i in range(len(self._transports))]
        self._probes = Probes()
        self._pending = Pending()
        self._delivery = Delivery(self._pending, in_worker=self.in_worker, settle=self._settle)
        self._requests: dict[Request, None] = {}  # in order: what is done to each must not depend on chance
        self._received = [0] * len(self._transports)
        self._holding: set[Request] = set()
        self._wake = asyncio.Event()
        self._looked_at = float("-inf")
        self._expected = 0
        self._search_causes: dict[str, GatewayError] = {}
        #: Gateways whose rate or latency is not known yet, by number.
        self._unmeasured = set(range(len(self._transports)))
        #: Notified when both have become known of one more gateway.
        self.measured = Condition()
        self.readahead = Readahead(early_bytes)
        self.hold_s = hold_s
        self.observers = Observers()

    def __repr__(self) -> str:
        return f"<Fetcher over {len(self._transports)} gateways, {len(self._pending)} blocks wanted>"

    def statistics(self) -> tuple[GatewayStatistics, ...]:
        """A line for each gateway."""
        return tuple(
            GatewayStatistics(
                url=transport.name,
                blocks=score.blocks,
                bytes=score.bytes,
                rejected=score.rejected,
                failures=score.failures,
                in_flight=score.in_flight,
                rate=score.rate,
                latency_s=score.latency_s,
                jitter_s=score.jitter_s,
                received_bytes=received,
            )
            # Not strict: this is also called from another thread, perhaps while a gateway is being added.
            for transport, score, received in zip(
                self._transports, self._board.scores, self._received_bytes(), strict=False
            )
        )

    def _received_bytes(self) -> list[int]:
        received = list(self._received)
        for request in tuple(self._requests):
            received[request.gateway] += request.received_bytes
        return received

    @property
    def hedged_bytes(self) -> int:
        """How many bytes were asked for twice."""
        return self._hedges.spent_bytes

    def add(self, transport: Transport, requests_per_minute: float | None = None) -> None:
        """One more gateway, also for what is wanted already; ``requests_per_minute`` is what it allows, if known."""
        self._board.add(requests_per_minute, can_car=transport.has_cars)
        self._unmeasured.add(len(self._transports))
        self._transports = (*self._transports, transport)
        self._requesters.append(self._requester(len(self._requesters)))
        self._received.append(0)
        self._probes.joined(self._requesters[-1])
        for want in self._pending:
            want.is_hopeful = True
        self._wake.set()

    def _requester(self, gateway: int) -> Requester:
        board = self._board
        return Requester(gateway, self._transports[gateway], board.scores[gateway], board.capabilities[gateway], self)

    def expect(self) -> None:
        """Gateways may be added soon: until :meth:`expect_no_more`, a block that all have failed for waits for them."""
        self._expected += 1

    def expect_no_more(self, causes: Iterable[GatewayError] = ()) -> None:
        """Undo one :meth:`expect`. ``causes`` say why nobody came; they go with the error of a block that nobody serves."""
        self._expected -= 1
        for cause in causes:
            self.explain(cause)
        self._give_up_hopeless()
        self._wake.set()

    def explain(self, cause: GatewayError) -> None:
        """Have this go with the error of a block that nobody serves: who else might have had it, and why it was not asked."""
        self._search_causes[cause.gateway] = cause

    def _give_up_hopeless(self) -> None:
        for want in self._pending.waiting() if not self._expected else ():
            if not want.is_hopeful or not self._transports:
                self._settle(want, want.unavailable(self.clock(), self._search_causes.values()))

    def open(self, root: Cid | None = None) -> FetchGroup:
        """A group of wanted blocks that are given up together; beneath ``root``, of which gateways are asked if they hold it."""
        group = FetchGroup(self)
        if root is not None:
            self._probes.opened(root, self._requesters)
        return group

    def left(self, group: FetchGroup) -> None:
        """A group was closed (called by it)."""
        self.readahead.leave(group)
        for request in self._requests:
            request.leave(group)

    async def run(self) -> None:
        """Send requests until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._look()
                self._wake.clear()
                now = self.clock()
                self._dispatch(tasks, now)
                await self._until(self._board.next_change(now), now)

    def _look(self) -> None:
        """Count what has come and was not read yet: it may make room for what is to be asked for, and shows who is not silent."""
        if self._pending.first is not None or len(self._transports) > 1:
            for request in tuple(self._requests):
                request.look()

    async def _until(self, change: float | None, now: float) -> None:
        """Wait until something happens, or the time of a change has come: a timer is enough, nothing need be cancelled."""
        timer = None
        if change is not None:
            timer = asyncio.get_running_loop().call_later(max(0.001, change - now), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def submit(self, want: BlockWant) -> None:
        """Take a wanted block into the order (called by a group)."""
        self._pending.enter(want)
        self._queue(want)

    def drop(self, wants: Sequence[BlockWant]) -> None:
        """Give up on wanted blocks; each is told when no worker touches it any more (called by a group)."""
        for want in wants:
            self._settle(want, StreamClosedError("the stream was closed"))
        if wants:
            self._pending.drop_settled()

    async def in_worker(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking code in a worker thread; when cancelled, wait for it, because it may hold a file."""
        loop = asyncio.get_running_loop()
        given, result = [partial(function, *args, **kwargs)], list[T]()

        def run() -> None:  # a thread holds what it was given, and what it returns, until it goes on, whenever that is…
            result.append(given.pop()())  # …which may not be a batch's rows

        running = loop.run_in_executor(self._executor, run)
        with anyio.CancelScope(shield=True):
            await running
        return result.pop()

    def keep(self, request: Request, block: Block) -> None:
        """A block came that nobody wanted when it did (called by a request)."""
        if not self._pending.of(block.cid.multihash):
            self.readahead.put(block, request.groups)
        else:  # somebody came for it meanwhile
            self._delivery.put(block)
            self._wake.set()

    def _queue(self, want: BlockWant) -> None:
        multihash = want.cid.multihash
        block = self.readahead.pop(multihash)
        if block is None:
            want.passed = {request for request in self._requests if request.has_brought(multihash)}
            self._pending.enqueue(want)
        else:
            self._delivery.put(block)
        self._wake.set()

    # Sending.

    def _dispatch(self, tasks: TaskGroup, now: float) -> None:
        self._delivery.begin(tasks)
        if not self._transports:
            self._give_up_hopeless()
        if len(self._transports) > 1:
            delivered = sum(score.bytes for score in self._board.scores)
            for late, gateway in self._board.hedges(now, self._hedges.left(delivered)):
                self._hedges.spend(late.size_bytes)
                self._send(tasks, Span([late], gateway), now)
        first = self._pending.first
        spans: Sequence[Span] = ()
        if first is not None and (first.settled or self._board.may_assign(first.size_bytes, now)):
            spans = self._board.assign(self._pending.head(self._delivery.under_way), now)
            self._pending.asked({want for span in spans for want in span.wants})
        for span in spans:
            self._send(tasks, span, now)
        if self._requests or spans:  # never before the first useful request
            self._probes.send(tasks, now)

    def _send(self, tasks: TaskGroup, span: Span, now: float) -> None:
        wants = [want for want in span.wants if isinstance(want, BlockWant)]
        self._board.sent(span, now)
        request = span.joins
        if isinstance(request, Request):
            for want in wants:
                request.join(want)
            self.readahead.look_again()
        else:
            is_hedge = bool(wants[0].requests)
            request = Request(span.gateway, wants, span.car, now, is_hedge=is_hedge)
            name = self._transports[span.gateway].name
            self.observers.tell(
                RequestSent(
                    gateway=name,
                    asked=request.asked,
                    blocks=len(wants),
                    size_bytes=span.size_bytes,
                    hedge=is_hedge,
                    at=now,
                )
            )
            self._requests[request] = None
            if span.car is not None:
                self._board.scores[span.gateway].opened_car(request, span.car)
            tasks.start_soon(self._send_and_count, request)
        for want in wants:
            want.requests[span.gateway] = request
            want.sent_at = now if want.sent_at is None else want.sent_at

    async def _send_and_count(self, request: Request) -> None:
        try:
            await self._requesters[request.gateway].perform(request)
        finally:
            request.look()  # what came and was not read, because it was given up
            self._requests.pop(request, None)
            self._received[request.gateway] += request.received_bytes
            self.observers.tell(request.ended(self._transports[request.gateway].name, self.clock()))
            self._wake.set()

    # What requests tell.

    def progressed(self, gateway: int) -> None:
        """Some bytes came: there may be room to ask for more."""
        self._tell_measured(gateway)
        first, now = self._pending.first, self.clock()
        if first is None or self._wake.is_set() or now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        if self._board.scores[gateway].has_room(first.size_bytes, now):
            self._wake.set()

    def _tell_measured(self, gateway: int) -> None:
        if gateway in self._unmeasured:
            score = self._board.scores[gateway]
            if score.rate is not None and score.latency_s is not None:
                self._unmeasured.remove(gateway)
                self.measured.notify_all()

    def holds(self, request: Request, *, holding: bool) -> None:
        """A request waits, or no longer waits, until what it brought is wanted."""
        (self._holding.add if holding else self._holding.discard)(request)
        self._board.holds_ahead = set().union(*(each.groups for each in self._holding))
        self._wake.set()

    async def land(self, request: Request, make: Callable[[], Sequence[Block]]) -> list[tuple[Block, bool]]:
        """Make verified blocks in a worker thread and hand them to whoever wants them; says of each whether anybody did."""
        thread_clock, pending, received_at = self._thread_clock, self._pending, self.clock()

        def work() -> tuple[list[tuple[Block, list[tuple[BlockWant, Accepted | None]]]], float]:
            began, blocks = thread_clock(), make()
            return [(b, [(w, w.offer(b)) for w in pending.of(b.cid.multihash)]) for b in blocks], thread_clock() - began

        landed, worked_s = await self.in_worker(work)
        score, now = self._board.scores[request.gateway], self.clock()
        for block, taken in landed:
            size = len(block.data)
            score.verified(size, is_wanted=bool(taken))
            name, seconds = self._transports[request.gateway].name, now - request.began
            cid = str(taken[0][0].cid if taken else block.cid)
            self.observers.tell(BlockReceived(gateway=name, cid=cid, size_bytes=size, seconds=seconds))
            if not request.brought(block.cid.multihash):
                score.closed_car(request)
            taken.extend(self._came_late(block, [want for want, _ in taken]))
            for want, result in taken:
                want.received_at, want.worked_s = received_at, worked_s
                if want in request.wants:
                    score.delivered(want, size, now)
                    request.wants.pop(want)
                    want.requests.pop(request.gateway, None)
                if request.advance(want):
                    score.advanced_car(request, request.position)
                if result is not None:  # else whoever takes it settles it
                    self._settle(want, result.error)
                want.tell()
        self._tell_measured(request.gateway)
        self._wake.set()
        return [(block, bool(taken)) for block, taken in landed]

    def _came_late(self, block: Block, seen: Sequence[BlockWant]) -> list[tuple[BlockWant, Accepted | None]]:
        """Hand a block to those who want it since a worker looked who does: it may be from this request that they expect it."""
        late = [want for want in self._pending.of(block.cid.multihash) if want not in seen]
        if late:
            self._delivery.put(block)
        return [(want, None) for want in late]

    def failed(self, want: BlockWant, gateway: int, error: GatewayError) -> None:
        """The gateway could not bring this block."""
        if not want.settled:
            self._note(want, gateway, error)
        self._leave(want, gateway)

    def give_back(self, want: BlockWant, gateway: int) -> None:
        """The gateway will not bring this block, and is not to blame."""
        self._leave(want, gateway)

    def _leave(self, want: BlockWant, gateway: int) -> None:
        """A request for the block has ended without it: leave it to its other request, or ask again."""
        want.requests.pop(gateway, None)
        want.asked.discard(gateway)
        self._wake.set()
        if want.settled or want.requests:
            return
        if want.is_hopeful or self._expected:
            self._queue(want)
        else:
            self._settle(want, want.unavailable(self.clock(), self._search_causes.values()))

    def _settle(self, want: BlockWant, outcome: Exception | None) -> None:
        """Decide how it ended, and let go of the other requests for it."""
        if not want.settle(outcome):
            return
        if self._pending.leave(want):  # others may have relied on this one to be asked for
            self._wake.set()
        requests, want.requests = want.requests, {}
        for gateway, request in requests.items():
            score = self._board.scores[gateway]
            if outcome is None:
                score.beaten(want, self.clock())
            else:
                score.missed(want)
            request.release(want)
        want.asked.clear()
        want.tell()

    def tell_failure(self, error: GatewayError, cid: str) -> None:
        """Tell observers of a failure that costs no block."""
        mismatch = isinstance(error, GatewayMismatchError)
        self.observers.tell(RequestFailed(gateway=error.gateway, cid=cid, reason=str(error), mismatch=mismatch))

    def _note(self, want: BlockWant, gateway: int, error: GatewayError) -> None:
        self.tell_failure(error, str(want.cid))
        has_delivered, gateways, now = bool(self._board.scores[gateway].blocks), len(self._transports), self.clock()
        want.fault(gateway, error, now, patience=self._patience, has_delivered=has_delivered, gateways=gateways)

    def busy(self, gateway: int, pause_s: float) -> None:
        """Say, once a pause, that a gateway asked for it, and whether anybody else can be asked meanwhile."""
        now = self.clock()
        if pause_s < _TOLD_PAUSE_S or now < self._told_busy.get(gateway, now):
            return
        self._told_busy[gateway] = now + pause_s
        others = any(score.paused_until <= now for i, score in enumerate(self._board.scores) if i != gateway)
        meanwhile = "others are asked meanwhile" if others else "nobody else can be asked meanwhile"
        logger.warning("%s asked us to come back in %.0f s; %s", self._transports[gateway].name, pause_s, meanwhile)
