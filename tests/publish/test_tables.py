"""Tables of pandas, polars and Arrow, where they are installed: their columns, and what would be lost of them."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc

from ..conftest import PATIENCE_S
from .rounds import publish

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
LOST: dict[str, Callable[[Any], tuple[Any, str]]] = {
    "Int64 with NA": lambda pd: (
        pd.DataFrame({"a": pd.array([1, None, 2**53 + 1], dtype="Int64")}),
        "column 'a', row 1: the value is missing",
    ),
    "boolean with NA": lambda pd: ({"a": pd.Series([True, None], dtype="boolean")}, "column 'a', row 1"),
    "text with NA": lambda pd: (pd.DataFrame({"a": ["x", None]}), "column 'a', row 1"),
    "objects with None": lambda pd: ({"a": pd.Series(["x", None], dtype=object)}, "column 'a', row 1: None"),
    "objects of unlike types": lambda pd: ({"a": pd.Series(["x", 1], dtype=object)}, "column 'a', row 1: 1 is a int"),
    "categories with NA": lambda pd: (pd.DataFrame({"a": pd.Categorical(["x", None])}), "column 'a', row 1"),
    "NA in a list": lambda pd: ({"a": ["x", pd.NA]}, "column 'a', row 1: <NA> stands"),
    "NA in a series' array": lambda pd: ({"a": pd.array([2**53 + 1, None])}, "column 'a', row 1: the value is missing"),
    "a zone in a series' array": lambda pd: (
        {"t": pd.date_range("2024", periods=2, tz="UTC").array},
        "'t'.*time zone",
    ),
    "a list of tables": lambda pd: ([pd.DataFrame({"a": [1]})] * 2, "row 0: a table is no sample"),
    "an index": lambda pd: (pd.DataFrame({"a": [1, 2]}, index=["x", "y"]), "has an index .*reset_index"),
    "a named index": lambda pd: (pd.DataFrame({"a": [1]}).rename_axis("id"), "has an index"),
    "a time zone": lambda pd: (pd.DataFrame({"t": pd.to_datetime(["2024-01-01"], utc=True)}), "'t'.*time zone"),
    "names that are numbers": lambda pd: (pd.DataFrame(np.ones((2, 2))), "column names must be text, not 0"),
    "a name twice": lambda pd: (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns are named 'a'"),
    "unlike dtypes as one array": lambda pd: (
        (pd.DataFrame({"a": [1.0], "b": [2**53 + 1]}), [0]),
        "column '0': a table with columns of unlike dtypes",
    ),
    "series that are not aligned": lambda pd: (
        {"x": pd.Series([1, 2], index=[1, 0]), "y": pd.Series([1, 2])},
        "'x' and 'y' have unlike indexes",
    ),
}


@pytest.mark.parametrize("name", KEPT)
async def test_pandas(name: str, tmp_path: Path) -> None:
    """Exactly, in the table's order."""
    source, expected = KEPT[name](pytest.importorskip("pandas"))
    _, found = await publish(source, tmp_path)
    assert found == expected
    assert not isinstance(found, dict) or list(found) == list(expected)


@pytest.mark.parametrize("name", LOST)
async def test_pandas_refused(name: str, tmp_path: Path) -> None:
    """With column, row and remedy."""
    source, message = LOST[name](pytest.importorskip("pandas"))
    with pytest.raises(dnc.DatasetError, match=message):
        await dnc.upload(source, store=tmp_path / "store")


