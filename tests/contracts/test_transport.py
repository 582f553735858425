"""The contract of a transport, kept by each: HTTP, an indexed CAR file, the local store, and the simulated gateway."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dnc_async.errors import GatewayError, GatewayMissError, GatewayNoCarError, GatewayOversizeError
from dnc_async.gateways.car_file import CarFileTransport
from dnc_async.gateways.dag_range import CarQuery, Scope
from dnc_async.gateways.http import HttpTransport
from dnc_async.gateways.transport import Arrivals, CarRequest, StoreTransport, Transport
from dnc_async.ipld.block import make
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_file
from dnc_async.ipld.car import CarReader
from dnc_async.ipld.cid import Cid
from dnc_async.store import BlockStore
from dnc_async.store.cars import export_car
from dnc_async.testing import Faults, ScriptedGateway
from dnc_async.testing.simulation.gateway import SimulatedGateway

# aiohttp's FileResponse leaves its file to the garbage collector where the client goes away while it is being opened.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <_io\.FileIO name='.*/www/:pytest.PytestUnraisableExceptionWarning"
)

DATA = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(2**12))
LEAF_BYTES = 2**14
BLOCKS, FILE = build_file(DATA, dataclasses.replace(UNIXFS_V1_2025, leaf_bytes=LEAF_BYTES))
LEAVES = [block for block in BLOCKS if block.cid != FILE.cid]
MISSING = make(b"nobody has this")
LIMIT = 2**21

Open = Callable[[BlockStore, Path, AsyncExitStack], Awaitable[Transport]]


async def http(store: BlockStore, _: Path, stack: AsyncExitStack) -> Transport:
    gateway = await stack.enter_async_context(ScriptedGateway(store))
    session = await stack.enter_async_context(aiohttp.ClientSession())
    return HttpTransport(gateway.url.replace("//", "//user:secret@"), session=session, headers={})


async def car_file(store: BlockStore, folder: Path, stack: AsyncExitStack) -> Transport:
    with (folder / "data.car").open("wb") as sink:
        export_car(store, FILE.cid, sink, indexed=True)
    app = web.Application()
    app.router.add_static("/", folder)
    server = await stack.enter_async_context(TestServer(app))
    session = await stack.enter_async_context(aiohttp.ClientSession())
    return CarFileTransport(
        str(server.make_url("/data.car")), session=session, headers={}, redirect_sessions=lambda *, local: session
    )


async def local_store(store: BlockStore, _: Path, __: AsyncExitStack) -> Transport:
    return StoreTransport("local store", store.read)


async def simulated(_: BlockStore, __: Path, ___: AsyncExitStack) -> Transport:
    blocks = {block.cid: block.data for block in BLOCKS}
    clock = asyncio.get_running_loop().time
    return SimulatedGateway("http://simulated", Faults(), blocks, seed="0", clock=clock, stall_timeout_s=60.0)


@pytest.fixture(params=[http, car_file, local_store, simulated], ids=lambda each: each.__name__)
async def transport(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Transport]:
    store = BlockStore.open(tmp_path / "store", create=True)
    with store.begin() as transaction:
        for block in BLOCKS:
            transaction.put(block)
        transaction.commit(FILE.cid)
    (tmp_path / "www").mkdir()
    async with AsyncExitStack() as stack:
        make_one: Open = request.param
        yield await make_one(store, tmp_path / "www", stack)


class Counted:
    """What was said of one answer's bytes."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.arrivals = Arrivals(self.sizes.append)


async def raw(transport: Transport, cid: Cid, limit_bytes: int, counted: Counted) -> bytes:
    body = await transport.raw(cid, limit_bytes=limit_bytes, arrivals=counted.arrivals)
    return b"".join(body) if isinstance(body, tuple) else body if isinstance(body, bytes) else body()


