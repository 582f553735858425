"""Moves chunks from their files to their rows in memory, completely or as far as they were received, or drops them.

A chunk moves when its rows are free. It is dropped when its lease is revoked or the disk is full: its blocks are withdrawn, its
file is deleted, its lease is released, and it is granted space again when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from anyio.abc import TaskGroup

from dnc_async.condition import Condition
from dnc_async.dataset.batch import BatchBuffer
from dnc_async.engine.chunks import Chunk, State
from dnc_async.engine.placement import Placement
from dnc_async.engine.progress import Progress
from dnc_async.engine.sink import Sink
from dnc_async.engine.starvation import Starvation
from dnc_async.gateways.group import FetchGroup


class Tiering:
    """Promotes one stream's chunks to memory, and evicts them, in the stream's ``tasks``; when those end, nothing new begins."""

    def __init__(
        self,
        *,
        tasks: TaskGroup,
        placement: Placement,
        progress: Progress,
        change: Condition,
        group: FetchGroup,
        starvation: Starvation,
        clock: Callable[[], float],
        thread_clock: Callable[[], float],
        dropped: Callable[[Chunk], None],
        damaged: Callable[[Chunk, Sink, dict[int, str]], None],
    ) -> None:
        """``dropped`` is called with a chunk that has no space any more, and needs some.

        ``damaged`` is called with the offsets of leaves that were staged and could not be read back unchanged.
        """
        self._tasks = tasks
        self._placement = placement
        self._progress = progress
        self._change = change
        self._group = group
        self._starvation = starvation
        self._clock = clock
        self._thread_clock = thread_clock
        self._dropped = dropped
        self._damaged = damaged
        self._due: list[tuple[Chunk, Sink]] = []

    def __repr__(self) -> str:
        return f"<Tiering {'ended' if self._tasks.cancel_scope.cancel_called else 'running'}>"

    def promote_if_due(self, chunk: Chunk) -> None:
        """Begin to move a chunk if it has a file and its rows are free; those of a batch move together."""
        if chunk.state is not State.STAGED or not self._progress.has_rows(chunk.batch):
            return
        if chunk.sink is not None and not self._tasks.cancel_scope.cancel_called:
            chunk.state = State.PROMOTING
            self._group.hurry()
            self._due.append((chunk, chunk.sink))
            if len(self._due) == 1:
                self._tasks.start_soon(self._move_due)

    def evict_if_staged(self, chunk: Chunk) -> None:
        """Begin to drop a chunk, unless it has no file yet or is being moved to memory: then it returns its lease soon anyway."""
        if chunk.state is State.STAGED and chunk.sink is not None and not self._tasks.cancel_scope.cancel_called:
            chunk.state = State.EVICTING
            self._tasks.start_soon(self._drop, chunk, chunk.sink)

    async def _move_due(self) -> None:
        due, self._due = self._due, []
        began = self._clock()
        moves = [(chunk, sink, self._placement.rows(chunk.batch)) for chunk, sink in due]
        for (chunk, sink), (damaged, worked_s) in zip(
            due, await self._group.in_worker(self._move_in_worker, moves), strict=True
        ):
            chunk.times.placeable = began + worked_s
            sink.discard()
            chunk.state = State.PLACED
            if damaged:
                self._damaged(chunk, sink, damaged)
            chunk.look_if_ready()

    def _move_in_worker(self, moves: Sequence[tuple[Chunk, Sink, BatchBuffer]]) -> list[tuple[dict[int, str], float]]:
        """Move chunks, and delete their files.

        Returns for each the leaves that could not be read back, and the processor time in seconds since the first began.
        """
        began, moved = self._thread_clock(), list[tuple[dict[int, str], float]]()
        self._placement.look_at_disk()
        for chunk, sink, rows in moves:
            damaged = sink.move_to(rows.place(chunk.part, chunk.entry.size_bytes))
            moved.append((damaged, self._thread_clock() - began))
            sink.delete_file()
        return moved

    async def _drop(self, chunk: Chunk, sink: Sink) -> None:
        missing = sum(want.size_bytes for want in chunk.wants) if chunk.proved else chunk.entry.size_bytes
        self._starvation.block_done(missing, self._clock())
        await self._group.withdraw(chunk.wants)
        chunk.wants.clear()
        sink.discard()
        chunk.sink, chunk.state = None, State.PLANNED
        if chunk.error is None:
            self._dropped(chunk)
        self._change.notify_all()
