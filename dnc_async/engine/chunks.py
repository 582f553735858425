"""The chunks of a stream: what each is, where it is, which of its blocks are missing; and the queues of those on the way."""

from __future__ import annotations

import asyncio
import enum
import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from dnc_async.condition import Condition
from dnc_async.dataset.page import ChunkEntry
from dnc_async.dataset.plan import PlannedBatch
from dnc_async.engine.ledger import ChunkTimes
from dnc_async.engine.progress import Progress
from dnc_async.engine.sink import Sink
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.plan import Leaf


class State(enum.Enum):
    """Where a chunk is: without space, in a file, being moved to memory or dropped, or in its rows in memory."""

    PLANNED = enum.auto()
    STAGED = enum.auto()
    PROMOTING = enum.auto()
    EVICTING = enum.auto()
    PLACED = enum.auto()


@dataclass(slots=True, eq=False)
class Chunk:
    """One chunk of a stream."""

    batch: PlannedBatch
    part: int
    entry: ChunkEntry
    state: State = State.PLANNED
    proved: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    leaves: tuple[Leaf, ...] = ()
    wants: dict[BlockWant, None] = field(default_factory=dict)
    missing: int = 0
    sink: Sink | None = None
    error: Exception | None = None
    times: ChunkTimes = field(default_factory=ChunkTimes)

    @property
    def place(self) -> tuple[int, int]:
        """Its place in the plan."""
        return self.batch.position, self.part

    @property
    def is_last(self) -> bool:
        """Whether its batch is complete with it."""
        return self.part == len(self.batch.chunks) - 1

    def look_if_ready(self) -> None:
        """Mark it as ready if all of it is in its rows, or it has failed."""
        if self.error is not None or (self.state is State.PLACED and not self.missing):
            self.ready.set()


class ChunkQueues:
    """The chunks of a stream between the plan and the consumer: those of each batch, and those that wait for the next stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        #: By the position of their batch, from the one that the consumer has.
        self.by_batch: dict[int, list[Chunk]] = {}
        #: In the plan's order, from the first that is not complete in its rows.
        self.to_assemble: deque[Chunk] = deque()
        #: Whether the plan has ended: no chunk is added any more.
        self.is_planned = False
        #: Notified when a chunk was added, or the plan has ended.
        self.added = Condition()
        #: Notified when fewer chunks wait for space, or to be assembled.
        self.removed = Condition()
        #: Notified when a batch was taken, completed or transformed.
        self.progressed = Condition()
        self._to_grant: list[tuple[tuple[int, int], Chunk]] = []

    def __repr__(self) -> str:
        return f"<ChunkQueues {len(self.to_assemble)} to assemble, {self.ungranted} of them without space>"

    def __iter__(self) -> Iterator[Chunk]:
        for chunks in self.by_batch.values():
            yield from chunks

    @property
    def ungranted(self) -> int:
        """How many chunks have no space."""
        return len(self._to_grant)

    def add(self, chunk: Chunk) -> None:
        """Add the next chunk of the plan, which has no space yet; :meth:`told` tells the other stages."""
        self.by_batch.setdefault(chunk.batch.position, []).append(chunk)
        self.enqueue(chunk)

    def told(self, chunk: Chunk) -> None:
        """Tell the other stages of an added chunk."""
        self.to_assemble.append(chunk)
        self.added.notify_all()

    def end(self) -> None:
        """The plan has ended."""
        self.is_planned = True
        self.added.notify_all()

    def enqueue(self, chunk: Chunk) -> None:
        """Queue a chunk that has no space, or none any more."""
        heapq.heappush(self._to_grant, (chunk.place, chunk))

    def next_to_grant(self) -> Chunk | None:
        """Take the first chunk without space, in the plan's order, if there is one."""
        return heapq.heappop(self._to_grant)[1] if self._to_grant else None

    async def until_taken(self, batches: int) -> None:
        """Wait until this many batches were handed over: then the place in memory is free for the next one."""
        await self.progressed.until(lambda: self._progress.taken >= batches)

    async def next_to_assemble(self) -> Chunk | None:
        """Take the first chunk to assemble when it is ready; ``None`` at the end of the plan."""
        if not self.to_assemble:
            await self.added.until(lambda: self.to_assemble or self.is_planned)
        if not self.to_assemble:
            return None
        chunk = self.to_assemble.popleft()
        self.removed.notify_all()
        if not chunk.ready.is_set():
            await chunk.ready.wait()
        return chunk
