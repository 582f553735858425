"""How the engine hears of what a consumer did, without keeping it from its step.

A loop is woken by a byte to its socket, and whoever sends that lets go of the interpreter's lock. The engine takes it then,
and the consumer, which has its batch already, waits until it gets it back (``python -m bench scale`` times the hand-over). So a
thread of its own sends the byte, which happens when the consumer lets go of the lock by itself: as it computes in a library,
sleeps, or waits. One that does not, as a step in pure Python, would keep the engine waiting for longer than it saves: it sends
the byte itself, but for once in a while, to see whether it is still so.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

#: A thread that gets the lock so late waits for one that holds it, until the interpreter takes it away after 5 ms.
_LATE_S = 0.002
_RETRY_EVERY = 16


class Wakeup:
    """Passes calls on to the engine's thread, in order."""

    def __init__(
        self, post: Callable[[Callable[[], None]], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``post`` has a function called in the engine's thread."""
        self._post = post
        self._clock = clock
        self._calls: deque[Callable[[], None]] = deque()
        # To put something into it lets go of no lock.
        self._rung: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        # What is called by way of it sees the context in which the engine was made: an empty one would lack what observers read.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="dnc_async bell", daemon=True)
        self._is_late = False
        self._rings = 0

    def __repr__(self) -> str:
        return f"<Wakeup rung {self._rings} times{', late' if self._is_late else ''}>"

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self) -> None:
        """Nobody is there any more who could be told; returns at once."""
        self._rung.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended, if it ever began (not from within it)."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def call_soon(self, call: Callable[[], None], *, at_once: bool = False) -> None:
        """Have a function called in the engine's thread: a moment later, or ``at_once``, by one who has nothing else to do."""
        self._calls.append(call)
        self._rings += not at_once
        if at_once or (self._is_late and self._rings % _RETRY_EVERY):
            self._post(self._answer)
        else:
            self._rung.put(self._clock())

    def _run(self) -> None:
        while (at := self._rung.get()) is not None:
            self._is_late = self._clock() - at > _LATE_S
            self._post(self._answer)

    def _answer(self) -> None:
        while self._calls:
            self._calls.popleft()()
