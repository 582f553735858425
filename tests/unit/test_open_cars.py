"""CARs that bring more than was asked for, and gateways that send something else: no block is lost, nobody waits in vain."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from dnc_async.errors import GatewayBusyError, GatewayError, GatewayOversizeError
from dnc_async.gateways.fetcher import Fetcher
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.spans import Scope, Within
from dnc_async.gateways.transport import Arrivals, CarRequest
from dnc_async.gateways.wanted import WantedBlock
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.car import encode_header, encode_section
from dnc_async.ipld.cid import DAG_PB, Cid

from ..conftest import fetcher_over

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
        arrivals.begins()
        arrivals.brings(len(self.blocks[cid].data))
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
        arrivals.begins()
        for step in [self._header, *script]:
            if isinstance(step, anyio.Event):
                await step.wait()
            elif isinstance(step, Exception):
                raise step
            else:
                size += len(step)
                self.clock.more += 0.01
                arrivals.brings(len(step))
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
            requests_per_gateway=8,
            in_flight_bytes=2**24,
            early_bytes=early_bytes,
            hold_s=hold_s,
            requests_per_minute=[per_minute] * len(gateways),
        )
        task = asyncio.create_task(fetcher.run())
        with anyio.fail_after(20):
            yield fetcher
            await until(lambda: not fetcher._flying)
        assert len(fetcher._order) == 0
        assert fetcher._order.waiting() == []
        assert {(score.in_flight, score.in_flight_bytes) for score in fetcher._board.scores} == {(0, 0)}
        task.cancel()
        await asyncio.wait([task])


async def until(check: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not check():
            await anyio.lowlevel.checkpoint()


async def turns() -> None:
    """Whatever would go wrong at once has time to."""
    for _ in range(100):
        await anyio.lowlevel.checkpoint()


class Wanted:
    """One block that is wanted, and what became of it."""

    def __init__(
        self, group: FetchGroup, block: Block, within: Within, *, ahead: bool = False, urgency: int = 1
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

    def _done(self, _: WantedBlock, error: Exception | None) -> None:
        self.ended.append(error)
        self.event.set()

    async def came(self) -> bool:
        with anyio.fail_after(5):
            await self.event.wait()
        return self.ended == [None] and len(self.got) == 1


def root(group: FetchGroup, scope: Scope = Scope.ENTITY) -> Wanted:
    """A file's root, whose leaves are wanted next."""
    return Wanted(group, ROOT, Within(str(ROOT.cid), 0, TOTAL, TOTAL, scope), ahead=True, urgency=0)


def leaf(group: FetchGroup, i: int) -> Wanted:
    return Wanted(group, LEAVES[i], Within(str(ROOT.cid), i * SIZE, (i + 1) * SIZE, TOTAL))


async def test_a_block_that_is_wanted_while_it_is_hashed() -> None:
    """It came with the CAR that was to bring it, though nobody wanted it yet when a worker looked."""
    more, end = anyio.Event(), anyio.Event()
    gateway = Gateway([sections(ROOT), more, sections(*LEAVES), end])
    async with running(gateway) as fetcher:
        group = fetcher.open()
        assert await root(group).came()
        flight = next(iter(fetcher._flying))
        original, late = fetcher.in_worker, []

        async def in_worker(*args: object) -> object:
            result = await original(*args)  # type: ignore[arg-type]  # whatever it is
            if more.is_set() and not late:
                late.append(leaf(group, 0))
                await until(lambda: late[0].want in flight.wants)
            return result

        fetcher.in_worker = in_worker  # type: ignore[assignment]  # as above
        more.set()
        await until(lambda: bool(late))
        assert await late[0].came()
        assert gateway.raws == []
        end.set()
        await group.aclose()


async def test_what_came_whole_does_not_wait_for_what_comes_next() -> None:
    """A gateway that has the root at hand may have to look for the leaves."""
    header, end = encode_header([ROOT.cid]), anyio.Event()
    gateway = Gateway([header + sections(ROOT), end], header=b"")
    async with running(gateway) as fetcher:
        group = fetcher.open()
        assert await root(group).came()
        await group.aclose()


async def test_what_an_open_car_has_brought_is_not_awaited_of_it() -> None:
    """A second stream wants the root whose CAR is still on its way: that will not come again."""
    end = anyio.Event()
    gateway = Gateway([sections(ROOT, *LEAVES[:2]), end])
    async with running(gateway) as fetcher:
        first, second = fetcher.open(), fetcher.open()
        assert await root(first).came()
        assert await root(second).came()
        assert await leaf(first, 0).came()
        assert await leaf(second, 0).came()
        end.set()
        await first.aclose()
        await second.aclose()


