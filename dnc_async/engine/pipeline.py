"""The stages of one stream, and the bounded channels between them.

::

    plan ──> prove ──────> grant ───────────> (fetch) ─> assemble ──> (transform) ──> mailbox
          pages, roots    in plan order: a    leaves,    in plan order: into the
          of large ones,  lease on disk, or   over all   batch's rows, off the disk,
          a few ahead     the batch's rows    gateways   and released
                             ^                   |
                             +---- dropped <-----+  a revoked lease, or a full disk

*Disk holds the future, memory the present.* One batch is with the consumer, and one place in memory receives the next: it is
free as soon as the batch before it was handed over, or earlier if a transform has further places for that one
(:mod:`~dnc_async.engine.transform`), or the mailbox, where batches are tiny. A chunk of that batch is written directly to
its rows and needs no lease. Chunks further ahead need a lease, granted in plan order, before anything is requested. A chunk
on disk moves to its rows when they are free, completely or as far as it was received, and its lease is released at once. If
there is neither, a chunk may be requested on credit, so that it arrives when its rows are free
(:mod:`~dnc_async.engine.credit`).

A chunk on disk may be dropped: its blocks are withdrawn, its file is deleted and its lease released, and it is granted space
again when its turn comes, at the latest when its rows are free. So a stream never needs a lease to continue, only to be faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import anyio
from anyio.abc import TaskGroup

from dnc_async.condition import Condition
from dnc_async.dataset.plan import Plan, PlannedBatch
from dnc_async.engine.chunks import Chunk, ChunkQueues, State
from dnc_async.engine.credit import BandwidthDelay, Credit, CreditLimit
from dnc_async.engine.delivering import Delivering, batches_in_memory
from dnc_async.engine.leaf_fetching import LeafFetching
from dnc_async.engine.ledger import BUDGET, PREFETCH
from dnc_async.engine.mailbox import BatchSender
from dnc_async.engine.pace import CallPace, Pace
from dnc_async.engine.placement import Placement, small_bytes
from dnc_async.engine.progress import Progress
from dnc_async.engine.proofs import ChunkRanges
from dnc_async.engine.proving import Proving
from dnc_async.engine.sink import Sink
from dnc_async.engine.slow_start import SlowStart
from dnc_async.engine.starvation import Starvation
from dnc_async.engine.tiering import Tiering
from dnc_async.engine.transform import Transforms
from dnc_async.errors import DecodeError
from dnc_async.gateways.group import FetchGroup
from dnc_async.spool.disk_backoff import DiskBackoff
from dnc_async.spool.files import SpoolFolder
from dnc_async.spool.governor import Account, Borrower, Lease, Place

#: A refused chunk is not tried again sooner, unless something has happened.
_LOOK_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a pipeline uses of its client. The streams of a client share all but the group and the mailbox.

    ``window`` returns the bytes in flight that keep all gateways busy, ``measured`` is notified when another gateway was
    measured, and ``credit`` limits what all streams may request before they have space.
    """

    group: FetchGroup
    spool: SpoolFolder | None
    disk: DiskBackoff
    mailbox: BatchSender
    clock: Callable[[], float]
    thread_clock: Callable[[], float]
    window: Callable[[], BandwidthDelay]
    measured: Condition
    credit: CreditLimit


