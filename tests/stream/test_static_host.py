"""An indexed CAR file on a plain web server as the only gateway: no IPFS node anywhere."""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import dnc_async as dnc
from dnc_async.errors import CarError, ChunkUnavailableError
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.car import CarReader, encode_header, encode_section
from dnc_async.ipld.car_index import HEADER_BYTES, CarV2Header, Index, encode_index
from dnc_async.ipld.cid import RAW, Cid
from dnc_async.store import BlockStore
from dnc_async.store.cars import export_car, import_car
from dnc_async.store.integrity import check, walk
from dnc_async.telemetry import StreamStatistics
from dnc_async.testing import ScriptedGateway

from .conftest import BATCH, SAMPLES, Published, halves, keep

# aiohttp's FileResponse leaves its file to the garbage collector where the client goes away while it is being opened.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <_io\.FileIO name='.*/www/:pytest.PytestUnraisableExceptionWarning"
)

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Host:
    """A web server with a folder; ``answer`` takes the place of its files where a test sets it."""

    folder: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)
    answer: Answer | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.headers.get("Range", ""))
        return await self.answer(request) if self.answer else web.FileResponse(self.folder / request.match_info["name"])


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    (tmp_path / "www").mkdir()
    host, app = Host(tmp_path / "www"), web.Application()
    app.router.add_get("/{name}", host.handle)
    async with TestServer(app) as server:
        host.url = str(server.make_url("/data.car"))
        yield host


@pytest.fixture
def file(published: Published, host: Host) -> Path:
    """The dataset's CAR on the host."""
    path = host.folder / "data.car"
    with path.open("wb") as sink:
        export_car(BlockStore.open(published.store), Cid.parse(published.result.cid), sink, indexed=True)
    return path


async def streamed(published: Published, host: Host) -> StreamStatistics:
    """Stream all of it, each batch checked, without a failure."""
    async with dnc.stream(published.result, gateways=host.url, spool_dir=published.spool) as batches:
        count = 0
        async for batch in batches:
            published.check(batch, count)
            count += 1
        figures = batches.statistics()
    assert count == SAMPLES // BATCH
    assert (figures.requests_failed, figures.blocks_rejected) == (0, 0)
    return figures


async def test_a_dataset_is_streamed(published: Published, host: Host, file: Path) -> None:
    """Every batch, the index read once, runs of blocks in one range each, and no byte twice."""
    figures = await streamed(published, host)
    assert host.asked[0] == f"bytes=0-{HEADER_BYTES - 1}"
    assert host.asked[1].endswith("-")
    assert len(host.asked) <= 8 < figures.gateways[0].blocks
    ranges = sorted(tuple(map(int, each.removeprefix("bytes=").split("-"))) for each in host.asked if each[-1] != "-")
    assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(ranges))


async def test_blocks_that_lie_apart(published: Published, host: Host) -> None:
    """A file whose blocks are in another order than the dataset's: all of it comes, block by block where it must."""
    blocks = list(walk(BlockStore.open(published.store), Cid.parse(published.result.cid), lambda *_: None))
    random.Random(0).shuffle(blocks)
    write_indexed(host.folder / "data.car", blocks)
    await streamed(published, host)


def write_indexed(path: Path, blocks: list[Block]) -> None:
    payload, entries = bytearray(encode_header([blocks[0].cid])), []
    for block in blocks:
        entries.append((block.cid, len(payload)))
        payload += encode_section(block)
    layout = CarV2Header(data_offset=HEADER_BYTES, data_bytes=len(payload), index_offset=HEADER_BYTES + len(payload))
    path.write_bytes(layout.encode() + payload + b"".join(encode_index(entries)))


@pytest.fixture
def two_halves(published: Published) -> tuple[list[Block], list[Block]]:
    return halves(published)


