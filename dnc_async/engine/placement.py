"""Finds space for chunks: their rows in memory if those are free, else a leased file on disk, else their rows on credit.

Chunks smaller than a block of the disk are always on credit (:mod:`~dnc_async.engine.credit`). A chunk of the batch that is
being received needs no lease. If the file system was full although the budget was not, it is tried again now and then
(:mod:`~dnc_async.spool.disk_backoff`), by creating the file before anything is requested.
"""

from __future__ import annotations

from dnc_async.condition import Condition
from dnc_async.dataset.batch import BatchBuffer
from dnc_async.dataset.chunk_format import Layouts
from dnc_async.dataset.manifest import halves
from dnc_async.dataset.plan import Plan, PlannedBatch
from dnc_async.engine.chunks import Chunk, State
from dnc_async.engine.credit import Credit
from dnc_async.engine.progress import Progress
from dnc_async.engine.sink import Sink
from dnc_async.errors import DiskFullError
from dnc_async.gateways.group import FetchGroup
from dnc_async.spool.disk_backoff import DiskBackoff
from dnc_async.spool.files import SpoolFile, SpoolFolder
from dnc_async.spool.governor import Account, Lease

#: Without a disk, chunks that are smaller than this count as small.
_SMALL_BYTES = 4096


def small_bytes(spool: SpoolFolder | None) -> int:
    """Chunks that are smaller than this are never staged: in a file, they would take more space than in memory."""
    return spool.unit_bytes if spool is not None else _SMALL_BYTES


class Placement:
    """Finds space for one stream's chunks, and holds the rows of its batches until they are complete."""

    def __init__(
        self,
        *,
        plan: Plan,
        account: Account,
        spool: SpoolFolder | None,
        disk: DiskBackoff,
        progress: Progress,
        change: Condition,
        group: FetchGroup,
        credit: Credit,
    ) -> None:
        """Without a ``spool``, chunks are staged in memory only."""
        self._account = account
        self._spool = spool
        self._disk = disk
        self._progress = progress
        self._change = change
        self._group = group
        self._credit = credit
        self._small_bytes = small_bytes(spool)
        self._buffers: dict[int, BatchBuffer] = {}
        self._layouts = Layouts(plan.manifest.schema)
        self.peak_disk_bytes = 0

    def __repr__(self) -> str:
        return f"<Placement of {len(self._buffers)} batches in memory, {'with' if self._spool else 'without'} a spool>"

    async def find(self, chunk: Chunk) -> Sink | None:
        """Find space for a chunk, and set its state accordingly; returns ``None`` if there is none now."""
        if self._progress.is_too_far(chunk.batch):
            self._account.withdraw()
            return None
        if not self._progress.has_rows(chunk.batch):
            if chunk.entry.size_bytes < self._small_bytes:
                self._account.withdraw()
                granted = self._credit.grant_small(chunk)
            else:
                staged = await self._on_disk(chunk)
                if staged is not None:
                    return staged
                # The batch before it may have been handed over meanwhile.
                granted = self._progress.has_rows(chunk.batch) or self._credit.grant(chunk)
            if not granted:
                return None
        self._account.withdraw()
        chunk.state = State.PLACED
        return Sink(place=self.rows(chunk.batch).place(chunk.part, chunk.entry.size_bytes))

    async def _on_disk(self, chunk: Chunk) -> Sink | None:
        if self._spool is None or self._disk.wait_s:
            self._account.withdraw()
            return None
        cost = self._spool.cost(chunk.entry.size_bytes, len(chunk.leaves))
        lease = self._account.try_lease(cost, chunk.place)
        return await self._stage(chunk, lease, self._spool) if lease is not None else None

    def is_sure(self, chunk: Chunk) -> bool:
        """Whether a chunk's leaves are wanted as soon as it is proved: it has its rows, or is of the second batch at the start.

        All of these must fit on the disk at once, or be requested on credit. Waiting for the proofs first would cost a round
        trip; with more batches than this one, the first ones would arrive later.
        """
        progress, batch = self._progress, chunk.batch
        if progress.has_rows(batch):
            return True
        if batch.position != 1 or progress.taken or progress.is_too_far(batch):
            return False
        rest = len(batch.chunks) - chunk.part  # the chunks before it have their space
        if self._credit.may_begin_with(batch, rest * chunk.entry.size_bytes):
            return True
        cost = self._spool.cost(chunk.entry.size_bytes) if self._spool is not None else 0
        return bool(cost) and self._account.allows(rest * cost, chunk.place)

    async def _stage(self, chunk: Chunk, lease: Lease, spool: SpoolFolder) -> Sink | None:
        """Create the file for a lease. If the lease was revoked meanwhile, or the disk is full, release it."""
        file = spool.reserve(lease, chunk.entry.size_bytes)
        if self._disk.is_full and not await self._fits(file):
            return None
        if lease.is_revoked:
            file.discard()
            self._change.notify_all()
            return None
        chunk.state = State.STAGED
        return Sink(file=file)

    async def _fits(self, file: SpoolFile) -> bool:
        """Whether a disk that was full has space again: checked before anything is requested in vain."""
        self._disk.tries()
        try:
            await self._group.in_worker(file.open)
        except BaseException as error:
            file.discard()
            if not isinstance(error, DiskFullError):
                raise
            self._disk.refused(error)
            return False
        return True

    def rows(self, batch: PlannedBatch) -> BatchBuffer:
        """The batch's rows, allocated when they are first used."""
        buffer = self._buffers.get(batch.position)
        if buffer is None:
            buffer = self._buffers[batch.position] = BatchBuffer(self._layouts, halves(batch.samples))
        return buffer

    def complete(self, batch: PlannedBatch) -> object:
        """Return a batch whose rows are complete, and forget it."""
        return self._buffers.pop(batch.position).batch()

    def look_at_disk(self) -> None:
        """Update the peak of what the spool takes on disk (in any thread)."""
        if self._spool is not None:
            self.peak_disk_bytes = max(self.peak_disk_bytes, self._spool.disk_bytes())
