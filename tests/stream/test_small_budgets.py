"""The budget is a hard limit, looked at after every single write: at its smallest, with faults, hedges and retries."""

import asyncio
import contextlib

import pytest

import dnc_async as dnc
from dnc_async.config import FetchSettings
from dnc_async.dataset.plan import PlannedBatch
from dnc_async.engine.transform import Job, Transforms
from dnc_async.store import BlockStore
from dnc_async.telemetry import BlockReceived, Event, Gap
from dnc_async.testing import Faults, ScriptedGateway

from ..conftest import until
from .conftest import BATCH, DiskWatch, Published, left

FAULTS = ["latency=1ms", "flip=9,latency=2ms", "straggle=20,rate=50MB", "html=20"]


async def smallest(published: Published) -> int:
    """What the library says is the smallest budget that works."""
    with pytest.raises(dnc.BudgetTooSmallError) as caught:
        async for _ in dnc.stream(published.result, store=published.store, spool_dir=published.spool, disk_budget=1):
            pass
    return caught.value.smallest_bytes


@pytest.mark.parametrize("batches", ["one chunk", 1, 1.5, 2, 0])
async def test_one_stream_with_faults(many_leaves: Published, watch: DiskWatch, batches: float | str) -> None:
    """A sound gateway beside three that lie, straggle and fail: every batch is right, no write was beyond the budget."""
    budget = await smallest(many_leaves) if isinstance(batches, str) else int(batches * 2**21)
    store, count = BlockStore.open(many_leaves.store), 0
    async with contextlib.AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(ScriptedGateway(store, Faults.parse(faults))) for faults in FAULTS]
        client = dnc.Client(
            gateways=[gateway.url for gateway in gateways],
            disk_budget=budget,
            spool_dir=many_leaves.spool,
            settings=FetchSettings(hedge_share=1.0),
        )
        stream = (await stack.enter_async_context(client)).stream(many_leaves.result, epochs=None)
        async for batch in stream:
            many_leaves.check(batch, count % 6)
            count += 1
            await until(lambda count=count: not budget or watch.writes >= min(count, 10))
            await asyncio.sleep(0.01)  # the step
            if count >= 12 and stream.statistics().blocks_rejected:
                break
    statistics = stream.statistics()
    assert watch.peak_bytes <= budget
    assert statistics.peak_leased_bytes <= budget
    assert watch.writes >= 10 if budget else not watch.writes, "it went over the disk, unless that was forbidden"
    assert left(many_leaves.spool) == []


@pytest.mark.parametrize("chunks", [1, 2, 5, 17])
async def test_one_block_to_a_chunk(published: Published, watch: DiskWatch, chunks: int) -> None:
    """Chunks of 6 kB, and a budget for a few of them."""
    one = await smallest(published)
    budget = one + (chunks - 1) * (one - 64 * 2**10)
    count = 0
    async for batch in dnc.stream(
        published.result, store=published.store, spool_dir=published.spool, disk_budget=budget
    ):
        published.check(batch, count)
        count += 1
        await until(lambda: watch.writes)
    assert count * BATCH == len(published.y)
    assert 0 < watch.peak_bytes <= budget
    assert watch.peak_files <= chunks + 1


class Arrived:
    """What has come and was verified, and what the consumer has got: the difference is here."""

    def __init__(self, batch_bytes: int) -> None:
        self._batch_bytes = batch_bytes
        self.bytes = self.taken = self.most_bytes = 0

    def __call__(self, event: Event) -> None:
        self.taken += isinstance(event, Gap)
        self.bytes += event.size_bytes if isinstance(event, BlockReceived) else 0
        self.most_bytes = max(self.most_bytes, self.bytes - self.taken * self._batch_bytes)


@pytest.mark.parametrize("batches", [0, "one chunk", 1])
async def test_asked_ahead_of_its_room(many_leaves: Published, watch: DiskWatch, batches: float | str) -> None:
    """Two gateways that are far away: chunks are asked for before they have room, and no more of them than is bounded.

    The consumer stands still now and then, so that they come before they have it: no batch is lost, or another's.
    """
    budget = await smallest(many_leaves) if isinstance(batches, str) else int(batches * (2**21 + 2**17))
    store, count, arrived = BlockStore.open(many_leaves.store), 0, Arrived(2**21)
    async with contextlib.AsyncExitStack() as stack:
        far = Faults.parse("latency=60ms,rate=20MB")
        gateways = [await stack.enter_async_context(ScriptedGateway(store, far)) for _ in range(2)]
        client = dnc.Client(
            gateways=[gateway.url for gateway in gateways], disk_budget=budget, spool_dir=many_leaves.spool
        )
        stream = (await stack.enter_async_context(client)).stream(many_leaves.result, epochs=None, progress=arrived)
        async for batch in stream:
            many_leaves.check(batch, count % 6)
            count += 1
            await asyncio.sleep(0.3 if count % 6 == 2 else 0.02)  # the step
            if count >= 18 and stream.statistics().peak_ahead_bytes:
                break
        await stream.aclose()
        assert client._engine.runtime.credit.used_bytes == 0
    ahead = stream.statistics().peak_ahead_bytes  # a window, as it was measured at its largest, and a chunk
    assert ahead <= FetchSettings().in_flight_bytes // 2
    report = stream.report()
    # Proofs, what came twice, and what CARs brought before it was wanted.
    others = report.fetched_bytes - report.useful_bytes + FetchSettings().early_bytes
    assert arrived.most_bytes <= 2**21 + budget + ahead + others, "in the next batch's rows, on the disk, and on credit"
    assert watch.peak_bytes <= budget


async def test_nothing_is_asked_ahead_of_what_was_allowed(many_leaves: Published) -> None:
    """``prefetch=0``: the batch that the consumer waits for, and no other, which has its rows then."""
    store = BlockStore.open(many_leaves.store)
    async with ScriptedGateway(store, Faults.parse("latency=30ms")) as gateway:
        stream = dnc.stream(
            many_leaves.result, gateways=gateway.url, disk_budget=0, spool_dir=many_leaves.spool, prefetch=0
        )
        async with stream:
            async for _ in stream:
                await asyncio.sleep(0.02)
    assert stream.statistics().peak_ahead_bytes == 0


async def test_a_call_begins_when_its_batch_has_its_place(
    many_leaves: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that came on credit waits for that: no time of the transform's."""
    store, started, count = BlockStore.open(many_leaves.store), list[int](), 0
    start = Transforms.start

    async def noted(self: Transforms, planned: PlannedBatch, batch: object) -> Job:
        started.append(planned.position)
        return await start(self, planned, batch)

    monkeypatch.setattr(Transforms, "start", noted)
    async with ScriptedGateway(store, Faults.parse("latency=60ms")) as gateway:
        stream = dnc.stream(
            many_leaves.result,
            gateways=gateway.url,
            disk_budget=0,
            spool_dir=many_leaves.spool,
            transform=lambda batch: batch["y"],
            epochs=None,
        )
        async with stream:
            async for _ in stream:
                count += 1
                await asyncio.sleep(0.2)  # the step
                assert started[-1] <= count  # the next one, and none after it
                if count >= 6 and stream.statistics().peak_ahead_bytes:
                    break
    assert started == list(range(len(started)))
