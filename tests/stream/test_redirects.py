"""Static hosts that redirect, as object stores and release pages do, and hosts whose ETags say nothing."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict
from yarl import URL

import dnc_async as dnc
from dnc_async.errors import ChunkUnavailableError, GatewayError
from dnc_async.gateways import redirects
from dnc_async.gateways.car_file import CarFileTransport
from dnc_async.gateways.redirects import Endpoint, RedirectError, follow
from dnc_async.gateways.transport import Arrivals
from dnc_async.ipld.cid import Cid
from dnc_async.store import BlockStore
from dnc_async.store.cars import export_car
from dnc_async.store.integrity import walk

from .conftest import BATCH, SAMPLES, Published
from .test_static_host import write_indexed

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <_io\.FileIO name='.*/www/:pytest.PytestUnraisableExceptionWarning"
)


@dataclass
class Hosts:
    """Two hosts of one machine: the one that is named, and the one that has the file."""

    path: Path
    named: str = ""
    other: str = ""
    answer: Answer | None = None
    asked: list[web.Request] = field(default_factory=list)
    served: list[web.Request] = field(default_factory=list)

    async def first(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        return await self.answer(request) if self.answer else web.FileResponse(self.path)

    async def second(self, request: web.Request) -> web.StreamResponse:
        self.served.append(request)
        return web.FileResponse(self.path)


@pytest.fixture
async def hosts(read_only: Published, tmp_path: Path) -> AsyncIterator[Hosts]:
    (tmp_path / "www").mkdir()
    hosts = Hosts(tmp_path / "www/data.car")
    with hosts.path.open("wb") as sink:
        export_car(BlockStore.open(read_only.store), Cid.parse(read_only.result.cid), sink, indexed=True)
    apps = web.Application(), web.Application()
    apps[0].router.add_get("/{name:.*}", hosts.first)
    apps[1].router.add_get("/{name:.*}", hosts.second)
    async with TestServer(apps[0]) as first, TestServer(apps[1]) as second:
        hosts.named, hosts.other = str(first.make_url("/data.car")), str(second.make_url("/file"))
        yield hosts


def to(location: str, status: int = 302) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": location})

    return answer


async def streamed(published: Published, url: str | dnc.Gateway) -> Any:
    async with dnc.stream(published.result, gateways=url, spool_dir=published.spool) as batches:
        count = 0
        async for batch in batches:
            published.check(batch, count)
            count += 1
        assert count == SAMPLES // BATCH
        return batches.statistics()


async def failing(published: Published, url: str) -> str:
    with pytest.raises(ChunkUnavailableError) as caught:
        await dnc.cat(published.result.cid + "/manifest", gateways=url)
    return str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed(read_only: Published, hosts: Hosts, status: int) -> None:
    """To another host, with the range and the query as they are, and without what is meant for the first one alone."""
    hosts.answer = to(f"{hosts.other}?sig=a%2Fb%2Bc", status)
    named = hosts.named.replace("http://", "http://me:hush@")
    figures = await streamed(read_only, dnc.Gateway(named, headers={"X-Token": "hush"}))
    assert figures.requests_failed == 0
    assert {request.headers.get("X-Token") for request in hosts.asked} == {"hush"}
    assert all(request.headers["Authorization"].startswith("Basic ") for request in hosts.asked)
    for request in hosts.served:
        assert not {"X-Token", "Authorization", "Cookie"} & set(request.headers)
        assert request.raw_path == "/file?sig=a%2Fb%2Bc"
        assert request.headers["Accept-Encoding"] == "identity"


async def test_a_place_is_remembered_until_it_expires(read_only: Published, hosts: Hosts) -> None:
    """The named host is asked once for each signature that it gives out."""
    count = itertools.count()

    async def signed(_: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": f"/signed/{next(count)}"})

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/signed/"):
            uses[request.path] = uses.get(request.path, 0) + 1
            return web.Response(status=403) if uses[request.path] > 3 else web.FileResponse(hosts.path)
        return await signed(request)

    uses: dict[str, int] = {}
    hosts.answer = answer
    figures = await streamed(read_only, hosts.named)
    assert figures.requests_failed == 0
    assert 1 < len(uses) <= -(-sum(min(3, n) for n in uses.values()) // 3) + 1


async def test_redirects_that_lead_nowhere(read_only: Published, hosts: Hosts) -> None:
    """Each is one clear error, without secrets."""
    for location, why in [
        (hosts.named, "redirects more than 5 times"),
        ("", "redirects to '', which is nowhere"),
        ("ftp://host/x", "'ftp://host/x', which is nowhere"),
        ("http://[", "which is nowhere"),
        ("http://host:port/", "which is nowhere"),
        ("http://169.254.169.254/latest?key=hush", r"redirects to http://169.254.169.254/latest?***: not where"),
        ("http://[fe80::1]/", "not where the public internet may send us"),
        ("http://127.0.0.1:9/x.car", "the connection failed"),
    ]:
        hosts.answer = to(location)
        said = await failing(read_only, hosts.named)
        assert why in said
        assert "hush" not in said
    assert not hosts.served


async def test_from_the_public_internet_into_a_private_network(
    read_only: Published, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by a number nor by a name that leads there."""
    monkeypatch.setattr(redirects, "_is_local", lambda *_: False)
    for location, why in [
        (hosts.other, "not where the public internet may send us"),
        (hosts.other.replace("127.0.0.1", "localhost"), "localhost leads to .*: not where a router may send us, nor"),
        (hosts.other.replace("127.0.0.1", "2130706433"), "the connection failed"),
        (hosts.other.replace("127.0.0.1", "[::ffff:127.0.0.1]"), "not where the public internet may send us"),
    ]:
        hosts.answer = to(location)
        assert re.search(why, await failing(read_only, hosts.named))
    assert not hosts.served
    hosts.answer = None  # by itself it may be anywhere: the user has named it
    await streamed(read_only, hosts.named)


