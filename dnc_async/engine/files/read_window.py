"""The part of an open file that serves its reads: the leaves that a read waits for, and leaves ahead of it.

A call in the engine requests the leaves in the file's order, worker threads place them in any order, and the reader takes the
bytes in its own thread. Nothing is requested ahead until a read begins where the one before it ended. Then the more is, the
longer the reads follow one another: about twice as much as they have read, within a limit.
"""

from __future__ import annotations

import bisect
import contextlib
import math
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import Protocol, TypeVar

from dnc_async.condition import Condition
from dnc_async.engine.bridge import RunningCall, wait_for_future
from dnc_async.engine.files.reader import FileReader, LeafRun
from dnc_async.errors import StreamClosedError
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld.plan import Leaf

T = TypeVar("T")
_LEAST_AHEAD_BYTES = 2**20
_AHEAD_RATIO = 2
_LOOK_BACK_BYTES = 4 * 2**20
#: A reader that waits for nothing wakes the engine when this share of what it may read ahead can be requested.
_WAKE_SHARE = 1 / 8


class Begin(Protocol):
    """Starts a function in the engine, with its own fetch group."""

    def __call__(self, function: Callable[[FetchGroup], Awaitable[T]], /) -> RunningCall[T]:
        """The running call."""


class AheadLimit:
    """How many bytes the open files of a client may hold and request. Those that read ahead have equal shares of it."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._windows: weakref.WeakSet[ReadWindow] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<AheadLimit {self.limit_bytes} bytes, shared by {len(self._windows)} files>"

    def share(self, window: ReadWindow) -> int:
        """How many bytes this window may read ahead now."""
        with self._lock:
            self._windows.add(window)
            return self.limit_bytes // len(self._windows)

    def leave(self, window: ReadWindow) -> None:
        """A window does not read ahead any more."""
        with self._lock:
            self._windows.discard(window)


class ReadWindow:
    """Serves reads from ``start`` on, one at a time, as long as they stay within what it holds and has requested.

    A read asks for its range, and takes what is there, or waits, until it has all. When the reader advances, what it read before
    is dropped, but for its last read (up to 4 MiB), because readers look back.
    """

    def __init__(
        self, reader: FileReader, start: int, end: int, *, begin: Begin, limit: AheadLimit, may_read_ahead: bool = True
    ) -> None:
        """Ask for the bytes from ``start`` to ``end`` (exclusive)."""
        self._reader = reader
        self._limit = limit
        self._may_read_ahead = may_read_ahead
        self._lock = threading.Lock()
        self._changed = Condition()  # in the engine's loop
        # By a leaf's offset, and the offsets in order.
        self._bodies: dict[int, bytes] = {}
        self._offsets: list[int] = []
        self._first = start  # bytes before it are not here any more
        self._row_start = start  # where the reads began to follow one another
        self._position = start  # where the reader is
        self._read_start, self._asked = start, end  # the read that is served, or was served last
        self._ahead_bytes = 0
        self._reached = start  # all bytes from the position to here are there
        self._next: float = start  # what is requested next
        self._is_told = False
        self._waiter: tuple[int, Future[None]] | None = None
        self._is_closed = False
        self._failure: BaseException | None = None
        #: Whether it requested more than what reads asked for: then it may have failed because of that.
        self.has_read_ahead = False
        self._call = begin(partial(self._fetch, start=start))
        self._call.result.add_done_callback(self._ended)

    def __repr__(self) -> str:
        held = sum(map(len, self._bodies.values()))
        return f"<ReadWindow at byte {self._position}, {held} bytes held, {self._ahead_bytes} to be read ahead>"

    # The reader's side.

    def serves(self, start: int) -> bool:
        """Whether a read from here on can be served: the byte is there, or requested, or the next one to be requested."""
        with self._lock:
            return not self._is_closed and self._first <= start <= self._next

    def ask(self, start: int, end: int) -> None:
        """Ask for the bytes of the next read; ``start`` must be one that it :meth:`serves`."""
        follows = start == self._position > self._row_start
        share = self._limit.share(self) if self._may_read_ahead and follows else 0
        with self._lock:
            if start != self._position:  # a seek
                self._row_start = self._position = self._reached = start
                self._advance_reached()
            self._read_start, self._asked = start, end
            self._ahead_bytes = min(share, max(_LEAST_AHEAD_BYTES, _AHEAD_RATIO * (end - self._row_start)))
            self.has_read_ahead = self.has_read_ahead or self._ahead_bytes > 0
        self._wake()

    def take(self, at: int, end: int) -> list[memoryview]:
        """The bytes from ``at`` on that are there, without a gap, up to ``end``."""
        parts = []
        with self._lock:
            index = bisect.bisect_right(self._offsets, at) - 1
            end = min(end, self._reached)
            while at < end:
                offset = self._offsets[index]
                parts.append(memoryview(self._bodies[offset])[at - offset : end - offset])
                at += len(parts[-1])
                index += 1
        return parts

    def advance(self, position: int) -> None:
        """The reader has all bytes before ``position``, which makes space for others."""
        with self._lock:
            self._position = position
            look_back = min(_LOOK_BACK_BYTES, self._limit.limit_bytes)
            kept = bisect.bisect_right(self._offsets, max(self._read_start, position - look_back)) - 1
            if kept > 0:
                for offset in self._offsets[:kept]:
                    del self._bodies[offset]
                del self._offsets[:kept]
                self._first = self._offsets[0]
        self._wake()

    async def wait(self, at: int, end: int) -> None:
        """Wait until there are bytes at ``at``: as many as the read needs, or half of the limit.

        Raises the error that ended the fetching, if they do not come any more.
        """
        waiter: Future[None] = Future()
        with self._lock:
            if self._reached > at:
                return
            if self._failure is not None:
                raise self._failure
            self._waiter = min(end, at + max(1, self._limit.limit_bytes // 2)), waiter
        try:
            await wait_for_future(waiter)
        finally:
            self._waiter = None

    def _wake(self) -> None:
        """Have the engine request more, if it may."""
        with self._lock:
            step = 1 if self._next < self._asked else max(1, self._ahead_bytes * _WAKE_SHARE)
            if self._is_told or self._end_of_requests() - self._next < step:
                return
            self._is_told = True
        self._call.post(self._changed.notify_all)

    def close(self) -> None:
        """Request nothing any more, and forget what is there; returns at once."""
        with self._lock:
            self._is_closed = True
            self._bodies.clear()
            self._offsets.clear()
        self._limit.leave(self)
        self.cancel()

    def cancel(self) -> None:
        """Stop fetching; returns at once. Takes no lock, so the garbage collector may call it at any time, in any thread."""
        self._call.cancel()

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it runs in the engine."""
        return self._call.result.done()

    async def aclose(self) -> None:
        """Close it, and return when nothing of it runs in the engine. May be called again."""
        self.close()
        await self._call.aclose()

    # The engine's side.

    async def _fetch(self, group: FetchGroup, start: int) -> None:
        """Request the leaves from ``start`` to the file's end in order, each when it may be requested."""
        limit, changed = self._limit.limit_bytes, self._changed
        run = LeafRun(group, self._place, within=self._reader.within, limit_bytes=limit, changed=changed)
        plan = _Plan(self._reader, start)

        def is_due() -> bool:
            is_over = plan.following == math.inf and run.is_idle
            return self._may_request(plan.following) or bool(run.nodes) or run.has_failed or is_over

        while True:
            await changed.until(is_due)
            run.check()
            if run.nodes:
                plan.add_below(*run.nodes.pop(), start=self._first)
            elif plan.following < math.inf:
                await run.add(await plan.pop(group, self._end_of_plan()))
            else:
                return

    def _may_request(self, offset: float) -> bool:
        with self._lock:
            self._is_told, self._next = False, offset
            return offset < self._end_of_requests()

    def _end_of_requests(self) -> int:
        return min(self._position + self._limit.limit_bytes, self._asked + self._ahead_bytes)

    def _end_of_plan(self) -> int:
        with self._lock:
            # Many leaves are planned at once, because that reads their parents again; but nothing ahead of a single read.
            return self._reader.size_bytes if self._ahead_bytes else self._end_of_requests()

    def _place(self, leaf: Leaf, body: bytes) -> None:
        """Keep a leaf's bytes (in a worker thread)."""
        with self._lock:
            if self._is_closed or leaf.offset + len(body) <= self._first or not body:
                return
            self._bodies[leaf.offset] = body
            bisect.insort(self._offsets, leaf.offset)
            self._first = min(self._first, leaf.offset)
            self._advance_reached()
            waiter = self._waiter[1] if self._waiter is not None and self._reached >= self._waiter[0] else None
        _resolve(waiter)

    def _advance_reached(self) -> None:
        index = bisect.bisect_right(self._offsets, self._reached) - 1
        while 0 <= index < len(self._offsets):
            end = self._offsets[index] + len(self._bodies[self._offsets[index]])
            if not self._offsets[index] <= self._reached < end:
                return
            self._reached = end
            index += 1

    def _ended(self, result: Future[None]) -> None:
        with self._lock:
            self._failure = result.exception() or StreamClosedError("the file was read to its end")
            waiter = None if self._waiter is None else self._waiter[1]
        _resolve(waiter)


