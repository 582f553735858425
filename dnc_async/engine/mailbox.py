"""The mailbox between the engine's thread and the consumer, for at most one batch.

It belongs to no event loop: a consumer is woken by a callable, so it may be a coroutine in any loop, in another loop next time,
or a plain thread.
"""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from dnc_async.engine.ledger import ChunkTimes, Handover


class Found(enum.Enum):
    """What a consumer finds: a batch, nothing yet, or the end of the plan."""

    BATCH = enum.auto()
    NOTHING = enum.auto()
    END = enum.auto()


class BatchSender(Protocol):
    """The engine's side of a mailbox, which holds at most ``capacity`` batches."""

    capacity: int

    @property
    def is_awaited(self) -> bool:
        """Whether the consumer waits for the next batch."""

    def put(self, batch: object, *, samples: int, chunks: tuple[ChunkTimes, ...], transformed: float = 0.0) -> None:
        """Put the next batch, with its chunks' times and when it was transformed. There must be room for it.

        A mailbox for several batches does not wake the consumer: others may follow at once. Call :meth:`wake` for that.
        """

    def wake(self) -> None:
        """Wake the consumer if it waits for what was put."""

    def finish(self, error: Exception | None) -> None:
        """Nothing follows the current content: the plan was delivered, or failed with this error. Only the first call counts."""


class BatchReceiver(Protocol):
    """The consumer's side of a mailbox."""

    def take(self) -> tuple[Found, Any]:
        """What the mailbox contains, and the batch if it is one. Raises the error that ended the stream."""

    def wait(self, wake: Callable[[], None]) -> bool:
        """Have ``wake`` called, in another thread, when there is something to take; ``False`` if there is already."""

    def give_up(self) -> None:
        """The consumer stops waiting, without having taken anything."""


class _Put(NamedTuple):
    """A batch in the mailbox, and what its :class:`~dnc_async.engine.ledger.Handover` says of it."""

    batch: Any
    at: float
    samples: int
    chunks: tuple[ChunkTimes, ...]
    transformed: float


class Mailbox:
    """Holds the next batches, or the end of the stream, for a consumer in the same process, which has a :class:`Receiver`.

    There is more than one batch only if batches are tiny: handing a batch over from one thread to the other costs more than
    such a batch, unless the consumer finds several at once.
    """

    capacity = 32

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._content: deque[_Put] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._wake: Callable[[], None] | None = None
        self._waiting_since: float | None = None
        self._waits: list[tuple[float, float]] = []

    def __repr__(self) -> str:
        state = f"with {len(self._content)} batches" if self._content else "ended" if self._ended else "empty"
        return f"<Mailbox {state}{', awaited' if self._waiting_since is not None else ''}>"

    @property
    def is_awaited(self) -> bool:
        """Whether the consumer waits for the next batch."""
        return self._waiting_since is not None

    def put(self, batch: object, *, samples: int, chunks: tuple[ChunkTimes, ...], transformed: float = 0.0) -> None:
        """Put the next batch, with its chunks' times and when it was transformed. There must be room for it.

        The consumer is not woken: others may follow at once. Call :meth:`wake` for that.
        """
        put = _Put(batch, self._clock(), samples, chunks, transformed)
        with self._lock:
            self._content.append(put)

    def wake(self) -> None:
        """Wake the consumer if it waits for what was put."""
        with self._lock:
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def finish(self, error: Exception | None) -> None:
        """Nothing follows the current content: the plan was delivered, or failed with this error. Only the first call counts."""
        with self._lock:
            if self._ended:
                return
            self._ended, self._error = True, error
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def take(self) -> tuple[Found, Any, Handover | None]:
        """What the mailbox contains; a batch with how it was handed over. Raises the error that ended the stream."""
        now = self._clock()
        with self._lock:
            if self._content:
                batch, put_at, samples, chunks, transformed = self._content.popleft()
                self._close_wait(now)
                waits, self._waits = tuple(self._waits), []
                return Found.BATCH, batch, Handover(now, put_at, waits, samples, chunks, transformed)
            if self._error is not None:
                raise self._error
            return (Found.END if self._ended else Found.NOTHING), None, None

    def wait(self, wake: Callable[[], None]) -> bool:
        """Have ``wake`` called, in the engine's thread, when there is something to take; ``False`` if there is already."""
        with self._lock:
            if self._content or self._ended:
                return False
            self._wake = wake
            if self._waiting_since is None:
                self._waiting_since = self._clock()
            return True

    def give_up(self) -> None:
        """The consumer stops waiting, without having taken anything."""
        with self._lock:
            self._wake = None
            self._close_wait(self._clock())

    def _close_wait(self, now: float) -> None:
        if self._waiting_since is not None:
            self._waits.append((self._waiting_since, now))
            self._waiting_since = None


class Receiver:
    """The consumer's side of a mailbox: takes its content, and tells the stream that the consumer took it, or waits."""

    def __init__(self, mailbox: Mailbox, *, on_taken: Callable[[Handover], None], on_wait: Callable[[], None]) -> None:
        """Both callables are called in the consumer's thread."""
        self._mailbox = mailbox
        self._on_taken = on_taken
        self._on_wait = on_wait

    def __repr__(self) -> str:
        return f"<Receiver of {self._mailbox!r}>"

    def take(self) -> tuple[Found, Any]:
        """What the mailbox contains, and the batch if it is one. Raises the error that ended the stream."""
        found, batch, handover = self._mailbox.take()
        if handover is not None:
            self._on_taken(handover)
        return found, batch

    def wait(self, wake: Callable[[], None]) -> bool:
        """Have ``wake`` called, in the engine's thread, when there is something to take; ``False`` if there is already."""
        waits = self._mailbox.wait(wake)
        if waits:
            self._on_wait()
        return waits

    def give_up(self) -> None:
        """The consumer stops waiting, without having taken anything."""
        self._mailbox.give_up()
