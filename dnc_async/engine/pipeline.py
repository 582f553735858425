"""The stages of one stream, and the bounded channels between them.

::

    plan ──> prove ──────> grant ───────────> (fetch) ─> assemble ──> mailbox
          pages and       in plan order: a    leaves,    in plan order: into the
          chunk roots,    lease on disk, or   over all   batch's rows, off the disk,
          a few ahead     the batch's rows    gateways   and released

*Disk holds the future, memory the present.* One batch is with the consumer, and one place in memory receives the next: it
is free as soon as the batch before it was handed over. A chunk of that batch lands in its rows directly and needs no
lease; chunks further ahead need one, granted in plan order, before anything is asked for. A chunk that was leased moves to
its rows when they are free, wholly or as far as it has come, and its lease is released at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from dnc_async.dataset.batch import BatchBuffer
from dnc_async.dataset.manifest import ChunkEntry
from dnc_async.dataset.plan import Plan, PlannedBatch
from dnc_async.engine.landing import Landing
from dnc_async.engine.ledger import BUDGET, PREFETCH, ChunkTimes
from dnc_async.engine.mailbox import Mailbox
from dnc_async.engine.reading import PageReader, chunk_leaves, chunk_within
from dnc_async.engine.starvation import Starvation
from dnc_async.errors import DncError
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.wanted import WantedBlock
from dnc_async.ipld.block import Block
from dnc_async.ipld.plan import Leaf, payload
from dnc_async.spool.files import SpoolFolder
from dnc_async.spool.governor import Account

#: Chunks whose proofs may be fetched before their lease was granted. Proofs live in memory: a few hundred bytes each.
_PROOFS_AHEAD = 32
#: Chunks that may be leased at once, however small they are.
_GRANTS_AHEAD = 4096
# Priorities: what a later stage waits for goes first.
_PROOF, _LEAF = 0, 1


@dataclass(slots=True, eq=False)
class _Chunk:
    """One chunk on its way."""

    batch: PlannedBatch
    part: int
    entry: ChunkEntry
    proved: anyio.Event = field(default_factory=anyio.Event)
    arrived: anyio.Event = field(default_factory=anyio.Event)
    leaves: tuple[Leaf, ...] = ()
    missing: int = 0
    landing: Landing | None = None
    moving: bool = False
    in_memory: anyio.Event = field(default_factory=anyio.Event)
    error: Exception | None = None
    times: ChunkTimes = field(default_factory=ChunkTimes)

    @property
    def is_last(self) -> bool:
        return self.part == len(self.batch.chunks) - 1


class Pipeline:
    """Runs one stream's plan from its first chunk to its last batch."""

    def __init__(
        self,
        *,
        root: str,
        plan: Plan,
        group: FetchGroup,
        account: Account,
        spool: SpoolFolder | None,
        mailbox: Mailbox,
        clock: Callable[[], float],
        prefetch: int | None,
        window_bytes: Callable[[], float],
    ) -> None:
        """One run of a plan.

        ``root`` is the dataset's CID, perhaps with a path behind it. ``prefetch`` limits how many batches ahead of the
        consumer's demand are fetched; ``None`` is no limit. ``window_bytes`` tells how many bytes must be on their way for all
        gateways to be busy (for the gap report).
        """
        self._root = root
        self._plan = plan
        self._group = group
        self._account = account
        self._spool = spool
        self._mailbox = mailbox
        self._clock = clock
        self._prefetch = prefetch
        self._starvation = Starvation(window_bytes=window_bytes)
        self._pages = PageReader(plan.manifest, group)
        self._buffers: dict[int, BatchBuffer] = {}
        self._chunks: dict[int, list[_Chunk]] = {}
        self._taken = self._wanted = 0
        self._changed = anyio.Event()
        self._tasks: TaskGroup | None = None
        self.peak_disk_bytes = 0

    async def run(self) -> None:
        """Deliver the whole plan; on the way out, whatever the way, no file and no lease is left."""
        try:
            async with anyio.create_task_group() as self._tasks:
                tasks = self._tasks
                proved, to_grant = anyio.create_memory_object_stream[_Chunk](_PROOFS_AHEAD)
                granted, to_assemble = anyio.create_memory_object_stream[_Chunk](_GRANTS_AHEAD)
                tasks.start_soon(self._prove_all, proved, tasks)
                tasks.start_soon(self._grant_all, to_grant, granted)
                tasks.start_soon(self._assemble_all, to_assemble)
        finally:
            self._tasks = None
            with anyio.CancelScope(shield=True):
                await self._group.aclose()
            for chunk in self._on_the_way():
                if chunk.landing is not None:
                    chunk.landing.discard()

    # What the consumer's side tells us, in the engine's thread.

    def taken(self) -> None:
        """A batch was handed over: the next one's place in memory is free."""
        self._chunks.pop(self._taken, None)
        self._taken += 1
        self._wanted = max(self._wanted, self._taken)
        for chunk in self._chunks.get(self._taken, []):
            self._move_if_due(chunk)
        self.changed()

    def wanted(self) -> None:
        """The consumer waits for the next batch."""
        self._wanted = self._taken + 1
        self.changed()

    def changed(self) -> None:
        """Something was released or handed over: look again."""
        self._changed.set()
        self._changed = anyio.Event()

    # The stages.

    async def _prove_all(self, send: MemoryObjectSendStream[_Chunk], tasks: TaskGroup) -> None:
        async with send:
            for batch in self._plan.batches():
                for part, index in enumerate(batch.chunks):
                    chunk = _Chunk(batch, part, await self._pages.entry(index))
                    self._chunks.setdefault(batch.position, []).append(chunk)
                    tasks.start_soon(self._prove, chunk)
                    await send.send(chunk)

    async def _prove(self, chunk: _Chunk) -> None:
        try:
            chunk.leaves = await chunk_leaves(
                self._group,
                chunk.entry,
                priority=(_PROOF, *_position(chunk)),
                via=self._via(chunk),
                ahead=chunk.batch.position <= self._taken,  # its rows are free: all of it is wanted now
            )
        except DncError as error:
            chunk.error = error  # it ends the stream when the consumer gets there, not before
        chunk.proved.set()

    async def _grant_all(
        self, receive: MemoryObjectReceiveStream[_Chunk], send: MemoryObjectSendStream[_Chunk]
    ) -> None:
        async with receive, send:
            async for chunk in receive:
                await chunk.proved.wait()
                chunk.times.proved = self._clock()  # and all before it
                if chunk.error is None:
                    landing = chunk.landing = await self._find_room(chunk)
                    self._describe(chunk)
                    self._starvation.granted(chunk.times, self._clock())
                    self._fetch(chunk, landing)
                    self._move_if_due(chunk)
                else:
                    chunk.arrived.set()
                await send.send(chunk)

    async def _find_room(self, chunk: _Chunk) -> Landing:
        """Wait for the chunk's rows in memory to be free, or for a lease, whichever comes first."""
        position = chunk.batch.position
        while True:
            changed = self._changed
            is_early = self._prefetch is not None and position >= self._wanted + self._prefetch
            if not is_early:
                if position <= self._taken:
                    self._account.withdraw()
                    chunk.in_memory.set()
                    return Landing(place=self._buffer(chunk.batch).place(chunk.part, chunk.entry.size_bytes))
                if self._spool is not None:
                    lease = self._account.try_lease(self._spool.cost(chunk.entry.size_bytes))
                    if lease is not None:
                        try:
                            return Landing(file=await self._group.in_worker(self._spool.create, lease))
                        except BaseException:
                            lease.release()
                            raise
            self._starvation.refused(self._clock(), PREFETCH if is_early else BUDGET)
            await changed.wait()

    def _describe(self, chunk: _Chunk) -> None:
        times = chunk.times
        times.key, times.size_bytes, times.blocks = chunk.entry.cid.encode(), chunk.entry.size_bytes, len(chunk.leaves)

    def _fetch(self, chunk: _Chunk, landing: Landing) -> None:
        def accept(leaf: Leaf, block: Block) -> None:
            landing.write_at(leaf.offset, payload(leaf, block))

        chunk.missing = len(chunk.leaves)
        via = self._via(chunk)
        for leaf in chunk.leaves:
            size = leaf.size or chunk.entry.size_bytes
            self._group.submit(
                leaf.cid,
                size_bytes=size,
                within=chunk_within(chunk.entry, leaf.offset, leaf.offset + size, via),
                priority=(_LEAF, *_position(chunk), leaf.offset),
                accept=partial(accept, leaf),
                done=partial(self._leaf_done, chunk),
            )

    def _via(self, chunk: _Chunk) -> str:
        return f"{self._root}/{self._plan.manifest.chunk_path(chunk.entry.index)}"

    def _leaf_done(self, chunk: _Chunk, want: WantedBlock, error: Exception | None) -> None:
        chunk.missing -= 1
        now = self._clock()
        self._starvation.block_done(want.size_bytes, now)
        chunk.times.block_done(
            now,
            asked=want.sent_at,
            first_byte=want.first_byte_at,
            received=want.received_at,
            fault_of=next(iter(want.faults), ""),
        )
        if error is not None and chunk.error is None:
            chunk.error = error
        if not chunk.missing or chunk.error is not None:
            chunk.times.arrived = now
            chunk.arrived.set()

    async def _assemble_all(self, receive: MemoryObjectReceiveStream[_Chunk]) -> None:
        async with receive:
            async for chunk in receive:
                await chunk.arrived.wait()
                await self._until_taken(chunk.batch.position)
                if chunk.error is not None:
                    raise chunk.error
                await chunk.in_memory.wait()
                buffer = self._buffer(chunk.batch)
                await self._group.in_worker(buffer.finish, chunk.part)
                chunk.times.placed = self._clock()
                if chunk.is_last:
                    del self._buffers[chunk.batch.position]
                    times = tuple(each.times for each in self._chunks[chunk.batch.position])
                    self._mailbox.put(buffer.batch(), samples=chunk.batch.samples, chunks=times)
        await self._until_taken(self._taken + len(self._chunks))

    async def _until_taken(self, batches: int) -> None:
        """Wait until so many batches were handed over: then the place in memory is free for the next one."""
        while self._taken < batches:
            await self._changed.wait()

    def _move_if_due(self, chunk: _Chunk) -> None:
        """Where a chunk's rows are free and it has a file, begin to move it."""
        landing = chunk.landing
        if self._tasks is None or landing is None or chunk.batch.position > self._taken:
            return
        if landing.is_on_disk and not chunk.moving:
            chunk.moving = True
            self._tasks.start_soon(self._move, chunk, landing)

    async def _move(self, chunk: _Chunk, landing: Landing) -> None:
        await self._group.in_worker(self._move_in_worker, chunk, landing, self._buffer(chunk.batch))
        landing.discard()
        chunk.in_memory.set()

    def _move_in_worker(self, chunk: _Chunk, landing: Landing, buffer: BatchBuffer) -> None:
        if self._spool is not None:
            self.peak_disk_bytes = max(self.peak_disk_bytes, self._spool.disk_bytes())
        landing.move_to(buffer.place(chunk.part, chunk.entry.size_bytes))

    def _buffer(self, batch: PlannedBatch) -> BatchBuffer:
        buffer = self._buffers.get(batch.position)
        if buffer is None:
            manifest = self._plan.manifest
            samples = [manifest.chunk_samples(index) for index in batch.chunks]
            buffer = self._buffers[batch.position] = BatchBuffer(manifest.schema, samples)
        return buffer

    def _on_the_way(self) -> Iterator[_Chunk]:
        for chunks in self._chunks.values():
            yield from chunks


def _position(chunk: _Chunk) -> tuple[int, int]:
    return chunk.batch.position, chunk.part
