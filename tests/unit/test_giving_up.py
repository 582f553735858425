"""A block that nobody wants any more holds nothing up, however far its request has come."""

import threading
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from dnc_async.errors import GatewayError
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.transport import Arrivals
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.cid import Cid

from ..conftest import PATIENCE_S, fetcher_over

CID = make(b"a block").cid


class Silent:
    """A gateway that answers when the test is over."""

    name = "silent"
    has_cars = False
    is_complete = False

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.asked = 0

    async def raw(self, cid: Cid, *, limit_bytes: int, arrivals: Arrivals) -> bytes:
        self.asked += 1
        await self.over.wait()
        raise GatewayError("the test is over", gateway=self.name, cid=str(cid))


async def turn(turns: int) -> None:
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("turns", range(8))
async def test_at_any_moment(turns: int) -> None:
    """Given up after so many turns of the loop: pending, dispatched, or on the wire."""
    gateway, closed = Silent(), anyio.Event()

    async def close(group: FetchGroup) -> None:
        await group.aclose()
        closed.set()

    with ThreadPoolExecutor(1) as executor:
        fetcher = fetcher_over([gateway], executor)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetcher.run)
            group = fetcher.open()
            group.submit(CID, size_bytes=7, priority=(0,), accept=lambda _: None, done=lambda *_: None)
            await turn(turns)
            tasks.start_soon(close, group)
            await turn(20)
            in_time = closed.is_set()
            gateway.over.set()
            await closed.wait()
            tasks.cancel_scope.cancel()
    assert in_time
    assert fetcher.statistics()[0].in_flight == 0


class Failing(Silent):
    """A gateway whose request fails at the very moment when it is given up."""

    async def raw(self, cid: Cid, *, limit_bytes: int, arrivals: Arrivals) -> bytes:
        try:
            return await super().raw(cid, limit_bytes=limit_bytes, arrivals=arrivals)
        except anyio.get_cancelled_exc_class():
            raise GatewayError("reset by peer", gateway=self.name, cid=str(cid)) from None


@pytest.mark.parametrize("gateway_class", [Silent, Failing])
@pytest.mark.parametrize("turns", range(8))
async def test_some_are_withdrawn(turns: int, gateway_class: type[Silent]) -> None:
    """Nobody is told of them, they are not asked for again, and the group goes on with the others."""
    gateway, told, withdrawn = gateway_class(), [], anyio.Event()

    async def withdraw() -> None:
        await group.withdraw([first, second])
        withdrawn.set()

    with ThreadPoolExecutor(1) as executor:
        fetcher = fetcher_over([gateway], executor, attempts=9, requests_per_gateway=2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetcher.run)
            group = fetcher.open()
            first, second, third = (
                group.submit(
                    CID, size_bytes=7, priority=(n,), accept=lambda _: None, done=lambda want, _: told.append(want)
                )
                for n in range(3)
            )
            await turn(turns)
            tasks.start_soon(withdraw)
            await turn(20)
            assert withdrawn.is_set()
            assert gateway.asked <= 3, "none is asked for again"
            assert set(group._open) == {third}
            await group.withdraw([first, third])
            assert not group._open
            await group.aclose()
            tasks.cancel_scope.cancel()
    assert told == []
    assert fetcher.statistics()[0].in_flight == 0


async def test_withdrawn_while_a_worker_has_it() -> None:
    """The worker that writes the block is waited for: after that its file may be deleted."""
    entered, may_end, ended = threading.Event(), threading.Event(), []

    class Prompt(Silent):
        async def raw(self, cid: Cid, *, limit_bytes: int, arrivals: Arrivals) -> bytes:
            return b"a block"

    def accept(_: Block) -> None:
        entered.set()
        assert may_end.wait(PATIENCE_S)
        ended.append(True)

    with ThreadPoolExecutor(1) as executor:
        fetcher = fetcher_over([Prompt()], executor, requests_per_gateway=2)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetcher.run)
            group = fetcher.open()
            want = group.submit(CID, size_bytes=7, priority=(0,), accept=accept, done=lambda *_: None)
            assert await anyio.to_thread.run_sync(entered.wait, PATIENCE_S)
            tasks.start_soon(group.withdraw, [want])
            await turn(20)
            assert set(group._open) == {want}
            may_end.set()
            await group.withdraw([want])
            assert ended
            tasks.cancel_scope.cancel()
