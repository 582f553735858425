"""One lane of an epoch: a part of the sequence whose rows are spread over the window. PURE.

Row ``r`` of a unit that begins at ``b`` has the key ``b + w * x``, with ``x`` from 0 to 1 by (seed, epoch, unit, row). The lane
gives its rows by their keys; those of equal keys as the sequence has them. A unit that is longer than the window is taken in
blocks of a quarter of it. So a row is never given before its unit has begun, nor more than a window later than it would be
without spreading: what must be resident is one window, whatever the dataset's size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dnc_async.dataset.order.hashing import mix, mix_each
from dnc_async.dataset.order.sequence import Ints, Rows, Sequence

#: How many rows are sorted at once, at the least, and which part of the window.
_AT_ONCE, _PART = 4096, 2
_BLOCKS = 4
Floats = npt.NDArray[np.float64]


class Lane:
    """The rows of the sequence from ``start`` to ``stop``, in their order, from the ``rank``-th on.

    ``window`` is the spread in rows; 0 leaves the sequence as it is.
    """

    def __init__(self, sequence: Sequence, *, start: int, stop: int, window: int, key: int, rank: int = 0) -> None:
        """``key`` is a number by seed and epoch."""
        self._sequence = sequence
        self._start, self._stop = start, stop
        self._window = window
        self._key = mix(key)
        self._pool = self._rows(start, start)
        #: What was sorted and not taken yet, and from which row on.
        self._sorted, self._taken = self._pool[0], 0
        self._next = start
        if window:
            self._begin_at(start + rank)
        else:
            self._next = start + rank

    def __repr__(self) -> str:
        return f"<Lane from {self._start} to {self._stop}, at {self._next}>"

    def take(self, count: int) -> Rows:
        """The next rows: ``count`` of them, or fewer at the lane's end."""
        if not self._window:
            start, self._next = self._next, min(self._stop, self._next + count)
            return self._sequence.between(start, self._next)[0]
        found = list[Rows]()
        while count > 0:
            if self._taken == len(self._sorted.units) and not self._sort_more():
                break
            end = min(self._taken + count, len(self._sorted.units))
            found.append(Rows(self._sorted.units[self._taken : end], self._sorted.rows[self._taken : end]))
            count -= end - self._taken
            self._taken = end
        return joined(found)

    def _rows(self, start: int, stop: int) -> tuple[Rows, Floats]:
        """The rows at these positions of the sequence, and their keys, which count from the start of the sequence."""
        rows, begins = self._sequence.between(start, stop)
        keys = self._bases(np.arange(start, stop, dtype=np.int64), begins).astype(np.float64)
        unit_keys = mix_each(self._key, rows.units.astype(np.uint64))
        x = mix_each(unit_keys, rows.rows.astype(np.uint64)) >> np.uint64(11)
        keys += x.astype(np.float64) * (self._window * 2.0**-53)
        return rows, keys

    def _bases(self, positions: Ints, begins: Ints) -> Ints:
        """The smallest key that the row at each position may have: where its unit begins, or its block of a long unit.

        Of a unit that the lane has only a part of, that part counts as the unit.
        """
        begins = np.maximum(begins, self._start)
        block = max(1, self._window // _BLOCKS)
        within = positions - begins
        return begins + np.where(within < self._window, 0, within // block * block)

    def _base(self, position: int) -> int:
        """The smallest key of all rows from this position on."""
        if position >= self._stop:
            return 2**62
        positions = np.array([position], dtype=np.int64)
        return int(self._bases(positions, self._sequence.between(position, position + 1)[1])[0])

    def _begin_at(self, position: int) -> None:
        """Begin with the row that so many others come before, without sorting those."""
        first = self._base(min(position, self._stop - 1)) if position > self._start else self._start
        oldest = max(self._start, first - self._window)  # all rows before this one have smaller keys
        rows, keys = self._rows(oldest, first)
        late = keys >= first
        self._pool = Rows(rows.units[late], rows.rows[late]), keys[late]
        self._next = first
        skipped = position - oldest - int(len(keys) - late.sum())
        self.take(skipped)

    def _sort_more(self) -> bool:
        """Take more rows of the sequence, and sort those that no later row can come before; ``False`` at the lane's end."""
        while True:
            stop = min(self._stop, self._next + max(_AT_ONCE, self._window // _PART))
            rows, keys = self._rows(self._next, stop)
            self._next = stop
            rows, keys = joined([self._pool[0], rows]), np.concatenate([self._pool[1], keys])
            sure = keys < self._base(stop)
            self._pool = Rows(rows.units[~sure], rows.rows[~sure]), keys[~sure]
            order = np.flatnonzero(sure)
            order = order[np.argsort(keys[order], kind="stable")]
            self._sorted, self._taken = Rows(rows.units[order], rows.rows[order]), 0
            if len(order) or stop == self._stop:
                return bool(len(order))


def joined(parts: list[Rows]) -> Rows:
    """The rows of all parts, one behind the other."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Rows(np.empty(0, np.int64), np.empty(0, np.int64))
    return Rows(np.concatenate([part.units for part in parts]), np.concatenate([part.rows for part in parts]))
