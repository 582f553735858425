"""The ideal stream: what a perfectly informed one would achieve with the same gateways, budget and consumer. PURE.

By the design, a chunk on disk returns its space when it has arrived *and* its rows in memory are free. The engine does better
(:class:`~dnc_async.engine.sink.Sink`): once the rows are free, the received part moves there, the rest is written there
directly, and the lease is released before the chunk is complete. By the design, a chunk is requested when it has space. The
engine does better there, too (:mod:`~dnc_async.engine.credit`): it requests earlier as many bytes as keep its gateways busy. So
without ``moves_early`` and ``window_bytes`` the model is not a bound for the engine: with a small budget, runs beat it by far.
With them it is one, except for a start with a large second batch.

It assumes gateways with one latency each, whose rates are known in advance and which send correct blocks, no other stream, and
that verifying, decoding, proofs and the hand-over take no time. What a real run waits beyond it is due to those costs, and to
what the engine could not know. A transform's calls do take their time in the model.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLink:
    """A gateway: the seconds to its first byte, and bytes per second over all its connections.

    ``changes`` are (seconds since the start, factor of the rate from then on), in order: a dead gateway has the factor 0.
    """

    latency_s: float
    rate: float
    changes: tuple[tuple[float, float], ...] = ()

    def finish(self, begins: float, size_bytes: float) -> float:
        """When this many bytes have arrived if the first one arrives at that time; infinite if they never do."""
        if not self.changes:
            return begins + size_bytes / self.rate
        rates = [(float("-inf"), 1.0), *self.changes]
        ends = [at for at, _ in self.changes] + [float("inf")]
        at, left = begins, size_bytes
        for (_, factor), end in zip(rates, ends, strict=True):
            rate = self.rate * factor
            if at < end and rate and at + left / rate <= end:
                return at + left / rate
            if at < end:
                left, at = left - rate * (end - at if rate else 0.0), end
        return float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ideal:
    """The result. ``waits`` are the seconds before each batch, including the first; ``wall_s`` ends with the last step."""

    waits: tuple[float, ...]
    wall_s: float

    @property
    def idle_share(self) -> float:
        """The share of the time after the first batch that is spent waiting."""
        steady = self.wall_s - self.waits[0]
        return max(0.0, sum(self.waits[1:]) / steady) if steady > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """A transform: a call takes this many seconds, ``workers`` run at once, and ``places`` batches have memory for it.

    The places are in addition to the one for the batch that is being received. With 0, a batch that is or was transformed keeps
    that one.
    """

    seconds: float
    workers: int
    places: int


def ideal_stream(
    batches: Sequence[Sequence[Sequence[int]]],
    *,
    links: Sequence[GatewayLink],
    budget_bytes: float,
    steps_s: Sequence[float],
    fluid: bool = False,
    moves_early: bool = False,
    window_bytes: float = 0.0,
    calls: Calls | None = None,
) -> Ideal:
    """Schedule a plan: no stream could be faster under these rules.

    ``batches`` contains, for each batch, its chunks as lists of block sizes in bytes; ``steps_s`` the consumer's time for each
    batch. Chunks are granted space in plan order, when the budget has space, or when the batch's place in memory is free
    because the batch before it was handed over. With ``fluid=False`` each block goes, in order, to the gateway where it arrives
    first (the best that whole blocks allow); with ``fluid=True`` blocks are infinitely small (a lower bound for waiting).
    ``moves_early``: whether a chunk that is being received returns its disk space once its rows in memory are free.
    ``window_bytes``: this many bytes may be requested before they have space. Changes of a gateway's rate are taken into
    account for whole blocks only.

    With ``calls``, a complete batch is transformed when a worker is free, and then handed over, in order. A batch's place in
    memory is then free when the batch before it is complete, and the batch that is as many places further back was handed over.
    """
    way = _Way(links, budget_bytes, fluid=fluid, moves_early=moves_early, window_bytes=window_bytes)
    places = calls.places if calls is not None else 0
    workers = [0.0] * (calls.workers if calls is not None else 0)  # a heap: when each is free
    whole, handed, waits = [0.0] * len(batches), [0.0] * len(batches), []
    for k, chunks in enumerate(batches):
        slot = max(whole[k - 1], handed[k - 1 - places] if k > places else 0.0) if k else 0.0
        whole[k] = ready = max([slot, *(way.bring(blocks, slot) for blocks in chunks)])
        if calls is not None:
            ready = max(ready, workers[0]) + calls.seconds
            heapq.heapreplace(workers, ready)
        asked = handed[k - 1] + steps_s[k - 1] if k else 0.0
        handed[k] = max(asked, ready)
        waits.append(handed[k] - asked)
    return Ideal(waits=tuple(waits), wall_s=handed[-1] + steps_s[len(batches) - 1])


def window_bytes(links: Sequence[GatewayLink], block_bytes: float) -> float:
    """The bytes in flight that keep these gateways busy: a round trip's worth and a block for each."""
    return sum(link.rate * link.latency_s + block_bytes for link in links)


