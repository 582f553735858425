"""The gap ledger: each second for which the consumer waited, with the cause of the wait. PURE.

A batch's wait is cut at the times when its last chunk, and then the batch itself, reached the stages of the stream:

========================  ==================================================================================
``proofs``                until the proofs of the chunk, and of all before it, had arrived
``budget``, ``prefetch``  until the chunk had space: a larger disk budget (or ``prefetch``) would have given it earlier
``latency``               until its first byte arrived
``bandwidth``             until its last block had arrived…
``fault of GATEWAY``      …or, if that gateway failed for the last block, from when that block was first requested
``decoding``              the processor time to verify that block, and then to bring all chunks from the spool into
                          their rows
``contention``            until that was done, but for no longer than the consumer's last step: the engine's threads had
                          to wait, because the step held Python's lock (the GIL), as pure Python does, or used the cores
``engine``                the rest of that: while the consumer only waited, the engine's threads had other blocks to
                          process first, or other programs used the cores or the disk
``transform``             until the consumer's transform had returned, including the wait for a free worker
``handover``              until the batch was ready for the consumer
``event loop``            until the consumer took it: its own event loop was busy with something else
========================  ==================================================================================

One thing is not visible in these cuts: a chunk may be late because, seconds before, the gateways had too little to do while it
waited for space. That lost time is recorded as a debt. The next waits for latency and bandwidth are attributed to the budget
until the debt is paid: with more space, the bytes would have arrived that much earlier. This is an estimate
(:mod:`~dnc_async.engine.starvation`), rough if both the budget and the links are too small; the sum of a wait stays exact.

The first batch's wait is recorded separately. The causes of a wait add up to the wait, because they are its parts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dnc_async.engine.timeline import Timeline
from dnc_async.telemetry import Gap

FIRST_BATCH = "first batch"
PROOFS, BUDGET, PREFETCH, LATENCY, BANDWIDTH = "proofs", "budget", "prefetch", "latency", "bandwidth"
DECODING, CONTENTION, ENGINE = "decoding", "contention", "engine"
TRANSFORM, HANDOVER, EVENT_LOOP = "transform", "handover", "event loop"
_FAULT = "fault of "


@dataclass(slots=True)
class ChunkTimes:
    """A chunk's identity, and the times at which it reached each stage.

    ``received`` is when the last block's body had arrived, ``asked`` when that block was first requested, and ``fault_of`` the
    first gateway that failed for it. ``arrivable`` and ``placeable`` are when the chunk could have arrived, and been placed, if
    the engine's thread had never had to wait; infinite if that is not known. ``starved_s`` is what the gateways lost while the
    chunk waited for space, for lack of what ``held_by`` names.
    """

    key: bytes = b""
    size_bytes: int = 0
    blocks: int = 0
    proved: float = 0.0
    granted: float = 0.0
    first_byte: float = float("inf")
    asked: float = 0.0
    received: float = 0.0
    arrivable: float = float("inf")
    arrived: float = 0.0
    placeable: float = float("inf")
    placed: float = 0.0
    fault_of: str = ""
    held_by: str = BUDGET
    starved_s: float = 0.0

    def block_done(
        self,
        now: float,
        *,
        asked: float | None,
        first_byte: float | None,
        received: float | None,
        worked_s: float,
        fault_of: str,
    ) -> None:
        """A block was verified and written, in ``worked_s`` seconds of processor time. The times of the last block count."""
        self.asked = now if asked is None else asked
        self.received = now if received is None else received
        self.arrivable = self.received + worked_s
        self.first_byte = min(self.first_byte, self.received if first_byte is None else first_byte)
        self.fault_of = fault_of


@dataclass(frozen=True, slots=True)
class Handover:
    """A batch that was ready at ``put`` was taken at ``at``; the consumer waited in the intervals ``waits``, (from, to).

    ``transformed`` is when the transform had returned; 0 if there is none.
    """

    at: float
    put: float
    waits: tuple[tuple[float, float], ...]
    samples: int
    chunks: tuple[ChunkTimes, ...]
    transformed: float = 0.0

    def causes(self) -> dict[str, float]:
        """The causes of the wait, in seconds."""
        causes: dict[str, float] = {}
        if not self.waits:
            return causes
        points = self._points()
        for start, end in self.waits:
            since = start
            for cause, until in points:
                stop = min(max(until, since), end)
                if stop > since:
                    causes[cause] = causes.get(cause, 0.0) + stop - since
                since = stop
            if end > since:
                causes[EVENT_LOOP] = causes.get(EVENT_LOOP, 0.0) + end - since
        return causes

    def _points(self) -> tuple[tuple[str, float], ...]:
        last = max(self.chunks, key=lambda chunk: chunk.arrived)
        placed = max(self.chunks, key=lambda chunk: chunk.placed)
        failing = last.asked if last.fault_of else last.received
        return (
            (PROOFS, last.proved),
            (last.held_by, last.granted),
            (LATENCY, min(last.first_byte, failing)),
            (BANDWIDTH, failing),
            (f"{_FAULT}{last.fault_of}", last.received),
            (DECODING, min(last.arrivable, last.arrived)),
            (CONTENTION, last.arrived),
            (DECODING, min(placed.placeable, placed.placed)),
            (CONTENTION, placed.placed),
            (TRANSFORM, self.transformed),
            (HANDOVER, self.put),
        )


def _at_most(causes: dict[str, float], step_s: float) -> dict[str, float]:
    """Limit contention to the length of the consumer's step, because a step cannot delay the engine for longer."""
    others = causes.get(CONTENTION, 0.0) - step_s
    if others > 0:
        causes[ENGINE] = others
        causes[CONTENTION] = step_s
        if not step_s:
            del causes[CONTENTION]
    return causes


