"""The units of a dataset, and the sequence of all samples that an epoch makes of them. PURE."""

from __future__ import annotations

from collections.abc import Sequence as List
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from dnc_async.dataset.order.permutation import Permutation
from dnc_async.errors import ArgumentError

Ints = npt.NDArray[np.int64]


class Rows(NamedTuple):
    """Samples, by unit and row in the unit; both arrays are of one length."""

    units: Ints
    rows: Ints


class Sequence(Protocol):
    """All samples of an epoch, in the order of its units. Positions are numbers from 0 to ``samples - 1``."""

    @property
    def samples(self) -> int:
        """The number of samples."""

    def between(self, start: int, stop: int) -> tuple[Rows, Ints]:
        """The samples at the positions from ``start`` to ``stop`` (exclusive), and where the unit of each begins."""


class Units(Protocol):
    """The units of a dataset, by number, as they were published."""

    @property
    def count(self) -> int:
        """The number of units."""

    @property
    def samples(self) -> int:
        """The number of samples of all units."""

    def sequence(self, permutation: Permutation | None) -> Sequence:
        """The samples with the units in this order, or as they were published."""


class EqualUnits:
    """Units of one size, the last of which may be shorter: their places are computed."""

    def __init__(self, samples: int, unit: int) -> None:
        """``unit`` is the number of samples of a unit."""
        if samples < 1 or unit < 1:
            raise ArgumentError(f"{samples} samples in units of {unit}: expected at least one each")
        self.samples = samples
        self.unit = unit

    def __repr__(self) -> str:
        return f"<EqualUnits {self.count} of {self.unit} samples>"

    @property
    def count(self) -> int:
        """The number of units."""
        return -(-self.samples // self.unit)

    def sequence(self, permutation: Permutation | None) -> Sequence:
        """The samples with the units in this order, or as they were published."""
        return _EqualSequence(self, permutation)


class _EqualSequence:
    def __init__(self, units: EqualUnits, permutation: Permutation | None) -> None:
        self.samples = units.samples
        self._unit = units.unit
        self._permutation = permutation
        last = units.count - 1
        #: Behind the short unit, everything is earlier by what is missing of it.
        self._missing = units.count * units.unit - units.samples
        short_at = last if permutation is None or not self._missing else permutation.place_of(last)
        self._after_short = (short_at + 1) * units.unit - self._missing

    def __repr__(self) -> str:
        return f"<Sequence of {self.samples} samples>"

    def between(self, start: int, stop: int) -> tuple[Rows, Ints]:
        """The samples at the positions from ``start`` to ``stop`` (exclusive), and where the unit of each begins."""
        positions = np.arange(start, stop, dtype=np.int64)
        shift = np.where(positions >= self._after_short, np.int64(self._missing), np.int64(0))
        places, rows = np.divmod(positions + shift, np.int64(self._unit))
        if self._permutation is None or not len(places):
            return Rows(places, rows), positions - rows
        first = int(places[0])
        elements = self._permutation.between(first, int(places[-1]) + 1).astype(np.int64)
        return Rows(elements[places - first], rows), positions - rows


class ListedUnits:
    """Units of any sizes, which are in memory: 8 bytes each, and as many for an epoch's order."""

    def __init__(self, sizes: List[int]) -> None:
        """``sizes`` are the numbers of samples."""
        self._sizes = np.asarray(sizes, dtype=np.int64)
        if not len(self._sizes) or (self._sizes < 1).any():
            raise ArgumentError("a unit without samples, or no unit at all: expected at least one sample in each")
        self.samples = int(self._sizes.sum())

    def __repr__(self) -> str:
        return f"<ListedUnits {self.count} of {self.samples} samples>"

    @property
    def count(self) -> int:
        """The number of units."""
        return len(self._sizes)

    def sequence(self, permutation: Permutation | None) -> Sequence:
        """The samples with the units in this order, or as they were published."""
        count = self.count
        order = (
            np.arange(count, dtype=np.int64) if permutation is None else permutation.between(0, count).astype(np.int64)
        )
        return _ListedSequence(order, np.concatenate([[0], np.cumsum(self._sizes[order])]))


class _ListedSequence:
    def __init__(self, order: Ints, begins: Ints) -> None:
        self._order = order
        self._begins = begins
        self.samples = int(begins[-1])

    def __repr__(self) -> str:
        return f"<Sequence of {self.samples} samples>"

    def between(self, start: int, stop: int) -> tuple[Rows, Ints]:
        """The samples at the positions from ``start`` to ``stop`` (exclusive), and where the unit of each begins."""
        positions = np.arange(start, stop, dtype=np.int64)
        places = np.searchsorted(self._begins, positions, side="right") - 1
        begins = self._begins[places]
        return Rows(self._order[places], positions - begins), begins
