"""Parses numbers and sizes in options: Python's, numpy's, or text."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from operator import index
from typing import SupportsFloat, SupportsIndex

from dnc_async.errors import ArgumentError

_UNITS = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGT", 1):
    _UNITS[_letter] = _UNITS[f"{_letter}B"] = 1000**_power
    _UNITS[f"{_letter}IB"] = 1024**_power
#: Not \d, which takes other scripts' digits, too.
_SIZE = re.compile(r"\s*([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([A-Za-z]*)\s*")


def parse_size(value: SupportsFloat | str, *, name: str) -> int:
    """A size in bytes: a number, numpy's too, or text such as ``"64 MB"`` (10^6) or ``"64 MiB"`` (2^20).

    Fractions of a byte are dropped, but a size between 0 and 1 is refused, because 0.5 was probably meant as megabytes or a
    share. Raises :class:`~dnc_async.errors.ArgumentError`, which names the argument.
    """
    size = _exact_size(value)
    if size is None or not 0 <= size < 2**63 or 0 < size < 1:
        raise ArgumentError(f"{name}: expected a size such as 64000000, '64 MB' or '61 MiB', got {value!r}")
    return int(size)


def _exact_size(value: object) -> Decimal | None:
    """The size without rounding; ``None`` if it is not a finite number."""
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        unit = _UNITS.get(match[2].upper()) if match else None
        return Decimal(match[1]) * unit if match and unit else None
    found = number(value)
    return None if found is None or not math.isfinite(found) else Decimal(found)


def number(value: object) -> int | float | None:
    """Convert a number, numpy's too, to a Python number; ``None`` for everything else, including booleans."""
    if _is_boolean(value) or isinstance(value, (str, bytes, bytearray)):
        return None
    if hasattr(value, "__index__") or hasattr(value, "__float__"):
        try:
            return index(value) if isinstance(value, SupportsIndex) else float(value)  # type: ignore[arg-type]  # asked above
        except (TypeError, ValueError, OverflowError):  # such as an array of several numbers
            return None
    return None


def _is_boolean(value: object) -> bool:
    return isinstance(value, bool) or type(value).__name__ in (
        "bool",
        "bool_",
    )  # numpy's is no subclass of bool


def whole_number(
    value: object, *, name: str, least: int, most: int = 2**63 - 1, meaning: str = "a whole number"
) -> int:
    """Check an option that must be a whole number: an ``int`` or a numpy integer, not a boolean.

    ``meaning`` is what the error message says was expected. Raises :class:`~dnc_async.errors.ArgumentError`, which names the
    option.
    """
    try:
        found = None if _is_boolean(value) else index(value)  # type: ignore[arg-type]  # what has none raises TypeError
    except TypeError:
        found = None
    if found is None or not least <= found <= most:
        limits = f"at least {least}" if most == 2**63 - 1 else f"from {least} to {most}"
        raise ArgumentError(f"{name}: expected {meaning}, {limits}, got {value!r}")
    return found
