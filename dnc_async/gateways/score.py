"""What is known of one gateway: its rate, its latency, what it owes, and when it may be asked again. PURE.

The policy behind the numbers is told in :mod:`~dnc_async.gateways.scoreboard`, which chooses by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dnc_async.gateways.spans import CarAsk, Want

# Until anything was measured anywhere.
_PRIOR_RATE = 5e6
_PRIOR_LATENCY_S = 0.1
_MEMORY_BYTES = 8e6  # sums of bytes and busy time decay with this constant…
_MEMORY_S = 2.0  # …or this one, whichever is shorter
_ENOUGH_S, _ENOUGH_BYTES = 0.02, 2**17  # the first bytes come with the headers, and would look infinitely fast
_SMALL_BYTES = 16 * 2**10  # a smaller block measures the cost of a request, not the rate
_LATENCY_RISE, _JITTER_RISE = 0.05, 0.2
_LARGEST_EXCESS_S = 0.5  # an answer that comes late by seconds says nothing of the others
#: So many times a gateway's jitter beyond its latency most answers have begun.
JITTERS = 2
_WINDOW_GAIN = 1.25
_WINDOW_BLOCKS = 2
_SLACK_S = 0.001  # an answer may begin so long before what was asked for before it has come; sooner, it takes from that
# Until the first bytes have come, which is when the rate is known: so many at once, and after a while more, as if they were sent
# at such a rate; so many of all gateways together, if that is more. Sooner, all would share the line of one near and slow.
# What is tiny, such as a file's root, goes beside them.
_FIRST_BYTES, _FIRST_RATE, _FIRST_OF_ALL_BYTES, _TINY_BYTES = 5 * 2**18, 32e6, 4 * 2**20, 2**13
_FIRST_WAIT_S, _FIRST_STEP_S = 0.02, 0.004
_FAILURE_PAUSE_S, _MISMATCH_PAUSE_S, _MAX_PAUSE_S = 0.25, 0.1, 60.0
_PAUSE_SPREAD = 0.25
_BURST_REQUESTS, _BURST_SHARE = 10.0, 0.05  # at once, of those that a minute allows: so many, or such a share
_FORGIVEN_AFTER = 16
_OVERDUE_S, _OVERDUE_FACTOR = 1.0, 4.0
_SILENCE_S, _SILENCE_LATENCIES, _SILENCE_JITTERS, _LATE_FACTOR = 0.15, 2.0, 4.0, 3.0
_STALE_S = 5.0  # an estimate older than this is worth a block


@dataclass(slots=True)
class Best:
    """The best that was measured at any gateway: what is assumed of one that was not measured."""

    rate: float = _PRIOR_RATE
    latency_s: float = _PRIOR_LATENCY_S
    gateways: int = 1

    def refresh(self, scores: Iterable[Score]) -> None:
        """Look at all gateways again."""
        scores = tuple(scores)
        self.gateways = len(scores)
        self.rate = max((score.rate for score in scores if score.rate), default=_PRIOR_RATE)
        if any(score.rate is None and score.is_asked for score in scores):
            self.rate = max(
                self.rate, _PRIOR_RATE
            )  # else one that trickles, measured first, would be the measure of all
        # One that was never heard of may be nearer than all others: taken for as near as the best, it would not be asked as long
        # as that is free, which behind a small budget is for ever.
        known = [_PRIOR_LATENCY_S if score.latency_s is None else score.latency_s for score in scores]
        self.latency_s = min(known, default=_PRIOR_LATENCY_S)


@dataclass(slots=True)
class _Request:
    """One request on the wire: how many bytes it is to bring, and how many blocks of them are still to come."""

    size_bytes: int
    missing: int
    last_at: float = float("-inf")


@dataclass(slots=True)
class _Sent:
    """A block that was asked for, and when it is expected by the model."""

    request: _Request
    size_bytes: int
    sent_at: float
    begins_at: float
    due_at: float
    received_bytes: int = 0

    @property
    def missing_bytes(self) -> int:
        """How many of its bytes are still to come."""
        return max(0, self.size_bytes - self.received_bytes)


class Score:
    """What is known of one gateway. Times are seconds of the injected clock."""

    def __init__(
        self,
        best: Best | None = None,
        jitter: Callable[[], float] = lambda: 0.0,
        requests_per_minute: float | None = None,
    ) -> None:
        self._best = best or Best()
        self._jitter = jitter
        # What may go at once is not to come on top of what a minute allows.
        per_minute = requests_per_minute or 0.0
        self._burst = min(_BURST_REQUESTS, max(1.0, per_minute * _BURST_SHARE))
        self._requests_per_s = None if requests_per_minute is None else (per_minute - self._burst + 1) / 60
        self._allowance, self._allowance_at = self._burst, float("-inf")
        self.blocks = self.bytes = self.rejected = self.failures = 0
        self.latency_s: float | None = None
        #: How much later than that answers begin, the latest counting most.
        self.jitter_s = 0.0
        self.paused_until = 0.0
        self._bytes_sum = self._busy_sum = 0.0
        self._last_delivery = self._last_arrival = self._last_sent = float("-inf")
        self._in_flight: dict[object, _Sent] = {}
        self._requests = 0
        #: How many bytes were asked for and have not come.
        self.in_flight_bytes = 0
        self._cars: dict[object, tuple[CarAsk, int]] = {}
        self._busy_since = float("-inf")
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
        return self._requests

    @property
    def has_open_cars(self) -> bool:
        """Whether a CAR is open, which may bring what was not asked for yet."""
        return bool(self._cars)

    @property
    def is_asked(self) -> bool:
        """Whether anything is on its way."""
        return bool(self._in_flight)

    @property
    def is_scarce(self) -> bool:
        """Whether each request should bring as much as it can, because there may be only so many."""
        return self._requests_per_s is not None

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
        return min(self._burst, self._allowance + since * rate)

    def spends(self, now: float) -> bool:
        """Whether a request that brings no block may go out now, which is counted then."""
        if self.paused_until > now or self.allowed_at(now) > now:
            return False
        self._allowance, self._allowance_at = self._allowed(now) - 1, now
        return True

    def free_at(self, now: float) -> float:
        """When all that is in flight has arrived, by the model."""
        free, latency, rate = self._last_arrival, self.likely_latency(), self.likely_rate()
        for sent in self._in_flight.values():
            free = max(free, sent.sent_at + latency) + sent.missing_bytes / rate
        return max(free, now)

    def window_bytes(self, size_bytes: int, now: float = float("-inf")) -> float:
        """How much may be in flight at once, for blocks of such a size."""
        if self.rate is None or self.latency_s is None:
            grown = _FIRST_BYTES + _FIRST_RATE * max(0.0, now - self._busy_since - _FIRST_WAIT_S)
            return max(size_bytes, _FIRST_BYTES, min(grown, _FIRST_OF_ALL_BYTES / self._best.gateways))
        longest = self.latency_s + JITTERS * self.jitter_s
        return _WINDOW_GAIN * self.rate * longest + _WINDOW_BLOCKS * self._usual_bytes(size_bytes)

    def has_room(self, size_bytes: int, now: float) -> bool:
        """Whether the window has room for another block of such a size, and it is time to ask for it."""
        fits = self.fits(size_bytes, self.in_flight_bytes, now)
        return not self._in_flight or (fits and (self.rate is None or self.opens_at(now) <= now))

    def fits(self, size_bytes: int, in_flight_bytes: float, now: float) -> bool:
        """Whether the window has room for another block of such a size beside so many bytes."""
        if self.rate is None and size_bytes <= _TINY_BYTES:
            return True
        return in_flight_bytes + size_bytes <= self.window_bytes(size_bytes, now)

    def opens_at(self, now: float) -> float:
        """When it is time to ask for another block: its answer is to begin when the line is free, and hardly sooner."""
        if self.rate is None or self.latency_s is None:
            grows = now - self._busy_since < _FIRST_WAIT_S + _FIRST_OF_ALL_BYTES / _FIRST_RATE
            return now + _FIRST_STEP_S if self._in_flight and grows else now
        return self.free_at(now) - self.ahead_s()

    def ahead_s(self) -> float:
        """How long before the line is free a block is asked for."""
        return self.likely_latency() + JITTERS * self.jitter_s + _SLACK_S

    def _usual_bytes(self, size_bytes: int) -> int:
        """The size of a block, or of those on their way: a small one, such as a file's last, is not to wait for longer."""
        return max(size_bytes, next((sent.size_bytes for sent in self._in_flight.values()), 0))

    def overdue_at(self) -> float:
        """When the oldest request counts as one that should have been answered long ago."""
        oldest = next(iter(self._in_flight.values()), None)
        if oldest is None:
            return float("inf")
        allowed = max(_OVERDUE_S, _OVERDUE_FACTOR * (oldest.due_at - oldest.sent_at))
        return max(oldest.sent_at, self._last_delivery) + allowed

    def late_at(self) -> Iterable[tuple[float, object]]:
        """When each open request will count as late: silent for too long, or far beyond the time it was to take."""
        latency = self.likely_latency()
        patience = max(_SILENCE_S, _SILENCE_LATENCIES * latency, _SILENCE_JITTERS * self.jitter_s)
        pace, size, sharing = max(self.likely_rate(), self._best.rate), -1, 0.0
        for key, sent in self._in_flight.items():
            silent = max(sent.begins_at, sent.request.last_at)
            if sent.size_bytes != size:  # most are alike
                # What was asked for after it shares the line with it: a window's worth at most, at the pace of the best. By its
                # own pace, one that brings its first bytes at a trickle would never be late.
                size = sent.size_bytes
                sharing = self.window_bytes(size) / pace
            slow = sent.due_at + max(patience, _LATE_FACTOR * (sent.due_at - sent.sent_at)) + sharing
            yield min(silent + patience, slow), key

    def sent(self, key: object, size_bytes: int, now: float) -> None:
        """A request for one block goes out."""
        self.sent_run([(key, size_bytes)], now)

    def sent_run(self, run: Sequence[tuple[object, int]], now: float) -> None:
        """A request for several (key, bytes) goes out; they will come in this order."""
        begins = max(self.free_at(now), now + self.likely_latency())
        self._busy_since = self._busy_since if self._in_flight else now
        self._allowance, self._allowance_at = self._allowed(now) - 1, now
        stale = self.is_stale(now)
        self._renews = self._renews or stale
        # What is not known any more is as good as the best: else a slow one that is tried again would have all the time it wants.
        self._expect(run, now, begins, max(self.likely_rate(), self._best.rate) if stale else self.likely_rate())
        self._last_sent = now

    def joined(self, key: object, size_bytes: int, now: float) -> None:
        """A block is expected from a request that is open already."""
        self._expect([(key, size_bytes)], now - self.likely_latency(), self.free_at(now), self.likely_rate())

    def _expect(self, run: Sequence[tuple[object, int]], sent_at: float, begins: float, rate: float) -> None:
        request = _Request(sum(size for _, size in run), len(run))
        self._requests += 1
        for key, size in run:
            self._forget(key)
            due = begins + size / rate
            self._in_flight[key] = _Sent(request, size, sent_at, begins, due)
            self.in_flight_bytes += size
            begins = due

    def _forget(self, key: object) -> bool:
        sent = self._in_flight.pop(key, None)
        if sent is None:
            return False
        self.in_flight_bytes -= sent.missing_bytes
        sent.request.missing -= 1
        self._requests -= not sent.request.missing
        return True

    def opened_car(self, request: object, ask: CarAsk) -> None:
        """A CAR is on its way: what it covers may be waited for instead of asked for."""
        self._cars[request] = ask, ask.start

    def advanced_car(self, request: object, position: int) -> None:
        """All before ``position`` has come."""
        if request in self._cars:
            self._cars[request] = self._cars[request][0], position

    def closed_car(self, request: object) -> None:
        """Nothing more comes of it."""
        self._cars.pop(request, None)

    def covering(self, want: Want) -> object | None:
        """The open CAR that will bring a block anyway, if there is one."""
        for request, (ask, position) in self._cars.items():
            if request not in want.passed and any(ask.covers(within, position) for within in want.within):
                return request
        return None

    def first_byte(self, key: object, now: float) -> None:
        """The answer to a request begins."""
        sent = self._in_flight.get(key)
        if sent is not None:
            sample = now - sent.sent_at
            known = self.latency_s
            self.latency_s = sample if known is None else min(sample, known + _LATENCY_RISE * (sample - known))
            excess = min(sample - self.latency_s, _LARGEST_EXCESS_S)
            self.jitter_s += _JITTER_RISE * (excess - self.jitter_s)

    def received(self, key: object, size_bytes: int, now: float) -> None:
        """So many bytes more of an answer have come."""
        sent = self._in_flight.get(key)
        if sent is None or not size_bytes:  # it may be negative, where a CAR's next block had been counted to this one
            return
        if sent.request.size_bytes >= _SMALL_BYTES:
            self._measure(size_bytes, now - max(self._last_arrival, sent.sent_at + self.likely_latency()))
        self.in_flight_bytes -= sent.missing_bytes
        sent.received_bytes += size_bytes
        self.in_flight_bytes += sent.missing_bytes
        sent.request.last_at = self._last_arrival = now

    def received_more(self, size_bytes: int, now: float) -> None:
        """Bytes of an open CAR have come that are nobody's yet."""
        nothing_yet = self._last_arrival == float("-inf")
        began = self._last_sent + self.likely_latency() if nothing_yet else self._last_arrival
        self._measure(size_bytes, now - began)
        self._last_arrival = now

    def resumed(self, now: float) -> None:
        """We read on, after a while in which the gateway could not send for our sake."""
        self._last_arrival = max(self._last_arrival, now)

    def _measure(self, size_bytes: int, busy_s: float) -> None:
        busy_s = max(busy_s, 1e-6)
        keep = 0.0 if self._renews else max(0.0, 1.0 - max(size_bytes / _MEMORY_BYTES, busy_s / _MEMORY_S))
        self._renews = False
        # In this order: another thread may divide the one by the other in between.
        self._busy_sum = self._busy_sum * keep + busy_s
        self._bytes_sum = self._bytes_sum * keep + size_bytes

    def delivered(self, key: object, size_bytes: int, now: float) -> None:
        """A body is complete (and not yet verified)."""
        sent = self._in_flight.get(key)
        if sent is not None:
            self.received(key, size_bytes - sent.received_bytes, now)
            self._forget(key)
        self._last_delivery = now
        self._failed_in_a_row = 0

    def verified(self, size_bytes: int, *, is_wanted: bool = True) -> None:
        """The block was what its CID says; only one that somebody waits for speaks for the gateway."""
        self.blocks += 1
        self.bytes += size_bytes
        self._good_in_a_row += is_wanted
        if self._good_in_a_row >= _FORGIVEN_AFTER:
            self._distrust, self._good_in_a_row = max(0, self._distrust - 1), 0

    def mismatched(self, now: float) -> None:
        """The block was not what its CID says: quarantine that grows."""
        self.rejected += 1
        self._good_in_a_row = 0
        self._pause(now, _MISMATCH_PAUSE_S * 2.0**self._distrust)
        self._distrust = min(self._distrust + 1, 32)

    def beaten(self, key: object, now: float) -> None:
        """Another gateway brought the block first.

        Being late counts as a failure where nothing has come since it was asked for; a lone straggler does not, nor being a
        little slower.
        """
        sent = self._in_flight.get(key)
        is_silent = sent is not None and self._last_delivery < sent.sent_at
        if is_silent and any(at <= now for at, late in self.late_at() if late is key):
            self.failed(key, now)
        else:
            self.missed(key)

    def missed(self, key: object) -> None:
        """It does not have the block: no fault."""
        self._forget(key)

    def failed(self, key: object, now: float, retry_after_s: float | None = None) -> None:
        """The request failed, perhaps with a pause that the gateway asked for."""
        if self._forget(key):
            self.refused(now, retry_after_s)

    def refused(self, now: float, retry_after_s: float | None = None) -> None:
        """A request failed of which nothing was expected any more."""
        self.failures += 1
        # What was in flight when the first of several failed at once is one failure, not many.
        if now >= self.paused_until:
            self._failed_in_a_row = min(self._failed_in_a_row + 1, 32)
        self._pause(now, retry_after_s or _FAILURE_PAUSE_S * 2.0 ** max(0, self._failed_in_a_row - 1))

    def _pause(self, now: float, seconds: float) -> None:
        # Many clients that were told the same time do not all come back at once.
        longer = 1.0 + _PAUSE_SPREAD * self._jitter()
        self.paused_until = max(self.paused_until, now + min(seconds, _MAX_PAUSE_S) * longer)
