"""The interface of an engine: it runs streams, and calls that fetch, outside of the consumer's code.

There are two implementations: :class:`~dnc_async.engine.thread_engine.ThreadEngine` in a thread of the consumer's process, and
:class:`~dnc_async.engine.process.remote.RemoteEngine` in its own process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dnc_async.config import FetchSettings
from dnc_async.dataset.cursor import PlanFacts
from dnc_async.dataset.manifest import Manifest
from dnc_async.engine.bridge import RunningCall
from dnc_async.engine.mailbox import BatchReceiver
from dnc_async.engine.report.report import Report
from dnc_async.engine.runtime import Origin, StreamRequest
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld.cid import Cid
from dnc_async.telemetry import Observer, StreamStatistics

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetup:
    """What an engine is created with. ``observers`` receive the events of all its streams and calls."""

    settings: FetchSettings
    budget_bytes: int
    spool_parent: Path
    observers: tuple[Observer, ...] = ()


class RunningStream(Protocol):
    """A stream in the engine. ``opened`` tells of its plan."""

    opened: Future[PlanFacts]
    finished: Future[None]

    def cancel(self) -> None:
        """Stop the stream (in the engine's thread)."""

    def statistics(self) -> StreamStatistics:
        """A snapshot, from any thread."""

    def report(self) -> Report:
        """The gap report so far, from any thread."""


class Engine(Protocol):
    """Where a client's streams and calls run. It is created in the consumer's thread, and starts on first use."""

    @property
    def is_started(self) -> bool:
        """Whether it was started: then it must be closed, and cannot be started again."""

    @property
    def ours(self) -> bool:
        """Whether this process created it, and is not a fork."""

    def check_process(self) -> None:
        """Raise :class:`~dnc_async.errors.StreamClosedError` in a forked child."""

    def start(self) -> None:
        """Start what streams need, unless it is started. Raises :class:`~dnc_async.errors.EngineError`."""

    def open_stream(
        self, request: StreamRequest, *, observers: Iterable[Observer], owned: bool
    ) -> tuple[RunningStream, BatchReceiver]:
        """Start a stream, and the engine if necessary; returns the stream, and the mailbox for its batches.

        ``observers`` are this stream's only. The engine ends with a stream that is ``owned``, because it is the only one.
        """

    async def manifest(self, origin: Origin, root: Cid, path: tuple[str, ...]) -> Manifest:
        """Load the manifest of the dataset at a path below a root."""

    async def with_group(self, origin: Origin, root: Cid, function: Callable[[FetchGroup], Awaitable[T]]) -> T:
        """Run a function that fetches blocks below a root. A cancelled call returns when it has cleaned up."""

    def begin_with_group(
        self, origin: Origin, root: Cid, function: Callable[[FetchGroup], Awaitable[T]]
    ) -> RunningCall[T]:
        """Start a function that fetches blocks below a root, for as long as it needs; returns at once."""

    def post(self, function: Callable[..., object], *args: Any) -> bool:  # noqa: ANN401
        """Call a function where it may talk to the engine; returns ``False`` if the engine has ended."""

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function in another thread after a delay, if the engine still runs then."""

    def stop(self) -> None:
        """Ask it to end, with everything that runs in it; returns at once, from any thread."""

    def join(self) -> None:
        """Wait, blocking, until it has ended. Call it only when it has nothing left to do."""

    async def aclose(self) -> None:
        """Stop it if it was started, and return when nothing of it is left. May be called again."""
