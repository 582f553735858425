"""``python -m bench ipld``: how fast IPFS's formats are read and made, as ratios to what cannot be avoided.

Everything is measured in one run, each pair interleaved, best of the repeats. ``ratio`` is bare ``hashlib.sha256`` over the
same bytes (or a plain aiohttp server that sends the same bytes) divided by ours: 1.0 would mean that only hashing costs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import numpy as np
from aiohttp import web

import dnc_async as dnc
from bench.table import Line, show
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.builder import UNIXFS_V1_2025, FileBuilder, Root, build_directory
from dnc_async.ipld.car import CarReader, encode_header, encode_section
from dnc_async.ipld.cid import RAW, Cid
from dnc_async.ipld.directory import DirectoryReader
from dnc_async.ipld.plan import FilePlanner
from dnc_async.serve.server import GatewayServer
from dnc_async.store import BlockStore
from dnc_async.store.cars import export_car

_PIECE = 2**18


def main(arguments: Sequence[str]) -> int:
    """Print the table; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(prog="python -m bench ipld", description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--memory", type=int, metavar="MB", help=argparse.SUPPRESS)  # the child of _memory
    options = parser.parse_args(arguments)
    if options.memory is not None:
        sys.stdout.write(f"{_flat(options.memory)}\n")
        return 0
    return show(_lines(options.repeats), as_json=options.json)


def _lines(repeats: int) -> Iterator[Line]:
    data = np.random.default_rng(0).bytes(64 * 2**20)
    yield _ratio("CAR parse and verify, 1 MiB blocks, of bare sha256", 0.85, *_car(data, 2**20), repeats)
    yield _ratio("CAR parse and verify, 4 KiB blocks, of bare sha256", 0.6, *_car(data[: 2**24], 4096), repeats)
    yield _ratio("UnixFS build of one large file, of bare sha256", 0.7, *_build(data), repeats)
    yield _limit("plan of a 1 GiB file of 256 KiB leaves", 20, _plan(), repeats)
    yield from _directory(repeats)
    yield from asyncio.run(_serve(repeats))
    yield from asyncio.run(_beside_boxo(repeats))
    yield _memory()
    yield _serving_memory()


def _ratio(what: str, target: float, base: Callable[[], None], ours: Callable[[], None], repeats: int) -> Line:
    pairs = [(_seconds(base), _seconds(ours)) for _ in range(repeats)]
    ratio = statistics.median(plain / mine for plain, mine in pairs)
    return Line.least(what, ratio, target)


def _limit(what: str, target_ms: float, ours: Callable[[], None], repeats: int) -> Line:
    taken = statistics.median(_seconds(ours) for _ in range(repeats)) * 1e3
    return Line.most(what, taken, target_ms, "ms")


def _seconds(function: Callable[[], None]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _car(data: bytes, size: int) -> tuple[Callable[[], None], Callable[[], None]]:
    blocks = [make(data[start : start + size], RAW) for start in range(0, len(data), size)]
    car = b"".join([encode_header([blocks[0].cid]), *map(encode_section, blocks)])

    pieces = [car[start : start + _PIECE] for start in range(0, len(car), _PIECE)]  # as a socket gives them

    def bare() -> None:
        for start in range(0, len(data), size):
            hashlib.sha256(data[start : start + size]).digest()

    def ours() -> None:
        reader, count = CarReader(), 0
        for piece in pieces:
            count += len(reader.feed(piece))
        reader.close()
        assert count == len(blocks)  # noqa: S101 - a bench that measured nothing would look fast

    return bare, ours


def _build(data: bytes) -> tuple[Callable[[], None], Callable[[], None]]:
    def bare() -> None:
        for start in range(0, len(data), 2**20):
            hashlib.sha256(data[start : start + 2**20]).digest()

    def ours() -> None:
        builder, view = FileBuilder(UNIXFS_V1_2025), memoryview(data)
        for start in range(0, len(data), _PIECE):
            builder.feed(view[start : start + _PIECE])
        builder.finish()

    return bare, ours


def _plan() -> Callable[[], None]:
    # The same 256 KiB 4096 times: only the intermediate nodes matter, and there are as many as in any file.
    profile = replace(UNIXFS_V1_2025, leaf_bytes=2**18, links_per_node=174)
    builder, nodes = FileBuilder(profile), dict[bytes, Block]()
    piece = bytes(2**18)
    for _ in range(4096):
        nodes.update((block.cid.multihash, block) for block in builder.feed(piece) if block.cid.codec != RAW)
    last, root = builder.finish()
    nodes.update((block.cid.multihash, block) for block in last)

    def ours() -> None:
        planner = FilePlanner(root.cid)
        while wanted := planner.wanted():
            for cid in wanted:
                planner.receive(nodes[cid.multihash])
        assert len(planner.leaves) == 4096  # noqa: S101 - see above

    return ours


def _directory(repeats: int) -> list[Line]:
    leaf = make(b"leaf", RAW)
    entries = [(f"file-{number:06d}.bin", Root(leaf.cid, 4, 4)) for number in range(20_000)]
    blocks, root = build_directory(entries, UNIXFS_V1_2025)
    found = {block.cid.multihash: block for block in blocks}

    def build() -> None:
        build_directory(entries, UNIXFS_V1_2025)

    def read() -> None:
        reader = DirectoryReader(root.cid)
        while wanted := reader.wanted():
            for cid in wanted:
                reader.receive(found[cid.multihash])
        assert len(reader.entries) == 20_000  # noqa: S101 - see above

    return [
        _limit("HAMT directory of 20,000 entries: build", 500, build, repeats),
        _limit("HAMT directory of 20,000 entries: read", 300, read, repeats),
    ]


async def _serve(repeats: int) -> list[Line]:
    """Our gateway beside a plain aiohttp server that sends the same bytes from a file; one client, one connection each."""
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as name:
        folder = Path(name)
        rows = {"x": np.random.default_rng(1).integers(0, 256, (64, 2**20), dtype=np.uint8)}
        done = await dnc.upload(rows, batch_size=64, store=folder / "store")
        store = BlockStore.open(folder / "store")
        body = await _fetch_car(store, done.cid)
        raw = [block.cid for block in CarReader().feed(body) if block.cid.codec == RAW]
        car = await _plain(folder, body)
        gateway = GatewayServer(store, "127.0.0.1", 0)
        async with gateway, aiohttp.ClientSession() as session:
            ours = [f"{gateway.url}/ipfs/{done.cid}?format=car&dag-scope=all"]
            lines = [
                await _compare("serve: one CAR, of plain aiohttp", session, car.urls, ours, repeats),
                await _compare_raw(session, gateway.url, store, raw, folder, repeats),
            ]
        await car.close()
        return lines


@dataclass(slots=True)
class _Plain:
    urls: list[str]
    runner: web.AppRunner

    async def close(self) -> None:
        await self.runner.cleanup()


async def _plain(folder: Path, *bodies: bytes) -> _Plain:
    served = folder / "plain"
    served.mkdir(exist_ok=True)
    for number, body in enumerate(bodies):
        (served / str(number)).write_bytes(body)
    app = web.Application()
    app.router.add_static("/", served)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    return _Plain([f"{base}/{number}" for number in range(len(bodies))], runner)


async def _fetch_car(store: BlockStore, cid: str) -> bytes:
    async with (
        GatewayServer(store, "127.0.0.1", 0) as gateway,
        aiohttp.ClientSession() as session,
        session.get(f"{gateway.url}/ipfs/{cid}?format=car&dag-scope=all") as response,
    ):
        return await response.read()


async def _compare_raw(
    session: aiohttp.ClientSession, url: str, store: BlockStore, cids: Sequence[Cid], folder: Path, repeats: int
) -> Line:
    plain = await _plain(folder, *(store.read(cid) or b"" for cid in cids))
    try:
        ours = [f"{url}/ipfs/{cid}?format=raw" for cid in cids]
        return await _compare("serve: raw 1 MiB blocks, of plain aiohttp", session, plain.urls, ours, repeats)
    finally:
        await plain.close()


async def _compare(
    what: str, session: aiohttp.ClientSession, plain: Sequence[str], ours: Sequence[str], repeats: int
) -> Line:
    async def read(urls: Sequence[str]) -> float:
        began, size = time.perf_counter(), 0
        for url in urls:
            async with session.get(url) as response:
                response.raise_for_status()
                async for piece in response.content.iter_any():
                    size += len(piece)
        return size / (time.perf_counter() - began)

    await read(plain), await read(ours)
    ratio = statistics.median([await read(ours) / await read(plain) for _ in range(repeats)])
    return Line.least(what, ratio, 0.8)


def _memory() -> Line:
    """Growth of a process that builds and reads a CAR of 2 GB, over that of one of 10 MB."""
    small, large = (
        int(
            subprocess.run(  # noqa: S603 - ourselves
                [sys.executable, "-m", "bench", "ipld", "--memory", str(megabytes)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for megabytes in (10, 2000)
    )
    more = (large - small) / 2**10
    return Line.most("memory: build and read 2 GB, over 10 MB", more, 8, "MB")


async def _beside_boxo(repeats: int) -> list[Line]:
    """Our gateway and boxo's, each in a process of its own, with the same CAR of 64 MB; nothing where there is no Go."""
    go = shutil.which("go")
    if go is None:
        sys.stderr.write("no Go here: boxo's gateway is left out\n")
        return []
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as name:
        folder, program = Path(name), Path(name) / "boxo"
        source = Path(__file__).parent.parent / "tests" / "interop" / "boxo"
        subprocess.run([go, "build", "-o", program, "."], cwd=source, check=True)  # noqa: S603, ASYNC221 - a bench
        store, root = _stored(folder / "store", 64)
        with (folder / "x.car").open("wb") as file:
            export_car(store, root, file)
        ours = [sys.executable, "-m", "dnc_async", "serve", "--store", str(store.path), "--port", "0", "--stop-on-eof"]
        query = f"/ipfs/{root}?format=car&dag-scope=all"
        with _announced([str(program), str(folder / "x.car")]) as (boxo, _), _announced(ours) as (mine, _):
            async with aiohttp.ClientSession() as session:
                what = "serve: one CAR, of boxo's gateway"
                return [await _compare(what, session, [boxo + query], [mine + query], repeats)]


@contextlib.contextmanager
def _announced(command: Sequence[str]) -> Iterator[tuple[str, int]]:
    """A program that prints its URL when it is ready and ends when its standard input does: its URL and process."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:  # noqa: S603 - ours, or built by us
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.stdin.close()


def _stored(path: Path, megabytes: int) -> tuple[BlockStore, Cid]:
    """A file in a store, no two megabytes of it alike."""
    store, piece = BlockStore.open(path, create=True), np.random.default_rng(0).bytes(10**6)
    with store.begin() as transaction:
        builder = FileBuilder(UNIXFS_V1_2025)
        for number in range(megabytes):
            for block in builder.feed(number.to_bytes(8, "big") + piece[8:]):
                transaction.put(block)
        last, root = builder.finish()
        for block in last:
            transaction.put(block)
        transaction.commit(root.cid)
    return store, root.cid


def _serving_memory() -> Line:
    """Growth of a gateway's process after a CAR of 2 GB, over that after one of 10 MB; to one client, which reads it all."""
    small, large = (asyncio.run(_grown(megabytes)) for megabytes in (10, 2000))
    more = (large - small) / 2**10
    return Line.most("memory: serve a CAR of 2 GB, over 10 MB", more, 8, "MB")


async def _grown(megabytes: int) -> int:
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as name:
        store, root = _stored(Path(name) / "store", megabytes)
        command = [
            sys.executable,
            "-m",
            "dnc_async",
            "serve",
            "--store",
            str(store.path),
            "--port",
            "0",
            "--stop-on-eof",
        ]
        with _announced(command) as (url, pid):
            size = 0
            async with aiohttp.ClientSession() as session, session.get(f"{url}/ipfs/{root}?format=car") as response:
                async for data in response.content.iter_any():
                    size += len(data)
            assert size > megabytes * 10**6  # noqa: S101 - see above
            status = Path(f"/proc/{pid}/status").read_text()  # noqa: ASYNC240 - a bench
            return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def _flat(megabytes: int) -> int:
    builder, reader = FileBuilder(UNIXFS_V1_2025), CarReader()
    reader.feed(encode_header([make(b"", RAW).cid]))
    rng = np.random.default_rng(0)
    for _ in range(megabytes):
        for block in builder.feed(rng.bytes(10**6)):
            reader.feed(encode_section(block))
    for block in builder.finish()[0]:
        reader.feed(encode_section(block))
    reader.close()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
