"""One request to one gateway: what becomes of each block that it was to bring, and of the gateway's score."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable, Sequence

import anyio
import pytest

from dnc_async.errors import (
    BlockMismatchError,
    GatewayBusyError,
    GatewayError,
    GatewayMismatchError,
    GatewayMissError,
    GatewayOversizeError,
    GatewayTimeoutError,
)
from dnc_async.gateways.capabilities import Capabilities
from dnc_async.gateways.dag_range import CarQuery, DagRange, Scope
from dnc_async.gateways.readahead import Readahead
from dnc_async.gateways.request import Request
from dnc_async.gateways.requester import Requester
from dnc_async.gateways.score import Score
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.block import Block, verify_pieces
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_file
from dnc_async.testing import Faults
from dnc_async.testing.simulation.gateway import SimulatedGateway
from dnc_async.testing.simulation.virtual_loop import VirtualLoop

DATA = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(600))
LEAF_BYTES = 4000
BLOCKS, FILE = build_file(DATA, dataclasses.replace(UNIXFS_V1_2025, leaf_bytes=LEAF_BYTES))
LEAVES = [block for block in BLOCKS if block.cid != FILE.cid]
Ended = tuple[str, type[Exception] | None]


class Events:
    """The fetcher's side of a request: notes how each want ended, once."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.readahead = Readahead(2**20)
        self.hold_s = 1.0
        self.clock = loop.time
        self.ended: dict[BlockWant, Ended] = {}

    def bytes_received(self, gateway: int) -> None:
        """Nobody waits for space."""

    async def deliver(
        self, request: Request, make: Callable[[], Sequence[Block]], size_bytes: int
    ) -> list[tuple[Block, bool]]:
        blocks = make()
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(0.001)  # a worker's hop
        found: list[tuple[Block, bool]] = []
        for block in blocks:
            wants = [want for want in request.wants if want.cid == block.cid]
            for want in wants:
                request.wants.pop(want)
                self.end(want, "delivered", None)
            found.append((block, bool(wants)))
        return found

    def keep_for_later(self, request: Request, block: Block) -> None:
        self.readahead.put(block, request.groups)

    def set_paused(self, request: Request, *, paused: bool) -> None:
        """Nobody looks at it."""

    def end(self, want: BlockWant, how: str, error: type[Exception] | None) -> None:
        assert want not in self.ended, "a want ends once"
        self.ended[want] = how, error


class One:
    """One gateway by its script, and one request to it."""

    def __init__(self, script: str, leaves: Sequence[int], *, car: bool, missing: bool = False) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        blocks = {} if missing else {block.cid: block.data for block in BLOCKS}
        gateway = SimulatedGateway(
            "http://gateway", Faults.parse(script), blocks, seed="0", clock=loop.time, stall_timeout_s=5.0
        )
        self.reported: list[type[Exception]] = []
        self.events, self.score, self.capabilities = Events(loop), Score(), Capabilities(can_car=True)
        self.requester = Requester(0, gateway, self.score, self.capabilities, self.events)
        self.wants = [self._want(i) for i in leaves]
        first, last = self.wants[0].within[0], self.wants[-1].within[0]
        query = CarQuery(str(FILE.cid), Scope.ENTITY, first.start, last.end, len(DATA)) if car else None
        self.request = Request(0, self.wants, query, loop.time(), is_hedge=False)
        self.score.sent_run([(want, want.size_bytes) for want in self.wants], loop.time())
        if query is not None:
            self.score.opened_car(self.request, query)

    def _want(self, i: int) -> BlockWant:
        leaf = LEAVES[i]
        here = DagRange(str(FILE.cid), i * LEAF_BYTES, i * LEAF_BYTES + len(leaf.data), len(DATA))
        return BlockWant(
            cid=leaf.cid,
            size_bytes=len(leaf.data),
            limit_bytes=len(leaf.data),
            within=(here,),
            priority=(i,),
            accept=lambda _: None,
            done=lambda *_: None,
        )

    async def execute(self) -> list[Ended]:
        try:
            await self._execute()
        finally:
            self._conclude()
        return [self.events.ended[want] for want in self.wants]

    async def _execute(self) -> None:
        body = await self.requester.execute(self.request)
        if body is not None:
            assert isinstance(body, tuple)
            want = self.wants[0]
            try:
                verified = verify_pieces(want.cid, body)
                await self.events.deliver(self.request, lambda: [verified], len(verified.data))
            except BlockMismatchError as error:
                self.requester.reject(self.request, want, error)

    def _conclude(self) -> None:
        for want, error in self.request.failures:
            assert error.gateway == "http://gateway"
            if want is None:
                self.reported.append(type(error))
            else:
                self.events.end(want, "failed", type(error))
        self.requester.end(self.request)
        for want in self.request.wants:
            self.events.end(want, "given back", None)

    def nothing_is_left(self) -> None:
        assert set(self.events.ended) == set(self.wants)
        assert (self.score.in_flight, self.score.in_flight_bytes) == (0, 0) or any(
            how == "delivered" for how, _ in self.events.ended.values()
        )
        assert not self.score.has_open_cars


