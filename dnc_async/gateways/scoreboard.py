"""Chooses which block to request from which gateway. PURE: synchronous decisions on a clock that is passed in.

The policy, and its sources:

*Earliest arrival.* A gateway is modelled as a latency and a rate behind one queue: a block of ``z`` bytes that is requested
now arrives at ``max(free, now + latency) + z / rate``, where ``free`` is when everything that was requested before has
arrived. Each pending block, most urgent first, is assigned to the gateway where it arrives first. This is list scheduling on
unrelated machines (Graham 1969; MCT in Maheswaran et al. 1999): it loads every gateway in proportion to its rate, and gives a
slow gateway a less urgent block if a fast one would still deliver the urgent ones earlier.

*Window.* A request that would only wait in the gateway's queue is not sent. The bytes in flight at a gateway are limited to its
bandwidth-delay product, plus a quarter and two blocks (as BBR does, Cardwell et al. 2016); the delay is its latency and twice
its jitter. Other blocks stay in our own queue, where a gateway that turns out to be faster can get them. The window counts bytes
that have not arrived, so the next block is requested as soon as enough bytes have arrived: blocks that share a link end
together, and waiting for the end of one would leave the link idle for a round trip.

*Pacing.* Within the window, a block is requested so that its answer begins when the link becomes free: earlier by the latency,
twice the jitter and a millisecond, so that the link is not idle when one answer is late. If it were requested earlier, it
would share the link, and an urgent block would arrive no earlier than the less urgent ones behind it. The cost of that shows
where the budget is small (``python -m bench budget --only budgets --loads 0.9 --budgets 1.5``).

*Rates from busy time.* A gateway's rate is bytes over the time in which it had something to send: from its last bytes, or from
the request plus the latency if that is later. Bytes are counted as they arrive, on all connections together. Counted by the
block, of several blocks that share a link and end together the first would look slow and the others infinitely fast (measured:
40 MB/s taken for 680). The sums decay. The latency follows its minimum quickly and rises slowly, because queueing is not latency.

*Optimism.* A gateway that was not measured is assumed to be as good as the best one. So each gateway is tried as soon as there
is more than one block to request, while a single urgent block goes to a gateway that was measured. A gateway that was sent no
request for a while, because it was slow, is sent a request for the least urgent block in sight: otherwise an outdated estimate
would never be corrected (optimism in the face of uncertainty, Lai and Robbins 1985). It is then expected to be as good as the
best gateway, and hedged like it.

*Hedges.* If no byte of a request arrives for several times the gateway's latency and jitter (as TCP waits, RFC 6298), its block
is also requested from the best other gateway, and the first body counts (Dean and Barroso, The Tail at Scale, 2013). The gateway
is charged with a failure only if nothing else has arrived from it meanwhile. Silence is the criterion: over a link that several
blocks share, bytes of each arrive all the time, so a gateway that is merely busy is not hedged. One that trickles is hedged when
its answer takes far longer than expected. The bytes that are requested twice because of a gateway are limited to a share of the
delivered bytes, except for what the consumer waits for next.

*Spans.* Each request has a cost: a round trip, processor time on both machines, or one of the few requests that a minute allows.
Where it takes many small blocks to fill the window, or a gateway sends a block in little more time than a request costs,
consecutive blocks of a file are requested together, as one CAR: at least four, of an eighth of the window or of 10 ms. With
several gateways it is at most half of a gateway's share of the pending bytes, so that there are still several requests to
balance. Where the number of requests is limited, a span is a second's worth of the rate, and the first block of a file is
requested together with the whole file or its small directory. Larger blocks are requested one by one: any gateway can serve
them, truncation is always noticed, and a failure costs only one block. A block that an open CAR will bring is not requested
again.

*Requests per minute.* If a gateway limits them, they are spread over the minute, at most ten at once. A block that another
gateway would deliver before this one's limit allows the request goes to the other gateway.

*Pauses.* After a failure a gateway is not asked for a time that doubles with each failure in a row. After a wrong block the time
doubles with every wrong block so far; a run of correct blocks undoes one doubling. A gateway whose blocks had to be requested
twice, more of them than its share of the hedges, is treated as if it had sent wrong ones. If all gateways are paused, each is
asked again after 3 s, unless it named a time itself. A gateway whose oldest request is long overdue is suspect: it is sent
nothing more until it delivers, as long as there is another gateway.

What each ingredient is worth, compared with a simpler one: ``python -m bench policy`` simulates 96 seeded scenarios of 12 kinds
and reproduces these figures. Time over that of the fluid bound: median 1.07, 95th percentile 1.69. Time without the ingredient
over time with it, run by run:

- round robin instead of the earliest arrival: median 1.00, 95th percentile 5.62; 8.50 where one gateway trickles.
- four requests instead of a window: 1.03, 4.29; 1.77 where one gateway lies; 0.93 where one trickles.
- no pacing: 1.00, 1.12: pacing costs no throughput, and helps urgent blocks.
- latency alone, without jitter: 1.00, 2.17; 1.88 under jitter of up to 200 ms.
- no optimism (an unknown gateway is a slow one): 1.00, 19.5; 17.4 where one trickles.
- no hedges: 1.00, 24.4; 19.1 where one trickles.
- no suspicion: 1.00, 1.00; without hedges either, 29.1 for their 24.4.
- no spans: 1.00, 1.58; 1.17 where requests per minute are limited.
- no second chance for a stale gateway: 1.00, 1.62; 1.66 where one was slow at first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from dnc_async.gateways.capabilities import Capabilities
from dnc_async.gateways.dag_range import CarQuery
from dnc_async.gateways.score import Best, Score
from dnc_async.gateways.spans import consecutive_wants, directory_query, file_query
from dnc_async.gateways.want import Want

_LOOK_AHEAD = 128
_SEVERAL = 4
_SPANS_IN_WINDOW = 8
_SPAN_S = 0.01  # several times the processor time of a request on both machines
_SMALLEST_RUN = 4  # blocks: with fewer, proofs and waiting for the last block cost more than single requests
_SPANS_EACH = 2  # spans per gateway, of all that is pending: longer ones would leave other gateways without work
_LARGEST_SPAN_BYTES = 8 * 2**20
_SMALLEST_SCARCE_SPAN_BYTES = 2**20
_SCARCE_SPAN_S = 1.0
_LARGEST_TREE_BYTES = 64 * 2**20
_REQUEST_S, _HEADERS_BYTES = 0.001, 2**10  # what a request costs, at the least
_LARGEST_TINY_TREE_BYTES = 2**20
_AHEAD_BYTES = 2**20  # requested of a file together with its root; the rest is spread over all gateways


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """A choice: blocks to request from a gateway, as a raw block or as ``car``, or to expect from its open CAR ``joins``."""

    wants: list[Want]
    gateway: int
    car: CarQuery | None = None
    joins: object | None = None

    @property
    def size_bytes(self) -> int:
        """How many bytes the request is expected to bring."""
        ahead = self.car.expected_bytes if self.car is not None else 0
        return max(ahead, sum(want.size_bytes for want in self.wants))

    def will_bring(self, want: Want) -> bool:
        """Whether its CAR will bring another block, too."""
        return self.car is not None and any(self.car.covers(within, self.car.start) for within in want.within)


def _is_tiny(want: Want, score: Score) -> bool:
    """Whether the gateway sends a block in less time than a request costs."""
    return want.size_bytes <= max(_HEADERS_BYTES, score.likely_rate() * _REQUEST_S)


class _Round:
    """One call of :meth:`Scoreboard.assign`: what would be in flight if everything that was chosen so far were sent."""

    def __init__(self, scores: Sequence[Score], usable: Sequence[int], space_bytes: int, now: float) -> None:
        self.now = now
        self.scores = scores
        self.space_bytes = space_bytes
        self.open = set(usable)
        self._free_at = {i: scores[i].free_at(now) for i in usable}
        self._queued = Counter[int]()
        self._next = {i: self._answered(i) for i in usable}
        self._load = {i: [scores[i].in_flight, float(scores[i].in_flight_bytes)] for i in usable}

    def begins(self, want: Want) -> dict[int, float]:
        """When each gateway would begin to send this block."""
        return {i: free if self.scores[i].covering(want) else self._next[i] for i, free in self._free_at.items()}

    def sends_directory_of(self, want: Want) -> int | None:
        """The gateway that is sending the directory in which a tiny block lies, and will bring the block soon."""
        for i in self._free_at:
            score = self.scores[i]
            query = score.directory_with(want) if score.has_open_cars and _is_tiny(want, score) else None
            if query is not None and query.total <= _LARGEST_TINY_TREE_BYTES:
                return i
        return None

    def _answered(self, i: int) -> float:
        """When the first byte of another request to this gateway would arrive."""
        leaves = self.scores[i].allowed_at(self.now, self._queued[i])
        return max(self._free_at[i], leaves + self.scores[i].likely_latency())

    def add(self, span: Span, *, max_requests: int) -> bool:
        """Count a chosen span; returns whether it may be sent now."""
        i, score, size = span.gateway, self.scores[span.gateway], span.size_bytes
        if span.joins is not None:
            self._free_at[i] += size / score.likely_rate()
            self._next[i] = self._answered(i)
            return True
        leaves, begins = score.allowed_at(self.now, self._queued[i]), self._next[i]
        self._queued[i] += 1
        self._free_at[i] = begins + size / score.likely_rate()
        self._next[i] = self._answered(i)
        requests, in_flight = self._load[i]
        full = requests and not score.fits(size, in_flight, self.now)
        is_early = requests and score.rate is not None and begins - score.lead_s() > self.now
        if leaves > self.now or requests >= max_requests or full or is_early:
            self.open.discard(i)
            return False
        self._load[i] = [requests + 1, in_flight + size]
        self.space_bytes -= size
        return True


class Scoreboard:
    """The scores of all gateways of a client, and the choice between them."""

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
        """``jitter`` returns numbers from 0 to 1, which lengthen pauses. The sequences have an item for each gateway, or none."""
        self._best = Best()
        self._jitter = jitter
        limits = requests_per_minute or [None] * gateways
        self.scores = [Score(self._best, jitter, limit) for limit in limits]
        self.capabilities = [Capabilities(can_car=can) for can in can_car or [False] * gateways]
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        #: When a wanted block may be requested again that no gateway may be asked for now.
        self._retry_at = float("inf")
        #: The groups with a paused CAR request: the blocks that they want next are in it.
        self.paused_groups: Collection[object] = ()
        #: Whether there is space for blocks that are not wanted yet.
        self.may_read_ahead = True

    def add(self, requests_per_minute: float | None = None, *, can_car: bool = False) -> None:
        """Add a gateway of which nothing is known."""
        self.capabilities.append(Capabilities(can_car=can_car))
        self.scores.append(Score(self._best, self._jitter, requests_per_minute))

    def may_assign(self, size_bytes: int, now: float) -> bool:
        """Whether :meth:`assign` is worth calling: a gateway has window space for this size, or an open CAR that may bring it."""
        return any(score.has_open_cars or score.has_window(size_bytes, now) for score in self.scores)

    def assign(self, wants: Sequence[Want], now: float) -> list[Span]:
        """Choose which of the wanted blocks (most urgent first) to request now, from which gateway, and in what form."""
        self._best.refresh(self.scores)
        self._retry_at = float("inf")
        usable = self._usable(now)
        space = self._max_bytes - sum(score.in_flight_bytes for score in self.scores)
        this = _Round(self.scores, usable, space, now)
        chosen: list[Span] = []
        seen = set[Want]()
        looked_at = 0
        for place, want in enumerate(wants):
            if want in seen:
                continue
            looked_at += 1
            if looked_at > _LOOK_AHEAD or not this.open or this.space_bytes < want.size_bytes:
                break
            best = this.sends_directory_of(want)
            if best is None:
                best = self._earliest(want, this.begins(want), now)
            if best is None or any(span.gateway == best and span.will_bring(want) for span in chosen):
                continue  # it can wait for that CAR, once it is requested
            span = self._span(wants, place, best, this.space_bytes, len(usable))
            if span is not None:
                seen.update(span.wants)
                if this.add(span, max_requests=self._max_requests):
                    chosen.append(span)
        self._try_stale(wants, chosen, this, usable)
        return chosen

    def _span(self, wants: Sequence[Want], place: int, gateway: int, space_bytes: int, gateways: int) -> Span | None:
        """The span of the want at ``place`` and those that can share its request; ``None`` if it has to wait."""
        want, score = wants[place], self.scores[gateway]
        joins = score.covering(want)
        if joins is not None:
            return Span([want], gateway, joins=joins)
        if score.is_scarce:
            return self._scarce_span(wants, place, gateway, space_bytes)
        if want.ahead and want.has_more and gateway not in want.raw_only:
            query = file_query([want])
            query = query if gateways == 1 else query._replace(end=min(query.end, query.start + _AHEAD_BYTES))
            if self.capabilities[gateway].allows(query):
                return Span([want], gateway, query)
        tree = self._tiny_directory(wants, place, gateway, space_bytes) if _is_tiny(want, score) else None
        if tree is not None:
            return tree
        worth = max(score.window_bytes(want.size_bytes) / _SPANS_IN_WINDOW, score.likely_rate() * _SPAN_S)
        if worth < _SMALLEST_RUN * want.size_bytes:
            worth = 0.0
        else:
            worth = min(worth, _LARGEST_SPAN_BYTES, space_bytes)
            if gateways > 1:  # else there is nobody to leave some to
                pending = sum(each.size_bytes for each in wants[place : place + _LOOK_AHEAD])
                worth = min(worth, pending / (_SPANS_EACH * gateways))
        return self._run(wants, place, gateway, int(worth))

    def _tiny_directory(self, wants: Sequence[Want], place: int, gateway: int, space_bytes: int) -> Span | None:
        """The span of a whole directory of tiny blocks: it takes no longer than the requests for its blocks would.

        Blocks of it that are not wanted yet are kept until they are, so there must be space for them.
        """
        first = wants[place]
        if not self.may_read_ahead or not first.begins_file or first.sent_by or first.group in self.paused_groups:
            return None
        query = directory_query(first, min(space_bytes, _LARGEST_TINY_TREE_BYTES))
        if query is None or not self.capabilities[gateway].allows(query):
            return None
        run = [
            each for each in wants[place : place + _LOOK_AHEAD] if each.within and each.within[-1].path == query.path
        ]
        run = [each for each in run if gateway not in each.excluded and gateway not in each.raw_only]
        return Span(run, gateway, query) if first in run else None

    def _scarce_span(self, wants: Sequence[Want], place: int, gateway: int, space_bytes: int) -> Span | None:
        """As :meth:`_span`, for a gateway that limits the number of requests: as much as one request can bring."""
        want, score, able = wants[place], self.scores[gateway], self.capabilities[gateway]
        limit = max(_SMALLEST_SCARCE_SPAN_BYTES, int(score.likely_rate() * _SCARCE_SPAN_S))
        limit = min(limit, _LARGEST_SPAN_BYTES, space_bytes)
        # A block that a CAR brought before is requested alone: else its directory would be sent once more, too.
        tree = directory_query(want, _LARGEST_TREE_BYTES) if want.begins_file and not want.sent_by else None
        for query in (tree, file_query([want]) if want.has_more else None):
            if query is not None and able.allows(query) and gateway not in want.raw_only:
                return None if want.group in self.paused_groups else Span([want], gateway, query)
        return self._run(wants, place, gateway, limit)

    def _run(self, wants: Sequence[Want], place: int, gateway: int, limit_bytes: int) -> Span:
        """The span of consecutive leaves: as a CAR if there are several, else as a raw block."""
        run = consecutive_wants(wants, place, limit_bytes)
        run = (
            run[: next((i for i, each in enumerate(run) if gateway in each.excluded | each.raw_only), len(run))]
            or run[:1]
        )
        able = self.capabilities[gateway]
        names_root = bool(run[0].within) and able.lacks_root(run[0].within[0].via.partition("/")[0])
        if len(run) > 1 or names_root:
            query = file_query(run)
            if able.allows(query):
                return Span(run, gateway, query)
        return Span(run[:1], gateway)

    def _try_stale(self, wants: Sequence[Want], chosen: list[Span], this: _Round, usable: Sequence[int]) -> None:
        """Choose a gateway with a stale estimate for the least urgent of several blocks in sight."""
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
        elif any(last in span.wants for span in chosen) or this.space_bytes < last.size_bytes:
            return
        chosen.append(Span([last], i))

    def hedges(self, now: float, spend: Callable[[Want], bool]) -> list[tuple[Want, int]]:
        """The blocks that are late in all their requests, each with the gateway to hedge it with.

        ``spend`` tells whether the block may be requested once more, and counts it.
        """
        usable, chosen = self._usable(now), list[tuple[Want, int]]()
        late = Counter(key for score in self.scores for at, key in score.late_at() if at <= now)
        for want, requests in late.items():
            if not isinstance(want, Want) or requests < len(want.asked):
                continue  # another request for it is in time
            # Even if no window has space: all are full while there is work, and this block is late already.
            others = [i for i in usable if i not in want.asked]
            others = [i for i in others if self.scores[i].in_flight < self._max_requests]
            others = [i for i in others if self.scores[i].allowed_at(now) <= now]
            soonest = {i: max(self.scores[i].free_at(now), now + self.scores[i].likely_latency()) for i in others}
            best = self._earliest(want, soonest, now)
            if best is not None and spend(want):
                chosen.append((want, best))
        return chosen

    def sent(self, span: Span, now: float) -> None:
        """Record that a span was requested, or that its blocks are expected from the open CAR."""
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

    def next_change(self, now: float) -> float:
        """When :meth:`assign` or :meth:`hedges` may next return more than now, if nothing else happens before; or infinity."""
        times = [
            time
            for score in self.scores
            for time in (score.paused_until, score.overdue_at(), score.allowed_at(now), score.next_send_at(now))
        ]
        times.append(self._retry_at)
        times += [score.last_resort_at for score in self.scores if score.paused_until > now]
        times += [time for score in self.scores for time, _ in score.late_at()] if len(self.scores) > 1 else []
        return min((time for time in times if now < time), default=float("inf"))

    def _usable(self, now: float) -> Sequence[int]:
        awake = [i for i, score in enumerate(self.scores) if score.paused_until <= now]
        awake = awake or [i for i, score in enumerate(self.scores) if score.last_resort_at <= now]
        prompt = [i for i in awake if self.scores[i].overdue_at() > now]
        return prompt or awake

    def _earliest(self, want: Want, begins: Mapping[int, float], now: float) -> int | None:
        able = [i for i in begins if i not in want.excluded]
        if not able and want.retry_at > now:
            self._retry_at = min(self._retry_at, want.retry_at)
        elif not able:
            # One that failed before is better than waiting for a request that may never end.
            able = [i for i in begins if i not in want.hopeless]
        best, soonest = None, (float("inf"), False)
        for i in able:
            at = begins[i]
            score = self.scores[i]
            arrival = at + want.size_bytes / score.likely_rate()
            if (arrival, score.latency_s is None) < soonest:
                best, soonest = i, (arrival, score.latency_s is None)
        return best
