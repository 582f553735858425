"""A seeded permutation that no version of numpy changes: rows sorted by a hash of seed and row (splitmix64). PURE."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_STEP, _FIRST, _SECOND = (np.uint64(each) for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def permutation(count: int, seed: int) -> npt.NDArray[np.int64]:
    """The rows 0 to ``count`` - 1 in an order that depends on the seed alone."""
    start = _mixed(np.array([seed % 2**64], dtype=np.uint64))
    keys = _mixed(np.arange(1, count + 1, dtype=np.uint64) * _STEP + start)
    return np.argsort(keys, kind="stable").astype(np.int64)


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))
