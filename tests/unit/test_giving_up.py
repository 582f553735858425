"""A block that nobody wants any more holds nothing up, however far its request has come."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.lowlevel
import pytest

from dnc_async.errors import GatewayError
from dnc_async.gateways.fetcher import Fetcher
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld.block import make
from dnc_async.ipld.cid import Cid

CID = make(b"a block").cid


class Silent:
    """A gateway that answers when the test is over."""

    name = "silent"
    has_cars = False

    def __init__(self) -> None:
        self.over = anyio.Event()

    async def raw(self, cid: Cid, *, limit_bytes: int, arrived: Callable[[int], None]) -> bytes:
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
        fetcher = Fetcher(
            [gateway],
            executor=executor,
            clock=anyio.current_time,
            attempts=1,
            patience_s=1,
            requests_per_gateway=4,
            in_flight_bytes=2**20,
            hedge_share=0.05,
            early_bytes=2**20,
            hold_s=1,
        )
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