class _Plan:
    """The leaves that are still to be requested, in order, as far as they are known: that takes the nodes above them."""

    def __init__(self, reader: FileReader, start: int) -> None:
        self._reader = reader
        self._leaves: deque[Leaf] = deque()
        self._unplanned = [range(start, reader.size_bytes)]  # in order, and apart from the leaves

    def __repr__(self) -> str:
        return f"<_Plan of {len(self._leaves)} leaves, going on at byte {self.following}>"

    @property
    def following(self) -> float:
        """Where the next leaf begins, or what of it has to be planned; infinite if there is none."""
        leaf = self._leaves[0].offset if self._leaves else math.inf
        return min(leaf, self._unplanned[0].start) if self._unplanned else leaf

    async def pop(self, group: FetchGroup, end: int) -> Leaf:
        """The next leaf. Plans leaves up to ``end``, if it is not known."""
        while self._unplanned and self._unplanned[0].start == self.following:
            part = self._unplanned.pop(0)
            found = await self._reader.leaves(group, part.start, min(part.stop, max(part.start + 1, end)))
            rest = range(found[-1].offset + (found[-1].size or 0), part.stop)
            if rest:
                self._unplanned.insert(0, rest)
            self._leaves.extendleft(reversed(found))
        return self._leaves.popleft()

    def add_below(self, node: Leaf, child_bytes: int, *, start: int) -> None:
        """Add what is below a node that was presumed to be a leaf, from ``start`` on."""
        below = self._reader.below(node, child_bytes)
        if part := range(max(start, below.start), below.stop):
            bisect.insort(self._unplanned, part, key=lambda each: each.start)


def _resolve(waiter: Future[None] | None) -> None:
    if waiter is not None:
        with contextlib.suppress(InvalidStateError):  # another thread did
            waiter.set_result(None)
