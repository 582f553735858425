"""Answers as no proper gateway sends them: byte by byte, far too much in one piece, with another answer behind their end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

import dnc_async as dnc
from dnc_async.gateways.http import RAW_TYPE
from dnc_async.ipld.cid import Cid
from dnc_async.store import BlockStore

from .conftest import BATCH, SAMPLES, Published

Answer = Callable[[asyncio.StreamWriter, bytes], Awaitable[None]]


def head(size: int | None) -> bytes:
    framing = "Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}"
    return f"HTTP/1.1 200 OK\r\nContent-Type: {RAW_TYPE}\r\n{framing}\r\n\r\n".encode()


class Odd:
    """A gateway of raw blocks that writes its answers with ``answer``, and counts what it wrote of a flood."""

    def __init__(self, store: BlockStore, answer: Answer) -> None:
        self._store = store
        self._answer = answer
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = request.split(" ", 2)
                block = None
                if method == "GET" and target.endswith("?format=raw"):
                    block = self._store.get(Cid.parse(target.removeprefix("/ipfs/").removesuffix("?format=raw")))
                if block is None:
                    writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                else:
                    await self._answer(writer, block.data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def odd(published: Published, answer: Answer) -> AsyncIterator[tuple[str, Odd]]:
    gateway = Odd(BlockStore.open(published.store), answer)
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", gateway


async def all_right(published: Published, url: str) -> None:
    """All batches have the right rows."""
    count = 0
    async with dnc.stream(published.result, gateways=url, disk_budget="4 MB", spool_dir=published.spool) as stream:
        async for batch in stream:
            published.check(batch, count)
            count += 1
    assert count == SAMPLES // BATCH


@pytest.mark.parametrize("chunked", [False, True])
async def test_byte_by_byte(published: Published, *, chunked: bool) -> None:
    """Each byte is a packet of its own, or a chunk."""

    async def answer(writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(head(None if chunked else len(data)))
        for i in range(len(data)):
            byte = data[i : i + 1]
            writer.write(b"1\r\n" + byte + b"\r\n" if chunked else byte)
            if i < 200:
                await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n" if chunked else b"")

    async with odd(published, answer) as (url, _):
        await all_right(published, url)


async def test_far_too_much_in_one_piece(published: Published) -> None:
    """What is longer than the block may be is not read to its end, and the error says so."""
    sent = 0

    async def answer(writer: asyncio.StreamWriter, data: bytes) -> None:
        nonlocal sent
        writer.write(head(None) + b"4000000\r\n")  # one chunk of 64 MiB
        for _ in range(64):
            writer.write(bytes(2**20))
            await writer.drain()
            sent += 2**20
        writer.write(b"\r\n0\r\n\r\n")

    async with odd(published, answer) as (url, gateway):
        with pytest.raises(dnc.errors.ChunkUnavailableError) as caught:
            await all_right(published, url)
        assert all("over the limit of" in str(each) for each in caught.value.exceptions)
        assert sent < gateway.connections * 2**24


async def test_another_answer_behind_its_end(published: Published) -> None:
    """In the same packet: it is nobody's, and no later request is answered with it."""

    async def answer(writer: asyncio.StreamWriter, data: bytes) -> None:
        stranger = b"another block"
        writer.write(head(len(data)) + data + head(len(stranger)) + stranger)

    async with odd(published, answer) as (url, gateway):
        await all_right(published, url)
        assert gateway.connections > 1
