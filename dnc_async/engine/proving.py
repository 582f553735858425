"""Reads the plan ahead of the leases: makes its chunks, and fetches the pages that list them and the proofs of large ones.

Proofs (the nodes above the leaves) take little memory, so those of a few chunks are fetched before there is space for the
leaves; when there is, the first request is for data.
"""

from __future__ import annotations

from collections.abc import Callable

from anyio.abc import TaskGroup

from dnc_async.condition import Condition
from dnc_async.dataset.plan import Plan
from dnc_async.engine.chunks import Chunk, ChunkQueues
from dnc_async.engine.credit import BandwidthDelay
from dnc_async.engine.pages import PageReader
from dnc_async.engine.placement import Placement
from dnc_async.engine.progress import Progress
from dnc_async.engine.proofs import ChunkRanges, chunk_leaves
from dnc_async.errors import DncError
from dnc_async.gateways.group import FetchGroup

#: How many chunks without space may have proofs, or have them requested. Proofs take a few hundred bytes of memory each.
_PROOFS_AHEAD = 32
#: As many as this if all chunks are small: those are requested many at a time, and their pages list their leaves.
_SMALL_AHEAD = 128
#: …but no more than this if that keeps the gateways busy, because each is a request.
_PROOFS_AT_LEAST = 8
#: How many chunks a stream has at once: as many as the spool has files, and those in memory and without a lease.
_CHUNKS_AHEAD = 2048
# Priorities: what a later stage waits for comes first.
PROOF, LEAF = 0, 1


class Proving:
    """The first stage of a stream."""

    def __init__(
        self,
        *,
        plan: Plan,
        tasks: TaskGroup,
        group: FetchGroup,
        ranges: ChunkRanges,
        placement: Placement,
        progress: Progress,
        queues: ChunkQueues,
        change: Condition,
        window: Callable[[], BandwidthDelay],
        is_small: bool,
        proved: Callable[[Chunk], None],
    ) -> None:
        """``proved`` is called with each chunk whose leaves are known, or that has failed; ``is_small``: all chunks are small."""
        self._plan = plan
        self._tasks = tasks
        self._group = group
        self._ranges = ranges
        self._placement = placement
        self._progress = progress
        self._queues = queues
        self._change = change
        self._window = window
        self._is_small = is_small
        self._proved = proved
        self._pages = PageReader(plan.manifest, group)

    def __repr__(self) -> str:
        return f"<Proving {self._pages!r}, {self._queues!r}>"

    async def run(self) -> None:
        """Add all chunks of the plan to the queues. Raises the error of a page once the consumer has all batches before it."""
        for batch in self._plan.batches():
            for part, index in enumerate(batch.chunks):
                if not self._may_prove():
                    await self._queues.removed.until(self._may_prove)
                try:
                    entry = await self._pages.entry(index, self._tasks, (LEAF, batch.position, part))
                except DncError:  # this chunk, and all after it, are not known
                    await self._queues.until_taken(batch.position)
                    raise
                chunk = Chunk(batch, part, entry)
                self._queues.add(chunk)
                if entry.names_leaves:
                    self._prove_at_once(chunk)
                else:
                    self._tasks.start_soon(self._prove, chunk)
                    self._change.notify_all()  # it may have its space already
                self._queues.told(chunk)
        self._queues.end()

    def _prove_at_once(self, chunk: Chunk) -> None:
        """Take a chunk's leaves from its page: nothing is fetched."""
        try:
            chunk.leaves = chunk.entry.leaves()
        except DncError as error:
            chunk.error = error  # the error is raised when the consumer gets there, not before
        self._proved(chunk)

    async def _prove(self, chunk: Chunk) -> None:
        try:
            ahead = self._placement.is_sure(chunk)
            chunk.leaves = await chunk_leaves(
                self._group,
                chunk.entry,
                # With its leaves: those of the first batch before all, others after the proofs of what follows them.
                priority=(LEAF if ahead and chunk.batch.position else PROOF, *chunk.place),
                within=self._ranges.of(chunk.entry),
                ahead=ahead,
            )
        except DncError as error:
            chunk.error = error  # as above
        self._proved(chunk)

    def _may_prove(self) -> bool:
        """Whether another chunk may be proved: few enough have no space, and few enough are not assembled."""
        waiting = self._queues.ungranted
        if len(self._queues.to_assemble) >= _CHUNKS_AHEAD:
            return False
        if self._is_small and self._progress.complete:  # before, a page must not be requested ahead of the first chunks
            return waiting < _SMALL_AHEAD
        if waiting < _PROOFS_AT_LEAST or waiting >= _PROOFS_AHEAD:
            return waiting < _PROOFS_AT_LEAST
        chunk_bytes = max(1, self._plan.manifest.largest_chunk_bytes)
        return waiting < _PROOFS_AT_LEAST + self._window().size_bytes // chunk_bytes
