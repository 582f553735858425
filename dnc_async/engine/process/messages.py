"""What the consumer's process and the engine's tell each other."""

from __future__ import annotations

import logging
import pickle
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dnc_async.config import FetchSettings
from dnc_async.engine.report.report import Report
from dnc_async.errors import EngineError
from dnc_async.telemetry import Event, StreamStatistics

# To the engine, on the control channel. ``stream`` is a number that the consumer's process gives.


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message: what a :class:`~dnc_async.engine.runtime.Runtime` needs, and what is to be told."""

    settings: FetchSettings
    budget_bytes: int
    spool_parent: Path
    log_level: int
    has_observers: bool


@dataclass(frozen=True, slots=True)
class Open:
    """Start a stream. The other end of its own channel travels with this.

    The pickled ``request`` may hold a transform of the consumer's, which cannot be told from outside to be found there.
    """

    stream: int
    request: bytes
    started: float
    has_observers: bool


@dataclass(frozen=True, slots=True)
class Took:
    """The consumer took a batch at ``at``, after such (from, to) ``waits``."""

    stream: int
    at: float
    waits: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Awaits:
    """The consumer waits for the next batch."""

    stream: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """The consumer wants no more of a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Ask:
    """A question: the stream's statistics, and with ``report`` its gap report, too."""

    question: int
    stream: int
    report: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """End all streams, and the process."""


# From the engine, on the control channel.


@dataclass(frozen=True, slots=True)
class Failure:
    """An error on its way to the other process."""

    error: Exception
    cause: BaseException | None = None

    @classmethod
    def of(cls, error: Exception) -> Self:
        """The error and its cause, where they can be pickled; what cannot goes as text."""
        cause = error.__cause__
        if cause is not None:
            cause.add_note("".join(["in the engine's process, ", *traceback.format_exception(cause)]))
        if not _is_portable(error):
            error = EngineError(f"{type(error).__name__}: {error}")
        if cause is not None and not _is_portable(cause):
            cause = EngineError(f"{type(cause).__name__}: {cause}")
        return cls(error, cause)

    def revived(self) -> Exception:
        """The error, with its cause."""
        self.error.__cause__ = self.cause
        return self.error


def _is_portable(error: BaseException) -> bool:
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own, of a moment ago
    except Exception:  # noqa: BLE001 - whatever an error of the consumer's does there
        return False
    return True


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream is open and will deliver so many batches, ``None`` for no end; or it could not be opened."""

    stream: int
    batches: int | None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing is left of a stream but this, if it ever began: the end in its channel says whether it was delivered."""

    stream: int
    statistics: StreamStatistics | None = None
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question."""

    question: int
    statistics: StreamStatistics
    report: Report | None


@dataclass(frozen=True, slots=True)
class Events:
    """What observers are to be told: those of a stream, or with ``None`` the client's."""

    told: tuple[tuple[int | None, Event], ...]
    dropped: int


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the log."""

    record: logging.LogRecord


# From the engine, on a stream's own channel.


@dataclass(frozen=True, slots=True)
class Delivery:
    """The next batch."""

    batch: Any


@dataclass(frozen=True, slots=True)
class End:
    """Nothing comes after this: the plan was delivered, or this went wrong."""

    failure: Failure | None