def whole_file(*, start: int = 0, end: int = len(DATA)) -> CarRequest:
    ask = CarQuery(str(FILE.cid), Scope.ENTITY, start, end, len(DATA))
    leaves = [leaf.cid for leaf in LEAVES[start // LEAF_BYTES : -(-end // LEAF_BYTES)]]
    cids = (FILE.cid, *leaves) if not start else tuple(leaves)
    return CarRequest(target=ask.target(from_root=False), asked=ask.path, cids=cids, expected_bytes=end - start)


async def test_a_block(transport: Transport) -> None:
    """Its bytes as they are, told as they came: the beginning, then each byte once, or nothing where none travelled."""
    for leaf in (LEAVES[0], LEAVES[-1]):
        counted = Counted()
        assert await raw(transport, leaf.cid, LIMIT, counted) == leaf.data
        assert counted.sizes[0] == 0
        assert sum(counted.sizes) in (0, len(leaf.data)) or transport.name.endswith(".car")
        assert sum(counted.sizes) <= 2 * len(leaf.data)


async def test_the_largest_that_may_come(transport: Transport) -> None:
    """A block of just the limit comes; one byte more is refused, and the gateway is named, and the block."""
    leaf = LEAVES[3]
    assert await raw(transport, leaf.cid, len(leaf.data), Counted()) == leaf.data
    with pytest.raises(GatewayOversizeError, match=str(leaf.cid)) as caught:
        await raw(transport, leaf.cid, len(leaf.data) - 1, Counted())
    assert caught.value.gateway == transport.name


async def test_what_it_does_not_have(transport: Transport) -> None:
    """A miss, by which the gateway is not to blame."""
    with pytest.raises(GatewayMissError) as caught:
        await raw(transport, MISSING.cid, LIMIT, Counted())
    assert caught.value.gateway == transport.name
    assert await raw(transport, LEAVES[0].cid, LIMIT, Counted()) == LEAVES[0].data, "it goes on"


async def test_no_secrets(transport: Transport) -> None:
    """What it is called in errors and reports holds no password."""
    assert "secret" not in transport.name
    assert "secret" not in repr(transport)


async def test_a_car(transport: Transport) -> None:
    """All of a file's blocks, in pieces; or none, where it says that it has no CARs."""
    if not transport.has_cars:
        with pytest.raises(GatewayNoCarError):
            await transport.car(whole_file(), limit_bytes=LIMIT, arrivals=Arrivals(), feed=never)
        return
    for start, end in ((0, len(DATA)), (2 * LEAF_BYTES, 4 * LEAF_BYTES)):
        counted = Counted()
        found = await blocks_of(transport, whole_file(start=start, end=end), counted)
        wanted = [leaf.cid for leaf in LEAVES[start // LEAF_BYTES : end // LEAF_BYTES]]
        assert [cid for cid in found if cid in wanted] == wanted
        assert set(found) - set(wanted) <= {FILE.cid}
        assert counted.sizes[0] == 0
        assert sum(counted.sizes) >= (end - start)


async def blocks_of(transport: Transport, request: CarRequest, counted: Counted) -> list[Cid]:
    reader, found = CarReader(), list[Cid]()

    async def feed(piece: bytes) -> bool:
        found.extend(block.cid for block in reader.feed(piece))
        return True

    await transport.car(request, limit_bytes=LIMIT, arrivals=counted.arrivals, feed=feed)
    reader.close()
    return found


async def test_a_car_that_is_enough(transport: Transport) -> None:
    """Nothing more comes after ``feed`` has said so, and it may be asked again."""
    if not transport.has_cars:
        pytest.skip("it has no CARs")
    pieces: list[bytes] = []

    async def feed(piece: bytes) -> bool:
        pieces.append(piece)
        return False

    await transport.car(whole_file(), limit_bytes=LIMIT, arrivals=Arrivals(), feed=feed)
    assert len(pieces) == 1
    assert await raw(transport, LEAVES[0].cid, LIMIT, Counted()) == LEAVES[0].data


async def test_a_car_that_is_too_large(transport: Transport) -> None:
    """It ends where the limit is, with the gateway's name and what was asked for."""
    if not transport.has_cars:
        pytest.skip("it has no CARs")
    size = 0

    async def feed(piece: bytes) -> bool:
        nonlocal size
        size += len(piece)
        return True

    with pytest.raises(GatewayOversizeError, match=str(FILE.cid)) as caught:
        await transport.car(whole_file(), limit_bytes=5 * LEAF_BYTES, arrivals=Arrivals(), feed=feed)
    assert caught.value.gateway == transport.name
    assert size <= 5 * LEAF_BYTES


async def test_a_car_of_what_it_does_not_have(transport: Transport) -> None:
    """An error of the gateway's, and nothing else."""
    target = f"/ipfs/{MISSING.cid}?format=car&dag-scope=block"
    request = CarRequest(target=target, asked=str(MISSING.cid), cids=(MISSING.cid,), expected_bytes=1000)
    with pytest.raises(GatewayError):
        await transport.car(request, limit_bytes=LIMIT, arrivals=Arrivals(), feed=never)


async def test_what_it_says_of_itself(transport: Transport) -> None:
    """Whether it holds a root, where it knows; whether it answers with CARs."""
    assert await transport.holds(FILE.cid) in (True, None)
    assert await transport.holds(MISSING.cid) in (False, None)
    assert await transport.sends_cars(FILE.cid) == (transport.has_cars and not transport.name.endswith(".car")) or (
        transport.name.endswith(".car")
    )


@pytest.mark.parametrize("turns", range(12))
async def test_cancelled(transport: Transport, turns: int) -> None:
    """At any moment, a block or a CAR: nothing of it is left, and the next one comes whole."""
    for asking in (raw(transport, LEAVES[1].cid, LIMIT, Counted()), all_of_it(transport)):
        task = asyncio.ensure_future(asking)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None or isinstance(task.exception(), GatewayNoCarError)
        assert await raw(transport, LEAVES[1].cid, LIMIT, Counted()) == LEAVES[1].data


async def all_of_it(transport: Transport) -> None:
    async def feed(_: bytes) -> bool:
        return True

    await transport.car(whole_file(), limit_bytes=LIMIT, arrivals=Arrivals(), feed=feed)


async def never(_: bytes) -> bool:
    raise AssertionError("no byte should have come")
