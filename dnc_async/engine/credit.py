"""Requests chunks before there is space for them, so that they arrive when there is. PURE except for the clock.

A chunk that is requested only when it gets space costs a round trip each time, and a budget below the gateways' bandwidth-delay
product leaves them idle meanwhile. But space is needed when bytes arrive, not when they are requested, and it is known when
space becomes free: at the next hand-overs, which follow the consumer's pace. So a chunk may be requested *on credit*, as in
credit-based flow control: earlier by the time that its bytes take to arrive. It is written to its batch's rows, which are
allocated early; if the consumer turns out to be slower, it waits there.

The cost is memory, and it is bounded. A stream has credit for what keeps its gateways busy, so for at most one chunk more than
that; and at the start, when nothing is measured yet, for its second batch. All streams of a client together have credit for
half of the bytes that may be unverified in memory: first come, first served, because no stream depends on it. A stream whose
chunks arrive in time without credit takes none: with a larger budget, the disk holds what is needed next.

*Small chunks*, smaller than a block of the disk, are always requested on credit, and never staged: a file would take more memory
of the operating system than the chunk itself, and far more time. A stream has credit for as many as take an eighth of the bytes
that may be unverified in memory, each counted with what its objects take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from dnc_async.dataset.page import ChunkEntry
from dnc_async.dataset.plan import PlannedBatch
from dnc_async.engine.pace import Pace
from dnc_async.engine.progress import Progress
from dnc_async.gateways.score import JITTERS

#: What a small chunk takes in memory besides its bytes: its objects, and a part of its batch's arrays.
_SMALL_CHUNK_BYTES = 4096
#: The share of the limit that one stream's small chunks may take; when it is reached, no more are granted until a part of
#: that is free again, so that they are requested, received and verified many at a time.
_SMALL_SHARE, _LOW_WATERMARK = 0.25, 0.85
#: A chunk needs no credit if it would arrive this many windows' time before it is needed without credit.
_IN_TIME = 2.0


class Measured(Protocol):
    """What was measured of a gateway: the figures of its :class:`~dnc_async.telemetry.GatewayStatistics` that are used here."""

    @property
    def rate(self) -> float | None:
        """Bytes per second."""

    @property
    def latency_s(self) -> float | None:
        """The seconds until an answer begins."""

    @property
    def jitter_s(self) -> float:
        """How many seconds later it begins on average."""

    @property
    def bytes(self) -> int:
        """The bytes of its verified blocks."""

    @property
    def blocks(self) -> int:
        """The number of its verified blocks."""


class BandwidthDelay(NamedTuple):
    """The bytes in flight that keep the gateways busy, and the seconds that they take to arrive.

    For each gateway it is a round trip's worth of bytes and a block. The round trip covers most answers, so it is longer where
    latencies vary. Both values are 0 if nothing was measured; ``is_of_all`` says whether every gateway was.
    """

    size_bytes: float = 0.0
    seconds: float = 0.0
    is_of_all: bool = False

    @classmethod
    def of(cls, gateways: Iterable[Measured]) -> BandwidthDelay:
        """The bandwidth-delay product of these gateways together."""
        size = rates = 0.0
        is_of_all = True
        for each in gateways:
            rate, latency_s = each.rate, each.latency_s
            if not rate or latency_s is None:
                is_of_all = False
                continue
            size += rate * (latency_s + JITTERS * each.jitter_s) + each.bytes / max(1, each.blocks)
            rates += rate
        return cls(size, size / rates, is_of_all) if rates else cls()


class CreditLimit:
    """The bytes that all streams of a client may have on credit together."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def __repr__(self) -> str:
        return f"<CreditLimit {self.used_bytes} of {self.limit_bytes} bytes>"

    def has(self, size_bytes: int) -> bool:
        """Whether ``size_bytes`` more are within the limit."""
        return self.used_bytes + size_bytes <= self.limit_bytes


class PlannedChunk(Protocol):
    """What decides about a chunk's credit."""

    batch: PlannedBatch
    entry: ChunkEntry
    proved: bool


