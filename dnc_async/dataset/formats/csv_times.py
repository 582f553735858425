"""ISO dates and times, and booleans, in the cells of a CSV column. PURE."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from dnc_async.dataset.schema import Array

ZONED = "zoned"
TIMES = ("date", "time", ZONED)
_DATE = r"[0-9]{4}-[01][0-9]-[0-3][0-9]"
_CLOCK = r"[0-2][0-9]:[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,9})?)?"
_ZONE = r"(?:Z|[+-][01][0-9]:?[0-5][0-9])"
_PATTERNS = {
    "date": re.compile(rf"(?:(?:{_DATE})?\n)*+"),
    "time": re.compile(rf"(?:(?:{_DATE}[T ]{_CLOCK})?\n)*+"),
    ZONED: re.compile(rf"(?:(?:{_DATE}[T ]{_CLOCK}{_ZONE})?\n)*+"),
}
_BOOLEANS = ({"true", "false"}, {"True", "False"}, {"TRUE", "FALSE"})
_IS_ZONE = re.compile(_ZONE + "$")
_UNITS = {0: "s", 3: "ms", 6: "us", 9: "ns"}
#: Years that nanoseconds of 64 bits hold.
_NANOSECOND_YEARS = range(1678, 2262)


def sort_of(cells: Sequence[str], joined: str) -> str | None:
    """What all of some cells are, empty ones apart: ``"date"``, ``"time"``, ``"zoned"``, a pair of booleans, or ``None``."""
    text = joined + "\n"
    sort = next((name for name, pattern in _PATTERNS.items() if pattern.fullmatch(text)), None)
    if sort is not None:
        try:
            times_of(cells, sort, "us" if sort != "date" else "D")
        except ValueError:  # the 30th of February
            return None
        return sort
    words = set(cells)
    return next((",".join(sorted(pair)) for pair in _BOOLEANS if words <= pair), None)


def unit_of(cells: Sequence[str], sort: str) -> str:
    """The unit that holds all times of some cells."""
    if sort == "date":
        return "D"
    digits = max((len(_IS_ZONE.sub("", cell).partition(".")[2]) for cell in cells), default=0)
    return _UNITS[-(-digits // 3) * 3]


def longer(one: str, other: str) -> str:
    """The finer one of two units."""
    return max(one, other, key=["D", *_UNITS.values()].index)


def has_far_years(cells: Sequence[str]) -> bool:
    """Whether nanoseconds of 64 bits do not hold a year."""
    return any(cell and int(cell[:4]) not in _NANOSECOND_YEARS for cell in cells)


def times_of(cells: Sequence[str], sort: str, unit: str) -> Array:
    """Convert cells; times with a zone to UTC. Raises ``ValueError`` if one is none."""
    if sort != ZONED:
        return np.array([cell or "NaT" for cell in cells], dtype=f"M8[{unit}]")
    zones = [_IS_ZONE.search(cell) for cell in cells]
    times = [cell[: zone.start()] if zone else "NaT" for cell, zone in zip(cells, zones, strict=True)]
    minutes = [_minutes(zone[0]) if zone else 0 for zone in zones]
    utc: Array = np.array(times, dtype=f"M8[{unit}]") - np.array(minutes, dtype="m8[m]")
    return utc


def _minutes(zone: str) -> int:
    if zone == "Z":
        return 0
    total = int(zone[1:3]) * 60 + int(zone[-2:])
    return -total if zone[0] == "-" else total
