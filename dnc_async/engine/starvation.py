"""How much of the gateways' time was lost because a chunk waited for room. PURE: times are passed in.

Gateways deliver at their full rate as long as enough bytes are asked of them at once: what they send in a round trip (the
bandwidth-delay product), and a block for each. While a chunk waits for a lease, or for its rows in memory, and fewer bytes
than that are on their way, the line is only so full (Little's law), and the rest of the time is what a larger budget would
have won. It is counted in seconds of all gateways together. A line that is full loses nothing, however long a chunk waits.
"""

from __future__ import annotations

from collections.abc import Callable

from dnc_async.engine.ledger import BUDGET, ChunkTimes


class Starvation:
    """Counts for one stream, whose chunks get room one after the other."""

    def __init__(self, *, window_bytes: Callable[[], float]) -> None:
        """``window_bytes`` tells how many bytes must be on their way for all gateways to be busy; 0 is not known yet."""
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
        """The next chunk has no room yet. May be said again."""
        self._settle(now)
        if not self._held_by:
            self._window = self._window_bytes()
        self._since, self._held_by = now, held_by

    def granted(self, times: ChunkTimes, now: float) -> None:
        """The next chunk got its room, perhaps at once; its blocks are asked for now."""
        self._settle(now)
        times.granted, times.held_by, times.starved_s = now, self._held_by or BUDGET, self._lost_s
        self._held_by, self._lost_s = "", 0.0
        self._on_their_way += times.size_bytes

    def block_done(self, size_bytes: int, now: float) -> None:
        """One of the blocks came, or was given up."""
        self._settle(now)
        self._on_their_way -= size_bytes

    def _settle(self, now: float) -> None:
        if self._held_by:
            on_their_way = max(0, self._on_their_way)
            if on_their_way < self._window:
                self._lost_s += (1.0 - on_their_way / self._window) * (now - self._since)
            self._since = now