async def test_what_was_forgotten_is_not_awaited_of_an_open_car() -> None:
    """It came before it was wanted, and was kept for a moment only."""
    end = anyio.Event()
    gateway = Gateway([sections(ROOT, *LEAVES[:4]), end])
    async with running(gateway) as fetcher:
        group = fetcher.open()
        assert await root(group).came()
        await until(lambda: fetcher.early.take(LEAVES[3].cid.multihash) is not None)
        fetcher.early.clear()
        assert await leaf(group, 1).came()
        end.set()
        await group.aclose()


@pytest.mark.parametrize("error", [busy, lambda: GatewayError("broke", gateway="gateway", cid="")])
@pytest.mark.parametrize("per_minute", [None, 60_000.0])
async def test_cars_that_always_fail(error: Callable[[], GatewayError], per_minute: float | None) -> None:
    """Raw blocks are the only MUST: what fails as a CAR is tried as a block before anybody is told that it is nowhere."""
    gateway = Gateway([error()])
    async with running(gateway, per_minute=per_minute) as fetcher:
        group = fetcher.open()
        wanted = [root(group), *(leaf(group, i) for i in range(12))]
        for each in wanted:
            assert await each.came()
        await group.aclose()
    assert gateway.cars


async def test_cars_that_are_too_long() -> None:
    """A gateway that sends the file from its start, in a form where that does not show, has the blocks all the same."""
    leaves = [make(bytes([i]) * SIZE, DAG_PB) for i in range(40)]
    gateway = Gateway([sections(make(bytes([i % 256]) * 2**20, DAG_PB)) for i in range(6)])
    gateway.blocks |= {block.cid: block for block in leaves}
    async with running(gateway, per_minute=60_000.0) as fetcher:
        group = fetcher.open()
        places = [Within("file", 10**6 + i * SIZE, 10**6 + (i + 1) * SIZE, 10**7) for i in range(40)]
        wanted = [Wanted(group, block, place) for block, place in zip(leaves, places, strict=True)]
        for each in wanted:
            assert await each.came()
        await group.aclose()
        assert len(gateway.cars) == 1
        assert fetcher.statistics()[0].failures == 0


async def test_a_node_that_was_taken_for_a_leaf() -> None:
    """Its children come with it, and lie in the range: the gateway did what was asked."""
    node, other = make(b"node", DAG_PB), make(b"another node", DAG_PB)
    gateway = Gateway([sections(node, *LEAVES[:3], other, *LEAVES[3:6])])
    gateway.blocks |= {node.cid: node, other.cid: other}
    async with running(gateway, per_minute=60_000.0) as fetcher:
        group = fetcher.open()
        nodes = [Wanted(group, node, Within("file", 0, 4, 80)), Wanted(group, other, Within("file", 4, 16, 80))]
        for each in nodes:
            assert await each.came()
        await group.aclose()
        assert gateway.cars
        assert fetcher._board.abilities[0].keeps_ranges


async def test_a_car_that_we_break_off_is_not_cut_short() -> None:
    """All that was wanted has come, and more follows: that says nothing about the gateway's next CAR of this file."""
    extra = sections(ROOT)
    gateway = Gateway([sections(*LEAVES[:8]) + extra[:20], extra[20:]])
    async with running(gateway, per_minute=60_000.0) as fetcher:
        group = fetcher.open()
        for each in [leaf(group, i) for i in range(8)]:
            assert await each.came()
        for each in [leaf(group, i) for i in range(8)]:
            assert await each.came()
        await group.aclose()
    assert len(gateway.cars) == 2


async def test_what_lies_before_the_first_that_is_wanted_is_not_kept() -> None:
    """A directory's CAR begins with its first file: nobody will take what comes before the one that is wanted."""
    place = Within("tree", 30 * SIZE, 31 * SIZE, 100 * SIZE, Scope.ALL)
    file = Within(str(LEAVES[30].cid), 0, SIZE, SIZE)
    gateway = Gateway([sections(*LEAVES[:10]), sections(*LEAVES[10:20]), sections(*LEAVES[20:31])])
    async with running(gateway, per_minute=60_000.0, early_bytes=5 * SIZE) as fetcher:
        group, came = fetcher.open(), anyio.Event()
        group.submit(
            LEAVES[30].cid,
            size_bytes=SIZE,
            priority=(0,),
            accept=lambda _: None,
            done=lambda *_: came.set(),
            within=[file, place],
        )
        with anyio.fail_after(5):
            await came.wait()
        await group.aclose()
    assert gateway.raws == []


