"""Gateways that routers name join a stream: alone, beside those of the user, and also where much goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import dnc_async as dnc
from dnc_async import sync
from dnc_async.config import FetchSettings, sources_of
from dnc_async.errors import ArgumentError, ChunkUnavailableError
from dnc_async.gateways.discovery import Discovery
from dnc_async.gateways.fetcher import Fetcher
from dnc_async.gateways.providers import GATEWAY_PROTOCOL
from dnc_async.gateways.session import Sessions
from dnc_async.ipld.cid import Cid
from dnc_async.serve import GatewayServer
from dnc_async.store import BlockStore
from dnc_async.telemetry import Event, RequestFailed
from dnc_async.testing import ScriptedGateway

from ..conftest import NOBODY, PATIENCE_S, Held, Shell, fetcher_over
from .conftest import BATCH, SAMPLES, Published, halves, keep, left


@dataclass
class Router:
    """A router on loopback that names the addresses that a test gives it, once it is released."""

    url: str = ""
    addresses: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = 200
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.match_info["cid"])
        self.was_asked.set()
        await self.gate.wait()
        records = [
            {"Schema": "peer", "ID": "x", "Addrs": [address], "Protocols": [GATEWAY_PROTOCOL]}
            for address in self.addresses
        ]
        body = "".join(json.dumps(record) + "\n" for record in records)
        return web.Response(status=self.status, body=body, content_type="application/x-ndjson")


@pytest.fixture
async def router() -> AsyncIterator[Router]:
    scripted, app = Router(), web.Application()
    app.router.add_get("/routing/v1/providers/{cid}", scripted.handle)
    async with TestServer(app) as server:
        scripted.url = str(server.make_url("")).rstrip("/")
        scripted.gate.set()
        yield scripted
        scripted.gate.set()


def multiaddr(url: str) -> str:
    parts = urlsplit(url)
    return f"/ip4/{parts.hostname}/tcp/{parts.port}/http"


@pytest.fixture
async def gateway(published: Published) -> AsyncIterator[ScriptedGateway]:
    async with ScriptedGateway(BlockStore.open(published.store)) as running:
        yield running


async def consume(
    published: Published, meanwhile: Callable[[dnc.BatchStream], Awaitable[object]] | None = None, **options: object
) -> dnc.BatchStream:
    """Stream all of it, each batch checked; ``meanwhile`` is awaited after each."""
    async with dnc.stream(published.result, spool_dir=published.spool, **options) as batches:
        count = 0
        async for batch in batches:
            published.check(batch, count)
            count += 1
            if meanwhile is not None:
                await meanwhile(batches)
    assert count == SAMPLES // BATCH
    assert left(published.spool) == []
    return batches


def names(batches: dnc.BatchStream) -> list[str]:
    return [gateway.url for gateway in batches.statistics().gateways]


async def test_from_found_gateways_alone(published: Published, router: Router, gateway: ScriptedGateway) -> None:
    """No gateway is named; the router is asked once, for the root; what is on loopback is permitted: so is the router."""
    router.addresses = [multiaddr(gateway.url)]
    batches = await consume(published, gateways="discover", routers=router.url)
    assert names(batches) == [gateway.url]
    assert router.asked == [published.result.cid]


@pytest.fixture
def two_halves(published: Published, tmp_path: Path) -> tuple[Path, Path]:
    """Two stores, each of which lacks every other chunk."""
    first, second = halves(published)
    return keep(tmp_path / "first half", first), keep(tmp_path / "second half", second)


async def test_beside_those_of_the_user(published: Published, router: Router, two_halves: tuple[Path, Path]) -> None:
    """Both are used, as each has what the other lacks; each once, however often it is named."""
    first, second = map(BlockStore.open, two_halves)
    async with ScriptedGateway(first) as named, ScriptedGateway(second) as found:
        router.addresses = [multiaddr(url) for url in (named.url, found.url, found.url)]
        batches = await consume(published, gateways=[named.url], routers=[router.url, f"{router.url}/routing/v1/"])
    assert names(batches) == [named.url, found.url]
    assert all(each.blocks for each in batches.statistics().gateways)
    assert len(router.asked) == 1


async def test_those_of_the_user_do_not_wait(
    published: Published, router: Router, gateway: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """The stream is over before the router has said a word; nothing is left, and nothing is told of it."""
    router.gate.clear()
    batches = await consume(published, lambda _: router.was_asked.wait(), gateways=gateway.url, routers=router.url)
    assert names(batches) == [gateway.url]
    assert router.asked == [published.result.cid]
    assert caplog.messages == []


async def test_a_late_router_is_in_time(published: Published, router: Router, gateway: ScriptedGateway) -> None:
    """A block that the user's gateways do not have waits for whom the router names."""
    missed = asyncio.Event()

    async def miss(_: web.Request) -> web.StreamResponse:
        missed.set()
        return web.Response(status=404)

    router.gate.clear()
    router.addresses = [multiaddr(gateway.url)]
    app = web.Application()
    app.router.add_get("/{path:.*}", miss)
    async with TestServer(app) as empty, asyncio.TaskGroup() as tasks:
        url = str(empty.make_url("")).rstrip("/")
        reading = tasks.create_task(
            dnc.cat(f"{published.result.cid}/manifest", gateways=url, routers=router.url),
        )
        await missed.wait()
        router.gate.set()
    assert reading.result()


