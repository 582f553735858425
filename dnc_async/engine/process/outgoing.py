"""Sends messages from the engine's process to the consumer's on the control channel, without ever blocking."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from logging.handlers import QueueHandler

from dnc_async.engine.process.channel import Channel, Packed
from dnc_async.engine.process.messages import Events, Log
from dnc_async.telemetry import Event, Observer, logger

#: How many events may wait while the consumer lets none of its threads run; older ones are dropped, and counted.
_EVENTS = 10_000


class Outgoing:
    """A queue in the engine's loop. Events are sent together: one message for all since the last one."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Packed] = deque()
        self._events: deque[tuple[int | None, Event]] = deque(maxlen=_EVENTS)
        self._dropped = 0
        self._is_due = self._is_blocked = False

    def __repr__(self) -> str:
        return f"<Outgoing, {len(self._queue)} messages and {len(self._events)} events wait>"

    def post(self, message: object) -> None:
        """Send a message as soon as the channel has space, after earlier messages and events."""
        self._pack_events()
        self._queue.append(Packed(message))
        self._flush_soon()

    def observer(self, stream: int | None) -> Observer:
        """An observer that forwards events, of a stream or of all."""

        def tell(event: Event) -> None:
            self._dropped += len(self._events) == _EVENTS
            self._events.append((stream, event))
            self._flush_soon()

        return tell

    def _flush_soon(self) -> None:
        if not (self._is_due or self._is_blocked):
            self._is_due = True
            self._loop.call_soon(self._flush)

    def _pack_events(self) -> None:
        if self._events:
            self._queue.append(Packed(Events(tuple(self._events), self._dropped)))
            self._events.clear()
            self._dropped = 0

    def _flush(self) -> None:
        self._is_due = False
        if not self._queue:
            self._pack_events()
        while self._queue:
            try:
                self._channel.send_packed(self._queue[0], wait=False)
            except BlockingIOError:
                if not self._is_blocked:
                    self._is_blocked = True
                    self._loop.add_writer(self._channel.fileno(), self._has_room)
                return
            except OSError:  # the consumer's process is gone, which the reading side notices
                self._drop()
                return
            self._queue.popleft()

    def _has_room(self) -> None:
        self._is_blocked = False
        self._loop.remove_writer(self._channel.fileno())
        self._flush()

    def _drop(self) -> None:
        while self._queue:
            self._queue.popleft().close()

    def close(self) -> None:
        """Send the rest, and wait for that, because the loop ends."""
        if self._is_blocked:
            self._loop.remove_writer(self._channel.fileno())
        self._pack_events()
        with contextlib.suppress(OSError):
            while self._queue:
                self._channel.send_packed(self._queue[0])
                self._queue.popleft()
        self._drop()


class LogForwarder(QueueHandler):
    """Has the consumer's process log what the library logs here."""

    def __init__(self, outgoing: Outgoing) -> None:
        super().__init__(deque())  # type: ignore[arg-type]  # enqueue() is all that uses it
        self._outgoing = outgoing
        self._loop = asyncio.get_running_loop()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Called from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._outgoing.post, Log(record))

    def install(self, level: int) -> None:
        """Begin forwarding."""
        logger.addHandler(self)
        logger.setLevel(level)
