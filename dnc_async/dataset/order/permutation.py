"""A permutation of 0 … n-1 that is computed at each place, not stored. PURE.

A Feistel network of six rounds over the smallest even number of bits that holds ``n`` (Luby and Rackoff 1988), with cycle
walking (Black and Rogaway, Ciphers with arbitrary finite domains, 2002): a result that is ``n`` or more is permuted again. The
domain has fewer than ``4 * n`` places, so that takes fewer than four turns on average.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dnc_async.dataset.order.hashing import Uint64s, mix, mix_each

_ROUNDS = 6


class Permutation:
    """A permutation of ``range(length)``, different for each ``key``."""

    __slots__ = ("_half", "_keys", "_mask", "length")

    def __init__(self, length: int, key: int) -> None:
        """``key`` is any whole number."""
        self.length = length
        self._half = max(1, -(-(length - 1).bit_length() // 2)) if length > 1 else 1
        self._mask = (1 << self._half) - 1
        self._keys = [mix(key, turn) for turn in range(_ROUNDS)]

    def __repr__(self) -> str:
        return f"<Permutation of {self.length}>"

    def __getitem__(self, place: int) -> int:
        """The element at a place."""
        if not 0 <= place < self.length:
            raise IndexError(f"{place} is not from 0 to {self.length - 1}")
        while True:
            place = self._turned(place, self._keys)
            if place < self.length:
                return place

    def place_of(self, element: int) -> int:
        """The place of an element."""
        if not 0 <= element < self.length:
            raise IndexError(f"{element} is not from 0 to {self.length - 1}")
        while True:
            element = self._turned_back(element)
            if element < self.length:
                return element

    def between(self, start: int, stop: int) -> Uint64s:
        """The elements at the places from ``start`` to ``stop`` (exclusive)."""
        found = np.arange(start, stop, dtype=np.uint64)
        left = np.arange(len(found))
        while len(left):
            turned = self._each_turned(found[left])
            found[left] = turned
            left = left[turned >= np.uint64(self.length)]
        return found

    def _turned(self, place: int, keys: list[int]) -> int:
        left, right = place >> self._half, place & self._mask
        for key in keys:
            left, right = right, left ^ (mix(key, right) & self._mask)
        return left << self._half | right

    def _turned_back(self, element: int) -> int:
        left, right = element >> self._half, element & self._mask
        for key in reversed(self._keys):
            left, right = right ^ (mix(key, left) & self._mask), left
        return left << self._half | right

    def _each_turned(self, places: Uint64s) -> Uint64s:
        half, mask = np.uint64(self._half), np.uint64(self._mask)
        left, right = places >> half, places & mask
        for key in self._keys:
            left, right = right, left ^ (mix_each(mix(key), right) & mask)
        return left << half | right


def permuted(count: int, seed: int) -> npt.NDArray[np.int64]:
    """The numbers 0 to ``count`` - 1 in an order that depends on the seed alone: that of ``upload(shuffle=SEED)``."""
    return Permutation(count, seed).between(0, count).astype(np.int64)
