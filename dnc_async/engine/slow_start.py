"""Whose the gateways' lines are at the start: the first two batches', until it is known what each gateway brings. PURE.

What is asked of a gateway at once shares its line. While its rate is not known, it may be taken for as fast as the best, and
what comes after the first batches would delay them, and lie in a queue of the slowest. A chunk whose root must be fetched
waits for that anyway, but it comes within a round trip, when nothing has been measured.
"""

from __future__ import annotations

from collections.abc import Callable

from dnc_async.engine.credit import BandwidthDelay
from dnc_async.engine.progress import Progress

#: Those that the stream begins with: the consumer has one while the other comes.
_FIRST_BATCHES = 2
#: Since one gateway is known, the others are waited for so long: one may be silent, or not asked for anything.
_PATIENCE_S = 0.1


class SlowStart:
    """Says which batches of one stream may be asked for now; at its end once and for all."""

    def __init__(self, *, window: Callable[[], BandwidthDelay], progress: Progress, clock: Callable[[], float]) -> None:
        """``window`` tells what is known of the stream's gateways."""
        self._window = window
        self._progress = progress
        self._clock = clock
        #: When it ends at the latest; infinity while no gateway's rate is known.
        self.until = float("inf")
        self._is_over = False

    def __repr__(self) -> str:
        return f"<SlowStart {'over' if self._is_over else 'held'}>"

    def holds_back(self, position: int) -> bool:
        """Whether a batch, by its position in the run, leaves the lines to those before it for now."""
        if self._is_over or position < _FIRST_BATCHES:
            return False
        window, now = self._window(), self._clock()
        if window.size_bytes:
            self.until = min(self.until, now + _PATIENCE_S)
        self._is_over = bool(self._progress.complete) or window.is_of_all or now >= self.until
        return not self._is_over