async def test_a_gateway_is_not_followed(read_only: Published, hosts: Hosts) -> None:
    """There a redirect is a miss."""
    hosts.answer = to(hosts.other)
    said = await failing(read_only, hosts.named.removesuffix("/data.car"))
    assert "answered 302" in said
    assert not hosts.served


class Session:
    trust_env = False


HOME = Session()
GUARDED = {True: Session(), False: Session()}


def next_endpoint(here: str, location: str, *, peer: str = "1.1.1.1", local: bool = True) -> Endpoint:
    place = Endpoint(url=URL(here), session=HOME, headers={"A": "b"}, server_name="n", local=local)  # type: ignore[arg-type]
    response = SimpleNamespace(url=URL(here), headers=CIMultiDict(Location=location), peer=peer)
    return follow(place, response, lambda *, local: GUARDED[local])  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("here", "location", "url"),
    [
        ("https://a.example/x", "/y?z=%2F", "https://a.example/y?z=%2F"),
        ("https://a.example/x/w", "../y", "https://a.example/y"),
        ("https://a.example/x", "//a.example:443/y#top", "https://a.example/y"),
        ("http://a.example/x", "https://A.example/x", "https://a.example/x"),
        ("https://a.example/x", "https://me:hush@a.example/y", "https://a.example/y"),
    ],
)
def test_the_same_host_keeps_what_is_its_own(here: str, location: str, url: str) -> None:
    """Headers and session, also where it asks for HTTPS."""
    place = next_endpoint(here, location)
    assert (str(place.url), place.session, place.headers, place.server_name) == (url, HOME, {"A": "b"}, "n")


@pytest.mark.parametrize(
    ("here", "location"),
    [
        ("https://a.example/x", "https://b.example/x"),
        ("https://a.example/x", "https://a.example:8443/x"),
        ("http://a.example:81/x", "https://a.example/x"),
        ("https://a.example/x", "https://sub.a.example/"),
        ("https://a.example/x", "https://me:hush@1.1.1.1/"),
    ],
)
def test_another_host_gets_nothing(here: str, location: str) -> None:
    """And is reached by a session that goes to private networks only from one."""
    for peer, local in (("10.1.2.3", True), ("::ffff:127.0.0.1", True), ("1.1.1.1", False), ("fe80::1%eth0", False)):
        place = next_endpoint(here, location, peer=peer)
        assert (place.session, place.headers, place.server_name) == (GUARDED[local], {}, None)
        assert place.url.user is None
        assert next_endpoint(here, location, peer=peer, local=False).session is GUARDED[False]