async def test_beside_gateways(
    published: Published, host: Host, two_halves: tuple[list[Block], list[Block]], tmp_path: Path
) -> None:
    """Each has what the other lacks; a tree comes by ``get`` as well."""
    ours, theirs = two_halves
    write_indexed(host.folder / "data.car", ours)
    async with (
        ScriptedGateway(BlockStore.open(keep(tmp_path / "theirs", theirs))) as gateway,
        dnc.stream(published.result, gateways=[gateway.url, host.url], spool_dir=published.spool) as batches,
    ):
        assert len([batch async for batch in batches]) == SAMPLES // BATCH
        assert all(each.blocks for each in batches.statistics().gateways)
    write_indexed(host.folder / "data.car", list({block.cid: block for block in [*ours, *theirs]}.values()))
    saved = await dnc.get(published.result.cid, tmp_path / "tree", gateways=host.url)
    assert saved.size_bytes > published.x.nbytes


async def failing(published: Published, host: Host) -> str:
    with pytest.raises(ChunkUnavailableError) as caught:
        await dnc.cat(published.result.cid + "/manifest", gateways=host.url)
    return str(caught.value)


async def test_a_file_that_lies(published: Published, host: Host, file: Path) -> None:
    """A wrong byte is a wrong block, as of any gateway."""
    data = bytearray(file.read_bytes())
    for offset in range(200, len(data) - 20_000, 997):
        data[offset] ^= 1
    file.write_bytes(data)
    said = await failing(published, host)
    assert "thrown away" in said or "has no section where its index says" in said or "another section" in said


async def test_what_a_host_can_do_wrong(published: Published, host: Host, file: Path) -> None:
    """Each is one clear error: no index, no CAR, no ranges, no file, another range, a file that changed."""
    whole = file.read_bytes()
    layout = CarV2Header.decode(whole)

    async def ignores_ranges(_: web.Request) -> web.StreamResponse:
        return web.Response(body=whole)

    async def other_range(_: web.Request) -> web.StreamResponse:
        return web.Response(status=206, body=whole[7:58], headers={"Content-Range": "bytes 7-57/1000"})

    async def endless(_: web.Request) -> web.StreamResponse:
        return web.Response(status=206, body=bytes(2**20), headers={"Content-Range": "bytes 0-50/1000"})

    for content, answer, why in [
        (whole[layout.data_offset : layout.index_offset], None, "not a CARv2 file.*dnc export --indexed"),
        (b"PK" + whole, None, "not a CARv2 file"),
        (
            CarV2Header(data_offset=51, data_bytes=layout.data_bytes, index_offset=0).encode() + whole[51:],
            None,
            "without an index",
        ),
        (whole[: layout.index_offset] + b"\x80\x08", None, "0x400 and 0x401 are read|ends too early"),
        (whole, ignores_ranges, "answered a range with the whole file"),
        (whole, other_range, "answered with the range 'bytes 7-57/1000'"),
        (whole, endless, "over the limit of 51"),
        (None, None, "answered 404"),
    ]:
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        host.answer = answer
        assert re.search(why, await failing(published, host)), why


async def test_a_signed_url_is_not_shown(published: Published, host: Host, file: Path) -> None:
    """The query goes to the host as it is, and nowhere else."""
    query = "X-Signature=a%2Fb%2Bc"
    queries = set()

    async def guarded(request: web.Request) -> web.StreamResponse:
        queries.add(request.raw_path.partition("?")[2])
        return web.FileResponse(file)

    host.answer = guarded
    async with dnc.Client(gateways=f"{host.url}?{query}", disk_budget=0) as client:
        assert await client.cat(published.result.cid + "/manifest")
    assert queries == {query}
    file.unlink()
    host.answer = None
    with pytest.raises(ChunkUnavailableError) as caught:
        await dnc.cat(published.result.cid + "/manifest", gateways=f"{host.url}?{query}")
    assert "a%2Fb" not in str(caught.value)
    assert "data.car?***" in str(caught.value)


# An index that is no use: the host stands beside an honest gateway.


