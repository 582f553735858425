"""One block that many want, each at another moment of the first one's way: all get it, and it is fetched once."""

from __future__ import annotations

import threading

import anyio
import pytest

from dnc_async.gateways.fetcher import Fetcher
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld.block import Block

from ..conftest import PATIENCE_S
from .test_open_cars import LEAVES, Gateway, leaf, running, until

BLOCK = LEAVES[0]


class Slow:
    """Somebody who wants the block, and takes it as slowly as the test likes."""

    def __init__(self, group: FetchGroup) -> None:
        self.entered, self.may_end = threading.Event(), threading.Event()
        self.ended: list[Exception | None] = []
        self.want = group.submit(
            BLOCK.cid,
            size_bytes=1000,
            priority=(1,),
            accept=self._accept,
            done=lambda _, error: self.ended.append(error),
        )

    def _accept(self, _: Block) -> None:
        self.entered.set()
        assert self.may_end.wait(PATIENCE_S)

    async def takes(self) -> None:
        await until(self.entered.is_set)


async def test_who_comes_while_it_is_handed_out() -> None:
    """The second comes while a worker has it for the first, the third while it is handed to the second."""
    gateway = Gateway()
    async with running(gateway) as fetcher:
        group = fetcher.open()
        first = Slow(group)
        await first.takes()
        second = Slow(group)
        await turned(fetcher)
        first.may_end.set()
        await second.takes()
        third = Slow(group)
        await turned(fetcher)
        for each in (second, third):
            each.may_end.set()
        await until(lambda: first.ended == second.ended == third.ended == [None])
        assert gateway.raws == [BLOCK.cid]
        await group.aclose()


async def test_who_relied_on_one_that_leaves() -> None:
    """It is asked for again, for those who stay."""
    never = anyio.Event()
    gateway = Gateway(raws={BLOCK.cid: [never]})
    async with running(gateway) as fetcher:
        leaving, staying = fetcher.open(), fetcher.open()
        leaf(leaving, 0)
        await until(lambda: bool(gateway.raws))
        other = leaf(staying, 0)
        await turned(fetcher)
        gateway._raws.clear()
        await leaving.aclose()
        assert await other.came()
        assert len(gateway.raws) == 2
        await staying.aclose()


@pytest.mark.parametrize("many", [2, 300])
async def test_a_block_that_came_early_goes_to_all(many: int) -> None:
    """What was kept is handed out once, to everybody who wants it."""
    gateway = Gateway()
    async with running(gateway) as fetcher:
        group = fetcher.open()
        fetcher.readahead.put(BLOCK, {group})
        wants = [leaf(group, 0) for _ in range(many)]
        for each in wants:
            assert await each.came()
        assert gateway.raws == []
        await group.aclose()


async def turned(fetcher: Fetcher) -> None:
    """The dispatcher has looked at all there is."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
    assert not fetcher._wake.is_set()
