"""A body is read in large pieces, and nothing is late or lost by that: over real sockets, plain and TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
import trustme

from dnc_async.errors import GatewayError, GatewayTimeoutError
from dnc_async.gateways.http import HttpTransport
from dnc_async.gateways.transport import Arrivals
from dnc_async.ipld.cid import Cid

from ..conftest import PATIENCE_S, until

CID = Cid.parse("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy")
BODY = os.urandom(2**18 + 14)
PACKET = 2**13
#: A gateway's silence is an error after so long.
SILENCE_S = 600.0
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a body is read as it comes")


class Host:
    """Sends ``BODY`` to every request, in as many packets as ``let_go`` lets through, and closes after some."""

    def __init__(self) -> None:
        self.sent = 0
        self.let_go = asyncio.Semaphore(10**6)
        self.closes_after = 10**9
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while not self.is_over:
                await reader.readuntil(b"\r\n\r\n")
                await self._answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        kind = b"Content-Type: application/vnd.ipld.raw"
        writer.write(b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: %d\r\n\r\n" % (kind, len(BODY)))
        for at in range(0, len(BODY), PACKET):
            await self.let_go.acquire()
            if self.is_over:
                if writer.get_extra_info(
                    "sslcontext"
                ):  # asyncio would wait for our goodbye before it closes the connection
                    writer.transport.abort()
                return
            writer.write(BODY[at : at + PACKET])
            await writer.drain()
            self.sent += 1
            await asyncio.sleep(0.0005)

    @property
    def is_over(self) -> bool:
        return self.sent >= self.closes_after


class Heard:
    """What came of a body, as it was told."""

    def __init__(self, piece_bytes: int, then: Callable[[], None] = lambda: None) -> None:
        self.sizes = list[int]()
        self.arrivals = Arrivals(self.hear, lambda: piece_bytes)
        self._then = then

    def hear(self, size_bytes: int) -> None:
        self.sizes.append(size_bytes)
        self._then()


@pytest.fixture(params=["http", "https"])
async def host(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Host, HttpTransport]]:
    host, context, trusts = Host(), None, ssl.create_default_context()
    if request.param == "https":
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.configure_trust(trusts)
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    connector = aiohttp.TCPConnector(ssl=trusts)
    timeout = aiohttp.ClientTimeout(total=None, sock_read=SILENCE_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**20) as session:
        yield host, HttpTransport(f"{request.param}://127.0.0.1:{port}", session=session, headers={})
    host.closes_after = 0
    host.let_go = asyncio.Semaphore(10**6)
    server.close()
    await server.wait_closed()


async def fetch(transport: HttpTransport, heard: Heard) -> bytes:
    return b"".join(await transport.raw(CID, limit_bytes=2**20, arrivals=heard.arrivals))


async def test_few_large_pieces(host: tuple[Host, HttpTransport]) -> None:
    """Of 33 packets; one after the other on the same connection, so that what was asked of the socket is taken back."""
    source, transport = host
    for _ in range(3):
        heard = Heard(10**6)
        assert await fetch(transport, heard) == BODY
        assert heard.sizes[0] == 0
        assert sum(heard.sizes) == len(BODY)
        assert len(heard.sizes) < 10
        assert heard.arrivals.unread is None
    assert source.connections == 1


async def test_small_ones_where_those_are_wanted(host: tuple[Host, HttpTransport]) -> None:
    """As before anything is known of the gateway. The next packet is sent when the one before it was heard of."""
    source, transport = host
    source.let_go = asyncio.Semaphore(1)
    heard = Heard(0, source.let_go.release)
    assert await fetch(transport, heard) == BODY
    assert len(heard.sizes) > 15


async def test_what_is_here_is_counted_once(host: tuple[Host, HttpTransport]) -> None:
    """Before it is read, by whoever looks; and not again when it is."""
    source, transport = host
    source.let_go = asyncio.Semaphore(1)
    heard = Heard(10**6)
    fetching = asyncio.create_task(fetch(transport, heard))
    await until(lambda: sum(heard.sizes) >= PACKET)
    for _ in range(4):
        source.let_go.release()
    await until(lambda: source.sent == 5)
    assert sum(heard.sizes) <= 2 * PACKET  # nobody was woken for them

    def seen() -> int:
        heard.arrivals.count_unread()
        return sum(heard.sizes)

    await until(lambda: seen() >= 5 * PACKET)
    assert seen() <= 5 * PACKET + 500  # of TLS, what is around its records, too
    for _ in range(100):
        source.let_go.release()
    heard.arrivals.count_unread()
    assert await fetching == BODY
    assert len(BODY) <= sum(heard.sizes) <= len(BODY) + 500


async def test_a_connection_that_breaks_wakes(host: tuple[Host, HttpTransport]) -> None:
    """However many bytes were awaited."""
    source, transport = host
    source.closes_after = 4
    with pytest.raises(GatewayError, match="connection failed"):
        async with asyncio.timeout(PATIENCE_S):  # sooner than by its silence
            await fetch(transport, Heard(10**6))


async def test_a_stall_is_noticed(host: tuple[Host, HttpTransport], leap: Callable[[float], None]) -> None:
    """As one that is read packet by packet; the next request is answered, on another connection."""
    source, transport = host
    source.let_go = asyncio.Semaphore(4)
    fetching = asyncio.create_task(fetch(transport, Heard(10**6)))
    await until(lambda: source.sent == 4)
    await until(lambda: fetching.done() or leap(SILENCE_S))
    with pytest.raises(GatewayTimeoutError):
        await fetching
    source.let_go = asyncio.Semaphore(10**6)
    assert await fetch(transport, Heard(10**6)) == BODY


async def test_leaving_in_the_middle(host: tuple[Host, HttpTransport]) -> None:
    """Leaves nothing behind."""
    source, transport = host
    source.let_go = asyncio.Semaphore(4)
    heard = Heard(10**6)
    fetching = asyncio.create_task(fetch(transport, heard))
    await until(lambda: source.sent == 4)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    heard.arrivals.count_unread()
    source.let_go = asyncio.Semaphore(10**6)
    assert await fetch(transport, Heard(10**6)) == BODY
