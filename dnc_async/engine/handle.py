"""The consumer's handle of one stream, for both interfaces: it is started on first use, suspended, resumed and closed.

A consumer whose wait is interrupted may or may not ask again. A traceback that is kept (a notebook keeps the last one) keeps
all frames of the call alive, so what they refer to is never garbage-collected, and nothing else tells that the consumer is
gone. So an interrupted stream is *suspended*: everything is freed except its position in the plan, and when it is asked again
it starts anew from there. This happens at once after ``KeyboardInterrupt``. After an error or a cancellation it happens when
the task has ended and no batch was asked for during a short time. A timeout around one batch, after which the same task asks
again, is not an interruption. For notebook cells see :mod:`~dnc_async.engine.ipython_cells`.

A stream whose batches were all handed over makes another pass when a loop begins over it again.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from dnc_async.dataset.cursor import Cursor
from dnc_async.engine import ipython_cells
from dnc_async.engine.checkpoint import Checkpoint
from dnc_async.engine.engine import Engine, RunningStream
from dnc_async.engine.mailbox import BatchReceiver, Found
from dnc_async.errors import StreamClosedError

#: A stream is suspended if no batch was asked for in this time after the end of a cancelled task. The time grows with each
#: suspension, so that a consumer that asks rarely, each time from a new task, gets a batch in the end.
_GRACE_S = 2.0
_GRACE_GROWS = 4.0


class StreamHandle:
    """One stream, as used by the async and the blocking interface. Opens the engine on first use."""

    def __init__(
        self,
        start: Callable[[Cursor, int], tuple[Engine, RunningStream, BatchReceiver]],
        *,
        owns_engine: bool,
        about: str,
        epochs: int | None = 1,
        cursor: Cursor | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """``start`` starts the stream so many batches after a cursor. A pass over the dataset is ``epochs`` epochs long."""
        self._start = start
        self._epochs = epochs
        self._cursor = cursor or Cursor()
        self._next_epoch: int | None = None
        self._checkpoint = checkpoint
        self.released = False
        self._owns_engine = owns_engine
        self.about = about
        self._engine: Engine | None = None
        self._running: RunningStream | None = None
        self._mailbox: BatchReceiver
        self._lock = threading.Lock()
        self.handed_over = self._asked = self._before_run = 0
        self._left = -1
        self.thread: int | None = None
        self._consumer: Callable[[], asyncio.Task[Any] | None] = _nobody
        self._grace_s = _GRACE_S
        self.closed = self.delivered = self.suspended = False

    def open(self) -> RunningStream:
        """The running stream, which is started if necessary. A suspended one must have ended (:meth:`closing`)."""
        if self.closed:
            raise StreamClosedError(f"{self.about} was closed; make a new one with stream()")
        if self._running is None or self._engine is None or self.suspended:
            if self._checkpoint is not None:
                self._checkpoint.acquire()
            self._before_run = self.handed_over
            self._engine, self._running, self._mailbox = self._start(self._cursor, self.handed_over)
            self.suspended = False
        self._engine.check_process()
        return self._running

    @property
    def mailbox(self) -> BatchReceiver:
        """The mailbox for the stream's batches; starts the stream if necessary."""
        self.open()
        return self._mailbox

    @property
    def running(self) -> RunningStream | None:
        """The running stream, if it was ever started."""
        return self._running

    @property
    def begun(self) -> RunningStream:
        """The running stream. Raises ``RuntimeError`` if it was never started."""
        if self._running is None:
            raise RuntimeError("nothing has happened yet: the stream starts when its first batch is asked for")
        return self._running

    def check_process(self) -> None:
        """Raise :class:`~dnc_async.errors.StreamClosedError` in a forked child of the process that started the stream."""
        if self._engine is not None:
            self._engine.check_process()

    def begin_loop(self) -> None:
        """A loop begins. If all batches were handed over, it is the next pass over the dataset.

        Raises :class:`~dnc_async.errors.StreamClosedError` if the stream was closed by its consumer.
        """
        if not self.delivered:
            return
        if self.released:
            raise StreamClosedError(
                f"{self.about}: all batches were handed over, and the stream was closed; make a new one"
            )
        following = self._cursor.first_epoch + (self._epochs or 0)
        self._cursor = Cursor.of_epoch(following if self._next_epoch is None else self._next_epoch)
        self._next_epoch, self.handed_over = None, 0
        self.closed = self.delivered = False
        self.suspended = True  # everything was freed: it starts again when it is asked for a batch

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch with which the next pass begins."""
        if self._running is None:
            self._cursor = Cursor.of_epoch(epoch)
        else:
            self._next_epoch = epoch

    def state(self) -> dict[str, Any]:
        """The state after the batch that was handed over last."""
        cursor, running = self._cursor, self._running
        if self.handed_over and running is not None:
            cursor = cursor.after(self.handed_over - self._before_run, running.opened.result())
        return cursor.state(self.about)

    def load_state(self, state: object) -> None:
        """Go on from a state. Raises ``RuntimeError`` if the stream has begun."""
        if self._running is not None and not self.delivered:
            raise RuntimeError("the stream has begun: load its state before the first batch is asked for")
        cursor = Cursor.from_state(state, self.about, "load_state_dict")
        if self.delivered:
            self.begin_loop()
        self._cursor = cursor

    def _keep(self, *, is_last: bool = False) -> None:
        """Write the checkpoint, if there is one: the batches that were handed over are done with."""
        if self._checkpoint is not None:
            self._checkpoint.write(self.state(), is_last=is_last)

    def enter_thread(self) -> None:
        """Let only this thread ask for batches until it sets ``thread`` to ``None``. Raises ``RuntimeError`` in another."""
        me = threading.get_ident()
        with self._lock:
            if self.thread not in (None, me):
                raise RuntimeError("two threads ask this stream for a batch at once; give each its own, or use a lock")
            self.thread = me

    def asks(self, task: asyncio.Task[Any] | None = None) -> None:
        """The consumer, in a task or a plain thread, asks for a batch: it has not left the stream."""
        if self._running is not None:
            self._keep()
        with self._lock:
            self._asked += 1
        if task is not None and self._consumer() is not task:
            _watch(task, self)
        self._consumer = _nobody if task is None else weakref.ref(task)
        ipython_cells.asks(self)

    @property
    def is_consumed(self) -> bool:
        """Whether the task that asked last is still running."""
        task = self._consumer()
        return task is not None and not task.done()

    def take(self) -> tuple[Found, Any]:
        """The next batch if it is ready. Raises the error that ended the stream."""
        mailbox = self.mailbox
        try:
            found, batch = mailbox.take()
        except Exception:
            self.post_close()
            raise
        if found is Found.BATCH:
            self.handed_over += 1
        elif found is Found.END:
            self.delivered = True
            self._keep(is_last=True)
            self.post_close()
        return found, batch

    def post_close(self) -> None:
        """Ask the engine to free everything; returns at once, from any thread."""
        self.closed = True
        self._post_end()

    def release(self) -> None:
        """As :meth:`post_close`, for good: the consumer makes no further pass."""
        self.released = True
        self.post_close()

    def suspend(self) -> None:
        """Ask the engine to free everything, and keep the position: when asked again, the stream goes on with the next batch."""
        with self._lock:
            self._suspend()

    def interrupted(self, handed_over: int) -> None:
        """Suspend it inside a call before which this many batches were handed over; what the call took was not delivered."""
        with self._lock:
            self.handed_over = handed_over
            self._suspend()

    def cancelled(self) -> None:
        """A wait is cancelled: the stream is suspended if its task ends, for whatever reason, and no task asks again."""
        self._left = self._asked

    def task_ended(self, task: asyncio.Task[Any]) -> None:
        """A consumer's task has ended. If it ended with an error, or was cancelled, it may have left the stream."""
        # Not exception(): who asks for that takes it upon himself to tell of it.
        has_failed = task.cancelled() or getattr(task, "_exception", None) is not None
        asked, engine = self._asked, self._engine
        if engine is None or self._consumer() is not task or not (has_failed or self._left == asked):
            return

        def check() -> None:
            with self._lock:
                if self._asked == asked and not self.suspended:
                    self._grace_s *= _GRACE_GROWS
                    self._suspend()

        engine.call_later(self._grace_s, check)

    def _suspend(self) -> None:
        if self._running is not None and not self.closed and not self.suspended:
            self.suspended = True
            self._post_end()

    def _post_end(self) -> None:
        if self._checkpoint is not None:
            self._checkpoint.release()
        if self._engine is not None and self._running is not None:
            self._engine.post(self._running.cancel)
            if self._owns_engine:
                self._engine.stop()

    def closing(self) -> Future[None] | None:
        """What to wait for after :meth:`post_close`, and before a suspended stream is resumed."""
        if self._running is None or self._engine is None or not self._engine.ours:
            return None
        return self._running.finished

    def join(self) -> None:
        """Wait for the end of the engine's thread, if it is ours and has nothing left to do."""
        if self._engine is not None and self._owns_engine:
            self._engine.join()


#: By their tasks, each of which tells of its end once, and keeps no stream that it has done with.
_consumed: weakref.WeakKeyDictionary[asyncio.Task[Any], weakref.WeakSet[StreamHandle]] = weakref.WeakKeyDictionary()


def _watch(task: asyncio.Task[Any], stream: StreamHandle) -> None:
    streams = _consumed.get(task)
    if streams is None:
        streams = _consumed[task] = weakref.WeakSet()
        task.add_done_callback(_ended)
    streams.add(stream)


def _ended(task: asyncio.Task[Any]) -> None:
    for stream in _consumed.pop(task, ()):
        stream.task_ended(task)


def _nobody() -> None:
    """No task has asked yet."""
