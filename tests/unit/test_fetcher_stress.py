"""Any number of wishes, gateways that do whatever they like, and groups that leave at any moment: what must always hold.

Each seed is one run on a clock that jumps when nothing happens, with real worker threads.
"""

from __future__ import annotations

import asyncio
import random
import selectors
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from dnc_async.errors import (
    ChunkUnavailableError,
    GatewayBusyError,
    GatewayError,
    GatewayMissError,
    GatewayNoCarError,
    GatewayOversizeError,
    GatewayRefusedError,
    GatewayTimeoutError,
)
from dnc_async.gateways.dag_range import DagRange, Scope
from dnc_async.gateways.fetcher import Fetcher
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.transport import Arrivals, CarRequest
from dnc_async.gateways.want import BlockWant
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.car import encode_header, encode_section
from dnc_async.ipld.cid import DAG_PB, Cid

from ..conftest import fetcher_over

LEAVES, FILES, SIZE = 24, 6, 2000
NODES = [make(b"root %d" % file, DAG_PB) for file in range(FILES)]
#: The last file's leaves are those of the first once more.
FILES_LEAVES = [
    [make((b"%d %d" % (file % (FILES - 1), i)).ljust(SIZE)) for i in range(LEAVES)] for file in range(FILES)
]
TOTAL = LEAVES * SIZE
BLOCKS = {block.cid: block for file, leaves in enumerate(FILES_LEAVES) for block in [NODES[file], *leaves]}
FOREIGN = [make(b"foreign %d" % i * 40) for i in range(50)] + [
    make(bytes([i]), hash_name="identity") for i in range(50)
]


class JumpingLoop(asyncio.SelectorEventLoop):
    """Where nothing is to be done, and no thread at work, the time of the next timer has come."""

    def __init__(self) -> None:
        self._jumped = 0.0
        self._working = 0
        selector = selectors.DefaultSelector()
        original = selector.select

        def select(timeout: float | None = None) -> list[Any]:
            if timeout is None or self._working:
                return original(timeout)
            events = original(0)
            self._jumped += 0.0 if events else timeout
            return events

        selector.select = select  # type: ignore[method-assign]  # what it adds is the jump
        super().__init__(selector)

    def time(self) -> float:
        return super().time() + self._jumped

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # as any
        running = super().run_in_executor(executor, func, *args)
        self._working += 1
        running.add_done_callback(self._worked)
        return running

    def _worked(self, _: object) -> None:
        self._working -= 1