async def test_a_missing_float_is_nan(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    done, found = await publish({"a": pd.Series([1.5, None], dtype="Float64")}, tmp_path)
    assert done.columns == (("a", "<f8", ()),)
    assert found["a"][0] == 1.5
    assert np.isnan(found["a"][1])


async def test_polars(tmp_path: Path) -> None:
    pl = pytest.importorskip("polars")
    _, found = await publish(pl.DataFrame({"b": [1, 2], "a": ["x", "y"], "c": [True, False]}), tmp_path)
    assert list(found.items()) == [("b", [1, 2]), ("a", ["x", "y"]), ("c", [True, False])]
    for column, message in (
        ([1, None], "row 1: the value is missing"),
        (["x", None], "row 1"),
        ([[1], [2, 3]], "row 1"),
    ):
        with pytest.raises(dnc.DatasetError, match=f"column 'a', {message}"):
            await dnc.upload(pl.DataFrame({"a": column}), store=tmp_path / "store")


async def test_arrow(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({"b": pa.chunked_array([[1], [2, 3]]), "a": pa.array(["x", "y", "x"]).dictionary_encode()})
    _, found = await publish(table, tmp_path)
    assert list(found.items()) == [("b", [1, 2, 3]), ("a", ["x", "y", "x"])]
    for column, message in (([1, None], "row 1: the value is missing"), ([[1], [2, 3]], "row 1")):
        with pytest.raises(dnc.DatasetError, match=f"column 'a', {message}"):
            await dnc.upload(pa.table({"a": column}), store=tmp_path / "store")


POLARS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a gap within": (lambda pl: [[1, None], [2**53 + 1, 2]], "row 0, row 1: None stands for a missing value"),
    "a gap within a fixed list": (
        lambda pl: pl.Series([[1, None], [2**53 + 1, 2]], dtype=pl.Array(pl.Int64, 2)),
        "row 0, row 1: None",
    ),
    "fields": (lambda pl: [{"x": 1}, {"x": 2}], "holds fields"),
    "fields within": (lambda pl: [[{"x": 1}], [{"x": 2}]], "holds fields"),
    "128 bits": (lambda pl: pl.Series([2**100], dtype=pl.Int128), "Int128 cannot be given to numpy"),
    "a time zone within": (
        lambda pl: pl.Series([[dt.datetime(2024, 1, 1, tzinfo=dt.UTC)]]),
        "has a time zone",
    ),
}
ARROW: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a gap within": (lambda pa: [[1, None], [2**53 + 1, 2]], "row 0, row 1: None stands for a missing value"),
    "a gap within a fixed list": (
        lambda pa: pa.array([[1, None], [2**53 + 1, 2]], pa.list_(pa.int64(), 2)),
        "row 0, row 1: None",
    ),
    "a gap two levels down": (lambda pa: [[[1, 2]], [[2**53 + 1, None]]], "row 1, row 0, row 1: None"),
    "a gap in a dictionary": (
        lambda pa: pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array([2**53 + 1, None])),
        "row 1: the value is missing",
    ),
    "a gap in a run": (
        lambda pa: pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array([2**53 + 1, None])),
        "row 2: the value is missing",
    ),
    "a time zone within": (
        lambda pa: pa.array([[0]], pa.list_(pa.int64())).cast(pa.list_(pa.timestamp("s", tz="UTC"))),
        "has a time zone",
    ),
    "a time zone in a dictionary": (
        lambda pa: pa.array([0], pa.timestamp("s", tz="UTC")).dictionary_encode(),
        "has a time zone",
    ),
    "fields": (lambda pa: [{"x": 1}], "row 0: a dict is a Python object"),
}


@pytest.mark.parametrize(
    ("library", "name"), [*(("polars", name) for name in POLARS), *(("pyarrow", name) for name in ARROW)]
)
async def test_what_lies_deeper(library: str, name: str, tmp_path: Path) -> None:
    """What numpy would be given as floats, or without its zone or names, is refused."""
    module = pytest.importorskip(library)
    make, message = (POLARS if library == "polars" else ARROW)[name]
    frame = module.DataFrame if library == "polars" else module.table
    with pytest.raises(dnc.DatasetError, match=f"column 'a'.*{message}"):
        await dnc.upload(frame({"a": make(module)}), store=tmp_path / "store")


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
    with pytest.raises(dnc.DatasetError, match="row 0, row 1: None"):
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