class Ledger:
    """The gaps of one stream. Its size does not grow with the run."""

    def __init__(self, *, started: float, stream: str = "", first: int = 0) -> None:
        """``first`` is the position in the plan of the first batch that will be entered."""
        self._started = started
        self._first = first
        self._stream = stream
        self._debts: dict[str, float] = {}
        self._order = hashlib.sha256()
        self.batches = self.samples = 0
        self.chunks = self.blocks = self.useful_bytes = 0
        self.first_batch_s: float | None = None
        self.waited_s = 0.0
        self.causes: dict[str, float] = {}
        self.last_at = started
        self.timeline = Timeline()

    def enter(self, taken: Handover) -> Gap:
        """Enter the wait for one batch."""
        seconds = sum(end - start for start, end in taken.waits)
        self._count(taken)
        if not self.batches:
            self.first_batch_s = taken.at - self._started
            causes = {FIRST_BATCH: seconds}
        else:
            step_s = max(0.0, taken.at - self.last_at - seconds)
            causes = self._pay(_at_most(taken.causes(), step_s))
            self.waited_s += seconds
            for cause, cut in causes.items():
                self.causes[cause] = self.causes.get(cause, 0.0) + cut
            self.timeline.add(at_s=taken.at - self._started, step_s=step_s, waited_s=seconds, causes=causes)
        gap = Gap(stream=self._stream, position=self._first + self.batches, seconds=seconds, causes=causes)
        self.batches += 1
        self.samples += taken.samples
        self.last_at = taken.at
        return gap

    def _count(self, taken: Handover) -> None:
        for chunk in taken.chunks:
            self._order.update(chunk.key)
            self.chunks += 1
            self.blocks += chunk.blocks
            self.useful_bytes += chunk.size_bytes
            if chunk.starved_s > 0:
                self._debts[chunk.held_by] = self._debts.get(chunk.held_by, 0.0) + chunk.starved_s

    def _pay(self, causes: dict[str, float]) -> dict[str, float]:
        """Attribute waits to the lack of space as far as the debt goes; latency first, which more space hides best."""
        for network in (LATENCY, BANDWIDTH):
            for held_by, debt in self._debts.items():
                moved = min(debt, causes.get(network, 0.0))
                if moved > 0:
                    causes[network] -= moved
                    causes[held_by] = causes.get(held_by, 0.0) + moved
                    self._debts[held_by] = debt - moved
            if causes.get(network) == 0.0:
                del causes[network]
        return causes

    @property
    def elapsed_s(self) -> float:
        """Seconds from the start to the last hand-over."""
        return self.last_at - self._started

    @property
    def order(self) -> str:
        """A checksum of the chunks that were handed over, in their order: equal for two runs that delivered the same."""
        return self._order.copy().hexdigest()