class Gateway:
    """One that answers as its dice fall: ``honest`` is the chance that it simply does what it was asked."""

    has_cars = True
    is_complete = False

    def __init__(self, name: str, dice: random.Random, honest: float) -> None:
        self.name = name
        self._dice = dice
        self._honest = honest

    async def _wait(self) -> None:
        await anyio.sleep(self._dice.choice([0, 0.001, 0.02, 0.3, 3.0]))

    def _error(self, asked: str) -> GatewayError:
        kind = self._dice.choice(
            [GatewayError, GatewayBusyError, GatewayTimeoutError, GatewayMissError, GatewayRefusedError]
        )
        return kind("as the dice fell", gateway=self.name, cid=asked)

    async def raw(self, cid: Cid, *, limit_bytes: int, arrivals: Arrivals) -> bytes:
        await self._wait()
        data = BLOCKS[cid].data
        if self._dice.random() > self._honest:
            if self._dice.random() < 0.6:
                raise self._error(str(cid))
            data = b"!" + data[1:]
        arrivals.begin()
        arrivals.read(len(data) // 2)
        await self._wait()
        arrivals.read(len(data) - len(data) // 2)
        return data

    async def car(
        self,
        request: CarRequest,
        *,
        limit_bytes: int,
        arrivals: Arrivals,
        feed: Callable[[bytes], Awaitable[bool]],
    ) -> None:
        target, asked = request.target, request.asked
        await self._wait()
        honest = self._dice.random() < self._honest
        if not honest and self._dice.random() < 0.4:
            raise (
                GatewayNoCarError("406", gateway=self.name, cid=asked)
                if self._dice.random() < 0.2
                else self._error(asked)
            )
        arrivals.begin()
        body, size = self._body(target, asked, honest=honest), 0
        while body:
            length = self._dice.randint(1, 9000)
            piece, body = body[:length], body[length:]
            if self._dice.random() < 0.2:
                await self._wait()
            size += len(piece)
            arrivals.read(len(piece))
            if size > limit_bytes:
                raise GatewayOversizeError("too long", gateway=self.name, cid=asked)
            if not await feed(piece):
                return
        if not honest and self._dice.random() < 0.3:
            raise self._error(asked)

    def _body(self, target: str, asked: str, *, honest: bool) -> bytes:
        """The blocks of a file, of a part of it, or of all files; and if it is not honest, anything but."""
        files = range(FILES) if asked == "tree" else [next(i for i, node in enumerate(NODES) if str(node.cid) == asked)]
        blocks = [block for file in files for block in [NODES[file], *FILES_LEAVES[file]]]
        if "entity-bytes=" in target and (honest or self._dice.random() < 0.5):
            first, last = (int(each) for each in target.split("entity-bytes=")[1].split("&", maxsplit=1)[0].split(":"))
            leaves = FILES_LEAVES[files[0]]
            chosen = [leaf for i, leaf in enumerate(leaves) if i * SIZE <= last and (i + 1) * SIZE > first]
            blocks = [NODES[files[0]], *chosen]
        ruins: list[Callable[[], object]] = [
            lambda: self._dice.shuffle(blocks),
            lambda: blocks.extend(blocks),
            lambda: blocks.__delitem__(slice(self._dice.randrange(len(blocks)), None)),
            lambda: blocks.__setitem__(slice(0, 0), self._dice.sample(FOREIGN, 40)),
            lambda: blocks.pop(self._dice.randrange(len(blocks))) if blocks else None,
        ]
        for ruin in () if honest else self._dice.sample(ruins, self._dice.randint(0, 2)):
            ruin()
        body = encode_header([NODES[0].cid]) + b"".join(encode_section(block) for block in blocks)
        if honest:
            return body
        cut = self._dice.randrange(len(body))
        text = b"[Gateway Error: CAR stream truncated, so much is certain]"
        flipped = body[:cut] + bytes([body[cut] ^ 1]) + body[cut + 1 :]
        return self._dice.choice(
            [body, body[:cut], body[:cut] + b"\0" + body[cut:], body + text, flipped, b"\x05hello"]
        )

    async def holds(self, root: Cid) -> bool | None:
        await self._wait()
        return self._dice.choice([True, False, None])

    async def sends_cars(self, root: Cid) -> bool:
        await self._wait()
        return self._dice.choice([True, False])


class Wish:
    """A block that is wanted; it knows what must never happen to it."""

    def __init__(
        self,
        group: FetchGroup,
        block: Block,
        within: list[DagRange],
        priority: int,
        dice: random.Random,
        *,
        ahead: bool,
    ):
        self.block = block
        self.told: list[Exception | None] = []
        self.accepted = 0
        self.given_up = False
        self._writing = threading.Lock()
        self._slow = dice.random() < 0.1
        self.ended = anyio.Event()
        self.want = group.submit(
            block.cid,
            size_bytes=0 if ahead else len(block.data),
            priority=(priority,),
            accept=self._accept,
            done=self._done,
            within=within,
            ahead=ahead,
        )

    def _accept(self, block: Block) -> None:
        with self._writing:
            assert not self.told, "it is written after whoever wanted it was told"
            assert block.data == self.block.data
            self.accepted += 1
            if self._slow:
                threading.Event().wait(0.002)

    def _done(self, _: BlockWant, error: Exception | None) -> None:
        assert not self._writing.locked(), "told while a worker writes it"
        assert not self.given_up, "told, though it was withdrawn"
        assert error is not None or self.accepted == 1
        self.told.append(error)
        self.ended.set()

    async def wait(self) -> None:
        with anyio.fail_after(600):  # of the jumping clock
            await self.ended.wait()

    def settled(self) -> None:
        """It was told once, or never where it was given up; and written once at most."""
        assert len(self.told) == (not self.given_up)
        assert self.accepted <= 1
        assert all(error is None or isinstance(error, ChunkUnavailableError) for error in self.told)


async def consume(fetcher: Fetcher, dice: random.Random, wishes: list[Wish]) -> None:
    """A stream: a file's root, then its leaves, some of which are withdrawn; it may leave at any moment."""
    group = fetcher.open(NODES[dice.randrange(FILES)].cid if dice.random() < 0.5 else None)
    mine: list[Wish] = []
    try:
        with anyio.move_on_after(dice.choice([0.0, 0.01, 0.5, 5.0, 10_000.0])):
            for file in range(dice.randrange(2), FILES):
                start = file * TOTAL
                path = str(NODES[file].cid)
                tree = DagRange("tree", start, start + TOTAL, FILES * TOTAL, Scope.ALL)
                root = Wish(
                    group, NODES[file], [DagRange(path, 0, TOTAL, TOTAL), tree], 0, dice, ahead=dice.random() < 0.8
                )
                mine.append(root)
                await root.wait()
                some: list[Wish] = []
                for i in range(LEAVES):
                    first, last = i * SIZE, (i + 1) * SIZE
                    lies = [DagRange(path, first, last, TOTAL), tree._replace(start=start + first, end=start + last)]
                    some.append(Wish(group, FILES_LEAVES[file][i], lies, 1 + file, dice, ahead=False))
                mine += some
                if dice.random() < 0.3:
                    await anyio.sleep(dice.choice([0, 0.01, 1.0]))
                    gone = [each for each in dice.sample(some, 5) if not each.told]
                    for each in gone:
                        each.given_up = True
                    await group.withdraw([each.want for each in gone])
                for each in some:
                    if not each.given_up:
                        await each.wait()
                await anyio.sleep(dice.choice([0, 0, 0.1, 40.0]))
    finally:
        for each in mine:
            each.given_up = each.given_up or not each.told
        with anyio.CancelScope(shield=True):
            await group.aclose()
        wishes += mine


async def run(seed: int) -> None:
    dice = random.Random(seed)
    honest = dice.choice([0.3, 0.9, 1.0])
    gateways = [Gateway(f"gateway {i}", dice, 1.0 if i == 0 else honest) for i in range(dice.randint(1, 3))]
    first = gateways[:1] if dice.random() < 0.5 else gateways
    wishes: list[Wish] = []
    with ThreadPoolExecutor(2) as executor:
        fetcher = fetcher_over(
            first,
            executor,
            attempts=3,
            requests_per_gateway=dice.choice([2, 8]),
            hedge_share=dice.choice([0.05, 1.0]),
            early_bytes=dice.choice([3000, 40_000, 2**20]),
            hold_s=dice.choice([0.01, 20.0]),
            requests_per_minute=[dice.choice([None, 600.0]) for _ in first],
        )
        async with anyio.create_task_group() as running:
            running.start_soon(fetcher.run)
            with anyio.fail_after(20_000):
                async with anyio.create_task_group() as consumers:
                    for _ in range(dice.randint(1, 4)):
                        consumers.start_soon(consume, fetcher, random.Random(dice.random()), wishes)
                    await anyio.sleep(dice.choice([0, 0.2]))
                    for gateway in gateways[len(first) :]:
                        fetcher.add(gateway)
                while fetcher._requests or not fetcher._delivery.is_idle:  # a worker may still have a block
                    await anyio.lowlevel.checkpoint()
            nothing_is_left(fetcher)
            running.cancel_scope.cancel()
    for wish in wishes:
        wish.settled()
    if honest == 1.0:
        assert all(wish.told == [None] or wish.given_up for wish in wishes)


def nothing_is_left(fetcher: Fetcher) -> None:
    """After everybody has left."""
    assert repr(fetcher._pending) == "<Pending 0 blocks wanted, 0 queued>"
    assert fetcher._delivery.is_idle
    assert fetcher._paused == set()
    assert not fetcher._board.paused_groups
    assert repr(fetcher.readahead).startswith("<Readahead 0 blocks, 0 of")
    for score in fetcher._board.scores:
        assert (score.in_flight, score.in_flight_bytes, score._cars) == (0, 0, {})


@pytest.mark.parametrize("seed", range(60))
def test_nothing_is_lost_and_nothing_is_left(seed: int) -> None:
    """Everybody is told once, with what it wanted if any gateway is honest, and all that was opened is closed."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(run(seed))
