"""A run's gaps in bounded memory: bins over the whole run, and a histogram for quantiles. PURE.

A bin contains one batch until there are too many bins. Then neighbours are merged, so that each contains two batches, later
four, and so on. So an endless run keeps its whole course, at a coarser resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: More bins than this are merged in pairs.
MAX_BINS = 1024
_GROWTH = math.log(1.02)
_SMALLEST_S = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Some consecutive batches: ``at_s`` is when the last was handed over, since the start; ``causes`` sum to ``waited_s``.

    ``step_s`` is how long the consumer worked on the batches before each of these, without waiting.
    """

    batches: int
    at_s: float
    step_s: float
    waited_s: float
    longest_s: float
    causes: dict[str, float]

    def merged(self, after: Bin) -> Bin:
        """This bin and the next one as one."""
        causes = dict(self.causes)
        for cause, seconds in after.causes.items():
            causes[cause] = causes.get(cause, 0.0) + seconds
        return Bin(
            batches=self.batches + after.batches,
            at_s=after.at_s,
            step_s=self.step_s + after.step_s,
            waited_s=self.waited_s + after.waited_s,
            longest_s=max(self.longest_s, after.longest_s),
            causes=causes,
        )


class Timeline:
    """The gaps of one stream after its first batch. Adding one takes constant time on average."""

    def __init__(self) -> None:
        self._bins: list[Bin] = []
        self._batches_per_bin = 1
        self._counts: dict[int, int] = {}
        self._gaps = 0
        self._longest_s = 0.0

    def add(self, *, at_s: float, step_s: float, waited_s: float, causes: dict[str, float]) -> None:
        """A batch was handed over."""
        new = Bin(batches=1, at_s=at_s, step_s=step_s, waited_s=waited_s, longest_s=waited_s, causes=causes)
        if self._bins and self._bins[-1].batches < self._batches_per_bin:
            self._bins[-1] = self._bins[-1].merged(new)
        else:
            self._bins.append(new)
        if len(self._bins) > MAX_BINS:
            self._halve()
        key = 0 if waited_s < _SMALLEST_S else 1 + round(math.log(waited_s / _SMALLEST_S) / _GROWTH)
        self._counts[key] = self._counts.get(key, 0) + 1
        self._gaps += 1
        self._longest_s = max(self._longest_s, waited_s)

    def _halve(self) -> None:
        pairs = [self._bins[i : i + 2] for i in range(0, len(self._bins), 2)]
        self._bins = [pair[0].merged(pair[1]) if len(pair) == 2 else pair[0] for pair in pairs]
        self._batches_per_bin *= 2

    def bins(self) -> tuple[Bin, ...]:
        """The whole run in at most :data:`MAX_BINS` bins."""
        return tuple(self._bins)

    def quantile(self, share: float) -> float:
        """The gap that this share of the gaps does not exceed, within 1 %; 0 if there are none yet."""
        rank, seen = math.ceil(share * self._gaps), 0
        for key, count in sorted(self._counts.items()):
            seen += count
            if seen >= rank:
                return min(self._longest_s, _SMALLEST_S * math.exp(_GROWTH * (key - 1))) if key else 0.0
        return 0.0

    @property
    def longest_s(self) -> float:
        """The longest gap, exactly."""
        return self._longest_s
