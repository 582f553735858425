"""The engine's parts by themselves, over a simulated gateway and a simulated disk, on a virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from dnc_async.condition import Condition
from dnc_async.dataset.manifest import Manifest
from dnc_async.dataset.plan import Plan, PlannedBatch
from dnc_async.engine.chunks import Chunk
from dnc_async.engine.credit import BandwidthDelay, Credit, CreditLimit
from dnc_async.engine.ledger import ChunkTimes
from dnc_async.engine.pace import Pace
from dnc_async.engine.pipeline import Pipeline, Surroundings
from dnc_async.engine.placement import Placement
from dnc_async.engine.progress import Progress
from dnc_async.errors import ManifestError
from dnc_async.gateways.fetcher import Fetcher
from dnc_async.gateways.group import FetchGroup
from dnc_async.spool.disk_backoff import DiskBackoff
from dnc_async.spool.files import SpoolFolder
from dnc_async.spool.governor import Account, Governor, Lease, Place
from dnc_async.testing import DatasetScript, DiskFaults, Faults
from dnc_async.testing.simulation.dataset import Published, published
from dnc_async.testing.simulation.disk import SimulatedDisk
from dnc_async.testing.simulation.gateway import SimulatedGateway
from dnc_async.testing.simulation.virtual_loop import VirtualLoop
from dnc_async.testing.simulation.workers import VirtualWorkers

from ..conftest import fetcher_over

DATA = DatasetScript(samples=20, batch_size=4, row_bytes=1000)
UNIT = 512


class Borrower:
    """Whoever has an account: notes what it is told."""

    def __init__(self) -> None:
        self.revoked_places: list[Place] = []

    def changed(self) -> None:
        """Nobody waits."""

    def revoked(self, lease: Lease) -> None:
        self.revoked_places.append(lease.place)

    def due(self, place: Place) -> float:
        return float(place[0])


@dataclass
class Mailbox:
    """Takes one batch after the other, and tells the pipeline so, ``taken_s`` after it was put."""

    batches: list[Any] = field(default_factory=list)
    pipeline: Pipeline | None = None
    taken_s: float = 0.01
    is_awaited: bool = True
    consumers: list[asyncio.Future[None]] = field(default_factory=list)
    capacity: int = 1
    taken: int = 0
    #: The most batches that were in it at once.
    most: int = 0

    def put(self, batch: object, *, samples: int, chunks: tuple[ChunkTimes, ...], transformed: float = 0.0) -> None:
        assert samples == len(batch["y"])  # type: ignore[index]  # a dict of columns
        assert all(chunk.placed for chunk in chunks)
        self.batches.append(batch)
        self.most = max(self.most, len(self.batches) - self.taken)
        self.consumers.append(asyncio.ensure_future(self._consume()))

    def wake(self) -> None:
        """Nobody waits."""

    async def _consume(self) -> None:
        await asyncio.sleep(self.taken_s)
        self.taken += 1
        assert self.pipeline is not None
        self.pipeline.taken(asyncio.get_running_loop().time())
        self.pipeline.wanted()

    def finish(self, error: Exception | None) -> None:
        """Never called by a pipeline."""


@dataclass
class Parts:
    """One of each; ``chunk(n)`` is the n-th chunk of the dataset."""

    loop: VirtualLoop
    data: Published
    manifest: Manifest
    disk: SimulatedDisk
    spool: SpoolFolder | None
    governor: Governor
    backoff: DiskBackoff
    fetcher: Fetcher
    group: FetchGroup
    progress: Progress
    credit: Credit
    limit: CreditLimit
    tasks: TaskGroup

    @property
    def cost(self) -> int:
        """What a lease of the largest chunk holds."""
        assert self.spool is not None
        return self.spool.cost(self.manifest.largest_chunk_bytes)

    @property
    def plan(self) -> Plan:
        return Plan(manifest=self.manifest)

    def chunk(self, number: int) -> Chunk:
        batches = list(self.plan.batches())
        entry = list(self.manifest.entries(0, self.manifest.first_page))[number]
        batch = next(batch for batch in batches if number in batch.chunks)
        chunk = Chunk(batch, number - batch.chunks[0], entry)
        chunk.leaves, chunk.proved = entry.leaves(), True
        return chunk

    def batch(self, position: int) -> PlannedBatch:
        return list(self.plan.batches())[position]

    def placement(self, account: Account) -> Placement:
        return Placement(
            plan=self.plan,
            account=account,
            spool=self.spool,
            disk=self.backoff,
            progress=self.progress,
            change=Condition(),
            group=self.group,
            credit=self.credit,
        )

    def pipeline(self, mailbox: Mailbox, tasks: TaskGroup) -> Pipeline:
        floor = self.cost if self.spool is not None else 0
        mailbox.pipeline = Pipeline(
            root=str(self.data.root),
            plan=self.plan,
            tasks=tasks,
            around=Surroundings(
                group=self.group,
                spool=self.spool,
                disk=self.backoff,
                mailbox=mailbox,
                clock=self.loop.time,
                thread_clock=lambda: 0.0,
                window=lambda: BandwidthDelay.of(self.fetcher.scores),
                measured=self.fetcher.measured,
                credit=self.limit,
            ),
            open_account=lambda borrower: self.governor.open(floor_bytes=floor, borrower=borrower),
            prefetch=None,
            transforms=None,
        )
        return mailbox.pipeline

    def nothing_is_left(self) -> None:
        """No lease, no file, no wanted block, no stream."""
        assert self.governor.statistics().leased_bytes == 0
        assert self.governor.statistics().accounts == 0
        assert repr(self.group).endswith("0 blocks wanted>")
        if self.spool is not None:
            self.spool.close()
        assert self.disk.is_empty
        assert self.limit.used_bytes == 0


@asynccontextmanager
async def parts(
    *, gateway: str = "latency=20ms", disk: str = "", leases: int = 4, data: DatasetScript = DATA, spool: bool = True
) -> AsyncIterator[Parts]:
    """Everything that a stream needs, with a budget of so many chunks."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    made, dice = _published(data), random.Random(0)
    simulated_disk = SimulatedDisk(DiskFaults.parse(disk), unit_bytes=UNIT, clock=lambda: loop.time() - 1000.0)
    workers = VirtualWorkers(loop, 2, dice=dice, busy_s=simulated_disk.busy_s)
    transport = SimulatedGateway(
        "http://gateway", Faults.parse(gateway), made.blocks, seed="0", clock=loop.time, stall_timeout_s=5.0
    )
    fetcher = fetcher_over([transport], workers, clock=loop.time, attempts=6, requests_per_gateway=8)
    folder = SpoolFolder(Path("/spool"), simulated_disk) if spool else None
    manifest = _manifest(made)
    budget = leases * folder.cost(manifest.largest_chunk_bytes) if folder is not None else 0
    progress = Progress(prefetch=None, places=0)
    limit = CreditLimit(2**20)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fetcher.run)
        group = fetcher.open()
        yield Parts(
            loop=loop,
            data=made,
            manifest=manifest,
            disk=simulated_disk,
            spool=folder,
            governor=Governor(budget_bytes=budget, overhead_bytes=0, max_leases=100),
            backoff=DiskBackoff(clock=loop.time, retry_s=0.5, longest_retry_s=4.0),
            fetcher=fetcher,
            group=group,
            progress=progress,
            credit=Credit(limit, pace=Pace(loop.time), progress=progress, window=BandwidthDelay, clock=loop.time),
            limit=limit,
            tasks=tasks,
        )
        with anyio.CancelScope(shield=True):
            await group.aclose()
        tasks.cancel_scope.cancel()


