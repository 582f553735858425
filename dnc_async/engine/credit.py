"""Asking for chunks before there is room for them, so that they come when there is. PURE but for the clock.

A chunk that is asked for when it gets room costs a round trip each time, and a budget that holds less than the gateways have
on their way (the bandwidth-delay product) lets them stand idle meanwhile. But room is needed when bytes come, not when they
are asked for, and when there will be some is known: at the next hand-overs, which follow the consumer's pace. So a chunk may
be asked for *on credit*, as in credit-based flow control, so long before as its bytes take to come. It lands in its batch's
rows, made early; where the consumer turns out to be slower it waits there.

What that costs is memory, and it is bounded: a stream has credit until it has used what keeps its gateways busy, so for one
chunk more at most; or at the start, when nothing is measured yet, for its second batch. All streams of a client together have
credit for half of what may be unverified in memory at once: first come, first served, because nobody depends on it. A stream
whose chunks come in time without it takes none: with a larger budget, the disk holds what is needed next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from dnc_async.dataset.plan import PlannedBatch
from dnc_async.engine.chunks import Chunk
from dnc_async.engine.pace import Pace
from dnc_async.engine.progress import Progress
from dnc_async.gateways.score import JITTERS
from dnc_async.telemetry import GatewayStatistics

#: A chunk that would come so many windows' time before it is needed, if it were asked for when it has room, needs no credit.
_IN_TIME = 2.0


class BandwidthDelay(NamedTuple):
    """How many bytes keep the gateways busy: a round trip's of each, and a block for each; and how long those take to come.

    A round trip is as long as most are, so it is longer where they vary. Both are 0 where nothing is measured; ``is_of_all``
    where every gateway is.
    """

    size_bytes: float = 0.0
    seconds: float = 0.0
    is_of_all: bool = False

    @classmethod
    def of(cls, gateways: Iterable[GatewayStatistics]) -> BandwidthDelay:
        """That of these gateways together."""
        size = rates = 0.0
        is_of_all = True
        for each in gateways:
            if not each.rate or each.latency_s is None:
                is_of_all = False
                continue
            trip_s = each.latency_s + JITTERS * each.jitter_s
            size += each.rate * trip_s + each.bytes / max(1, each.blocks)
            rates += each.rate
        return cls(size, size / rates, is_of_all) if rates else cls()


class CreditLimit:
    """What all streams of a client may have on credit together."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def __repr__(self) -> str:
        return f"<CreditLimit {self.used_bytes} of {self.limit_bytes} bytes>"

    def has(self, size_bytes: int) -> bool:
        """Whether so much more fits."""
        return self.used_bytes + size_bytes <= self.limit_bytes


class Credit:
    """One stream's chunks that were asked for before they had room."""

    def __init__(
        self,
        limit: CreditLimit,
        *,
        pace: Pace,
        progress: Progress,
        window: Callable[[], BandwidthDelay],
        clock: Callable[[], float],
    ) -> None:
        """``window`` tells what keeps the stream's gateways busy now."""
        self._limit = limit
        self._pace = pace
        self._progress = progress
        self._window = window
        self._clock = clock
        self._chunks: set[Chunk] = set()
        self._used_bytes = 0
        #: The most that was used at once.
        self.peak_bytes = 0
        self._refused: Chunk | None = None
        self._opens_at = float("inf")

    def __repr__(self) -> str:
        return f"<Credit {len(self._chunks)} chunks, {self._used_bytes} bytes>"

    def grant(self, chunk: Chunk) -> bool:
        """Whether a chunk, the first that has no room, may be asked for now; it is counted until its rows are free."""
        self._refused, self._opens_at = chunk, self._when(chunk)
        if self._opens_at > self._clock():
            return False
        self._chunks.add(chunk)
        self._count(chunk.entry.size_bytes)
        return True

    def opens_at(self, refused: Chunk | None) -> float:
        """When a chunk that was refused may be asked for, if nothing happens before; infinite where that is not known."""
        return self._opens_at if refused is not None and refused is self._refused else float("inf")

    def settle(self, chunk: Chunk) -> None:
        """Its rows are free: it has the room that it was to have."""
        if chunk in self._chunks:
            self._chunks.discard(chunk)
            self._count(-chunk.entry.size_bytes)

    def close(self) -> None:
        """Nothing comes any more."""
        self._chunks.clear()
        self._count(-self._used_bytes)

    def _count(self, size_bytes: int) -> None:
        self._used_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self._used_bytes)
        self._limit.used_bytes += size_bytes

    def may_begin_with(self, batch: PlannedBatch, size_bytes: int) -> bool:
        """Whether so much of a batch may be asked for together with the first one: it is the second, and one is waited for."""
        progress = self._progress
        return batch.position == 1 and bool(progress.wanted) and not progress.taken and self._limit.has(size_bytes)

    def _when(self, chunk: Chunk) -> float:
        size, window = chunk.entry.size_bytes, self._window()
        if self.may_begin_with(chunk.batch, size):
            return self._clock()
        if not chunk.proved or self._used_bytes >= window.size_bytes or not self._limit.has(size):
            return float("inf")
        # Each hand-over makes room for a batch, first for what came on credit before.
        room_at = self._pace.handover_at(len(self._chunks) // len(chunk.batch.chunks))
        needed_at = self._pace.due(chunk.batch.position - self._progress.taken)
        if room_at + _IN_TIME * window.seconds <= needed_at:
            return float("inf")
        return room_at - window.seconds
