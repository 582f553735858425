"""Tables and series of pandas, polars and Arrow. None of these is imported here: a caller who passes one has imported it.

Missing values cannot be represented in an array of whole numbers, text or booleans, and are refused with their row. A missing
float is NaN.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from dnc_async.dataset.schema import Array
from dnc_async.errors import DatasetError


def table_columns(value: object, where: str) -> dict[str, object] | None:
    """The columns of a table by name, in its order; ``None`` if it is not a table.

    Raises :class:`~dnc_async.errors.DatasetError` for duplicate names, and if an index would be lost.
    """
    frame: Any = value
    if _is(value, "pandas", "DataFrame"):
        check_index(frame, where)
        names, columns = list(frame.columns), [frame.iloc[:, place] for place in range(frame.shape[1])]
    elif _is(value, "polars", "DataFrame"):
        names, columns = frame.columns, frame.get_columns()
    elif _is(value, "pyarrow", "Table", "RecordBatch"):
        names, columns = frame.schema.names, list(frame.columns)
    else:
        return None
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DatasetError(f"{where}: two columns are named {twice!r}; give each a name of its own")
    return dict(zip(names, columns, strict=True))


def is_table(value: object) -> bool:
    """Whether it is a table of pandas, polars or Arrow."""
    frames = _is(value, "pandas", "DataFrame") or _is(value, "polars", "DataFrame")
    return frames or _is(value, "pyarrow", "Table", "RecordBatch")


def check_index(frame: Any, where: str) -> None:  # noqa: ANN401 - a DataFrame
    """Raise if a pandas table has an index other than the numbers of its rows."""
    pandas: Any = sys.modules["pandas"]
    if not isinstance(frame.index, pandas.RangeIndex) or frame.index.name is not None:
        raise DatasetError(
            f"{where}: the table has an index ({frame.index.dtype}, from {frame.index[0] if len(frame) else 'nothing'!r} on), "
            "which is no column and would be lost; keep it with .reset_index(), or drop it with .reset_index(drop=True)"
        )


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


def series_array(value: object, where: str) -> Array | None:
    """The array of a series; ``None`` if it is not a series."""
    if _is(value, "pandas", "Series", "Index"):
        return _pandas(value, where)
    if _is(
        getattr(value, "dtype", None), "pandas.api.extensions", "ExtensionDtype"
    ):  # a series' array without the series
        pandas: Any = sys.modules["pandas"]
        return _pandas(pandas.Series(value), where)
    if _is(value, "pandas", "DataFrame"):
        return _matrix(value, where)
    if _is(value, "polars", "Series"):
        return _polars(value, where)
    if _is(value, "pyarrow", "Array", "ChunkedArray"):
        return _arrow(value, where)
    if _is(value, "polars", "DataFrame") or _is(value, "pyarrow", "Table", "RecordBatch"):
        raise DatasetError(f"{where}: a table within a column; pass its columns one by one, in a dict")
    return None


def _pandas(series: Any, where: str) -> Array:  # noqa: ANN401 - a Series
    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return np.asarray(series.to_numpy())
    if _is(dtype, "pandas", "ArrowDtype"):
        arrow: Any = sys.modules["pyarrow"]
        return _arrow(arrow.array(series), where)
    missing = np.asarray(series.isna())
    if getattr(dtype, "kind", "") == "f":  # a sparse series has no numpy dtype
        return np.asarray(series.to_numpy(dtype=getattr(dtype, "numpy_dtype", None), na_value=np.nan))
    _none_missing(missing, where)
    if hasattr(dtype, "tz"):
        raise DatasetError(
            f"{where}: {dtype} has a time zone, which numpy's times have not; "
            "convert it with .dt.tz_convert('UTC').dt.tz_localize(None)"
        )
    kind = getattr(dtype, "numpy_dtype", None)
    return np.asarray(series.to_numpy(dtype=kind) if kind is not None and kind.kind in "iub" else series)


def _matrix(frame: Any, where: str) -> Array:  # noqa: ANN401 - a DataFrame
    """A pandas table as one array, if all columns have one dtype, so that no value changes."""
    dtypes = {str(dtype) for dtype in frame.dtypes}
    if len(dtypes) != 1:
        raise DatasetError(
            f"{where}: a table with columns of unlike dtypes ({', '.join(sorted(dtypes))}) is no array; pass it alone, or its "
            "columns in a dict, or .to_numpy(dtype) of your choice"
        )
    columns = [_pandas(frame.iloc[:, place], f"{where}, column {name!r}") for place, name in enumerate(frame.columns)]
    return np.stack(columns, axis=1)


def _polars(series: Any, where: str) -> Array:  # noqa: ANN401 - a Series
    if series.null_count() and not series.dtype.is_float():
        _none_missing(np.asarray(series.is_null().to_numpy()), where)
    inner = series
    while str(inner.dtype).startswith(("List", "Array")):
        inner = inner.explode()
    if inner.dtype.is_nested():
        raise DatasetError(f"{where}: {inner.dtype} holds fields; make a column of each, with .struct.unnest()")
    if str(inner.dtype).startswith("Decimal"):
        raise DatasetError(f"{where}: {inner.dtype} would lose digits; cast it to text (exact) or floats")
    if getattr(inner.dtype, "time_zone", None):
        raise DatasetError(f"{where}: {inner.dtype} has a time zone; convert it to UTC, then drop it")
    if inner is not series and inner.null_count() and not inner.dtype.is_float():
        return _as_objects(series.to_list())
    try:
        return np.asarray(series.to_numpy())
    except Exception as error:  # types that numpy lacks, such as Int128
        raise DatasetError(
            f"{where}: {series.dtype} cannot be given to numpy ({error}); cast it to another type"
        ) from error


def _arrow(array: Any, where: str) -> Array:  # noqa: ANN401 - an Array or ChunkedArray
    arrow: Any = sys.modules["pyarrow"]
    types = arrow.types
    whole = array.combine_chunks() if isinstance(array, arrow.ChunkedArray) else array
    whole = arrow.concat_arrays(whole.chunks) if isinstance(whole, arrow.ChunkedArray) else whole
    if isinstance(whole, arrow.FixedShapeTensorArray) and not whole.null_count:
        return np.asarray(whole.to_numpy_ndarray())
    if types.is_dictionary(whole.type):
        whole = whole.dictionary_decode()
    elif types.is_run_end_encoded(whole.type):
        whole = arrow.array(whole.to_pylist(), whole.type.value_type)
    if whole.null_count and not types.is_floating(whole.type):
        _none_missing(np.asarray(whole.is_null().to_pylist(), dtype=bool), where)
    inner, has_gaps = whole, False
    while types.is_list(inner.type) or types.is_large_list(inner.type) or types.is_fixed_size_list(inner.type):
        inner = inner.flatten()
        has_gaps |= bool(inner.null_count) and not types.is_floating(inner.type)
    if getattr(inner.type, "tz", None):
        raise DatasetError(f"{where}: {inner.type} has a time zone; convert it to UTC, then drop it")
    if has_gaps or (inner is not whole and not (types.is_primitive(inner.type) or types.is_boolean(inner.type))):
        return _as_objects(whole.to_pylist())
    return np.asarray(whole.to_numpy(zero_copy_only=False))


def _as_objects(values: list[Any]) -> Array:
    """The values as Python objects, which are then checked one by one."""
    array = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        array[row] = value
    return array


def _none_missing(missing: Array, where: str) -> None:
    if missing.any():
        raise DatasetError(
            f"{where}, row {int(np.argmax(missing))}: the value is missing; fill it in, leave the row out, "
            "or convert whole numbers to floats, where NaN can stand for it"
        )


def _is(value: object, module: str, *names: str) -> bool:
    """Whether it is an instance of one of a library's classes; ``False`` if the library was not imported."""
    loaded = sys.modules.get(module)
    kinds = tuple(kind for name in names if isinstance(kind := getattr(loaded, name, None), type))
    return bool(kinds) and isinstance(value, kinds)
