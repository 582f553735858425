"""What is a column and what a sample, whose memory is whose, and values that come back as they are, or are refused."""

from __future__ import annotations

import collections
import datetime as dt
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc
from dnc_async.dataset.ragged import Ragged
from dnc_async.publish.columns import columns_of

from .rounds import nothing_published, publish

StringDType = np.dtypes.StringDType
IMAGE = np.arange(12, dtype="u1").reshape(2, 2, 3)


class Indexed:
    """A dataset by index, as torch has them, which fills one buffer again."""

    def __init__(self) -> None:
        self._buffer = np.zeros(2)

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        self._buffer[:] = index
        return self._buffer, index


class IndexedValues:
    """Indexed like a list, and none."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, index: int) -> Any:
        return self._values[index]


class IndexedColumn(Indexed):
    """As one column, which numpy would take for a list that holds its values."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)[0]


class Sequence(collections.abc.Sequence[Any]):
    """A sequence that makes its values when it is asked, in one buffer."""

    def __init__(self, *values: Any) -> None:
        self._values, self._buffer = values, np.zeros(2)

    def __len__(self) -> int:
        return len(self._values) or 5

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self):
            raise IndexError
        self._buffer[:] = index
        return self._values[index] if self._values else self._buffer


COLUMNS_OR_SAMPLES: dict[str, tuple[Any, str, Any]] = {
    "a list of images": ([IMAGE] * 3, "array", [IMAGE.tolist()] * 3),
    "a list of lists": ([[1, 2], [3, 4]], "array", [[1, 2], [3, 4]]),
    "a list of dicts": ([{"b": 1, "a": "x"}, {"a": "y", "b": 2}], "dict", {"b": [1, 2], "a": ["x", "y"]}),
    "a list of tuples": ([(IMAGE, 0), (IMAGE, 1)], "tuple", ([IMAGE.tolist()] * 2, [0, 1])),
    "a list of numbers": ([1, 2, 3, 4], "array", [1, 2, 3, 4]),
    "a list of text": (["a\0", "\0", ""], "array", ["a\0", "\0", ""]),
    "a list of bytes": ([b"a\0", b""], "array", [b"a\0", b""]),
    "a list of uint8 of unlike lengths": ([np.zeros(2, "u1"), np.ones(1, "u1")], "array", [b"\0\0", b"\1"]),
    "a tuple of lists": (([1, 2], [3, 4]), "tuple", ([1, 2], [3, 4])),
    "a tuple of lists of text": ((["a", "b"], ["c", "d"]), "tuple", (["a", "b"], ["c", "d"])),
    "a tuple of arrays": ((np.arange(2), np.ones(2)), "tuple", ([0, 1], [1.0, 1.0])),
    "a tuple of tuples": (((1, 2), (3, 4)), "tuple", ([1, 3], [2, 4])),
    "a tuple of dicts": (({"x": 1}, {"x": 2}), "dict", {"x": [1, 2]}),
    "a deque": (collections.deque([1, 2]), "array", [1, 2]),
    "a range": (range(4), "array", [0, 1, 2, 3]),
    "by index": (Indexed(), "tuple", ([[float(i)] * 2 for i in range(5)], list(range(5)))),
    "a sequence of one buffer": (Sequence(), "array", [[float(i)] * 2 for i in range(5)]),
    "a column of one buffer": ({"x": Sequence()}, "dict", {"x": [[float(i)] * 2 for i in range(5)]}),
    "a column by index": ({"x": IndexedColumn()}, "dict", {"x": [[float(i)] * 2 for i in range(5)]}),
    "an iterator of blocks": (iter([{"x": [1, 2]}, {"x": [3]}]), "dict", {"x": [1, 2, 3]}),
    "a column without width": ({"x": np.zeros((3, 0)), "y": [1, 2, 3]}, "dict", {"x": [[]] * 3, "y": [1, 2, 3]}),
}


