"""The consumer's pace, from which follows when a batch will be needed. PURE except for the clock.

With a transform a batch is needed earlier than it is handed over, by the duration of a call. If the calls, divided among the
workers, take longer than the consumer's steps, they determine the pace.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

#: The weight of a step, or a call, in the moving average.
_WEIGHT = 0.25


class CallPace:
    """How long the calls of a transform take. ``places`` batches are transformed at the same time, or one if that is 0.

    A call is assumed to begin when its batch is complete and a worker is free, because only the executor knows when it does. So
    the time until a worker takes it is included, and in an executor that is shared, other users' calls are, too.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._workers = max(1, places)
        self._ends: list[
            float
        ] = []  # a heap of the last ends, one for each worker: the smallest is when a worker was free
        self._total_s = 0.0
        self.calls = 0
        #: The moving average of a call's duration, in seconds; 0 until one has ended.
        self.recent_s = 0.0

    def __repr__(self) -> str:
        return f"<CallPace {self.calls} calls of {self.mean_s:.3g} s, {self._workers} at once>"

    @property
    def mean_s(self) -> float:
        """The mean duration of all calls, in seconds."""
        return self._total_s / self.calls if self.calls else 0.0

    @property
    def spacing_s(self) -> float:
        """The seconds between two transformed batches, at best."""
        return self.recent_s / self._workers

    def ended(self, at: float, *, complete: float) -> None:
        """A call has ended, for the batch that was complete at that time. Calls are recorded in the plan's order."""
        began = complete
        if len(self._ends) < self._workers:
            heapq.heappush(self._ends, at)
        else:
            began = max(complete, self._ends[0])
            heapq.heappushpop(self._ends, at)
        seconds = max(0.0, at - began)
        self.recent_s = self.recent_s + _WEIGHT * (seconds - self.recent_s) if self.calls else seconds
        self._total_s += seconds
        self.calls += 1


class Pace:
    """How long the consumer's steps take, without waits for the next batch.

    A step that has already taken longer than usual counts as long as it has taken: so the batches of a stream that is not
    consumed any more are needed later and later, without being marked as abandoned.
    """

    def __init__(self, clock: Callable[[], float], calls: CallPace | None = None) -> None:
        """``calls`` are those of the stream's transform, if it has one."""
        self._clock = clock
        self._calls = calls
        self._began: float | None = clock()
        self._started = False
        self._step_s: float | None = None

    @property
    def is_stepping(self) -> bool:
        """Whether the consumer is busy with a batch, and not waiting for the next."""
        return self._began is not None

    def handed_over(self, at: float) -> None:
        """The consumer got a batch at the time ``at``, which may be reported later, and began its next step."""
        self._end_step(at)
        self._began, self._started = at, True

    def asked(self) -> None:
        """The consumer has finished its step and waits for the next batch."""
        self._end_step(self._clock())

    def _end_step(self, at: float) -> None:
        if self._began is not None and self._started:
            step = max(0.0, at - self._began)
            self._step_s = step if self._step_s is None else self._step_s + _WEIGHT * (step - self._step_s)
        self._began = None

    def due(self, ahead: int) -> float:
        """When the batch that many places after the next one will be needed, complete: by its transform, if there is one."""
        return self.handover_at(ahead) - (self._calls.recent_s if self._calls is not None else 0.0)

    def handover_at(self, ahead: int) -> float:
        """When the consumer will want that batch."""
        now = self._clock()
        step = max(self._step_s or 0.0, self._calls.spacing_s if self._calls is not None else 0.0)
        if self._began is None:
            return now + ahead * step
        return self._began + (1 + ahead) * max(step, now - self._began)
