"""The consumer's side of one stream that runs in the engine's process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from concurrent.futures import Future, InvalidStateError
from dataclasses import replace
from typing import Protocol

from dnc_async.dataset.cursor import PlanFacts
from dnc_async.engine.process.inbox import Inbox
from dnc_async.engine.process.messages import Answer, Finished, Opened
from dnc_async.engine.report.report import Report
from dnc_async.errors import EngineError
from dnc_async.system import peak_memory_bytes
from dnc_async.telemetry import Observer, Observers, StreamStatistics


class _Engine(Protocol):
    def cancel(self, stream: int) -> None: ...

    def ask(self, stream: int, *, report: bool) -> Answer: ...


class RemoteStream:
    """One stream that runs in the engine's process."""

    def __init__(self, engine: _Engine, number: int, inbox: Inbox, observers: Iterable[Observer]) -> None:
        self._engine = engine
        self._number = number
        self._last: Answer | None = None
        self.inbox = inbox
        self.observers = Observers(observers)
        self.opened: Future[PlanFacts] = Future()
        self.finished: Future[None] = Future()

    def __repr__(self) -> str:
        return f"<RemoteStream {self._number}, {'finished' if self.finished.done() else 'running'}>"

    def cancel(self) -> None:
        """Stop it; from any thread."""
        self.inbox.is_wanted = False
        self._engine.cancel(self._number)

    def statistics(self) -> StreamStatistics:
        """A snapshot, from any thread. Raises :class:`~dnc_async.errors.EngineError` if the engine cannot answer any more."""
        return self._ask(report=False).statistics

    def report(self) -> Report:
        """The gap report so far, from any thread. Its peak memory is that of both processes together."""
        report = self._ask(report=True).report
        assert report is not None  # noqa: S101 - it was asked for
        ours, theirs = peak_memory_bytes(), report.peak_memory_bytes
        return report if ours is None or theirs is None else replace(report, peak_memory_bytes=ours + theirs)

    def _ask(self, *, report: bool) -> Answer:
        try:
            return self._last_word() or self._engine.ask(self._number, report=report)
        except EngineError:
            last = self._last_word()  # it may have finished meanwhile
            if last is None:
                raise
            return last

    def _last_word(self) -> Answer | None:
        return self._last

    # Called by the reading thread.

    def told_opened(self, message: Opened) -> None:
        """The engine reports that the stream is open, or cannot be opened."""
        if self.opened.done():
            return
        if message.plan is not None:
            self.opened.set_result(message.plan)
        elif message.failure is not None:
            self.opened.set_exception(message.failure.revived())

    def told_finished(self, message: Finished) -> None:
        """The engine sent its last message about the stream."""
        if message.statistics is not None:
            self._last = Answer(-1, message.statistics, message.report)

    def end(self, error: Exception) -> None:
        """Nothing more follows; ``error`` ends the stream if it was not ended otherwise. May be called again."""
        self.inbox.close(error)
        with contextlib.suppress(InvalidStateError):  # it knows, or is told so by another thread
            self.opened.set_exception(error)
        with contextlib.suppress(InvalidStateError):
            self.finished.set_result(None)
