"""Tables of pandas, polars and Arrow, where they are installed: their columns, and what would be lost of them."""

from __future__ import annotations

import datetime as dt
import decimal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc
from dnc_async.dataset.formats.arrow_columns import ArrowColumns
from dnc_async.dataset.formats.options import ReadOptions

from ..conftest import PATIENCE_S
from .rounds import publish

NAN = float("nan")
KEPT: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "numbers and text": lambda pd: (
        pd.DataFrame({"b": [1, 2], "a": ["x", "y"], "f": [0.5, np.nan]}).drop(columns="f"),
        {"b": [1, 2], "a": ["x", "y"]},
    ),
    "nullable whole numbers": lambda pd: (
        pd.DataFrame({"a": pd.array([1, 2**53 + 1], dtype="Int64")}),
        {"a": [1, 2**53 + 1]},
    ),
    "nullable booleans": lambda pd: ({"a": pd.Series([True, False], dtype="boolean")}, {"a": [True, False]}),
    "categories": lambda pd: (pd.DataFrame({"c": pd.Categorical(["a", "b", "a"])}), {"c": ["a", "b", "a"]}),
    "categories of numbers": lambda pd: (pd.DataFrame({"c": pd.Categorical([3, 1])}), {"c": [3, 1]}),
    "objects that are numbers": lambda pd: ({"c": pd.Series([1, 2**62], dtype=object)}, {"c": [1, 2**62]}),
    "X and y": lambda pd: (
        (pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}), pd.Series([0, 1])),
        ([[1.0, 3.0], [2.0, 4.0]], [0, 1]),
    ),
    "a series": lambda pd: (pd.Series([1, 2]), [1, 2]),
    "a series' array": lambda pd: ({"a": pd.array([1, 2**53 + 1])}, {"a": [1, 2**53 + 1]}),
    "sparse floats": lambda pd: ({"a": pd.Series(pd.arrays.SparseArray([0.0, 0.5]))}, {"a": [0.0, 0.5]}),
}
NONE_AT_1 = [True, False]
MISSING: dict[str, tuple[Callable[[Any], Any], dict[str, list[Any]]]] = {
    "Int64": (
        lambda pd: pd.DataFrame({"a": pd.array([2**53 + 1, None], dtype="Int64")}),
        {"a": [2**53 + 1, 0], "a__valid": NONE_AT_1},
    ),
    "boolean": (
        lambda pd: {"a": pd.Series([True, None], dtype="boolean")},
        {"a": [True, False], "a__valid": NONE_AT_1},
    ),
    "text": (lambda pd: pd.DataFrame({"a": ["x", None]}), {"a": ["x", ""], "a__valid": NONE_AT_1}),
    "objects": (lambda pd: {"a": pd.Series(["x", None], dtype=object)}, {"a": ["x", ""], "a__valid": NONE_AT_1}),
    "NaN beside text": (
        lambda pd: {"a": pd.Series(["x", np.nan], dtype=object)},
        {"a": ["x", ""], "a__valid": NONE_AT_1},
    ),
    "text of Python's": (
        lambda pd: {"a": pd.Series(["x", None], dtype="string[python]")},
        {"a": ["x", ""], "a__valid": NONE_AT_1},
    ),
    "categories": (
        lambda pd: pd.DataFrame({"a": pd.Categorical(["x", None])}),
        {"a": ["x", ""], "a__valid": NONE_AT_1},
    ),
    "categories of numbers": (
        lambda pd: pd.DataFrame({"a": pd.Categorical([7, None])}),
        {"a": [7, 0], "a__valid": NONE_AT_1},
    ),
    "NA in a list": (lambda pd: {"a": ["x", pd.NA]}, {"a": ["x", ""], "a__valid": NONE_AT_1}),
    "NA in a series' array": (
        lambda pd: {"a": pd.array([2**53 + 1, None])},
        {"a": [2**53 + 1, 0], "a__valid": NONE_AT_1},
    ),
    "bytes": (lambda pd: {"a": pd.Series([b"x", None], dtype=object)}, {"a": [b"x", b""], "a__valid": NONE_AT_1}),
    "dates": (
        lambda pd: {"a": pd.Series([dt.date(2024, 1, 5), None], dtype=object)},
        {"a": [dt.date(2024, 1, 5), None]},
    ),
}
ZONED = [dt.datetime(2024, 1, 1, 11)]  # noqa: DTZ001 - numpy's times have no zone
MAPPED: dict[str, tuple[Callable[[Any], Any], dict[str, list[Any]]]] = {
    "a zone": (
        lambda pd: pd.DataFrame({"t": pd.to_datetime(["2024-01-01T12:00+01:00"]).as_unit("us")}),
        {"t": ZONED},
    ),
    "a zone in a series' array": (
        lambda pd: {"t": pd.date_range("2024-01-01 12:00", periods=1, tz="Europe/Berlin", unit="us").array},
        {"t": ZONED},
    ),
    "a zone in an index": (
        lambda pd: {"t": pd.date_range("2024-01-01 12:00", periods=1, tz="Europe/Berlin", unit="us")},
        {"t": ZONED},
    ),
    "timestamps": (
        lambda pd: {"t": [pd.Timestamp("2024-01-01T12:00:00.000000001+01:00")]},
        {"t": [1704106800000000001]},
    ),
    "durations": (lambda pd: {"t": [pd.Timedelta("1ns")]}, {"t": [1]}),
    "an index": (lambda pd: pd.DataFrame({"a": [1, 2]}, index=["x", "y"]), {"index": ["x", "y"], "a": [1, 2]}),
    "a filtered index": (lambda pd: pd.DataFrame({"a": [1, 2, 3]})[1:], {"index": [1, 2], "a": [2, 3]}),
    "a named index": (lambda pd: pd.DataFrame({"a": [1]}).rename_axis("id"), {"id": [0], "a": [1]}),
    "two levels": (
        lambda pd: pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([("x", 5)], names=["k", None])),
        {"k": ["x"], "level_1": [5], "a": [1]},
    ),
    "a series' array without a series": (lambda pd: {"a": pd.array(["x"], dtype="string")}, {"a": ["x"]}),
    "periods as text": (lambda pd: {"a": pd.period_range("2024", periods=1, freq="M").astype(str)}, {"a": ["2024-01"]}),
}
LOST: dict[str, tuple[Callable[[Any], Any], str]] = {
    "objects of unlike types": (
        lambda pd: {"a": pd.Series(["x", 1, None], dtype=object)},
        "column 'a', row 1: 1 is a int",
    ),
    "a list of tables": (lambda pd: [pd.DataFrame({"a": [1]})] * 2, "row 0: a table is no sample"),
    "names that are numbers": (lambda pd: pd.DataFrame(np.ones((2, 2))), "column names must be text, not 0"),
    "a name twice": (lambda pd: pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns are named 'a'"),
    "an index of a column's name": (
        lambda pd: pd.DataFrame({"index": [1]}, index=["x"]),
        "two columns are named 'index'",
    ),
    "a mask of a column's name": (
        lambda pd: pd.DataFrame({"a": ["x", None], "a__valid": [1, 2]}),
        "two columns would be named 'a__valid'",
    ),
    "unlike dtypes as one array": (
        lambda pd: (pd.DataFrame({"a": [1.0], "b": [2**53 + 1]}), [0]),
        "column '0': a table with columns of unlike dtypes",
    ),
    "gaps in one array": (
        lambda pd: (pd.DataFrame({"a": pd.array([1, None])}), [0, 1]),
        "column '0', column 'a': missing values",
    ),
    "series that are not aligned": (
        lambda pd: {"x": pd.Series([1, 2], index=[1, 0]), "y": pd.Series([1, 2])},
        "'x' and 'y' have unlike indexes",
    ),
    "periods": (lambda pd: {"a": pd.period_range("2024", periods=2, freq="M")}, "row 0: a Period"),
    "no name for a mask": (lambda pd: ([1, 2], pd.Series(["x", None])), "'1__valid' .* needs a name: pass a dict"),
    "a series in a row": (lambda pd: [[pd.array([1, None])]], "the value is missing"),
    "a table in a column": (lambda pd: {"a": __import__("polars").DataFrame({"x": [1]})}, "a table within a column"),
}


@pytest.mark.parametrize("name", KEPT)
async def test_pandas(name: str, tmp_path: Path) -> None:
    """Exactly, in the table's order."""
    source, expected = KEPT[name](pytest.importorskip("pandas"))
    _, found = await publish(source, tmp_path)
    assert found == expected
    assert not isinstance(found, dict) or list(found) == list(expected)


@pytest.mark.parametrize("name", [*MISSING, *MAPPED])
async def test_mapped(name: str, tmp_path: Path) -> None:
    """What is missing has a mask, or its own value for it; an index is a column, and zones are UTC."""
    make, expected = {**MISSING, **MAPPED}[name]
    source = make(pytest.importorskip("pandas"))
    done, found = await publish(source, tmp_path)
    assert found == expected
    assert list(found) == [column[0] for column in done.columns] == list(expected)
    assert len(done.notes) == ("zone" in name or name == "timestamps")


@pytest.mark.parametrize("name", MISSING)
async def test_missing_values_are_filled_or_refused(name: str, tmp_path: Path) -> None:
    make, expected = MISSING[name]
    pandas = pytest.importorskip("pandas")
    _, found = await publish(make(pandas), tmp_path, missing="fill")
    assert found == {"a": expected["a"]}
    if "a__valid" in expected:
        with pytest.raises(dnc.DatasetError, match="column 'a', row 1: the value is missing"):
            await dnc.upload(make(pandas), store=tmp_path / "store", missing="error")


@pytest.mark.parametrize("name", LOST)
async def test_pandas_refused(name: str, tmp_path: Path) -> None:
    """With column, row and remedy."""
    make, message = LOST[name]
    with pytest.raises(dnc.DatasetError, match=message):
        await dnc.upload(make(pytest.importorskip("pandas")), store=tmp_path / "store")


async def test_a_missing_float_is_nan(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    done, found = await publish({"a": pd.Series([1.5, None], dtype="Float64")}, tmp_path)
    assert done.columns == (("a", "<f8", ()),)
    assert found["a"][0] == 1.5
    assert np.isnan(found["a"][1])


async def test_polars(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"b": [1, 2], "a": ["x", None], "c": pl.Series(["u", "v"], dtype=pl.Categorical)})
    expected = [("b", [1, 2]), ("a", ["x", ""]), ("a__valid", NONE_AT_1), ("c", ["u", "v"])]
    for source in (frame, frame.lazy(), {name: frame[name] for name in frame.columns}):
        _, found = await publish(source, tmp_path)
        assert list(found.items()) == expected
    with pytest.raises(dnc.DatasetError, match="column 'a', row 1: a list of 2 values, and 1 in the rows before"):
        await dnc.upload(pl.DataFrame({"a": [[1], [2, 3]]}), store=tmp_path / "store")
    with pytest.raises(dnc.DatasetError, match="column 'a': Python objects cannot be published"):
        await dnc.upload({"a": pl.Series([object()])}, store=tmp_path / "store")
    with pytest.raises(dnc.DatasetError, match="column 'a': Python objects"):
        await dnc.upload(pl.DataFrame({"a": [object()]}), store=tmp_path / "store")


async def test_arrow(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"b": pa.chunked_array([[1], [2, 3]]), "a": pa.array(["x", "y", "x"]).dictionary_encode()})

    class Exported:
        def __arrow_c_stream__(self, requested: Any = None) -> Any:
            return table.__arrow_c_stream__(requested)

    for source in (table, table.to_reader(), Exported(), {"b": table["b"], "a": table["a"]}):
        _, found = await publish(source, tmp_path)
        assert list(found.items()) == [("b", [1, 2, 3]), ("a", ["x", "y", "x"])]
    with pytest.raises(dnc.DatasetError, match="values with fields"):
        await dnc.upload([pa.array([{"a": 1, "b": 2}])], store=tmp_path / "store")
    _, found = await publish([pa.array([1, 2]), pa.array([3, 4])], tmp_path)
    assert found == [[1, 2], [3, 4]]


