"""Converts numpy's dates, times and durations, which have different units, to one unit, each value exactly.

numpy accepts a duration for a date, a number for a duration, and overflows silently: 20000-01-01 in nanoseconds is another day.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dnc_async.dataset.schema import Array
from dnc_async.errors import DatasetError

_KINDS = {"M": "a date", "m": "a duration"}


def times_in_one_unit(values: Sequence[Any], where: str) -> np.dtype[Any]:
    """The dtype that represents all of some numpy times, or arrays of them. There is one value for each row.

    Raises :class:`~dnc_async.errors.DatasetError`, which names the row, if it is of another kind, or would not be kept exactly.
    """
    first = values[0].dtype
    row = next((row for row, value in enumerate(values) if value.dtype.kind != first.kind), None)
    if row is not None:
        found, beside = (_KINDS.get(dtype.kind, str(dtype)) for dtype in (values[row].dtype, first))
        raise DatasetError(f"{where}, row {row}: {found} beside {beside} in row 0; convert them to one dtype")
    try:
        dtype = np.result_type(*{value.dtype for value in values})
    except (TypeError, OverflowError) as error:  # months have no fixed length
        raise DatasetError(f"{where}: times in units that have no common one; convert them to one dtype") from error
    for row, value in enumerate(values):
        if value.dtype != dtype and not _is_kept(np.asarray(value), dtype):
            raise DatasetError(
                f"{where}, row {row}: {str(value)[:60]} cannot be given in {dtype}, which other rows need; convert them to one "
                "dtype"
            )
    return dtype


def _is_kept(values: Array, dtype: np.dtype[Any]) -> bool:
    there = ~np.isnat(values)
    if np.datetime_data(values.dtype)[0] == "generic":
        return not there.any()
    try:
        back = values.astype(dtype).astype(values.dtype)
    except (TypeError, OverflowError):
        return False
    return bool((back[there].view(np.int64) == values[there].view(np.int64)).all())
