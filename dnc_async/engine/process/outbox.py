"""The engine's side of what in one process is a mailbox: batches go out on a stream's channel as soon as they are whole."""

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
    """Packs and sends in a thread of its own, in order; what it says about the consumer, that consumer's process told it."""

    def __init__(
        self,
        channel: Channel,
        *,
        clock: Callable[[], float],
        fail: Callable[[], None],
    ) -> None:
        """``fail`` is called in the engine's loop when a batch could not be sent, and nobody can go on with the stream."""
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
        """Send the next batch; the one before must have been taken."""
        self._waiting = samples, chunks, transformed
        self._thread.submit(self._send, [batch])

    def finish(self, error: Exception | None) -> None:
        """Send the end, after what was put. The first call counts."""
        if not self._has_ended:
            self._has_ended = True
            self._thread.submit(self._end, error)
            self._thread.shutdown(wait=False)

    # What the consumer's process tells.

    def taken(self, at: float, waits: tuple[tuple[float, float], ...]) -> Handover:
        """The batch that was sent last was taken: how it was handed over."""
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
        except BaseException as error:  # noqa: BLE001 - what a consumer's own types do to pickle, or a lack of memory
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
        except OSError:  # nobody is there any more
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
        finally:  # whatever it was: somebody waits
            self._channel.close()
            self.ended.set_result(None)

    def _tell_end(self, error: Exception | None) -> None:
        with contextlib.suppress(OSError):  # nobody is there
            self._channel.send(End(None if error is None else Failure.of(error)))
