"""The gateway under attack, over real sockets: whatever others do, an ordinary client is answered.

Nothing here says how long anything takes: what is asserted is who is answered while the attackers are still at it.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from dnc_async.ipld.block import Block, make
from dnc_async.ipld.builder import UNIXFS_V1_2025, Root, build_directory, build_file
from dnc_async.ipld.car import CarReader
from dnc_async.ipld.cid import DAG_CBOR, DAG_JSON, Cid
from dnc_async.serve import GatewayServer, NoHooks
from dnc_async.serve.app import HELD_MEMORY, _break_off, _cut
from dnc_async.serve.connections import Connection, ConnectionLimits, most_connections
from dnc_async.serve.outlet import Outlet
from dnc_async.store import BlockStore
from dnc_async.testing.hostile_dags import empty_lists, levels, parent, wide_node

from ..conftest import PATIENCE_S, Shell, until

ORDINARY = make(b"what an ordinary client asks for" * 100)
DEEP = levels(make(bytes(1000)), 3000, 3)
FAN_OUT = levels(make(b"x"), 3000, 2)
WIDE = [wide_node(mark, 2**17) for mark in range(3)]
WIDE_PARENT = parent(WIDE)
LISTS = [empty_lists(codec, 2**17) for codec in (DAG_CBOR, DAG_JSON)]
LARGE, LARGE_ROOT = build_file(bytes(24 * 2**20), UNIXFS_V1_2025)


class CountingStore(BlockStore):
    """Counts what is read."""

    reads: Counter[Cid]

    def read(self, cid: Cid) -> bytes | None:
        self.reads[cid] += 1
        return super().read(cid)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with everything that is asked for here."""
    store = BlockStore.open(tmp_path_factory.mktemp("attacked") / "store", create=True)
    with store.begin() as transaction:
        for block in (ORDINARY, *DEEP, *FAN_OUT, *WIDE, WIDE_PARENT, *LISTS, *LARGE):
            transaction.put(block)
        transaction.commit()
    return store.path


@pytest.fixture
def store(folder: Path) -> CountingStore:
    opened = CountingStore.open(folder)
    opened.reads = Counter()
    return opened


async def ordinary(session: aiohttp.ClientSession, gateway: GatewayServer) -> None:
    """Ask as everyone does, over a new connection, and again where the server says that it is busy."""
    for form in ("raw", "car"):
        headers = {"Connection": "close"}
        async with asyncio.timeout(PATIENCE_S):
            while True:
                async with session.get(f"{gateway.url}/ipfs/{ORDINARY.cid}?format={form}", headers=headers) as response:
                    body = await response.read()
                    if response.status == 200:
                        break
                    assert response.status == 429
                await asyncio.sleep(0.01)
        if form == "raw":
            assert body == ORDINARY.data
        else:
            assert CarReader().feed(body) == [ORDINARY]


@contextlib.asynccontextmanager
async def asked(
    gateway: GatewayServer, path: str, *, method: str = "GET", will_read: bool = False
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Ask without reading the answer, over a connection that holds little.

    With ``will_read`` it holds as much as others do: a large body would come through a tiny buffer as TCP's timers please.
    """
    head = f"{method} /ipfs/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    async with connected(gateway, head, holds_little=not will_read) as streams:
        yield streams


@contextlib.asynccontextmanager
async def connected(
    gateway: GatewayServer, sent: bytes, *, holds_little: bool = True
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    sock = socket.socket()
    if holds_little:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    host, port = gateway.url.removeprefix("http://").split(":")
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=2**12)
    writer.write(sent)
    try:
        await writer.drain()
        yield reader, writer
    finally:
        writer.transport.abort()

        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Read a whole body of known length."""
    head = await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))


async def ended(reader: asyncio.StreamReader) -> None:
    """Read until the server has ended the connection."""
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError):
            while await reader.read(2**16):
                pass


async def test_a_range_of_ten_thousand_million_nodes_is_walked_once(
    store: CountingStore, session: aiohttp.ClientSession
) -> None:
    """Each node's links are followed once, as each block is sent once, however often it comes in the file."""
    async with GatewayServer(store) as gateway:
        for query in ("entity-bytes=1:*", "entity-bytes=500:-500", "dag-scope=entity"):
            url = f"{gateway.url}/ipfs/{DEEP[-1].cid}?format=car&{query}"
            async with session.get(url) as response:
                assert CarReader().feed(await response.read()) == DEEP[::-1]
            async with session.head(url) as response:
                assert response.status == 200
    assert max(store.reads.values()) < 100