class _Way:
    """The way from the gateways to the rows in memory: the budget, and the gateways' schedule. Chunks are added in plan order."""

    def __init__(
        self, links: Sequence[GatewayLink], budget_bytes: float, *, fluid: bool, moves_early: bool, window_bytes: float
    ) -> None:
        self._links = links
        self._window_bytes = window_bytes
        self._asked = 0.0
        self._on_credit: deque[tuple[float, int]] = deque()  # (granted at, bytes) of chunks that were asked for before
        self._credit_bytes = 0
        self._budget_bytes = budget_bytes
        self._fluid = fluid
        self._moves_early = moves_early
        self._free = [0.0] * len(links)
        self._granted = self._arrived = 0.0
        self._held: list[tuple[float, int]] = []  # (released at, bytes) of chunks that went through the disk
        self._history: list[tuple[float, int]] = []  # (asked at, bytes before this chunk) for the fluid bound
        self._total = 0

    def bring(self, blocks: Sequence[int], slot: float) -> float:
        """When a chunk is in its rows, which are free at ``slot``."""
        size = sum(blocks)
        in_memory = max(self._granted, slot)
        disk = _room(self._held, size, self._budget_bytes, self._granted)
        self._granted = min(disk, in_memory)
        asked = self._ask(size)
        self._history.append((asked, self._total))
        self._total += size
        if self._fluid:
            least = self._arrived + size / sum(link.rate for link in self._links)
            self._arrived = max(least, _service(self._history, self._total, self._links))
        else:
            self._arrived = max(self._arrived, _schedule(blocks, asked, self._free, self._links))
        released = max(self._arrived, slot)
        if in_memory > disk:
            self._held.append((max(self._granted, slot) if self._moves_early else released, size))
        return released

    def _ask(self, size: int) -> float:
        """When the next chunk can be requested: as soon as the window has space for its first byte."""
        while self._on_credit and (self._on_credit[0][0] <= self._asked or self._credit_bytes >= self._window_bytes):
            granted, other = self._on_credit.popleft()
            self._asked = max(self._asked, granted)
            self._credit_bytes -= other
        self._asked = min(self._asked, self._granted) if self._window_bytes else self._granted
        if self._asked < self._granted:
            self._on_credit.append((self._granted, size))
            self._credit_bytes += size
        return self._asked


def _room(held: list[tuple[float, int]], size: int, budget_bytes: float, not_before: float) -> float:
    """The first time at which a chunk of this size fits beside the others."""
    if size > budget_bytes:
        return float("inf")
    held[:] = [(until, other) for until, other in held if until > not_before]
    moment, used = not_before, sum(other for _, other in held)
    for until, other in sorted(held):
        if used + size <= budget_bytes:
            break
        moment, used = until, used - other
    return moment


def _schedule(blocks: Sequence[int], asked: float, free: list[float], links: Sequence[GatewayLink]) -> float:
    """Assign each block to the gateway where it arrives first; returns when the last one has arrived."""
    last = 0.0
    for size in blocks:
        ends = [link.finish(max(at, asked + link.latency_s), size) for at, link in zip(free, links, strict=True)]
        best = min(range(len(links)), key=ends.__getitem__)
        free[best] = ends[best]
        last = max(last, ends[best])
    return last


def _service(history: list[tuple[float, int]], total: int, links: Sequence[GatewayLink]) -> float:
    """When all bytes so far can have arrived: each chunk after it was requested, then at the sum of the service curves."""
    # A chunk that was requested longer ago than the longest latency and everything requested since is no constraint any more.
    return max(moment + _inverse(total - before, links) for moment, before in history[-64:])


def _inverse(size: float, links: Sequence[GatewayLink]) -> float:
    """How long after the request this many bytes can have arrived from all gateways together."""
    rate = moment = done = 0.0
    for link in sorted(links, key=lambda each: each.latency_s):
        if rate and done + rate * (link.latency_s - moment) >= size:
            break
        done += rate * (link.latency_s - moment)
        moment, rate = link.latency_s, rate + link.rate
    return moment + (size - done) / rate
