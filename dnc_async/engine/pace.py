"""A consumer's pace, and with it the time when a batch will be needed. PURE but for the clock that it is given."""

from __future__ import annotations

from collections.abc import Callable

#: How much a step counts beside those before it.
_WEIGHT = 0.25


class Pace:
    """How long the consumer's steps take, waits for the next batch not counted.

    A step that has lasted for longer than usual counts as long as it has lasted: the batches of a stream that nobody
    consumes any more are needed ever later, without anybody having to say that it was abandoned.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began: float | None = clock()
        self._started = False
        self._step_s: float | None = None

    def handed_over(self) -> None:
        """The consumer got a batch and begins its next step."""
        self.asked()
        self._began, self._started = self._clock(), True

    def asked(self) -> None:
        """The consumer has finished its step and waits for the next batch."""
        if self._began is not None and self._started:
            step = self._clock() - self._began
            self._step_s = step if self._step_s is None else self._step_s + _WEIGHT * (step - self._step_s)
        self._began = None

    def due(self, ahead: int) -> float:
        """When the batch that comes so many after the next one will be needed."""
        now = self._clock()
        if self._began is None:
            return now + ahead * (self._step_s or 0.0)
        step = max(self._step_s or 0.0, now - self._began)
        return self._began + (1 + ahead) * step
