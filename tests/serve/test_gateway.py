"""The gateway over real sockets: one test for each rule of the trustless gateway specification."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from dnc_async.errors import ArgumentError, CarTruncatedError
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.builder import UNIXFS_V1_2025, Root, build_directory, build_file
from dnc_async.ipld.car import CarReader
from dnc_async.ipld.cid import DAG_PB, RAW, Cid
from dnc_async.serve import GatewayServer
from dnc_async.store import BlockStore

RAW_TYPE = "application/vnd.ipld.raw"
CAR_TYPE = "application/vnd.ipld.car"
EMPTY = "bafkqaaa"
HELLO = "bafkqaf3imvwgy3zaneqgc3janfxgy2lomvscay3jmqfa"

Fetch = Callable[..., Any]


class Answer:
    """A response that was read."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def cids(self) -> list[Cid]:
        reader = CarReader()
        blocks = reader.feed(self.body)
        reader.close()
        return [block.cid for block in blocks]


@pytest.fixture
async def gateway(kubo_store: BlockStore) -> AsyncIterator[GatewayServer]:
    async with GatewayServer(kubo_store) as server:
        yield server


@pytest.fixture
def fetch(gateway: GatewayServer, session: aiohttp.ClientSession) -> Fetch:
    async def get(path: str, method: str = "GET", **headers: str) -> Answer:
        url = URL(f"{gateway.url}/ipfs/{path}", encoded=True)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with session.request(method, url, headers=sent, allow_redirects=False) as response:
            return Answer(response, await response.read())

    return get


async def test_a_raw_block_has_its_headers(fetch: Fetch, roots: dict[str, Cid], kubo_store: BlockStore) -> None:
    cid = roots["one-raw-block"]
    answer = await fetch(f"{cid}?format=raw")
    assert answer.status == 200
    assert answer.body == kubo_store.read(cid)
    assert {name: answer.headers[name] for name in answer.headers if name not in {"Date", "Server"}} == {
        "Content-Type": RAW_TYPE,
        "Content-Length": str(len(answer.body)),
        "Content-Disposition": f'attachment; filename="{cid}.bin"',
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
        "Etag": f'"{cid}.raw"',
        "Cache-Control": "public, max-age=29030400, immutable",
        "Vary": "Accept",
        "X-Ipfs-Path": f"/ipfs/{cid}",
        "X-Ipfs-Roots": str(cid),
        "Ipfs-Uri": f"ipfs://{cid}",
    }


@pytest.mark.parametrize("query", ["", "&dag-scope=entity", "&dag-scope=block", "&car-dups=y", "&entity-bytes=3:5000"])
async def test_a_car_says_how_long_it_is(fetch: Fetch, roots: dict[str, Cid], query: str) -> None:
    """So that a client sees one that was cut off; HEAD says it, too."""
    for name, root in roots.items():
        path = f"{root}?format=car{query}"
        answer = await fetch(path)
        if name == "inline-leaves" and "entity-bytes" in query and answer.status == 400:
            continue
        assert answer.status == 200, name
        assert answer.headers["Content-Length"] == str(len(answer.body)), name
        assert (await fetch(path, "HEAD")).headers["Content-Length"] == str(len(answer.body)), name


async def test_a_car_of_many_blocks_is_not_measured_first(
    session: aiohttp.ClientSession, tmp_path: Path, fill: Callable[[BlockStore, Iterable[Block]], None]
) -> None:
    """Its first byte does not wait for a look at each of them; nor does one that lacks a block get a length."""
    many, root = build_file(bytes(range(256)) * 600, replace(UNIXFS_V1_2025, leaf_bytes=128))
    store = BlockStore.open(tmp_path / "many", create=True)
    fill(store, many)
    lacking = BlockStore.open(tmp_path / "lacking", create=True)
    few, small = build_file(bytes(2**21) + b"x", UNIXFS_V1_2025)
    fill(lacking, few[-1:])
    url = f"ipfs/{root.cid}?format=car&car-dups=y"
    async with GatewayServer(store) as gateway, session.get(f"{gateway.url}/{url}") as response:
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert len(CarReader().feed(await response.read())) > 1024
    async with GatewayServer(lacking) as gateway, session.get(f"{gateway.url}/ipfs/{small.cid}?format=car") as response:
        assert response.headers["Transfer-Encoding"] == "chunked"
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_a_car_has_its_headers(fetch: Fetch, roots: dict[str, Cid]) -> None:
    root = roots["directory"]
    answer = await fetch(f"{root}/with%20space.bin?format=car&car-dups=y")
    last = answer.cids[1]
    assert answer.status == 200
    assert {name: answer.headers[name] for name in answer.headers if name not in {"Date", "Server", "Etag"}} == {
        "Content-Type": f"{CAR_TYPE}; version=1; order=dfs; dups=y",
        "Content-Length": str(len(answer.body)),
        "Content-Disposition": f'attachment; filename="{last}.car"',
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "none",
        "Cache-Control": "public, max-age=29030400, immutable",
        "Vary": "Accept",
        "X-Ipfs-Path": f"/ipfs/{root}/with space.bin",
        "X-Ipfs-Roots": f"{root},{last}",
        "Ipfs-Uri": f"ipfs://{root}/with%20space.bin",
    }
    assert answer.headers["Etag"].startswith(f'W/"all-{root}.car.')