_made: dict[DatasetScript, Published] = {}


def prepare(data: DatasetScript = DATA) -> None:
    """Publish a dataset, which cannot be done within a running loop."""
    _made[data] = published(data)


def _published(data: DatasetScript) -> Published:
    return _made[data]


def _manifest(made: Published) -> Manifest:
    for data in made.blocks.values():
        try:
            return Manifest.decode(data)
        except ManifestError:
            continue
    raise AssertionError


def run(function: Callable[[], Awaitable[None]], *, data: DatasetScript = DATA) -> None:
    """Run a test's coroutine on a virtual clock."""
    prepare(data)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(_awaited(function))


async def _awaited(function: Callable[[], Awaitable[None]]) -> None:
    await function()


def cancelled_at_each_turn(
    work: Callable[[Parts], Awaitable[object]], check: Callable[[Parts], object], **options: Any
) -> int:
    """Run ``work`` again and again, cancelled one turn of the loop later each time, until it is over before; gives how often."""
    prepare(options.get("data", DATA))
    for turn in range(1, 2000):
        finished: list[bool] = []

        async def once(turn: int = turn, finished: list[bool] = finished) -> None:
            async with parts(**options) as all_parts:
                task = asyncio.ensure_future(work(all_parts))
                all_parts.loop.at_turn(all_parts.loop.turns + turn, task.cancel)
                await asyncio.wait([task])
                finished.append(not task.cancelled())
                if not task.cancelled():
                    task.result()
                check(all_parts)
                all_parts.nothing_is_left()

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(once())
        if finished == [True]:
            return turn
    raise AssertionError("it never ends")
