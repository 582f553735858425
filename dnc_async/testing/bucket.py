"""A network link with a rate, first come, first served. PURE; the time is an argument.

The link is computed, not slept: the instant at which the last byte of a piece has been sent follows from that of the piece
before it. So sleeping too long costs nothing: the next pieces are due earlier.
"""

from __future__ import annotations

PIECE_BYTES = 16 * 1024

_CATCH_UP_S = 0.1  # how far a sender that was not scheduled may catch up


class Bucket:
    """Computes send times at ``rate`` bytes per second; after a pause, ``burst_bytes`` may be sent at once."""

    def __init__(self, rate: float, *, burst_bytes: float) -> None:
        self.rate = rate
        self._burst_s = burst_bytes / rate
        self._free_s = float("-inf")

    def reserve(self, size_bytes: int, now_s: float, *, ready_s: float | None = None) -> float:
        """Queue a piece; returns the instant at which it has been sent, and may be written.

        ``ready_s`` is when the sender had it ready, if that was before ``now_s`` and only the scheduler was late.
        """
        start_s = now_s - self._burst_s
        if ready_s is not None:
            start_s = min(start_s, max(ready_s, now_s - _CATCH_UP_S))
        self._free_s = max(self._free_s, start_s) + size_bytes / self.rate
        return self._free_s
