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

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import anyio
from anyio.abc import TaskGroup

from dnc_async.condition import Condition
from dnc_async.dataset.manifest import Manifest
from dnc_async.dataset.plan import Plan, PlannedBatch
from dnc_async.engine.chunks import Chunk, State
from dnc_async.engine.credit import BandwidthDelay, Credit, CreditLimit
from dnc_async.engine.ledger import BUDGET, PREFETCH
from dnc_async.engine.mailbox import BatchSender
from dnc_async.engine.pace import CallPace, Pace
from dnc_async.engine.pages import PageReader
from dnc_async.engine.placement import Placement, small_bytes
from dnc_async.engine.progress import Progress
from dnc_async.engine.proofs import ChunkRanges, Within, chunk_leaves, leaf_within
from dnc_async.engine.sink import Sink
from dnc_async.engine.slow_start import SlowStart
from dnc_async.engine.starvation import Starvation
from dnc_async.engine.tiering import Tiering
from dnc_async.engine.transform import Job, Transforms
from dnc_async.errors import DecodeError, DiskFullError, DncError
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.block import Block
from dnc_async.ipld.plan import Leaf, payload_pieces
from dnc_async.spool.disk_backoff import DiskBackoff
from dnc_async.spool.files import SpoolFolder
from dnc_async.spool.governor import Account, Borrower, Lease, Place
from dnc_async.telemetry import logger

#: How many chunks without space may have proofs, or have them requested. Proofs take a few hundred bytes of memory each.
_PROOFS_AHEAD = 32
#: As many as this if all chunks are small: those are requested many at a time, and their pages list their leaves.
_SMALL_AHEAD = 128
#: …but no more than this if that keeps the gateways busy, because each is a request.
_PROOFS_AT_LEAST = 8
#: How many chunks a stream has at once: as many as the spool has files, and those in memory and without a lease.
_CHUNKS_AHEAD = 2048
#: A refused chunk is not tried again sooner, unless something has happened.
_LOOK_S = 0.001
#: The mailbox may hold several batches if all of them together have no more bytes than this.
_MAILBOX_BYTES = 2**16
# Priorities: what a later stage waits for comes first.
_PROOF, _LEAF = 0, 1


