"""``open``: reads in a row are fetched ahead, others are not; and nothing is left of what was."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import random
import weakref
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import dnc_async as dnc
from dnc_async.config import FetchSettings
from dnc_async.errors import ArgumentError, StreamClosedError
from dnc_async.ipld.builder import UNIXFS_V0_2015, UNIXFS_V1_2025, Profile, build_file
from dnc_async.testing import GatewayProcess

from ..conftest import eventually
from .conftest import Keep, content, threads

LEAF = 2**14
DATA = content(3 * 2**20 + 77)
PROFILE = replace(UNIXFS_V1_2025, leaf_bytes=LEAF)


@pytest.fixture
def store(keep: Keep) -> Path:
    blocks, root = build_file(DATA, PROFILE)
    return keep(blocks, root.cid)


ROOT = build_file(DATA, PROFILE)[1].cid


@pytest.mark.parametrize("size", [1000, LEAF, 100_000, 2**20, -1])
async def test_read_in_pieces_each_leaf_is_fetched_once(store: Path, size: int) -> None:
    """Whatever the pieces."""
    with GatewayProcess(store, "no-car") as gateway, io.BytesIO() as found:
        async with dnc.open(ROOT, gateways=gateway.url) as file:
            while piece := await file.read(size):
                found.write(piece)
        assert found.getvalue() == DATA
        assert gateway.stats().blocks_served == -(-len(DATA) // LEAF) + 1
    assert threads() == []


@pytest.mark.parametrize("faults", ["no-car", ""])
async def test_a_reader_of_footers_fetches_what_it_reads(store: Path, faults: str) -> None:
    """As a reader of Parquet does it: its last bytes, the footer, some column chunks. Counted in received bytes."""
    dice = random.Random(0)
    with GatewayProcess(store, faults) as gateway:
        needed = set()
        async with dnc.open(ROOT, gateways=gateway.url) as file:
            opening = gateway.stats().bytes_served

            async def read(start: int, size: int) -> None:
                await file.seek(start)
                assert await file.read(size) == DATA[start : start + size]
                needed.update(range(start // LEAF, -(-(start + size) // LEAF)))

            await read(len(DATA) - 8, 8)
            await read(len(DATA) - 5_008, 5_000)
            await read(0, 4)
            for place in dice.sample(range(8), 5):
                await read(50_000 + place * 300_000, dice.randint(1, 200_000))
            assert gateway.stats().bytes_served - opening <= (len(needed) + 2) * (LEAF + 100) + 8 * 15_000
            if faults == "no-car":  # else each CAR repeats the root; two leaves are needed by two reads
                assert gateway.stats().bytes_served - opening <= (len(needed) + 2) * LEAF


async def test_reading_on_after_a_seek_drops_what_was_ahead(store: Path) -> None:
    """After reads in a row, reads at random fetch their own leaves again."""
    with GatewayProcess(store, "no-car") as gateway:
        async with dnc.open(ROOT, gateways=gateway.url) as file:
            for _ in range(3):
                await file.read(10_000)
            for place in (2 * 2**20, 3 * 2**20 - 100, 2 * 2**20 + 500_000):
                await file.seek(place)
                assert await file.read(10) == DATA[place : place + 10]
            assert gateway.stats().blocks_served <= 2**20 // LEAF + 5 + 3


OLD = replace(UNIXFS_V0_2015, leaf_bytes=2**12, links_per_node=8)  # whose nodes of up to 2 MiB are taken for leaves


@pytest.mark.parametrize(("profile", "limit"), [(PROFILE, 2**15), (PROFILE, 2**17), (PROFILE, 2**22), (OLD, 2**22)])
async def test_any_row_of_reads_and_seeks(keep: Keep, profile: Profile, limit: int) -> None:
    """Gives what a file in memory gives, also where the limit moves all the time."""
    blocks, root = build_file(DATA, profile)
    dice, model = random.Random(limit), io.BytesIO(DATA)
    settings = FetchSettings(in_flight_bytes=limit)
    async with (
        dnc.Client(store=keep(blocks, root.cid), disk_budget=0, settings=settings) as client,
        client.open(root.cid) as file,
    ):
        for _ in range(150):
            roll = dice.random()
            if roll < 0.1:
                place = dice.randint(0, len(DATA))
            elif roll < 0.3:
                place = min(len(DATA), max(0, model.tell() + dice.randint(-30_000, 60_000)))
            else:
                place = model.tell()
            assert await file.seek(place) == model.seek(place)
            size = dice.choice([1, 100, 4096, 20_000, 300_000])
            if dice.random() < 0.5:
                assert await file.read(size) == model.read(size)
            else:
                ours, theirs = bytearray(size), bytearray(size)
                assert await file.readinto(ours) == model.readinto(theirs)
                assert ours == theirs
            assert await file.tell() == model.tell()


async def test_readinto(store: Path) -> None:
    """Fills any writable buffer, as far as there is something to read."""
    async with dnc.open(ROOT, store=store) as file:
        numbers = array("I", bytes(8000))
        assert await file.readinto(numbers) == 8000
        assert numbers.tobytes() == DATA[:8000]
        whole = bytearray(100)
        assert await file.readinto(memoryview(whole)[10:20]) == 10
        assert bytes(whole) == bytes(10) + DATA[8000:8010] + bytes(80)
        await file.seek(-5, os.SEEK_END)
        assert await file.readinto(whole) == 5
        assert whole[:5] == DATA[-5:]
        assert await file.readinto(whole) == 0
        assert await file.readinto(bytearray()) == 0
        with pytest.raises(ArgumentError, match="readinto: expected a writable buffer"):
            await file.readinto(b"abc")  # type: ignore[arg-type]


async def test_a_missing_block_ahead_stops_nobody_before_it(keep: Keep) -> None:
    """All before it is read; the read that needs it is told which it is; behind it, reading goes on."""
    blocks, root = build_file(DATA, PROFILE)
    missing = next(block for block in blocks if block.data == DATA[60 * LEAF : 61 * LEAF])
    store = keep([block for block in blocks if block is not missing], root.cid)
    async with dnc.Client(store=store, disk_budget=0) as client, client.open(root.cid) as file:
        for at in range(0, 60 * LEAF, LEAF // 2):
            assert await file.read(LEAF // 2) == DATA[at : at + LEAF // 2]
        for _ in range(2):
            with pytest.raises(dnc.ChunkUnavailableError, match=str(missing.cid)):
                await file.read(1)
            assert await file.tell() == 60 * LEAF
        await file.seek(61 * LEAF)
        assert await file.read() == DATA[61 * LEAF :]


async def test_a_cancelled_read_is_repeated(store: Path) -> None:
    """Whenever that is: its position stays, and so does what has arrived."""
    with GatewayProcess(store, "rate=1MB,no-car") as gateway:
        async with dnc.open(ROOT, gateways=gateway.url) as file:
            assert await file.read(1000) == DATA[:1000]
            for turns in range(20):
                task = asyncio.create_task(file.read(2**19))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    assert await task == DATA[1000 : 1000 + 2**19]
                    await file.seek(1000)
                assert await file.tell() == 1000
            assert await file.read(2**19) == DATA[1000 : 1000 + 2**19]
            assert gateway.stats().blocks_served <= (2**19 + 2**20) // LEAF + 4
    assert threads() == []


@pytest.mark.parametrize("owned", [True, False])
async def test_closed_while_it_reads_ahead(store: Path, owned: bool) -> None:
    """Nothing runs any more, and a read that waits is told so."""
    with GatewayProcess(store, "rate=50kB,no-car") as gateway:
        async with dnc.Client(gateways=gateway.url, disk_budget=0) as client:
            file = dnc.open(ROOT, gateways=gateway.url) if owned else client.open(ROOT)
            for _ in range(2):
                await file.read(1000)
            reading = asyncio.create_task(file.read(2**20))
            await asyncio.sleep(0)
            await file.aclose()
            with pytest.raises(StreamClosedError):
                await reading
            await file.aclose()
            with pytest.raises(StreamClosedError, match="was closed; open it again"):
                await file.readinto(bytearray(1))
            assert await client.cat(ROOT, 5, 10) == DATA[5:10]
    assert threads() == []


async def test_a_file_that_is_dropped_is_not_read_ahead(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being closed: its call in the engine ends with it."""
    from dnc_async.engine.files import remote_file  # noqa: PLC0415 - the module

    made: list[weakref.ref[object]] = []
    make: Callable[..., object] = remote_file.ReadWindow

    def remember(*given: object, **named: object) -> object:
        window = make(*given, **named)
        made.append(weakref.ref(window))
        return window

    monkeypatch.setattr(remote_file, "ReadWindow", remember)
    with GatewayProcess(store, "rate=200kB,no-car") as gateway:
        async with dnc.Client(gateways=gateway.url, disk_budget=0) as client:
            file = client.open(ROOT)
            for _ in range(2):
                await file.read(1000)
            assert [each() is not None for each in made] == [True]
            del file

            def gone() -> bool:
                gc.collect()
                return made[0]() is None

            assert await asyncio.to_thread(eventually, gone)
            assert await client.cat(ROOT, 5, 10) == DATA[5:10]


async def test_two_reads_at_once(store: Path) -> None:
    """Each reads from where it was when it began."""
    async with dnc.open(ROOT, store=store) as file:

        async def read(place: int) -> bytes:
            await file.seek(place)
            return await file.read(50_000)

        for start in range(0, 2**20, 50_000):
            ours, theirs = await asyncio.gather(read(start), read(2**21 - start))
            assert ours == DATA[start : start + 50_000]
            assert theirs == DATA[2**21 - start : 2**21 - start + 50_000]


async def test_several_files_of_a_client(store: Path) -> None:
    """Each has its own position; all are read to their ends by turns."""
    async with dnc.Client(store=store, disk_budget=0, settings=FetchSettings(in_flight_bytes=2**18)) as client:
        files = [client.open(ROOT) for _ in range(5)]
        found = [io.BytesIO() for _ in files]
        while (await asyncio.gather(*(file.tell() for file in files))) != [len(DATA)] * len(files):
            for each, piece in zip(found, await asyncio.gather(*(file.read(50_000) for file in files)), strict=True):
                each.write(piece)
        assert [each.getvalue() == DATA for each in found] == [True] * len(files)
        for file in files:
            await file.aclose()
