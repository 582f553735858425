"""How a chunk is divided into leaves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnc_async.publish.packing import leaf_bytes

KIB = 2**10


@pytest.mark.parametrize(
    ("chunk_bytes", "leaves"),
    [(1, 1), (287 * KIB, 1), (289 * KIB, 2), (405_000, 2), (2**20, 5), (2 * 2**20, 8), (8 * 2**20, 8), (2**23 + 1, 9)],
)
def test_how_many_leaves(chunk_bytes: int, leaves: int) -> None:
    """About 192 KiB each, 8 at most, more where a leaf would have more than 1 MiB."""
    assert -(-chunk_bytes // leaf_bytes(chunk_bytes)) == leaves


@given(st.integers(1, 2**32))
def test_leaves_are_of_one_size(chunk_bytes: int) -> None:
    """The last one is smaller by what rounding to 4 KiB leaves to it, and no more: a tiny one would be a request for little."""
    size = leaf_bytes(chunk_bytes)
    leaves = -(-chunk_bytes // size)
    assert size <= 2**20
    assert size % 4096 == 0
    assert leaves * size - chunk_bytes < 4096 * leaves