class Credit:
    """The chunks of one stream that were requested before they had space."""

    def __init__(
        self,
        limit: CreditLimit,
        *,
        pace: Pace,
        progress: Progress,
        window: Callable[[], BandwidthDelay],
        clock: Callable[[], float],
    ) -> None:
        """``window`` returns the bytes in flight that keep the stream's gateways busy now."""
        self._limit = limit
        self._pace = pace
        self._progress = progress
        self._window = window
        self._clock = clock
        self._chunks: set[PlannedChunk] = set()
        self._small: dict[PlannedChunk, int] = {}
        self._used_bytes = self._small_bytes = 0
        self._is_full = False
        #: The most bytes that were on credit at once.
        self.peak_bytes = 0
        self._refused: PlannedChunk | None = None
        self._opens_at = float("inf")

    def __repr__(self) -> str:
        return f"<Credit {len(self._chunks) + len(self._small)} chunks, {self._used_bytes + self._small_bytes} bytes>"

    def grant(self, chunk: PlannedChunk) -> bool:
        """Whether a chunk, the first without space, may be requested now; if so, it is counted until its rows are free."""
        self._refused, self._opens_at = chunk, self._when(chunk)
        if self._opens_at > self._clock():
            return False
        self._chunks.add(chunk)
        self._count(chunk.entry.size_bytes)
        return True

    def grant_small(self, chunk: PlannedChunk) -> bool:
        """Whether a small chunk may be requested now; if so, it is counted until its rows are free."""
        size, most = chunk.entry.size_bytes + _SMALL_CHUNK_BYTES, self._limit.limit_bytes * _SMALL_SHARE
        if self._is_full and self._small_bytes > most * _LOW_WATERMARK:
            return False
        self._is_full = self._small_bytes + size > most or not self._limit.has(size)
        if self._is_full:
            return False
        self._small[chunk] = size
        self._count_small(size)
        return True

    def opens_at(self, refused: PlannedChunk | None) -> float:
        """When a refused chunk may be requested, if nothing happens before; infinite if that is not known."""
        return self._opens_at if refused is not None and refused is self._refused else float("inf")

    def settle(self, chunk: PlannedChunk) -> None:
        """The chunk's rows are free, so it is not on credit any more."""
        if chunk in self._chunks:
            self._chunks.discard(chunk)
            self._count(-chunk.entry.size_bytes)
        elif chunk in self._small:
            self._count_small(-self._small.pop(chunk))

    def close(self) -> None:
        """No more chunks will arrive: return the credit."""
        self._chunks.clear()
        self._count(-self._used_bytes)
        self._small.clear()
        self._count_small(-self._small_bytes)

    def _count(self, size_bytes: int) -> None:
        self._used_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self._used_bytes + self._small_bytes)
        self._limit.used_bytes += size_bytes

    def _count_small(self, size_bytes: int) -> None:
        self._small_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self._used_bytes + self._small_bytes)
        self._limit.used_bytes += size_bytes

    def may_begin_with(self, batch: PlannedBatch, size_bytes: int) -> bool:
        """Whether these bytes of the second batch may be requested together with the first, for which the consumer waits."""
        progress = self._progress
        return batch.position == 1 and bool(progress.wanted) and not progress.taken and self._limit.has(size_bytes)

    def _when(self, chunk: PlannedChunk) -> float:
        size, window = chunk.entry.size_bytes, self._window()
        if self.may_begin_with(chunk.batch, size):
            return self._clock()
        if not chunk.proved or self._used_bytes >= window.size_bytes or not self._limit.has(size):
            return float("inf")
        # Each hand-over frees the space of a batch, first for chunks that arrived on credit before.
        room_at = self._pace.handover_at(len(self._chunks) // len(chunk.batch.chunks))
        needed_at = self._pace.due(chunk.batch.position - self._progress.taken)
        if room_at + _IN_TIME * window.seconds <= needed_at:
            return float("inf")
        return room_at - window.seconds
