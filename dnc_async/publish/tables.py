"""Tables and series of pandas, polars and Arrow. None of these is imported here: a caller who passes one has imported it.

pandas' own columns are converted here; all others through Arrow, by :mod:`dnc_async.dataset.formats.arrow_columns`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from dnc_async.dataset.formats.extras import pyarrow
from dnc_async.dataset.schema import Array
from dnc_async.errors import DatasetError


def is_table(value: object) -> bool:
    """Whether it is a table of pandas, polars, Arrow, or another library that exports Arrow's streams of records."""
    if _is(value, "pandas", "DataFrame") or _is(value, "polars", "DataFrame", "LazyFrame"):
        return True
    if _is(value, "pyarrow", "Table", "RecordBatch", "RecordBatchReader"):
        return True
    return hasattr(value, "__arrow_c_stream__") and not is_series(value)


def is_series(value: object) -> bool:
    """Whether it is one column of pandas, polars or Arrow."""
    if _is(value, "pandas", "Series", "Index") or _is(
        getattr(value, "dtype", None), "pandas.api.extensions", "ExtensionDtype"
    ):
        return True
    return _is(value, "polars", "Series") or _is(value, "pyarrow", "Array", "ChunkedArray")


def table_columns(value: object, where: str) -> dict[str, object] | None:
    """The columns of a table by name, in its order, as series; ``None`` if it is not a table.

    Raises :class:`~dnc_async.errors.DatasetError` for duplicate names.
    """
    if not is_table(value):
        return None
    if _is(value, "pandas", "DataFrame"):
        pairs = list(_pandas_columns(value))
    else:
        table = arrow_table(value, where)
        pairs = list(zip(table.schema.names, table.columns, strict=True))
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(f"{where}: two columns are named {twice!r}; give each a name of its own")
    return dict(pairs)


def arrow_table(value: Any, where: str) -> Any:  # noqa: ANN401 - a table of any library
    """A table as one of Arrow's."""
    arrow = pyarrow(where)
    if _is(value, "polars", "LazyFrame"):
        value = value.collect()
    if _is(value, "polars", "DataFrame"):
        for column in value.get_columns():
            _check_no_objects(column, f"{where}, column {column.name!r}")
    try:
        if _is(value, "pyarrow", "RecordBatchReader"):
            return value.read_all()
        return value if isinstance(value, (arrow.Table, arrow.RecordBatch)) else arrow.table(value)
    except Exception as error:  # what another library's export raises is not known
        raise DatasetError(
            f"{where}: a {type(value).__name__} cannot be read as an Arrow table: {str(error) or type(error).__name__}"
        ) from error


