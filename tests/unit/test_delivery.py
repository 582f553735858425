"""Bodies on their way to their wants: at once where that is quick, else in runs that may wait a moment for each other."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from dnc_async.gateways.delivery import Arrival, BlockDelivery, Verdict
from dnc_async.gateways.pending import Pending
from dnc_async.gateways.request import Request
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.block import Block, Pieces, make

BLOCKS = [make(bytes([i]) * 300_000) for i in range(8)]


class Tasks:
    """A task group whose tasks are run when the test says so."""

    def __init__(self) -> None:
        self.started: list[Coroutine[Any, Any, None]] = []

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        self.started.append(function(*args))

    async def run(self) -> int:
        started, self.started = self.started, []
        for task in started:
            await task
        return len(started)


class Delivery:
    """One of its own, what it concluded, and how often a worker was called."""

    def __init__(self) -> None:
        self.pending, self.tasks, self.hops = Pending(), Tasks(), 0
        self.ended: list[Verdict] = []
        self.accepted: list[Block] = []
        self.on_disk = True
        self.delivery = BlockDelivery(
            self.pending,
            in_worker=self._in_worker,
            thread_clock=lambda: 0.0,
            conclude=lambda _, verdict: self.ended.append(verdict),
            settle=lambda *_: None,
        )

    async def _in_worker(self, function: Callable[..., object], *args: object) -> object:
        self.hops += 1
        return function(*args)

    def arrives(self, number: int, at: float, body: Pieces | Callable[[], bytes] | None = None) -> None:
        block = BLOCKS[number]
        want = BlockWant(
            cid=block.cid,
            size_bytes=block.size_bytes,
            priority=(number,),
            accept=self.accepted.append,
            done=lambda *_: None,
            is_quick=lambda: not self.on_disk,
        )
        self.pending.add(want)
        request = Request(0, [want], None, 0.0, is_hedge=False)
        self.delivery.add_body(Arrival(request, want, body or (block.data,), at))

    async def verify(self, now: float, *, expects_more: bool) -> int:
        self.delivery.verify_arrived(self.tasks, now, expects_more=expects_more)  # type: ignore[arg-type]  # a group by looks
        return await self.tasks.run()


async def test_what_is_only_copied_is_delivered_at_once() -> None:
    """No task and no worker."""
    this = Delivery()
    this.on_disk = False
    this.arrives(0, 0.0)
    assert await this.verify(0.0, expects_more=True) == 0
    assert (this.accepted, this.hops) == ([BLOCKS[0]], 0)


async def test_a_run_waits_for_more_that_is_on_its_way() -> None:
    """Until there is enough for one call of a worker."""
    this = Delivery()
    for number in range(3):
        this.arrives(number, 0.001 * number)
        assert await this.verify(0.001 * number, expects_more=True) == 0
    assert this.delivery.unverified == 3
    this.arrives(3, 0.003)
    assert await this.verify(0.003, expects_more=True) == 1
    assert (this.accepted, this.hops, this.delivery.unverified) == (BLOCKS[:4], 1, 0)


@pytest.mark.parametrize(
    "why", ["nothing more comes", "a moment has passed", "its place is free", "it is yet to be read"]
)
async def test_a_run_waits_no_longer(why: str) -> None:
    """Than there is a reason for it."""
    this = Delivery()
    this.arrives(0, 1.0, (lambda: BLOCKS[0].data) if why == "it is yet to be read" else None)
    if why != "it is yet to be read":
        assert await this.verify(1.0, expects_more=True) == 0
    if why == "its place is free":
        this.delivery.hurry()
    now = this.delivery.due_at if why == "a moment has passed" else 1.0
    assert await this.verify(now, expects_more=why != "nothing more comes") == 1
    assert this.accepted == [BLOCKS[0]]


async def test_what_is_no_block_is_told_of_its_own() -> None:
    """The others of its run are delivered."""
    this = Delivery()
    this.arrives(0, 0.0)
    this.arrives(1, 0.0, (b"another",))
    assert await this.verify(0.0, expects_more=False) == 1
    assert [verdict.block for verdict in this.ended] == [BLOCKS[0], None]
    assert this.accepted == [BLOCKS[0]]


async def test_what_was_not_begun_is_given_back() -> None:
    """When the fetcher ends."""
    this = Delivery()
    this.arrives(0, 0.0)
    await this.verify(0.0, expects_more=True)
    this.arrives(1, 0.0)
    assert [arrival.want.cid for arrival in this.delivery.clear()] == [BLOCKS[0].cid, BLOCKS[1].cid]
    assert this.delivery.is_idle
