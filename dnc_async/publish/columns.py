"""Tells whether the caller's objects are columns, or samples to be stacked. This never depends on the values.

A dict, a table, an array, and a tuple of columns such as ``(X, y)`` are columns. A list, and a tuple of dicts or of tuples, are
samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dnc_async.dataset.limits import MAX_COLUMNS
from dnc_async.dataset.ragged import Ragged
from dnc_async.dataset.schema import Array, Columns, Schema, Structure, column_problem, schema_of
from dnc_async.errors import DatasetError
from dnc_async.publish.tables import check_aligned, table_columns
from dnc_async.publish.values import as_column, column_of_list, is_sequence


def columns_of(value: object, *, where: str) -> tuple[Columns, Structure]:
    """Convert columns, or a list of samples, to arrays of equal length, in the publisher's order.

    ``where`` begins the error messages. Raises :class:`~dnc_async.errors.DatasetError`, which names column and row.
    """
    named, structure = _named(value, where)
    if not named:
        raise DatasetError(f"{where}: there are no columns")
    if len(named) > MAX_COLUMNS:
        raise DatasetError(
            f"{where}: {len(named)} columns, at most {MAX_COLUMNS} are allowed; make one array of those of one dtype"
        )
    check_aligned(named, where)
    columns: Columns = {}
    for name, item in named.items():
        at = where if structure == "array" else f"{where}, column {_shown(name)}"
        columns[name] = as_column(item, at)
        _check_column(name, columns[name], at)
    lengths = {name: len(array) for name, array in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{_shown(name)} has {n}" for name, n in lengths.items())
        raise DatasetError(f"{where}: all columns need the same number of samples (first axis), but {listed}")
    return columns, structure


def _named(value: object, where: str) -> tuple[dict[str, object], Structure]:
    table = table_columns(value, where)
    columns = table if table is not None else value
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
        return {"0": column_of_list(samples, where)}, "array"
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
