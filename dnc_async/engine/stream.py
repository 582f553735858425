"""The iterator that the consumer holds: ``async for batch in stream``.

It is a class, not an async generator: a generator that is cancelled once has ended, this loses nothing. ``__anext__``
makes one checkpoint and takes the batch synchronously after its last await, so whether it is cancelled or not, a batch is
either returned or still there.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Protocol, Self

from dnc_async.engine.bridge import finalize, resolve, wait_for_future
from dnc_async.engine.mailbox import Found, Pickup
from dnc_async.engine.report.report import Report
from dnc_async.errors import EngineError, StreamClosedError
from dnc_async.telemetry import StreamStatistics


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
    """Where streams run: a thread of this process, or a process of its own."""

    @property
    def ours(self) -> bool:
        """Whether this process is the one that started it, not a fork of that."""

    def check_process(self) -> None:
        """Raise :class:`~dnc_async.errors.StreamClosedError` in a forked child."""

    def post(self, function: Callable[..., object], *args: Any) -> bool:  # noqa: ANN401
        """Have a function called where it may talk to the engine; ``False`` when that has ended."""

    def stop(self) -> None:
        """Ask it to end; returns at once."""

    def join(self) -> None:
        """Wait until it has ended."""


class StreamHandle:
    """One stream as both faces, the async and the blocking one, hold it. Opens the engine on first use."""

    def __init__(
        self, start: Callable[[], tuple[Engine, RunningStream, Pickup]], *, owns_engine: bool, about: str
    ) -> None:
        self._start = start
        self._owns_engine = owns_engine
        self.about = about
        self._engine: Engine | None = None
        self._running: RunningStream | None = None
        self._mailbox: Pickup
        self.closed = False
        self.delivered = False

    def open(self) -> RunningStream:
        """The running stream, started when it was not."""
        if self.closed:
            raise StreamClosedError(f"{self.about} was closed; make a new one with stream()")
        if self._running is None or self._engine is None:
            self._engine, self._running, self._mailbox = self._start()
        self._engine.check_process()
        return self._running

    @property
    def mailbox(self) -> Pickup:
        """Where the stream's batches come to, started when it was not."""
        self.open()
        return self._mailbox

    @property
    def running(self) -> RunningStream | None:
        """The running stream, if it was ever started."""
        return self._running

    @property
    def begun(self) -> RunningStream:
        """The running stream. Raises ``RuntimeError`` where it was never started."""
        if self._running is None:
            raise RuntimeError("nothing has happened yet: the stream starts when its first batch is asked for")
        return self._running

    def take(self) -> tuple[Found, Any]:
        """The next batch if it is there. Raises what ended the stream."""
        mailbox = self.mailbox
        try:
            found, batch = mailbox.take()
        except Exception:
            self.post_close()
            raise
        if found is Found.END:
            self.delivered = True
            self.post_close()
        return found, batch

    def post_close(self) -> None:
        """Ask the engine to free everything; returns at once, from any thread."""
        self.closed = True
        if self._engine is not None and self._running is not None:
            self._engine.post(self._running.cancel)
            if self._owns_engine:
                self._engine.stop()

    def closing(self) -> Future[None] | None:
        """What to wait for after :meth:`post_close`."""
        if self._running is None or self._engine is None or not self._engine.ours:
            return None
        return self._running.finished

    def join(self) -> None:
        """The engine's thread, if it is ours, has ended when this returns. It has nothing left to do."""
        if self._engine is not None and self._owns_engine:
            self._engine.join()


class BatchStream:
    """The batches of a dataset, one after the other.

    Iterate it, or hold it with ``async with`` for ``len()`` before the first batch. Leaving the loop by ``break`` or by an
    exception frees everything as soon as the iterator is dropped; one that is still bound to a name goes on at the next
    batch. :meth:`aclose` returns when nothing is left: no task, socket, thread or file.

    A cancelled ``__anext__`` loses nothing. ``StopAsyncIteration`` means that the whole plan was delivered. Two calls at
    once raise ``RuntimeError``.
    """

    def __init__(self, handle: StreamHandle) -> None:
        self.handle = handle
        self._busy = False
        self._finalizer = finalize(self, handle.post_close)

    def __repr__(self) -> str:
        running = self.handle.running
        if running is None:
            state = "closed" if self.handle.closed else "not started"
        else:
            state = "delivered" if self.handle.delivered else "closed" if self.handle.closed else "streaming"
            with contextlib.suppress(EngineError, StreamClosedError):  # its process is gone, or is another's
                stats = running.statistics()
                state += f", {stats.batches} batches, waited {stats.waited_s:.2f} s"
                state += ", the disk is full" if stats.disk_is_full else ""
        return f"<BatchStream {self.handle.about}: {state}>"

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - a dict, a tuple or an array: what was uploaded
        if self._busy:
            raise RuntimeError("two tasks ask this stream for a batch at once; give each its own, or use a lock")
        if self.handle.delivered:
            raise StopAsyncIteration
        self._busy = True
        try:
            await asyncio.sleep(0)
            return await self._next()
        finally:
            self._busy = False

    async def _next(self) -> Any:  # noqa: ANN401
        try:
            while True:
                found, batch = self.handle.take()
                if found is Found.BATCH:
                    return batch
                if found is Found.END:
                    break
                await self._ready()
        except Exception:
            await self.aclose()
            raise
        await self.aclose()
        raise StopAsyncIteration

    async def _ready(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def wake() -> None:  # in another thread
            with contextlib.suppress(RuntimeError):  # this loop was closed without the consumer coming back
                loop.call_soon_threadsafe(resolve, ready)

        mailbox = self.handle.mailbox
        if mailbox.wait(wake):
            try:
                await ready
            except BaseException:
                mailbox.give_up()
                raise

    async def __aenter__(self) -> Self:
        running = self.handle.open()
        try:
            await wait_for_future(running.opened)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __len__(self) -> int:
        running = self.handle.running
        if running is None or not running.opened.done():
            raise TypeError("how many batches there are is known once the stream is open: use 'async with stream(…)'")
        batches = running.opened.result()
        if batches is None:
            raise TypeError("a stream with epochs=None has no length")
        return batches

    def statistics(self) -> StreamStatistics:
        """A frozen snapshot of the stream so far. Raises ``RuntimeError`` before the first batch was asked for."""
        return self.handle.begun.statistics()

    def report(self) -> Report:
        """Where the time went, up to the batch that was handed over last; print it, save it, plot it. Also after the end.

        Raises ``RuntimeError`` before the first batch was asked for.
        """
        return self.handle.begun.report()

    async def aclose(self) -> None:
        """Free everything; returns when the files are gone and the engine's thread is joined. May be called again.

        A transform that runs is waited for, up to ``FetchSettings.transform_patience_s``
        (:mod:`~dnc_async.engine.transform`).
        """
        self.handle.post_close()
        closing = self.handle.closing()
        if closing is not None:
            await wait_for_future(closing)
            self.handle.join()
