"""Each fault as a client meets it, over real sockets."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from dnc_async.errors import BlockMismatchError
from dnc_async.ipld.block import verify
from dnc_async.ipld.car import CarReader
from dnc_async.testing import Faults, GatewayStats, ScriptedGateway

from ..conftest import PATIENCE_S


async def raw(session: aiohttp.ClientSession, gateway: ScriptedGateway, cid: object) -> bytes:
    async with session.get(f"{gateway.url}/ipfs/{cid}?format=raw") as response:
        response.raise_for_status()
        return await response.read()


async def status(session: aiohttp.ClientSession, gateway: ScriptedGateway, path: str) -> int:
    async with session.get(f"{gateway.url}/ipfs/{path}") as response:
        return response.status


async def test_without_faults_it_is_a_gateway(published: Any, session: aiohttp.ClientSession) -> None:
    async with ScriptedGateway(published.store) as gateway:
        async with session.get(f"{gateway.url}/ipfs/{published.root}?format=car") as response:
            reader = CarReader()
            assert len(reader.feed(await response.read())) == 17
        async with session.get(f"{gateway.url}/_scripted/stats") as response:
            stats = GatewayStats(**await response.json())
        assert stats == gateway.stats()
        assert (stats.requests, stats.blocks_served, stats.blocks_flipped, stats.peak_connections) == (1, 17, 0, 1)
        assert stats.bytes_served > 2**20
        assert "without faults" in repr(gateway)
    with pytest.raises(RuntimeError, match="was not started"):
        _ = ScriptedGateway(published.store).url


@pytest.mark.parametrize("connections", [1, 4])
async def test_the_rate_is_that_of_the_line(connections: int, published: Any, session: aiohttp.ClientSession) -> None:
    async with ScriptedGateway(published.store, Faults(rate=2.5e6)) as gateway:
        waiting = list(published.leaves)

        async def work() -> None:
            while waiting:
                await raw(session, gateway, waiting.pop().cid)

        started = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(connections)))
        took = time.perf_counter() - started
        expected = (2**20 - 2 * 2**14) / 2.5e6
        assert took > expected * 0.99  # 0.406 s; a machine that is busy takes longer
        assert gateway.stats().peak_connections == connections


async def test_many_connections_share_the_line_piece_by_piece(published: Any, session: aiohttp.ClientSession) -> None:
    async with ScriptedGateway(published.store, "rate=8MB") as gateway:
        arrived = [0, 0, 0]
        when_first_ended: list[int] = []

        async def get(number: int) -> None:
            async with session.get(f"{gateway.url}/ipfs/{published.root}?format=car") as response:
                async for piece in response.content.iter_any():
                    arrived[number] += len(piece)
            when_first_ended.extend(arrived if not when_first_ended else ())

        await asyncio.gather(*(get(number) for number in range(3)))
        # One after the other, the last would have had nothing when the first had all.
        assert min(when_first_ended) > 0.75 * 2**20


async def test_latency_is_waited_for_together(published: Any, session: aiohttp.ClientSession) -> None:
    async with ScriptedGateway(published.store, "latency=100ms") as gateway:
        started = time.perf_counter()
        await asyncio.gather(*(raw(session, gateway, leaf.cid) for leaf in published.leaves))
        took = time.perf_counter() - started
        assert took >= 0.1
        assert gateway.stats().peak_connections == len(published.leaves)


async def test_jitter_comes_from_the_seed(
    published: Any, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def counted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    async def times() -> list[float]:
        pauses.clear()
        async with ScriptedGateway(published.store, "latency=20ms,jitter=20ms,seed=3") as gateway:
            for leaf in published.leaves[:6]:
                await raw(session, gateway, leaf.cid)
        return list(pauses)

    monkeypatch.setattr(asyncio, "sleep", counted)
    first, second = await times(), await times()
    assert first == second
    assert len(first) >= 6
    assert max(first) - min(first) > 0.01


async def test_every_nth_block_is_flipped_and_the_store_is_not(published: Any, session: aiohttp.ClientSession) -> None:
    async def bodies() -> list[bytes]:
        async with ScriptedGateway(published.store, "flip=3,seed=5") as gateway:
            found = [await raw(session, gateway, leaf.cid) for leaf in published.leaves]
            assert gateway.stats().blocks_flipped == 5
            return found

    first = await bodies()
    for number, (leaf, body) in enumerate(zip(published.leaves, first, strict=True), start=1):
        assert (body == leaf.data) is (number % 3 != 0)
        assert len(body) == len(leaf.data)
        turned = [one ^ other for one, other in zip(body, leaf.data, strict=True) if one != other]
        assert [value.bit_count() for value in turned] == ([] if number % 3 else [1])
        assert published.store.get(leaf.cid) == leaf
    assert await bodies() == first


async def test_flips_reach_cars_too(published: Any, session: aiohttp.ClientSession) -> None:
    async with (
        ScriptedGateway(published.store, "flip=10") as gateway,
        session.get(f"{gateway.url}/ipfs/{published.root}?format=car") as response,
    ):
        reader = CarReader()
        assert len(reader.feed(await response.read())) == 9
        with pytest.raises(BlockMismatchError):
            reader.close()


async def test_another_block_is_whole_and_wrong(published: Any, session: aiohttp.ClientSession) -> None:
    async with ScriptedGateway(published.store, "other=2") as gateway:
        first, second, third = published.leaves[:3]
        assert await raw(session, gateway, first.cid) == first.data
        assert await raw(session, gateway, second.cid) == first.data
        assert await raw(session, gateway, third.cid) == third.data
        with pytest.raises(BlockMismatchError):
            verify(third.cid, await raw(session, gateway, third.cid))


@pytest.mark.parametrize("form", ["raw", "car"])
async def test_a_body_is_cut_at_its_byte(
    form: str, published: Any, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    cid = published.leaves[0].cid if form == "raw" else published.root
    async with ScriptedGateway(published.store, "cut=50kB") as gateway:
        async with session.get(f"{gateway.url}/ipfs/{cid}?format={form}") as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        assert gateway.stats().bytes_served == 50_000
        assert len(await raw(session, gateway, published.root)) < 50_000
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_body_stalls_at_its_byte_with_its_connection_open(
    published: Any, session: aiohttp.ClientSession
) -> None:
    # To the end: leaving does not wait for stalled bodies, which never end.
    async with (
        asyncio.timeout(PATIENCE_S),
        ScriptedGateway(published.store, "stall=30kB") as gateway,
        session.get(f"{gateway.url}/ipfs/{published.leaves[0].cid}?format=raw") as response,
    ):
        assert len(await response.content.readexactly(30_000)) == 30_000
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await response.content.readany()


async def test_silence_ends_and_the_body_goes_on(published: Any, session: aiohttp.ClientSession) -> None:
    started = time.perf_counter()
    async with ScriptedGateway(published.store, "silent=0s-0.4s") as gateway:
        async with session.get(f"{gateway.url}/ipfs/{published.leaves[0].cid}?format=raw") as response:
            assert await response.read() == published.leaves[0].data
        assert time.perf_counter() - started > 0.399


async def test_a_trickle_never_stops_and_never_ends(published: Any, session: aiohttp.ClientSession) -> None:
    async with ScriptedGateway(published.store, "trickle=2kB") as gateway:
        started = time.perf_counter()
        async with session.get(f"{gateway.url}/ipfs/{published.leaves[0].cid}?format=raw") as response:
            await response.content.readexactly(1000)
        assert time.perf_counter() - started > 0.499


async def test_a_busy_gateway_says_when_to_come_back(
    published: Any, session: aiohttp.ClientSession, leap: Callable[[float], None]
) -> None:
    path = f"{published.root}?format=raw"
    async with ScriptedGateway(published.store, "busy=600s,retry-after=1.2s") as gateway:
        async with session.get(f"{gateway.url}/ipfs/{path}") as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "2")
        leap(600)
        assert await status(session, gateway, path) == 200
        assert gateway.stats().answered_busy == 1


async def refuses(session: aiohttp.ClientSession, gateway: ScriptedGateway, cid: object) -> bool:
    try:
        await session.head(f"{gateway.url}/ipfs/{cid}?format=raw")
    except aiohttp.ClientError as error:
        return isinstance(error, aiohttp.ClientConnectorError)
    return False


async def test_a_gateway_dies_and_returns_on_its_port(published: Any, leap: Callable[[float], None]) -> None:
    async with aiohttp.ClientSession() as session, ScriptedGateway(
        published.store, "down=100s-200s,stall=1kB"
    ) as gateway:  # fmt: skip
        url = f"{gateway.url}/ipfs/{published.leaves[0].cid}?format=raw"
        async with session.get(url) as response:
            await response.content.readexactly(1000)
            leap(100)
            with pytest.raises(aiohttp.ClientError):  # the connection is reset when it dies
                await response.content.readany()
        while not await refuses(session, gateway, published.root):
            pass
        leap(100)
        while await refuses(session, gateway, published.root):
            pass
        assert await status(session, gateway, f"{published.root}?format=raw") == 200


async def test_a_gateway_may_never_return(published: Any, session: aiohttp.ClientSession) -> None:
    async with ScriptedGateway(published.store, "down=0s-") as gateway:
        assert gateway._outage is not None
        await gateway._outage
        assert await refuses(session, gateway, published.root)


async def test_a_web_page_comes_with_status_200(published: Any, session: aiohttp.ClientSession) -> None:
    async with ScriptedGateway(published.store, "html=2") as gateway:
        for number in range(1, 5):
            async with session.get(f"{gateway.url}/ipfs/{published.root}?format=raw") as response:
                kind = "text/html" if number % 2 == 0 else "application/vnd.ipld.raw"
                assert (response.status, response.content_type) == (200, kind)
        assert gateway.stats().answered_html == 2


async def test_entity_bytes_can_be_ignored(published: Any, session: aiohttp.ClientSession) -> None:
    async with ScriptedGateway(published.store, "ignore-entity-bytes") as gateway:
        query = "format=car&dag-scope=entity&entity-bytes=0:10"
        async with session.get(f"{gateway.url}/ipfs/{published.root}?{query}") as response:
            assert len(CarReader().feed(await response.read())) == 17


async def test_cars_can_be_refused(published: Any, session: aiohttp.ClientSession) -> None:
    async with ScriptedGateway(published.store, "no-car") as gateway:
        assert await status(session, gateway, f"{published.root}?format=car") == 406
        assert await status(session, gateway, f"{published.root}?format=raw") == 200
