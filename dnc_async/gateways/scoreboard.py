"""Which gateway gets which block. PURE: synchronous decisions on a clock that is passed in.

The policy, and where it comes from:

*Earliest arrival.* A gateway is modelled as a latency and a rate behind one queue, so a block of ``z`` bytes that is asked
for now arrives at ``max(free, now + latency) + z / rate``, ``free`` being when all that it was asked for before has
arrived. Each pending block, most urgent first, belongs to the gateway where it arrives first: list scheduling on
unrelated machines (Graham 1969; MCT in Maheswaran et al. 1999), which fills every gateway in proportion to its rate, and
gives a slow one a block further back whenever a fast one would still deliver the urgent ones sooner.

*A window.* Nothing is sent that only waits in the gateway's queue: a gateway has at most its bandwidth-delay product in
request, with a quarter and two blocks to spare (as BBR paces, Cardwell et al. 2016). Its delay is the latency and twice what it
varies by. The rest stays here, where it can go
to whoever turns out to be faster. The window counts bytes that are still to come, and the next block is asked for as soon
as enough have: blocks that share a line end together, and who waited for an end would leave it idle for a round trip.

*Pacing.* Within the window a block is asked for when its answer can begin as the line becomes free: a latency before, and so much
earlier as latencies differ there and a millisecond, so that the line is not idle when one is late. What is asked for sooner
shares the line, and an urgent block comes no sooner than the patient ones behind it: what that costs shows where the budget is
small (``python -m bench budget --only budgets --loads 0.9 --budgets 1.5``).

*Rates from busy time.* A gateway's rate is bytes over the time in which it had something to send: from the later of its
last bytes and the request plus the latency. Bytes are counted as they come, on all connections together: blocks that share
a gateway's line end together, and counted by the block the first would look slow and the others infinitely fast (measured:
40 MB/s taken for 680). Sums decay. Latency follows its minimum quickly and rises slowly, because queueing is not latency.

*Optimism.* What is not known of a gateway is taken to be as good as the best known one, so that each is tried as soon as
there is more than one block to ask for, but a lone urgent one goes to a gateway that has proved itself. One that was not
asked for a while, because it was slow when it was, is asked again for the least urgent block in sight: otherwise an
estimate that no longer holds would never be corrected (optimism in the face of uncertainty, Lai and Robbins 1985). It is expected
to be as good as the best one, and hedged like it.

*Hedges.* A request that has brought no byte for several times what its gateway needs, by its latency and by how much that varies
(as TCP waits, RFC 6298), is asked of the best other gateway as well, and the first of the two bodies counts (Dean and Barroso,
The Tail at Scale, 2013). It counts as a failure only where nothing else has come meanwhile. Silence is what tells: a line that
several blocks share brings some of each all the time, so a merely full gateway is not hedged; one that brings its bytes
at a trickle is, far beyond the time that its answer was to take. The extra bytes are a stated share of what was delivered.

*Spans.* A request has its price: a round trip, processor time of both machines, or one of the few that a minute allows. Where
many small blocks would be needed to fill a window, or a gateway sends a block in hardly more time than the request takes, blocks
that follow each other in a file are asked for together, as one CAR: four or more, of an eighth of the window or of 10 ms, and
never more than half of a gateway's share of what is pending, so that there are still several requests to balance. Where
requests are scarce it is a second's worth of the rate, and with what a file begins all of it, or of its small directory. Larger
blocks go one by one: they can be had from anybody, cannot be truncated unseen, and go back one by one when something fails.
What an open CAR will bring is not asked for again.

*Requests per minute.* Where a gateway allows so many and no more, they are spread over the minute, ten at once at most; a block
whose turn there comes later than it would arrive from another gateway goes to the other.

*Pauses.* A failure pauses a gateway for a time that doubles with each failure in a row; a wrong block does so with every
wrong block, and a run of good ones takes one back. A gateway whose oldest request is long overdue is suspect: it gets
nothing more until it delivers, as long as anybody else is there.

What each is worth, beside the simpler one: ``python -m bench policy`` simulates 96 seeded scenarios of 12 kinds and reproduces
these figures. Time over that of the fluid bound: median 1.07, 95th percentile 1.69. Time without, over time with, run by run:

- round robin instead of the earliest arrival: median 1.00, 95th percentile 5.62; 8.50 where one gateway trickles.
- four requests instead of a window: 1.03, 4.29; 1.77 where one gateway lies; 0.93 where one trickles.
- no pacing: 1.00, 1.12: it costs no throughput, and is there for what is urgent.
- latency alone, not how much it varies: 1.00, 2.17; 1.88 under jitter of up to 200 ms.
- no optimism (an unknown gateway is a slow one): 1.00, 19.5; 17.4 where one trickles.
- no hedges: 1.00, 24.4; 19.1 where one trickles.
- no suspicion: 1.00, 1.00; without hedges either, 29.1 for their 24.4.
- no spans: 1.00, 1.58; 1.17 where requests are rationed.
- no second chance for a stale gateway: 1.00, 1.62; 1.66 where one was slow at first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from dnc_async.gateways.capabilities import Capabilities
from dnc_async.gateways.score import Best, Score
from dnc_async.gateways.spans import CarAsk, Want, ask_for, run_of, tree_ask

_LOOK_AHEAD = 128
_SEVERAL = 4
_SPANS_IN_WINDOW = 8
_SPAN_S = 0.01  # several times what a request costs both machines
_SMALLEST_RUN = 4  # blocks: of fewer, their proofs and their joint end cost more than the requests
_SPANS_EACH = 2  # for every gateway, of all that is pending: a longer one would keep from another what that could bring
_LARGEST_SPAN_BYTES = 8 * 2**20
_SMALLEST_SCARCE_SPAN_BYTES = 2**20
_SCARCE_SPAN_S = 1.0
_LARGEST_TREE_BYTES = 64 * 2**20
_AHEAD_BYTES = 2**20  # of a file whose leaves are wanted at once; the rest is spread over all gateways


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """A choice: blocks to ask a gateway for in one go, as raw block or as ``car``; or to expect from its open CAR ``joins``."""

    wants: list[Want]
    gateway: int
    car: CarAsk | None = None
    joins: object | None = None

    @property
    def size_bytes(self) -> int:
        """How many bytes it is to bring."""
        ahead = self.car.expected_bytes if self.car is not None else 0
        return max(ahead, sum(want.size_bytes for want in self.wants))

    def will_bring(self, want: Want) -> bool:
        """Whether its CAR brings another block besides."""
        return self.car is not None and any(self.car.covers(within, self.car.start) for within in want.within)


class _Round:
    """One call of :meth:`Scoreboard.assign`: what the gateways would owe if all that was chosen so far were sent."""

    def __init__(self, scores: Sequence[Score], usable: Sequence[int], room_bytes: int, now: float) -> None:
        self.now = now
        self.scores = scores
        self.room_bytes = room_bytes
        self.open = set(usable)
        self._line = {i: scores[i].free_at(now) for i in usable}
        self._queued = Counter[int]()
        self._next = {i: self._answered(i) for i in usable}
        self._load = {i: [scores[i].in_flight, float(scores[i].in_flight_bytes)] for i in usable}

    def begins(self, want: Want) -> dict[int, float]:
        """When each gateway would begin to send a block."""
        return {i: line if self.scores[i].covering(want) else self._next[i] for i, line in self._line.items()}

    def _answered(self, i: int) -> float:
        """When the first byte of one more request would come."""
        leaves = self.scores[i].allowed_at(self.now, self._queued[i])
        return max(self._line[i], leaves + self.scores[i].likely_latency())

    def enter(self, span: Span, *, max_requests: int) -> bool:
        """Count a choice; returns whether it may be sent now."""
        i, score, size = span.gateway, self.scores[span.gateway], span.size_bytes
        if span.joins is not None:
            self._line[i] += size / score.likely_rate()
            self._next[i] = self._answered(i)
            return True
        leaves, begins = score.allowed_at(self.now, self._queued[i]), self._next[i]
        self._queued[i] += 1
        self._line[i] = begins + size / score.likely_rate()
        self._next[i] = self._answered(i)
        requests, in_flight = self._load[i]
        full = requests and not score.fits(size, in_flight, self.now)
        is_early = requests and score.rate is not None and begins - score.ahead_s() > self.now
        if leaves > self.now or requests >= max_requests or full or is_early:
            self.open.discard(i)
            return False
        self._load[i] = [requests + 1, in_flight + size]
        self.room_bytes -= size
        return True


class Scoreboard:
    """All gateways of a client, and the choice between them."""

    def __init__(
        self,
        gateways: int,
        *,
        max_requests: int,
        max_bytes: int,
        jitter: Callable[[], float] = lambda: 0.0,
        requests_per_minute: Sequence[float | None] = (),
        can_car: Sequence[bool] = (),
    ) -> None:
        """``jitter`` gives numbers from 0 to 1 that lengthen pauses; the sequences are for each gateway, or empty."""
        self._best = Best()
        self._jitter = jitter
        limits = requests_per_minute or [None] * gateways
        self.scores = [Score(self._best, jitter, limit) for limit in limits]
        self.capabilities = [Capabilities(can_car=can) for can in can_car or [False] * gateways]
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        #: Groups for which an open CAR is held: what they want next is in it.
        self.holds_ahead: Collection[object] = ()

    def add(self, requests_per_minute: float | None = None, *, can_car: bool = False) -> None:
        """One more gateway, of which nothing is known."""
        self.capabilities.append(Capabilities(can_car=can_car))
        self.scores.append(Score(self._best, self._jitter, requests_per_minute))

    def may_assign(self, size_bytes: int, now: float) -> bool:
        """Whether :meth:`assign` is worth a call: some gateway has room for such a block, or an open CAR that may bring one."""
        return any(score.has_open_cars or score.has_room(size_bytes, now) for score in self.scores)

    def assign(self, wants: Sequence[Want], now: float) -> list[Span]:
        """Which of the wanted blocks, most urgent first, to ask for now, and whom, and how."""
        self._best.refresh(self.scores)
        usable = self._usable(now)
        room = self._max_bytes - sum(score.in_flight_bytes for score in self.scores)
        this = _Round(self.scores, usable, room, now)
        chosen: list[Span] = []
        seen = set[Want]()
        looked_at = 0
        for place, want in enumerate(wants):
            if want in seen:
                continue
            looked_at += 1
            if looked_at > _LOOK_AHEAD or not this.open or this.room_bytes < want.size_bytes:
                break
            best = self._earliest(want, this.begins(want))
            if best is None or any(span.gateway == best and span.will_bring(want) for span in chosen):
                continue  # it may join that, once it is sent
            span = self._span(wants, place, best, this.room_bytes, len(usable))
            if span is not None:
                seen.update(span.wants)
                if this.enter(span, max_requests=self._max_requests):
                    chosen.append(span)
        self._try_stale(wants, chosen, this, usable)
        return chosen

    def _span(self, wants: Sequence[Want], place: int, gateway: int, room_bytes: int, gateways: int) -> Span | None:
        """The want at ``place`` and what goes with it at this gateway; ``None`` where it has to wait."""
        want, score = wants[place], self.scores[gateway]
        joins = score.covering(want)
        if joins is not None:
            return Span([want], gateway, joins=joins)
        if score.is_scarce:
            return self._scarce_span(wants, place, gateway, room_bytes)
        if want.ahead and want.has_more and gateway not in want.plain:
            ask = ask_for([want])
            ask = ask if gateways == 1 else ask._replace(end=min(ask.end, ask.start + _AHEAD_BYTES))
            if self.capabilities[gateway].allows(ask):
                return Span([want], gateway, ask)
        worth = max(score.window_bytes(want.size_bytes) / _SPANS_IN_WINDOW, score.likely_rate() * _SPAN_S)
        if worth < _SMALLEST_RUN * want.size_bytes:
            worth = 0.0
        else:
            pending = sum(each.size_bytes for each in wants[place : place + _LOOK_AHEAD])
            worth = min(worth, pending / (_SPANS_EACH * gateways), _LARGEST_SPAN_BYTES, room_bytes)
        return self._run(wants, place, gateway, int(worth))

    def _scarce_span(self, wants: Sequence[Want], place: int, gateway: int, room_bytes: int) -> Span | None:
        """As much as one request can bring."""
        want, score, able = wants[place], self.scores[gateway], self.capabilities[gateway]
        limit = max(_SMALLEST_SCARCE_SPAN_BYTES, int(score.likely_rate() * _SCARCE_SPAN_S))
        limit = min(limit, _LARGEST_SPAN_BYTES, room_bytes)
        # What has come before is asked for alone: its directory would bring the rest once more, too.
        tree = tree_ask(want, _LARGEST_TREE_BYTES) if want.begins_file and not want.passed else None
        for ask in (tree, ask_for([want]) if want.has_more else None):
            if ask is not None and able.allows(ask) and gateway not in want.plain:
                return None if want.group in self.holds_ahead else Span([want], gateway, ask)
        return self._run(wants, place, gateway, limit)

    def _run(self, wants: Sequence[Want], place: int, gateway: int, limit_bytes: int) -> Span:
        """A run of leaves as one CAR where there are several, else a raw block."""
        run = run_of(wants, place, limit_bytes)
        run = (
            run[: next((i for i, each in enumerate(run) if gateway in each.excluded | each.plain), len(run))] or run[:1]
        )
        able = self.capabilities[gateway]
        names_root = bool(run[0].within) and able.is_cold(run[0].within[0].via.partition("/")[0])
        if len(run) > 1 or names_root:
            ask = ask_for(run)
            if able.allows(ask):
                return Span(run, gateway, ask)
        return Span(run[:1], gateway)

    def _try_stale(self, wants: Sequence[Want], chosen: list[Span], this: _Round, usable: Sequence[int]) -> None:
        """Give the least urgent of several blocks in sight to a gateway that has not been heard of for long."""
        asked = {span.gateway for span in chosen}
        stale = (i for i in usable if i not in asked and self.scores[i].is_stale(this.now))
        i = next((i for i in stale if self.scores[i].allowed_at(this.now) <= this.now), None)
        if i is None or len(wants) < _SEVERAL:
            return
        last, taken = wants[min(len(wants), _LOOK_AHEAD) - 1], chosen[-1] if chosen else None
        if i in last.excluded:
            return
        if taken is not None and taken.wants == [last] and taken.car is None and taken.joins is None:
            chosen.pop()
        elif any(last in span.wants for span in chosen) or this.room_bytes < last.size_bytes:
            return
        chosen.append(Span([last], i))

    def hedges(self, now: float, budget_bytes: float) -> list[tuple[Want, int]]:
        """Which blocks are late wherever they were asked for, and whom else to ask; at most so many bytes of them."""
        usable, chosen = self._usable(now), list[tuple[Want, int]]()
        late = Counter(key for score in self.scores for at, key in score.late_at() if at <= now)
        for want, requests in late.items():
            if not isinstance(want, Want) or want.size_bytes > budget_bytes:
                continue
            if requests < len(want.asked):
                continue  # another request for it is in time
            # Whether or not a window has room: all are full while there is work, and this is late already.
            others = [i for i in usable if i not in want.asked]
            others = [i for i in others if self.scores[i].in_flight < self._max_requests]
            others = [i for i in others if self.scores[i].allowed_at(now) <= now]
            soonest = {i: max(self.scores[i].free_at(now), now + self.scores[i].likely_latency()) for i in others}
            best = self._earliest(want, soonest)
            if best is not None:
                budget_bytes -= want.size_bytes
                chosen.append((want, best))
        return chosen

    def sent(self, span: Span, now: float) -> None:
        """A choice was acted upon: its request goes out, or its blocks are expected from the CAR that it joins."""
        score = self.scores[span.gateway]
        if span.joins is not None:
            for want in span.wants:
                score.joined(want, want.size_bytes, now)
        else:
            sizes = [want.size_bytes for want in span.wants]
            sizes[0] = max(sizes[0], span.size_bytes - sum(sizes[1:]))
            score.sent_run(list(zip(span.wants, sizes, strict=True)), now)
        for want in span.wants:
            want.asked.add(span.gateway)

    def next_change(self, now: float) -> float | None:
        """When, at the latest, :meth:`assign` or :meth:`hedges` may say more than now without anything having happened."""
        times = [
            time
            for score in self.scores
            for time in (score.paused_until, score.overdue_at(), score.allowed_at(now), score.opens_at(now))
        ]
        times += [time for score in self.scores for time, _ in score.late_at()] if len(self.scores) > 1 else []
        return min((time for time in times if now < time < float("inf")), default=None)

    def _usable(self, now: float) -> Sequence[int]:
        awake = [i for i, score in enumerate(self.scores) if score.paused_until <= now]
        prompt = [i for i in awake if self.scores[i].overdue_at() > now]
        return prompt or awake

    def _earliest(self, want: Want, begins: Mapping[int, float]) -> int | None:
        # Where nobody else can be asked, who has failed before is better than to wait for one that may never end.
        able = [i for i in begins if i not in want.excluded] or [i for i in begins if i not in want.hopeless]
        best, soonest = None, (float("inf"), False)
        for i in able:
            at = begins[i]
            score = self.scores[i]
            arrival = at + want.size_bytes / score.likely_rate()
            if (arrival, score.latency_s is None) < soonest:
                best, soonest = i, (arrival, score.latency_s is None)
        return best
