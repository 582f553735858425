"""The order in which ``upload(shuffle=SEED)`` publishes rows: sorted by a hash of seed and row. PURE."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dnc_async.dataset.order.hashing import mix, mix_each


def permutation(count: int, seed: int) -> npt.NDArray[np.int64]:
    """The rows 0 to ``count`` - 1 in an order that depends on the seed alone."""
    return np.argsort(mix_each(mix(seed), np.arange(count, dtype=np.uint64)), kind="stable").astype(np.int64)
