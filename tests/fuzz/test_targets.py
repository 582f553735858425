"""A short fuzzing run, the same each time: ``nox -s fuzz`` is the long one, guided by coverage.

Besides what a target raises, its steps and its memory are bounded by the length of its input.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import operator
import sys
import tracemalloc
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dnc_async.errors import DncError

from .corpus import corpus
from .published import published
from .targets import TARGETS, VALUES, call

#: What each input costs besides, in calls and in bytes; the report's model alone computes 512 batches, five times.
_CALLS, _CALLS_PER_BYTE = 1_000_000, 100
_MEMORY_BYTES, _MEMORY_PER_BYTE = 2**24, 100


@contextlib.contextmanager
def bounded(size_bytes: int) -> Iterator[None]:
    """Raise an error where what is called takes more steps or memory than the length of its input allows."""
    calls = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal calls
        calls += event.endswith("call")

    tracemalloc.start()
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(before)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert calls <= _CALLS + _CALLS_PER_BYTE * size_bytes
    assert peak <= _MEMORY_BYTES + _MEMORY_PER_BYTE * size_bytes


def mutated(name: str) -> st.SearchStrategy[bytes]:
    """An input of the corpus with some bytes changed, removed, repeated or put in; or any bytes."""

    @st.composite
    def change(draw: st.DrawFn) -> bytes:
        data = bytearray(draw(st.sampled_from(corpus()[name])))
        for _ in range(draw(st.integers(0, 4))):
            at = draw(st.integers(0, len(data)))
            piece = draw(st.binary(max_size=8) | st.sampled_from(_WORDS))
            data[at : at + draw(st.integers(0, 9))] = piece
        return bytes(data)

    return change() | st.binary(max_size=200)


#: Numbers and words at which parsers go wrong.
_WORDS = [bytes(9), b"\xff" * 10, b"\x80" * 9 + b"\x01", (2**63).to_bytes(8, "little"), (2**31).to_bytes(4, "big")]
_WORDS += [
    b"\xdd\xff\xff\xff\xff",
    b"\xcf" + b"\xff" * 8,
    b"\x9f",
    b"\xdf",
    b"1e308",
    b"-1",
    b"[]",
    b"{}",
    b"0",
    b"9" * 30,
]


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_our_errors(name: str) -> None:
    """Whatever the bytes are."""

    @settings(max_examples=50, derandomize=True, database=None)
    @given(mutated(name))
    def run(data: bytes) -> None:
        with bounded(len(data)):
            call(name, data)

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    """What is right is read, else nothing behind it is fuzzed."""
    inputs = corpus()[name]
    for data in inputs[:: 1 + len(inputs) // 100]:
        with bounded(len(data)), contextlib.suppress(DncError if name == "report_values" else ()):
            TARGETS[name](data)


def places(wire: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in a report."""
    items = wire.items() if isinstance(wire, dict) else enumerate(wire) if isinstance(wire, list) else ()
    for name, value in items:
        yield (*above, name)
        yield from places(value, (*above, name))


def test_a_report_of_many_gateways() -> None:
    """One URL of a megabyte makes no table of a gigabyte."""
    wire = json.loads(published()[1])
    wire["gateways"] = [{**wire["gateways"][0], "url": url} for url in ["u" * 10**6, *("u" * 200 for _ in range(199))]]
    data = json.dumps(wire).encode()
    with bounded(len(data)):
        TARGETS["report"](data)


@pytest.mark.parametrize("also", [{}, {"batches": 0, "budget_bytes": 0, "waited_s": 0.0}])
def test_each_value_of_a_report(also: dict[str, object]) -> None:
    """Each number that breaks something, in each place."""
    good = {**json.loads(published()[1]), **also}
    for *way, name in places(good):
        for value in VALUES:
            wire = copy.deepcopy(good)
            place = functools.reduce(operator.getitem, way, wire)
            place[name] = value
            call("report", json.dumps(wire).encode())
