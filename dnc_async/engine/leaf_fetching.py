"""Fetches the leaves of the chunks that have space, and notes for each chunk when they came."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dnc_async.engine.chunks import Chunk, State
from dnc_async.engine.progress import Progress
from dnc_async.engine.proofs import ChunkRanges, Within, leaf_within
from dnc_async.engine.proving import LEAF
from dnc_async.engine.sink import Sink
from dnc_async.engine.starvation import Starvation
from dnc_async.errors import DiskFullError
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.block import Block
from dnc_async.ipld.plan import Leaf, payload_pieces
from dnc_async.spool.disk_backoff import DiskBackoff
from dnc_async.telemetry import logger


class LeafFetching:
    """Submits a stream's leaves to its fetch group."""

    def __init__(
        self,
        *,
        group: FetchGroup,
        ranges: ChunkRanges,
        disk: DiskBackoff,
        progress: Progress,
        starvation: Starvation,
        clock: Callable[[], float],
        disk_is_full: Callable[[Chunk], None],
    ) -> None:
        """``disk_is_full`` is called with a chunk whose file could not be written: it is dropped, unless it moves to memory."""
        self._group = group
        self._ranges = ranges
        self._disk = disk
        self._progress = progress
        self._starvation = starvation
        self._clock = clock
        self._disk_is_full = disk_is_full

    def __repr__(self) -> str:
        return f"<LeafFetching of {self._ranges!r}>"

    def fetch_all(self, chunk: Chunk, sink: Sink) -> None:
        """Fetch all leaves of a proved chunk."""
        chunk.missing = chunk.times.blocks = len(chunk.leaves)
        within, is_next = self._ranges.of(chunk.entry), self._is_next(chunk)
        for leaf in chunk.leaves:
            self._fetch(chunk, leaf, sink, within, is_next)

    def fetch_again(self, chunk: Chunk, sink: Sink, damaged: dict[int, str]) -> None:
        """Fetch leaves again, to memory, that the disk did not return as they were written."""
        for reason in set(damaged.values()):
            logger.warning("%s; %d leaves of chunk %d are fetched again", reason, len(damaged), chunk.entry.index)
        chunk.missing += len(damaged)
        for leaf in chunk.leaves:
            if leaf.offset in damaged:
                self._fetch(chunk, leaf, sink, self._ranges.of(chunk.entry), self._is_next(chunk))

    def _is_next(self, chunk: Chunk) -> Callable[[], bool]:
        return partial(self._progress.is_next, chunk.batch)

    def _fetch(self, chunk: Chunk, leaf: Leaf, sink: Sink, within: Within, is_next: Callable[[], bool]) -> None:
        def accept(block: Block) -> None:
            sink.write_at(leaf.offset, *payload_pieces(leaf, block))

        size = leaf.size or chunk.entry.size_bytes
        want = self._group.submit(
            leaf.cid,
            size_bytes=size,
            within=leaf_within(within, leaf.offset, leaf.offset + size),
            priority=(LEAF, *chunk.place, leaf.offset),
            accept=accept,
            is_quick=sink.is_quick,
            is_urgent=is_next,
            done=partial(self._done, chunk, leaf, sink),
        )
        chunk.wants[want] = None

    def _done(self, chunk: Chunk, leaf: Leaf, sink: Sink, want: BlockWant, error: Exception | None) -> None:
        chunk.wants.pop(want, None)
        now = self._clock()
        if isinstance(error, DiskFullError):
            self._disk.refused(error)
            self._disk_is_full(chunk)
            if chunk.state is not State.EVICTING:  # it is moving, or has moved, to memory: there is space
                self._fetch(chunk, leaf, sink, self._ranges.of(chunk.entry), self._is_next(chunk))
                return
        self._starvation.block_done(want.size_bytes, now)
        if isinstance(error, DiskFullError):
            return
        sink.settle()
        chunk.missing -= 1
        chunk.times.block_done(
            now,
            asked=want.sent_at,
            first_byte=want.first_byte_at,
            received=want.received_at,
            worked_s=want.worked_s,
            fault_of=next(iter(want.faults), ""),
        )
        if error is not None and chunk.error is None:
            chunk.error = error
        if not chunk.missing or chunk.error is not None:
            chunk.times.arrived = now
        if not chunk.missing and chunk.state is State.STAGED:
            self._disk.worked(began=chunk.times.granted)
        chunk.look_if_ready()
