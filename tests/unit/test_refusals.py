"""Gateways that refuse, fail or send something else: what is learned of it, and that every block comes all the same."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from dnc_async.errors import GatewayBusyError, GatewayError, GatewayMismatchError, GatewayMissError
from dnc_async.gateways.dag_range import DagRange
from dnc_async.gateways.request import Request
from dnc_async.ipld.block import make
from dnc_async.ipld.cid import DAG_PB, Cid
from dnc_async.telemetry import Event, RequestFailed

from .scripted import LEAVES, ROOT, SIZE, Gateway, Step, Wanted, busy, leaf, root, running, sections, turns, until


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
        places = [DagRange("file", 10**6 + i * SIZE, 10**6 + (i + 1) * SIZE, 10**7) for i in range(40)]
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
        nodes = [Wanted(group, node, DagRange("file", 0, 4, 80)), Wanted(group, other, DagRange("file", 4, 16, 80))]
        for each in nodes:
            assert await each.came()
        await group.aclose()
        assert gateway.cars
        assert fetcher._board.capabilities[0].honours_ranges


async def test_a_late_refusal_is_heeded() -> None:
    """A 429 to a CAR of which nothing is expected any more pauses the gateway like any other."""
    end = anyio.Event()
    error = GatewayBusyError("answered 429", gateway="gateway", cid="", retry_after_s=50.0)
    gateway = Gateway([sections(ROOT), end, error])
    async with running(gateway) as fetcher:
        group, began = fetcher.open(), fetcher.clock()
        assert await root(group).came()
        end.set()
        await until(lambda: not fetcher._requests)
        assert fetcher._board.scores[0].paused_until >= began + 50
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


async def test_probes_are_requests_too() -> None:
    """A gateway that allows so many a minute is not asked for more by way of asking whether it holds a root."""
    gateway = Gateway()
    gateway.blocks |= {block.cid: block for block in LEAVES}
    async with running(gateway, per_minute=10.0) as fetcher:
        began = fetcher.clock()
        groups = [fetcher.open(make(b"root %d" % i).cid) for i in range(20)]
        assert await leaf(groups[0], 0).came()
        await turns()
        assert gateway.probed + len(gateway.raws) <= 10 + (fetcher.clock() - began) * 10 / 60
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
        assert [ability.can_car for ability in fetcher._board.capabilities] == asked
        await group.aclose()


async def test_a_miss_is_not_probed_into_a_failure() -> None:
    """What a probe says of a pause is heeded."""

    class Probed(Gateway):
        async def holds(self, root: Cid) -> bool | None:
            self.probed += 1
            raise GatewayBusyError("answered 429", gateway=self.name, cid="", retry_after_s=50.0)

    gateway = Probed()
    async with running(gateway) as fetcher:
        group, began = fetcher.open(ROOT.cid), fetcher.clock()
        assert await leaf(group, 0).came()
        await until(lambda: gateway.probed == 1)
        await until(lambda: fetcher._board.scores[0].paused_until >= began + 50)
        await group.aclose()


async def test_a_miss_is_not_final_before_the_probe_has_ended() -> None:
    """A gateway that finds blocks by their root alone is asked again when it has said so."""
    answered = anyio.Event()

    class RootsAlone(Gateway):
        async def holds(self, root: Cid) -> bool | None:
            self.probed += 1
            await answered.wait()
            return False

    miss = GatewayMissError("answered 404", gateway="gateway", cid="")
    gateway = RootsAlone(raws={LEAVES[0].cid: [miss]})
    async with running(gateway) as fetcher:
        group = fetcher.open(ROOT.cid)
        wanted = leaf(group, 0)
        await until(lambda: gateway.probed == 1 and not fetcher._requests)
        assert wanted.ended == []
        gateway._raws.clear()
        answered.set()
        assert await wanted.came()
        assert len(gateway.raws) == 2
        await group.aclose()


async def test_a_lie_is_told_although_another_was_faster() -> None:
    """It costs no block, and the report counts it all the same."""
    told: list[Event] = []
    async with running(Gateway()) as fetcher:
        fetcher.observers.add(told.append, RequestFailed)
        group = fetcher.open()
        wanted = leaf(group, 0)
        assert await wanted.came()
        request = Request(0, [wanted.want], None, fetcher.clock(), is_hedge=True)
        fetcher._settling.failed(request, wanted.want, GatewayMismatchError("lied", gateway="gateway", cid=""))
        assert [each.mismatch for each in told if isinstance(each, RequestFailed)] == [True]
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
