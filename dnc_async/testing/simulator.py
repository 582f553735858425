"""Runs the real scoreboard against scripted gateways on a virtual clock: a minute takes milliseconds. PURE.

The scoreboard chooses, hedges and says when it wants to be called again, as it does for the fetcher. The simulator sends what
it chose to :class:`~dnc_async.testing.scripted_line.ScriptedLine` and tells it what arrived and when, as real requests do: the
first correct body counts, the slower request is cancelled and charged if it was late, and failed blocks are queued again.
Everything is determined by the scripts, the workload and ``seed``. The same :class:`Faults` can be played for real by a
:class:`GatewayProcess`.

*Modelled:* rate, latency, jitter, flip, other, stall, cut, trickle, slow, silent, straggle, busy, retry-after, down, html,
no-car, cold, and requests per minute; runs of leaves as CARs; this machine's time for each request (``request_s``, one after
the other).

*Not modelled:* ``ignore-entity-bytes`` (refused); roots, proofs and CARs that bring more than was wanted; two wants for the
same block; connecting, TCP, a CAR's headers, hashing and writing, and a consumer that takes processor time.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from dnc_async.config import FetchSettings
from dnc_async.errors import ArgumentError
from dnc_async.gateways.dag_range import CarQuery
from dnc_async.gateways.retries import HedgeBudget, Patience
from dnc_async.gateways.scoreboard import Scoreboard, Span
from dnc_async.gateways.want import Want

from .consumer import ROOT, Consumer, Leaf, SimulatedRequest
from .faults import Faults
from .scripted_line import ScriptedLine, fluid_s
from .simulated_requests import SimulatedRequests
from .timeline import Event, GatewayReport, SimulationReport, Workload

_LOOK_AHEAD = 4096
_SHORTEST_SLEEP_S = 0.001


class BoardMaker(Protocol):
    """Creates the scoreboard to simulate: :class:`~dnc_async.gateways.scoreboard.Scoreboard` or a variant of it."""

    def __call__(
        self,
        gateways: int,
        *,
        max_requests: int,
        max_bytes: int,
        jitter: Callable[[], float],
        requests_per_minute: Sequence[float | None],
        can_car: Sequence[bool],
    ) -> Scoreboard:
        """See :class:`~dnc_async.gateways.scoreboard.Scoreboard`."""


@dataclass(slots=True)
class _Tally:
    """The counts of one run."""

    began: float
    requests: Counter[int] = field(default_factory=Counter)
    bytes: Counter[int] = field(default_factory=Counter)
    wire: Counter[int] = field(default_factory=Counter)
    peaks: Counter[int] = field(default_factory=Counter)
    peak_bytes: int = 0
    duplicates: int = 0
    events: list[Event] = field(default_factory=list)


class Simulator:
    """Gateways that serve one workload after the other; the clock and the scoreboard's measurements are kept between them."""

    def __init__(
        self,
        gateways: Sequence[Faults | str],
        *,
        requests_per_minute: Sequence[float | None] = (),
        settings: FetchSettings | None = None,
        seed: int = 0,
        request_s: float = 0.0005,
        piece_bytes: int = 2**16,
        limit_s: float = 86_400.0,
        board: BoardMaker = Scoreboard,
    ) -> None:
        """``request_s``: this machine's time for each request. ``piece_bytes``: the granularity of links; coarser is faster.

        ``limit_s``: a run that takes longer than this is stuck, and raises an error.
        """
        scripts = [Faults.parse(each) if isinstance(each, str) else each for each in gateways]
        self._settings = settings or FetchSettings()
        self._lines = [
            ScriptedLine(each, seed=f"{seed}/{i}", piece_bytes=piece_bytes) for i, each in enumerate(scripts)
        ]
        draws = random.Random(seed)  # noqa: S311 - replayable, not secret
        self.board = board(
            len(scripts),
            max_requests=self._settings.requests_per_gateway,
            max_bytes=self._settings.in_flight_bytes,
            jitter=draws.random,
            requests_per_minute=tuple(requests_per_minute) or (None,) * len(scripts),
            can_car=(True,) * len(scripts),
        )
        self.now = 0.0
        self._hedges = HedgeBudget(self._settings.hedge_share)
        self._patience = Patience(
            attempts=self._settings.attempts,
            seconds=self._settings.patience_s,
            busy_seconds=self._settings.busy_patience_s,
        )
        self._request_s, self._limit_s = request_s, limit_s
        self._free_at = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._pending: list[Leaf] = []
        self._open = SimulatedRequests(self.board, self._lines, self, stall_timeout_s=self._settings.stall_timeout_s)
        self._awake = False
        self._tally = _Tally(0.0)
        self._consumer = Consumer(Workload(), take=self._queue, at=self._call_back)
        for i, script in enumerate(scripts):
            if script.down is not None:
                self.at(script.down.start_s, partial(self._open.dies, i))
            if script.cold:  # the fetcher would have learned it while it fetched the proofs
                self.board.capabilities[i].add_missing_root(ROOT)

    def __repr__(self) -> str:
        return f"<Simulator of {len(self._lines)} gateways at {self.now:.3f} s>"

    def wait(self, seconds: float) -> None:
        """Let time pass in which nothing is wanted."""
        self.now += seconds

    def run(self, workload: Workload) -> SimulationReport:
        """Fetch a workload. Returns when every block arrived, or no gateway is left to try for those that did not."""
        self._tally = _Tally(self.now)
        hedged = self._hedges.spent_bytes
        self._consumer = Consumer(workload, take=self._queue, at=self._call_back)
        self._consumer.lease(self.now)
        self._awake = True
        while not self._consumer.is_done:
            if self._awake:
                self._awake = False
                self._dispatch()
            self._play_until(max(self.now + _SHORTEST_SLEEP_S, self.board.next_change(self.now)))
        return self._report(workload, self._hedges.spent_bytes - hedged)

    def _play_until(self, wakes: float) -> None:
        """Process events until one of them, or the scoreboard's own time, is a reason to decide again."""
        while not self._awake and not self._consumer.is_done:
            at = self._heap[0][0] if self._heap else math.inf
            if min(at, wakes) > self._tally.began + self._limit_s:
                raise ArgumentError(
                    f"the simulation goes on after {self._limit_s:g} s; give it less to do, or a higher limit_s"
                )
            if wakes < at:
                self.now, self._awake = max(self.now, wakes), True
                return
            at, _, happens = heapq.heappop(self._heap)
            self.now = max(self.now, at)
            happens()
            while self._heap and self._heap[0][0] <= self.now:
                heapq.heappop(self._heap)[2]()

    def _report(self, workload: Workload, hedged_bytes: int) -> SimulationReport:
        tally, consumer = self._tally, self._consumer
        gateways = tuple(
            GatewayReport(
                requests=tally.requests[i],
                bytes=tally.bytes[i],
                wire_bytes=tally.wire[i],
                peak_requests=tally.peaks[i],
                failures=score.failures,
                rejected=score.rejected,
            )
            for i, score in enumerate(self.board.scores)
        )
        times = (None if want.arrived_at is None else want.arrived_at - want.wanted_at for want in consumer.leaves)
        return SimulationReport(
            seconds=self.now - tally.began,
            size_bytes=workload.size_bytes,
            gateways=gateways,
            hedged_bytes=hedged_bytes,
            duplicates=tally.duplicates,
            peak_in_flight_bytes=tally.peak_bytes,
            arrivals_s=tuple(times),
            fluid_s=self._fluid_s(workload),
            waited_s=consumer.waited_s,
            events=tuple(tally.events),
        )

    def _fluid_s(self, workload: Workload) -> float:
        """The least possible time from the start of the scripts, so valid for the first workload only."""
        scripts, at_once = [line.faults for line in self._lines], self._settings.requests_per_gateway
        return fluid_s(scripts, workload.size_bytes, workload.leaf_bytes, at_once=at_once)

    def at(self, when: float, happens: Callable[[], None]) -> None:
        """Call a function at a time (called by requests)."""
        heapq.heappush(self._heap, (when, next(self._order), happens))

    def _call_back(self, when: float, happens: Callable[[float], None]) -> None:
        self.at(when, lambda: happens(self.now))

    def tell(self, what: str, gateway: int, *blocks: Leaf) -> None:
        """Add an entry to the timeline (called by requests)."""
        self._tally.events.append(Event(self.now, what, gateway, tuple(want.number for want in blocks)))

    # As the fetcher.

    def _queue(self, want: Leaf) -> None:
        bisect.insort(self._pending, want, key=lambda each: each.number)
        self._awake = True

    def _unqueue(self, want: Leaf) -> None:
        place = bisect.bisect_left(self._pending, want.number, key=lambda each: each.number)
        if place < len(self._pending) and self._pending[place] is want:
            del self._pending[place]

    def _dispatch(self) -> None:
        board = self.board
        if len(self._lines) > 1:
            for late, gateway in board.hedges(self.now, self._may_hedge):
                self._send(Span([late], gateway), "hedged")
        spans = board.assign(self._pending[:_LOOK_AHEAD], self.now)
        for span in spans:
            for want in span.wants:
                if isinstance(want, Leaf):
                    self._unqueue(want)
            self._send(span, "asked" if span.joins is None else "joined")
        in_flight = sum(score.in_flight_bytes for score in board.scores) if spans else 0
        self._tally.peak_bytes = max(self._tally.peak_bytes, in_flight)

    def _may_hedge(self, want: Want) -> bool:
        delivered = sum(score.bytes for score in self.board.scores)
        return self._hedges.spend(want.size_bytes, want.asked, delivered, is_urgent=not self._pending)

    def _send(self, span: Span, what: str) -> None:
        wants, i = [want for want in span.wants if isinstance(want, Leaf)], span.gateway
        self.board.sent(span, self.now)
        self.tell(what, i, *wants)
        request = span.joins
        if isinstance(request, SimulatedRequest):
            request.wants.update(dict.fromkeys(wants))
        else:
            blocks = wants if span.car is None else self._covered(span.car)
            request = SimulatedRequest(i, span.car, blocks, dict.fromkeys(wants))
            self._tally.requests[i] += 1
            self._tally.peaks[i] = max(self._tally.peaks[i], self.board.scores[i].in_flight)
            if span.car is not None:
                self.board.scores[i].opened_car(request, span.car)
            self._free_at = max(self._free_at, self.now) + self._request_s
            self.at(self._free_at, partial(self._open.reaches, request))
        for want in wants:
            want.requests[i] = request

    def wake(self) -> None:
        """Have the scoreboard decide again (called by requests)."""
        self._awake = True

    def came(self, gateway: int, size_bytes: int) -> None:
        """Count bytes on the wire (called by requests)."""
        self._tally.wire[gateway] += size_bytes

    def progressed(self, gateway: int) -> None:
        """Some bytes arrived: the window may have space for another request (called by requests)."""
        if self._pending and self.board.scores[gateway].has_window(self._pending[0].size_bytes, self.now):
            self._awake = True

    def _covered(self, ask: CarQuery) -> list[Leaf]:
        file = int(ask.path.rpartition("-")[2])
        return [leaf for leaf in self._consumer.files[file] if ask.covers(leaf.within[0], ask.start)]

    def land(self, request: SimulatedRequest, want: Leaf) -> None:
        """A correct block arrived (called by requests)."""
        score, i = self.board.scores[request.gateway], request.gateway
        score.verified(want.size_bytes)
        if want in request.wants:
            score.delivered(want, want.size_bytes, self.now)
            request.wants.pop(want)
            want.requests.pop(i, None)
        if request.car is not None:
            score.advanced_car(request, want.within[0].end)
        self._awake = True
        if want.arrived_at is not None:
            self._tally.duplicates += 1
            self.tell("duplicate", i, want)
            return
        self._tally.bytes[i] += want.size_bytes
        self.tell("arrived", i, want)
        want.arrived_at = self.now
        self._unqueue(want)
        requests, want.requests = want.requests, {}
        for other, loser in requests.items():
            self.board.scores[other].beaten(want, self.now)
            self.tell("beaten", other, want)
            loser.wants.pop(want, None)
            if not loser.wants:
                self._open.end(loser)
        want.asked.clear()
        self._consumer.settled(want, self.now)

    def failed(self, request: SimulatedRequest, want: Leaf, *, is_wrong: bool = False, is_final: bool = False) -> None:
        """A gateway failed to send a block (called by requests)."""
        i = request.gateway
        request.wants.pop(want, None)
        self.board.scores[i].missed(want)
        self.tell("wrong" if is_wrong else "failed", i, want)
        if want.arrived_at is None:
            want.failures.record(
                want,
                i,
                self.now,
                gateways=len(self._lines),
                patience=self._patience,
                has_delivered=bool(self.board.scores[i].blocks),
                is_wrong=is_wrong,
                is_final=is_final,
            )
            want.is_hopeless = len(want.failures.hopeless) == len(self._lines)
        self.leave(want, i)

    def leave(self, want: Leaf, gateway: int) -> None:
        """A request for the block ended without it: unless another is open, queue it again (called by requests)."""
        want.requests.pop(gateway, None)
        want.asked.discard(gateway)
        self._awake = True
        if want.arrived_at is not None or want.requests:
            return
        if want.is_hopeless:
            self._consumer.settled(want, self.now)
        else:
            self._queue(want)
