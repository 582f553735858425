"""The gateway and its clients: slow ones, too many, and those that go away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from dnc_async.ipld.block import Block
from dnc_async.ipld.builder import UNIXFS_V1_2025, Root, build_file
from dnc_async.ipld.car import CarReader
from dnc_async.ipld.cid import Cid
from dnc_async.serve import GatewayServer, NoHooks, make_app
from dnc_async.store import BlockStore

from ..conftest import PATIENCE_S, until


async def test_too_many_requests_at_once_are_told_when_to_come_back(
    file: tuple[BlockStore, Root, list[Block]], session: aiohttp.ClientSession
) -> None:
    store, root, _ = file
    waiting, inside = asyncio.Event(), asyncio.Semaphore(0)

    class Slow(NoHooks):
        async def admit(self, request: web.Request) -> web.StreamResponse | None:
            inside.release()
            await waiting.wait()
            return None

    async with GatewayServer(store, hooks=Slow(), max_requests=2) as gateway:

        async def get() -> int:
            async with session.get(f"{gateway.url}/ipfs/{root.cid}?format=raw") as response:
                return response.status

        held = [asyncio.create_task(get()) for _ in range(2)]
        await inside.acquire()
        await inside.acquire()
        async with session.get(f"{gateway.url}/ipfs/{root.cid}?format=raw") as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "1")
        waiting.set()
        assert await asyncio.gather(*held) == [200, 200]
        assert await get() == 200


class CountingStore(BlockStore):
    """Counts what is read."""

    reads = 0

    def read(self, cid: Cid) -> bytes | None:
        self.reads += 1
        return super().read(cid)


@contextlib.asynccontextmanager
async def open_slowly(url: str, path: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Ask without reading the answer, over a connection that holds little."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    host, port = url.removeprefix("http://").split(":")
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**14)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    await writer.drain()
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
def big_store(tmp_path: Path, fill: Callable[[BlockStore, Iterable[Block]], None]) -> tuple[CountingStore, Cid]:
    """A store with a file of 48 MiB, all of whose leaves are the same."""
    store = CountingStore.open(tmp_path / "big", create=True)
    blocks, root = build_file(bytes(48 * 2**20), UNIXFS_V1_2025)
    fill(store, blocks)
    return store, root.cid


async def test_a_slow_client_is_waited_for(big_store: tuple[CountingStore, Cid]) -> None:
    store, root = big_store
    async with (
        GatewayServer(store) as gateway,
        open_slowly(gateway.url, f"/ipfs/{root}?format=car&car-dups=y") as (reader, _),
    ):
        await until(lambda: store.reads >= 3)
        await asyncio.sleep(0.1)
        assert store.reads < 20  # what sockets and two runs hold; the file has 49 blocks
        assert (await reader.read(100)).startswith(b"HTTP/1.1 200 OK")


async def test_a_client_that_goes_away_costs_nothing(big_store: tuple[CountingStore, Cid]) -> None:
    store, root = big_store
    sent: list[asyncio.Task[Any] | None] = []

    class Watching(NoHooks):
        async def admit(self, request: web.Request) -> web.StreamResponse | None:
            sent.append(asyncio.current_task())
            return None

    async with GatewayServer(store, hooks=Watching()) as gateway:
        async with open_slowly(gateway.url, f"/ipfs/{root}?format=car&car-dups=y"):
            await until(lambda: store.reads >= 3)
        await until(lambda: all(task is not None and task.done() for task in sent))
        await asyncio.sleep(0.05)
        assert store.reads < 20


async def test_many_clients_at_once(file: tuple[BlockStore, Root, list[Block]], session: aiohttp.ClientSession) -> None:
    store, root, blocks = file
    async with GatewayServer(store) as gateway:

        async def raw(block: Block) -> None:
            async with session.get(f"{gateway.url}/ipfs/{block.cid}?format=raw") as response:
                assert await response.read() == block.data

        async def car() -> None:
            async with session.get(f"{gateway.url}/ipfs/{root.cid}?format=car") as response:
                reader = CarReader()
                assert reader.feed(await response.read()) == [blocks[-1], *blocks[:-1]]

        await asyncio.gather(*(raw(block) for block in blocks * 5), *(car() for _ in range(6)))


async def test_leaving_ends_connections_and_threads(big_store: tuple[CountingStore, Cid]) -> None:
    store, root = big_store
    before = threading.active_count()
    async with contextlib.AsyncExitStack() as client:
        async with GatewayServer(store) as gateway:
            url = gateway.url
            opened = open_slowly(url, f"/ipfs/{root}?format=car&car-dups=y")
            reader, _ = await client.enter_async_context(opened)
            await reader.read(100)
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(PATIENCE_S):
                while await reader.read(2**16):
                    pass
    assert threading.active_count() == before
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection(*url.removeprefix("http://").split(":"))


async def test_the_application_can_be_mounted_anywhere(
    kubo_store: BlockStore, session: aiohttp.ClientSession, roots: dict[str, Cid]
) -> None:
    outer = web.Application()
    outer.add_subapp("/data/", make_app(kubo_store))
    runner = web.AppRunner(outer)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/data/ipfs/{roots['directory']}/plain.txt?format=car"
        async with session.get(url) as response:
            assert response.status == 200
    finally:
        await runner.cleanup()
