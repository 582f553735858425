"""Several streams under one budget: whoever consumes goes on, and nothing is ever over the budget."""

import asyncio
import gc
import random

import pytest

import dnc_async as dnc
from dnc_async.spool.governor import GovernorStatistics
from dnc_async.store import BlockStore
from dnc_async.testing import Faults, ScriptedGateway

from ..conftest import PATIENCE_S, eventually
from .conftest import DiskWatch, Published, left

CHUNK = 2**20 + 32 * 2**10  # with what a file may take beyond its lease, where it is written out of order
FOLDER = 64 * 2**10


def of(client: dnc.Client) -> GovernorStatistics:
    return client._engine.runtime.governor.statistics()


@pytest.fixture
async def client(many_leaves: Published, watch: DiskWatch):
    budget = FOLDER + 6 * CHUNK
    async with (
        asyncio.timeout(PATIENCE_S),
        dnc.Client(store=many_leaves.store, spool_dir=many_leaves.spool, disk_budget=budget) as client,
    ):
        yield client
        gc.collect()
    assert watch.peak_bytes <= budget
    assert of(client).peak_leased_bytes <= budget
    assert of(client).leased_bytes == 0
    assert left(many_leaves.spool) == []


async def consume(published: Published, stream: dnc.BatchStream, start: int = 0) -> int:
    count = start
    async for batch in stream:
        published.check(batch, count % 6)
        count += 1
    return count


@pytest.mark.parametrize("streams", [2, 6])
async def test_in_turn(many_leaves: Published, client: dnc.Client, streams: int) -> None:
    """One batch of each after the other, with as many floors as fit and with room to lend."""
    opened = [client.stream(many_leaves.result) for _ in range(streams)]
    for index in range(6):
        for stream in opened:
            many_leaves.check(await anext(stream), index)
    for stream in opened:
        assert await consume(many_leaves, stream) == 0


async def test_at_once(many_leaves: Published, client: dnc.Client) -> None:
    """Each in a task of its own."""
    streams = [client.stream(many_leaves.result, epochs=2) for _ in range(4)]
    assert await asyncio.gather(*(consume(many_leaves, stream) for stream in streams)) == [12] * 4


async def test_too_many(many_leaves: Published, client: dnc.Client) -> None:
    """A stream whose floor has no place is refused, and harms none of the others."""
    streams = [client.stream(many_leaves.result) for _ in range(6)]
    for stream in streams:
        many_leaves.check(await anext(stream), 0)
    with pytest.raises(dnc.BudgetTooSmallError):
        await anext(client.stream(many_leaves.result))
    for stream in streams:
        assert await consume(many_leaves, stream, 1) == 6


async def test_opened_late_beside_one_that_is_left(many_leaves: Published, client: dnc.Client) -> None:
    """The first stream holds everything and is not consumed; the second gets its floor, and its chunks go over the disk.

    The first one, taken up again, goes on where it was: what was dropped is fetched again.
    """
    first = client.stream(many_leaves.result, epochs=3)
    many_leaves.check(await anext(first), 0)
    # Batches 1 to 3 were leased, 1 has moved to memory, and its space is leased again.
    assert eventually(lambda: of(client).leases == 8 and of(client).leased_bytes > 5 * 2**20)
    second = client.stream(many_leaves.result)
    many_leaves.check(await anext(second), 0)
    assert await asyncio.to_thread(eventually, lambda: of(client).revoked > 0)
    assert of(client).revoked == 1
    granted = of(client).leases
    assert await consume(many_leaves, second, 1) == 6
    assert of(client).leases > granted, "the second stream staged on disk"
    assert await consume(many_leaves, first, 1) == 18


async def test_called_back_before_it_has_a_file(many_leaves: Published, watch: DiskWatch) -> None:
    """A loan is called back while nothing of its chunk has come yet: there is no file to delete, and the space is free."""
    async with ScriptedGateway(BlockStore.open(many_leaves.store), Faults.parse("latency=200ms")) as gateway:
        budget = FOLDER + 4 * CHUNK
        options = {"gateways": gateway.url, "spool_dir": many_leaves.spool, "disk_budget": budget}
        async with asyncio.timeout(PATIENCE_S), dnc.Client(**options) as client:
            first = client.stream(many_leaves.result, epochs=2)
            many_leaves.check(await anext(first), 0)
            # Batches 1 and 2 were staged, 1 has moved to memory, and all space is the first stream's again, for batches 2 and 3.
            assert await asyncio.to_thread(
                eventually, lambda: of(client).leases == 6 and of(client).leased_bytes > 3 * CHUNK + FOLDER
            )
            second = client.stream(many_leaves.result)
            async with second:
                assert await asyncio.to_thread(eventually, lambda: of(client).revoked >= 1)
                assert await consume(many_leaves, second) == 6
            assert await consume(many_leaves, first, 1) == 12
    assert watch.peak_bytes <= budget


async def test_dropped_in_flight(many_leaves: Published, watch: DiskWatch) -> None:
    """Chunks that are called back while their blocks are on the wire, and while they are being written."""
    async with ScriptedGateway(BlockStore.open(many_leaves.store), Faults.parse("rate=20MB,latency=3ms")) as gateway:
        budget = FOLDER + 4 * CHUNK
        options = {"gateways": gateway.url, "spool_dir": many_leaves.spool, "disk_budget": budget}
        async with asyncio.timeout(PATIENCE_S), dnc.Client(**options) as client:
            first = client.stream(many_leaves.result, epochs=2)
            count = 0
            for pause in range(11):
                many_leaves.check(await anext(first), count % 6)
                count += 1
                await asyncio.sleep(pause * 0.004)
                async with client.stream(many_leaves.result) as late, client.stream(many_leaves.result) as later:
                    many_leaves.check(await anext(late), 0)
                    many_leaves.check(await anext(later), 0)
            assert await consume(many_leaves, first, count) == 12
            assert of(client).revoked > 5
            assert of(client).leased_bytes == 0
    assert watch.peak_bytes <= budget
    assert left(many_leaves.spool) == []


@pytest.mark.parametrize("seed", range(4))
async def test_any_coming_and_going(many_leaves: Published, client: dnc.Client, seed: int) -> None:
    """Opened, consumed, left alone and closed at random; every batch of every stream is the right one."""
    rng = random.Random(seed)
    streams: dict[dnc.BatchStream, int] = {}
    for _ in range(120):
        action = rng.choice(["open", "take", "take", "take", "take", "close"])
        if action == "open" and len(streams) < 6:
            streams[client.stream(many_leaves.result, epochs=None)] = 0
        elif action == "take" and streams:
            stream = rng.choice(list(streams))
            many_leaves.check(await anext(stream), streams[stream] % 6)
            streams[stream] += 1
        elif action == "close" and len(streams) > 2:
            stream = rng.choice(list(streams))
            del streams[stream]
            await stream.aclose()
    assert of(client).revoked
    for stream in streams:
        await stream.aclose()


async def test_on_demand_alone(published: Published) -> None:
    """With prefetch=0 a batch is fetched when it is asked for, the first one, too."""
    async with (
        asyncio.timeout(PATIENCE_S),
        ScriptedGateway(BlockStore.open(published.store), Faults.parse("latency=3ms")) as gateway,
    ):
        stream, count = dnc.stream(published.result, gateways=gateway.url, spool_dir=published.spool, prefetch=0), 0
        async for batch in stream:
            published.check(batch, count)
            count += 1
            if count == 3:
                asked = gateway.stats().requests
                await asyncio.sleep(0.1)
                assert gateway.stats().requests == asked
        assert count == 20
