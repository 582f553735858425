"""Blocks that come in CARs: fewer requests, the same bytes, whatever the gateway makes of such requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from aiohttp import web

import dnc_async as dnc
from dnc_async.config import FetchSettings
from dnc_async.dataset.manifest import Manifest
from dnc_async.ipld.cid import Cid
from dnc_async.publish import packing
from dnc_async.serve import GatewayServer
from dnc_async.store import BlockStore
from dnc_async.telemetry import BlockReceived, Event, RequestSent, StreamStatistics
from dnc_async.testing import ScriptedGateway

from ..conftest import Held
from .conftest import BATCH, SAMPLES, Published


async def streamed(
    published: Published, gateways: list[str | dnc.Gateway], budget: str = "4 MB", settings: FetchSettings | None = None
) -> StreamStatistics:
    """Stream all of it, each batch checked; returns what that took."""
    async with dnc.Client(
        gateways=gateways, disk_budget=budget, spool_dir=published.spool, settings=settings
    ) as client:
        stream, count = client.stream(published.result), 0
        async for batch in stream:
            published.check(batch, count)
            count += 1
        assert count == SAMPLES // BATCH
        return stream.statistics()


def scarce(gateway: ScriptedGateway) -> dnc.Gateway:
    return dnc.Gateway(gateway.url, requests_per_minute=200)


async def test_a_scarce_gateway_sends_small_chunks_together(published: Published) -> None:
    """Where requests are rationed, one brings the manifest and one all that lies in the chunks' directory."""
    async with ScriptedGateway(BlockStore.open(published.store)) as gateway:
        figures = await streamed(published, [scarce(gateway)])
        assert gateway.stats().requests <= 8  # of 43 blocks
        assert figures.fetched_bytes == pytest.approx(published.result.size_bytes, rel=0.2)


async def test_tiny_chunks_come_with_their_directory(tmp_path: Path) -> None:
    """From any gateway: a request for each would cost more than all of them together, and nothing comes twice."""
    x = np.random.default_rng(3).integers(0, 255, (3000, 10), dtype=np.uint8)
    result = await dnc.upload({"x": x}, batch_size=20, store=tmp_path / "store")
    async with ScriptedGateway(BlockStore.open(tmp_path / "store")) as gateway:
        async with dnc.stream(
            result, gateways=[gateway.url], disk_budget="1 MB", spool_dir=tmp_path / "spool"
        ) as stream:
            rows = [batch["x"] async for batch in stream]
            figures = stream.statistics()
        assert (np.concatenate(rows) == x).all()
        assert gateway.stats().requests <= 20  # of 300 chunks in five directories
    assert figures.verified_bytes <= 1.5 * result.size_bytes
    assert figures.peak_disk_bytes == 0


async def test_a_held_car_goes_on_when_there_is_room(published: Published) -> None:
    """A directory larger than what may be kept is still one request: it is read as fast as it is wanted, not faster."""
    settings = FetchSettings(early_bytes=20_000)
    smallest = 2 * 8192 + 64 * 2**10 + 4 * 4096
    async with ScriptedGateway(BlockStore.open(published.store)) as gateway:
        figures = await streamed(published, [scarce(gateway)], str(smallest), settings)
        assert gateway.stats().requests <= 10
    assert figures.requests_failed == 0


async def test_a_car_is_held_for_a_while_only(published: Published) -> None:
    """A consumer that takes its time costs a request more, and loses nothing."""
    settings = FetchSettings(early_bytes=20_000, hold_s=0.02)
    async with ScriptedGateway(BlockStore.open(published.store)) as gateway:
        gateways = [dnc.Gateway(gateway.url, requests_per_minute=60_000)]
        figures = await streamed(published, gateways, "100 kB", settings)
    assert figures.requests_failed == 0


@pytest.mark.parametrize(
    "fault", ["no-car", "html=2", "cut=50kB", "flip=9", "other=9", "ignore-entity-bytes", "busy=600s"]
)
@pytest.mark.parametrize("is_scarce", [False, True], ids=["free", "scarce"])
async def test_whatever_becomes_of_cars(published: Published, fault: str, *, is_scarce: bool) -> None:
    """A gateway that has none, cuts them off, lies in them or sends something else costs time, beside a good one."""
    store = BlockStore.open(published.store)
    async with ScriptedGateway(store, fault) as bad, ScriptedGateway(store, "latency=2ms") as good:
        gateways = [scarce(bad) if is_scarce else bad.url, good.url]
        figures = await streamed(published, gateways)
    if fault == "no-car":
        assert figures.requests_failed == 0  # not knowing CARs is no failure
    if fault in ("cut=50kB", "ignore-entity-bytes"):
        assert figures.blocks_rejected == 0  # nor is it a lie