@pytest.mark.parametrize("location", ["http://a.example/x", "http://127.0.0.1/", "//[::1]/", "https://10.0.0.1:8080/"])
def test_what_is_not_followed(location: str) -> None:
    """Out of TLS, and into a private network."""
    with pytest.raises(RedirectError, match=r"not followed|not where"):
        next_endpoint("https://a.example/x", location)


async def test_etags_say_nothing(read_only: Published, hosts: Hosts) -> None:
    """Servers behind one name that do not agree on them, weak and strong ones: nothing is read twice."""
    await in_ranges(read_only, hosts, ['"a"', 'W/"a"', '"b"', None, "nonsense"], "bytes ")


@pytest.mark.parametrize("begin", ["Bytes ", "BYTES  ", "bytes=", "bytes 00"])
async def test_ranges_as_servers_write_them(read_only: Published, hosts: Hosts, begin: str) -> None:
    """The unit's case is free, and some write it as a request does. An encoding that is none may be named."""
    await in_ranges(read_only, hosts, [None], begin, {"Content-Encoding": "Identity"})


async def in_ranges(
    published: Published, hosts: Hosts, tags: list[str | None], begin: str, more: dict[str, str] | None = None
) -> None:
    """Stream from a host that answers so."""
    etags = itertools.cycle(tags)

    async def answer(request: web.Request) -> web.StreamResponse:
        start, end = (
            map(int, request.headers["Range"].removeprefix("bytes=").replace("-", "- ").split("- "))
            if (not request.headers["Range"].endswith("-"))
            else (int(request.headers["Range"][6:-1]), hosts.path.stat().st_size - 1)
        )
        data = hosts.path.read_bytes()
        etag = next(etags)
        headers = {"Content-Range": f"{begin}{start}-{end}/{len(data)}"} | ({} if etag is None else {"ETag": etag})
        headers |= more or {}
        return web.Response(status=206, body=data[start : end + 1], headers=headers)

    hosts.answer = answer
    figures = await streamed(published, hosts.named)
    assert (figures.requests_failed, figures.blocks_rejected) == (0, 0)
    assert sum(request.headers["Range"].endswith("-") for request in hosts.asked) == 1


async def test_a_file_that_was_replaced(read_only: Published, hosts: Hosts) -> None:
    """By one with its blocks elsewhere, or a shorter one: its index is read again, and all of it comes."""
    blocks = list(walk(BlockStore.open(read_only.store), Cid.parse(read_only.result.cid), lambda *_: None))
    async with dnc.Client(gateways=hosts.named, disk_budget=0) as client:
        first = await client.cat(read_only.result.cid + "/manifest")
        for order in (1, 2):
            random.Random(order).shuffle(blocks)
            write_indexed(hosts.path, blocks)
            count = 0
            async for batch in client.stream(read_only.result):
                read_only.check(batch, count)
                count += 1
            assert count == SAMPLES // BATCH
        async with aiohttp.ClientSession() as session, session.get(hosts.named) as whole:
            assert len(await whole.read()) == hosts.path.stat().st_size
        assert await client.cat(read_only.result.cid + "/manifest") == first
    assert 2 <= sum(request.headers.get("Range", "").endswith("-") for request in hosts.asked) <= 4


async def test_a_wrong_index_is_not_read_for_ever(read_only: Published, hosts: Hosts) -> None:
    """One that is wrong from the start is read twice, however many blocks are asked for."""
    blocks = list(walk(BlockStore.open(read_only.store), Cid.parse(read_only.result.cid), lambda *_: None))
    write_indexed(hosts.path, blocks)
    data = bytearray(hosts.path.read_bytes())
    for block in blocks:
        at = data.index(block.cid.encode() + block.data[:8])
        data[at : at + 4] = bytes(4)
    hosts.path.write_bytes(data)
    async with aiohttp.ClientSession() as session:
        transport = CarFileTransport(hosts.named, session=session, headers={})
        for block in blocks[:20]:
            with pytest.raises(GatewayError, match="no section where its index says"):
                await transport.raw(block.cid, limit_bytes=2**21, arrivals=Arrivals())
    assert sum(request.headers["Range"].endswith("-") for request in hosts.asked) == 2
