"""How much of the gateways' time was lost because a chunk waited for room. PURE: times are passed in.

While a chunk waits for a lease, or for its rows in memory, and fewer blocks are on their way than there are gateways, the
others could have been bringing it: so many gateway-seconds, over the number of gateways, is what a larger budget would
have won. Blocks are counted, not bytes in flight, so a gateway that is slower than the rest counts as much as they do.
"""

from __future__ import annotations

from dnc_async.engine.ledger import BUDGET, ChunkTimes


class Starvation:
    """Counts for one stream, whose chunks get room one after the other."""

    def __init__(self, *, gateways: int) -> None:
        self._gateways = max(1, gateways)
        self._on_their_way = 0
        self._held_by = ""
        self._since = 0.0
        self._lost_s = 0.0

    def __repr__(self) -> str:
        return f"<Starvation {self._on_their_way} blocks on their way{', held by ' if self._held_by else ''}{self._held_by}>"

    @property
    def idle_share(self) -> float:
        """The share of the gateways that nothing is asked of."""
        return max(0.0, 1.0 - self._on_their_way / self._gateways)

    def refused(self, now: float, held_by: str) -> None:
        """The next chunk has no room yet. May be said again."""
        self._settle(now)
        self._since, self._held_by = now, held_by

    def granted(self, times: ChunkTimes, now: float) -> None:
        """The next chunk got its room, perhaps at once; its blocks are asked for now."""
        self._settle(now)
        times.granted = now
        if self._held_by:
            times.held_by, times.starved_s, times.idle_share = self._held_by, self._lost_s, self.idle_share
        else:
            times.held_by = BUDGET
        self._held_by, self._lost_s = "", 0.0
        self._on_their_way += times.blocks

    def block_done(self, now: float) -> None:
        """One of the blocks came, or was given up."""
        self._settle(now)
        self._on_their_way -= 1

    def _settle(self, now: float) -> None:
        if self._held_by:
            self._lost_s += self.idle_share * (now - self._since)
            self._since = now
