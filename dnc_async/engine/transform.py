"""The consumer's transform, between a batch's last chunk and its hand-over: ``transform=``, ``transform_workers=``.

It never runs in the engine's loop, which has to keep fetching, nor in the consumer's thread, where it would be idle time. It
runs at the same time as the consumer's step, in its own threads. Results are handed over in the plan's order.

=====================  ============================================================================================
``transform_workers``  what runs, and what is in memory in addition to the batch that the consumer has
=====================  ============================================================================================
0                      one call at a time, in one thread; one batch, as without a transform: a batch that was, or
                       is being, transformed keeps the place in which the next batch would be received
N                      N threads; N batches that are being or have been transformed, and one that is being received
an executor            yours, such as a process pool; as many as it has workers, and one that is being received
=====================  ============================================================================================

While it is being transformed a batch counts once, whatever the function returns: its input is dropped when the call returns,
and if a call returns more than its input, memory grows by that much. An executor of yours keeps the input until the result has
arrived.

With 0 or 1 the function need not be thread-safe; with more, several calls run at once. Each runs in a copy of the context
(:mod:`contextvars`) in which ``stream()`` was called, except in your executor, whose threads have their own.

A running function cannot be stopped. When the stream is closed, calls that have not begun are cancelled, and those that run are
waited for, so that no thread is left behind. If one takes longer than ``FetchSettings.transform_patience_s``, a warning names
it, its result is dropped, and its thread ends with it. The interpreter's exit waits for such a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import pickle
from collections.abc import Awaitable, Callable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass
from typing import Any

import anyio

from dnc_async.config.numbers import whole_number
from dnc_async.dataset.plan import PlannedBatch
from dnc_async.errors import ArgumentError, TransformError
from dnc_async.telemetry import logger

TransformFunction = Callable[[Any], Any]
Workers = int | Executor


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """A consumer's checked transform; ``context`` is the context of the call of ``stream()``."""

    function: TransformFunction
    workers: Workers
    context: contextvars.Context

    def __reduce__(self) -> tuple[object, ...]:
        return _here, (self.function, self.workers)  # a context stays where it is

    def check_portable(self) -> None:
        """Raise :class:`~dnc_async.errors.ArgumentError` if it cannot run in another process."""
        if isinstance(self.workers, Executor):
            raise ArgumentError(
                "transform_workers: an executor belongs to this process, and with engine='process' the transform runs in "
                "another; give a number of threads, which there do not wait for your step"
            )
        if b"__main__" in _check_picklable(self.function):
            raise ArgumentError(
                f"transform: {self.name} was defined in a notebook, a prompt or the script that runs, where the engine's process "
                "cannot find it; with engine='process' put it into a module"
            )

    @property
    def name(self) -> str:
        """The function's name in messages."""
        return str(getattr(self.function, "__qualname__", None) or type(self.function).__qualname__)

    @classmethod
    def of(cls, function: object, workers: object) -> Transform | None:
        """Check the two arguments; ``None`` if there is no transform. Raises :class:`~dnc_async.errors.ArgumentError`."""
        if not isinstance(workers, Executor):
            meaning = "how many threads (0: one call at a time), or an executor such as concurrent.futures.ProcessPoolExecutor()"
            workers = whole_number(workers, name="transform_workers", least=0, meaning=meaning)
        if function is None:
            return None
        if not callable(function):
            raise ArgumentError(f"transform: expected a function that takes a batch, got {function!r}")
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            raise ArgumentError(
                f"transform: expected a plain function, which runs in a thread, got the async {function!r}"
            )
        if isinstance(workers, Executor):
            from concurrent.futures import ProcessPoolExecutor  # noqa: PLC0415 - multiprocessing, which few need

            if isinstance(workers, ProcessPoolExecutor):
                _check_picklable(function)
        return cls(function=function, workers=workers, context=contextvars.copy_context())


def _here(function: TransformFunction, workers: Workers) -> Transform:
    return Transform(function=function, workers=workers, context=contextvars.copy_context())


def _check_picklable(function: object) -> bytes:
    try:
        return pickle.dumps(function)
    except Exception as error:
        raise ArgumentError(
            f"transform: another process needs a function that can be pickled, one at the top level of a module, and not a "
            f"lambda or a function within a function; got {function!r} ({error})"
        ) from error


