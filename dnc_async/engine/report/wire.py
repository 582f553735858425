"""Converts frozen dataclasses to JSON types, and back, checked. PURE."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from dnc_async.errors import ReportError

D = TypeVar("D")

#: No time and no count in a report is larger; what is computed from such numbers stays a number.
_MOST = 10**18


def decode(kind: type[D], wire: object, at: str) -> D:
    """A dataclass from a decoded JSON object. Unknown names are ignored, so that newer files can be read.

    Fields with a default may be missing, as in older files. ``at`` is what to call the object in a
    :class:`~dnc_async.errors.ReportError`.
    """
    if not isinstance(wire, dict):
        raise _unlike(at, "an object", wire)
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]  # D is a dataclass, or one's field
    missing = [field.name for field in fields if field.name not in wire and field.default is dataclasses.MISSING]
    if missing:
        raise ReportError(f"{at}: {missing[0]!r} is missing; expected the JSON that Report.save() writes")
    names = [field.name for field in fields if field.name in wire]
    return kind(**{name: _value(hints[name], wire[name], f"{at}.{name}") for name in names})


def _value(hint: Any, wire: object, at: str) -> Any:  # noqa: ANN401 - whatever the hint says
    origin, inner = get_origin(hint), get_args(hint)
    if origin is types.UnionType:
        if wire is None and type(None) in inner:
            return None
        return _value(next(each for each in inner if each is not type(None)), wire, at)
    if origin is tuple:
        if not isinstance(wire, list):
            raise _unlike(at, "a list", wire)
        return tuple(_value(inner[0], item, f"{at}[{place}]") for place, item in enumerate(wire))
    if origin is dict:
        if not isinstance(wire, dict):
            raise _unlike(at, "an object", wire)
        return {name: _value(inner[1], item, f"{at}[{name!r}]") for name, item in wire.items()}
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return decode(hint, wire, at)
    return _plain(hint, wire, at)


def _plain(hint: type, wire: object, at: str) -> object:
    if hint is float and isinstance(wire, (int, float)) and not isinstance(wire, bool):
        if 0 <= wire <= _MOST:  # which NaN is not
            return float(wire)
    elif type(wire) is hint and not (isinstance(wire, int) and not 0 <= wire <= _MOST):
        return wire
    least = {float: "a number of at least 0", int: "a whole number of at least 0"}
    is_large = hint in least and type(wire) in least and wire > _MOST  # type: ignore[operator]  # a number
    raise _unlike(at, f"at most {_MOST:g}" if is_large else least.get(hint, hint.__name__), wire)


def _unlike(at: str, expected: str, got: object) -> ReportError:
    shown = repr(got)
    return ReportError(f"{at}: expected {expected}, got {shown if len(shown) <= 60 else shown[:57] + '…'}")