@pytest.mark.parametrize("name", COLUMNS_OR_SAMPLES)
async def test_columns_or_samples(name: str, tmp_path: Path) -> None:
    """It does not depend on the values, and the result says what was understood."""
    source, structure, expected = COLUMNS_OR_SAMPLES[name]
    done, found = await publish(source, tmp_path)
    assert found == expected
    assert done.structure == structure
    assert [column[0] for column in done.columns] == (
        list(expected) if structure == "dict" else [str(i) for i in range(len(done.columns))]
    )


async def test_the_result_says_types_and_shapes(tmp_path: Path) -> None:
    done, _ = await publish({"y": [1, 2], "image": [IMAGE, IMAGE], "name": ["a", "b"]}, tmp_path)
    assert done.columns == (("y", "<i8", ()), ("image", "|u1", (2, 2, 3)), ("name", "text", ()))
    assert (done.samples, done.notes) == (2, ())


def filled_again(make: Callable[[np.ndarray], Any]) -> Iterator[Any]:
    buffer = np.zeros(1, dtype="i8")
    for i in range(7):
        buffer[0] = i
        yield make(buffer)


async def later(items: Iterator[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


REUSED: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda buffer: buffer,
    "view": lambda buffer: buffer[::1],
    "dict": lambda buffer: {"x": buffer, "y": buffer[:]},
    "tuple": lambda buffer: (buffer, buffer),
    "big endian": lambda buffer: buffer.astype(">i8"),
}


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("name", REUSED)
async def test_a_buffer_that_is_filled_again(name: str, asynchronous: bool, batch_size: int, tmp_path: Path) -> None:
    """What is kept beyond the yield is ours."""
    blocks = filled_again(REUSED[name])
    done, found = await publish(later(blocks) if asynchronous else blocks, tmp_path, batch_size=batch_size)
    values = found if done.structure == "array" else list(found.values() if isinstance(found, dict) else found)[-1]
    assert values == list(range(7))


async def test_bytes_that_are_filled_again(tmp_path: Path) -> None:
    def blocks() -> Iterator[dict[str, Ragged]]:
        ragged = Ragged.of([b"a", b"bc"])
        for letter in b"ABC":
            ragged.values[:] = letter
            yield {"r": ragged}

    _, found = await publish(blocks(), tmp_path)
    assert found == {"r": [b"A", b"AA", b"B", b"BB", b"C", b"CC"]}


class Lent(collections.abc.Mapping[str, Any]):
    """A sample that makes its fields when it is asked, in one buffer."""

    def __init__(self) -> None:
        self._buffer = np.zeros(2)

    def __iter__(self) -> Iterator[str]:
        return iter("xy")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, name: str) -> np.ndarray:
        self._buffer[:] = "xy".index(name)
        return self._buffer


async def test_fields_that_are_made_in_one_buffer(tmp_path: Path) -> None:
    _, found = await publish((Lent() for _ in range(3)), tmp_path, samples=True)
    assert found == {"x": [[0.0, 0.0]] * 3, "y": [[1.0, 1.0]] * 3}


async def test_blocks_without_rows(tmp_path: Path) -> None:
    """They have no types."""
    blocks = [{"x": []}, {"x": [1, 2]}, {"x": []}, {"x": [3]}]
    assert (await publish(iter(blocks), tmp_path))[1] == {"x": [1, 2, 3]}


async def test_a_mapped_file_that_is_filled_again(tmp_path: Path) -> None:
    mapped = np.memmap(tmp_path / "m", dtype="i8", shape=2, mode="w+")

    def blocks() -> Iterator[Any]:
        for i in range(4):
            mapped[:] = i
            yield mapped

    assert (await publish(blocks(), tmp_path))[1] == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("name", ["array", "dict", "tuple"])
