"""What an engine is to a client: it runs streams, and calls that fetch, somewhere else than in the consumer's code.

There are two: :class:`~dnc_async.engine.thread_engine.ThreadEngine` in a thread of the consumer's process, and
:class:`~dnc_async.engine.process.remote.RemoteEngine` in a process of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from dnc_async.config import FetchSettings
from dnc_async.dataset.manifest import Manifest
from dnc_async.engine.mailbox import BatchReceiver
from dnc_async.engine.report.report import Report
from dnc_async.engine.runtime import Origin, StreamRequest
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld.cid import Cid
from dnc_async.telemetry import Observer, StreamStatistics

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSetup:
    """What an engine is made of. ``observers`` are told what all its streams and calls do."""

    settings: FetchSettings
    budget_bytes: int
    spool_parent: Path
    observers: tuple[Observer, ...] = ()


class RunningStream(Protocol):
    """What a stream is in the engine. ``opened`` is how many batches there will be, ``None`` where there is no end."""

    opened: Future[int | None]
    finished: Future[None]

    def cancel(self) -> None:
        """Stop, in the engine's thread."""

    def statistics(self) -> StreamStatistics:
        """A snapshot, from any thread."""

    def report(self) -> Report:
        """The gap report so far, from any thread."""


class Engine(Protocol):
    """Where a client's streams run, and its calls. It is made in the consumer's thread, and starts nothing before it must."""

    @property
    def is_started(self) -> bool:
        """Whether it was started: it must be closed then, and is not started anew."""

    @property
    def ours(self) -> bool:
        """Whether this process is the one that made it, not a fork of that."""

    def check_process(self) -> None:
        """Raise :class:`~dnc_async.errors.StreamClosedError` in a forked child."""

    def start(self) -> None:
        """Start what streams need, where it was not started yet. Raises :class:`~dnc_async.errors.EngineError`."""

    def open_stream(
        self, request: StreamRequest, *, observers: Iterable[Observer], owned: bool
    ) -> tuple[RunningStream, BatchReceiver]:
        """Start a stream, and the engine where it was not started yet; give the stream, and where its batches come to.

        ``observers`` are this stream's alone. The engine ends with a stream that is ``owned``: there is no other.
        """

    async def manifest(self, origin: Origin, root: Cid, path: tuple[str, ...]) -> Manifest:
        """Load the manifest of the dataset at a path beneath a root."""

    async def with_group(self, origin: Origin, root: Cid, function: Callable[[FetchGroup], Awaitable[T]]) -> T:
        """Run a function that fetches what lies beneath a root; a call that is cancelled returns when it has cleaned up."""

    def post(self, function: Callable[..., object], *args: Any) -> bool:  # noqa: ANN401
        """Have a function called where it may talk to the engine; ``False`` when that has ended."""

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Have a function called in another thread after so long, if the engine still runs."""

    def stop(self) -> None:
        """Ask it to end, with all that runs in it; returns at once, from any thread."""

    def join(self) -> None:
        """Wait, blocking, until it has ended. Whoever calls knows that it has nothing left to do."""

    async def aclose(self) -> None:
        """Stop it, where it was started, and return when nothing is left of it. May be called again."""