class Job:
    """The transform of one batch."""

    def __init__(self, planned: PlannedBatch, transform: Transform) -> None:
        self.planned = planned
        #: When its batch was complete and had its place in memory, and when the function returned.
        self.complete_at = self.done_at = 0.0
        self.finished = asyncio.Event()
        self.future: Future[Any] | None = None
        self.result: list[Any] = []
        self._transform = transform

    def __repr__(self) -> str:
        return f"<Job batch {self.planned.position}, {'finished' if self.finished.is_set() else 'running'}>"

    def cancel(self) -> None:
        """Cancel it unless it has begun."""
        if self.future is not None:
            self.future.cancel()

    def take(self) -> Any:  # noqa: ANN401 - whatever the function returned
        """The result, which is not kept here any longer. Raises :class:`~dnc_async.errors.TransformError`."""
        future, self.future = self.future, None
        assert future is not None  # noqa: S101 - taken once, after it was started
        try:
            error = future.exception()
        except CancelledError as cancelled:  # by the executor's owner
            error = cancelled
        if error is None:
            return self.result.pop() if self.result else future.result()
        position, index = self.planned.skipped + self.planned.position, self.planned.index
        raise TransformError(
            f"the transform {self._transform.name} failed for batch {position} of the stream (batch {index} of the dataset): "
            f"{type(error).__name__}: {error}{_remedy(error, self._transform.workers)}",
            position=position,
            index=index,
        ) from error


def _remedy(error: BaseException, workers: Workers) -> str:
    """What to do about an error that may be the executor's, and not the function's."""
    if not isinstance(workers, Executor):
        return ""
    if isinstance(error, pickle.PicklingError) or "pickle" in str(error):
        return (
            ". What is passed to another process and back must be picklable: arrays are, open files and locks are not"
        )
    if isinstance(error, BrokenExecutor):
        return (
            ". A worker process died: it ran out of memory, or could not import the function, as a spawned process cannot "
            "where it was defined in a notebook or at a prompt; put it into a module"
        )
    if isinstance(error, CancelledError):
        return "The executor gave the call up; keep it running for as long as the stream"
    return ""


class Transforms:
    """Runs one stream's function. Used in the engine's thread, until :meth:`aclose`."""

    def __init__(
        self,
        transform: Transform,
        *,
        in_worker: Callable[..., Awaitable[Any]],
        threads: Callable[[int, str], Executor],
        clock: Callable[[], float],
        patience_s: float,
        executor_batches: int,
    ) -> None:
        """Prepare to run a stream's function.

        ``in_worker`` calls blocking functions, and ``threads`` creates worker threads by their number and name.
        ``executor_batches`` are given at once to an executor that does not tell how many workers it has.
        """
        self._transform = transform
        self._in_worker = in_worker
        self._clock = clock
        self._patience_s = patience_s
        self._running: set[Job] = set()
        self._own: Executor | None = None
        workers = transform.workers
        if isinstance(workers, Executor):
            self._executor = workers
            #: How many batches may be here in addition to the one that is being received.
            self.places = int(getattr(workers, "_max_workers", executor_batches))
        else:
            self._own = self._executor = threads(max(1, workers), "dnc_async transform")
            self.places = workers

    def __repr__(self) -> str:
        return f"<Transforms {self._transform.name}, {len(self._running)} of {self.places} running>"

    async def start(self, planned: PlannedBatch, batch: object) -> Job:
        """Have a batch transformed. Errors are raised by the job, so that earlier batches are handed over first."""
        job = Job(planned, self._transform)
        job.complete_at = self._clock()
        await self._in_worker(self._start, job, batch, asyncio.get_running_loop())
        return job

    def _start(self, job: Job, batch: object, loop: asyncio.AbstractEventLoop) -> None:
        """In a worker thread, because an executor may be slow, for example to start a process."""

        def done(_: Future[Any]) -> None:  # in any thread
            job.done_at = self._clock()
            self._running.discard(job)
            with contextlib.suppress(RuntimeError):  # the engine abandoned it and has ended
                loop.call_soon_threadsafe(job.finished.set)

        job.future = future = self._submit(job, batch)
        self._running.add(job)
        future.add_done_callback(done)

    def _submit(self, job: Job, batch: object) -> Future[Any]:
        function = self._transform.function
        try:
            if self._own is None:
                return self._executor.submit(function, batch)
            box, context = [batch], self._transform.context.copy()
            # Passed in lists, because an idle thread keeps references to its last call and result.
            return self._own.submit(context.run, lambda: job.result.append(function(box.pop())))
        except Exception as error:  # noqa: BLE001 - the executor was shut down, or is broken
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed

    async def aclose(self) -> None:
        """Cancel what has not begun, wait for what runs, and end our threads."""
        for job in tuple(self._running):
            job.cancel()
        with anyio.move_on_after(self._patience_s):
            for job in tuple(self._running):
                await job.finished.wait()
        if self._running:
            logger.warning(
                "the stream was left, and the transform %s of %s is still running after %g s; its thread ends when it returns",
                self._transform.name,
                ", ".join(f"batch {position}" for position in sorted(job.planned.position for job in self._running)),
                self._patience_s,
            )
        if self._own is not None:
            self._own.shutdown(wait=not self._running, cancel_futures=True)  # idle threads end at once
