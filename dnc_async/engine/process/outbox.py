"""The engine's side of a stream's channel, in the role of a mailbox: batches are sent as soon as they are complete."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from dnc_async.engine.ledger import ChunkTimes, Handover
from dnc_async.engine.process.channel import Channel, Packed
from dnc_async.engine.process.messages import Delivery, End, Failure, text_of
from dnc_async.errors import EngineError


class Outbox:
    """Packs and sends in its own thread, in order. What it knows of the consumer, the consumer's process has told it."""

    capacity = 1

    def __init__(
        self,
        channel: Channel,
        *,
        clock: Callable[[], float],
        fail: Callable[[], None],
    ) -> None:
        """``fail`` is called in the engine's loop when a batch could not be sent, so that the stream cannot continue."""
        self._channel = channel
        self._clock = clock
        self._fail = fail
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dnc_async outbox")
        self._put_at = 0.0
        self._waiting: tuple[int, tuple[ChunkTimes, ...], float] = (0, (), 0.0)
        self._sent = 0
        self._is_broken = self._has_ended = False
        self.is_awaited = False
        #: Done when the end was sent, and the channel closed.
        self.ended: Future[None] = Future()

    def __repr__(self) -> str:
        return f"<Outbox of {self._sent} batches{', ended' if self._has_ended else ''}>"

    def put(self, batch: object, *, samples: int, chunks: tuple[ChunkTimes, ...], transformed: float = 0.0) -> None:
        """Send the next batch. The one before must have been taken."""
        self._waiting = samples, chunks, transformed
        self._thread.submit(self._send, [batch])

    def wake(self) -> None:
        """Do nothing: a batch that arrives wakes the consumer."""

    def finish(self, error: Exception | None) -> None:
        """Send the end, after everything that was put. Only the first call counts."""
        if not self._has_ended:
            self._has_ended = True
            self._thread.submit(self._end, error)
            self._thread.shutdown(wait=False)

    # Called for messages from the consumer's process.

    def taken(self, at: float, waits: tuple[tuple[float, float], ...]) -> Handover:
        """The last batch was taken, and how it was handed over."""
        samples, chunks, transformed = self._waiting
        self._waiting = 0, (), 0.0
        self.is_awaited = False
        return Handover(at, self._put_at, waits, samples, chunks, transformed)

    def awaits(self) -> None:
        """The consumer waits for the next batch."""
        self.is_awaited = True

    # In the thread.

    def _send(self, box: list[object]) -> None:
        kind = type(box[0]).__name__
        try:
            packed = Packed(Delivery(box.pop()))
        except EngineError as error:  # nothing is wrong with the batch
            self._break(
                EngineError(f"batch {self._sent} of the stream: {error}; raise that limit, or use engine='thread'")
            )
            return
        except BaseException as error:  # noqa: BLE001 - a consumer's own types may raise anything, or there is no memory
            self._break(
                EngineError(
                    f"batch {self._sent} of the stream, a {kind}, cannot be handed to another process: "
                    f"{text_of(error)}. With engine='process' what a transform returns must be picklable"
                )
            )
            return
        self._put_at = self._clock()
        try:
            self._channel.send_packed(packed)
            self._sent += 1
        except OSError:  # the consumer's process is gone
            self._break(None)
        finally:
            packed.close()

    def _break(self, error: Exception | None) -> None:
        if error is not None:
            self._tell_end(error)
        self._is_broken = True
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._fail)

    def _end(self, error: Exception | None) -> None:
        try:
            if not self._is_broken:
                self._tell_end(error)
        finally:  # whatever it was: the consumer waits
            self._channel.close()
            self.ended.set_result(None)

    def _tell_end(self, error: Exception | None) -> None:
        with contextlib.suppress(OSError):  # the consumer's process is gone
            self._channel.send(End(None if error is None else Failure.of(error)))