async def test_a_gateway_without_cars_is_asked_for_one_once(published: Published) -> None:
    """It is remembered."""
    async with ScriptedGateway(BlockStore.open(published.store), "no-car") as gateway:
        figures = await streamed(published, [gateway.url])
        assert gateway.stats().requests == figures.gateways[0].blocks + 2  # that, and whether it holds the root


async def test_a_gateway_that_knows_the_root_alone(published: Published) -> None:
    """Many providers announce nothing but roots: such a gateway is asked for all it has by paths from the root."""
    async with ScriptedGateway(BlockStore.open(published.store), "cold,latency=5ms") as cold:
        figures = await streamed(published, [cold.url])
        assert figures.batches == SAMPLES // BATCH
        async with dnc.Client(gateways=cold.url, disk_budget=0) as client:
            assert await client.cat(f"{published.result.cid}/manifest", 0, 8)


async def test_two_streams_share_what_comes(published: Published) -> None:
    """A block that comes counts for whoever wants it."""
    (manifest,) = (
        entry.cid for entry in await dnc.ls(published.result, store=published.store) if entry.name == "manifest"
    )
    chunks, came = Held(holds_chunks(published.result.cid, manifest)), list[Event]()
    async with (
        GatewayServer(BlockStore.open(published.store), hooks=chunks) as gateway,
        dnc.Client(
            gateways=gateway.url, disk_budget="8 MB", spool_dir=published.spool, observers=[came.append]
        ) as client,
    ):
        first, second = client.stream(published.result), client.stream(published.result)
        async with first, second:
            chunks.released.set()
            for index in range(SAMPLES // BATCH):
                published.check(await anext(first), index)
                published.check(await anext(second), index)
    assert sum(isinstance(event, BlockReceived) for event in came) < 1.2 * 2 * SAMPLES // BATCH


def holds_chunks(root: str, manifest: str) -> Callable[[web.Request], bool]:
    """Chooses the requests for anything but a dataset's root and manifest."""
    return lambda request: request.path.rpartition("/")[2] not in (root, manifest, "manifest", "bafkqaaa")


async def test_a_dataset_that_is_opened_again(published: Published) -> None:
    """Its manifest is known: the second stream asks for chunks alone."""
    asked = list[str]()

    def note(event: Event) -> None:
        if isinstance(event, RequestSent):
            asked.append(event.asked)

    async with (
        ScriptedGateway(BlockStore.open(published.store)) as gateway,
        dnc.Client(gateways=gateway.url, disk_budget=0, observers=[note]) as client,
    ):
        for _ in range(2):
            async with client.stream(published.result) as stream:
                published.check(await anext(stream), 0)
    assert sum("manifest" in each for each in asked) == 1


async def test_names_of_chunks(published: Published) -> None:
    """The path by which a chunk is named from the root is where the packer put it."""
    root = published.result.cid
    async with (
        ScriptedGateway(BlockStore.open(published.store)) as gateway,
        dnc.Client(gateways=gateway.url, disk_budget=0) as client,
    ):
        manifest = Manifest.decode(await client.cat(f"{root}/manifest"))
        for entry in manifest.entries(0, manifest.first_page):
            folder, _, name = manifest.chunk_path(entry.index).rpartition("/")
            found = {each.name: each.cid for each in await client.ls(f"{root}/{folder}")}
            assert Cid.parse(found[name]) == entry.cid


@pytest.mark.parametrize("kind", ["one block", "two leaves", "a root and two leaves"])
@pytest.mark.parametrize(("budget", "prefetch", "chunks"), [("10 MB", "auto", 4), (0, "auto", 4), (0, 0, 2)])
async def test_the_first_two_batches_have_the_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    budget: str | int,
    prefetch: Literal["auto"] | int,
    chunks: int,
) -> None:
    """On the disk or on credit: what is asked for before a leaf comes. With its root, a chunk is one request.

    A machine that is busy elsewhere may get the manifest so slowly that a rate is measured by it: then it is asked for less.
    """
    row_bytes = 100_000 if kind == "one block" else 200_000
    if "root" in kind:
        monkeypatch.setattr(packing, "MAX_LISTED_LEAVES", 0)
    data = np.random.default_rng(0).integers(0, 256, (24, row_bytes), dtype=np.uint8)
    cid = (await dnc.upload({"x": data}, batch_size=4, store=tmp_path / "store")).cid
    (manifest,) = (entry.cid for entry in await dnc.ls(cid, store=tmp_path / "store") if entry.name == "manifest")
    requests = 2 if kind == "two leaves" else 1
    asked, large, is_measured = list[RequestSent](), list[int](), False
    leaves, loop = Held(holds_chunks(cid, manifest)), asyncio.get_running_loop()

    def note(event: Event) -> None:
        nonlocal is_measured
        if isinstance(event, RequestSent) and "manifest" not in event.asked and not leaves.released.is_set():
            asked.append(event)
            large.extend([event.size_bytes] if event.size_bytes > 60_000 else ())
            is_measured = is_measured or stream.statistics().gateways[0].rate is not None
            if len(large) == chunks * requests or is_measured:
                loop.call_soon_threadsafe(leaves.released.set)

    async with GatewayServer(BlockStore.open(tmp_path / "store"), hooks=leaves) as gateway:
        options = {"gateways": gateway.url, "disk_budget": budget, "spool_dir": tmp_path / "spool"}
        # Not opened before: then there might be no consumer yet when the first chunks are asked for.
        async with aclosing(dnc.stream(cid, prefetch=prefetch, progress=note, **options)) as stream:
            assert ((await anext(stream))["x"] == data[:4]).all()
    assert len(large) >= chunks * requests or is_measured
    assert all(abs(size - 2 * row_bytes / requests) < 10_000 for size in large)
    assert len(asked) == len(large) or "root" in kind