async def test_a_leaf_that_is_wanted_is_read_on_for() -> None:
    """Though nobody takes what lies before it: memory stays bounded, and that is asked for again."""
    more = anyio.Event()
    gateway = Gateway([sections(ROOT), more, *(sections(each) for each in LEAVES)])
    async with running(gateway, early_bytes=5 * SIZE) as fetcher:
        group = fetcher.open()
        assert await root(group).came()
        last = leaf(group, 39)
        more.set()
        assert await last.came()
        assert fetcher.early._size <= 7 * SIZE
        assert await leaf(group, 20).came()
        await group.aclose()


async def test_who_leaves_takes_along_what_came_for_it() -> None:
    """Neither its CAR nor what that brought is in the way of those who stay."""
    gateway = Gateway([sections(ROOT, *LEAVES), anyio.Event()])
    async with running(gateway, early_bytes=5 * SIZE) as fetcher:
        stays, leaves = fetcher.open(), fetcher.open()
        assert await root(leaves).came()
        await until(lambda: bool(fetcher._holding))
        await leaves.aclose()
        await until(lambda: not fetcher._flying)
        assert not fetcher.early.is_full
        assert not fetcher._board.holds_ahead
        await stays.aclose()


async def test_nobody_waits_for_what_another_has_not_taken() -> None:
    """One group leaves a CAR half read; the root that another wants does not wait for that."""
    other = make(b"another file", DAG_PB)
    gateway = Gateway([sections(ROOT, *LEAVES), anyio.Event()], [sections(other)])
    gateway.blocks[other.cid] = other
    async with running(gateway, early_bytes=5 * SIZE, per_minute=60_000.0) as fetcher:
        slow, quick = fetcher.open(), fetcher.open()
        assert await root(slow).came()
        await until(lambda: bool(fetcher._holding))
        assert await Wanted(quick, other, Within(str(other.cid), 0, TOTAL, TOTAL), ahead=True).came()
        await quick.aclose()
        await slow.aclose()


async def test_small_blocks_are_counted_with_what_they_take() -> None:
    """Of blocks of three bytes a gateway could send millions within a limit on bytes; an identity CID nobody will want."""
    tiny = [make(i.to_bytes(3, "big")) for i in range(4000)]
    inline = [make(bytes([i]), hash_name="identity") for i in range(200)]
    end = anyio.Event()
    gateway = Gateway([sections(ROOT, *inline), sections(*tiny[:2000]), sections(*tiny[2000:]), end])
    async with running(gateway, early_bytes=100_000) as fetcher:
        group = fetcher.open()
        assert await root(group).came()
        await until(lambda: fetcher.early.is_full)
        assert fetcher.early.take(inline[0].cid.multihash) is None
        await group.aclose()


async def test_nothing_is_kept_when_nobody_is_there() -> None:
    """What a worker still has in hand when the last group leaves is not kept for the next."""
    more = anyio.Event()
    gateway = Gateway([sections(ROOT), more, sections(*LEAVES)])
    async with running(gateway) as fetcher:
        group = fetcher.open()
        assert await root(group).came()
        original = fetcher.in_worker

        async def in_worker(*args: object) -> object:
            result = await original(*args)  # type: ignore[arg-type]  # whatever it is
            await group.aclose()
            return result

        fetcher.in_worker = in_worker  # type: ignore[assignment]  # as above
        more.set()
        await until(lambda: not fetcher._flying)
        assert repr(fetcher.early).startswith("<EarlyBlocks 0 blocks")


async def test_a_late_refusal_is_heeded() -> None:
    """A 429 to a CAR of which nothing is expected any more pauses the gateway like any other."""
    end = anyio.Event()
    error = GatewayBusyError("answered 429", gateway="gateway", cid="", retry_after_s=50.0)
    gateway = Gateway([sections(ROOT), end, error])
    async with running(gateway) as fetcher:
        group = fetcher.open()
        assert await root(group).came()
        end.set()
        await until(lambda: not fetcher._flying)
        assert fetcher._board.scores[0].paused_until > fetcher.clock() + 40
        await group.aclose()


async def test_a_gateway_that_failed_once_is_better_than_one_that_never_ends() -> None:
    """A block that one gateway failed for, and that another begins and never ends, is asked of the first again."""
    never = anyio.Event()
    cid = LEAVES[0].cid
    first = Gateway(name="first", raws={cid: []})
    first._raws[cid] = steps = [GatewayError("broke", gateway="first", cid="")]
    second = Gateway(name="second", raws={cid: [never]})
    async with running(first, second) as fetcher:
        group = fetcher.open()
        for i in range(1, 4):
            assert await leaf(group, i).came()
        fetcher._board.scores[1].paused_until = fetcher.clock() + 0.01
        wanted = leaf(group, 0)
        await until(lambda: cid in first.raws and cid in second.raws)
        steps.clear()
        assert await wanted.came()
        await group.aclose()


