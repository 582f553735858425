"""Chunks on their way out of their files: to their rows in memory, wholly or as far as they have come, or away.

A chunk moves when its rows are free. It is dropped when its loan is called back or the disk is full: its blocks are given
up, its file is deleted, its lease released, and it is granted again in its turn.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine

from anyio.abc import TaskGroup

from dnc_async.dataset.batch import BatchBuffer
from dnc_async.engine.chunks import Chunk, State
from dnc_async.engine.placement import Placement
from dnc_async.engine.progress import Progress
from dnc_async.engine.sink import Sink
from dnc_async.engine.starvation import Starvation
from dnc_async.gateways.group import FetchGroup


class Tiering:
    """Promotes one stream's chunks to memory, and evicts them, in the stream's ``tasks``; once those end, nothing begins."""

    def __init__(
        self,
        *,
        tasks: TaskGroup,
        placement: Placement,
        progress: Progress,
        group: FetchGroup,
        starvation: Starvation,
        clock: Callable[[], float],
        thread_clock: Callable[[], float],
        dropped: Callable[[Chunk], None],
        damaged: Callable[[Chunk, Sink, dict[int, str]], None],
    ) -> None:
        """``dropped`` is called with a chunk that has no space any more, and needs some.

        ``damaged`` is called with the leaves, by their offsets, that were staged and could not be read back as they were.
        """
        self._tasks = tasks
        self._placement = placement
        self._progress = progress
        self._group = group
        self._starvation = starvation
        self._clock = clock
        self._thread_clock = thread_clock
        self._dropped = dropped
        self._damaged = damaged

    def __repr__(self) -> str:
        return f"<Tiering {'ended' if self._tasks.cancel_scope.cancel_called else 'running'}>"

    def promote_if_due(self, chunk: Chunk) -> None:
        """Where a chunk's rows are free and it has a file, begin to move it."""
        if chunk.state is State.STAGED and self._progress.has_rows(chunk.batch):
            self._begin(chunk, State.PROMOTING, self._move)

    def evict_if_staged(self, chunk: Chunk) -> None:
        """Begin to drop it; one that moves to memory, or has no file yet, needs none soon."""
        if chunk.state is State.STAGED:
            self._begin(chunk, State.EVICTING, self._drop)

    def _begin(
        self, chunk: Chunk, state: State, function: Callable[[Chunk, Sink], Coroutine[None, None, None]]
    ) -> None:
        if chunk.sink is not None and not self._tasks.cancel_scope.cancel_called:
            chunk.state = state
            self._tasks.start_soon(function, chunk, chunk.sink)

    async def _move(self, chunk: Chunk, sink: Sink) -> None:
        began = self._clock()
        damaged, worked_s = await self._group.in_worker(
            self._move_in_worker, chunk, sink, self._placement.rows(chunk.batch)
        )
        chunk.times.placeable = began + worked_s
        sink.discard()
        chunk.state = State.PLACED
        if damaged:
            self._damaged(chunk, sink, damaged)
        chunk.look_if_ready()

    def _move_in_worker(self, chunk: Chunk, sink: Sink, rows: BatchBuffer) -> tuple[dict[int, str], float]:
        """Gives the leaves that cannot be read back, and the processor's time."""
        began = self._thread_clock()
        self._placement.look_at_disk()
        damaged = sink.move_to(rows.place(chunk.part, chunk.entry.size_bytes))
        return damaged, self._thread_clock() - began

    async def _drop(self, chunk: Chunk, sink: Sink) -> None:
        missing = sum(want.size_bytes for want in chunk.wants) if chunk.proved else chunk.entry.size_bytes
        self._starvation.block_done(missing, self._clock())
        await self._group.withdraw(chunk.wants)
        chunk.wants.clear()
        sink.discard()
        chunk.sink, chunk.state = None, State.PLANNED
        if chunk.error is None:
            self._dropped(chunk)
        self._progress.changed()