@pytest.mark.parametrize("is_listed", [True, False])
async def test_a_scarce_gateway_sends_chunks_of_several_leaves_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_listed: bool
) -> None:
    """Whether their leaves are wanted at once or after their roots; and what nobody will want is not kept."""
    monkeypatch.setattr(packing, "_USEFUL_LEAF_BYTES", 4096)
    if not is_listed:
        monkeypatch.setattr(packing, "MAX_LISTED_LEAVES", 0)
    data = np.random.default_rng(0).integers(0, 256, (400, 4000), dtype=np.uint8)
    cid = (await dnc.upload({"x": data}, batch_size=8, store=tmp_path / "store")).cid
    # Where roots are not wanted, those that were kept would be more than this, and the CAR would not go on.
    settings = FetchSettings(early_bytes=30_000 if is_listed else 100_000)
    async with ScriptedGateway(BlockStore.open(tmp_path / "store")) as gateway:
        options = {"gateways": scarce(gateway), "disk_budget": "400 kB", "spool_dir": tmp_path / "spool"}
        async with dnc.Client(settings=settings, **options) as client:
            stream = client.stream(cid)
            batches = [batch async for batch in stream]
        assert gateway.stats().requests <= 8  # of 400 leaves
    assert (np.concatenate([batch["x"] for batch in batches]) == data).all()
    assert stream.statistics().fetched_bytes == pytest.approx(data.nbytes, rel=0.1)


async def test_the_next_page_is_there_before_it_is_needed(tmp_path: Path) -> None:
    """It is asked for half way through the one before it, behind what is needed sooner."""
    data = np.random.default_rng(0).integers(0, 256, (400, 1000), dtype=np.uint8)
    cid = (await dnc.upload({"x": data}, batch_size=2, store=tmp_path / "store")).cid
    asked = list[str]()

    def note(event: Event) -> None:
        if isinstance(event, RequestSent):
            asked.append(event.asked)

    async with ScriptedGateway(BlockStore.open(tmp_path / "store"), "no-car,latency=5ms") as gateway:
        async with dnc.Client(gateways=gateway.url, disk_budget="1MB", spool_dir=tmp_path / "spool") as client:
            manifest = Manifest.decode(await client.cat(f"{cid}/manifest"))
            chunks = [str(entry.cid) for entry in manifest.entries(0, manifest.first_page)]
            (page,) = map(str, manifest.pages)
        stream = dnc.stream(cid, gateways=gateway.url, disk_budget="1MB", spool_dir=tmp_path / "spool", progress=note)
        batches = [batch async for batch in stream]
    assert (np.concatenate([batch["x"] for batch in batches]) == data).all()
    assert asked.index(chunks[len(chunks) // 4]) < asked.index(page) < asked.index(chunks[-1])
