"""Shares the reading threads: whoever has used them least has the next turn, so a cheap request waits for no costly one."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_THREADS = 4  # more do not help, the data is in the page cache or on one disk
_LONG_THREADS = (
    2  # of these, for those who had a turn already: threads that compute take turns with the event loop, too
)


class ReadingTurns:
    """Calls functions in the reading threads, one turn each, in the order of what their clients have used so far."""

    def __init__(self, threads: int = _THREADS, long_threads: int = _LONG_THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="dnc-serve")
        self._loop = asyncio.get_running_loop()
        self._free = threads
        self._reserved = threads - long_threads
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    async def take(self, used: int, work: Callable[[], T]) -> T:
        """Call ``work`` in a thread when it is the turn of a client that has used so many steps.

        If cancelled, it returns when no thread is at the work any more.
        """
        turn: asyncio.Future[None] = self._loop.create_future()
        heapq.heappush(self._waiting, (used, next(self._numbers), turn))
        self._grant()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # granted in that very moment
                self._done()
            raise
        started = self._pool.submit(work)
        started.add_done_callback(self._tell)
        doing = asyncio.wrap_future(started)
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            if not started.cancel():
                await asyncio.wait({doing})  # a turn is short, and what it works on is to be closed
            raise

    def close(self) -> None:
        """End the threads, after their turns."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _grant(self) -> None:
        """Give the free threads to those who have used least; the last ones only to those who had no turn yet."""
        while self._waiting and self._free > (self._reserved if self._waiting[0][0] else 0):
            turn = heapq.heappop(self._waiting)[2]
            if not turn.cancelled():
                self._free -= 1
                turn.set_result(None)

    def _tell(self, _: Future[T]) -> None:
        """Called in the thread, or, for work that was cancelled before it began, in the event loop's."""
        self._loop.call_soon_threadsafe(self._done)

    def _done(self) -> None:
        self._free += 1
        self._grant()
