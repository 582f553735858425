"""Scripts as lines of text: ``"rate=4MB,latency=50ms,flip=20"`` is words with values. Parsing and writing are inverse."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from dnc_async.errors import ArgumentError

_SIZES = {"": 1.0, "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2.0**10, "MIB": 2.0**20, "GIB": 2.0**30}
_TIMES = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*?)(?:/s)?")
_DASH = re.compile(r"(?<![eE])-")  # between two times, not inside of 1e-3


@dataclass(frozen=True, kw_only=True)
class Window:
    """A span of time, in seconds from the script's start; ``stop_s`` is ``None`` if it never ends."""

    start_s: float
    stop_s: float | None = None

    def __contains__(self, now_s: float) -> bool:
        return self.start_s <= now_s and (self.stop_s is None or now_s < self.stop_s)

    def __str__(self) -> str:
        return f"{_number(self.start_s)}s-{'' if self.stop_s is None else f'{_number(self.stop_s)}s'}"


@dataclass(frozen=True, kw_only=True)
class Word:
    """How one word of a script is parsed and written. ``bare`` is its meaning without a value."""

    field: str
    example: str
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str
    bare: Any = None


def parse_script(text: str, words: Mapping[str, Word], kind: str) -> dict[str, Any]:
    """Parse a script to fields; the empty text has none.

    Raises :class:`~dnc_async.errors.ArgumentError`, which names the wrong word and lists the known ones.
    """
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, given, value = (piece.strip() for piece in part.partition("="))
        word = words.get(name)
        if word is None:
            known = ", ".join(f"{name}={word.example}".removesuffix("=") for name, word in words.items())
            raise ArgumentError(f"unknown {kind} {name!r} in {text!r}; the known ones are {known}")
        if word.field in found:
            raise ArgumentError(f"the {kind} {name!r} comes twice in {text!r}; give it once")
        try:
            found[word.field] = word.read(value) if given else word.bare
        except ValueError:
            found[word.field] = None
        if found[word.field] is None:
            example = f"{name}={word.example}".removesuffix("=")
            raise ArgumentError(f"the {kind} {part!r} in {text!r} cannot be read; write it as {example}")
    return found


def write_script(script: Any, words: Mapping[str, Word]) -> str:  # noqa: ANN401 - a dataclass with these fields
    """Write a script, only with the fields that differ from their defaults."""
    defaults = {field.name: field.default for field in fields(script)}
    shown = []
    for name, word in words.items():
        value = getattr(script, word.field)
        if value != defaults[word.field]:
            shown.append(name if value is True else f"{name}={word.write(value)}")
    return ",".join(shown)


def _number(value: float) -> str:
    """Write a number so that it is parsed as the same one, whole numbers without a fraction."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _scaled(text: str, units: dict[str, float]) -> float:
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(text)
    value = float(match[1]) * units[match[2]]
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _size(text: str) -> float:
    return _scaled(text.upper().removesuffix("/S"), _SIZES)


def _bytes(text: str) -> int:
    return round(_size(text))


def _time(text: str) -> float:
    return _scaled(text, _TIMES)


def _window(text: str) -> Window:
    first, *last = (part.strip() for part in _DASH.split(text))
    if not last:
        return Window(start_s=0.0, stop_s=_time(first))
    window = Window(start_s=_time(first), stop_s=_time("-".join(last)) if last != [""] else None)
    if window.stop_s is not None and window.stop_s <= window.start_s:
        raise ValueError(text)
    return window


def _outage(text: str) -> Window:
    return _window(text if _DASH.search(text) else f"{text}-")


def _switch(text: str) -> bool:
    if text in {"1", "yes", "true"}:
        return True
    raise ValueError(text)


def _seconds(value: float) -> str:
    return f"{_number(value)}s"


def rate_word(field: str, example: str = "4MB") -> Word:
    """Bytes per second."""
    return Word(field=field, example=example, read=_size, write=_number)


def size_word(field: str, example: str) -> Word:
    """Whole bytes."""
    return Word(field=field, example=example, read=_bytes)


def time_word(field: str, example: str) -> Word:
    """Seconds."""
    return Word(field=field, example=example, read=_time, write=_seconds)


def count_word(field: str, example: str, *, bare: int | None = None) -> Word:
    """A whole number."""
    return Word(field=field, example=example, read=int, bare=bare)


def window_word(field: str, example: str) -> Word:
    """A span of time; one time alone is its end."""
    return Word(field=field, example=example, read=_window)


def outage_word(field: str, example: str) -> Word:
    """A span of time; one time alone is its start."""
    return Word(field=field, example=example, read=_outage)


def switch_word(field: str) -> Word:
    """Yes, or absent."""
    return Word(field=field, example="", read=_switch, write=lambda _: "yes", bare=True)