async def test_the_accept_header_alone_gives_a_content_location(fetch: Fetch, roots: dict[str, Cid]) -> None:
    root = roots["directory"]
    raw = await fetch(str(root), Accept=RAW_TYPE)
    assert raw.headers["Content-Location"] == f"/ipfs/{root}?format=raw"
    car = await fetch(f"{root}/plain.txt", Accept=f"{CAR_TYPE}; order=dfs; dups=y")
    location = car.headers["Content-Location"]
    assert location == f"/ipfs/{root}/plain.txt?format=car&dag-scope=all&car-version=1&car-order=dfs&car-dups=y"
    again = await fetch(location.removeprefix("/ipfs/"))
    assert (again.body, again.headers["Etag"]) == (car.body, car.headers["Etag"])
    assert "Content-Location" not in again.headers


async def test_the_filename_is_the_clients(fetch: Fetch, roots: dict[str, Cid]) -> None:
    cid = roots["one-raw-block"]
    plain = await fetch(f"{cid}?format=raw&filename=foobar.bin")
    assert plain.headers["Content-Disposition"] == 'attachment; filename="foobar.bin"'
    other = await fetch(f"{cid}?format=raw&filename=te%22st%D1%82.bin%0d%0aX:%20y")
    shown = "attachment; filename=\"te_st_.bin__X: y\"; filename*=UTF-8''te%22st%D1%82.bin%0D%0AX%3A%20y"
    assert other.headers["Content-Disposition"] == shown


async def test_every_spelling_of_a_cid_finds_the_block(fetch: Fetch, roots: dict[str, Cid]) -> None:
    v0 = roots["v0-profile"]
    v1 = Cid(1, DAG_PB, v0.multihash)
    answers = [await fetch(f"{cid}?format=raw") for cid in (v0, v1, Cid(1, RAW, v0.multihash))]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert len({answer.body for answer in answers}) == 1
    assert answers[0].headers["Ipfs-Uri"] == answers[1].headers["Ipfs-Uri"] == f"ipfs://{v1}"
    assert answers[0].headers["X-Ipfs-Path"] == f"/ipfs/{v0}"


async def test_a_path_that_no_header_can_hold_is_left_out_of_it(
    tmp_path: Path, session: aiohttp.ClientSession, fill: Callable[[BlockStore, Iterable[Block]], None]
) -> None:
    leaf = make(b"leaf")
    blocks, root = build_directory([("Ibérica+1%2C.txt", Root(leaf.cid, 4, 4))], UNIXFS_V1_2025)
    store = BlockStore.open(tmp_path / "store", create=True)
    fill(store, [leaf, *blocks])
    async with GatewayServer(store) as gateway:
        for spelling in ("Ib%C3%A9rica%2B1%252C.txt", "Ib%c3%a9rica+1%252C%2etxt"):
            url = URL(f"{gateway.url}/ipfs/{root.cid}/{spelling}?format=car", encoded=True)
            async with session.get(url) as response:
                assert response.status == 200
                assert response.headers["Ipfs-Uri"] == f"ipfs://{root.cid}/Ib%C3%A9rica%2B1%252C.txt"
                assert "X-Ipfs-Path" not in response.headers


async def test_scopes_and_ranges_arrive(fetch: Fetch, roots: dict[str, Cid]) -> None:
    root = roots["deep-balanced-raw"]
    whole = (await fetch(f"{root}?format=car")).cids
    assert (await fetch(f"{root}?format=car&dag-scope=block")).cids == [root]
    assert (await fetch(f"{root}?format=car&dag-scope=entity")).cids == whole
    ranged = (await fetch(f"{root}?format=car&entity-bytes=0:5")).cids
    assert ranged[0] == root
    assert len(ranged) < len(whole)
    assert (await fetch(f"{root}?format=car&entity-bytes=99999:*")).status == 400