async def test_the_other_faces(published: Published, router: Router, gateway: ScriptedGateway, tmp_path: Path) -> None:
    """All that takes gateways takes routers: get, ls, inspect, open, the client and the blocking face."""
    router.addresses = [multiaddr(gateway.url)]
    cid, chosen = published.result.cid, {"gateways": "discover", "routers": [router.url]}
    assert (await dnc.get(cid, tmp_path / "out", **chosen)).files > 1
    assert {entry.name for entry in await dnc.ls(cid, **chosen)} >= {"manifest", "chunks"}
    assert (await dnc.inspect(cid, **chosen)).samples == SAMPLES
    async with dnc.open(f"{cid}/manifest", **chosen) as file:
        assert await file.read(4)
    options = {**chosen, "spool_dir": published.spool}
    batch = await asyncio.to_thread(sync.download_first, cid, **options)
    published.check(batch, 0)
    await asyncio.to_thread(lambda: [0 for _ in iter(sync.download_next, None)])
    before = len(router.asked)
    async with dnc.Client(disk_budget=0, **chosen) as client:
        for _ in range(2):
            assert await client.cat(f"{cid}/manifest")
        async with client.open(f"{cid}/manifest") as file:
            assert await file.read(4) == (await client.cat(f"{cid}/manifest"))[:4]
    assert len(router.asked) == before + 1


async def test_several_roots_have_their_own(published: Published, router: Router, gateway: ScriptedGateway) -> None:
    """A client asks once for each root."""
    router.addresses = [multiaddr(gateway.url)]
    async with dnc.Client(gateways="discover", routers=router.url, disk_budget=0) as client:
        entries = await client.ls(published.result.cid)
        chunks = next(entry for entry in entries if entry.name == "chunks")
        for _ in range(2):
            assert await client.ls(str(chunks.cid))
    assert router.asked == [published.result.cid, str(chunks.cid)]


@pytest.mark.parametrize(
    ("addresses", "status"), [([], 200), (["/dns/gw.example/tcp/443/tls/ws"], 200), ([], 404), ([], 500), ([], 302)]
)
async def test_nobody_is_found(published: Published, router: Router, addresses: list[str], status: int) -> None:
    """The error says what each router said, and which CID it was asked for."""
    router.addresses, router.status = addresses, status
    with pytest.raises(ChunkUnavailableError) as caught:
        await consume(published, gateways="discover", routers=[router.url, NOBODY])
    causes = [str(cause) for cause in caught.value.exceptions]
    assert len(causes) == 2
    said = f"answered {status}" if status in (500, 302) else "knows no gateway that serves it over HTTP"
    assert [said in cause for cause in causes if router.url in cause] == [True]
    assert ["the connection failed" in cause for cause in causes if NOBODY in cause] == [True]
    assert all(published.result.cid in cause for cause in causes)
    assert left(published.spool) == []