D = decimal.Decimal
TIME = dt.datetime(1000, 1, 1, 12)  # noqa: DTZ001 - numpy's times have no zone
#: Values, their Arrow type, and what comes back.
ARROW: dict[str, tuple[list[Any], Callable[[Any], Any], dict[str, list[Any]]]] = {
    "unsigned": ([2**64 - 1, None], lambda pa: pa.uint64(), {"a": [2**64 - 1, 0], "a__valid": NONE_AT_1}),
    "booleans": ([True, None], lambda pa: pa.bool_(), {"a": [True, False], "a__valid": NONE_AT_1}),
    "half floats": ([0.5, 1.5], lambda pa: pa.float16(), {"a": [0.5, 1.5]}),
    "large text": (["ü", None], lambda pa: pa.large_string(), {"a": ["ü", ""], "a__valid": NONE_AT_1}),
    "views of text": (["ü" * 20, None], lambda pa: pa.string_view(), {"a": ["ü" * 20, ""], "a__valid": NONE_AT_1}),
    "bytes": ([b"\0\0", None], lambda pa: pa.binary(), {"a": [b"\0\0", b""], "a__valid": NONE_AT_1}),
    "bytes of one length": ([b"\0\0", b"ab"], lambda pa: pa.binary(2), {"a": [b"\0\0", b"ab"]}),
    "decimals": (
        [D("12345678901234567890123456.7891"), D("-0.0001"), D(0)],
        lambda pa: pa.decimal128(38, 10),
        {"a": ["12345678901234567890123456.7891000000", "-0.0001000000", "0.0000000000"]},
    ),
    "times of the year 1000": ([TIME, None], lambda pa: pa.timestamp("us"), {"a": [TIME, None]}),
    "times with a zone": (
        [dt.datetime(2024, 1, 1, 11, tzinfo=dt.UTC)],
        lambda pa: pa.timestamp("us", tz="Europe/Berlin"),
        {"a": ZONED},
    ),
    "dates": ([dt.date(1, 1, 1), None], lambda pa: pa.date32(), {"a": [dt.date(1, 1, 1), None]}),
    "long dates": ([dt.date(9999, 12, 31)], lambda pa: pa.date64(), {"a": [dt.date(9999, 12, 31)]}),
    "times of day": ([dt.time(1, 2, 3)], lambda pa: pa.time32("s"), {"a": [dt.timedelta(seconds=3723)]}),
    "durations": ([dt.timedelta(1)], lambda pa: pa.duration("us"), {"a": [dt.timedelta(1)]}),
    "nothing": ([None, None], lambda pa: pa.null(), {"a": [NAN, NAN]}),
    "lists": ([[1, 2], None], lambda pa: pa.list_(pa.int64()), {"a": [[1, 2], [0, 0]], "a__valid": NONE_AT_1}),
    "fixed lists": ([[1.5, None]], lambda pa: pa.list_(pa.float64(), 2), {"a": [[1.5, NAN]]}),
    "lists of lists": ([[[1], [2]]], lambda pa: pa.large_list(pa.list_(pa.int8())), {"a": [[[1], [2]]]}),
    "views of lists": ([[1], [2]], lambda pa: pa.list_view(pa.int8()), {"a": [[1], [2]]}),
    "lists of bytes": (
        [[1], None, [2, 3]],
        lambda pa: pa.list_(pa.uint8()),
        {"a": [b"\1", b"", b"\2\3"], "a__valid": [1, 0, 1]},
    ),
    "no lists": ([None], lambda pa: pa.list_(pa.int64()), {"a": [[]], "a__valid": [False]}),
    "fields": (
        [{"x": 1, "y": {"z": "u"}}, None],
        lambda pa: pa.struct([("x", pa.int64()), ("y", pa.struct([("z", pa.string())]))]),
        {"a.x": [1, 0], "a.x__valid": NONE_AT_1, "a.y.z": ["u", ""], "a.y.z__valid": NONE_AT_1},
    ),
    "files": (
        [{"bytes": b"x", "path": "p"}, None],
        lambda pa: pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        {"a": [b"x", b""], "a__valid": NONE_AT_1},
    ),
    "files that are elsewhere": (
        [{"bytes": None, "path": "p"}],
        lambda pa: pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        {"a.bytes": [b""], "a.bytes__valid": [False], "a.path": ["p"]},
    ),
    "no files": (
        [{"bytes": "x", "path": "p"}],
        lambda pa: pa.struct([("bytes", pa.string()), ("path", pa.string())]),
        {"a.bytes": ["x"], "a.path": ["p"]},
    ),
}
REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a gap in a list": (lambda pa: [[1, 2], [1, None]], "row 1: a value within the list is missing"),
    "lists of text": (lambda pa: [["x"]], "lists of text"),
    "ragged lists": (lambda pa: [[1], [2, 3]], "row 1: a list of 2 values, and 1"),
    "ragged bytes with a gap": (lambda pa: pa.array([[1], [2, None]], pa.list_(pa.uint8())), "row 1: a list of 2"),
    "maps": (lambda pa: pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), "map.* cannot be published"),
    "no fields": (lambda pa: pa.array([{}], pa.struct([])), "an object without fields"),
    "half a character": (
        lambda pa: pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers()),
        "not UTF-8 text",
    ),
}