async def test_samples_one_by_one(name: str, asynchronous: bool, tmp_path: Path) -> None:
    """With samples=True each element is one, and its buffer may be filled again."""
    samples = filled_again(REUSED[name])
    done, found = await publish(later(samples) if asynchronous else samples, tmp_path, samples=True)
    expected = [[i] for i in range(7)]
    assert found == {"array": expected, "dict": {"x": expected, "y": expected}, "tuple": (expected, expected)}[name]
    assert done.columns[0][2] == (1,)


async def test_many_samples_make_many_blocks(tmp_path: Path) -> None:
    """Where a block of stacked samples ends leaves no trace; whole numbers, text and bytes come one a sample."""
    samples = [{"i": i, "t": f"ü{i}", "b": bytes(i % 7), "x": np.full(3, i, "f4")} for i in range(10_000)]
    columns = {"i": np.arange(10_000), "t": [s["t"] for s in samples], "b": [s["b"] for s in samples]}
    columns["x"] = np.stack([s["x"] for s in samples])
    results = [await dnc.upload(source, batch_size=999, store=tmp_path / "s") for source in (columns, samples)]
    results += [await dnc.upload(iter(samples), samples=True, batch_size=999, store=tmp_path / "s")]
    assert len({done.cid for done in results}) == 1


EXACT: dict[str, tuple[Any, str, Any]] = {
    "dates in two units": (
        [np.datetime64("2024-01-01"), np.datetime64("2024-01-01T01"), np.datetime64("NaT", "D")],
        "<M8[h]",
        [dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, 1), None],  # noqa: DTZ001 - numpy's have no zone
    ),
    "unsigned": ([2**63, 1], "<u8", [2**63, 1]),
    "floats that hold the whole numbers": ([1, 2.5, 2**53], "<f8", [1.0, 2.5, 2.0**53]),
    "objects that are numbers": (np.array([1, 2**62], dtype=object), "<i8", [1, 2**62]),
    "objects in rows": (np.array([[1, 2], [3, 4]], dtype=object), "<i8", [[1, 2], [3, 4]]),
    "numpy's scalars": ([np.float32(1), np.float32(2)], "<f4", [1.0, 2.0]),
    "numpy's scalars of unlike types": ([np.int8(1), np.int16(300)], "<i2", [1, 300]),
    "signed and unsigned": ([np.int64(1), np.uint64(2**63)], "<u8", [1, 2**63]),
    "beyond float32": ([np.float32(1), 2**24 + 1], "<f8", [1.0, 2.0**24 + 1]),
    "rows of unlike types": ([[1], [2.5]], "<f8", [[1.0], [2.5]]),
    "booleans": ([True, np.False_], "|b1", [True, False]),
    "complex": ([1j, 2], "<c16", [1j, 2 + 0j]),
    "half floats": (np.array([0.5, -2], "f2"), "<f2", [0.5, -2.0]),
    "NaN": ([1.0, float("nan")], "<f8", None),
    "dates": (np.array(["2024-01-01"], "M8[D]"), "<M8[D]", [dt.date(2024, 1, 1)]),
    "times of unlike units": ([np.datetime64("2024-01-01"), np.datetime64("2024-01-01T00:01")], "<M8[m]", None),
    "a mask that is False": (np.ma.masked_array([1, 2], [0, 0]), "<i8", [1, 2]),
    "no mask": (np.ma.masked_array([1, 2]), "<i8", [1, 2]),
    "text that may be missing and is not": (np.array(["x", "y\0"], StringDType(na_object=None)), "text", ["x", "y\0"]),
    "big endian text": (np.array(["ä", "b"]).astype(">U1"), "text", ["ä", "b"]),
    "zeros within objects": (np.array(["a\0", "\0"], dtype=object), "text", ["a\0", "\0"]),
    "column-major": (np.asfortranarray([[1, 2], [3, 4]]), "<i8", [[1, 2], [3, 4]]),
}


