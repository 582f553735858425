"""Converts Python's dates, times and decimals, one by one, to values that can be published, each exactly.

A date becomes ``datetime64[D]``, a datetime ``datetime64[us]`` (with a time zone the same instant in UTC), a time of day the
``timedelta64[us]`` since midnight, a ``timedelta`` a ``timedelta64[us]``; pandas' times keep their nanoseconds. A ``Decimal``
becomes text with all its digits, or a float if that is asked for; a UUID becomes text.
"""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import numpy as np

from dnc_async.errors import DatasetError

_CONVERTED = (dt.date, dt.time, dt.timedelta, Decimal, uuid.UUID)  # a datetime is a date


def is_converted(kind: type) -> bool:
    """Whether values of this type are converted."""
    return issubclass(kind, _CONVERTED)


def plain_value(value: Any, at: str, *, decimals: str) -> Any:  # noqa: ANN401 - whatever the caller has
    """Convert a value; others are returned as they are. Errors begin with ``at``."""
    if isinstance(value, dt.datetime):
        return _instant(value)
    if isinstance(value, dt.date):
        return np.datetime64(value, "D")
    if isinstance(value, dt.timedelta):
        return value.to_timedelta64() if hasattr(value, "to_timedelta64") else np.timedelta64(value, "us")
    if isinstance(value, dt.time):
        if value.tzinfo is not None:
            raise DatasetError(f"{at}: a time of day with a time zone is no one instant; publish datetimes")
        return np.timedelta64(((value.hour * 60 + value.minute) * 60 + value.second) * 10**6 + value.microsecond, "us")
    if isinstance(value, Decimal):
        return _decimal(value, at, as_float=decimals == "float")
    return str(value) if isinstance(value, uuid.UUID) else value


def has_zone(value: object) -> bool:
    """Whether it is a datetime with a time zone."""
    return isinstance(value, dt.datetime) and value.tzinfo is not None


def check_zones(values: list[Any], where: str) -> bool:
    """Whether datetimes have a time zone; raises unless all have one, or none."""
    zoned = [has_zone(value) for value in values if isinstance(value, dt.datetime)]
    if any(zoned) and not all(zoned):
        raise DatasetError(f"{where}: datetimes with a time zone beside others without one; give each one a zone")
    return any(zoned)


def _instant(value: Any) -> Any:  # noqa: ANN401 - a datetime, or pandas' Timestamp
    if hasattr(value, "to_datetime64"):
        return value.to_datetime64()  # in UTC
    if value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    return np.datetime64(value, "us")


def _decimal(value: Decimal, at: str, *, as_float: bool) -> str | float:
    if as_float:
        return float(value)
    if not value.is_finite():
        raise DatasetError(f"{at}: {value} is no decimal with digits; leave it out, or pass decimals='float'")
    return f"{value:f}"