async def beside_an_honest_one(published: Published, host: Host) -> tuple[int, str]:
    """How often the host was asked for its index while the whole dataset came; and what ``cat`` from it alone says."""
    async with (
        ScriptedGateway(BlockStore.open(published.store)) as honest,
        dnc.Client(gateways=[host.url, honest.url], spool_dir=published.spool) as client,
    ):
        for _ in range(2):
            assert len([batch async for batch in client.stream(published.result)]) == SAMPLES // BATCH
    asked = sum(each.endswith("-") for each in host.asked)
    async with dnc.Client(gateways=host.url, disk_budget=0) as client:
        for _ in range(2):
            with pytest.raises(ChunkUnavailableError) as caught:
                await client.cat(published.result.cid + "/manifest")
    return asked, str(caught.value)


@pytest.mark.parametrize("rubbish", [b"\xff" * 4_000_000, b"\x81\x08" + b"\xff" * 4_000_000])
async def test_an_index_of_rubbish_is_read_once(
    published: Published, host: Host, file: Path, monkeypatch: pytest.MonkeyPatch, rubbish: bytes
) -> None:
    """However many blocks are wanted; and it is decoded in a worker thread."""
    whole = file.read_bytes()
    payload = whole[HEADER_BYTES : CarV2Header.decode(whole).index_offset] + bytes(2_000_000)
    end = HEADER_BYTES + len(payload)
    layout = CarV2Header(data_offset=HEADER_BYTES, data_bytes=len(payload), index_offset=end)
    file.write_bytes(layout.encode() + payload + rubbish)
    threads, decode = set(), Index.decode

    def watched(data: bytes) -> Index:
        threads.add(threading.current_thread().name.partition("_async worker")[1])
        return decode(data)

    monkeypatch.setattr(Index, "decode", watched)
    asked, said = await beside_an_honest_one(published, host)
    assert (asked, threads) == (1, {"_async worker"})
    assert "dnc export --indexed" in said


@pytest.mark.parametrize("tells", [True, False])
async def test_an_index_that_the_file_cannot_need(published: Published, host: Host, file: Path, tells: bool) -> None:
    """It is longer than the payload's blocks can make it: not requested where the host tells the file's length, else cut off."""
    whole = file.read_bytes()
    layout = CarV2Header.decode(whole)
    file.write_bytes(whole + bytes(2 * layout.data_bytes + 4096))
    if not tells:

        async def untold(request: web.Request) -> web.StreamResponse:
            start, _, end = request.headers["Range"].removeprefix("bytes=").partition("-")
            body = file.read_bytes()[int(start) : int(end) + 1 if end else None]
            return web.Response(status=206, body=body, headers={"Content-Range": f"bytes {start}-/*"})

        host.answer = untold
    asked, said = await beside_an_honest_one(published, host)
    assert asked == (0 if tells else 1)
    assert re.search("expected it to have 1 to" if tells else "an index of more than", said)


async def test_an_index_that_always_breaks_off(published: Published, host: Host, file: Path) -> None:
    """Two lengths of it were received in vain, then it is not asked for any more."""
    whole, received = file.read_bytes(), []
    start = CarV2Header.decode(whole).index_offset

    async def breaks_off(request: web.Request) -> web.StreamResponse:
        if not request.headers["Range"].endswith("-"):
            return web.FileResponse(file)
        index = whole[start:]
        response = web.StreamResponse(
            status=206, headers={"Content-Range": f"bytes {start}-{len(whole) - 1}/{len(whole)}"}
        )
        response.content_length = len(index)
        await response.prepare(request)
        await response.write(index[:-1])
        received.append(len(index) - 1)
        assert request.transport is not None
        request.transport.close()
        return response

    host.answer = breaks_off
    async with dnc.Client(gateways=host.url, disk_budget=0) as client:
        for _ in range(4):
            with pytest.raises(ChunkUnavailableError) as caught:
                await client.cat(published.result.cid + "/manifest")
    assert "was never sent whole" in str(caught.value)
    assert 2 < len(received) <= 4