@pytest.mark.parametrize("name", EXACT)
async def test_exact_values(name: str, tmp_path: Path) -> None:
    """The narrowest type that holds all of them."""
    source, dtype, expected = EXACT[name]
    done, found = await publish({"x": source}, tmp_path)
    assert done.columns[0][1] == dtype
    assert expected is None or found == {"x": expected}


LOST: dict[str, tuple[Any, str]] = {
    "whole numbers of a sequence": (
        IndexedValues(2**63, -1),
        "row 0: 9223372036854775808 beside -1",
    ),
    "5000 digits": ([10**5000], "row 0: a whole number of 16610 bits fits no whole number of 64 bits"),
    "5000 digits among floats": ([0.5, 10**5000], "row 1: a whole number of 16610 bits has more than 64 bits"),
    "5000 digits within": ([[10**5000]], "row 0, row 0: a whole number of 16610 bits"),
    "a date beyond the other's unit": (
        [np.datetime64("20000-01-01"), np.datetime64(1, "ns")],
        r"row 0: 20000-01-01 cannot be given in datetime64\[ns\]",
    ),
    "arrays of such dates": (
        [np.array(["20000-01-01"], "M8[D]"), np.array([1], "M8[ns]")],
        r"row 0: .*20000-01-01.* cannot be given in datetime64\[ns\]",
    ),
    "a duration among dates": (
        [np.datetime64("2024-01-01"), np.timedelta64(1, "D")],
        "row 1: a duration beside a date",
    ),
    "months and days": ([np.timedelta64(1, "Y"), np.timedelta64(1, "D")], "units that have no common one"),
    "a number among durations": ([np.timedelta64(1, "D"), 1], "row 1: int64 beside a duration"),
    "arrays of numbers and durations": ([np.array([1], "m8[D]"), np.array([1])], "row 1: int64 beside a duration"),
    "text beside numbers": (["x", 1, 2.5], "row 1: 1 is a int beside str in row 0"),
    "bytes beside text": ([b"a", "b"], "row 0: b'a' is a bytes beside str in row 1"),
    "no common type": ([2**63, -1], "row 0: 9223372036854775808 beside -1 fits no whole number of 64 bits"),
    "30 digits": ([1, 10**29], "row 1: 100000000000000000000000000000 fits no whole number"),
    "30 digits beside floats": ([1.5, 10**29], "row 1: 100000000000000000000000000000 has more than 64 bits"),
    "inexact": ([1, 2.5, 2**53 + 1], "row 2: the whole number 9007199254740993 stands among floats"),
    "inexact beside complex": ([1j, 2**53 + 1], "row 1: the whole number"),
    "inexact beside float32": (np.array([np.float32(1), 2**53 + 1], dtype=object), "row 1: the whole number"),
    "inexact rows": ([[2**53 + 1], [2.5]], "row 0: the whole number 9007199254740993"),
    "booleans beside numbers": ([True, 2], "row 1: 2 beside booleans"),
    "rows of booleans beside numbers": ([[True], [2]], "row 1: int64 beside bool"),
    "half a character": (["a", "\ud800"], "row 1: the text holds half a character"),
    "half a character, fixed width": (np.array(["a", "\udfff"]), "row 1: the text holds half a character"),
    "half a character, objects": (np.array(["\ud800"], dtype=object), "row 0: the text holds half a character"),
    "unlike shapes": (
        [np.zeros((2, 2)), np.zeros((2, 3))],
        r"row 1: the sample has shape \(2, 3\), those before it \(2, 2\)",
    ),
    "ragged numbers": ([[1, 2], [3]], r"row 1: the sample has shape \(1,\)"),
    "numbers and lists": ([1, [2, 3]], r"row 1: the sample has shape \(2,\)"),
    "several texts a sample": ([["a", "b"]], "row 0: text and bytes must be one a sample"),
    "two axes of text": (np.array([["a", "b"]]), "text must be one string a sample"),
    "longdouble": (np.zeros(2, "g"), "differs from machine to machine")
    if np.dtype("g").itemsize > 8
    else ([None], "row 0"),
    "fields": (np.zeros(2, [("a", "i4")]), "has fields"),
    "a single number": (5, "a single int64"),
    "a single text": ("abc", "a single <U3"),
    "a generator": ((i for i in range(3)), "a generator"),
    "a dict": ({"a": [1]}, "a dict within a column; make a column of each of its keys"),
    "sets": ([{1}], "row 0: a set"),
    "objects": ([object()], "row 0: a object"),
}


