"""A line with a rate, first come first served. Pure; time is an argument.

The line is simulated, not slept: each piece gets the instant at which its last byte has left, computed from the
instant of the piece before it. Sleeping too long therefore costs nothing: the next pieces are due earlier.
"""

from __future__ import annotations

PIECE_BYTES = 16 * 1024

_CATCH_UP_S = 0.1  # a sender that was not given the processor makes up for at most this much


class Bucket:
    """Hands out instants at ``rate`` bytes per second; after a pause at most ``burst_bytes`` leave at once."""

    def __init__(self, rate: float, *, burst_bytes: float) -> None:
        self._rate = rate
        self._burst_s = burst_bytes / rate
        self._free_s = float("-inf")

    def reserve(self, size_bytes: int, now_s: float, *, ready_s: float | None = None) -> float:
        """Put a piece in line; give the instant at which it has left and may be written.

        ``ready_s`` is when the sender had it ready, if that was before ``now_s`` and only the scheduler was late.
        """
        start_s = now_s - self._burst_s
        if ready_s is not None:
            start_s = min(start_s, max(ready_s, now_s - _CATCH_UP_S))
        self._free_s = max(self._free_s, start_s) + size_bytes / self._rate
        return self._free_s
