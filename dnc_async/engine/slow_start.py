"""Slow start: until each gateway's rate is known, only the first two batches may be requested. PURE.

Blocks that are requested from a gateway at the same time share its link. Before its rate is known, it is assumed to be as fast
as the best one, so requests for later batches would delay the first batches, and wait in the queue of the slowest gateway. A
chunk whose root must be fetched waits for that anyway, but the root arrives within a round trip, before anything is measured.
"""

from __future__ import annotations

from collections.abc import Callable

from dnc_async.engine.credit import BandwidthDelay
from dnc_async.engine.progress import Progress

#: These are not held back: the consumer works on the first one while the second one arrives.
_FIRST_BATCHES = 2
#: How long the other gateways are waited for once one is measured: one may be silent, or may not have been asked.
_PATIENCE_S = 0.1


class SlowStart:
    """Tells which batches of one stream may be requested now. Once it has ended, it does not begin again."""

    def __init__(self, *, window: Callable[[], BandwidthDelay], progress: Progress, clock: Callable[[], float]) -> None:
        """``window`` returns what is known of the stream's gateways."""
        self._window = window
        self._progress = progress
        self._clock = clock
        #: When it ends at the latest; infinity while no gateway's rate is known.
        self.until = float("inf")
        self._is_over = False

    def __repr__(self) -> str:
        return f"<SlowStart {'over' if self._is_over else 'held'}>"

    def holds_back(self, position: int) -> bool:
        """Whether a batch, by its position in the run, must not be requested yet."""
        if self._is_over or position < _FIRST_BATCHES:
            return False
        window, now = self._window(), self._clock()
        if window.size_bytes:
            self.until = min(self.until, now + _PATIENCE_S)
        self._is_over = bool(self._progress.complete) or window.is_of_all or now >= self.until
        return not self._is_over