async def test_a_raw_block_can_be_had_in_parts(fetch: Fetch, roots: dict[str, Cid]) -> None:
    cid = roots["one-raw-block"]
    whole = (await fetch(f"{cid}?format=raw")).body
    for header, start, stop in (("bytes=0-9", 0, 10), ("bytes=690-", 690, 700), ("bytes=-5", 695, 700)):
        part = await fetch(f"{cid}?format=raw", Range=header)
        assert part.status == 206
        assert part.body == whole[start:stop]
        assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/700"
        assert part.headers["Content-Length"] == str(stop - start)
    beyond = await fetch(f"{cid}?format=raw", Range="bytes=700-")
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, "bytes */700")
    for headers in ({"Range": "bytes=0-1,5-6"}, {"Range": "bytes=0-9", "If_Range": '"other"'}):
        everything = await fetch(f"{cid}?format=raw", **headers)
        assert (everything.status, everything.body) == (200, whole)
    fresh = await fetch(f"{cid}?format=raw", Range="bytes=0-9", If_Range=f'"{cid}.raw"')
    assert fresh.status == 206
    car = await fetch(f"{cid}?format=car", Range="bytes=0-9")
    assert (car.status, car.headers["Accept-Ranges"], car.cids) == (200, "none", [cid])


@pytest.mark.parametrize("form", ["raw", "car"])
async def test_head_says_what_get_says_without_a_body(form: str, fetch: Fetch, roots: dict[str, Cid]) -> None:
    path = f"{roots['directory']}?format={form}"
    get, head = await fetch(path), await fetch(path, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    said, says = (
        {name: value for name, value in answer.headers.items() if name not in {"Date", "Transfer-Encoding"}}
        for answer in (get, head)
    )
    assert says == said
    assert (await fetch(f"{make(b'absent').cid}?format={form}", method="HEAD")).status == 404


@pytest.mark.parametrize("form", ["raw", "car"])
async def test_a_known_etag_is_not_sent_again(form: str, fetch: Fetch, roots: dict[str, Cid]) -> None:
    path = f"{roots['directory']}?format={form}"
    tag = (await fetch(path)).headers["Etag"]
    for known in (tag, f'"x", {tag.removeprefix("W/")}', "*"):
        for method in ("GET", "HEAD"):
            answer = await fetch(path, method=method, If_None_Match=known)
            assert (answer.status, answer.body, answer.headers["Etag"]) == (304, b"", tag)
    assert (await fetch(path, If_None_Match='"other"')).status == 200
    absent = make(b"absent").cid
    assert (await fetch(f"{absent}?format={form}", If_None_Match="*")).status == 404


@pytest.mark.parametrize("form", ["raw", "car"])
async def test_what_is_not_here_is_404_and_412_if_only_cached(form: str, fetch: Fetch, roots: dict[str, Cid]) -> None:
    absent = make(b"absent").cid
    missing = await fetch(f"{absent}?format={form}")
    assert missing.status == 404
    assert str(absent) in missing.body.decode()
    assert missing.headers["Cache-Control"] == "no-store"
    for method in ("GET", "HEAD"):
        cached = await fetch(f"{absent}?format={form}", method=method, Cache_Control="only-if-cached")
        assert (cached.status, cached.body) == (412, b"")
    here = await fetch(f"{roots['directory']}?format={form}", Cache_Control="only-if-cached")
    assert here.status == 200


async def test_the_probe_and_identity_cids(fetch: Fetch) -> None:
    for method in ("GET", "HEAD"):
        probe = await fetch(f"{EMPTY}?format=raw", method=method)
        assert (probe.status, probe.body, probe.headers["Content-Length"]) == (200, b"", "0")
    reader = CarReader()
    assert reader.feed((await fetch(f"{EMPTY}?format=car")).body) == []
    assert reader.roots == (Cid.parse(EMPTY),)
    assert (await fetch(f"{HELLO}?format=raw")).body == b"hello i am inlined cid\n"
    assert (await fetch(HELLO, Accept=f"{CAR_TYPE}; dups=y")).cids == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("", 400),
        ("nonsense?format=raw", 400),
        ("{root}", 400),
        ("{root}?format=tar", 406),
        ("{root}?format=ipns-record", 400),
        ("{root}/plain.txt?format=raw", 400),
        ("{root}/nothing?format=car", 404),
        ("{root}/plain.txt/x?format=car", 404),
        ("{root}/..?format=car", 400),
        ("{root}?format=car&car-version=2", 400),
    ],
)
async def test_other_requests_are_refused_in_plain_text(
    path: str, status: int, fetch: Fetch, roots: dict[str, Cid]
) -> None:
    answer = await fetch(path.format(root=roots["directory"]))
    assert answer.status == status
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.body.strip()


