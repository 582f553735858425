"""What may go wrong at a scripted gateway, as data: frozen, seeded, and the same thing as one line of text.

``Faults.parse("rate=4MB,latency=50ms,jitter=10ms,flip=20")`` and ``str(faults)`` are inverse, so a script can be put on
a command line, in a report or in a test's parameters. All times count from the gateway's start.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from dnc_async.errors import ArgumentError

_SIZES = {"": 1.0, "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2.0**10, "MIB": 2.0**20, "GIB": 2.0**30}
_TIMES = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*?)(?:/s)?")
#: How late ``straggle`` is, and what ``slow`` divides the rate by.
STRAGGLE_S, SLOW_FACTOR = 10.0, 10
_DASH = re.compile(r"(?<![eE])-")  # between two times, not inside of 1e-3


@dataclass(frozen=True, kw_only=True)
class Window:
    """A span of time, in seconds from the gateway's start; ``stop_s`` is None if it never ends."""

    start_s: float
    stop_s: float | None = None

    def __contains__(self, now_s: float) -> bool:
        return self.start_s <= now_s and (self.stop_s is None or now_s < self.stop_s)

    def __str__(self) -> str:
        return f"{_number(self.start_s)}s-{'' if self.stop_s is None else f'{_number(self.stop_s)}s'}"


@dataclass(frozen=True, kw_only=True)
class Faults:
    """A gateway's script. The default is a gateway without faults.

    Counts are exact and independent of timing; whatever is drawn at random comes from ``seed``.
    """

    rate: float | None = None
    """``rate=4MB``: body bytes per second of all connections together, first come first served in 16 KiB pieces."""
    latency_s: float = 0.0
    """``latency=50ms``: the pause before the first byte of each answer; requests wait at the same time."""
    jitter_s: float = 0.0
    """``jitter=10ms``: the latency of each request is drawn from latency ± jitter, evenly."""
    flip: int | None = None
    """``flip=20``: one bit is turned in every 20th block sent. The store keeps the good one."""
    other: int | None = None
    """``other=20``: every 20th block sent is another block's bytes."""
    stall: int | None = None
    """``stall=300kB``: every longer body stops there and never goes on, with its connection open."""
    cut: int | None = None
    """``cut=300kB``: every longer body ends there, with its connection closed."""
    trickle: float | None = None
    """``trickle=1kB``: each body comes at this many bytes per second, a little at a time, so that it never stalls."""
    slow: Window | None = None
    """``slow=5s-`` or ``slow=2s-5s``: in that time the ``rate`` is a tenth of itself."""
    silent: Window | None = None
    """``silent=5s-7s``: in that time no byte of a body is sent; connections stay open, and it goes on afterwards."""
    straggle: int | None = None
    """``straggle=200``: every 200th request is answered ten seconds late, and the others meanwhile as ever."""
    busy: Window | None = None
    """``busy=3s`` or ``busy=2s-5s``: all requests of that time are answered 429."""
    retry_after_s: float = 1.0
    """``retry-after=2s``: what those answers ask for; it is sent in whole seconds, rounded up."""
    down: Window | None = None
    """``down=2s-5s`` or ``down=2s-``: it dies at 2 s (connections reset, then refused) and returns at 5 s, or never."""
    html: int | None = None
    """``html`` or ``html=3``: every request, or every third one, is answered with a web page and status 200."""
    ignore_entity_bytes: bool = False
    """``ignore-entity-bytes``: a range of a file is answered with the whole file."""
    no_car: bool = False
    """``no-car``: it serves raw blocks only; a CAR request is answered 406."""
    cold: bool = False
    """``cold``: it holds nothing itself and finds data by its root alone: what no path from a root named before is 404."""
    seed: int = 0
    """``seed=7``: for the jitter and the places of flipped bits."""

    def __post_init__(self) -> None:
        for name in ("rate", "trickle", "flip", "other", "html", "straggle"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ArgumentError(f"the fault {_word(name)}={value} cannot work; it must be greater than 0")
        for name in ("latency_s", "jitter_s", "retry_after_s", "stall", "cut"):
            if (getattr(self, name) or 0) < 0:
                raise ArgumentError(f"the fault {_word(name)}={getattr(self, name)} cannot work; it is negative")

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Read a script such as ``"rate=4MB,latency=50ms,flip=20"``; the empty text is no faults.

        Raises :class:`ArgumentError`, which names the bad word and lists the known ones.
        """
        found: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            word, given, value = (piece.strip() for piece in part.partition("="))
            kind = _KINDS.get(word)
            if kind is None:
                known = ", ".join(f"{name}={kind.example}".removesuffix("=") for name, kind in _KINDS.items())
                raise ArgumentError(f"unknown fault {word!r} in {text!r}; the known ones are {known}")
            if kind.field in found:
                raise ArgumentError(f"the fault {word!r} comes twice in {text!r}; give it once")
            try:
                found[kind.field] = kind.read(value) if given else kind.bare
            except ValueError:
                found[kind.field] = None
            if found[kind.field] is None:
                example = f"{word}={kind.example}".removesuffix("=")
                raise ArgumentError(f"the fault {part!r} in {text!r} cannot be read; write it as {example}")
        return cls(**found)

    def __str__(self) -> str:
        words = []
        for word, kind in _KINDS.items():
            value = getattr(self, kind.field)
            if value != _DEFAULTS[kind.field]:
                words.append(word if value is True else f"{word}={kind.write(value)}")
        return ",".join(words)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How one word of a script is read and written."""

    field: str
    example: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]
    bare: Any = None


def _number(value: float) -> str:
    """Write a number so that it reads back as the same one, whole ones without a fraction."""
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


_KINDS = {
    "rate": _Kind(field="rate", example="4MB", read=_size, write=_number),
    "latency": _Kind(field="latency_s", example="50ms", read=_time, write=_seconds),
    "jitter": _Kind(field="jitter_s", example="10ms", read=_time, write=_seconds),
    "flip": _Kind(field="flip", example="20", read=int, write=str),
    "other": _Kind(field="other", example="20", read=int, write=str),
    "stall": _Kind(field="stall", example="300kB", read=_bytes, write=str),
    "cut": _Kind(field="cut", example="300kB", read=_bytes, write=str),
    "trickle": _Kind(field="trickle", example="1kB", read=_size, write=_number),
    "slow": _Kind(field="slow", example="5s-", read=_outage, write=str),
    "silent": _Kind(field="silent", example="5s-7s", read=_outage, write=str),
    "straggle": _Kind(field="straggle", example="200", read=int, write=str),
    "busy": _Kind(field="busy", example="2s-5s", read=_window, write=str),
    "retry-after": _Kind(field="retry_after_s", example="2s", read=_time, write=_seconds),
    "down": _Kind(field="down", example="2s-5s", read=_outage, write=str),
    "html": _Kind(field="html", example="3", read=int, write=str, bare=1),
    "ignore-entity-bytes": _Kind(
        field="ignore_entity_bytes", example="", read=_switch, write=lambda _: "yes", bare=True
    ),
    "no-car": _Kind(field="no_car", example="", read=_switch, write=lambda _: "yes", bare=True),
    "cold": _Kind(field="cold", example="", read=_switch, write=lambda _: "yes", bare=True),
    "seed": _Kind(field="seed", example="7", read=int, write=str),
}
_DEFAULTS = {field.name: field.default for field in fields(Faults)}


def _word(name: str) -> str:
    """Give the word of a script that sets the field ``name``."""
    return next(word for word, kind in _KINDS.items() if kind.field == name)
