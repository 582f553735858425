"""The fetcher: fetches wanted blocks from several gateways at once, and verifies them.

The scoreboard chooses a gateway for each block, one dispatcher sends the requests, and each request has a task that reads the
answer. Blocks are verified and delivered in worker threads. If a gateway fails for a block, the block is requested from another;
when all gateways have failed for it, the stream gets an error that holds the reason of each. A block that arrives is delivered
to all wants for it, whichever of them caused the request; a block without a want is kept for a while.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import ParamSpec, TypeVar

import anyio
from anyio.abc import TaskGroup

from dnc_async.condition import Condition
from dnc_async.errors import GatewayError, StreamClosedError
from dnc_async.gateways.delivery import Arrival, BlockDelivery, Offers, Verdict
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.pauses import PauseWarnings, SilenceWarnings
from dnc_async.gateways.pending import Pending
from dnc_async.gateways.probes import Probes
from dnc_async.gateways.readahead import Readahead
from dnc_async.gateways.request import Request
from dnc_async.gateways.request_log import RequestLog
from dnc_async.gateways.requester import Probed, Requester
from dnc_async.gateways.retries import HedgeBudget, Patience
from dnc_async.gateways.score import Score
from dnc_async.gateways.scoreboard import Scoreboard, Span
from dnc_async.gateways.settling import Settling
from dnc_async.gateways.transport import Transport
from dnc_async.gateways.want import BlockWant, Want
from dnc_async.gateways.workers import run_in_worker
from dnc_async.ipld.block import Block
from dnc_async.ipld.cid import Cid
from dnc_async.telemetry import GatewayStatistics, Observers

#: Received bytes wake the dispatcher at most once in this time.
_DISPATCH_INTERVAL_S = 0.001
#: How often silent gateways are looked for.
_SILENCE_LOOK_S = 1.0

P = ParamSpec("P")
T = TypeVar("T")


class Fetcher:
    """Fetches blocks for all streams of a client, while :meth:`run` is running.

    ``hedge_share``: how many bytes may be requested twice, as a share of the delivered bytes (plus 4 MiB). ``early_bytes``: how
    many bytes of read-ahead blocks are kept, and ``hold_s``: for how many seconds a CAR request stops reading once that limit is
    reached. ``requests_per_minute``: each gateway's limit, where it is known.
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
        """``transports`` are the gateways; :meth:`add` adds more later."""
        self._hedges = HedgeBudget(hedge_share)
        self._transports = list(transports)
        self._executor = executor
        self.clock = clock
        self._pause_warnings, self._silence_warnings = PauseWarnings(), SilenceWarnings()
        self._looks_at, self._silent_at = float("-inf"), float("inf")
        self._board = Scoreboard(
            len(self._transports),
            max_requests=requests_per_gateway,
            max_bytes=in_flight_bytes,
            jitter=dice,
            requests_per_minute=requests_per_minute,
            can_car=[transport.has_cars for transport in self._transports],
        )
        self._log = RequestLog(clock=clock)
        for transport in self._transports:
            self._log.add_gateway(transport)
        self._requesters = [self._requester(i) for i in range(len(self._transports))]
        self._probes = Probes(self)
        self._pending = Pending()
        self._wake = asyncio.Event()
        self._settling = Settling(
            transports=self._transports,
            pending=self._pending,
            board=self._board,
            log=self._log,
            hedges=self._hedges,
            patience=Patience(attempts=attempts, seconds=patience_s, busy_seconds=busy_patience_s),
            clock=clock,
            enqueue=self._enqueue,
            wake=self._wake.set,
        )
        self._delivery = BlockDelivery(
            self._pending,
            in_worker=self.in_worker,
            thread_clock=thread_clock,
            conclude=self._conclude,
            settle=self._settling.settle,
        )
        self._requests: dict[Request, None] = {}  # in order: what is done to each must not depend on chance
        self._paused: set[Request] = set()
        self._woken_at = float("-inf")
        #: The gateways whose rate or latency is not known yet, by number.
        self._unmeasured = set(range(len(self._transports)))
        #: Notified when both have become known of another gateway.
        self.measured = Condition()
        self.readahead = Readahead(early_bytes)
        self.hold_s = hold_s

    def __repr__(self) -> str:
        return f"<Fetcher over {len(self._transports)} gateways, {len(self._pending)} blocks wanted>"

    def statistics(self) -> tuple[GatewayStatistics, ...]:
        """The statistics of each gateway."""
        return self._log.statistics(self._board.scores, tuple(self._requests))

    @property
    def observers(self) -> Observers:
        """The observers of all requests."""
        return self._log.observers

    @property
    def scores(self) -> Sequence[Score]:
        """What was measured of each gateway."""
        return self._board.scores

    @property
    def hedged_bytes(self) -> int:
        """How many bytes were requested twice."""
        return self._hedges.spent_bytes

    def add(self, transport: Transport, requests_per_minute: float | None = None) -> None:
        """Add a gateway, also for blocks that are wanted already; ``requests_per_minute`` is its limit, if known."""
        self._board.add(requests_per_minute, can_car=transport.has_cars)
        self._unmeasured.add(len(self._transports))
        self._transports.append(transport)
        self._requesters.append(self._requester(len(self._requesters)))
        self._log.add_gateway(transport)
        self._probes.add_gateway(self._requesters[-1])
        for want in self._pending:
            want.is_hopeful = True
        self._wake.set()

    def _requester(self, gateway: int) -> Requester:
        board = self._board
        return Requester(gateway, self._transports[gateway], board.scores[gateway], board.capabilities[gateway], self)

    def search_started(self) -> None:
        """A search for gateways began: until :meth:`search_ended`, a block for which all gateways failed waits for new ones."""
        self._settling.search_started()

    def search_ended(self, causes: Iterable[GatewayError] = ()) -> None:
        """A search for gateways ended. ``causes`` say why it found none, for the error of a block that no gateway serves."""
        self._settling.search_ended(causes)

    def add_search_cause(self, cause: GatewayError) -> None:
        """Add a cause to the error of a block that no gateway serves: which other source there was, and why it was not used."""
        self._settling.add_search_cause(cause)

    def probed(self, gateway: int, answer: Probed) -> None:
        """A gateway answered a probe: request blocks again that it did not find because it was not told their root."""
        for want in self._pending if answer.lacks_root else ():
            want.forgive_miss(gateway)
        if answer.pause_s:
            self._report_pause(gateway, answer.pause_s)

    def open(self, root: Cid | None = None) -> FetchGroup:
        """Open a group of wants that can be withdrawn together. Gateways are asked whether they hold ``root`` themselves."""
        group = FetchGroup(self)
        if root is not None:
            self._probes.add_root(root, self._requesters)
        return group

    def group_closed(self, group: FetchGroup) -> None:
        """Drop what was kept or is still being received for this group alone (called by the group)."""
        self.readahead.remove_group(group)
        for request in self._requests:
            request.remove_group(group)

    async def run(self) -> None:
        """Send requests until cancelled."""
        try:
            async with anyio.create_task_group() as tasks:
                while True:
                    self._count_unread()
                    self._wake.clear()
                    now = self.clock()
                    self._dispatch(tasks, now)
                    # After the next requests were sent, because it takes a moment.
                    self._delivery.verify_arrived(tasks, now, expects_more=self._expects_more())
                    await self._wait(self._next_look(now), now)
        finally:
            for arrival in self._delivery.clear():
                self._ended(arrival.request)

    def _next_look(self, now: float) -> float:
        """When there may be something to do, if nothing happens before; warns of gateways that are silent now."""
        if now >= self._looks_at:  # not at each turn, because it takes a while
            names = [transport.name for transport in self._transports]
            self._silent_at = self._silence_warnings.look(now, names, self._board.scores)
            self._looks_at = min(self._silent_at, now + _SILENCE_LOOK_S)
        return min(self._board.next_change(now), self._delivery.due_at, self._silent_at)

    def _expects_more(self) -> bool:
        """Whether the bodies of other requests are on their way."""
        return len(self._requests) > self._delivery.unverified

    def _count_unread(self) -> None:
        """Count bytes that arrived and were not read yet: they may free window space, and show which requests are not late."""
        if self._pending.first is not None or len(self._transports) > 1:
            for request in tuple(self._requests):
                request.count_unread()

    async def _wait(self, until: float, now: float) -> None:
        """Wait to be woken, or for the time ``until``. A timer is enough for that, because nothing need be cancelled."""
        timer = None
        if until < math.inf:
            timer = asyncio.get_running_loop().call_later(max(0.001, until - now), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            if timer is not None:
                timer.cancel()

    def submit(self, want: BlockWant) -> None:
        """Start to fetch a block (called by a group)."""
        self._pending.add(want)
        self._enqueue(want)

    def hurry(self) -> None:
        """Verify what has arrived without waiting for more, because its place in memory is free now (called by a group)."""
        self._delivery.hurry()
        self._wake.set()

    def withdraw(self, wants: Sequence[BlockWant]) -> None:
        """Stop fetching blocks (called by a group). Each want's ``done`` is called when no worker thread uses it any more."""
        for want in wants:
            self._settling.settle(want, StreamClosedError("the stream was closed"))
        if wants:
            self._pending.dequeue_settled()

    async def in_worker(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a blocking function in a worker thread. A cancelled caller waits for it to end, because it may use a file."""
        return await run_in_worker(self._executor, function, *args, **kwargs)

    def _enqueue(self, want: BlockWant) -> None:
        """Deliver the block if it was read ahead, else put the want into the queue."""
        multihash = want.cid.multihash
        block = self.readahead.pop(multihash)
        if block is None:
            want.sent_by = {request for request in self._requests if request.has_received(multihash)}
            self._pending.enqueue(want)
        else:
            self._delivery.add(block)
        self._wake.set()

    # Sending requests.

    def _dispatch(self, tasks: TaskGroup, now: float) -> None:
        self._delivery.deliver_added(tasks)
        if not self._transports:
            self._settling.give_up_hopeless()
        if len(self._transports) > 1:
            for late, gateway in self._board.hedges(now, self._may_hedge):
                self._send(tasks, Span([late], gateway), now)
        first = self._pending.first
        spans: Sequence[Span] = ()
        if first is not None and (first.settled or self._board.may_assign(first.size_bytes, now)):
            self._board.may_read_ahead = not self.readahead.is_full
            spans = self._board.assign(self._pending.candidates(self._delivery.in_progress), now)
            self._pending.dequeue({want for span in spans for want in span.wants})
        for span in spans:
            self._send(tasks, span, now)
        if self._requests or spans:  # never before the first request for a wanted block
            self._probes.send_due(tasks, now)

    def _may_hedge(self, want: Want) -> bool:
        """Whether a late block may be requested once more: always if it is urgent, or nothing else is left to request."""
        delivered = sum(score.bytes for score in self._board.scores)
        is_urgent = self._pending.first is None or (isinstance(want, BlockWant) and want.is_urgent())
        return self._hedges.spend(want.size_bytes, want.asked, delivered, is_urgent=is_urgent)

    def _send(self, tasks: TaskGroup, span: Span, now: float) -> None:
        wants = [want for want in span.wants if isinstance(want, BlockWant)]
        self._board.sent(span, now)
        request = span.joins
        if isinstance(request, Request):
            for want in wants:
                request.add(want)
            self.readahead.recheck()
        else:
            request = Request(span.gateway, wants, span.car, now, is_hedge=bool(wants[0].requests))
            self._log.sent(request, span.size_bytes)
            self._requests[request] = None
            if span.car is not None:
                self._board.scores[span.gateway].opened_car(request, span.car)
            tasks.start_soon(self._execute, request)
        for want in wants:
            want.requests[span.gateway] = request
            want.sent_at = now if want.sent_at is None else want.sent_at

    async def _execute(self, request: Request) -> None:
        want, body = next(iter(request.wants), None), None
        try:
            body = await self._requesters[request.gateway].execute(request)
        finally:
            if body is None or want is None:
                self._ended(request)
            else:
                self._delivery.add_body(Arrival(request, want, body, self.clock()))
            self._wake.set()

    def _conclude(self, arrival: Arrival, verdict: Verdict) -> None:
        """A raw block was verified, or its body is something else: the request has ended."""
        request, want, body, received_at = arrival
        if verdict.block is not None:
            if not isinstance(body, tuple):  # it was read when it was verified
                request.count_received(verdict.block.size_bytes, self.clock())
            self._delivered(request, verdict, verdict.block, received_at)
        elif verdict.error is not None:
            self._requesters[request.gateway].reject(request, want, verdict.error)
        self._ended(request)
        if callable(body):  # only now is its space free
            self._wake.set()

    def _ended(self, request: Request) -> None:
        """A request brings nothing more: have what is missing requested from another gateway, or given up."""
        gateway = request.gateway
        for want, error in request.failures:
            self._settling.failed(request, want, error)
        self._requesters[gateway].end(request)
        for want in list(request.wants):
            self._settling.not_sent(want, gateway)
        if request.pause_s:
            self._report_pause(gateway, request.pause_s)
        self._requests.pop(request, None)
        self._log.ended(request)

    # RequestEvents: what open requests tell the fetcher.

    def bytes_received(self, gateway: int) -> None:
        """Wake the dispatcher if the gateway's window now has space for the first want in the queue."""
        self._notify_if_measured(gateway)
        first, now = self._pending.first, self.clock()
        if first is None or self._wake.is_set() or now - self._woken_at < _DISPATCH_INTERVAL_S:
            return
        self._woken_at = now
        if self._board.scores[gateway].has_window(first.size_bytes, now):
            self._wake.set()

    def _notify_if_measured(self, gateway: int) -> None:
        if gateway in self._unmeasured:
            score = self._board.scores[gateway]
            if score.rate is not None and score.latency_s is not None:
                self._unmeasured.remove(gateway)
                self.measured.notify_all()

    def set_paused(self, request: Request, *, paused: bool) -> None:
        """Note that a request stops reading, or reads on, because what it brought is not wanted yet."""
        (self._paused.add if paused else self._paused.discard)(request)
        self._board.paused_groups = set().union(*(each.groups for each in self._paused))
        self._wake.set()

    def keep_for_later(self, request: Request, block: Block) -> None:
        """Keep a verified block that no stream has requested yet."""
        if not self._pending.wants_for(block.cid.multihash):
            self.readahead.put(block, request.groups)
        else:  # a stream has requested it meanwhile
            self._delivery.add(block)
            self._wake.set()

    async def deliver(
        self, request: Request, make: Callable[[], Sequence[Block]], size_bytes: int
    ) -> list[tuple[Block, bool]]:
        """Call ``make`` for the verified blocks of ``size_bytes``, and deliver them; returns for each whether it was wanted."""
        received_at, found = self.clock(), list[tuple[Block, bool]]()
        for verdict in await self._delivery.verify_all(request, make, size_bytes):
            if verdict.block is not None:
                is_wanted = self._delivered(request, verdict, verdict.block, received_at)
                found.append((verdict.block, is_wanted))
        self._wake.set()
        return found

    def _delivered(self, request: Request, verdict: Verdict, block: Block, received_at: float) -> bool:
        """A verified block was offered to all who wanted it: record that, and settle them. Returns whether anybody did."""
        now, offers = self.clock(), verdict.offers
        self._record_block(request, block, offers[0][0].cid if offers else block.cid, is_wanted=bool(offers))
        new = self._wants_since(block, offers)
        for want, result in (*offers, *((want, None) for want in new)):
            want.received_at, want.worked_s = received_at, verdict.worked_s
            self._record_answer(request, want, block.size_bytes, now)
            if result is not None:  # else another thread accepts the block, and its caller settles the want
                self._settling.settle(want, result.error)
            want.call_done()
        self._notify_if_measured(request.gateway)
        return bool(offers or new)

    def _record_block(self, request: Request, block: Block, cid: Cid, *, is_wanted: bool) -> None:
        """Count a block in favour of its gateway, and tell observers of it."""
        score = self._board.scores[request.gateway]
        score.verified(block.size_bytes, is_wanted=is_wanted)
        self._log.received(request, block, cid)
        if not request.record_received(block.cid.multihash):
            score.closed_car(request)

    def _record_answer(self, request: Request, want: BlockWant, size_bytes: int, now: float) -> None:
        """Note that a request brought a wanted block, and how far its CAR has come."""
        score = self._board.scores[request.gateway]
        if want in request.wants:
            score.delivered(want, size_bytes, now)
            request.wants.pop(want)
            want.requests.pop(request.gateway, None)
        if request.advance_past(want):
            score.advanced_car(request, request.position)

    def _wants_since(self, block: Block, offers: Offers) -> list[BlockWant]:
        """The wants that were added since a block was offered: it is delivered to them, too, as they may expect it from here."""
        wants = self._pending.wants_for(block.cid.multihash)
        seen = {want for want, _ in offers}
        late = [want for want in wants if want not in seen]
        if late:
            self._delivery.add(block)
            self._wake.set()
        return late

    def _report_pause(self, gateway: int, pause_s: float) -> None:
        """Warn, once a pause, that a gateway asked us to wait for ``pause_s`` seconds."""
        name = self._transports[gateway].name
        self._pause_warnings.warn(gateway, name, pause_s, self.clock(), self._board.scores)