@pytest.mark.parametrize("name", LOST)
async def test_values_that_would_be_lost(name: str, tmp_path: Path) -> None:
    """The column and the row are named, and nothing is published."""
    value, message = LOST[name]
    with pytest.raises(dnc.DatasetError, match=f"column 'x'.*{message}"):
        await dnc.upload({"x": value}, store=tmp_path / "store")
    assert nothing_published(tmp_path)


REFUSED_SAMPLES: dict[str, tuple[Any, str]] = {
    "empty tuples": ([()], "sample 0: an empty tuple"),
    "empty dicts": ([{}], "sample 0: an empty dict"),
    "a tuple of empty tuples": (((),), "sample 0: an empty tuple"),
    "arrays of text": ([np.array(["a"], dtype=StringDType())], "text and bytes must be one a sample"),
    "10^14 of nothing": (np.zeros((10**14, 0)), "samples or more that hold no values"),
    "a key that is missing": ([{"b": 1, "a": 2}, {"b": 1}], "sample 1 lacks 'a'"),
    "a key more": ([{"b": 1}, {"b": 1, "c": 2}], "sample 1 has 'c'"),
    "unlike forms": ([{"b": 1}, (1,)], "sample 1 is a tuple, and the first one a dict"),
    "unlike lengths": ([(1, 2), (1,)], "sample 1 has 1 fields"),
    "numbers in a tuple": ((1, 2, 3), "a single int64 .samples are taken from a list"),
    "blocks in a list": ([{"x": np.ones((2, 3))}, {"x": np.ones((1, 3))}], r"row 1: .* blocks of rows, pass iter"),
    "a name that is no text": ({1: [1]}, "column names must be text, not 1"),
    "no name": ({None: [1]}, "column names must be text, not None"),
}


@pytest.mark.parametrize("name", REFUSED_SAMPLES)
async def test_samples_that_do_not_fit(name: str, tmp_path: Path) -> None:
    source, message = REFUSED_SAMPLES[name]
    with pytest.raises(dnc.DatasetError, match=message):
        await dnc.upload(source, store=tmp_path / "store")


STREAMED: dict[str, tuple[list[Any], str]] = {
    "a whole number, then a float": ([{"y": 1}, {"y": 2.5}], "sample 1, 'y': a float, and a whole number"),
    "another shape": ([np.zeros(2), np.zeros(3)], r"sample 1: <f8\[3\], and <f8\[2\]"),
    "half a character": (["a", "\ud800"], "sample 1, row 0: the text holds half a character"),
    "more than 64 bits": ([1, 2**64], "sample 1, row 0: 18446744073709551616 fits no"),
    "another key": ([{"y": 1}, {"z": 1}], "sample 1 lacks 'y'"),
    "a list of text": ([["a", "b"]], "sample 0: text and bytes must be one a sample"),
}


@pytest.mark.parametrize("name", STREAMED)
async def test_streamed_samples_are_like_the_first(name: str, tmp_path: Path) -> None:
    """Each of them, wherever a block ends."""
    samples, message = STREAMED[name]
    with pytest.raises(dnc.DatasetError, match=message):
        await dnc.upload(iter(samples), samples=True, store=tmp_path / "store")


