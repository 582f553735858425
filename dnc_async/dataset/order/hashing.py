"""Random numbers as a function of their arguments: the same on every machine, and in every version of every library. PURE.

The finaliser of SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014), applied to one
argument after the other. numpy's own generators may change from one version to the next; an order may not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Uint64s = npt.NDArray[np.uint64]

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def mix(*arguments: int) -> int:
    """A number from 0 to 2**64 - 1 for some whole numbers; their order counts."""
    state = 0
    for argument in arguments:
        state = _finalised((state ^ (argument & _MASK)) + _GAMMA & _MASK)
    return state


def _finalised(z: int) -> int:
    z = (z ^ (z >> 30)) * _FIRST & _MASK
    z = (z ^ (z >> 27)) * _SECOND & _MASK
    return z ^ (z >> 31)


def mix_each(key: int | Uint64s, values: Uint64s) -> Uint64s:
    """``mix(a, b, value)`` for each of the values, where ``key`` is ``mix(a, b)``, or one such number for each value."""
    z = (values ^ np.asarray(key, dtype=np.uint64)) + np.uint64(_GAMMA)
    z ^= z >> np.uint64(30)
    z *= np.uint64(_FIRST)
    z ^= z >> np.uint64(27)
    z *= np.uint64(_SECOND)
    z ^= z >> np.uint64(31)
    return z
