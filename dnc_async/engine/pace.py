"""A consumer's pace, and with it the time when a batch will be needed. PURE but for the clock that it is given.

With a transform a batch is needed before it is handed over, by as long as a call takes. Where the calls, shared among the
workers, take longer than the consumer's steps, they set the pace.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

#: How much a step, or a call, counts beside those before it.
_WEIGHT = 0.25


class CallPace:
    """How long a transform's calls take: as many run at once as batches have ``places`` for them, or one where that is 0.

    A call begins when its batch is complete and a worker is free: that is reckoned, because only an executor knows. So its
    way to the worker counts, and in an executor that others use as well their calls do, too.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self._workers = max(1, places)
        self._ends: list[float] = []  # a heap of the latest, as many as there are workers: the first left a worker free
        self._total_s = 0.0
        self.calls = 0
        #: How long one takes, the latest ones counting most; 0 until one has ended.
        self.recent_s = 0.0

    def __repr__(self) -> str:
        return f"<CallPace {self.calls} calls of {self.mean_s:.3g} s, {self._workers} at once>"

    @property
    def mean_s(self) -> float:
        """How long one took in the mean of all."""
        return self._total_s / self.calls if self.calls else 0.0

    @property
    def spacing_s(self) -> float:
        """How far apart batches come out of it at best."""
        return self.recent_s / self._workers

    def ended(self, at: float, *, complete: float) -> None:
        """A call has ended, for the batch that was complete then; batches are told in the plan's order."""
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
    """How long the consumer's steps take, waits for the next batch not counted.

    A step that has lasted for longer than usual counts as long as it has lasted: the batches of a stream that nobody
    consumes any more are needed ever later, without anybody having to say that it was abandoned.
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
        """Whether the consumer is busy with a batch, and does not wait for the next."""
        return self._began is not None

    def handed_over(self, at: float) -> None:
        """The consumer got a batch ``at`` that time, of which may be heard later, and began its next step."""
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
        """When the batch that comes so many after the next one will be needed, whole: for its transform, where there is one."""
        return self.handover_at(ahead) - (self._calls.recent_s if self._calls is not None else 0.0)

    def handover_at(self, ahead: int) -> float:
        """When the consumer will want that batch handed over."""
        now = self._clock()
        step = max(self._step_s or 0.0, self._calls.spacing_s if self._calls is not None else 0.0)
        if self._began is None:
            return now + ahead * step
        return self._began + (1 + ahead) * max(step, now - self._began)
