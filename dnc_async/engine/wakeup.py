"""Tells the engine what a consumer did, without delaying the consumer's step.

A loop is woken by a byte to its socket, and sending that byte releases the interpreter's lock. The engine then takes the lock,
and the consumer, which has its batch already, waits until it gets it back (``python -m bench scale`` measures the hand-over).
So a separate thread sends the byte, when the consumer releases the lock by itself: in a library call, a sleep, or a wait. A
consumer that does not release it, such as a step in pure Python, would delay the engine for longer than this saves. Then the
consumer sends the byte itself, except for once in a while, to find out whether that is still so.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

#: If a thread gets the lock this late, another one held it until the interpreter took it away after 5 ms.
_LATE_S = 0.002
_RETRY_EVERY = 16


class Wakeup:
    """Passes calls on to the engine's thread, in order."""

    def __init__(
        self, post: Callable[[Callable[[], None]], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``post`` calls a function in the engine's thread."""
        self._post = post
        self._clock = clock
        self._calls: deque[Callable[[], None]] = deque()
        # Putting an item releases no lock.
        self._rung: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        # Its calls run in the context in which the engine was created, because observers may read variables of it.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="dnc_async bell", daemon=True)
        self._is_late = False
        self._is_ringing = False
        self._rings = 0

    def __repr__(self) -> str:
        return f"<Wakeup rung {self._rings} times{', late' if self._is_late else ''}>"

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self) -> None:
        """The engine has ended, and cannot be told anything; returns at once."""
        self._rung.put(None)

    def join(self, timeout_s: float) -> None:
        """Wait until the thread has ended, if it was started (not from within it)."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def call_soon(self, call: Callable[[], None], *, at_once: bool = False) -> None:
        """Call a function in the engine's thread: a moment later, or ``at_once`` if the caller has nothing else to do."""
        self._calls.append(call)
        if at_once:
            self._post(self._answer)
            return
        if self._is_ringing:  # the engine has not answered yet, and will make this call, too
            return
        self._is_ringing = True
        self._rings += 1
        if self._is_late and self._rings % _RETRY_EVERY:
            self._post(self._answer)
        else:
            self._rung.put(self._clock())

    def _run(self) -> None:
        while (at := self._rung.get()) is not None:
            self._is_late = self._clock() - at > _LATE_S
            self._post(self._answer)

    def _answer(self) -> None:
        self._is_ringing = False  # before the last call is made, so that no call is missed that comes meanwhile
        while self._calls:
            self._calls.popleft()()