async def test_samples_where_blocks_are_expected(tmp_path: Path) -> None:
    """The remedy is named; and where columns are given, samples=True is refused."""
    with pytest.raises(dnc.DatasetError, match="samples=True"):
        await dnc.upload(zip([1, 2], [3, 4], strict=True), store=tmp_path / "store")
    for source in ({"x": [1]}, tmp_path / "t.npy"):
        np.save(tmp_path / "t.npy", np.arange(3))
        with pytest.raises(dnc.ArgumentError, match=r"samples: .* holds columns"):
            await dnc.upload(source, samples=True, store=tmp_path / "store")
    with pytest.raises(dnc.ArgumentError, match="samples: expected True or False"):
        await dnc.upload([1], samples="yes", store=tmp_path / "store")  # type: ignore[arg-type]


@pytest.mark.parametrize("source", [b"abc", bytearray(3), {1, 2}, None, 7, object()])
async def test_what_is_no_source(source: Any, tmp_path: Path) -> None:
    with pytest.raises(dnc.ArgumentError, match="source: "):
        await dnc.upload(source, store=tmp_path / "store")


LIMITS: dict[str, tuple[Any, str]] = {
    "columns": ({f"c{i}": [1] for i in range(4097)}, "4097 columns, at most 4096"),
    "axes": ({"x": np.zeros((1,) * 35)}, "column 'x': a sample has 34 axes, at most 32"),
    "a name": ({"n" * 4097: [1]}, "its name has 4097 bytes, at most 4096"),
    "a name's characters": ({"\ud800": [1]}, "its name holds half a character"),
}


@pytest.mark.parametrize("name", LIMITS)
async def test_what_no_reader_takes(name: str, tmp_path: Path) -> None:
    """The writer asks for the limits where the reader does."""
    source, message = LIMITS[name]
    with pytest.raises(dnc.DatasetError, match=message):
        await dnc.upload(source, store=tmp_path / "store")


@pytest.mark.parametrize("batch_size", [2**48 + 1, 2**64, 0, -1, True, 2.0, "3", None])
async def test_batch_sizes(batch_size: Any, tmp_path: Path) -> None:
    """None of them is a batch size that a reader takes; without one it is chosen."""
    if batch_size is None:
        assert (await publish([1, 2], tmp_path, batch_size=None))[1] == [1, 2]
        return
    with pytest.raises(dnc.ArgumentError, match="batch_size: expected a whole number of samples, from 1 to"):
        await dnc.upload([1], batch_size=batch_size, store=tmp_path / "store")


@pytest.mark.parametrize(
    "source",
    [{f"c{i}": [1] for i in range(4096)}, {"x": np.zeros((1,) * 33)}, {"n" * 4096: [1]}, {"ä" * 2048: [1]}, {"": [1]}],
)
async def test_at_the_limits(source: dict[str, Any], tmp_path: Path) -> None:
    """What is allowed comes back, at the largest batch size, too."""
    _, found = await publish(source, tmp_path, batch_size=2**48)
    assert list(found) == list(source)


async def test_a_manifest_that_no_reader_takes_gives_no_cid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is published was read back before."""
    monkeypatch.setattr("dnc_async.publish.columns.column_problem", lambda _: None)
    with pytest.raises(dnc.DatasetError, match="no reader would take this dataset"):
        await dnc.upload({"x": np.zeros((1,) * 35)}, store=tmp_path / "store")
    assert nothing_published(tmp_path)


async def test_names_of_columns_in_any_order(tmp_path: Path) -> None:
    """The publisher's, for dicts of any permutation; blocks may have another than the first one."""
    for names in itertools.permutations("abc"):
        _, found = await publish({name: [name] for name in names}, tmp_path)
        assert list(found.items()) == [(name, [name]) for name in names]
    _, found = await publish(iter([{"b": [1], "a": [2]}, {"a": [3], "b": [4]}]), tmp_path)
    assert list(found.items()) == [("b", [1, 4]), ("a", [2, 3])]


def test_a_list_without_values_has_no_rows() -> None:
    assert len(columns_of([], where="")[0]["0"]) == 0
