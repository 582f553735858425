"""The checksum of what is staged: any fault of a disk changes it."""

from __future__ import annotations

import random

import pytest

from dnc_async.spool.checksum import checksum

DICE = random.Random(0)
DATA = DICE.randbytes(5000)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 4096, 5000])
def test_any_bit(size: int) -> None:
    """Each flipped bit is noticed, in whole sectors and behind them."""
    right = checksum(DATA[:size])
    for place in range(size):
        wrong = bytearray(DATA[:size])
        wrong[place] ^= 1 << DICE.randrange(8)
        assert checksum(memoryview(wrong)) != right
    assert checksum(memoryview(bytearray(DATA[:size]))) == right


def test_sectors() -> None:
    """One that is lost, repeated, or in another's place."""
    right, first, second = checksum(DATA), DATA[:512], DATA[512:1024]
    assert checksum(bytes(512) + DATA[512:]) != right
    assert checksum(first + first + DATA[1024:]) != right
    assert checksum(second + first + DATA[1024:]) != right