class Pipeline:
    """Runs one stream's plan from its first chunk to its last batch, in the stream's ``tasks``.

    It is the borrower of the account that it opens, and that :meth:`close` closes.

    ``root`` is the dataset's CID, optionally followed by a path. ``prefetch`` limits how many batches ahead of the consumer's
    demand are fetched; ``None`` means no limit. ``window`` returns the bytes in flight that keep all gateways busy,
    ``measured`` is notified when another gateway was measured, and ``credit`` limits what all streams may request before they
    have space.
    """

    def __init__(
        self,
        *,
        root: str,
        plan: Plan,
        tasks: TaskGroup,
        group: FetchGroup,
        open_account: Callable[[Borrower], Account],
        spool: SpoolFolder | None,
        disk: DiskBackoff,
        mailbox: BatchSender,
        clock: Callable[[], float],
        thread_clock: Callable[[], float],
        prefetch: int | None,
        window: Callable[[], BandwidthDelay],
        measured: Condition,
        credit: CreditLimit,
        transforms: Transforms | None,
    ) -> None:
        """Prepare one run of a plan."""
        self._plan = plan
        self._tasks = tasks
        self._group = group
        self._disk = disk
        self._mailbox = mailbox
        self._clock = clock
        self._window = window
        self._measured = measured
        self._starvation = Starvation(window_bytes=lambda: window().size_bytes)
        #: How long the calls of the transform take, if there is one.
        self.calls = CallPace(transforms.places) if transforms is not None else None
        self._pace = Pace(clock, self.calls)
        self._pages = PageReader(plan.manifest, group)
        self._chunks: dict[int, list[Chunk]] = {}
        self._to_grant: list[tuple[Place, Chunk]] = []
        self._transforms = transforms
        self._jobs: deque[Job] = deque()
        self._is_small = plan.manifest.largest_chunk_bytes < small_bytes(spool)
        self._places = _places(plan.manifest, mailbox) if self._is_small and transforms is None else 0
        self._wakes = False
        places = transforms.places if transforms is not None else self._places
        self._progress = Progress(prefetch=prefetch, places=places)
        self._to_assemble: deque[Chunk] = deque()
        self._is_planned = False
        #: What a task may wait for: space for the next chunk; a chunk to assemble; that fewer chunks wait for space, or to be
        #: assembled; and that a batch was taken, completed or transformed.
        self._change, self._planned, self._room, self._progressed = Condition(), Condition(), Condition(), Condition()
        self._ranges = ChunkRanges(root, plan.manifest)
        self._slow_start = SlowStart(window=window, progress=self._progress, clock=clock)
        self._credit = Credit(credit, pace=self._pace, progress=self._progress, window=window, clock=clock)
        self._account = open_account(self)
        self._placement = Placement(
            plan=plan,
            account=self._account,
            spool=spool,
            disk=disk,
            progress=self._progress,
            change=self._change,
            group=group,
            credit=self._credit,
        )
        self._tiering = Tiering(
            tasks=tasks,
            placement=self._placement,
            progress=self._progress,
            change=self._change,
            group=group,
            starvation=self._starvation,
            clock=clock,
            thread_clock=thread_clock,
            dropped=self._enqueue,
            damaged=self._fetch_again,
        )

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
        self._tasks.start_soon(self._prove_all)
        self._tasks.start_soon(self._grant_all)
        self._tasks.start_soon(self._hear_of_rates)
        if self._transforms is not None:
            self._tasks.start_soon(self._deliver_all)
        await self._assemble_all()

    def close(self) -> None:
        """Return all files, leases and credit, and the account. The tasks have ended, and no worker thread uses our files."""
        self._credit.close()
        for chunk in self._on_the_way():
            if chunk.sink is not None:
                chunk.sink.discard()
        self._account.close()

    # Called by the consumer's side, in the engine's thread.

    def taken(self, at: float) -> None:
        """A batch was handed over at this time: the place in memory for the next one is free."""
        self._pace.handed_over(at)
        progress = self._progress
        self._chunks.pop(progress.taken, None)
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
        self._tiering.evict_if_staged(self._chunks[position][part])

    def due(self, place: Place) -> float:
        """When a chunk will be needed, at the consumer's pace."""
        return self._pace.due(max(0, place[0] - self._progress.taken))

    async def _until_taken(self, batches: int) -> None:
        """Wait until this many batches were handed over: then the place in memory is free for the next one."""
        await self._progressed.until(lambda: self._progress.taken >= batches)

    # The stages.

    async def _prove_all(self) -> None:
        for batch in self._plan.batches():
            for part, index in enumerate(batch.chunks):
                if not self._may_prove():
                    await self._room.until(self._may_prove)
                try:
                    entry = await self._pages.entry(index, self._tasks, (_LEAF, batch.position, part))
                except DncError:  # this chunk, and all after it, are not known
                    await self._until_taken(batch.position)
                    raise
                chunk = Chunk(batch, part, entry)
                self._chunks.setdefault(batch.position, []).append(chunk)
                self._enqueue(chunk)
                if entry.names_leaves:
                    self._prove_at_once(chunk)
                else:
                    self._tasks.start_soon(self._prove, chunk)
                    self.changed()  # it may have its space already
                self._to_assemble.append(chunk)
                self._planned.notify_all()
        self._is_planned = True
        self._planned.notify_all()

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
                priority=(_LEAF if ahead and chunk.batch.position else _PROOF, *chunk.place),
                within=self._ranges.of(chunk.entry),
                ahead=ahead,
            )
        except DncError as error:
            chunk.error = error  # as above
        self._proved(chunk)

    def _proved(self, chunk: Chunk) -> None:
        chunk.proved = True
        if chunk.sink is not None and chunk.state is not State.EVICTING:
            chunk.times.proved = self._clock()
            self._fetch_all(chunk, chunk.sink)
            chunk.look_if_ready()
        self.changed()

    def _may_prove(self) -> bool:
        """Whether another chunk may be proved: few enough have no space, and few enough are not assembled."""
        waiting = len(self._to_grant)
        if len(self._to_assemble) >= _CHUNKS_AHEAD:
            return False
        if self._is_small and self._progress.complete:  # before, a page must not be requested ahead of the first chunks
            return waiting < _SMALL_AHEAD
        if waiting < _PROOFS_AT_LEAST or waiting >= _PROOFS_AHEAD:
            return waiting < _PROOFS_AT_LEAST
        chunk_bytes = max(1, self._plan.manifest.largest_chunk_bytes)
        return waiting < _PROOFS_AT_LEAST + self._window().size_bytes // chunk_bytes

    def _enqueue(self, chunk: Chunk) -> None:
        """Queue a chunk that has no space."""
        heapq.heappush(self._to_grant, (chunk.place, chunk))

    async def _grant_all(self) -> None:
        """Grant space to the first chunk in plan order without any; dropped ones come before those that never had any."""
        while True:
            changes = self._change.changes
            first = heapq.heappop(self._to_grant)[1] if self._to_grant else None
            if first is not None and self._may_grant(first) and await self._grant(first):
                self._room.notify_all()
                continue
            if first is not None:
                self._enqueue(first)
            with anyio.move_on_after(self._looks_again_s(first)):
                await self._change.past(changes)

    async def _hear_of_rates(self) -> None:
        """Try to grant again whenever a gateway's rate becomes known, because slow start may end then."""
        while True:
            await self._measured.past(self._measured.changes)
            self.changed()
            self._room.notify_all()

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
                self._fetch_all(chunk, sink)
            self._tiering.promote_if_due(chunk)
        chunk.look_if_ready()
        return True

    def _fetch_all(self, chunk: Chunk, sink: Sink) -> None:
        chunk.missing = chunk.times.blocks = len(chunk.leaves)
        within, is_next = self._ranges.of(chunk.entry), partial(self._progress.is_next, chunk.batch)
        for leaf in chunk.leaves:
            self._fetch(chunk, leaf, sink, within, is_next)

    def _fetch_again(self, chunk: Chunk, sink: Sink, damaged: dict[int, str]) -> None:
        """Fetch leaves again, to memory, that the disk did not return as they were written."""
        for reason in set(damaged.values()):
            logger.warning("%s; %d leaves of chunk %d are fetched again", reason, len(damaged), chunk.entry.index)
        chunk.missing += len(damaged)
        for leaf in chunk.leaves:
            if leaf.offset in damaged:
                self._fetch(
                    chunk, leaf, sink, self._ranges.of(chunk.entry), partial(self._progress.is_next, chunk.batch)
                )

    def _fetch(self, chunk: Chunk, leaf: Leaf, sink: Sink, within: Within, is_next: Callable[[], bool]) -> None:
        def accept(block: Block) -> None:
            sink.write_at(leaf.offset, *payload_pieces(leaf, block))

        size = leaf.size or chunk.entry.size_bytes
        want = self._group.submit(
            leaf.cid,
            size_bytes=size,
            within=leaf_within(within, leaf.offset, leaf.offset + size),
            priority=(_LEAF, *chunk.place, leaf.offset),
            accept=accept,
            is_quick=sink.is_quick,
            is_urgent=is_next,
            done=partial(self._leaf_done, chunk, leaf, sink),
        )
        chunk.wants[want] = None

    def _leaf_done(self, chunk: Chunk, leaf: Leaf, sink: Sink, want: BlockWant, error: Exception | None) -> None:
        chunk.wants.pop(want, None)
        now = self._clock()
        if isinstance(error, DiskFullError):
            self._disk.refused(error)
            self._tiering.evict_if_staged(chunk)
            if chunk.state is not State.EVICTING:  # it is moving, or has moved, to memory: there is space
                self._fetch(
                    chunk, leaf, sink, self._ranges.of(chunk.entry), partial(self._progress.is_next, chunk.batch)
                )
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

    async def _assemble_all(self) -> None:
        while True:
            if not self._to_assemble:
                await self._planned.until(lambda: self._to_assemble or self._is_planned)
            if not self._to_assemble:
                break
            chunk = self._to_assemble.popleft()
            self._room.notify_all()
            if not chunk.ready.is_set():
                await chunk.ready.wait()
            if chunk.error is None:
                await self._finish(chunk)
            if chunk.error is not None:
                await self._until_taken(chunk.batch.position)
                raise chunk.error
            if chunk.is_last:
                await self._complete_batch(chunk.batch)
        await self._until_taken(self._progress.taken + len(self._chunks))

    async def _finish(self, chunk: Chunk) -> None:
        rows = self._placement.rows(chunk.batch)
        try:
            if rows.decodes:
                await self._group.in_worker(rows.finish, chunk.part)
            else:  # faster than handing it to a worker thread
                rows.finish(chunk.part)
        except DecodeError as error:
            chunk.error = error
        chunk.times.placed = self._clock()

    async def _complete_batch(self, planned: PlannedBatch) -> None:
        for chunk in self._chunks[planned.position]:
            chunk.sink = None  # it holds the rows
        # It may have come on credit, before it had its place.
        if not self._progress.has_rows(planned):
            await self._progressed.until(lambda: self._progress.has_rows(planned))
        batch = self._placement.complete(planned)
        if self._transforms is None:
            self._put(planned, batch)
        else:
            self._jobs.append(await self._transforms.start(planned, batch))
        self._progress.complete += 1
        self._rows_may_be_free()

    def _rows_may_be_free(self) -> None:
        """If the first incomplete batch has its rows now, move its chunks there from disk, and settle the credit of the rest."""
        chunks = self._chunks.get(self._progress.complete)
        if chunks and self._progress.has_rows(chunks[0].batch):
            for chunk in chunks:
                self._tiering.promote_if_due(chunk)
                self._credit.settle(chunk)
        self._progressed.notify_all()
        self.changed()

    async def _deliver_all(self) -> None:
        """Hand over transformed batches, in plan order; raise an error when all batches before it were taken, and not before."""
        while True:
            await self._progressed.until(lambda: self._jobs)
            job = self._jobs.popleft()
            await job.finished.wait()
            if self.calls is not None:
                self.calls.ended(job.done_at, complete=job.complete_at)
            await self._until_taken(job.planned.position)
            self._put(job.planned, job.take(), transformed=job.done_at)

    def _put(self, planned: PlannedBatch, batch: object, *, transformed: float = 0.0) -> None:
        times = tuple(each.times for each in self._chunks[planned.position])
        self._mailbox.put(batch, samples=planned.samples, chunks=times, transformed=transformed)
        if self._places == 0:
            self._mailbox.wake()
        elif not self._wakes:  # when this task has put all that is ready, so that the consumer finds several
            self._wakes = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._wakes = False
        self._mailbox.wake()

    def _on_the_way(self) -> Iterator[Chunk]:
        for chunks in self._chunks.values():
            yield from chunks


def _places(manifest: Manifest, mailbox: BatchSender) -> int:
    """How many batches of small chunks may lie in the mailbox before the next one."""
    batch_bytes = manifest.chunks_per_batch * manifest.largest_chunk_bytes
    return max(0, min(mailbox.capacity, _MAILBOX_BYTES // batch_bytes) - 1)
