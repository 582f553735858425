"""A scripted gateway without sockets: when its answers begin, when their pieces arrive and how they end. PURE.

It follows the same :class:`Faults` as :class:`ScriptedGateway`, with the same :class:`Bucket`, on a clock that is passed in.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from dnc_async.errors import ArgumentError

from .bucket import PIECE_BYTES, Bucket
from .faults import DRIP_RATE, SLOW_FACTOR, STRAGGLE_S, Faults
from .script import Window

#: The rate of a gateway without ``rate``: about that of loopback.
UNSHAPED_RATE = 1e9
#: Coarse pieces on a slow link would look like silence.
_LONGEST_PIECE_S = 0.02


class Ending(Enum):
    """How an answer goes."""

    BODY = "its body comes"
    BUSY = "429"
    MISS = "404"
    NO_CAR = "no CAR comes"
    BROKEN = "the connection breaks, or something else came"


@dataclass(slots=True)
class Body:
    """How much of a body was sent, and its trickle if it has one."""

    size_bytes: int
    sent_bytes: int = 0
    trickle: Bucket | None = field(default=None)


class ScriptedLine:
    """One gateway and its link. ``piece_bytes`` is the granularity of a fast link; the real one is shared in pieces of 16 KiB."""

    def __init__(self, faults: Faults, *, seed: str, piece_bytes: int) -> None:
        """Raises :class:`~dnc_async.errors.ArgumentError` for a fault that is not modelled."""
        for word in ("ignore_entity_bytes", "interim", "unasked", "long_header"):
            if getattr(faults, word):
                name = word.replace("_", "-")
                raise ArgumentError(f"the fault {name} is not simulated; take it out, or play it for real")
        self.faults = faults
        self._random = random.Random(f"{seed}/{faults.seed}")  # noqa: S311 - replayable, not secret
        self._line = Bucket(faults.rate or UNSHAPED_RATE, burst_bytes=0)
        rate = faults.rate or UNSHAPED_RATE
        self._piece_bytes = min(piece_bytes, max(PIECE_BYTES, int(rate * _LONGEST_PIECE_S)))
        self._requests = self._blocks = self._bodies = 0
        self._roots: set[str] = set()

    def __repr__(self) -> str:
        return f"<ScriptedLine {str(self.faults) or 'without faults'}, {self._requests} requests>"

    def is_down(self, now: float) -> bool:
        """Whether a connection is refused."""
        return self.faults.down is not None and now in self.faults.down

    def begins_at(self, now: float) -> float:
        """When a request that arrives now will be answered."""
        self._requests += 1
        faults = self.faults
        pause = max(0.0, faults.latency_s + self._random.uniform(-1, 1) * faults.jitter_s)
        late = faults.straggle is not None and self._requests % faults.straggle == 0
        return now + pause + (STRAGGLE_S if late else 0.0)

    def answers(self, now: float, *, car: bool, root: str) -> Ending:
        """How it answers a request for a block or a CAR, by a path from ``root`` if one is given."""
        faults = self.faults
        if faults.busy is not None and now in faults.busy:
            return Ending.BUSY
        if faults.miss is not None and self._requests % faults.miss == 0:
            return Ending.MISS
        if faults.html is not None and self._requests % faults.html == 0:
            return Ending.NO_CAR if car else Ending.BROKEN
        if faults.no_car and car:
            return Ending.NO_CAR
        return Ending.MISS if faults.cold and not root else Ending.BODY

    @property
    def retry_after_s(self) -> float:
        """The pause that a busy answer asks for, in seconds."""
        return float(math.ceil(self.faults.retry_after_s))

    def body(self, size_bytes: int) -> Body:
        """Begin a body."""
        self._bodies += 1
        drips = self.faults.drip is not None and self._bodies % self.faults.drip == 0
        trickle = DRIP_RATE if drips else self.faults.trickle
        return Body(size_bytes, trickle=Bucket(trickle, burst_bytes=0) if trickle else None)

    def piece(self, body: Body, now: float) -> tuple[int, float]:
        """The body's next piece, and when it arrives; zero bytes if the script ends or stalls the body there."""
        faults, step = self.faults, self._piece_bytes
        if body.trickle is not None:
            step = max(1, min(step, int(body.trickle.rate / 10)))
        size = min(step, body.size_bytes - body.sent_bytes)
        for limit in (faults.cut, faults.stall):
            size = size if limit is None else max(0, min(size, limit - body.sent_bytes))
        if faults.silent is not None and now in faults.silent:
            size, now = (0, now) if faults.silent.stop_s is None else (size, faults.silent.stop_s)
        if not size:
            return 0, now
        slow = faults.slow is not None and now in faults.slow
        due = self._line.reserve(size * SLOW_FACTOR if slow else size, now)
        if body.trickle is not None:
            due = max(due, body.trickle.reserve(size, max(due, now)))
        body.sent_bytes += size
        return size, max(due, now)

    def stalls(self, body: Body) -> bool:
        """Whether a body that does not continue keeps its connection open."""
        return self.faults.cut is None or body.sent_bytes < self.faults.cut

    def block_is_right(self) -> bool:
        """Whether the next block that it sends matches its CID."""
        self._blocks += 1
        wrong = (every for every in (self.faults.flip, self.faults.other) if every is not None)
        return not any(self._blocks % every == 0 for every in wrong)


def fluid_s(scripts: Sequence[Faults], size_bytes: int, leaf_bytes: int, *, at_once: int) -> float:
    """The least time for so many bytes, if all gateways send all the time what their scripts allow.

    The link's rate, without the time in which it is down, busy, silent or slow, less the blocks that are wrong; nothing for
    scripts that cut every block off; ``at_once`` trickles; jitter at its best. Infinite if they cannot send that many.
    """
    edges = {0.0}
    for faults in scripts:
        edges.add(max(0.0, faults.latency_s - faults.jitter_s))
        for window in (faults.down, faults.busy, faults.slow, faults.silent):
            if window is not None:
                edges |= {window.start_s, window.start_s if window.stop_s is None else window.stop_s}
    able = [
        faults
        for faults in scripts
        if not any(limit is not None and limit < leaf_bytes for limit in (faults.cut, faults.stall))
    ]
    times, missing = sorted(edges), float(size_bytes)
    for begin, end in zip(times, [*times[1:], math.inf], strict=True):
        rate = sum(_rate(faults, begin, at_once) for faults in able)
        if rate and missing <= rate * (end - begin):
            return begin + missing / rate
        missing -= rate * (end - begin) if rate else 0.0
    return math.inf


def _rate(faults: Faults, now: float, at_once: int) -> float:
    def during(window: Window | None) -> bool:
        return window is not None and now in window

    if now < faults.latency_s - faults.jitter_s or any(map(during, (faults.down, faults.busy, faults.silent))):
        return 0.0
    rate = faults.rate or UNSHAPED_RATE
    rate = rate / SLOW_FACTOR if during(faults.slow) else rate
    rate = rate if faults.trickle is None else min(rate, faults.trickle * at_once)
    for every in (faults.flip, faults.other, faults.html, faults.drip, faults.miss):
        rate *= 1.0 if every is None else 1.0 - 1.0 / every
    return rate