async def test_a_router_that_is_down_is_a_warning(
    published: Published, router: Router, gateway: ScriptedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """Not the end, as long as there is a gateway: the user's, or another router's."""
    router.addresses = [multiaddr(gateway.url)]
    for gateways in (gateway.url, "discover"):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "dnc_async"):
            await consume(published, gateways=gateways, routers=[router.url, NOBODY])
        assert [record.getMessage().startswith(f"router {NOBODY}, asked for") for record in caplog.records] == [True]


async def test_providers_that_lie_and_die(published: Published, router: Router) -> None:
    """They cost time only: every batch is right, and the wrong blocks are counted. The good one answers last."""
    good = Held()

    def observe(event: Event) -> None:
        if isinstance(event, RequestFailed) and event.mismatch:
            loop.call_soon_threadsafe(good.released.set)

    loop = asyncio.get_running_loop()
    async with (
        GatewayServer(BlockStore.open(published.store), hooks=good) as gateway,
        ScriptedGateway(BlockStore.open(published.store), "flip=1") as liar,
    ):
        router.addresses = [multiaddr(url) for url in (NOBODY, liar.url, gateway.url)]
        batches = await consume(published, gateways="discover", routers=router.url, progress=observe)
    figures = batches.statistics()
    assert figures.blocks_rejected > 0
    assert [each.blocks > 0 for each in figures.gateways] == [False, False, True]


async def test_a_provider_of_raw_blocks_only(published: Published, router: Router) -> None:
    """CARs are optional for a gateway, and a provider need not be a whole one: nothing fails for it."""
    async with ScriptedGateway(BlockStore.open(published.store), "no-car") as gateway:
        router.addresses = [multiaddr(gateway.url)]
        batches = await consume(published, gateways="discover", routers=router.url)
    assert batches.statistics().requests_failed == 0


async def test_no_more_than_so_many(published: Published, router: Router, gateway: ScriptedGateway) -> None:
    """A router cannot have us ask the whole world."""
    router.addresses = [multiaddr(gateway.url), *[f"/ip4/127.0.0.1/tcp/{port}/http" for port in range(1, 9)]]
    settings = FetchSettings(found_gateways=3)
    async with dnc.Client(gateways="discover", routers=router.url, disk_budget=0, settings=settings) as client:
        async with client.stream(published.result) as batches:
            assert len([0 async for _ in batches]) == SAMPLES // BATCH
        assert len(batches.statistics().gateways) == 3


@asynccontextmanager
async def discovering(router: Router, is_local: bool) -> AsyncIterator[tuple[Fetcher, Discovery]]:
    """A fetcher and its discovery by a router that is taken to be here, or elsewhere."""
    sessions = Sessions(
        requests_per_host=4,
        connect_timeout_s=PATIENCE_S,
        stall_timeout_s=PATIENCE_S,
        user_agent="test",
        trust_env=False,
    )
    with ThreadPoolExecutor(1) as executor:
        fetcher = fetcher_over([], executor)
        discovery = Discovery(
            fetcher,
            [router.url],
            sessions=sessions,
            known=[],
            private_providers=False,
            max_found=4,
            max_records=10,
            timeout_s=PATIENCE_S,
            clock=anyio.current_time,
            is_local=lambda _: is_local,
        )
        task = asyncio.create_task(fetcher.run())
        try:
            yield fetcher, discovery
        finally:
            task.cancel()
            await asyncio.wait([task])
            await sessions.aclose()


async def block_of(fetcher: Fetcher, root: Cid) -> bytes:
    group = fetcher.open()
    try:
        return (await group.block(root, priority=(0,))).data
    finally:
        await group.aclose()


