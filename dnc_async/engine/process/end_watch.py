"""Decides when an engine's process that was asked to end gets a signal, and when it is killed. PURE.

A process may hang: it was stopped (SIGSTOP), its disk does not respond, a transform of the consumer's never returns. Closing a
stream must not wait for that for ever. So an engine that is asked to end something is also asked whether it is alive. If it
answers, it gets the time that its transforms may take; if not, only a moment.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Hashable


class Measure(enum.Enum):
    """What to do with an engine that has not ended what it was asked to end."""

    NOTHING = enum.auto()
    TERMINATE = enum.auto()
    KILL = enum.auto()


class EndWatch:
    """Watches one engine's process. Times are seconds of one clock."""

    def __init__(self, *, answer_s: float, end_s: float, terminate_s: float) -> None:
        """It has ``answer_s`` to answer, then ``end_s`` to end, and ``terminate_s`` after a first signal."""
        self._answer_s = answer_s
        self._end_s = end_s
        self._terminate_s = terminate_s
        self._pending: set[Hashable] = set()
        self._asked_at = 0.0
        self._answered = False
        self._terminated_at: float | None = None

    def __repr__(self) -> str:
        return (
            f"<EndWatch {len(self._pending)} to end{', told by a signal' if self._terminated_at is not None else ''}>"
        )

    def asked(self, what: Hashable, now: float) -> None:
        """It was asked to end this, and whether it is alive."""
        if not self._pending:
            self._asked_at, self._answered = now, False
        self._pending.add(what)

    def answered(self) -> None:
        """It answered."""
        self._answered = True

    def ended(self, what: Hashable) -> None:
        """This has ended."""
        self._pending.discard(what)

    def due_at(self) -> float:
        """When to call :meth:`look` again; infinity if nothing is to end."""
        if not self._pending:
            return math.inf
        if self._terminated_at is not None:
            return self._terminated_at + self._terminate_s
        return self._asked_at + (self._end_s if self._answered else self._answer_s)

    def look(self, now: float) -> Measure:
        """The measure to take now. The caller takes it: the next call returns the measure after it."""
        if now < self.due_at():
            return Measure.NOTHING
        if self._terminated_at is None:
            self._terminated_at = now
            return Measure.TERMINATE
        self._pending.clear()  # no further measure: a process that hangs in the kernel is waited for
        return Measure.KILL
