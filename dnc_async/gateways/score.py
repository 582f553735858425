"""What was measured of one gateway: its rate, latency and failures, what is in flight, and when it may be asked again. PURE.

:mod:`~dnc_async.gateways.scoreboard` chooses gateways by these numbers, and explains the policy behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dnc_async.gateways.dag_range import CarQuery, Scope
from dnc_async.gateways.want import Want

# Assumed before any gateway was measured.
_PRIOR_RATE = 5e6
_PRIOR_LATENCY_S = 0.1
_MEMORY_BYTES = 8e6  # sums of bytes and busy time decay with this constant…
_MEMORY_S = 2.0  # …or this one, whichever is shorter
_ENOUGH_S, _ENOUGH_BYTES = 0.02, 2**17  # the first bytes arrive with the header, and would look infinitely fast
_SMALL_BYTES = 16 * 2**10  # a smaller block measures the cost of a request, not the rate
_LATENCY_RISE, _JITTER_RISE = 0.05, 0.2
_LARGEST_EXCESS_S = 0.5  # an answer that is late by seconds says nothing about the others
#: Most answers begin within the latency and this many times the jitter.
JITTERS = 2
_WINDOW_GAIN = 1.25
_WINDOW_BLOCKS = 2
_SLACK_S = 0.001  # an answer may begin this long before the one before it has ended; earlier, it would slow that down
# Before a gateway's first bytes have arrived, its rate is not known. Until then its window is this many bytes, and grows after
# a while at this rate, up to this many bytes for all gateways together. With a larger window at once, a gateway that is near
# and slow would get everything. Tiny blocks, such as a file's root, are not counted.
_FIRST_BYTES, _FIRST_RATE, _FIRST_OF_ALL_BYTES, _TINY_BYTES = 5 * 2**18, 32e6, 4 * 2**20, 2**13
_FIRST_WAIT_S, _FIRST_STEP_S = 0.02, 0.004
_FAILURE_PAUSE_S, _MISMATCH_PAUSE_S, _MAX_PAUSE_S = 0.25, 0.1, 60.0
_PAUSE_SPREAD = 0.25
# A paused gateway is asked sooner than its pause says if all others are paused too, unless it named the time itself.
_LAST_RESORT_S = 3.0
_BURST_REQUESTS, _BURST_SHARE = (
    10.0,
    0.05,
)  # of a minute's requests, at most this many, or this share, may go out at once
_FORGIVEN_AFTER = 16
_OVERDUE_S, _OVERDUE_FACTOR = 1.0, 4.0
_SILENCE_S, _SILENCE_LATENCIES, _SILENCE_JITTERS, _LATE_FACTOR = 0.15, 2.0, 4.0, 3.0
_STALE_S = 5.0  # an estimate older than this is worth a block


@dataclass(slots=True)
class Best:
    """The best rate and latency of all gateways: assumed for those that were not measured yet."""

    rate: float = _PRIOR_RATE
    latency_s: float = _PRIOR_LATENCY_S
    gateways: int = 1

    def refresh(self, scores: Iterable[Score]) -> None:
        """Update from the scores of all gateways."""
        scores = tuple(scores)
        self.gateways = len(scores)
        self.rate = max((score.rate for score in scores if score.rate), default=_PRIOR_RATE)
        if any(score.rate is None for score in scores):
            # Else a gateway that trickles, if measured first, would set the standard for all.
            self.rate = max(self.rate, _PRIOR_RATE)
        # A gateway that was not measured may be nearer than all others. If it counted as near as the best, it would not be asked
        # while the best is free, which behind a small budget is always.
        known = [_PRIOR_LATENCY_S if score.latency_s is None else score.latency_s for score in scores]
        self.latency_s = min(known, default=_PRIOR_LATENCY_S)


@dataclass(slots=True)
class _Request:
    """One request on the wire: its size in bytes, and how many of its blocks are still to come."""

    size_bytes: int
    missing: int
    last_at: float = float("-inf")


@dataclass(slots=True)
class _Sent:
    """A requested block, and when the model expects it."""

    request: _Request
    size_bytes: int
    sent_at: float
    begins_at: float
    due_at: float
    received_bytes: int = 0

    @property
    def missing_bytes(self) -> int:
        """How many bytes of the block are still to come."""
        return max(0, self.size_bytes - self.received_bytes)


class Score:
    """What was measured of one gateway. Times are seconds of the injected clock."""

    def __init__(
        self,
        best: Best | None = None,
        jitter: Callable[[], float] = lambda: 0.0,
        requests_per_minute: float | None = None,
    ) -> None:
        self._best = best or Best()
        self._jitter = jitter
        # The burst is part of what a minute allows, not in addition to it.
        per_minute = requests_per_minute or 0.0
        self._burst = min(_BURST_REQUESTS, max(1.0, per_minute * _BURST_SHARE))
        self._requests_per_s = None if requests_per_minute is None else (per_minute - self._burst + 1) / 60
        self._allowance, self._allowance_at = self._burst, float("-inf")
        self.blocks = self.bytes = self.rejected = self.failures = 0
        self.latency_s: float | None = None
        #: How much later than ``latency_s`` answers begin: a moving average, in seconds.
        self.jitter_s = 0.0
        self.paused_until = 0.0
        self._told_until = self._distrusted_until = 0.0
        self._failed_at = self._retry_at = float("inf")
        #: Bytes per second while the gateway has something to send; ``None`` until enough was measured.
        self.rate: float | None = None
        self._bytes_sum = self._busy_sum = 0.0
        self._last_delivery = self._last_arrival = self._last_sent = float("-inf")
        self._in_flight: dict[object, _Sent] = {}
        self._requests = 0
        #: How many requested bytes have not arrived.
        self.in_flight_bytes = 0
        self._cars: dict[object, tuple[CarQuery, int]] = {}
        self._busy_since = float("-inf")
        self._renews = False  # the next measurement replaces the sums, because they are too old
        self._failed_in_a_row = 0
        self._distrust = 0
        self._good_in_a_row = 0

    @property
    def in_flight(self) -> int:
        """The number of open requests."""
        return self._requests

    @property
    def has_open_cars(self) -> bool:
        """Whether a CAR request is open, which may bring blocks that are not wanted yet."""
        return bool(self._cars)

    @property
    def is_asked(self) -> bool:
        """Whether any requested block has not arrived."""
        return bool(self._in_flight)

    @property
    def is_scarce(self) -> bool:
        """Whether the number of requests is limited, so that each should bring as much as possible."""
        return self._requests_per_s is not None

    def likely_rate(self) -> float:
        """The measured rate, or the best rate of all gateways."""
        return self.rate or self._best.rate

    def likely_latency(self) -> float:
        """The measured latency, or the best latency of all gateways."""
        return self._best.latency_s if self.latency_s is None else self.latency_s

    @property
    def last_resort_at(self) -> float:
        """When it may be asked if no gateway is usable: earlier than ``paused_until``, unless it named that time itself."""
        return max(self._told_until, min(self.paused_until, self._retry_at))

    def is_stale(self, now: float) -> bool:
        """Whether the gateway was measured, but was sent no request for a long time."""
        return not self._in_flight and self.latency_s is not None and now - self._last_sent >= _STALE_S

    def allowed_at(self, now: float, before: int = 0) -> float:
        """When the gateway's requests per minute allow one more request, after ``before`` others that are not sent yet."""
        if self._requests_per_s is None:
            return now
        missing = before + 1 - self._allowed(now)
        return now + max(0.0, missing / self._requests_per_s)

    def _allowed(self, now: float) -> float:
        rate = self._requests_per_s or 0.0
        since = max(0.0, now - self._allowance_at) if self._allowance_at > float("-inf") else 0.0
        return min(self._burst, self._allowance + since * rate)

    def spend_request(self, now: float) -> bool:
        """Whether a request that brings no block may be sent now; if so, count it."""
        if self.paused_until > now or self.allowed_at(now) > now:
            return False
        self._allowance, self._allowance_at = self._allowed(now) - 1, now
        return True

    def free_at(self, now: float) -> float:
        """When everything in flight will have arrived, by the model."""
        free, latency, rate = self._last_arrival, self.likely_latency(), self.likely_rate()
        for sent in self._in_flight.values():
            missing = sent.size_bytes - sent.received_bytes
            free = max(free, sent.sent_at + latency) + (missing / rate if missing > 0 else 0.0)
        return max(free, now)

    def window_bytes(self, size_bytes: int, now: float = float("-inf")) -> float:
        """How many bytes may be in flight at once, for blocks of ``size_bytes``."""
        if self.rate is None or self.latency_s is None:
            grown = _FIRST_BYTES + _FIRST_RATE * max(0.0, now - self._busy_since - _FIRST_WAIT_S)
            return max(size_bytes, _FIRST_BYTES, min(grown, _FIRST_OF_ALL_BYTES / self._best.gateways))
        longest = self.latency_s + JITTERS * self.jitter_s
        return _WINDOW_GAIN * self.rate * longest + _WINDOW_BLOCKS * self._usual_bytes(size_bytes)

    def has_window(self, size_bytes: int, now: float) -> bool:
        """Whether the window has space for another block of this size, and it is time to request it."""
        fits = self.fits(size_bytes, self.in_flight_bytes, now)
        return not self._in_flight or (fits and (self.rate is None or self.next_send_at(now) <= now))

    def fits(self, size_bytes: int, in_flight_bytes: float, now: float) -> bool:
        """Whether the window has space for another block of this size beside ``in_flight_bytes``."""
        if self.rate is None and size_bytes <= _TINY_BYTES:
            return True
        return in_flight_bytes + size_bytes <= self.window_bytes(size_bytes, now)

    def next_send_at(self, now: float) -> float:
        """When to send the next request: so that its answer begins when the link becomes free, and hardly earlier."""
        if self.rate is None or self.latency_s is None:
            grows = now - self._busy_since < _FIRST_WAIT_S + _FIRST_OF_ALL_BYTES / _FIRST_RATE
            return now + _FIRST_STEP_S if self._in_flight and grows else now
        return self.free_at(now) - self.lead_s()

    def lead_s(self) -> float:
        """How many seconds before the link becomes free the next request is sent."""
        return self.likely_latency() + JITTERS * self.jitter_s + _SLACK_S

    def _usual_bytes(self, size_bytes: int) -> int:
        """The size of the blocks in flight, or ``size_bytes`` if larger: a file's small last block must not shrink the window."""
        return max(size_bytes, next((sent.size_bytes for sent in self._in_flight.values()), 0))

    @property
    def waits_since(self) -> float:
        """When the oldest request was sent, or the last block was delivered if that was later; infinity if nothing is asked."""
        oldest = next(iter(self._in_flight.values()), None)
        return float("inf") if oldest is None else max(oldest.sent_at, self._last_delivery)

    def overdue_at(self) -> float:
        """When the oldest request will count as overdue."""
        oldest = next(iter(self._in_flight.values()), None)
        if oldest is None:
            return float("inf")
        return self.waits_since + max(_OVERDUE_S, _OVERDUE_FACTOR * (oldest.due_at - oldest.sent_at))

    def late_at(self) -> Iterable[tuple[float, object]]:
        """When each requested block will count as late: because no bytes arrive, or it takes far longer than the model says."""
        latency = self.likely_latency()
        patience = max(_SILENCE_S, _SILENCE_LATENCIES * latency, _SILENCE_JITTERS * self.jitter_s)
        pace, size, sharing = max(self.likely_rate(), self._best.rate), -1, 0.0
        for key, sent in self._in_flight.items():
            silent = max(sent.begins_at, sent.request.last_at)
            if sent.size_bytes != size:  # most are alike
                # Blocks that were requested later share the link with it: at most a window's worth. This is taken at the best
                # gateway's rate, because by its own rate a gateway that trickles would never be late.
                size = sent.size_bytes
                sharing = self.window_bytes(size) / pace
            slow = sent.due_at + max(patience, _LATE_FACTOR * (sent.due_at - sent.sent_at)) + sharing
            yield min(silent + patience, slow), key

    def sent(self, key: object, size_bytes: int, now: float) -> None:
        """Record that a request for one block is sent."""
        self.sent_run([(key, size_bytes)], now)

    def sent_run(self, run: Sequence[tuple[object, int]], now: float) -> None:
        """Record that a request for several blocks, as (key, bytes), is sent. They will arrive in this order."""
        begins = max(self.free_at(now), now + self.likely_latency())
        self._busy_since = self._busy_since if self._in_flight else now
        self._allowance, self._allowance_at = self._allowed(now) - 1, now
        stale = self.is_stale(now)
        self._renews = self._renews or stale
        # A stale estimate counts as the best gateway's: else a slow gateway that is tried again would never count as late.
        self._expect(run, now, begins, max(self.likely_rate(), self._best.rate) if stale else self.likely_rate())
        self._last_sent = now

    def joined(self, key: object, size_bytes: int, now: float) -> None:
        """Record that a block is expected from a request that is open already."""
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

    def opened_car(self, request: object, query: CarQuery) -> None:
        """Record that a CAR was requested: blocks that it covers need no request of their own."""
        self._cars[request] = query, query.start

    def advanced_car(self, request: object, position: int) -> None:
        """Record that everything before byte ``position`` of a CAR has arrived."""
        if request in self._cars:
            self._cars[request] = self._cars[request][0], position

    def closed_car(self, request: object) -> None:
        """Record that a CAR request brings nothing more."""
        self._cars.pop(request, None)

    def covering(self, want: Want) -> object | None:
        """The open CAR request that will bring a block, if there is one."""
        for request, (query, position) in self._cars.items():
            if request not in want.sent_by and any(query.covers(within, position) for within in want.within):
                return request
        return None

    def directory_with(self, want: Want) -> CarQuery | None:
        """The query of the open CAR of a directory that will bring a block, if there is one."""
        request = self.covering(want)
        query = self._cars[request][0] if request is not None else None
        return query if query is not None and query.scope is Scope.ALL else None

    def first_byte(self, key: object, now: float) -> None:
        """Record that the answer to a request begins."""
        sent = self._in_flight.get(key)
        if sent is not None:
            sample = now - sent.sent_at
            known = self.latency_s
            self.latency_s = sample if known is None else min(sample, known + _LATENCY_RISE * (sample - known))
            excess = min(sample - self.latency_s, _LARGEST_EXCESS_S)
            self.jitter_s += _JITTER_RISE * (excess - self.jitter_s)

    def received(self, key: object, size_bytes: int, now: float) -> None:
        """Record that more bytes of an answer arrived."""
        sent = self._in_flight.get(key)
        if sent is None or not size_bytes:  # negative, if bytes of a CAR's next block were counted to this one
            return
        if sent.request.size_bytes >= _SMALL_BYTES:
            self._measure(size_bytes, now - max(self._last_arrival, sent.sent_at + self.likely_latency()))
        self.in_flight_bytes -= sent.missing_bytes
        sent.received_bytes += size_bytes
        self.in_flight_bytes += sent.missing_bytes
        sent.request.last_at = self._last_arrival = now

    def received_unexpected(self, size_bytes: int, now: float) -> None:
        """Record that bytes of a CAR arrived that belong to no expected block."""
        nothing_yet = self._last_arrival == float("-inf")
        began = self._last_sent + self.likely_latency() if nothing_yet else self._last_arrival
        self._measure(size_bytes, now - began)
        self._last_arrival = now

    def resumed(self, now: float) -> None:
        """Record that reading resumes, after a pause during which the gateway could not send because of us."""
        self._last_arrival = max(self._last_arrival, now)

    def _measure(self, size_bytes: int, busy_s: float) -> None:
        busy_s = max(busy_s, 1e-6)
        keep = 0.0 if self._renews else max(0.0, 1.0 - max(size_bytes / _MEMORY_BYTES, busy_s / _MEMORY_S))
        self._renews = False
        self._busy_sum = self._busy_sum * keep + busy_s
        self._bytes_sum = self._bytes_sum * keep + size_bytes
        enough = self._busy_sum >= _ENOUGH_S or self._bytes_sum >= _ENOUGH_BYTES
        self.rate = self._bytes_sum / self._busy_sum if enough else None

    def delivered(self, key: object, size_bytes: int, now: float) -> None:
        """Record that a block arrived completely (it is not verified yet)."""
        sent = self._in_flight.get(key)
        if sent is not None:
            self.received(key, size_bytes - sent.received_bytes, now)
            self._forget(key)
            if sent.sent_at > self._failed_at:  # asked as a last resort: it works again
                self.paused_until = min(self.paused_until, max(now, self._told_until, self._distrusted_until))
        self._last_delivery = now
        self._failed_in_a_row = 0

    def verified(self, size_bytes: int, *, is_wanted: bool = True) -> None:
        """Record that a block was verified. Only a wanted block counts in the gateway's favour after wrong ones."""
        self.blocks += 1
        self.bytes += size_bytes
        self._good_in_a_row += is_wanted
        if self._good_in_a_row >= _FORGIVEN_AFTER:
            self._distrust, self._good_in_a_row = max(0, self._distrust - 1), 0

    def mismatched(self, now: float) -> None:
        """Record that a block did not match its CID: pause the gateway, longer each time."""
        self.rejected += 1
        self.distrust(now)

    def distrust(self, now: float) -> None:
        """Pause the gateway, longer each time; a run of good blocks undoes one doubling."""
        self._good_in_a_row = 0
        self._pause(now, _MISMATCH_PAUSE_S * 2.0**self._distrust)
        self._distrusted_until = self.paused_until
        self._distrust = min(self._distrust + 1, 32)

    def beaten(self, key: object, now: float) -> bool:
        """Record that another gateway brought the block first. Returns whether the block was late here.

        This is a failure only if the block was late and no other block has arrived from this gateway since it was requested.
        """
        sent = self._in_flight.get(key)
        is_late = sent is not None and any(at <= now for at, late in self.late_at() if late is key)
        if is_late and sent is not None and self._last_delivery < sent.sent_at:
            self.failed(key, now)
        else:
            self.missed(key)
        return is_late

    def missed(self, key: object) -> None:
        """Stop expecting a block, which is not the gateway's fault."""
        self._forget(key)

    def failed(self, key: object, now: float, retry_after_s: float | None = None) -> None:
        """Record that a request for a block failed, perhaps with a pause that the gateway asked for."""
        if self._forget(key):
            self.refused(now, retry_after_s)

    def refused(self, now: float, retry_after_s: float | None = None) -> None:
        """Record that a request failed from which no block was expected any more."""
        self.failures += 1
        # If several requests in flight fail at once, that is one failure.
        if now >= self.paused_until:
            self._failed_in_a_row = min(self._failed_in_a_row + 1, 32)
        self._pause(now, retry_after_s or _FAILURE_PAUSE_S * 2.0 ** max(0, self._failed_in_a_row - 1))
        if retry_after_s:
            self._told_until = self.paused_until

    def _pause(self, now: float, seconds: float) -> None:
        # Clients that were told the same time must not all come back at once.
        longer = 1.0 + _PAUSE_SPREAD * self._jitter()
        self.paused_until = max(self.paused_until, now + min(seconds, _MAX_PAUSE_S) * longer)
        self._failed_at, self._retry_at = now, now + _LAST_RESORT_S * longer
