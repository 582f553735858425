"""What may go wrong at a scripted gateway, as data: frozen, seeded, and equivalent to one line of text.

``Faults.parse("rate=4MB,latency=50ms,jitter=10ms,flip=20")`` and ``str(faults)`` are inverse, so a script can be part of a
command line, a report or a test's parameters. All times count from the gateway's start.
"""

from __future__ import annotations

from dataclasses import dataclass

from dnc_async.errors import ArgumentError

from .script import (
    Window,
    count_word,
    outage_word,
    parse_script,
    rate_word,
    size_word,
    switch_word,
    time_word,
    window_word,
    write_script,
)

#: How many seconds late ``straggle`` is, by what ``slow`` divides the rate, and the bytes per second of a ``drip``.
STRAGGLE_S, SLOW_FACTOR, DRIP_RATE = 10.0, 10, 2.0


@dataclass(frozen=True, kw_only=True)
class Faults:
    """A gateway's script. The default is a gateway without faults.

    Counts are exact and independent of timing; random choices are derived from ``seed``.
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
    drip: int | None = None
    """``drip=3``: every third body comes at two bytes per second, and the others meanwhile as ever."""
    miss: int | None = None
    """``miss=7``: every 7th request is answered 404."""
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
    interim: bool = False
    """``interim``: to each request it says 103 (early hints) for ever, and never answers."""
    unasked: bool = False
    """``unasked``: behind each answer follow others that nobody asked for, for ever."""
    long_header: bool = False
    """``long-header``: the header of each answer never ends."""
    seed: int = 0
    """``seed=7``: for the jitter and the places of flipped bits."""

    def __post_init__(self) -> None:
        for name in ("rate", "trickle", "flip", "other", "html", "straggle", "drip", "miss"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ArgumentError(f"the fault {_word(name)}={value} cannot work; it must be greater than 0")
        for name in ("latency_s", "jitter_s", "retry_after_s", "stall", "cut"):
            if (getattr(self, name) or 0) < 0:
                raise ArgumentError(f"the fault {_word(name)}={getattr(self, name)} cannot work; it is negative")

    @classmethod
    def parse(cls, text: str) -> Faults:
        """Parse a script such as ``"rate=4MB,latency=50ms,flip=20"``; the empty text means no faults.

        Raises :class:`ArgumentError`, which names the wrong word and lists the known ones.
        """
        return cls(**parse_script(text, _WORDS, "fault"))

    def __str__(self) -> str:
        return write_script(self, _WORDS)


_WORDS = {
    "rate": rate_word("rate"),
    "latency": time_word("latency_s", "50ms"),
    "jitter": time_word("jitter_s", "10ms"),
    "flip": count_word("flip", "20"),
    "other": count_word("other", "20"),
    "stall": size_word("stall", "300kB"),
    "cut": size_word("cut", "300kB"),
    "trickle": rate_word("trickle", "1kB"),
    "slow": outage_word("slow", "5s-"),
    "silent": outage_word("silent", "5s-7s"),
    "straggle": count_word("straggle", "200"),
    "drip": count_word("drip", "3"),
    "miss": count_word("miss", "7"),
    "busy": window_word("busy", "2s-5s"),
    "retry-after": time_word("retry_after_s", "2s"),
    "down": outage_word("down", "2s-5s"),
    "html": count_word("html", "3", bare=1),
    "ignore-entity-bytes": switch_word("ignore_entity_bytes"),
    "no-car": switch_word("no_car"),
    "cold": switch_word("cold"),
    "interim": switch_word("interim"),
    "unasked": switch_word("unasked"),
    "long-header": switch_word("long_header"),
    "seed": count_word("seed", "7"),
}


def _word(name: str) -> str:
    """The word of a script that sets the field ``name``."""
    return next(word for word, meaning in _WORDS.items() if meaning.field == name)
