"""The messages between the consumer's process and the engine's."""

from __future__ import annotations

import contextlib
import logging
import pickle
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from dnc_async.config import FetchSettings
from dnc_async.dataset.cursor import PlanFacts
from dnc_async.engine.engine import EngineSetup
from dnc_async.engine.report.report import Report
from dnc_async.errors import EngineError
from dnc_async.telemetry import Event, StreamStatistics

# To the engine, on the control channel. ``stream`` is a number that the consumer's process assigns.


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message: what a :class:`~dnc_async.engine.runtime.Runtime` needs, and whether to send events and the log."""

    settings: FetchSettings
    budget_bytes: int
    spool_parent: Path
    log_level: int
    has_observers: bool

    @classmethod
    def of(cls, setup: EngineSetup, *, log_level: int) -> Self:
        """An engine's setup, without the parts that stay in the consumer's process."""
        return cls(setup.settings, setup.budget_bytes, setup.spool_parent, log_level, bool(setup.observers))


@dataclass(frozen=True, slots=True)
class Open:
    """Start a stream. The other end of its own channel is sent along.

    The ``request`` is pickled, because it may contain a transform of the consumer's, whose module may have to be imported
    first.
    """

    stream: int
    request: bytes
    started: float
    has_observers: bool


@dataclass(frozen=True, slots=True)
class Took:
    """The consumer took a batch at ``at``, after waiting in the intervals ``waits``, (from, to)."""

    stream: int
    at: float
    waits: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Awaits:
    """The consumer waits for the next batch."""

    stream: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """The consumer closed a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Ask:
    """A question: the stream's statistics, and with ``report`` its gap report, too."""

    question: int
    stream: int
    report: bool


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you alive? Sent before something is asked to end."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End all streams, and the process."""


# From the engine, on the control channel.


@dataclass(frozen=True, slots=True)
class Pong:
    """I am alive."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that is sent to the other process."""

    error: tuple[bytes, str]
    cause: tuple[bytes, str] | None = None
    #: The cause's traceback there.
    note: str = ""

    @classmethod
    def of(cls, error: Exception) -> Self:
        """The error and its cause, each pickled if possible, and as text. Never raises."""
        cause = error.__cause__
        if cause is None:
            return cls(_pickled(error))
        note = "".join(["in the engine's process, ", *traceback.format_exception(cause)])
        return cls(_pickled(error), _pickled(cause), note)

    def revived(self) -> Exception:
        """The error, with its cause. If it cannot be unpickled here, an EngineError with its text."""
        error = _revived(self.error, Exception)
        if self.cause is not None:
            error.__cause__ = cause = _revived(self.cause, BaseException)
            with contextlib.suppress(Exception):  # a frozen dataclass takes none
                cause.add_note(self.note)
        return error


def text_of(error: BaseException) -> str:
    """The error's type and text, even if its ``__str__`` fails."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an error class of the consumer's may raise anything
        return type(error).__name__


def _pickled(error: BaseException) -> tuple[bytes, str]:
    try:
        return pickle.dumps(error), text_of(error)
    except BaseException:  # noqa: BLE001 - as above
        return b"", text_of(error)


E = TypeVar("E", bound=BaseException)


def _revived(pickled: tuple[bytes, str], kind: type[E]) -> E | EngineError:
    data, text = pickled
    with contextlib.suppress(Exception):  # as above
        error = pickle.loads(data)  # noqa: S301 - from our own engine
        if isinstance(error, kind):
            return error
    return EngineError(text)


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream is open, with this plan; or it could not be opened."""

    stream: int
    plan: PlanFacts | None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The stream has ended, and this is left of it, if it ever began. The end in its channel tells whether it was delivered."""

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
    """Events for observers: of a stream, or of the client if ``None``."""

    told: tuple[tuple[int | None, Event], ...]
    dropped: int


@dataclass(frozen=True, slots=True)
class Log:
    """A record for the log."""

    record: logging.LogRecord


# From the engine, on a stream's own channel.


@dataclass(frozen=True, slots=True)
class Delivery:
    """The next batch."""

    batch: Any


@dataclass(frozen=True, slots=True)
class End:
    """Nothing follows: the plan was delivered, or failed with this error."""

    failure: Failure | None
