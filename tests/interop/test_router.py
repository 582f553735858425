"""boxo's own delegated router, with its real filters: whom it names, ours finds."""

import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import pytest

import dnc_async as dnc
from dnc_async.errors import ChunkUnavailableError
from dnc_async.gateways.providers import GATEWAY_PROTOCOL, Provider
from dnc_async.gateways.routing import Router
from dnc_async.gateways.session import Sessions
from dnc_async.ipld.cid import Cid

from ..conftest import PATIENCE_S
from .conftest import Boxo
from .test_boxo import published

ROOT = Cid.of(b"a root")
PEER = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5"
Serve = Callable[..., AbstractContextManager[str]]


def record(*addresses: str, **fields: object) -> dict[str, object]:
    return {"Schema": "peer", "ID": PEER, "Addrs": list(addresses), "Protocols": [GATEWAY_PROTOCOL]} | fields


@pytest.fixture
def serve(boxo: Boxo, tmp_path: Path) -> Serve:
    """Serve some records by the reference router: enter for the URL."""

    def start(records: dict[str, list[dict[str, object]]], *options: str) -> AbstractContextManager[str]:
        (tmp_path / "records.json").write_text(json.dumps(records))
        return boxo("-router", tmp_path / "records.json", *options)

    return start


async def ask(url: str, *, local: bool = False, root: Cid = ROOT) -> list[str]:
    """The URLs that it names, and the types of the answers by the way."""
    sessions, found = (
        Sessions(
            requests_per_host=4,
            connect_timeout_s=PATIENCE_S,
            stall_timeout_s=PATIENCE_S,
            user_agent="test",
            trust_env=False,
        ),
        list[Provider](),
    )
    router = Router(url, session=sessions.named(), local=local, max_records=100)
    try:
        await router.providers(root, lambda provider: found.append(provider) is None)
    finally:
        await sessions.aclose()
    return [provider.url for provider in found]


MANY = [record(f"/dns/gw{i}.example/tcp/443/https") for i in range(30)]


@pytest.mark.parametrize(("options", "count"), [([], 30), (["-whole"], 20)])
async def test_both_forms_of_an_answer(serve: Serve, options: list[str], count: int) -> None:
    """Lines have no limit; where a router knows only whole answers, boxo's holds 20 records."""
    with serve({str(ROOT): MANY}, *options) as url:
        assert await ask(url) == [f"https://gw{i}.example" for i in range(count)]


@pytest.mark.parametrize("options", [[], ["-whole"]])
async def test_who_is_not_known(serve: Serve, options: list[str]) -> None:
    """No providers, or none that passes the filters: an empty list; also where there is no router at all."""
    bitswap = record("/dns/x.example/tcp/4001", Protocols=["transport-bitswap"])
    with serve({str(ROOT): [bitswap]}, *options) as url:
        assert await ask(url) == []
        assert await ask(url, root=Cid.of(b"another")) == []
        assert await ask(f"{url}/elsewhere") == []


RECORDS = [
    record("/dns/a.example/tcp/443/https", "/ip4/1.2.3.4/udp/4001/quic-v1"),
    record("/dns/b.example/tcp/443/tls/http", Protocols=["transport-bitswap", GATEWAY_PROTOCOL]),
    record("/dns/c.example/tcp/443/tls/sni/d.example/http"),
    record("/dns/e.example/https", Protocols=[]),
    record("/dns/f.example/tcp/443/https", Protocols=["transport-bitswap"]),
    record("/dns/g.example/tcp/443/tls/ws"),
    record("/dns/h.example/tcp/443/https", Schema="generic", ID="did:key:z6M"),
    record("https://i.example", Schema="generic"),
    record("/dns/j.example/tcp/443/https", Schema="of-tomorrow"),
    record("/ip4/127.0.0.1/tcp/8080/http"),
    record("/ip4/192.168.7.7/tcp/443/https"),
    record("/dns/k.example/tcp/80/http"),
]


@pytest.mark.parametrize("options", [[], ["-whole"]])
async def test_filters(serve: Serve, options: list[str]) -> None:
    """What boxo leaves for the two sets of filters that we send, and what we make of it."""
    public = [f"https://{host}.example" for host in "abcehi"]
    with serve({str(ROOT): RECORDS}, *options) as url:
        async with aiohttp.ClientSession() as session:
            for names, sent in (("https,tls", 9), ("https,tls,http", 11)):
                query = f"filter-protocols={GATEWAY_PROTOCOL},unknown&filter-addrs={names}"
                async with session.get(f"{url}/routing/v1/providers/{ROOT}?{query}") as answer:
                    assert len((await answer.json())["Providers"]) == sent
        assert await ask(url) == public
        assert await ask(url, local=True) == [*public, "http://127.0.0.1:8080", "https://192.168.7.7"]


@pytest.mark.parametrize("options", [[], ["-whole"]])
async def test_a_stream_from_nothing_but_a_router(
    serve: Serve, boxo: Boxo, tmp_path: Path, options: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """No gateway is named; boxo's router names boxo's gateway, on loopback as it is itself."""
    rows, cid, car = await published(tmp_path)
    with boxo(car) as gateway, caplog.at_level(logging.WARNING, "dnc_async"):
        known = record(f"/ip4/127.0.0.1/tcp/{urlsplit(gateway).port}/http")
        with serve({cid: [known]}, *options) as url:
            async with dnc.stream(
                cid, gateways="discover", routers=[url], disk_budget="2MB", spool_dir=tmp_path / "spool"
            ) as batches:
                got = [batch async for batch in batches]
                figures = batches.statistics()
    assert all((np.concatenate([batch[name] for batch in got]) == rows[name]).all() for name in rows)
    assert (figures.requests_failed, figures.blocks_rejected) == (0, 0)
    assert [each.url for each in figures.gateways] == [gateway]
    assert caplog.messages == []


async def test_a_router_that_knows_nobody(serve: Serve) -> None:
    """The error says so."""
    with serve({}) as url, pytest.raises(ChunkUnavailableError) as caught:
        await dnc.cat(str(ROOT), gateways="discover", routers=url)
    assert [str(cause) for cause in caught.value.exceptions] == [
        f"{url}, asked for {ROOT}: knows no gateway that serves it over HTTP"
    ]
