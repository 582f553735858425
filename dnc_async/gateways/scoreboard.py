"""Which gateway gets which block. PURE: synchronous decisions on a clock that is passed in.

The policy, and where it comes from:

*Earliest arrival.* A gateway is modelled as a latency and a rate behind one queue, so a block of ``z`` bytes that is asked
for now arrives at ``max(free, now + latency) + z / rate``, ``free`` being when all that it was asked for before has
arrived. Each pending block, most urgent first, belongs to the gateway where it arrives first: list scheduling on
unrelated machines (Graham 1969; MCT in Maheswaran et al. 1999), which fills every gateway in proportion to its rate, and
gives a slow one a block further back whenever a fast one would still deliver the urgent ones sooner.

*A window.* Nothing is sent that only waits in the gateway's queue: a gateway has at most its bandwidth-delay product in
flight, with a quarter and two blocks to spare (as BBR paces, Cardwell et al. 2016). The rest stays here, where it can go
to whoever turns out to be faster. The window counts bytes that are still to come, and the next block is asked for as soon
as enough have: blocks that share a line end together, and who waited for an end would leave it idle for a round trip.

*Rates from busy time.* A gateway's rate is bytes over the time in which it had something to send: from the later of its
last bytes and the request plus the latency. Bytes are counted as they come, on all connections together: blocks that share
a gateway's line end together, and counted by the block the first would look slow and the others infinitely fast (measured:
40 MB/s taken for 680). Sums decay. Latency follows its minimum quickly and rises slowly, because queueing is not latency.

*Optimism.* What is not known of a gateway is taken to be as good as the best known one, so that each is tried as soon as
there is more than one block to ask for, but a lone urgent one goes to a gateway that has proved itself. One that was not
asked for a while, because it was slow when it was, is asked again for the least urgent block in sight: otherwise an
estimate that no longer holds would never be corrected (optimism in the face of uncertainty, Lai and Robbins 1985).

*Hedges.* A request that has brought no byte for several times what its gateway needs is asked of the best other gateway as
well, and the first of the two bodies counts (Dean and Barroso, The Tail at Scale, 2013). Silence is what tells: a line that
several blocks share brings some of each all the time, so a merely full gateway is not hedged; one that brings its bytes
at a trickle is, far beyond the time that its answer was to take. The extra bytes are a stated share of what was delivered.

*Requests per minute.* Where a gateway allows so many and no more, they are spread over the minute, ten at once at most; a block
whose turn there comes later than it would arrive from another gateway goes to the other.

*Pauses.* A failure pauses a gateway for a time that doubles with each failure in a row; a wrong block does so with every
wrong block, and a run of good ones takes one back. A gateway whose oldest request is long overdue is suspect: it gets
nothing more until it delivers, as long as anybody else is there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

# Until anything was measured anywhere.
_PRIOR_RATE = 5e6
_PRIOR_LATENCY_S = 0.1
_MEMORY_BYTES = 8e6  # sums of bytes and busy time decay with this constant…
_MEMORY_S = 2.0  # …or this one, whichever is shorter
_ENOUGH_S, _ENOUGH_BYTES = 0.02, 2**20  # the first bytes come with the headers, and would look infinitely fast
_SMALL_BYTES = 16 * 2**10  # a smaller block measures the cost of a request, not the rate
_LATENCY_RISE = 0.05
_WINDOW_GAIN = 1.25
_WINDOW_BLOCKS = 2
_FIRST_BYTES = 2**20  # until the first bytes have come, which is when the rate is known
_FAILURE_PAUSE_S, _MISMATCH_PAUSE_S, _MAX_PAUSE_S = 0.25, 0.1, 60.0
_JITTER = 0.25
_BURST_REQUESTS = 10.0  # of those that a minute allows, at once
_FORGIVEN_AFTER = 16
_OVERDUE_S, _OVERDUE_FACTOR = 1.0, 4.0
_SILENCE_S, _SILENCE_LATENCIES, _LATE_FACTOR = 0.3, 4.0, 3.0
_LOOK_AHEAD = 128
_SEVERAL = 4
_STALE_S = 5.0  # an estimate older than this is worth a block


@dataclass(slots=True, eq=False)
class Want:
    """A block that somebody waits for: its likely size, the gateways that will not be asked for it, and those that are."""

    size_bytes: int
    excluded: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Best:
    """The best that was measured at any gateway: what is assumed of one that was not measured."""

    rate: float = _PRIOR_RATE
    latency_s: float = _PRIOR_LATENCY_S

    def refresh(self, scores: Iterable[Score]) -> None:
        scores = tuple(scores)
        self.rate = max((score.rate for score in scores if score.rate), default=_PRIOR_RATE)
        known = (score.latency_s for score in scores if score.latency_s is not None)
        self.latency_s = min(known, default=_PRIOR_LATENCY_S)


@dataclass(slots=True)
class _Sent:
    size_bytes: int
    sent_at: float
    begins_at: float
    due_at: float
    received_bytes: int = 0
    last_at: float = float("-inf")


class Score:
    """What is known of one gateway. Times are seconds of the injected clock."""

    def __init__(
        self,
        best: _Best | None = None,
        jitter: Callable[[], float] = lambda: 0.0,
        requests_per_minute: float | None = None,
    ) -> None:
        self._best = best or _Best()
        self._jitter = jitter
        self._requests_per_s = None if requests_per_minute is None else requests_per_minute / 60
        self._allowance, self._allowance_at = _BURST_REQUESTS, float("-inf")
        self.blocks = self.bytes = self.rejected = self.failures = 0
        self.latency_s: float | None = None
        self.paused_until = 0.0
        self._bytes_sum = self._busy_sum = 0.0
        self._last_delivery = self._last_arrival = self._last_sent = float("-inf")
        self._in_flight: dict[object, _Sent] = {}
        self._renews = False  # the next measurement replaces the sums, which are too old
        self._failed_in_a_row = 0
        self._distrust = 0
        self._good_in_a_row = 0

    @property
    def rate(self) -> float | None:
        """Bytes per second while busy; ``None`` until enough was measured."""
        enough = self._busy_sum >= _ENOUGH_S or self._bytes_sum >= _ENOUGH_BYTES
        return self._bytes_sum / self._busy_sum if enough else None

    @property
    def in_flight(self) -> int:
        """How many requests are open."""
        return len(self._in_flight)

    @property
    def in_flight_bytes(self) -> int:
        """How many bytes were asked for and have not come."""
        return sum(max(0, sent.size_bytes - sent.received_bytes) for sent in self._in_flight.values())

    def likely_rate(self) -> float:
        """The measured rate, or the best of the others'."""
        return self.rate or self._best.rate

    def likely_latency(self) -> float:
        """The measured latency, or the best of the others'."""
        return self._best.latency_s if self.latency_s is None else self.latency_s

    def is_stale(self, now: float) -> bool:
        """Whether it was measured, but nothing has been asked of it for long."""
        return not self._in_flight and self.latency_s is not None and now - self._last_sent >= _STALE_S

    def allowed_at(self, now: float, before: int = 0) -> float:
        """When another request may go out after so many others, by the requests per minute that it allows."""
        if self._requests_per_s is None:
            return now
        missing = before + 1 - self._allowed(now)
        return now + max(0.0, missing / self._requests_per_s)

    def _allowed(self, now: float) -> float:
        rate = self._requests_per_s or 0.0
        since = max(0.0, now - self._allowance_at) if self._allowance_at > float("-inf") else 0.0
        return min(_BURST_REQUESTS, self._allowance + since * rate)

    def free_at(self, now: float) -> float:
        """When all that is in flight has arrived, by the model."""
        free, latency, rate = self._last_arrival, self.likely_latency(), self.likely_rate()
        for sent in self._in_flight.values():
            free = max(free, sent.sent_at + latency) + max(0, sent.size_bytes - sent.received_bytes) / rate
        return max(free, now)

    def window_bytes(self, size_bytes: int) -> float:
        """How much may be in flight at once, for blocks of such a size."""
        if self.rate is None or self.latency_s is None:
            return max(size_bytes, _FIRST_BYTES)
        return _WINDOW_GAIN * self.rate * self.latency_s + _WINDOW_BLOCKS * size_bytes

    def has_room(self, size_bytes: int) -> bool:
        """Whether the window has room for another block of such a size."""
        return not self._in_flight or self.in_flight_bytes + size_bytes <= self.window_bytes(size_bytes)

    def overdue_at(self) -> float:
        """When the oldest request counts as one that should have been answered long ago."""
        oldest = next(iter(self._in_flight.values()), None)
        if oldest is None:
            return float("inf")
        allowed = max(_OVERDUE_S, _OVERDUE_FACTOR * (oldest.due_at - oldest.sent_at))
        return max(oldest.sent_at, self._last_delivery) + allowed

    def late_at(self) -> Iterable[tuple[float, object]]:
        """When each open request will count as late: silent for too long, or far beyond the time it was to take."""
        patience = max(_SILENCE_S, _SILENCE_LATENCIES * self.likely_latency())
        for key, sent in self._in_flight.items():
            silent = sent.last_at if sent.received_bytes else sent.begins_at
            # What was asked for after it shares the line with it: a window's worth at most.
            sharing = self.window_bytes(sent.size_bytes) / self.likely_rate()
            slow = sent.due_at + max(patience, _LATE_FACTOR * (sent.due_at - sent.sent_at)) + sharing
            yield min(silent + patience, slow), key

    def sent(self, key: object, size_bytes: int, now: float) -> None:
        """A request goes out."""
        begins = max(self.free_at(now), now + self.likely_latency())
        self._allowance, self._allowance_at = self._allowed(now) - 1, now
        self._renews = self._renews or self.is_stale(now)
        self._in_flight[key] = _Sent(size_bytes, now, begins, begins + size_bytes / self.likely_rate())
        self._last_sent = now

    def first_byte(self, key: object, now: float) -> None:
        """The answer to a request begins."""
        sent = self._in_flight.get(key)
        if sent is not None:
            sample = now - sent.sent_at
            known = self.latency_s
            self.latency_s = sample if known is None else min(sample, known + _LATENCY_RISE * (sample - known))

    def received(self, key: object, size_bytes: int, now: float) -> None:
        """So many bytes more of an answer have come."""
        sent = self._in_flight.get(key)
        if sent is None or not size_bytes:
            return
        busy = max(now - max(self._last_arrival, sent.sent_at + self.likely_latency()), 1e-6)
        if sent.size_bytes >= _SMALL_BYTES:
            keep = 0.0 if self._renews else max(0.0, 1.0 - max(size_bytes / _MEMORY_BYTES, busy / _MEMORY_S))
            self._renews = False
            self._bytes_sum = self._bytes_sum * keep + size_bytes
            self._busy_sum = self._busy_sum * keep + busy
        sent.received_bytes += size_bytes
        sent.last_at = self._last_arrival = now

    def delivered(self, key: object, size_bytes: int, now: float) -> None:
        """A body is complete (and not yet verified)."""
        self.received(key, size_bytes - self._in_flight[key].received_bytes, now)
        del self._in_flight[key]
        self._last_delivery = now
        self._failed_in_a_row = 0

    def verified(self, size_bytes: int) -> None:
        """The block was what its CID says."""
        self.blocks += 1
        self.bytes += size_bytes
        self._good_in_a_row += 1
        if self._good_in_a_row >= _FORGIVEN_AFTER:
            self._distrust, self._good_in_a_row = max(0, self._distrust - 1), 0

    def mismatched(self, now: float) -> None:
        """The block was not what its CID says: quarantine that grows."""
        self.rejected += 1
        self._good_in_a_row = 0
        self._pause(now, _MISMATCH_PAUSE_S * 2.0**self._distrust)
        self._distrust = min(self._distrust + 1, 32)

    def beaten(self, key: object, now: float) -> None:
        """Another gateway brought the block first: being late counts as a failure, being a little slower does not."""
        if any(at <= now for at, late in self.late_at() if late is key):
            self.failed(key, now)
        else:
            self.missed(key)

    def missed(self, key: object) -> None:
        """It does not have the block: no fault."""
        self._in_flight.pop(key, None)

    def failed(self, key: object, now: float, retry_after_s: float | None = None) -> None:
        """The request failed, perhaps with a pause that the gateway asked for."""
        if self._in_flight.pop(key, None) is None:
            return
        self.failures += 1
        # What was in flight when the first of several failed at once is one failure, not many.
        if now >= self.paused_until:
            self._failed_in_a_row = min(self._failed_in_a_row + 1, 32)
        self._pause(now, retry_after_s or _FAILURE_PAUSE_S * 2.0 ** max(0, self._failed_in_a_row - 1))

    def _pause(self, now: float, seconds: float) -> None:
        longer = (
            1.0 + _JITTER * self._jitter()
        )  # many clients that were told the same time do not all come back at once
        self.paused_until = max(self.paused_until, now + min(seconds, _MAX_PAUSE_S) * longer)


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
    ) -> None:
        """``jitter`` gives numbers from 0 to 1 that lengthen pauses; ``requests_per_minute`` is for each gateway, or empty."""
        self._best = _Best()
        self._jitter = jitter
        limits = requests_per_minute or [None] * gateways
        self.scores = [Score(self._best, jitter, limit) for limit in limits]
        self._max_requests = max_requests
        self._max_bytes = max_bytes

    def add(self, requests_per_minute: float | None = None) -> None:
        """One more gateway, of which nothing is known."""
        self.scores.append(Score(self._best, self._jitter, requests_per_minute))

    def assign(self, wants: Iterable[Want], now: float) -> list[tuple[Want, int]]:
        """Which of the wanted blocks, most urgent first, to ask for now, and whom."""
        self._best.refresh(self.scores)
        usable = self._usable(now)
        free = {i: max(self.scores[i].free_at(now), self.scores[i].allowed_at(now)) for i in usable}
        queued = Counter[int]()
        load = {i: [self.scores[i].in_flight, float(self.scores[i].in_flight_bytes)] for i in usable}
        room = self._max_bytes - sum(score.in_flight_bytes for score in self.scores)
        chosen: list[tuple[Want, int]] = []
        open_to_more = set(usable)
        for looked_at, want in enumerate(wants):
            if looked_at >= _LOOK_AHEAD or not open_to_more or room < want.size_bytes:
                break
            best = self._earliest(want, free, now)
            if best is None:
                continue
            score = self.scores[best]
            leaves = score.allowed_at(now, queued[best])
            queued[best] += 1
            arrives = max(free[best], leaves + score.likely_latency()) + want.size_bytes / score.likely_rate()
            free[best] = max(arrives, score.allowed_at(now, queued[best]))
            requests, in_flight = load[best]
            full = requests and in_flight + want.size_bytes > score.window_bytes(want.size_bytes)
            if leaves > now or requests >= self._max_requests or full:
                open_to_more.discard(best)
                continue
            load[best] = [requests + 1, in_flight + want.size_bytes]
            room -= want.size_bytes
            chosen.append((want, best))
        self._try_stale(chosen, usable, now)
        return chosen

    def _try_stale(self, chosen: list[tuple[Want, int]], usable: Sequence[int], now: float) -> None:
        """Give the least urgent of several blocks to a gateway that has not been heard of for long."""
        asked = {gateway for _, gateway in chosen}
        stale = (i for i in usable if i not in asked and self.scores[i].is_stale(now))
        if len(chosen) >= _SEVERAL and (i := next(stale, None)) is not None:
            want, _ = chosen[-1]
            if i not in want.excluded:
                chosen[-1] = (want, i)

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
            best = self._earliest(want, {i: self.scores[i].free_at(now) for i in others}, now)
            if best is not None:
                budget_bytes -= want.size_bytes
                chosen.append((want, best))
        return chosen

    def next_change(self, now: float) -> float | None:
        """When, at the latest, :meth:`assign` or :meth:`hedges` may say more than now without anything having happened."""
        times = [
            time for score in self.scores for time in (score.paused_until, score.overdue_at(), score.allowed_at(now))
        ]
        times += [time for score in self.scores for time, _ in score.late_at()] if len(self.scores) > 1 else []
        return min((time for time in times if now < time < float("inf")), default=None)

    def _usable(self, now: float) -> Sequence[int]:
        awake = [i for i, score in enumerate(self.scores) if score.paused_until <= now]
        prompt = [i for i in awake if self.scores[i].overdue_at() > now]
        return prompt or awake

    def _earliest(self, want: Want, free: dict[int, float], now: float) -> int | None:
        best, soonest = None, (float("inf"), False)
        for i, at in free.items():
            if i in want.excluded:
                continue
            score = self.scores[i]
            arrival = max(at, now + score.likely_latency()) + want.size_bytes / score.likely_rate()
            if (arrival, score.latency_s is None) < soonest:
                best, soonest = i, (arrival, score.latency_s is None)
        return best