@pytest.mark.parametrize("name", ARROW)
async def test_types_of_arrow(name: str, tmp_path: Path) -> None:
    """Each has one mapping; whatever the pieces and offsets of its array are."""
    pa = pytest.importorskip("pyarrow")
    values, kind, expected = ARROW[name]
    array = pa.array(values, kind(pa))
    sliced = pa.array([*values, *values], kind(pa)).slice(len(values))
    for source in (array, sliced, pa.chunked_array([array[:1], array[1:]], array.type)):
        _, found = await publish(pa.table({"a": source}), tmp_path)
        assert repr(list(found.items())) == repr(list(expected.items())).replace("[1, 0, 1]", "[True, False, True]")


async def test_what_arrow_wraps(tmp_path: Path) -> None:
    """Dictionaries and runs are their values, extension types their storage, and an empty column has its type."""
    pa = pytest.importorskip("pyarrow")
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array([2**53 + 1, None]))
    _, found = await publish(
        pa.table(
            {"d": pa.array(["x", None, "y"]).dictionary_encode(), "r": runs, "u": pa.array([b"x" * 16] * 3, pa.uuid())}
        ),
        tmp_path,
    )
    assert found["d"] == ["x", "", "y"]
    assert found["r"] == [2**53 + 1, 2**53 + 1, 0]
    assert found["r__valid"] == [True, True, False]
    assert found["u"] == [b"x" * 16] * 3
    columns = ArrowColumns("t", ReadOptions(), masked=["d"]).of_table(
        pa.schema({"u": pa.uuid(), "d": pa.string(), "t": pa.date32()}).empty_table()
    )
    assert {name: len(column) for name, column in columns.items()} == {"u": 0, "d": 0, "d__valid": 0, "t": 0}


