"""Measures how much of the gateways' time was lost because a chunk waited for space. PURE: times are passed in.

Gateways deliver at their full rate while enough bytes are in flight: what they send in a round trip (the bandwidth-delay
product), and a block for each. While a chunk waits for a lease, or for its rows in memory, and fewer bytes than that are in
flight, the links are only partly used (Little's law), and the unused part of the time is what a larger budget would have
gained. It is counted in seconds of all gateways together. While enough bytes are in flight nothing is lost, however long a
chunk waits.
"""

from __future__ import annotations

from collections.abc import Callable

from dnc_async.engine.ledger import BUDGET, ChunkTimes


class Starvation:
    """Measures one stream, whose chunks get space one after the other."""

    def __init__(self, *, window_bytes: Callable[[], float]) -> None:
        """``window_bytes`` returns how many bytes in flight keep all gateways busy; 0 if not known yet."""
        self._window_bytes = window_bytes
        self._window = 0.0
        self._on_their_way = 0
        self._held_by = ""
        self._since = 0.0
        self._lost_s = 0.0

    def __repr__(self) -> str:
        held = f", held by {self._held_by}" if self._held_by else ""
        return f"<Starvation {self._on_their_way} of {self._window:.0f} bytes on their way{held}>"

    def refused(self, now: float, held_by: str) -> None:
        """The next chunk has no space yet. May be called repeatedly."""
        self._settle(now)
        if not self._held_by:
            self._window = self._window_bytes()
        self._since, self._held_by = now, held_by

    def granted(self, times: ChunkTimes, now: float) -> None:
        """The next chunk got its space, perhaps at once; its blocks are requested now."""
        self._settle(now)
        times.granted, times.held_by, times.starved_s = now, self._held_by or BUDGET, self._lost_s
        self._held_by, self._lost_s = "", 0.0
        self._on_their_way += times.size_bytes

    def block_done(self, size_bytes: int, now: float) -> None:
        """A block arrived, or was withdrawn."""
        self._settle(now)
        self._on_their_way -= size_bytes

    def _settle(self, now: float) -> None:
        if self._held_by:
            on_their_way = max(0, self._on_their_way)
            if on_their_way < self._window:
                self._lost_s += (1.0 - on_their_way / self._window) * (now - self._since)
            self._since = now
