"""A chunk in a stream: what it is, where it is, and which of its blocks are missing."""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field

from dnc_async.dataset.page import ChunkEntry
from dnc_async.dataset.plan import PlannedBatch
from dnc_async.engine.ledger import ChunkTimes
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
