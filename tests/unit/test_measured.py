"""A fetcher tells when a gateway's rate becomes known: whoever waits for that need not look again and again."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from dnc_async.errors import GatewayMissError
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.transport import Arrivals
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.cid import Cid

from ..conftest import fetcher_over

BLOCKS = [make(bytes([i]) * 2**20) for i in range(3)]


class Sends:
    """A gateway that has some blocks."""

    has_cars = False
    is_complete = False

    def __init__(self, name: str, *blocks: Block) -> None:
        self.name = name
        self._data = {block.cid: block.data for block in blocks}

    async def raw(self, cid: Cid, *, limit_bytes: int, arrivals: Arrivals) -> bytes:
        data = self._data.get(cid)
        if data is None:
            raise GatewayMissError("does not have it", gateway=self.name, cid=str(cid))
        arrivals.begin()
        arrivals.read(len(data))
        return data

    async def holds(self, root: Cid) -> bool | None:
        return None


async def fetch(group: FetchGroup, block: Block) -> None:
    """Of a known size: what is small measures a request, and no rate."""
    ended = asyncio.Event()
    group.submit(
        block.cid,
        size_bytes=len(block.data),
        priority=(0,),
        accept=lambda _: None,
        done=lambda _, __: ended.set(),
    )
    await ended.wait()


async def test_each_gateway_once() -> None:
    """One that was added, too; a rate that is known already is no news."""
    with ThreadPoolExecutor(1) as executor:
        fetcher = fetcher_over([Sends("first", *BLOCKS[:2])], executor, clock=lambda: 0.0, attempts=3)
        running = asyncio.create_task(fetcher.run())
        group = fetcher.open()
        assert fetcher.measured.changes == 0
        for block in BLOCKS[:2]:
            await fetch(group, block)
            assert fetcher.measured.changes == 1
        fetcher.add(Sends("second", *BLOCKS))
        await fetch(group, BLOCKS[2])
        assert [bool(gateway.rate) for gateway in fetcher.statistics()] == [True, True]
        assert fetcher.measured.changes == 2
        await group.aclose()
        running.cancel()
        await asyncio.wait([running])