class Pipeline:
    """Runs one stream's plan from its first chunk to its last batch, in the stream's ``tasks``.

    It is the borrower of the account that it opens, and that :meth:`close` closes.

    ``root`` is the dataset's CID, optionally followed by a path. ``prefetch`` limits how many batches ahead of the consumer's
    demand are fetched; ``None`` means no limit.
    """

    def __init__(
        self,
        *,
        root: str,
        plan: Plan,
        tasks: TaskGroup,
        around: Surroundings,
        open_account: Callable[[Borrower], Account],
        prefetch: int | None,
        transforms: Transforms | None,
    ) -> None:
        """Prepare one run of a plan."""
        self._tasks = tasks
        self._disk, self._clock, self._measured = around.disk, around.clock, around.measured
        self._in_worker = around.group.in_worker
        is_small = plan.manifest.largest_chunk_bytes < small_bytes(around.spool)
        places = batches_in_memory(plan.manifest, around.mailbox, transforms, is_small=is_small)
        self._progress = Progress(prefetch=prefetch, places=places)
        self._queues = ChunkQueues(self._progress)
        self._delivering = Delivering(
            mailbox=around.mailbox, queues=self._queues, transforms=transforms, holds_several=is_small and places > 0
        )
        self._pace = Pace(around.clock, self._delivering.calls)
        #: Notified when there may be space for the next chunk.
        self._change = Condition()
        self._starvation = Starvation(window_bytes=lambda: around.window().size_bytes)
        self._slow_start = SlowStart(window=around.window, progress=self._progress, clock=around.clock)
        self._credit = Credit(
            around.credit, pace=self._pace, progress=self._progress, window=around.window, clock=around.clock
        )
        self._account = open_account(self)
        self._placement = self._make_placement(plan, around)
        self._tiering = self._make_tiering(around)
        self._leaves, self._proving = self._make_fetching(root, plan, around, is_small=is_small)

    def _make_placement(self, plan: Plan, around: Surroundings) -> Placement:
        return Placement(
            plan=plan,
            account=self._account,
            spool=around.spool,
            disk=around.disk,
            progress=self._progress,
            change=self._change,
            group=around.group,
            credit=self._credit,
        )

    def _make_tiering(self, around: Surroundings) -> Tiering:
        return Tiering(
            tasks=self._tasks,
            placement=self._placement,
            progress=self._progress,
            change=self._change,
            group=around.group,
            starvation=self._starvation,
            clock=around.clock,
            thread_clock=around.thread_clock,
            dropped=self._queues.enqueue,
            damaged=self._damaged,
        )

    def _make_fetching(
        self, root: str, plan: Plan, around: Surroundings, *, is_small: bool
    ) -> tuple[LeafFetching, Proving]:
        ranges = ChunkRanges(root, plan.manifest)
        leaves = LeafFetching(
            group=around.group,
            ranges=ranges,
            disk=around.disk,
            progress=self._progress,
            starvation=self._starvation,
            clock=around.clock,
            disk_is_full=self._tiering.evict_if_staged,
        )
        proving = Proving(
            plan=plan,
            tasks=self._tasks,
            group=around.group,
            ranges=ranges,
            placement=self._placement,
            progress=self._progress,
            queues=self._queues,
            change=self._change,
            window=around.window,
            is_small=is_small,
            proved=self._proved,
        )
        return leaves, proving

    @property
    def calls(self) -> CallPace | None:
        """How long the calls of the transform take, if there is one."""
        return self._delivering.calls

    @property
    def peak_disk_bytes(self) -> int:
        """The peak of what the spool took on disk."""
        return self._placement.peak_disk_bytes

    @property
    def peak_ahead_bytes(self) -> int:
        """The most that was requested before there was space for it."""
        return self._credit.peak_bytes

    async def run(self) -> None:
        """Deliver the whole plan. Afterwards the stream's tasks have to be cancelled: nothing is left to be granted."""
        self._tasks.start_soon(self._proving.run)
        self._tasks.start_soon(self._grant_all)
        self._tasks.start_soon(self._hear_of_rates)
        if self._delivering.calls is not None:
            self._tasks.start_soon(self._delivering.run)
        await self._assemble_all()

    def close(self) -> None:
        """Return all files, leases and credit, and the account. The tasks have ended, and no worker thread uses our files."""
        self._credit.close()
        for chunk in self._queues:
            if chunk.sink is not None:
                chunk.sink.discard()
        self._account.close()

    # Called by the consumer's side, in the engine's thread.

    def taken(self, at: float) -> None:
        """A batch was handed over at this time: the place in memory for the next one is free."""
        self._pace.handed_over(at)
        progress = self._progress
        self._queues.by_batch.pop(progress.taken, None)
        progress.taken += 1
        progress.wanted = max(progress.wanted, progress.taken)
        self._rows_may_be_free()

    def wanted(self) -> None:
        """The consumer waits for the next batch."""
        self._pace.asked()
        self._progress.wanted = self._progress.taken + 1
        self.changed()

    # Called by the governor.

    def changed(self) -> None:
        """Something was released or handed over: try to grant space again."""
        self._change.notify_all()

    def revoked(self, lease: Lease) -> None:
        """Return a revoked lease. A chunk that is moving to memory, or has no file yet, returns it anyway."""
        position, part = lease.place
        self._tiering.evict_if_staged(self._queues.by_batch[position][part])

    def due(self, place: Place) -> float:
        """When a chunk will be needed, at the consumer's pace."""
        return self._pace.due(max(0, place[0] - self._progress.taken))

    # The stages.

    async def _grant_all(self) -> None:
        """Grant space to the first chunk in plan order without any; dropped ones come before those that never had any."""
        while True:
            changes = self._change.changes
            first = self._queues.next_to_grant()
            if first is not None and self._may_grant(first) and await self._grant(first):
                self._queues.removed.notify_all()
                continue
            if first is not None:
                self._queues.enqueue(first)
            with anyio.move_on_after(self._looks_again_s(first)):
                await self._change.past(changes)

    async def _hear_of_rates(self) -> None:
        """Try to grant again whenever a gateway's rate becomes known, because slow start may end then."""
        while True:
            await self._measured.past(self._measured.changes)
            self.changed()
            self._queues.removed.notify_all()

    def _looks_again_s(self, refused: Chunk | None) -> float:
        """After how many seconds it is worth asking again for a refused chunk, if nothing happens before."""
        if refused is not None and self._slow_start.holds_back(refused.batch.position):
            return max(_LOOK_S, self._slow_start.until - self._clock())
        # A consumer that waits will say when it got its batch; until then that moves on with the clock.
        credit_s = self._credit.opens_at(refused) - self._clock() if self._pace.is_stepping else math.inf
        return min(self._disk.wait_s or math.inf, max(_LOOK_S, credit_s))

    def _may_grant(self, chunk: Chunk) -> bool:
        """Whether a chunk's leaves can be requested, or arrive with its proofs: then the chunks after it need not wait."""
        if self._slow_start.holds_back(chunk.batch.position):
            return False
        return chunk.proved or self._placement.is_sure(chunk)

    async def _grant(self, chunk: Chunk) -> bool:
        """Give a chunk space and have it fetched as soon as it is proved; returns ``False`` if there is no space now."""
        if chunk.proved:
            chunk.times.proved = chunk.times.proved or self._clock()  # and all before it
        if chunk.error is None:
            sink = chunk.sink = await self._placement.find(chunk)
            if sink is None:
                held_by = PREFETCH if self._progress.is_too_far(chunk.batch) else BUDGET
                self._starvation.refused(self._clock(), held_by)
                return False
            chunk.times.key, chunk.times.size_bytes = chunk.entry.cid.encode(), chunk.entry.size_bytes
            self._starvation.granted(chunk.times, self._clock())
            chunk.missing = 1  # its proofs
            if chunk.proved:
                self._leaves.fetch_all(chunk, sink)
            self._tiering.promote_if_due(chunk)
        chunk.look_if_ready()
        return True

    def _damaged(self, chunk: Chunk, sink: Sink, damaged: dict[int, str]) -> None:
        """The disk did not return leaves of a chunk as they were written."""
        self._leaves.fetch_again(chunk, sink, damaged)

    def _proved(self, chunk: Chunk) -> None:
        """A chunk's leaves are known, or it has failed."""
        chunk.proved = True
        if chunk.sink is not None and chunk.state is not State.EVICTING:
            chunk.times.proved = self._clock()
            self._leaves.fetch_all(chunk, chunk.sink)
            chunk.look_if_ready()
        self.changed()

    async def _assemble_all(self) -> None:
        while (chunk := await self._queues.next_to_assemble()) is not None:
            if chunk.error is None:
                await self._finish(chunk)
            if chunk.error is not None:
                await self._queues.until_taken(chunk.batch.position)
                raise chunk.error
            if chunk.is_last:
                await self._complete_batch(chunk.batch)
        await self._queues.until_taken(self._progress.taken + len(self._queues.by_batch))

    async def _finish(self, chunk: Chunk) -> None:
        rows = self._placement.rows(chunk.batch)
        try:
            if rows.decodes:
                await self._in_worker(rows.finish, chunk.part)
            else:  # faster than handing it to a worker thread
                rows.finish(chunk.part)
        except DecodeError as error:
            chunk.error = error
        chunk.times.placed = self._clock()

    async def _complete_batch(self, planned: PlannedBatch) -> None:
        for chunk in self._queues.by_batch[planned.position]:
            chunk.sink = None  # it holds the rows
        # It may have come on credit, before it had its place.
        if not self._progress.has_rows(planned):
            await self._queues.progressed.until(lambda: self._progress.has_rows(planned))
        await self._delivering.add(planned, self._placement.complete(planned))
        self._progress.complete += 1
        self._rows_may_be_free()

    def _rows_may_be_free(self) -> None:
        """If the first incomplete batch has its rows now, move its chunks there from disk, and settle the credit of the rest."""
        chunks = self._queues.by_batch.get(self._progress.complete)
        if chunks and self._progress.has_rows(chunks[0].batch):
            for chunk in chunks:
                self._tiering.promote_if_due(chunk)
                self._credit.settle(chunk)
        self._queues.progressed.notify_all()
        self.changed()