def on_virtual_time(script: str, leaves: Sequence[int], *, car: bool, missing: bool = False) -> tuple[One, list[Ended]]:
    async def whole() -> tuple[One, list[Ended]]:
        one = One(script, leaves, car=car, missing=missing)
        ended = await one.execute()
        one.nothing_is_left()
        return one, ended

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(whole())


DELIVERED, GIVEN_BACK = ("delivered", None), ("given back", None)


@pytest.mark.parametrize(
    ("script", "missing", "expected"),
    [
        ("latency=20ms", False, DELIVERED),
        ("latency=20ms", True, ("failed", GatewayMissError)),
        ("flip=1", False, ("failed", GatewayMismatchError)),
        ("other=1", False, ("failed", GatewayMismatchError)),
        ("cut=100", False, ("failed", GatewayError)),
        ("stall=100", False, ("failed", GatewayTimeoutError)),
        ("html", False, ("failed", GatewayError)),
        ("busy=0s-9s,retry-after=3s", False, ("failed", GatewayBusyError)),
        ("down=0s-", False, ("failed", GatewayError)),
        ("cold", False, ("failed", GatewayMissError)),
    ],
)
def test_a_raw_block(script: str, missing: bool, expected: Ended) -> None:
    """It is delivered, or its gateway failed for it, and the score says for how long nobody should ask there."""
    one, ended = on_virtual_time(script, [2], car=False, missing=missing)
    assert ended == [expected]
    is_blamed = expected[1] not in (None, GatewayMissError)
    assert (one.score.paused_until > 1000.0) == is_blamed
    assert one.request.pause_s == (3.0 if expected[1] is GatewayBusyError else 0.0)
    if expected[1] is GatewayBusyError:
        assert one.score.paused_until >= 1003.0


def test_more_than_it_may_be() -> None:
    """The stranger is longer than the last leaf may be: too much was announced, and none of it read."""
    _, ended = on_virtual_time("other=1", [len(LEAVES) - 1], car=False)
    assert ended in ([("failed", GatewayOversizeError)], [("failed", GatewayMismatchError)])


def test_a_car_brings_a_run() -> None:
    """All of its blocks by one request."""
    one, ended = on_virtual_time("latency=20ms", [1, 2, 3], car=True)
    assert ended == [DELIVERED] * 3
    assert one.capabilities.has_sent_car


def test_no_cars_here() -> None:
    """Nobody is blamed, the blocks are asked for otherwise, and no CAR is asked for again."""
    one, ended = on_virtual_time("no-car", [1, 2, 3], car=True)
    assert ended == [GIVEN_BACK] * 3
    assert not one.capabilities.can_car
    assert one.score.paused_until == 0.0


def test_a_car_that_breaks_off() -> None:
    """What came is kept; the first that did not is the gateway's failure, and is asked of it as a raw block."""
    one, ended = on_virtual_time("cut=9000", [1, 2, 3, 4], car=True)
    assert ended[0] == DELIVERED
    assert ("failed", GatewayError) in ended
    assert ended.index(("failed", GatewayError)) == ended.count(DELIVERED)
    assert one.wants[ended.count(DELIVERED)].raw_only == {0}


def test_a_wrong_block_in_a_car() -> None:
    """The request ends there: what was right is kept, and the gateway is paused."""
    one, ended = on_virtual_time("flip=3", [1, 2, 3, 4], car=True)
    assert ended[0] == DELIVERED
    assert ("failed", GatewayMismatchError) in ended
    assert one.score.rejected == 1
    assert one.score.paused_until > 1000.0


@pytest.mark.parametrize("car", [False, True], ids=["raw", "CAR"])
@pytest.mark.parametrize("script", ["latency=20ms,rate=100kB", "latency=5ms,cut=3000", "latency=5ms,flip=2"])
def test_cancelled_at_each_turn(script: str, car: bool) -> None:
    """Each want ends once: delivered, failed, or given back."""

    async def once(turn: int) -> bool:
        one = One(script, [1, 2, 3] if car else [1], car=car)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        task = asyncio.ensure_future(one.execute())
        loop.at_turn(loop.turns + turn, task.cancel)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
        elif not one.events.ended:
            return False  # before it began
        one.nothing_is_left()
        return not task.cancelled()

    for turn in range(1, 500):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            if runner.run(once(turn)):
                assert turn > 3
                return
    raise AssertionError("it never ends")


def test_withdrawn_before_it_began() -> None:
    """A request whose wants are gone asks nobody."""

    async def whole() -> None:
        one = One("latency=20ms", [1], car=False)
        one.request.remove(one.wants[0])
        await one.requester.execute(one.request)
        assert one.events.ended == {}

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(whole())