async def test_clients_that_hang_up_leave_no_work_behind(store: CountingStore, session: aiohttp.ClientSession) -> None:
    async with GatewayServer(store) as gateway:
        for method, query in (
            ("HEAD", "entity-bytes=1:*"),
            ("GET", "car-dups=y"),
            ("GET", "entity-bytes=1:*&car-dups=y"),
        ):
            for root in (DEEP[-1], FAN_OUT[-1]):
                async with asked(gateway, f"{root.cid}?format=car&{query}", method=method):
                    await until(lambda root=root: store.reads[root.cid])
        await ordinary(session, gateway)
        await until(lambda: not gateway._listener.connections)  # nobody is there any more
        before = store.reads.total()
        await ordinary(session, gateway)
        assert store.reads.total() - before <= 8


@pytest.mark.parametrize("block", [WIDE_PARENT, *LISTS], ids=["links", "cbor", "json"])
async def test_a_node_of_many_links_is_read_in_turns(
    block: Block, store: CountingStore, session: aiohttp.ClientSession
) -> None:
    """The ordinary client, who came last, is answered first."""
    done: list[str] = []

    async def attack() -> None:
        async with aiohttp.ClientSession() as own, own.get(f"{gateway.url}/ipfs/{block.cid}?format=car") as response:
            blocks = CarReader().feed(await response.read())
            assert blocks[0] == block
            done.append("attacker")

    async with GatewayServer(store) as gateway:
        attackers = [asyncio.create_task(attack()) for _ in range(4)]
        await until(lambda: store.reads[block.cid] >= 4)
        await ordinary(session, gateway)
        done.append("ordinary")
        await asyncio.gather(*attackers)
    assert done[0] == "ordinary"
    assert len(done) == 5


async def test_readers_of_very_many_small_blocks_take_turns(
    store: CountingStore, session: aiohttp.ClientSession
) -> None:
    async def attack(reader: asyncio.StreamReader) -> None:
        while await reader.read(2**16):
            pass

    async with GatewayServer(store) as gateway, contextlib.AsyncExitStack() as stack:
        attackers = []
        for _ in range(16):
            opened = asked(gateway, f"{FAN_OUT[-1].cid}?format=car&car-dups=y")
            attackers.append(asyncio.create_task(attack((await stack.enter_async_context(opened))[0])))
        await until(lambda: store.reads.total() > 1000)
        for _ in range(5):
            await ordinary(session, gateway)
        assert not any(attacker.done() for attacker in attackers)
        for attacker in attackers:
            attacker.cancel()
        await asyncio.gather(*attackers, return_exceptions=True)


async def test_clients_that_never_read_make_room(store: CountingStore, session: aiohttp.ClientSession) -> None:
    async with GatewayServer(store, max_requests=4) as gateway, contextlib.AsyncExitStack() as stack:
        readers = []
        for _ in range(4):
            opened = asked(gateway, f"{LARGE_ROOT.cid}?format=car&car-dups=y")
            readers.append((await stack.enter_async_context(opened))[0])
        for _ in range(3):
            await ordinary(session, gateway)


async def test_a_client_that_does_not_read_is_cut_off_after_its_patience(store: CountingStore) -> None:
    async with (
        GatewayServer(store, patience_s=0.05) as gateway,
        asked(gateway, f"{LARGE_ROOT.cid}?format=car&car-dups=y") as (reader, _),
    ):
        await until(lambda: store.reads.total() > 2)
        await until(lambda: not gateway._listener.connections)
        await ended(reader)


@pytest.mark.parametrize("query", ["format=car&car-dups=y", "format=car&dag-scope=block"])
async def test_what_is_not_read_is_not_held_and_comes_when_it_is(store: CountingStore, query: str) -> None:
    """A reader who pauses gets all of it, read again from the store; meanwhile the server holds nothing of it."""
    async with (
        GatewayServer(store) as gateway,
        asked(gateway, f"{LARGE_ROOT.cid}?{query}", will_read=True) as (reader, _),
    ):
        memory = gateway.app[HELD_MEMORY]
        await until(lambda: memory.held_bytes or "block" in query)
        await until(lambda: not memory.held_bytes)
        blocks = CarReader().feed(await read_all(reader))
    assert len(blocks) == (25 if "dups" in query else 1)


async def test_a_raw_block_that_is_not_read_is_not_held(store: CountingStore) -> None:
    block = WIDE[0]
    async with GatewayServer(store) as gateway, contextlib.AsyncExitStack() as stack:
        path = f"{block.cid}?format=raw"
        streams = [await stack.enter_async_context(asked(gateway, path, will_read=True)) for _ in range(4)]
        memory = gateway.app[HELD_MEMORY]
        await until(lambda: store.reads[block.cid] == 4 and not memory.held_bytes)
        for reader, _ in streams:
            assert await read_all(reader) == block.data


