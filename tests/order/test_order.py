"""The order of an epoch: each sample exactly once, the same global batches for any world, from any position on."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnc_async.dataset.order.epoch import Order, default_lanes, rank_part
from dnc_async.dataset.order.hashing import mix, mix_each
from dnc_async.dataset.order.permutation import Permutation
from dnc_async.dataset.order.sequence import EqualUnits, ListedUnits, Rows, Units
from dnc_async.errors import ArgumentError

GOLDEN = Path(__file__).parent / "golden_orders.json"
Sample = tuple[int, int]


def listed(rows: Rows) -> list[Sample]:
    return list(zip(rows.units.tolist(), rows.rows.tolist(), strict=True))


@st.composite
def units(draw: st.DrawFn) -> Units:
    if draw(st.booleans()):
        return EqualUnits(draw(st.integers(1, 400)), draw(st.integers(1, 60)))
    return ListedUnits(draw(st.lists(st.integers(1, 40), min_size=1, max_size=20)))


@st.composite
def orders(draw: st.DrawFn) -> Order:
    of = draw(units())
    return Order(
        units=of,
        shuffle=draw(st.booleans()),
        window=draw(st.integers(0, 500)),
        lanes=draw(st.integers(1, min(9, of.samples))),
        seed=draw(st.integers(0, 2**70)),
    )


def whole(order: Order, epoch: int, size: int, position: int = 0) -> list[list[Sample]]:
    batches, reader = list[list[Sample]](), order.epoch(epoch, position)
    while reader.position < reader.samples:
        batches.append(listed(reader.take(size)))
    return batches


@given(order=orders(), epoch=st.integers(0, 5), size=st.integers(1, 120))
@settings(max_examples=300, deadline=None)
def test_each_sample_once(order: Order, epoch: int, size: int) -> None:
    """In batches of the size that was asked for, the last one excepted."""
    batches = whole(order, epoch, size)
    everything = [sample for batch in batches for sample in batch]
    assert len(everything) == order.units.samples == len(set(everything))
    assert all(len(batch) == size for batch in batches[:-1])
    sequence = order.units.sequence(None).between(0, order.units.samples)[0]
    assert sorted(everything) == sorted(listed(sequence))
    if not order.shuffle and order.lanes == 1:
        assert everything == listed(sequence)


@given(order=orders(), epoch=st.integers(0, 3), data=st.data())
@settings(max_examples=300, deadline=None)
def test_it_goes_on_anywhere(order: Order, epoch: int, data: st.DataObject) -> None:
    """From any position, also with another batch size, with the sample that would have followed, in any lane."""
    samples = order.units.samples
    size = data.draw(st.integers(1, 50))
    stop = data.draw(st.integers(0, samples))
    reader = order.epoch(epoch, 0)
    reader.take(stop)
    assert whole(order, epoch, size, stop) == whole_from(reader, size)


def whole_from(reader: object, size: int) -> list[list[Sample]]:
    found = list[list[Sample]]()
    while reader.position < reader.samples:  # type: ignore[attr-defined]  # an Epoch
        found.append(listed(reader.take(size)))  # type: ignore[attr-defined]
    return found


@given(order=orders(), size=st.integers(1, 80), world=st.integers(1, 12))
@settings(max_examples=150, deadline=None)
def test_ranks_divide_each_batch(order: Order, size: int, world: int) -> None:
    """Every rank count has the same global batches; the parts are disjoint, complete and equal within one."""
    reader = order.epoch(1)
    while reader.position < reader.samples:
        batch = reader.take(size)
        parts = [listed(rank_part(batch, rank, world)) for rank in range(world)]
        assert [sample for part in parts for sample in part] == listed(batch)
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1


@given(order=orders(), epoch=st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_what_must_be_resident(order: Order, epoch: int) -> None:
    """No row comes more than a window and a unit later or earlier in its lane than in the sequence."""
    if not order.shuffle or order.lanes > 1:
        return
    everything = [sample for batch in whole(order, epoch, 64) for sample in batch]
    permutation = Permutation(order.units.count, mix(order.seed, epoch, 1))
    place = {
        sample: at
        for at, sample in enumerate(listed(order.units.sequence(permutation).between(0, order.units.samples)[0]))
    }
    longest = max(len([1 for unit, _ in place if unit == each]) for each in {unit for unit, _ in place})
    for at, sample in enumerate(everything):
        assert abs(at - place[sample]) <= order.window + longest


@given(length=st.integers(1, 5000), key=st.integers(0, 2**64))
@settings(max_examples=100, deadline=None)
def test_a_permutation(length: int, key: int) -> None:
    """Each element once, the same one by one and many at a time, and it can be inverted."""
    permutation = Permutation(length, key)
    elements = permutation.between(0, length).tolist()
    assert sorted(elements) == list(range(length))
    for place in {0, length // 2, length - 1}:
        assert permutation[place] == elements[place]
        assert permutation.place_of(elements[place]) == place


def test_places_that_do_not_exist() -> None:
    """They are an error, not an element."""
    permutation = Permutation(10, 1)
    for wrong in (-1, 10):
        with pytest.raises(IndexError, match="is not from 0 to 9"):
            permutation[wrong]
        with pytest.raises(IndexError, match="is not from 0 to 9"):
            permutation.place_of(wrong)
    assert repr(permutation) == "<Permutation of 10>"


def test_random_numbers_are_arguments() -> None:
    """One at a time and many at once; another argument, or another order of them, is another number."""
    many = mix_each(mix(7, 9), np.arange(5, dtype=np.uint64)).tolist()
    assert many == [mix(7, 9, value) for value in range(5)]
    assert len({mix(1, 2), mix(2, 1), mix(1), mix(1, 2, 0)}) == 4


def test_epochs_and_seeds_differ() -> None:
    """And neighbours in the source are apart."""
    order = Order(units=EqualUnits(10_000, 100), shuffle=True, window=1600, lanes=4)
    first, second = whole(order, 0, 500), whole(order, 1, 500)
    other = whole(Order(units=EqualUnits(10_000, 100), shuffle=True, window=1600, lanes=4, seed=1), 0, 500)
    assert first != second
    assert first != other
    assert first == whole(order, 0, 500)
    flat = [sample for batch in first for sample in batch]
    neighbours = sum(a[0] == b[0] and b[1] == a[1] + 1 for a, b in itertools.pairwise(flat))
    assert neighbours < 100


@pytest.mark.parametrize(("window", "batch"), [(16, 1), (16, 4), (64, 4), (256, 16)])
def test_quality(window: int, batch: int) -> None:
    """The share of one part of sorted data in a batch varies by no more than 1.25 times what that window allows."""
    unit, parts, count = 50, 10, 1000
    order = Order(
        units=EqualUnits(unit * count, unit),
        shuffle=True,
        window=window * unit,
        lanes=default_lanes(count, window * unit, unit),
    )
    share, shares = 1 / parts, list[float]()
    for epoch in range(4):
        shares += [
            sum(unit < count / parts for unit, _ in each) / len(each) for each in whole(order, epoch, batch * unit)
        ]
    limit = 1.25 * math.sqrt(share * (1 - share) / (window + batch))
    assert float(np.std(shares)) <= limit


def test_the_default_number_of_lanes() -> None:
    """A power of two: at most 8, a quarter of the window, a quarter of the units."""
    assert [default_lanes(1000, window * 10, 10) for window in (0, 3, 4, 8, 15, 16, 31, 32, 1000)] == [
        1,
        1,
        1,
        2,
        2,
        4,
        4,
        8,
        8,
    ]
    assert default_lanes(10, 10**6, 10) == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Order(units=EqualUnits(10, 5), lanes=0), "lanes=0: expected at least 1"),
        (lambda: Order(units=EqualUnits(10, 5), lanes=11), "the dataset has only 10 samples"),
        (lambda: Order(units=EqualUnits(10, 5), window=-1), "shuffle_window=-1"),
        (lambda: Order(units=EqualUnits(10, 5)).epoch(0, 11), "position 11 is not within the 10 samples"),
        (lambda: EqualUnits(0, 5), "expected at least one"),
        (lambda: ListedUnits([3, 0]), "at least one sample"),
        (lambda: ListedUnits([]), "no unit at all"),
    ],
)  # fmt: skip
def test_bad_arguments(wrong: object, said: str) -> None:
    """They are named."""
    with pytest.raises(ArgumentError, match=said):
        wrong()  # type: ignore[operator]  # a lambda


def test_golden_orders() -> None:
    """The first thousand positions of three orders are as they always were: no version changes an order unseen."""
    golden = {
        "equal": Order(units=EqualUnits(100_003, 250), shuffle=True, window=4000, lanes=4, seed=42),
        "listed": Order(
            units=ListedUnits([(n * 37) % 91 + 1 for n in range(2000)]), shuffle=True, window=700, lanes=8, seed=7
        ),
        "lanes": Order(units=EqualUnits(5003, 17), lanes=3),
    }
    found = {name: [list(sample) for sample in listed(order.epoch(3).take(1000))] for name, order in golden.items()}
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_reprs() -> None:
    """They tell the state."""
    order = Order(units=EqualUnits(100, 7), shuffle=True, window=30, lanes=2)
    epoch = order.epoch(2, 10)
    assert repr(epoch) == "<Epoch 2 at 10 of 100 samples, 2 lanes>"
    assert repr(order.units) == "<EqualUnits 15 of 7 samples>"
    assert repr(ListedUnits([1, 2])) == "<ListedUnits 2 of 3 samples>"
    assert (
        repr(ListedUnits([1, 2]).sequence(None)) == repr(EqualUnits(3, 2).sequence(None)) == "<Sequence of 3 samples>"
    )
    assert repr(epoch._lanes[0]).startswith("<Lane from 0 to 50, at ")