def _pandas_columns(frame: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 - a DataFrame
    """The index, unless it only counts the rows, and the columns."""
    pandas: Any = sys.modules["pandas"]
    index = frame.index
    is_count = isinstance(index, pandas.RangeIndex) and (index.start, index.step) == (0, 1)
    if not is_count or index.name is not None:
        for level in range(index.nlevels):
            name = index.names[level]
            fallback = "index" if index.nlevels == 1 else f"level_{level}"
            yield fallback if name is None else name, pandas.Series(index.get_level_values(level).array, index=index)
    for place, name in enumerate(frame.columns):
        yield name, frame.iloc[:, place]


def check_aligned(columns: dict[str, object], where: str) -> None:
    """Raise if pandas series have different indexes: then their rows do not belong together in order."""
    indexed = {
        name: column.index  # type: ignore[attr-defined]  # pandas' own
        for name, column in columns.items()
        if _is(column, "pandas", "Series", "DataFrame")
    }
    first = next(iter(indexed), None)
    for name, index in indexed.items():
        if first is not None and not index.equals(indexed[first]):
            raise DatasetError(
                f"{where}: the series {first!r} and {name!r} have unlike indexes, so their rows do not belong together; "
                "align them, or pass their .to_numpy()"
            )


def is_missing(kind: type) -> bool:
    """Whether a type stands for missing values: that of ``None``, and those of pandas and numpy."""
    return kind is type(None) or kind.__name__ in ("NAType", "NaTType", "MaskedConstant")


def is_arrow(value: object) -> bool:
    """Whether it is a column that is converted through Arrow."""
    if _is(value, "polars", "Series") or _is(value, "pyarrow", "Array", "ChunkedArray"):
        return True
    dtype = getattr(value, "dtype", None)
    return _is(dtype, "pandas", "ArrowDtype") or (
        _is(dtype, "pandas", "StringDtype") and getattr(dtype, "storage", "") == "pyarrow"
    )


def arrow_array(value: Any, where: str) -> Any:  # noqa: ANN401 - a series
    """A series as an array of Arrow's."""
    arrow = pyarrow(where)
    if _is(value, "polars", "Series"):
        _check_no_objects(value, where)
    try:
        if _is(value, "polars", "Series"):
            return value.to_arrow()
        return value if isinstance(value, (arrow.Array, arrow.ChunkedArray)) else arrow.array(value)
    except Exception as error:  # polars panics for types that Arrow lacks
        raise DatasetError(
            f"{where}: {value.dtype} cannot be read as an Arrow array ({error}); cast it to another type"
        ) from error


def _check_no_objects(series: Any, where: str) -> None:  # noqa: ANN401 - a Series of polars, which exports such objects as addresses
    if str(series.dtype) == "Object":
        raise DatasetError(f"{where}: Python objects cannot be published; cast the column to numbers, text or bytes")


def pandas_values(value: Any, where: str, notes: list[str]) -> tuple[Any, Array | None]:  # noqa: ANN401 - a Series
    """The values of a pandas series as an array or a list, and where they are missing, if the values do not say it."""
    pandas: Any = sys.modules["pandas"]
    series = value if isinstance(value, (pandas.Series, pandas.Index)) else pandas.Series(value)
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return series.to_numpy() if dtype.kind != "O" else list(series), None
    if isinstance(dtype, pandas.CategoricalDtype):
        return _categories(series.array, where, notes)
    if isinstance(dtype, pandas.DatetimeTZDtype):
        notes.append(f"{where}: times of the zone {dtype.tz} are published as the same instants in UTC")
        accessor = series if isinstance(series, pandas.Index) else series.dt
        return np.asarray(
            accessor.tz_convert("UTC" if dtype.tz is not None else None).to_numpy(dtype=f"M8[{dtype.unit}]")
        ), None
    missing = np.asarray(series.isna())
    if getattr(dtype, "kind", "") == "f":  # a sparse series has no numpy dtype
        return np.asarray(series.to_numpy(dtype=getattr(dtype, "numpy_dtype", None), na_value=np.nan)), None
    kind = getattr(dtype, "numpy_dtype", None)
    if kind is not None and kind.kind in "iub":
        values = np.asarray(series.to_numpy(dtype=kind, na_value=kind.type(0)))
        return values, missing if missing.any() else None
    return list(series), None


def _categories(array: Any, where: str, notes: list[str]) -> tuple[Any, Array | None]:  # noqa: ANN401 - a Categorical
    """The values of categories, not their codes."""
    pandas: Any = sys.modules["pandas"]
    codes = np.asarray(array.codes)
    values, _ = pandas_values(pandas.Series(array.categories), where, notes)
    if isinstance(values, list) or not len(values):
        return [None if code < 0 else values[code] for code in codes.tolist()], None
    missing = codes < 0
    taken = values[np.where(missing, 0, codes)]
    taken[missing] = np.array(
        np.nan if taken.dtype.kind == "f" else "NaT" if taken.dtype.kind in "Mm" else 0, dtype=taken.dtype
    )
    return taken, missing if missing.any() else None


def matrix(frame: Any, where: str) -> Array:  # noqa: ANN401 - a DataFrame
    """A pandas table as one array, if all columns have one dtype, so that no value changes."""
    dtypes = {str(dtype) for dtype in frame.dtypes}
    if len(dtypes) != 1:
        raise DatasetError(
            f"{where}: a table with columns of unlike dtypes ({', '.join(sorted(dtypes))}) is no array; pass it alone, or its "
            "columns in a dict, or .to_numpy(dtype) of your choice"
        )
    columns = []
    for place, name in enumerate(frame.columns):
        values, missing = pandas_values(frame.iloc[:, place], where, [])
        if missing is not None or not isinstance(values, np.ndarray):
            raise DatasetError(
                f"{where}, column {name!r}: missing values, or values that are no numbers; pass the table alone"
            )
        columns.append(values)
    return np.stack(columns, axis=1)


def is_frame(value: object) -> bool:
    """Whether it is a pandas table."""
    return _is(value, "pandas", "DataFrame")


def _is(value: object, module: str, *names: str) -> bool:
    """Whether it is an instance of one of a library's classes; ``False`` if the library was not imported."""
    loaded = sys.modules.get(module)
    kinds = tuple(kind for name in names if isinstance(kind := getattr(loaded, name, None), type))
    return bool(kinds) and isinstance(value, kinds)
