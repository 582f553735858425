"""Missing values: a float's is NaN, a time's NaT, and for all others a mask says where they are.

The mask of column ``x`` is the column ``x__valid``, False in the rows whose value is missing; these are 0, False or empty.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from dnc_async.dataset.formats.options import ERROR, MASK, VALID_SUFFIX, ReadOptions
from dnc_async.dataset.ragged import Ragged
from dnc_async.dataset.schema import Array
from dnc_async.errors import DatasetError
from dnc_async.publish.tables import is_missing
from dnc_async.publish.values import column_of_list, missing_value

Column = Array | Ragged


def present(values: Sequence[Any]) -> Array | None:
    """Where the values of a list are not missing; ``None`` if all are there. Beside text and bytes NaN is missing, too."""
    types = set(map(type, values))
    is_text = any(issubclass(kind, (str, bytes)) for kind in types)
    if not any(is_missing(kind) for kind in types) and not (is_text and float in types):
        return None
    there = np.array(
        [not (is_missing(type(value)) or (is_text and _is_nan(value))) for value in values], dtype=np.bool_
    )
    return None if there.all() else there


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and value != value  # noqa: PLR0124 - NaN alone is unlike itself


def spread(column: Column, there: Array) -> Column:
    """Put the values that are there into their rows; the others are NaN, NaT, 0, False or empty."""
    if isinstance(column, Ragged):
        lengths = np.zeros(len(there), dtype=np.int64)
        lengths[there] = np.diff(column.offsets)
        return type(column)(column.values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    whole = np.zeros((len(there), *column.shape[1:]), dtype=column.dtype)
    if column.dtype.kind in "fcMm":
        whole[~there] = np.nan if column.dtype.kind in "fc" else np.array("NaT", dtype=column.dtype)
    whole[there] = column
    return whole


def says_missing(column: Column) -> bool:
    """Whether the values of a column can say themselves that they are missing."""
    return not isinstance(column, Ragged) and column.dtype.kind in "fcMm"


def with_gaps(name: str, column: Column, there: Array, options: ReadOptions, where: str) -> dict[str, Column]:
    """The column, which has its values in all rows, and its mask if it needs one."""
    if says_missing(column):
        return {name: column}
    if options.missing == ERROR:
        row = int(np.argwhere(~there)[0][0])
        raise missing_value(f"{where}, row {row}", "the value")
    return {name: column, name + VALID_SUFFIX: there} if options.missing == MASK else {name: column}


def list_with_gaps(
    name: str, values: list[Any], there: Array, options: ReadOptions, where: str, notes: list[str]
) -> dict[str, Column]:
    """The column of a list in which values are missing."""
    kept = [value for value, is_there in zip(values, there.tolist(), strict=True) if is_there]
    if not kept:
        notes.append(f"column {name!r} has no value at all: it is published as NaN")
        return {name: np.full(len(values), np.nan)}
    try:
        column = column_of_list(kept, where)
    except DatasetError as error:
        rows = np.flatnonzero(there)
        said = re.sub(
            rf"^({re.escape(where)}, row )(\d+)", lambda found: f"{found[1]}{rows[int(found[2])]}", str(error)
        )
        raise DatasetError(said) from error
    return with_gaps(name, spread(column, there), there, options, where)


def masked_array(name: str, value: np.ma.MaskedArray[Any, Any], options: ReadOptions, where: str) -> dict[str, Column]:
    """The column of a masked array; its mask has the array's shape."""
    mask = np.ma.getmaskarray(value)
    if not mask.any():
        return {name: np.asarray(value.data)}
    kind = value.dtype.kind
    fill = np.nan if kind in "fc" else np.array("NaT", dtype=value.dtype) if kind in "Mm" else np.zeros((), value.dtype)
    filled = np.asarray(np.where(mask, fill, value.data).astype(value.dtype))
    if options.missing == ERROR:
        raise missing_value(f"{where}, row {int(np.argwhere(mask)[0][0])}", "the value")
    return {name: filled, name + VALID_SUFFIX: ~mask} if options.missing == MASK else {name: filled}
