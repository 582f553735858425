"""The consumer's side of a stream's channel, in the role of a mailbox: batches stay in the channel until they are taken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from dnc_async.engine.mailbox import Found
from dnc_async.engine.process.channel import Channel, Received
from dnc_async.engine.process.messages import Awaits, Delivery, Took


class Inbox:
    """At most one batch is in the channel. The consumer's own thread takes it, without any other thread."""

    def __init__(
        self,
        channel: Channel,
        stream: int,
        *,
        clock: Callable[[], float],
        tell: Callable[[object], None],
        arm: Callable[[], object],
    ) -> None:
        """``tell`` sends to the engine; after ``arm`` the reading thread calls :meth:`wake` once when a message is there."""
        self._channel = channel
        self._stream = stream
        self._clock = clock
        self._tell = tell
        self._arm = arm
        self._lock = threading.Lock()
        #: Whether the consumer would still take what is there.
        self.is_wanted = True
        self._ended = self._is_told = False
        #: A message that was received and not taken yet, because Ctrl-C may interrupt in between.
        self._packed: Received | None = None
        self._kept: Delivery | None = None
        self._error: Exception | None = None
        self._wake: Callable[[], None] | None = None
        self._waiting_since: float | None = None
        self._waits: list[tuple[float, float]] = []

    def __repr__(self) -> str:
        state = "ended" if self._ended else "awaited" if self._waiting_since is not None else "open"
        return f"<Inbox of stream {self._stream}, {state}>"

    def take(self) -> tuple[Found, Any]:
        """What the channel contains, and the batch if it is one. Raises the error that ended the stream."""
        now = self._clock()
        with self._lock:
            message = self._kept
            if message is None and not self._ended:
                message = self._receive()
            if message is None and self._ended:
                if self._error is not None:
                    raise self._error
                return Found.END, None
            if message is None:
                return Found.NOTHING, None
            self._kept, self._is_told = None, False
            self._close_wait(now)
            waits, self._waits = tuple(self._waits), []
        self._tell(Took(self._stream, now, waits))
        return Found.BATCH, message.batch

    def wait(self, wake: Callable[[], None]) -> bool:
        """Have ``wake`` called, in another thread, when there is something to take; ``False`` if nothing will come."""
        with self._lock:
            if self._ended or self._kept is not None:
                return False
            self._wake = wake
            if self._waiting_since is None:
                self._waiting_since = self._clock()
            self._arm()
            is_told, self._is_told = self._is_told, True
        if not is_told:  # once is enough, and an engine that does not read must not delay us
            self._tell(Awaits(self._stream))
        return True

    def give_up(self) -> None:
        """The consumer stops waiting, without having taken anything."""
        with self._lock:
            self._wake = None
            self._close_wait(self._clock())

    def wake(self) -> None:
        """A message is there (called in the reading thread)."""
        with self._lock:
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def close(self, error: Exception) -> None:
        """Nothing follows the current content; ``error`` is the end if the engine reported no other. May be called again."""
        with self._lock:
            while not self._ended:
                try:
                    message = self._receive()
                    if message is not None:
                        if not self.is_wanted:
                            self._kept = None
                    elif not self._has_ended():
                        self._finish(error)
                except Exception as failure:  # noqa: BLE001 - a batch that cannot be unpickled
                    self._finish(failure)
        self.wake()

    def _receive(self) -> Delivery | None:
        """Receive a batch if one is there; note the end, or that the engine is gone."""
        try:
            if self._packed is None:
                self._packed = self._channel.receive_packed(wait=False)
            message = self._packed.unpack()
        except BlockingIOError:
            return None
        except EOFError:  # the reading thread finds out why
            return None
        except Exception:
            self._packed = None
            raise
        if isinstance(message, Delivery):
            self._kept, self._packed = message, None
            return message
        self._packed = None
        self._finish(None if message.failure is None else message.failure.revived())
        return None

    def _has_ended(self) -> bool:  # for a type checker, which does not know that _receive() changes it
        return self._ended

    def _finish(self, error: Exception | None) -> None:
        self._ended, self._error = True, error
        self._channel.close()

    def _close_wait(self, now: float) -> None:
        if self._waiting_since is not None:
            self._waits.append((self._waiting_since, now))
            self._waiting_since = None
