"""The blocking interface: for scripts, and for notebooks whose cells do not ``await``. Safe inside a running event loop.

The engine has a loop and a thread of its own, so blocking here stops no download. A notebook can take one batch at a
time::

    from dnc_async import sync

    cid = sync.upload({"x": X, "y": y}, batch_size=4096)
    batch = sync.download_first(cid, disk_budget="64 MB")
    while batch is not None:
        model.partial_fit(batch["x"], batch["y"])
        batch = sync.download_next()

When a batch is returned, the one before it has been deleted from the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from dnc_async.client import StreamCall
from dnc_async.config.numbers import whole_number
from dnc_async.config.signatures import takes
from dnc_async.engine.bridge import finalize
from dnc_async.engine.handle import StreamHandle
from dnc_async.engine.mailbox import Found
from dnc_async.engine.report.report import Report
from dnc_async.errors import StreamClosedError
from dnc_async.publish.target import UploadResult
from dnc_async.publish.uploading import UploadCall, upload_call
from dnc_async.shortcuts import stream_handle
from dnc_async.telemetry import StreamStatistics

T = TypeVar("T")


class BlockingStream:
    """The batches of a dataset, for a plain ``for`` loop. Close it, or use ``with``, to free everything at once.

    A further loop makes a further pass over the dataset, until it is closed.

    If a wait is interrupted (``KeyboardInterrupt``), or the notebook's cell that waits ends with an error, everything except
    the stream's position is freed: the next call continues from there, with new statistics. If two threads ask at the same
    time, the second gets ``RuntimeError``.
    """

    def __init__(self, handle: StreamHandle) -> None:
        self._handle = handle
        self._finalizer = finalize(self, handle.post_close)

    def __repr__(self) -> str:
        return f"<BlockingStream {self._handle.about}>"

    def __iter__(self) -> Self:
        self._handle.begin_loop()
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - a dict, a tuple or an array: what was uploaded
        try:
            return _next(self._handle)
        finally:
            del self  # a traceback that is kept, as in a notebook, keeps this frame alive

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def statistics(self) -> StreamStatistics:
        """A frozen snapshot of the stream so far."""
        return self._handle.open().statistics() if self._handle.running is None else self._handle.running.statistics()

    def report(self) -> Report:
        """Where the time went, up to the batch that was handed over last. Raises ``RuntimeError`` before the first one."""
        return self._handle.begun.report()

    def state_dict(self) -> dict[str, Any]:
        """The position after the batch that was handed over last, as plain data for JSON; valid at any time."""
        return self._handle.state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that :meth:`state_dict` returned; before the first batch, or between two passes."""
        self._handle.load_state(state)

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch with which the next pass over the dataset begins; without it, they are counted on."""
        self._handle.set_epoch(whole_number(epoch, name="epoch", least=0, meaning="the number of an epoch"))

    def close(self) -> None:
        """Free everything; returns when the files are deleted and the engine's thread has ended. May be called again."""
        self._handle.release()
        _wait_until_ended(self._handle)


def _next(handle: StreamHandle) -> Any:  # noqa: ANN401 - a dict, a tuple or an array: what was uploaded
    if handle.delivered:
        raise StopIteration
    handle.enter_thread()
    before = handle.handed_over
    try:
        handle.asks()
        while True:
            if handle.suspended:
                _wait_until_ended(handle)
            found, batch = handle.take()
            if found is Found.BATCH:
                return batch
            if found is Found.END:
                break
            _wait_until_ready(handle)
    except Exception:
        _close(handle)
        raise
    except BaseException:  # Ctrl-C: the next call continues
        handle.interrupted(before)
        raise
    finally:
        handle.thread = None  # not a call: Ctrl-C might interrupt it, and the batch would be lost
    _close(handle)
    raise StopIteration


def _wait_until_ready(handle: StreamHandle) -> None:
    ready = threading.Event()
    mailbox = handle.mailbox
    if mailbox.wait(ready.set):
        try:
            ready.wait()
        except BaseException:
            mailbox.give_up()
            raise


def _close(handle: StreamHandle) -> None:
    handle.post_close()
    _wait_until_ended(handle)


def _wait_until_ended(handle: StreamHandle) -> None:
    closing = handle.closing()
    if closing is not None:
        closing.result()
        handle.join()


@takes(StreamCall)
def stream(call: StreamCall) -> BlockingStream:
    """Stream a dataset's batches: ``for batch in sync.stream(cid)``. Options as for :func:`dnc_async.stream`."""
    return BlockingStream(stream_handle(call))


@takes(UploadCall)
def upload(call: UploadCall) -> UploadResult:
    """Publish a dataset. Options and errors as for :func:`dnc_async.upload`."""
    return _run_in_thread(upload_call(call))


def _run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a thread, because a notebook's own thread already runs a loop. An interrupt here cancels it."""
    running: Future[Callable[[], object]] = Future()

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        running.set_result(partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel))
        return await work

    with ThreadPoolExecutor(1, thread_name_prefix="dnc_async upload") as executor:
        future = executor.submit(asyncio.run, cancellable())
        try:
            return future.result()
        except BaseException:
            if not future.done():
                with contextlib.suppress(RuntimeError):  # its loop has just ended
                    running.result()()
            raise


class _Notebook:
    """The one stream that ``download_first`` and ``download_next`` use."""

    def __init__(self) -> None:
        self._stream: BlockingStream | None = None

    def first(self, stream: BlockingStream) -> Any:  # noqa: ANN401
        if self._stream is not None:
            self._stream.close()
        self._stream = stream
        return self.next()

    def next(self) -> Any:  # noqa: ANN401
        if self._stream is None:
            raise StreamClosedError(
                "there is no download to go on with: call download_first(cid) before download_next()"
            )
        return next(self._stream, None)


_notebook = _Notebook()


@takes(StreamCall)
def download_first(call: StreamCall) -> Any:  # noqa: ANN401 - as uploaded
    """The first batch of a dataset. Closes the stream that was open. Options as for :func:`stream`."""
    return _notebook.first(BlockingStream(stream_handle(call)))


def download_next() -> Any:  # noqa: ANN401 - as above
    """The next batch, or ``None`` at the end. The batch before it has been deleted from the disk."""
    return _notebook.next()
