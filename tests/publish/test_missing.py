"""Missing values, Python's dates and decimals, and the options of reading: nothing is lost without a word."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc
from dnc_async.dataset.ragged import Ragged

from .rounds import publish

StringDType = np.dtypes.StringDType
NAN = float("nan")
MASKED = np.ma.masked_array
NAIVE, DAY = dt.datetime(2024, 1, 5, 12), dt.date(2024, 1, 5)  # noqa: DTZ001 - numpy's times have no zone
ZONED = dt.datetime(2024, 1, 5, 14, tzinfo=dt.timezone(dt.timedelta(hours=2)))

VALUES: dict[str, tuple[Any, list[Any], list[bool] | None]] = {
    "text": (["a", None], ["a", ""], [True, False]),
    "text and NaN": (["a", NAN], ["a", ""], [True, False]),
    "objects": (np.array(["a", NAN], dtype=object), ["a", ""], [True, False]),
    "numpy's text": (np.array(["x", None], StringDType(na_object=None)), ["x", ""], [True, False]),
    "numpy's text with NaN": (np.array(["x", NAN], StringDType(na_object=NAN)), ["x", ""], [True, False]),
    "bytes": ([None, b"a"], [b"", b"a"], [False, True]),
    "numbers": ([1, None], [1, 0], [True, False]),
    "booleans": ([True, None], [True, False], [True, False]),
    "floats": ([1.5, None], [1.5, NAN], None),
    "rows": ([[1, 2], None], [[1, 2], [0, 0]], [True, False]),
    "nothing": ([None, None], [NAN, NAN], None),
    "numpy's dates": ([np.datetime64("2024-01-05"), None], [DAY, None], None),
    "masked": (MASKED([1, 2, 3], [0, 1, 0]), [1, 0, 3], [True, False, True]),
    "masked floats": (MASKED([1.0, 2.0], [0, 1]), [1.0, NAN], [True, False]),
    "masked dates": (MASKED(np.array(["2024-01-05", "2024-01-06"], "M8[D]"), [0, 1]), [DAY, None], [True, False]),
    "nothing masked": (MASKED([1, 2], [0, 0]), [1, 2], None),
    "a masked value": ([1.0, np.ma.masked], [1.0, NAN], None),
    "dates": ([DAY, None], [DAY, None], None),
    "datetimes": ([NAIVE, NAIVE], [NAIVE, NAIVE], None),
    "datetimes of a zone": ([ZONED], [NAIVE], None),
    "times of day": ([dt.time(1, 2, 3, 4)], [dt.timedelta(hours=1, minutes=2, seconds=3, microseconds=4)], None),
    "durations": ([dt.timedelta(1)], [dt.timedelta(1)], None),
    "decimals": ([Decimal("1.10"), None, Decimal("1E+3")], ["1.10", "", "1000"], [True, False, True]),
    "UUIDs": ([uuid.UUID(int=1)], ["00000000-0000-0000-0000-000000000001"], None),
}


@pytest.mark.parametrize("name", VALUES)
async def test_values(name: str, tmp_path: Path) -> None:
    """A float's gap is NaN, a time's NaT; for others there is a mask beside the column."""
    values, expected, valid = VALUES[name]
    done, found = await publish({"a": values, "n": list(range(len(expected)))}, tmp_path)
    assert repr(found["a"]) == repr(expected)
    assert found.get("a__valid") == valid
    assert list(found) == ["a", *(["a__valid"] if valid else []), "n"]
    assert len(done.notes) == (name in ("nothing", "datetimes of a zone"))


async def test_filled_or_refused(tmp_path: Path) -> None:
    for values in (["a", None], MASKED([[1, 2], [3, 4]], [[0, 0], [0, 1]])):
        _, found = await publish({"a": values}, tmp_path, missing="fill")
        assert list(found) == ["a"]
        with pytest.raises(dnc.DatasetError, match="column 'a', row 1: the value is missing; fill it in"):
            await dnc.upload({"a": values}, store=tmp_path / "store", missing="error")
    with pytest.raises(dnc.DatasetError, match=r"'0__valid' says which values are missing.*pass a dict"):
        await dnc.upload(["a", None], store=tmp_path / "store")


async def test_masks_within_a_row(tmp_path: Path) -> None:
    """Have the shape of their array."""
    _, found = await publish({"a": MASKED(np.ones((2, 2)), [[0, 0], [0, 1]])}, tmp_path)
    assert repr(found["a"]) == "[[1.0, 1.0], [1.0, nan]]"
    assert found["a__valid"] == [[True, True], [True, False]]


REFUSED: dict[str, tuple[Any, str]] = {
    "zones beside none": ([ZONED, NAIVE], "datetimes with a time zone beside others without one"),
    "a time of day with a zone": ([dt.time(1, tzinfo=dt.UTC)], "row 0: a time of day with a time zone"),
    "no digits": ([Decimal("NaN")], "row 0: NaN is no decimal"),
    "a word beside numbers and a gap": ([1, None, "x"], "row 0: 1 is a int beside str"),
    "a set beside a gap": ([None, {1}], "row 1: a set"),
    "a masked object": (MASKED([object()], [1]), "row 0: the value is masked"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(name: str, tmp_path: Path) -> None:
    values, message = REFUSED[name]
    with pytest.raises(dnc.DatasetError, match=f"column 'a'.*{message}"):
        await dnc.upload({"a": values}, store=tmp_path / "store")


def rows() -> Iterator[dict[str, Any]]:
    yield {"t": None, "d": Decimal("1.5"), "w": ZONED}
    yield {"t": "x", "d": None, "w": None}


async def later() -> AsyncIterator[dict[str, Any]]:
    for row in rows():
        yield row


async def test_samples(tmp_path: Path) -> None:
    """One by one, as a list, and from an async iterable."""
    expected = {
        "t": ["", "x"],
        "t__valid": [False, True],
        "d": ["1.5", ""],
        "d__valid": [True, False],
        "w": [NAIVE, None],
    }
    for source, options in ((rows(), {"samples": True}), (list(rows()), {}), (later(), {"samples": True})):
        _, found = await publish(source, tmp_path, **options)
        assert found == expected
    for samples, message in (
        ([("x", 1), (None, 2)], "sample|a value is missing|needs a name"),
        ([{"a": None}], "none of them has a value for 'a'"),
        ([{"a": ZONED}, {"a": NAIVE}], "sample 1: datetimes with a time zone beside"),
    ):
        with pytest.raises(dnc.DatasetError, match=message):
            await dnc.upload(iter(samples), samples=True, store=tmp_path / "store")


async def test_blocks(tmp_path: Path) -> None:
    """A block without gaps has the mask of the blocks before it; a gap that comes first in a later block is refused."""
    _, found = await publish(iter([{"a": ["x", None], "b": [1, 2]}, {"a": ["y"], "b": [3]}]), tmp_path)
    assert found == {"a": ["x", "", "y"], "a__valid": [True, False, True], "b": [1, 2, 3]}
    blocks = [{"a": ["x"], "b": [1]}, {"a": [None], "b": [2]}, {"a": [None, "y"], "b": [2, 3]}]
    with pytest.raises(
        dnc.DatasetError, match="block 1 of the source, column 'a': a value is missing, and none was before"
    ):
        await dnc.upload(iter(blocks[::2]), store=tmp_path / "store")
    _, found = await publish(iter(blocks[::2]), tmp_path, missing="fill")
    assert found == {"a": ["x", "", "y"], "b": [1, 2, 3]}


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"missing": "drop"}, "missing: expected 'mask', 'error' or 'fill', got 'drop'"),
    "decimals": ({"decimals": 1}, "decimals: expected 'text' or 'float'"),
    "header": ({"header": 2}, "header: expected True, False or None"),
    "length": ({"length": 0}, "length: expected a whole number of at least 1"),
    "pack": ({"pack": True}, "pack: expected a whole number"),
    "stride": ({"stride": 2}, "stride: .* length="),
    "both": ({"length": 2, "pack": 2}, "length: .*give one of them"),
    "encoding": ({"encoding": "klingon"}, "encoding: 'klingon' is no text encoding"),
    "no encoding": ({"encoding": "base64"}, "encoding: 'base64' is no text encoding"),
    "samples": ({"samples": "yes"}, "samples: expected True or False"),
}


@pytest.mark.parametrize("name", OPTIONS)
async def test_options(name: str, tmp_path: Path) -> None:
    options, message = OPTIONS[name]
    with pytest.raises(dnc.ArgumentError, match=message):
        await dnc.upload({"a": [1]}, store=tmp_path / "store", **options)


def test_long_samples_are_gathered_one_by_one() -> None:
    """And short ones at once; both as numpy would."""
    for size in (3, 1000):
        samples = [bytes([i]) * (i * size) for i in range(5)]
        assert Ragged.of(samples)[[3, 0, -1, 3]] == [samples[3], samples[0], samples[4], samples[3]]