async def test_decimals_as_floats(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"a": pa.array([D("1.5"), None])})
    _, found = await publish(table, tmp_path, decimals="float")
    assert repr(found) == "{'a': [1.5, nan]}"
    _, found = await publish({"a": [D("1.5"), None]}, tmp_path, decimals="float")
    assert repr(found) == "{'a': [1.5, nan]}"


@pytest.mark.parametrize("name", REFUSED)
async def test_arrow_refused(name: str, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    pa = pytest.importorskip("pyarrow")
    with pytest.raises(dnc.DatasetError, match=f"column 'a'.*{message}"):
        await dnc.upload(pa.table({"a": make(pa)}), store=tmp_path / "store")


async def test_two_columns_of_one_name(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    with pytest.raises(dnc.DatasetError, match=r"two columns would be named 'a\.x'"):
        await dnc.upload(pa.table({"a": [{"x": 1}], "a.x": [1]}), store=tmp_path / "store")
    with pytest.raises(dnc.DatasetError, match=r"two columns are named 'a\.x'"):
        ArrowColumns("t", ReadOptions()).of_table(pa.table({"a": [{"x": 1}], "a.x": [1]}))


async def test_without_pyarrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The extra is named."""
    pl = pytest.importorskip("polars")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(dnc.DatasetError, match=r"needs pyarrow.*pip install 'dnc-async\[tables\]'"):
        await dnc.upload(pl.DataFrame({"a": [1]}), store=tmp_path / "store")


async def test_lists_in_tables(tmp_path: Path) -> None:
    """Of one length, with floats that may be missing; and tensors in their shape."""
    pa = pytest.importorskip("pyarrow")
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8).reshape(2, 2, 2))
    done, found = await publish(
        pa.table({"a": [[1, 2**53 + 1], [3, 4]], "f": [[1.5, None], [2.5, 3.5]], "t": tensors}), tmp_path
    )
    assert [(dtype, shape) for _, dtype, shape in done.columns] == [("<i8", (2,)), ("<f8", (2,)), ("<i8", (2, 2))]
    assert found["a"] == [[1, 2**53 + 1], [3, 4]]
    assert repr(found["f"]) == "[[1.5, nan], [2.5, 3.5]]"
    assert found["t"] == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]


async def test_pandas_with_arrow_inside(tmp_path: Path) -> None:
    """Its types are those of Arrow, and looked at as those are."""
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")

    def table(values: list[Any], kind: Any) -> Any:
        return pd.DataFrame({"a": pd.array(values, dtype=pd.ArrowDtype(kind))})

    _, found = await publish(table([dt.date(2024, 1, 1)], pa.date32()), tmp_path)
    assert found == {"a": [dt.date(2024, 1, 1)]}
    with pytest.raises(dnc.DatasetError, match="column 'a', row 0: a value within the list is missing"):
        await dnc.upload(table([[1, None], [2**53 + 1, 2]], pa.list_(pa.int64())), store=tmp_path / "store")


def test_none_of_them_is_imported(tmp_path: Path) -> None:
    """Who has none of them pays for none."""
    code = (
        "import asyncio, sys, dnc_async as dnc\n"
        "asyncio.run(dnc.upload({'x': [1, 2]}, store=sys.argv[1]))\n"
        "print({'pandas', 'polars', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    assert done.stdout.strip() == "set()"
