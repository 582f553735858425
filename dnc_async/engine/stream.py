"""The iterator for the consumer: ``async for batch in stream``.

It is a class, not an async generator: a generator ends when it is cancelled once, but this one loses nothing. ``__anext__``
makes one checkpoint and takes the batch synchronously after its last await, so whether it is cancelled or not, a batch is
either returned or still there. The traceback of an interrupted call refers to the handle and not to the iterator, which is
therefore garbage-collected, and closed, if nothing else refers to it (:mod:`~dnc_async.engine.handle`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn, Self

from dnc_async.config.numbers import whole_number
from dnc_async.engine.bridge import finalize, resolve, wait_for_future
from dnc_async.engine.handle import StreamHandle
from dnc_async.engine.mailbox import Found
from dnc_async.engine.report.report import Report
from dnc_async.errors import EngineError, StreamClosedError
from dnc_async.telemetry import StreamStatistics

_USE = (
    "use 'async for batch in stream' in async code or a notebook's cell, or a plain 'for' loop over "
    "dnc_async.sync.stream(cid, …)"
)


class _Asking:
    """The only call that may ask a handle for a batch at a time. It is over when its loop is closed, even if it was not ended."""

    def __init__(self, handle: StreamHandle) -> None:
        self._handle = handle
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<_Asking for {self._handle.about}, {'busy' if self._loop else 'free'}>"

    async def next(self) -> Any:  # noqa: ANN401 - a dict, a tuple or an array: what was uploaded
        """The next batch; raises ``StopAsyncIteration`` at the end."""
        self._handle.check_process()  # first, because in a forked child Python sees no running loop
        loop = asyncio.get_running_loop()
        if self._loop is not None and not self._loop.is_closed():
            raise RuntimeError("two tasks ask this stream for a batch at once; give each its own, or use a lock")
        if self._handle.delivered:
            raise StopAsyncIteration
        self._loop, before = loop, self._handle.handed_over
        try:
            self._handle.asks(asyncio.current_task())
            await asyncio.sleep(0)
            return await self._next(loop)
        except asyncio.CancelledError:
            self._handle.cancelled()
            raise
        except (KeyboardInterrupt, SystemExit):
            self._handle.interrupted(before)
            raise
        finally:
            if self._loop is loop:
                self._loop = None

    async def _next(self, loop: asyncio.AbstractEventLoop) -> Any:  # noqa: ANN401
        handle = self._handle
        try:
            while True:
                if handle.suspended:
                    await ended(handle)
                found, batch = handle.take()
                if found is Found.BATCH:
                    return batch
                if found is Found.END:
                    break
                await self._ready(loop)
        except Exception:
            await close(handle)
            raise
        await close(handle)
        raise StopAsyncIteration

    async def _ready(self, loop: asyncio.AbstractEventLoop) -> None:
        ready: asyncio.Future[None] = loop.create_future()

        def wake() -> None:  # in another thread
            with contextlib.suppress(RuntimeError):  # this loop was closed before the consumer asked again
                loop.call_soon_threadsafe(resolve, ready)

        mailbox = self._handle.mailbox
        if mailbox.wait(wake):
            try:
                await ready
            except BaseException:
                mailbox.give_up()
                raise


async def ended(handle: StreamHandle) -> None:
    """Wait until nothing is left of the stream that runs, or ran, after it was told to end."""
    closing = handle.closing()
    if closing is not None:
        await wait_for_future(closing)
        handle.join()


async def close(handle: StreamHandle) -> None:
    """Free everything; returns when that is done."""
    handle.post_close()
    await ended(handle)


class BatchStream:
    """The batches of a dataset, one after the other.

    Iterate over it, or use ``async with`` for ``len()`` before the first batch; a further loop makes a further pass over the
    dataset, until :meth:`aclose`. Leaving the loop by ``break`` or an exception
    frees everything as soon as the iterator is garbage-collected; an iterator that is still referred to continues with the next
    batch. :meth:`aclose` returns when no task, socket, thread or file is left.

    A cancelled ``__anext__`` loses nothing, and may be called again. The stream is suspended if it was interrupted by
    ``KeyboardInterrupt``, if the task that asked last was cancelled or failed and no task asks again, or if IPython ran it in a
    cell that failed. Then it frees everything except its position, and continues from there if it is asked again, with new
    statistics. ``StopAsyncIteration`` means that the whole plan was delivered. Two calls at the same time raise
    ``RuntimeError``.
    """

    def __init__(self, handle: StreamHandle) -> None:
        self.handle = handle
        self._asking = _Asking(handle)
        self._finalizer = finalize(self, handle.post_close)

    def __repr__(self) -> str:
        running = self.handle.running
        if running is None:
            state = "closed" if self.handle.closed else "not started"
        else:
            handle = self.handle
            state = "suspended" if handle.suspended else "closed" if handle.closed else "streaming"
            state = "delivered" if handle.delivered else state
            with contextlib.suppress(EngineError, StreamClosedError):  # its process is gone, or this is a fork
                stats = running.statistics()
                state += f", {stats.batches} batches, waited {stats.waited_s:.2f} s"
                state += ", the disk is full" if stats.disk_is_full else ""
        return f"<BatchStream {self.handle.about}: {state}>"

    def __aiter__(self) -> Self:
        self.handle.begin_loop()
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - a dict, a tuple or an array: what was uploaded
        try:
            return await self._asking.next()
        finally:
            del self  # a traceback that is kept keeps this frame alive

    def __iter__(self) -> NoReturn:
        raise TypeError(f"this stream is asynchronous: {_USE}")

    def __getitem__(self, index: object) -> NoReturn:
        raise TypeError(f"a stream has no random access, and is no map-style dataset for a DataLoader: {_USE}")

    async def __aenter__(self) -> Self:
        if self.handle.suspended:
            await ended(self.handle)
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
            raise TypeError(
                "how many batches there are is known once the stream is open: use 'async with stream(…) as batches', "
                "then len(batches)"
            )
        batches = running.opened.result().batches
        if batches is None:
            raise TypeError("a stream with epochs=None has no length")
        return batches

    def state_dict(self) -> dict[str, Any]:
        """The position after the batch that was handed over last, as plain data for JSON; valid at any time.

        Save it with your model's state. ``stream(cid, resume=state)``, or :meth:`load_state_dict`, goes on with the next batch.
        """
        return self.handle.state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that :meth:`state_dict` returned; before the first batch is asked for, or between two passes.

        Raises :class:`~dnc_async.errors.ArgumentError` for the state of another dataset or order.
        """
        self.handle.load_state(state)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch with which the next pass over the dataset begins; without it, they are counted on."""
        self.handle.set_epoch(whole_number(epoch, name="epoch", least=0, meaning="the number of an epoch"))

    @property
    def batches_before(self) -> int:
        """How many of all batches precede those of this run, which went on where another one stopped."""
        return self.handle.begun.opened.result().first

    def statistics(self) -> StreamStatistics:
        """A frozen snapshot of the stream so far. Raises ``RuntimeError`` before the first batch was asked for."""
        return self.handle.begun.statistics()

    def report(self) -> Report:
        """Where the time went, up to the batch that was handed over last; print, save or plot it. Also after the end.

        Raises ``RuntimeError`` before the first batch was asked for.
        """
        return self.handle.begun.report()

    async def aclose(self) -> None:
        """Free everything; returns when the files are deleted and the engine's thread has ended. May be called again.

        A running transform is waited for, up to ``FetchSettings.transform_patience_s`` (:mod:`~dnc_async.engine.transform`).
        """
        self.handle.release()
        await ended(self.handle)
