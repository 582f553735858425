"""Determines the types of JSON values from many records, and tells when a later one breaks them. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_NONE = type(None)
_WORDS = {
    bool: "a boolean",
    int: "a whole number",
    float: "a number with a fraction",
    str: "text",
    list: "a list",
    dict: "an object",
}
_EXACT = 2**53

#: ``"bool"``, ``"int64"``, ``"uint64"``, ``"float64"``, ``"text"``, ``"null"``, ``("list", type)`` or
#: ``("struct", ((name, type), …))``.
JsonType = Any


class JsonColumn:
    """What is known of the values of one key, or of one place in a list: call :meth:`look` with them, then :meth:`decide`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._first: dict[type, int] = {}
        self._least = self._most = 0
        self._inexact: tuple[int, int] | None = None
        self._fields: dict[str, JsonColumn] = {}
        self._items: JsonColumn | None = None
        #: The line of the first record in which the value is missing.
        self.missing: int | None = None

    def look(self, values: Sequence[Any], lines: Sequence[int]) -> None:
        """Take the next values into account; ``lines`` are those of their records."""
        kinds = set(map(type, values))
        for kind in kinds - set(self._first):
            line = next(line for value, line in zip(values, lines, strict=True) if type(value) is kind)
            if kind is _NONE:
                self.missing = line if self.missing is None else self.missing
            else:
                self._first[kind] = line
        if int in kinds:
            self._look_at_whole(values, lines)
        if list in kinds:
            self._look_at_lists(values, lines)
        if dict in kinds:
            self._look_at_objects(values, lines)

    def _look_at_whole(self, values: Sequence[Any], lines: Sequence[int]) -> None:
        numbers = [value for value in values if type(value) is int]
        self._least, self._most = min(self._least, *numbers), max(self._most, *numbers)
        if self._inexact is None and (self._least < -_EXACT or self._most > _EXACT):
            found = ((value, line) for value, line in zip(values, lines, strict=True) if type(value) is int)
            self._inexact = next(((value, line) for value, line in found if abs(value) > _EXACT), None)

    def _look_at_lists(self, values: Sequence[Any], lines: Sequence[int]) -> None:
        self._items = self._items or JsonColumn(f"{self.path}[]")
        pairs = [
            (item, line) for value, line in zip(values, lines, strict=True) if type(value) is list for item in value
        ]
        if pairs:
            self._items.look(*zip(*pairs, strict=True))

    def _look_at_objects(self, values: Sequence[Any], lines: Sequence[int]) -> None:
        pairs = [(value, line) for value, line in zip(values, lines, strict=True) if type(value) is dict]
        objects, places = zip(*pairs, strict=True)
        for name in dict.fromkeys(name for each in objects for name in each):
            if name not in self._fields:
                self._fields[name] = JsonColumn(f"{self.path}.{name}" if self.path else name)
                if self._seen:
                    self._fields[name].missing = self._seen
        self._seen = self._seen or places[0]
        for name, field in self._fields.items():
            field.look([each.get(name) for each in objects], places)

    _seen = 0

    def decide(self) -> JsonType:
        """The type. Raises ``ValueError``, which names key and line, if there is none that holds all values."""
        kinds = set(self._first)
        if not kinds:
            return "null"
        if kinds == {int, float}:
            if self._inexact is not None:
                value, line = self._inexact
                raise ValueError(
                    f"line {line}, key {self.path!r}: {value} stands among fractions, and float64 does not hold it exactly"
                )
            return "float64"
        if len(kinds) > 1:
            (one, first), (other, second) = sorted(self._first.items(), key=lambda item: item[1])[:2]
            raise ValueError(
                f"line {second}, key {self.path!r}: {_WORDS[other]}, and {_WORDS[one]} in line {first}; give all one type"
            )
        return self._of_one(next(iter(kinds)))

    def _of_one(self, kind: type) -> JsonType:
        if kind is int:
            return self._of_whole()
        if kind is list:
            return ("list", self._items.decide() if self._items is not None else "null")
        if kind is dict:
            return ("struct", tuple((name, field.decide()) for name, field in self._fields.items()))
        return {bool: "bool", float: "float64", str: "text"}[kind]

    def _of_whole(self) -> str:
        if self._least >= -(2**63) and self._most < 2**63:
            return "int64"
        if self._least >= 0 and self._most < 2**64:
            return "uint64"
        value, line = self._inexact or (self._most, self._first[int])
        raise ValueError(
            f"line {line}, key {self.path!r}: {str(value)[:40]} or another has more than 64 bits; write such numbers as text"
        )

    def leaves_with_gaps(self) -> dict[str, int]:
        """The paths of values that are missing somewhere, with the first line."""
        found = {} if self.missing is None or self._fields else {self.path: self.missing}
        for field in self._fields.values():
            found.update(field.leaves_with_gaps())
            if self.missing is not None:
                found.update({path: self.missing for path in field.paths() if path not in found})
        return found

    def paths(self) -> list[str]:
        """The paths of its values that are no objects."""
        return [path for field in self._fields.values() for path in field.paths()] if self._fields else [self.path]
