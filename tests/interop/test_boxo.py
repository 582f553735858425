"""boxo is the gateway inside Kubo and Rainbow: we read from it, and it serves what we built."""

import asyncio
import dataclasses
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

import dnc_async as dnc
from dnc_async.gateways.http import HttpTransport
from dnc_async.gateways.transport import Arrivals
from dnc_async.ipld.block import Block, verify, verify_pieces
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_file
from dnc_async.ipld.car import CarReader, encode_header, encode_section
from dnc_async.ipld.cid import Cid
from dnc_async.ipld.directory import DirectoryReader, node_kind
from dnc_async.ipld.plan import FilePlanner, payload
from dnc_async.publish.packing import pack
from dnc_async.publish.rows import RowStream
from dnc_async.serve.server import GatewayServer
from dnc_async.store import BlockStore
from dnc_async.store.cars import export_car
from dnc_async.telemetry import Event, RequestEnded, RequestSent

from .conftest import Boxo

FOLDER = Path(__file__).parent.parent / "fixtures"
FIXTURES = {row["name"]: row for row in json.loads((FOLDER / "index.json").read_text())["fixtures"]}
ACCEPT = "application/vnd.ipld.car; version=1; order=dfs; dups=y"


class ByRaw:
    """Blocks one at a time, through the transport that a stream uses."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._transport = HttpTransport(url, session=session, headers={})

    async def block(self, cid: Cid) -> Block:
        if cid.inline is not None:
            return verify(cid, cid.inline)
        return verify_pieces(cid, await self._transport.raw(cid, limit_bytes=2**21, arrivals=Arrivals()))


class ByCar:
    """All blocks from one CAR."""

    def __init__(self, blocks: list[Block]) -> None:
        self._blocks = {block.cid.multihash: block for block in blocks}

    async def block(self, cid: Cid) -> Block:
        return verify(cid, cid.inline) if cid.inline is not None else self._blocks[cid.multihash]

    @classmethod
    async def fetch(cls, url: str, root: str, session: aiohttp.ClientSession) -> "ByCar":
        target, reader, blocks = f"{url}/ipfs/{root}?format=car&dag-scope=all", CarReader(), []
        async with session.get(target, headers={"Accept": ACCEPT}) as response:
            assert response.status == 200
            assert response.content_type == "application/vnd.ipld.car"
            async for piece in response.content.iter_any():
                blocks += reader.feed(piece)
        reader.close()
        return cls(blocks)


async def files(source: ByRaw | ByCar, cid: Cid, path: str = "") -> dict[str, bytes]:
    """All files of a tree by path; symlinks are left out."""
    kind = node_kind(await source.block(cid))
    if kind == "directory":
        reader, found = DirectoryReader(cid), dict[str, bytes]()
        while wanted := reader.wanted():
            for node in wanted:
                reader.receive(await source.block(node))
        for entry in reader.entries:
            found |= await files(source, entry.cid, f"{path}/{entry.name}".lstrip("/"))
        return found
    if kind == "symlink":
        return {}
    planner = FilePlanner(cid)
    while wanted := planner.wanted():
        for node in wanted:
            planner.receive(await source.block(node))
    return {path: b"".join([payload(leaf, await source.block(leaf.cid)) for leaf in planner.leaves])}


@pytest.mark.parametrize("name", FIXTURES)
async def test_fixtures_by_raw_and_by_car(boxo: Boxo, name: str) -> None:
    """Every file of every fixture, byte for byte, both ways."""
    row = FIXTURES[name]
    with boxo(FOLDER / f"{name}.car") as url:
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            for source in (ByRaw(url, session), await ByCar.fetch(url, row["root"], session)):
                found = await files(source, Cid.parse(row["root"]))
                for path, expected in row["files"].items():
                    if path in found:
                        assert hashlib.sha256(found[path]).hexdigest() == expected["sha256"]
                        assert len(found[path]) == expected["size"]
                assert set(found) <= set(row["files"])
                assert len(found) >= len(row["files"]) - 5  # symlinks


@pytest.mark.parametrize("name", FIXTURES)
async def test_get_every_fixture(boxo: Boxo, tmp_path: Path, name: str) -> None:
    """As a user gets them, by ``get``."""
    row = FIXTURES[name]
    with boxo(FOLDER / f"{name}.car") as url:
        saved = await dnc.get(row["root"], tmp_path / "out", gateways=url)
    for path, expected in row["files"].items():
        if "sha256" in expected:
            data = (saved.path / path if path else saved.path).read_bytes()
            assert hashlib.sha256(data).hexdigest() == expected["sha256"]
    assert saved.files == len([row for row in row["files"].values() if "sha256" in row])


class _Car:
    def __init__(self) -> None:
        self.sections: list[bytes] = []

    def put(self, block: Block) -> None:
        self.sections.append(encode_section(block))


async def published(folder: Path) -> tuple[dict[str, Any], str, Path]:
    """A dataset of ours as a CAR file."""
    rows = {"x": np.random.default_rng(0).normal(size=(3_000, 40)), "y": np.arange(3_000)}
    stream, car = RowStream(rows), _Car()
    _, root = await pack(stream, await stream.open(), 200, car, None)
    await stream.aclose()
    path = folder / "dataset.car"
    path.write_bytes(b"".join([encode_header([root.cid]), *car.sections]))
    return rows, str(root.cid), path


async def test_boxo_serves_what_we_built(boxo: Boxo, tmp_path: Path) -> None:
    """A stream from boxo alone, every row in its place, no block rejected; and boxo walks the DAG to its end."""
    rows, cid, car = await published(tmp_path)
    with boxo(car) as url:
        async with dnc.stream(cid, gateways=[url], disk_budget="2MB", spool_dir=tmp_path / "spool") as batches:
            got = [batch async for batch in batches]
            figures = batches.statistics()
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            source = await ByCar.fetch(url, cid, session)
            assert len(await files(source, Cid.parse(cid))) == 2 * 15 + 1
    assert all((np.concatenate([batch[name] for batch in got]) == rows[name]).all() for name in rows)
    assert (figures.requests_failed, figures.blocks_rejected) == (0, 0)


async def test_boxo_sends_what_we_ask_for_in_cars(boxo: Boxo, tmp_path: Path) -> None:
    """Where its requests are rationed, one brings a whole directory of chunks, and ranges of files bring no more than that."""
    rows, cid, car = await published(tmp_path)
    sent: list[RequestSent] = []

    def observe(event: Event) -> None:
        if isinstance(event, RequestSent):
            sent.append(event)

    with boxo(car) as url:
        rationed = dnc.Gateway(url, requests_per_minute=200)
        async with dnc.Client(
            gateways=rationed, disk_budget="8MB", spool_dir=tmp_path / "spool", observers=[observe]
        ) as client:
            got = [batch async for batch in client.stream(cid)]
            assert len(sent) <= 8
            data = await client.cat(f"{cid}/chunks/000000/000000")
            assert await client.cat(f"{cid}/chunks/000000/000000", 9, 99) == data[9:99]
    assert all((np.concatenate([batch[name] for batch in got]) == rows[name]).all() for name in rows)


async def test_boxo_sends_a_range_and_no_more(boxo: Boxo, tmp_path: Path) -> None:
    """``dag-scope`` and ``entity-bytes`` together, on a file of many leaves."""
    data = np.random.default_rng(1).bytes(2**21)
    blocks, root = build_file(data, dataclasses.replace(UNIXFS_V1_2025, leaf_bytes=2**14))
    path, received = tmp_path / "file.car", list[int]()
    path.write_bytes(b"".join([encode_header([root.cid]), *map(encode_section, blocks)]))

    def observe(event: Event) -> None:
        if isinstance(event, RequestEnded):
            received.append(event.received_bytes)

    with boxo(path) as url:
        async with dnc.Client(gateways=url, disk_budget=0, observers=[observe]) as client:
            assert await client.cat(root.cid, 900_000, 1_100_000) == data[900_000:1_100_000]
    assert 200_000 <= sum(received) <= 300_000


async def test_boxo_and_ours_side_by_side(boxo: Boxo, tmp_path: Path) -> None:
    """One stream over both kinds of gateway, and the same CAR from each, byte for byte."""
    rows, cid, car = await published(tmp_path)
    done = await dnc.upload(rows, batch_size=200, store=tmp_path / "store")
    assert done.cid == cid
    async with GatewayServer(BlockStore.open(tmp_path / "store"), "127.0.0.1", 0) as ours:
        with boxo(car) as url:
            async with dnc.stream(cid, gateways=[url, ours.url], spool_dir=tmp_path / "spool") as batches:
                got = [batch async for batch in batches]
                figures = batches.statistics()
            async with aiohttp.ClientSession(auto_decompress=False) as session:
                bodies = []
                for base in (url, ours.url):
                    target = f"{base}/ipfs/{cid}?format=car&dag-scope=all&car-dups=y"
                    async with session.get(target, headers={"Accept": ACCEPT}) as response:
                        bodies.append(await response.read())
    assert bodies[0] == bodies[1]
    assert all((np.concatenate([batch[name] for batch in got]) == rows[name]).all() for name in rows)
    assert figures.requests_failed == 0


async def test_go_reads_by_our_index(boxo: Boxo, tmp_path: Path) -> None:
    """go-car finds every block of an indexed export where our index says."""
    rows = {"x": np.random.default_rng(0).normal(size=(3_000, 40)), "y": np.arange(3_000)}
    done = await dnc.upload(rows, batch_size=200, store=tmp_path / "store")
    with (tmp_path / "x.car").open("wb") as file:
        export_car(BlockStore.open(tmp_path / "store"), Cid.parse(done.cid), file, indexed=True)
    with boxo("-indexed", tmp_path / "x.car") as url:
        async with dnc.stream(done, gateways=[url], spool_dir=tmp_path / "spool") as batches:
            got = [batch async for batch in batches]
            assert batches.statistics().requests_failed == 0
    assert all((np.concatenate([batch[name] for batch in got]) == rows[name]).all() for name in rows)


@pytest.mark.parametrize("name", FIXTURES)
async def test_we_read_by_gos_index(boxo_program: Path, tmp_path: Path, name: str) -> None:
    """Every fixture, as an indexed CARv2 that go-car made of it, on a plain web server."""
    folder, row = tmp_path / "www", FIXTURES[name]
    folder.mkdir()
    wrap = [boxo_program, "-wrap", FOLDER / f"{name}.car", folder / "x.car"]
    await asyncio.to_thread(subprocess.run, wrap, check=True, timeout=60)
    app = web.Application()
    app.router.add_static("/", folder)
    async with TestServer(app) as server:
        saved = await dnc.get(row["root"], tmp_path / "out", gateways=str(server.make_url("/x.car")))
    assert saved.files == len([row for row in row["files"].values() if "sha256" in row])