async def test_where_memory_is_scarce_everyone_is_served_still(
    store: CountingStore, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dnc_async.serve.app._HELD_BYTES", -1)
    async with GatewayServer(store) as gateway:
        await ordinary(session, gateway)
        async with asked(gateway, f"{LARGE_ROOT.cid}?format=car&car-dups=y", will_read=True) as (reader, _):
            await until(lambda: store.reads.total() > 3)
            assert len(CarReader().feed(await read_all(reader))) == 25
        for block, query in ((LARGE_ROOT, "car-dups=y"), (WIDE_PARENT, ""), (DEEP[-1], "entity-bytes=1:*")):
            async with session.get(f"{gateway.url}/ipfs/{block.cid}?format=car&{query}") as response:
                assert CarReader().feed(await response.read())[0].cid == block.cid


LITTLE = ConnectionLimits(most=8)


@pytest.mark.parametrize(
    "sent", [b"", b"GET /ipfs/", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["silent", "half", "idle"]
)
async def test_connections_without_a_request_make_room(
    sent: bytes, store: CountingStore, session: aiohttp.ClientSession
) -> None:
    async with GatewayServer(store, limits=LITTLE) as gateway, contextlib.AsyncExitStack() as stack:
        readers = [(await stack.enter_async_context(connected(gateway, sent)))[0] for _ in range(20)]
        await ordinary(session, gateway)
        assert gateway._listener.connections <= 8
        for reader in readers[:12]:  # the oldest
            await ended(reader)


async def test_where_every_connection_has_a_request_the_new_one_is_closed(store: CountingStore) -> None:
    async with GatewayServer(store, limits=ConnectionLimits(most=2)) as gateway, contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            opened = asked(gateway, f"{LARGE_ROOT.cid}?format=car&car-dups=y")
            reader = (await stack.enter_async_context(opened))[0]
            await reader.readuntil(b"\r\n\r\n")
        async with connected(gateway, b"") as (refused, _):
            await ended(refused)
        assert gateway._listener.connections == 2


@pytest.mark.parametrize(
    ("limits", "sent"),
    [
        (ConnectionLimits(most=8, head_s=0.05), b""),
        (ConnectionLimits(most=8, head_s=0.05), b"GET /ipfs/x HTTP/1.1\r\na: b\r\n"),
        (ConnectionLimits(most=8, idle_s=0.05), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (ConnectionLimits(most=8, idle_s=0.05), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET "),
        (ConnectionLimits(most=8), b"GET / HTTP/1.1\r\n" + b"a: %s\r\n" % (b"b" * 8000) * 20),
        (ConnectionLimits(most=8, queued_bytes=1000), b"GET / HTTP/1.1\r\n" + b"a: %s\r\n" % (b"b" * 8000) * 20),
    ],
    ids=["silent", "half", "idle", "half of the second", "large", "large too"],
)
async def test_a_connection_has_its_limits(limits: ConnectionLimits, sent: bytes, store: CountingStore) -> None:
    async with GatewayServer(store, limits=limits) as gateway, connected(gateway, sent) as (reader, _):
        await ended(reader)


async def test_who_sends_without_end_while_being_answered_is_cut_off(store: CountingStore) -> None:
    async with GatewayServer(store) as gateway, asked(gateway, f"{LARGE_ROOT.cid}?format=car") as (reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    writer.write(b"x" * 2**16)
                    await writer.drain()
        await until(lambda: not gateway._listener.connections)


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9\r\n\r\n",
        b"GET /ipfs/\x00 HTTP/1.1\r\n: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_a_malformed_request_is_no_traceback(
    sent: bytes, store: CountingStore, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with GatewayServer(store) as gateway:
        with contextlib.suppress(ConnectionError):
            async with connected(gateway, sent) as (reader, writer):
                writer.write_eof()
                await ended(reader)
        await ordinary(session, gateway)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_our_own_faults_keep_their_traceback(
    store: CountingStore,
    session: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "read", lambda _: 1 / 0)
    async with (
        GatewayServer(store) as gateway,
        session.get(f"{gateway.url}/ipfs/{ORDINARY.cid}?format=raw") as response,
    ):
        assert response.status == 500
    assert [record for record in caplog.records if record.exc_info]


async def test_an_answer_that_ends_as_it_is_given_up_is_no_traceback(
    store: CountingStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Where aiohttp stops waiting for a handler in the moment in which that ends, it sets a result that it has cancelled."""
    connections: list[Connection] = []

    class Watching(NoHooks):
        async def admit(self, request: web.Request) -> web.StreamResponse | None:
            connections.append(cast("Connection", request.protocol))
            return None

    async with (
        GatewayServer(store, hooks=Watching()) as gateway,
        asked(gateway, f"{ORDINARY.cid}?format=raw") as (reader, _),
    ):
        await reader.readuntil(b"\r\n\r\n")
        connections[0].log_exception("Unhandled exception", exc_info=asyncio.InvalidStateError())
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_foreign_host_is_refused(store: CountingStore, session: aiohttp.ClientSession) -> None:
    url = f"/ipfs/{ORDINARY.cid}?format=raw"
    async with GatewayServer(store, allowed_hosts=["data.example.org"]) as gateway:
        for host, status in (("evil.example", 403), ("data.example.org", 200), ("localhost:1", 200)):
            async with session.get(gateway.url + url, headers={"Host": host}) as response:
                assert response.status == status, host
                assert (await response.read() == ORDINARY.data) is (status == 200)


async def test_a_name_may_have_a_line_break_in_it(
    tmp_path: Path, session: aiohttp.ClientSession, fill: Callable[[BlockStore, Iterable[Block]], None]
) -> None:
    names = ["a\nb", "c\r\nd", "e\x00", "f\u2028"]
    blocks, root = build_directory([(name, Root(ORDINARY.cid, 1, 1)) for name in names[:2]], UNIXFS_V1_2025)
    store = BlockStore.open(tmp_path / "store", create=True)
    fill(store, [ORDINARY, *blocks])
    async with GatewayServer(store) as gateway:
        for name, status in (("a%0Ab", 200), ("c%0D%0Ad", 200), ("e%00", 404), ("f%E2%80%A8", 404), ("a%0Ac", 404)):
            url = URL(f"{gateway.url}/ipfs/{root.cid}/{name}?format=car", encoded=True)
            async with session.get(url) as response:
                assert response.status == status, name
                if status == 200:
                    assert CarReader().feed(await response.read()) == [*blocks, ORDINARY]
                    assert response.headers["Ipfs-Uri"] == f"ipfs://{root.cid}/{name}"
        async with session.get(URL(f"{gateway.url}/ipns/a%0Ab", encoded=True)) as response:
            assert "IPNS" in await response.text()


async def test_a_client_that_is_gone_before_its_answer_begins_is_no_error(
    store: CountingStore, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    class Gone(NoHooks):
        async def admit(self, request: web.Request) -> web.StreamResponse | None:
            if "gone" in request.query:
                raise ConnectionResetError
            return None

    async with GatewayServer(store, hooks=Gone()) as gateway:
        async with session.get(f"{gateway.url}/ipfs/{ORDINARY.cid}?format=raw&gone") as response:
            assert response.status == 200
        await ordinary(session, gateway)
    assert not caplog.records


async def test_nothing_is_written_to_a_client_that_is_gone() -> None:
    class NobodyThere:
        transport = None

    request = cast("web.Request", NobodyThere())
    with pytest.raises(ConnectionError):
        await Outlet({}, patience_s=1).prepare(request)
    _cut(request)
    _break_off(request)


@pytest.mark.parametrize(("files", "most"), [(None, 2048), (1024, 864), (10**6, 2048), (64, 16)])
def test_connections_leave_room_for_other_files(files: int | None, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnc_async.system.most_files", lambda: files)
    assert most_connections() == most


def test_a_name_can_be_allowed_in_the_shell(shell: Shell, folder: Path) -> None:
    words = (
        "serve",
        "--store",
        folder,
        "--port",
        0,
        "--allow-host",
        "data.example.org",
        "--allow-host",
        "other.example.org",
    )
    with shell.start(*words) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        for host, status in (("data.example.org:80", 200), ("other.example.org", 200), ("evil.example", 403)):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
            connection.request("GET", f"/ipfs/{ORDINARY.cid}?format=raw", headers={"Host": host})
            answer = connection.getresponse()
            assert answer.status == status
            assert status == 200 or b"--allow-host NAME" in answer.read()
            connection.close()


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_whatever_its_readers_do(shell: Shell, folder: Path, number: signal.Signals) -> None:
    with shell.start("serve", "--store", folder, "--port", 0) as process, contextlib.ExitStack() as stack:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        roots = [
            f"{root.cid}?format=car&car-dups=y{more}"
            for root in (LARGE_ROOT, DEEP[-1])
            for more in ("", "&entity-bytes=1:*")
        ]
        for path in [*roots, *roots, f"{WIDE_PARENT.cid}?format=car", f"{WIDE[0].cid}?format=raw"]:
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S))
            client.sendall(f"GET /ipfs/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            client.recv(1)
        stack.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(b"GET ")
        process.send_signal(number)
        try:
            _, said = process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            pytest.fail("it did not end")
    assert process.returncode in {0, 130, 143}
    assert "Traceback" not in said