async def test_an_urgent_wish_does_not_wait_for_a_patient_one() -> None:
    """The same block is wanted by two: it is asked for when the first of them has its turn."""
    gate = anyio.Event()
    gateway = Gateway(raws={block.cid: [gate] for block in LEAVES[:30]})
    gateway.has_cars = False
    async with running(gateway) as fetcher:
        group = fetcher.open()
        patient = [leaf(group, i) for i in range(40)]
        await until(lambda: len(gateway.raws) == 8)
        urgent = Wanted(group, LEAVES[35], Within(str(ROOT.cid), 0, 1, 1), urgency=0)
        gate.set()
        for each in [urgent, *patient]:
            assert await each.came()
        await group.aclose()
    assert gateway.raws.index(LEAVES[35].cid) <= 9


async def test_many_that_are_given_up_are_forgotten() -> None:
    """Each holds what its block was to be written to."""
    gateway = Gateway(raws={block.cid: [anyio.Event()] for block in LEAVES})
    async with running(gateway) as fetcher:
        group = fetcher.open()
        for _ in range(300):
            for i in range(40):
                leaf(group, i)
        await until(lambda: bool(gateway.raws))
        await group.aclose()
        assert fetcher._order.first is None


async def test_a_group_may_be_closed_twice_at_once() -> None:
    """Both return, when the worker that has its block is done."""
    gateway, may_end, entered = Gateway(), threading.Event(), threading.Event()

    def accept(_: Block) -> None:
        entered.set()
        may_end.wait(10)

    async with running(gateway) as fetcher:
        group = fetcher.open()
        group.submit(LEAVES[0].cid, size_bytes=SIZE, priority=(0,), accept=accept, done=lambda *_: None)
        await until(entered.is_set)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(group.aclose)
            tasks.start_soon(group.aclose)
            await until(lambda: not len(fetcher._order))
            may_end.set()


async def test_probes_are_requests_too() -> None:
    """A gateway that allows so many a minute is not asked for more by way of asking whether it holds a root."""
    gateway = Gateway()
    gateway.blocks |= {block.cid: block for block in LEAVES}
    async with running(gateway, per_minute=10.0) as fetcher:
        groups = [fetcher.open(make(b"root %d" % i).cid) for i in range(20)]
        assert await leaf(groups[0], 0).came()
        await turns()
        assert gateway.probed + len(gateway.raws) <= 10
        for group in groups:
            await group.aclose()


async def test_several_without_cars_are_found_out_at_once() -> None:
    """Beside the first useful request the others are asked for one, so that they do not refuse useful ones one by one."""

    class Refusing(Gateway):
        async def sends_cars(self, root: Cid) -> bool:
            self.probed += 1
            return False

        async def holds(self, root: Cid) -> bool | None:
            return None

    gateways = [Refusing([busy()], name=name) for name in ("one", "two", "three")]
    async with running(*gateways) as fetcher:
        group = fetcher.open(ROOT.cid)
        assert await leaf(group, 0).came()
        asked = [bool(gateway.raws) for gateway in gateways]
        assert sum(asked) == 1
        await turns()
        assert [gateway.probed for gateway in gateways] == [not each for each in asked]
        assert [ability.can_car for ability in fetcher._board.abilities] == asked
        await group.aclose()


async def test_a_miss_is_not_probed_into_a_failure() -> None:
    """What a probe says of a pause is heeded."""

    class Probed(Gateway):
        async def holds(self, root: Cid) -> bool | None:
            self.probed += 1
            raise GatewayBusyError("answered 429", gateway=self.name, cid="", retry_after_s=50.0)

    gateway = Probed()
    async with running(gateway) as fetcher:
        group = fetcher.open(ROOT.cid)
        assert await leaf(group, 0).came()
        await until(lambda: gateway.probed == 1)
        await turns()
        assert fetcher._board.scores[0].paused_until > fetcher.clock() + 40
        await group.aclose()


@pytest.mark.parametrize("has_cars", [False, True])
async def test_a_mistake_of_ours_costs_a_request(caplog: pytest.LogCaptureFixture, has_cars: bool) -> None:
    """Not the engine: it is logged with all we know, and another gateway is asked."""
    mistakes: list[Step] = [ZeroDivisionError("ours")]
    broken = Gateway(*([mistakes] if has_cars else []), name="broken", raws={block.cid: mistakes for block in LEAVES})
    async with running(broken, Gateway(name="sound")) as fetcher:
        group = fetcher.open()
        for i in range(4):
            assert await leaf(group, i).came()
        await group.aclose()
    assert broken.raws or broken.cars
    assert "ZeroDivisionError: ours" in caplog.text
