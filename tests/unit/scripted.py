"""A gateway whose CARs are scripted step by step, and what is wanted of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel

from dnc_async.errors import GatewayBusyError, GatewayOversizeError
from dnc_async.gateways.dag_range import DagRange, Scope
from dnc_async.gateways.fetcher import Fetcher
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.transport import Arrivals, CarRequest
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.car import encode_header, encode_section
from dnc_async.ipld.cid import DAG_PB, Cid

from ..conftest import PATIENCE_S, fetcher_over

SIZE = 1000
LEAVES = [make(bytes([i]) * SIZE) for i in range(40)]
#: A file's root, as far as the fetcher cares: a node that comes before its leaves.
ROOT = make(b"root", DAG_PB)
TOTAL = SIZE * len(LEAVES)

Step = bytes | anyio.Event | Exception


def sections(*blocks: Block) -> bytes:
    return b"".join(encode_section(block) for block in blocks)


def busy(name: str = "gateway") -> GatewayBusyError:
    return GatewayBusyError("answered 429", gateway=name, cid="", retry_after_s=0.001)


class Gateway:
    """Raw blocks at once, and CARs as scripted: bytes, an event that is waited for, or an error; then its end."""

    def __init__(
        self,
        *cars: Sequence[Step],
        name: str = "gateway",
        header: bytes | None = None,
        raws: dict[Cid, Sequence[Step]] | None = None,
    ) -> None:
        self.name = name
        self.has_cars = bool(cars)
        self.is_complete = False
        self.cars: list[str] = []
        self.raws: list[Cid] = []
        self.probed = 0
        self._header = encode_header([ROOT.cid]) if header is None else header
        self.clock = Clock()
        self._scripts = list(cars)
        self._raws = raws or {}
        self.blocks = {block.cid: block for block in [ROOT, *LEAVES]}

    async def raw(self, cid: Cid, *, limit_bytes: int, arrivals: Arrivals) -> bytes:
        self.raws.append(cid)
        for step in self._raws.get(cid, ()):
            if isinstance(step, anyio.Event):
                await step.wait()
            elif isinstance(step, Exception):
                raise step
        arrivals.begin()
        arrivals.read(len(self.blocks[cid].data))
        return self.blocks[cid].data

    async def car(
        self,
        request: CarRequest,
        *,
        limit_bytes: int,
        arrivals: Arrivals,
        feed: Callable[[bytes], Awaitable[bool]],
    ) -> None:
        target, asked = request.target, request.asked
        self.cars.append(target)
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        size = 0
        arrivals.begin()
        for step in [self._header, *script]:
            if isinstance(step, anyio.Event):
                await step.wait()
            elif isinstance(step, Exception):
                raise step
            else:
                size += len(step)
                self.clock.more += 0.01
                arrivals.read(len(step))
                if size > limit_bytes:
                    raise GatewayOversizeError("sent more", gateway=self.name, cid=asked)
                if not await feed(step):
                    return

    async def holds(self, root: Cid) -> bool | None:
        self.probed += 1
        return None

    async def sends_cars(self, root: Cid) -> bool:
        self.probed += 1
        return bool(self._scripts)


class Clock:
    """The loop's, and a while more for each piece of a CAR, so that none waits for the next to be hashed."""

    def __init__(self) -> None:
        self.more = 0.0

    def __call__(self) -> float:
        return anyio.current_time() + self.more


@asynccontextmanager
async def running(
    *gateways: Gateway, early_bytes: int = 2**20, hold_s: float = 30.0, per_minute: float | None = None
) -> AsyncIterator[Fetcher]:
    """A fetcher that runs; whatever was done with it, no request is left open and no block wanted at the end."""
    clock = Clock()
    for gateway in gateways:
        gateway.clock = clock
    with ThreadPoolExecutor(2) as executor:
        fetcher = fetcher_over(
            gateways,
            executor,
            clock=clock,
            attempts=3,
            patience_s=0.1,
            busy_patience_s=10,
            requests_per_gateway=8,
            in_flight_bytes=2**24,
            early_bytes=early_bytes,
            hold_s=hold_s,
            requests_per_minute=[per_minute] * len(gateways),
        )
        task = asyncio.create_task(fetcher.run())
        with anyio.fail_after(PATIENCE_S):
            yield fetcher
            await until(lambda: not fetcher._requests)
        assert len(fetcher._pending) == 0
        assert fetcher._pending.queued() == []
        assert {(score.in_flight, score.in_flight_bytes) for score in fetcher._board.scores} == {(0, 0)}
        task.cancel()
        await asyncio.wait([task])


async def until(check: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not check():
            await anyio.lowlevel.checkpoint()


async def turns() -> None:
    """Whatever would go wrong at once has time to."""
    for _ in range(100):
        await anyio.lowlevel.checkpoint()


class Wanted:
    """One block that is wanted, and what became of it."""

    def __init__(
        self, group: FetchGroup, block: Block, within: DagRange, *, ahead: bool = False, urgency: int = 1
    ) -> None:
        self.ended: list[Exception | None] = []
        self.got: list[Block] = []
        self.event = anyio.Event()
        self.want = group.submit(
            block.cid,
            size_bytes=len(block.data),
            priority=(urgency, within.start),
            accept=self.got.append,
            done=self._done,
            within=[within],
            ahead=ahead,
        )

    def _done(self, _: BlockWant, error: Exception | None) -> None:
        self.ended.append(error)
        self.event.set()

    async def came(self) -> bool:
        with anyio.fail_after(PATIENCE_S):
            await self.event.wait()
        return self.ended == [None] and len(self.got) == 1


def root(group: FetchGroup, scope: Scope = Scope.ENTITY) -> Wanted:
    """A file's root, whose leaves are wanted next."""
    return Wanted(group, ROOT, DagRange(str(ROOT.cid), 0, TOTAL, TOTAL, scope), ahead=True, urgency=0)


def leaf(group: FetchGroup, i: int) -> Wanted:
    return Wanted(group, LEAVES[i], DagRange(str(ROOT.cid), i * SIZE, (i + 1) * SIZE, TOTAL))
