"""Calls from other threads and from callbacks of the event loop, made one after the other in one task.

Much of anyio may be used only inside a task: with sniffio installed it cannot tell in a plain callback which library runs the
loop. So every call from outside passes through this queue, and all code of the engine runs in a task.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any


class CallQueue:
    """A queue of calls, and the task that makes them. Belongs to one event loop."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], object]] = deque()
        self._arrived = asyncio.Event()
        self._ended = False

    def __repr__(self) -> str:
        return f"<CallQueue {'ended' if self._ended else 'open'}, {len(self._calls)} calls>"

    def put(self, function: Callable[..., object], *args: Any) -> None:  # noqa: ANN401
        """Queue a function call (in the loop's thread)."""
        self._calls.append(partial(function, *args))
        self._arrived.set()

    def end(self) -> None:
        """Have :meth:`run` return, without the calls that are still queued."""
        self._ended = True
        self._arrived.set()

    async def run(self) -> None:
        """Make the calls until :meth:`end`. An exception from one of them ends it, too."""
        while not self._ended:
            await self._arrived.wait()
            self._arrived.clear()
            while self._calls and not self._ended:
                self._calls.popleft()()