async def test_names_and_other_methods_are_refused(
    gateway: GatewayServer, session: aiohttp.ClientSession, roots: dict[str, Cid]
) -> None:
    async with session.get(f"{gateway.url}/ipns/example.com?format=ipns-record") as response:
        assert response.status == 404
        assert "keeps no IPNS names" in await response.text()
    async with session.post(f"{gateway.url}/ipfs/{roots['directory']}?format=raw") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET,HEAD")


async def test_a_missing_child_breaks_the_car_off(
    tmp_path: Path, session: aiohttp.ClientSession, fill: Callable[[BlockStore, Iterable[Block]], None]
) -> None:
    store = BlockStore.open(tmp_path / "store", create=True)
    blocks, root = build_file(b"".join(bytes([number]) * 2**20 for number in range(4)), UNIXFS_V1_2025)
    fill(store, [blocks[0], blocks[1], blocks[3], blocks[4]])
    reader = CarReader()
    async with GatewayServer(store) as gateway, session.get(f"{gateway.url}/ipfs/{root.cid}?format=car") as response:
        found = []
        with pytest.raises(aiohttp.ClientPayloadError):  # noqa: PT012 - it is raised on the way
            async for chunk in response.content.iter_any():
                found += reader.feed(chunk)
    assert found == [blocks[4], blocks[0], blocks[1]]


async def test_a_damaged_store_is_the_servers_error(
    tmp_path: Path, session: aiohttp.ClientSession, fill: Callable[[BlockStore, Iterable[Block]], None]
) -> None:
    blocks, root = build_directory([("a", Root(make(b"x").cid, 1, 1))], UNIXFS_V1_2025)
    store = BlockStore.open(tmp_path / "store", create=True)
    fill(store, [make(b"x"), *blocks])
    for path in (store.path / "blocks").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\x0a\x02\x08\x01")
    async with GatewayServer(store) as gateway, session.get(f"{gateway.url}/ipfs/{root.cid}/a?format=car") as response:
        assert (response.status, await response.text()) == (500, "the gateway cannot read its store\n")


async def test_a_range_of_a_block_that_cannot_be_read_is_not_found(
    tmp_path: Path, session: aiohttp.ClientSession, fill: Callable[[BlockStore, Iterable[Block]], None]
) -> None:
    broken = make(b"\xff", DAG_PB)
    store = BlockStore.open(tmp_path / "store", create=True)
    fill(store, [broken])
    url = f"/ipfs/{broken.cid}?format=car&entity-bytes=0:5"
    async with GatewayServer(store) as gateway, session.get(gateway.url + url) as response:
        assert response.status == 404
        assert "cannot be read" in await response.text()


async def test_a_truncated_prefix_is_never_mistaken_for_a_block(fetch: Fetch, roots: dict[str, Cid]) -> None:
    body = (await fetch(f"{roots['one-raw-block']}?format=car")).body
    reader = CarReader()
    reader.feed(body[:-1])
    with pytest.raises(CarTruncatedError):
        reader.close()


async def test_a_port_that_is_taken_is_an_argument_error(gateway: GatewayServer, kubo_store: BlockStore) -> None:
    port = int(gateway.url.rpartition(":")[2])
    with pytest.raises(ArgumentError, match=f"cannot listen on 127.0.0.1:{port}"):
        async with GatewayServer(kubo_store, port=port):
            pass
    with pytest.raises(ArgumentError, match="cannot listen on"):
        async with GatewayServer(kubo_store, host="no-such-host.invalid"):
            pass
    with pytest.raises(ArgumentError, match="cannot listen on"):
        async with GatewayServer(kubo_store, host="\udcff"):
            pass


@pytest.mark.parametrize(
    ("addresses", "url"),
    [
        (["::1", "127.0.0.1"], "http://127.0.0.1:"),
        (["192.0.2.1", "127.0.0.1"], "http://127.0.0.1:"),
        (["::1", "192.0.2.1"], "http://[::1]:"),
    ],
)
async def test_a_name_with_several_addresses(
    kubo_store: BlockStore, monkeypatch: pytest.MonkeyPatch, addresses: list[str], url: str
) -> None:
    """The URL is the address that was bound, IPv4 where it can be; not the name, which clients may take for another."""
    families = {address: socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses}

    def found(_: str, port: int, **__: object) -> list[Any]:
        return [(families[each], socket.SOCK_STREAM, 0, "", (each, port)) for each in addresses]

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", found)
        server = GatewayServer(kubo_store, host="localhost")
        try:
            await server.__aenter__()
        except ArgumentError as error:
            pytest.skip(f"this machine has no IPv6: {error}")
    try:
        assert server.url.startswith(url)
        async with aiohttp.ClientSession() as session, session.get(f"{server.url}/ipfs/{EMPTY}?format=raw") as response:
            assert response.status == 200
    finally:
        await server.__aexit__(None, None, None)
