"""The gap ledger: every second that the consumer waited, put down to what it waited for.

A batch is ready when its last chunk is in place. That chunk's way has four points in time, and a wait is cut at them:
until it was proved the wait is for ``proofs``, until its space was granted for the ``budget``, until its bytes had arrived
for the ``network`` (or, where gateways failed for it on the way, for the ``fault`` of the first of them), until it was in
place for ``decoding``, and the rest is the ``handover``. The first batch's wait is kept apart. The causes of a wait add up
to the wait, because they are its cuts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dnc_async.telemetry import Gap

FIRST_BATCH = "first batch"
PROOFS, BUDGET, NETWORK, DECODING, HANDOVER = "proofs", "budget", "network", "decoding", "handover"


@dataclass(slots=True)
class ChunkTimes:
    """When a chunk reached each point of its way, and the gateways that failed for it."""

    proved: float = 0.0
    granted: float = 0.0
    arrived: float = 0.0
    placed: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)

    def causes(self, wait: tuple[float, float]) -> dict[str, float]:
        """Cut a wait at these points."""
        network = f"fault of {next(iter(self.faults))}" if self.faults else NETWORK
        start, end = wait
        causes: dict[str, float] = {}
        for cause, until in (
            (PROOFS, self.proved),
            (BUDGET, self.granted),
            (network, self.arrived),
            (DECODING, self.placed),
            (HANDOVER, end),
        ):
            stop = min(max(until, start), end)
            if stop > start:
                causes[cause] = causes.get(cause, 0.0) + stop - start
            start = stop
        return causes


@dataclass(frozen=True, slots=True)
class Taken:
    """A batch of some samples was handed over at ``at``; ``waits`` are the (from, to) in which the consumer waited for it."""

    at: float
    waits: tuple[tuple[float, float], ...]
    samples: int
    chunks: tuple[ChunkTimes, ...]


class Ledger:
    """The gaps of one stream. Written by the consumer's thread as it takes each batch, so that what it reads is not late."""

    def __init__(self, *, started: float) -> None:
        self._started = started
        self.batches = self.samples = 0
        self.first_batch_s: float | None = None
        self.waited_s = 0.0
        self.causes: dict[str, float] = {}
        self.last_at = started

    def enter(self, taken: Taken) -> Gap:
        """Enter the wait for one batch."""
        seconds = sum(end - start for start, end in taken.waits)
        if not self.batches:
            self.first_batch_s = taken.at - self._started
            causes = {FIRST_BATCH: seconds}
        else:
            last = max(taken.chunks, key=lambda times: times.placed)
            causes = {}
            for wait in taken.waits:
                for cause, cut in last.causes(wait).items():
                    causes[cause] = causes.get(cause, 0.0) + cut
            self.waited_s += seconds
            for cause, cut in causes.items():
                self.causes[cause] = self.causes.get(cause, 0.0) + cut
        gap = Gap(position=self.batches, seconds=seconds, causes=causes)
        self.batches += 1
        self.samples += taken.samples
        self.last_at = taken.at
        return gap

    @property
    def elapsed_s(self) -> float:
        """Seconds from the start to the last hand-over."""
        return self.last_at - self._started