def test_an_index_of_many_parts() -> None:
    """Each part takes memory, also one without entries; a width of a whole file lists nothing."""
    part = (9).to_bytes(4, "little") + (9).to_bytes(8, "little") + bytes(9)
    many = b"".join(bytes(8) + (1024).to_bytes(4, "little") + part * 1024 for _ in range(2))
    for bad in (
        b"\x80\x08" + (2**20).to_bytes(4, "little"),
        b"\x81\x08" + (2**20).to_bytes(4, "little"),
        b"\x81\x08" + (2).to_bytes(4, "little") + many,
    ):
        with pytest.raises(CarError, match=r"parts|hash functions"):
            Index.decode(bad)
    nothing = b"\x80\x08" + (1).to_bytes(4, "little") + (2**32 - 1).to_bytes(4, "little") + bytes(8)
    assert len(Index.decode(nothing)) == 0
    assert Index.decode(nothing).end(2**70, 5) == Index.decode(nothing).end(0, 5) == 5


# The index by itself.


def test_an_index_finds_every_block(published: Published, file: Path, tmp_path: Path) -> None:
    """At its place, with its end; and the file is a CARv2 that any reader takes."""
    whole = file.read_bytes()
    layout = CarV2Header.decode(whole)
    assert CarV2Header.decode(layout.encode()) == layout
    index = Index.decode(whole[layout.index_offset :])
    store, payload = BlockStore.open(published.store), whole[layout.data_offset : layout.index_offset]
    blocks = list(walk(store, Cid.parse(published.result.cid), lambda *_: None))
    assert len(index) == len(blocks)
    for block in blocks:
        for cid in (block.cid, Cid(1, RAW, block.cid.multihash)):
            offset = index.offset(cid)
            assert offset is not None
            section = payload[offset : index.end(offset, layout.data_bytes)]
            assert section.endswith(block.data)
            assert 36 < len(section) - len(block.data) < 42
    assert index.offset(make(b"stranger").cid) is None
    other = BlockStore.open(tmp_path / "other", create=True)
    with file.open("rb") as source:
        import_car(other, source, name="data.car")
    assert check(other, Cid.parse(published.result.cid)).complete
    reader = CarReader()
    assert len(reader.feed(whole)) == len(blocks)


def test_hash_functions_beside_each_other() -> None:
    """Digests of several widths and functions in one index."""
    cids = [make(bytes([i]), RAW, name).cid for i in range(50) for name in ("sha2-256", "sha2-512", "blake2b-256")]
    index = Index.decode(b"".join(encode_index((cid, 100 * i) for i, cid in enumerate(cids))))
    assert [index.offset(cid) for cid in cids] == [100 * i for i in range(150)]
    assert index.end(100, 99_999) == 200
    assert index.end(14_900, 99_999) == 99_999


def test_an_index_of_the_older_kind() -> None:
    """IndexSorted has no hash functions: one list of widths."""
    cid = make(b"x").cid
    row = cid.multihash[2:] + (77).to_bytes(8, "little")
    body = b"\x80\x08" + (1).to_bytes(4, "little") + (40).to_bytes(4, "little") + (40).to_bytes(8, "little") + row
    assert Index.decode(body).offset(cid) == 77


def test_a_hostile_index() -> None:
    """Cut anywhere, and bytes at random: nothing but the typed error."""
    good = b"".join(encode_index((make(bytes([i])).cid, i) for i in range(20)))
    rng = random.Random(0)
    for _ in range(3000):
        bad = bytearray(good[: rng.randrange(len(good))] if rng.random() < 0.5 else good)
        for _ in range(rng.randrange(4)):
            if bad:
                bad[rng.randrange(min(len(bad), 40))] = rng.randrange(256)
        with contextlib.suppress(CarError):
            Index.decode(bytes(bad)).offset(make(b"q").cid)
