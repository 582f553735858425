"""Tells whether the caller's objects are columns, or samples to be stacked. This never depends on the values.

A dict, a table, an array, and a tuple of columns such as ``(X, y)`` are columns. A list, and a tuple of dicts or of tuples, are
samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dnc_async.dataset.formats.arrow_columns import ArrowColumns
from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.dataset.limits import MAX_COLUMNS
from dnc_async.dataset.ragged import Ragged
from dnc_async.dataset.schema import Array, Columns, Schema, Structure, column_problem, schema_of
from dnc_async.errors import DatasetError
from dnc_async.publish.gaps import list_with_gaps, masked_array, present, with_gaps
from dnc_async.publish.python_values import check_zones, is_converted, plain_value
from dnc_async.publish.tables import arrow_array, check_aligned, is_arrow, is_series, pandas_values, table_columns
from dnc_async.publish.values import as_column, column_of_list, is_sequence, listed

_AS_THEY_ARE = ReadOptions()


def columns_of(
    value: object, *, where: str, options: ReadOptions = _AS_THEY_ARE, notes: list[str] | None = None
) -> tuple[Columns, Structure]:
    """Convert columns, or a list of samples, to arrays of equal length, in the publisher's order.

    ``where`` begins the error messages; ``notes`` takes remarks for the user. Raises
    :class:`~dnc_async.errors.DatasetError`, which names column and row.
    """
    named, structure = _named(value, where)
    if not named:
        raise DatasetError(f"{where}: there are no columns")
    check_aligned(named, where)
    notes = [] if notes is None else notes
    columns: Columns = {}
    for name, item in named.items():
        at = where if structure == "array" else f"{where}, column {_shown(name)}"
        found = fields_of_column(name, item, where=at, source=where, options=options, notes=notes)
        twice = next((key for key in found if key in columns or (key != name and key in named)), None)
        if twice is not None:
            raise DatasetError(f"{where}: two columns would be named {_shown(twice)}; rename one of them")
        for key, array in found.items():
            _check_column(key, array, at)
        columns.update(found)
    _check_number(columns, len(named), structure, where)
    lengths = {name: len(array) for name, array in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{_shown(name)} has {n}" for name, n in lengths.items())
        raise DatasetError(f"{where}: all columns need the same number of samples (first axis), but {listed}")
    return columns, structure


def _check_number(columns: Columns, given: int, structure: Structure, where: str) -> None:
    if structure != "dict" and len(columns) > given:
        added = next(name for place, name in enumerate(columns) if name != str(place))
        raise DatasetError(
            f"{where}: the column {_shown(added)} says which values are missing, or is a field, and needs a name: pass a dict of "
            "columns (or missing='fill')"
        )
    if len(columns) > MAX_COLUMNS:
        raise DatasetError(
            f"{where}: {len(columns)} columns, at most {MAX_COLUMNS} are allowed; make one array of those of one dtype"
        )


def fields_of_column(
    name: str,
    value: Any,  # noqa: ANN401 - what the caller has for a column
    *,
    where: str,
    source: str,
    options: ReadOptions,
    notes: list[str],
) -> dict[str, Array | Ragged]:
    """Convert one column: to itself, to a column for each of its fields, or with the mask of its missing values."""
    if is_arrow(value):
        return dict(ArrowColumns(source, options, notes=notes).of_array(arrow_array(value, where), name))
    if is_series(value):
        value, missing = pandas_values(value, where, notes)
        if missing is not None:
            return with_gaps(name, as_column(value, where), ~missing, options, where)
    if isinstance(value, np.ma.MaskedArray) and value.dtype.kind != "O":
        return masked_array(name, value, options, where)
    values = listed(value)
    if values is None:
        return {name: as_column(value, where)}
    if any(is_converted(kind) for kind in set(map(type, values))):
        if check_zones(values, where):
            notes.append(f"{where}: times with a zone are published as the same instants in UTC")
        values = [
            plain_value(each, f"{where}, row {row}", decimals=options.decimals) for row, each in enumerate(values)
        ]
    there = present(values)
    if there is not None:
        return list_with_gaps(name, values, there, options, where, notes)
    return {name: column_of_list(values, where)}


def _named(value: object, where: str) -> tuple[dict[str, object], Structure]:
    table = table_columns(value, where)
    columns = table if table is not None else value
    if isinstance(columns, np.ndarray) and columns.dtype.names is not None and columns.ndim == 1:
        columns = {name: np.asarray(columns[name]) for name in columns.dtype.names}  # records
    if isinstance(columns, Mapping):
        bad = next((key for key in columns if not isinstance(key, str)), "")
        if bad != "":
            raise DatasetError(
                f"{where}: column names must be text, not {bad!r}; rename it, for example to {str(bad)!r}"
            )
        return dict(columns), "dict"
    if isinstance(columns, tuple) and not are_samples(columns):
        return {str(i): item for i, item in enumerate(columns)}, "tuple"
    if is_sequence(columns):
        return columns_of_samples(list(columns), where)
    return {"0": columns}, "array"


def are_samples(value: tuple[Any, ...]) -> bool:
    """Whether a tuple contains samples, that is dicts or tuples only. All other tuples contain columns."""
    return bool(value) and (all(isinstance(v, Mapping) for v in value) or all(isinstance(v, tuple) for v in value))


def columns_of_samples(samples: list[Any], where: str) -> tuple[dict[str, object], Structure]:
    """Convert a list of samples (dicts with the same keys, tuples of one length, or values) to columns."""
    if not samples:
        return {"0": np.empty(0)}, "array"
    names, structure = fields_of(samples[0])
    if not names:
        raise DatasetError(f"{where}, sample 0: an empty {type(samples[0]).__name__}; a sample needs a value")
    for row, sample in enumerate(samples):
        check_fields(sample, names, structure, f"{where}, sample {row}")
    if structure == "array":
        return {"0": samples}, "array"
    keys: list[Any] = list(names) if structure == "dict" else list(range(len(names)))
    return {name: [sample[key] for sample in samples] for name, key in zip(names, keys, strict=True)}, structure


def fields_of(sample: object) -> tuple[tuple[str, ...], Structure]:
    """The field names of a sample, and the structure of batches of such samples."""
    if isinstance(sample, Mapping):
        return tuple(sample), "dict"
    if isinstance(sample, tuple):
        return tuple(str(i) for i in range(len(sample))), "tuple"
    return ("0",), "array"


def check_fields(sample: object, names: tuple[str, ...], structure: Structure, where: str) -> None:
    """Raise unless a sample has the same fields as the first one."""
    found, kind = fields_of(sample)
    if kind != structure:
        kinds = {"dict": "a dict", "tuple": "a tuple", "array": "neither a dict nor a tuple"}
        raise DatasetError(f"{where} is {kinds[kind]}, and the first one {kinds[structure]}; all need one form")
    if structure == "dict" and found != names and set(found) != set(names):
        lacking, more = [n for n in names if n not in found], [n for n in found if n not in names]
        said = f"lacks {lacking[0]!r}" if lacking else f"has {more[0]!r}, which the first one has not"
        raise DatasetError(f"{where} {said}; all samples need the same keys")
    if structure == "tuple" and len(found) != len(names):
        raise DatasetError(f"{where} has {len(found)} fields, and the first one {len(names)}")


def _check_column(name: str, values: Array | Ragged, where: str) -> None:
    dtype = None if isinstance(values, Ragged) else values.dtype
    described = schema_of({name: values}, "dict").columns[0]
    problem = column_problem(described)
    if problem is None:
        return
    if dtype is not None and dtype.names:
        problem = f"dtype {dtype} has fields; pass each of them as a column of its own"
    elif dtype is not None and dtype.kind in "VMm":
        problem = (
            f"dtype {dtype} is none that can be published; convert it with .astype(…), times to a unit such as 's'"
        )
    elif dtype is not None and dtype.kind in "fcS" and "dtype" in problem:
        problem = f"dtype {dtype} differs from machine to machine, or has no bytes; convert it, for example with .astype('f8')"
    raise DatasetError(f"{where}: {problem}")


def describe(schema: Schema) -> str:
    """A schema as text for an error message."""
    columns = ", ".join(f"{_shown(c.name)}: {c.dtype}{list(c.shape) if c.shape else ''}" for c in schema.ordered)
    return f"a {schema.structure} of {columns}"


def _shown(name: str) -> str:
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:77]}…"
