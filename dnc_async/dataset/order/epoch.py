"""The global batches of an epoch, and each rank's part of them. PURE.

Lane ``l`` of ``L`` has ``floor((N + l) / L)`` of the N samples. Before position ``p`` of the epoch it has given
``floor((p + l) / L)`` of them; these numbers add up to ``p`` (Hermite's identity), so batch ``[p, p + G)`` is what each lane
gives between the two positions, lane after lane. Rank ``r`` of ``R`` has the part from ``floor(g * r / R)`` to
``floor(g * (r + 1) / R)`` of a batch of ``g`` samples: the global batches are the same for any number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnc_async.dataset.order.hashing import mix
from dnc_async.dataset.order.permutation import Permutation
from dnc_async.dataset.order.sequence import Rows, Units
from dnc_async.dataset.order.spread import Lane, joined
from dnc_async.errors import ArgumentError

# What a random number is for: part of its arguments, so that no two uses depend on each other.
_PERMUTES, _SPREADS = 1, 2
_MOST_LANES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The order of a dataset's samples, for all epochs.

    ``shuffle`` permutes the units, and spreads rows over ``window`` samples of the sequence, differently for each ``seed`` and
    epoch. ``lanes`` parts of the sequence are read at the same time.
    """

    units: Units
    shuffle: bool = False
    window: int = 0
    lanes: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.lanes < 1:
            raise ArgumentError(f"lanes={self.lanes}: expected at least 1")
        if self.window < 0:
            raise ArgumentError(f"shuffle_window={self.window}: expected 0 samples or more")
        if self.lanes > self.units.samples:
            raise ArgumentError(f"lanes={self.lanes}: the dataset has only {self.units.samples} samples")

    def epoch(self, number: int, position: int = 0) -> Epoch:
        """The epoch of a number, from a position on."""
        return Epoch(self, number, position)


class Epoch:
    """The samples of one epoch from a position on, a batch at a time."""

    def __init__(self, order: Order, number: int, position: int) -> None:
        """``position`` counts samples."""
        samples = order.units.samples
        if not 0 <= position <= samples:
            raise ArgumentError(f"position {position} is not within the {samples} samples of an epoch")
        permutation = Permutation(order.units.count, mix(order.seed, number, _PERMUTES)) if order.shuffle else None
        sequence = order.units.sequence(permutation)
        self.samples, self.position, self.number = samples, position, number
        window = order.window // order.lanes if order.shuffle else 0
        self._lanes = [
            Lane(
                sequence,
                start=_lane_start(samples, order.lanes, lane),
                stop=_lane_start(samples, order.lanes, lane + 1),
                window=window,
                key=mix(order.seed, number, _SPREADS),
                rank=(position + lane) // order.lanes,
            )
            for lane in range(order.lanes)
        ]

    def __repr__(self) -> str:
        return f"<Epoch {self.number} at {self.position} of {self.samples} samples, {len(self._lanes)} lanes>"

    def take(self, size: int) -> Rows:
        """The next global batch of ``size`` samples, or of fewer at the end of the epoch; none if it has ended."""
        start, count = self.position, len(self._lanes)
        self.position = stop = min(self.samples, start + size)
        return joined(
            [
                each.take((stop + lane) // count - (start + lane) // count)
                for lane, each in enumerate(self._lanes)
                if (stop + lane) // count > (start + lane) // count
            ]
        )


def rank_part(batch: Rows, rank: int, world_size: int) -> Rows:
    """A rank's part of a global batch."""
    start, stop = (len(batch.units) * each // world_size for each in (rank, rank + 1))
    return Rows(batch.units[start:stop], batch.rows[start:stop])


def default_lanes(units: int, window: int, unit: int) -> int:
    """The default number of lanes of a shuffled order: it depends on the dataset and the window alone.

    The largest power of two that is at most 8, a quarter of the window in units, and a quarter of the units; at least 1.
    """
    limit = min(_MOST_LANES, window // max(1, unit) // 4, units // 4)
    return 1 << max(0, limit.bit_length() - 1)


def _lane_start(samples: int, lanes: int, lane: int) -> int:
    """Where a lane begins in the sequence: the sum of the lengths of those before it."""
    each, more = divmod(samples, lanes)
    return lane * each + max(0, lane - (lanes - more))