async def test_a_router_elsewhere_may_not_name_addresses_here(
    published: Published, router: Router, gateway: ScriptedGateway
) -> None:
    """Neither as a number, nor by a name that leads here; a router on this machine may."""
    root, port = Cid.parse(published.result.cid), urlsplit(gateway.url).port
    router.addresses = [multiaddr(gateway.url), f"/ip4/127.0.0.1/tcp/{port}/https"]
    async with discovering(router, is_local=True) as (fetcher, discovery):
        assert discovery.begin(root)
        await discovery.search(root)
        assert await block_of(fetcher, root)
    async with discovering(router, is_local=False) as (fetcher, discovery):
        assert discovery.begin(root)
        await discovery.search(root)
        with pytest.raises(ChunkUnavailableError) as caught:
            await block_of(fetcher, root)
        assert "knows no gateway" in str(caught.value)
    router.addresses = [f"/dns/localhost/tcp/{port}/https"]
    async with discovering(router, is_local=False) as (fetcher, discovery):
        assert discovery.begin(root)
        await discovery.search(root)
        assert [each.url for each in fetcher.statistics()] == [f"https://localhost:{port}"]
        with pytest.raises(ChunkUnavailableError) as caught:
            await block_of(fetcher, root)
        assert re.search("localhost leads to .*: not where a router may send us", str(caught.value))
    assert gateway.stats().requests == 1


async def test_in_vain_is_not_for_ever(published: Published, router: Router, gateway: ScriptedGateway) -> None:
    """Who asked in vain asks again, but not at once; who found somebody does not."""
    now, root = [0.0], Cid.parse(published.result.cid)
    async with discovering(router, is_local=True) as (_, discovery):
        discovery._clock = lambda: now[0]
        assert discovery.begin(root)
        assert not discovery.begin(root)
        await discovery.search(root)
        assert not discovery.begin(root)
        now[0] += 11
        router.addresses = [multiaddr(gateway.url)]
        assert discovery.begin(root)
        await discovery.search(root)
        now[0] += 1e6
        assert not discovery.begin(root)
    assert len(router.asked) == 2


def test_arguments() -> None:
    """Which gateways and routers two arguments mean."""
    kubo, elsewhere = (
        {"IPFS_GATEWAY": "http://localhost:8080 https://gw.example"},
        {"IPFS_GATEWAY": "https://gw.example"},
    )
    gateway = dnc.Gateway("https://a.example")
    assert sources_of(None, None) == (None, ())
    assert sources_of(None, "https://r.example/routing/v1/") == (None, ("https://r.example",))
    assert sources_of(gateway, ["https://r.example"] * 2) == ((gateway,), ("https://r.example",))
    assert sources_of("discover", "https://r.example", kubo) == ((), ("https://r.example",))
    assert sources_of(["discover"], (), kubo) == ((), ("http://127.0.0.1:8080",))
    assert sources_of(["discover", "https://a.example"], None, kubo) == ((gateway,), ("http://127.0.0.1:8080",))
    for wrong, routers in (("discover", ()), (["discover"], None)):
        with pytest.raises(ArgumentError, match=r"'discover' needs a router to ask.*routers=, or --router URL"):
            sources_of(wrong, routers, elsewhere)
    bad: Sequence[object] = ("nonsense", "ftp://x", 7, "https://r.example?x=1")
    for url in bad:
        with pytest.raises(ArgumentError, match="routers: expected URLs"):
            sources_of(None, [url])


async def test_a_local_node_is_asked(
    published: Published, router: Router, gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Kubo's gateway serves routing, too: 'discover' alone finds it in the environment."""
    router.addresses = [multiaddr(gateway.url)]
    monkeypatch.setenv("IPFS_GATEWAY", router.url)
    assert names(await consume(published, gateways="discover")) == [gateway.url]


async def test_in_the_shell(published: Published, router: Router, gateway: ScriptedGateway, shell: Shell) -> None:
    """By two options, of all commands that fetch."""
    router.addresses = [multiaddr(gateway.url)]
    words = [published.result.cid, "--gateway", "discover", "--router", router.url, "--json"]
    done = await asyncio.to_thread(shell, "stream", *words)
    assert json.loads(done.stdout.splitlines()[-1])["report"]["gateways"][0]["url"] == gateway.url
    assert json.loads((await asyncio.to_thread(shell, "inspect", *words)).stdout)["samples"] == SAMPLES
    assert json.loads((await asyncio.to_thread(shell, "get", *words)).stdout)["files"] > 1
    said = await asyncio.to_thread(shell.refuses, "get", published.result.cid, "--router", "nonsense", status=2)
    assert said.startswith("--router: expected URLs")
