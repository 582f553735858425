"""CARs that bring more than was asked for: no block is lost, and nobody waits in vain."""

from __future__ import annotations

import threading

import anyio
import anyio.lowlevel

from dnc_async.gateways.dag_range import DagRange, Scope
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.car import encode_header
from dnc_async.ipld.cid import DAG_PB

from ..conftest import PATIENCE_S
from .scripted import LEAVES, ROOT, SIZE, TOTAL, Gateway, Wanted, leaf, root, running, sections, until


async def test_a_block_that_is_wanted_while_it_is_hashed() -> None:
    """It came with the CAR that was to bring it, though nobody wanted it yet when a worker looked."""
    more, end = anyio.Event(), anyio.Event()
    gateway = Gateway([sections(ROOT), more, sections(*LEAVES), end])
    async with running(gateway) as fetcher:
        group = fetcher.open()
        assert await root(group).came()
        request = next(iter(fetcher._requests))
        last = leaf(group, len(LEAVES) - 1)  # it is written to a disk, so that a worker hashes
        original, late = fetcher._delivery._in_worker, []

        async def in_worker(*args: object) -> object:
            result = await original(*args)  # type: ignore[arg-type]  # whatever it is
            if more.is_set() and not late:
                late.append(leaf(group, 0))
                await until(lambda: late[0].want in request.wants)
            return result

        fetcher._delivery._in_worker = in_worker  # type: ignore[assignment]  # as above
        more.set()
        await until(lambda: bool(late))
        assert await late[0].came()
        assert await last.came()
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
        await until(lambda: fetcher.readahead.pop(LEAVES[3].cid.multihash) is not None)
        fetcher.readahead.clear()
        assert await leaf(group, 1).came()
        end.set()
        await group.aclose()


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
    place = DagRange("tree", 30 * SIZE, 31 * SIZE, 100 * SIZE, Scope.ALL)
    file = DagRange(str(LEAVES[30].cid), 0, SIZE, SIZE)
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
        with anyio.fail_after(PATIENCE_S):
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
        assert fetcher.readahead._size <= 7 * SIZE
        assert await leaf(group, 20).came()
        await group.aclose()


async def test_who_leaves_takes_along_what_came_for_it() -> None:
    """Neither its CAR nor what that brought is in the way of those who stay."""
    gateway = Gateway([sections(ROOT, *LEAVES), anyio.Event()])
    async with running(gateway, early_bytes=5 * SIZE) as fetcher:
        stays, leaves = fetcher.open(), fetcher.open()
        assert await root(leaves).came()
        await until(lambda: bool(fetcher._paused))
        await leaves.aclose()
        await until(lambda: not fetcher._requests)
        assert not fetcher.readahead.is_full
        assert not fetcher._board.paused_groups
        await stays.aclose()


async def test_nobody_waits_for_what_another_has_not_taken() -> None:
    """One group leaves a CAR half read; the root that another wants does not wait for that."""
    other = make(b"another file", DAG_PB)
    gateway = Gateway([sections(ROOT, *LEAVES), anyio.Event()], [sections(other)])
    gateway.blocks[other.cid] = other
    async with running(gateway, early_bytes=5 * SIZE, per_minute=60_000.0) as fetcher:
        slow, quick = fetcher.open(), fetcher.open()
        assert await root(slow).came()
        await until(lambda: bool(fetcher._paused))
        assert await Wanted(quick, other, DagRange(str(other.cid), 0, TOTAL, TOTAL), ahead=True).came()
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
        await until(lambda: fetcher.readahead.is_full)
        assert fetcher.readahead.pop(inline[0].cid.multihash) is None
        await group.aclose()


async def test_nothing_is_kept_when_nobody_is_there() -> None:
    """What a worker still has in hand when the last group leaves is not kept for the next."""
    more = anyio.Event()
    gateway = Gateway([sections(ROOT), more, sections(*LEAVES)])
    async with running(gateway) as fetcher:
        group = fetcher.open()
        assert await root(group).came()
        leaf(group, 0)  # it is written to a disk, so that a worker hashes
        original = fetcher._delivery._in_worker

        async def in_worker(*args: object) -> object:
            result = await original(*args)  # type: ignore[arg-type]  # whatever it is
            await group.aclose()
            return result

        fetcher._delivery._in_worker = in_worker  # type: ignore[assignment]  # as above
        more.set()
        await until(lambda: not fetcher._requests)
        assert repr(fetcher.readahead).startswith("<Readahead 0 blocks")


async def test_an_urgent_wish_does_not_wait_for_a_patient_one() -> None:
    """The same block is wanted by two: it is asked for when the first of them has its turn."""
    gate = anyio.Event()
    gateway = Gateway(raws={block.cid: [gate] for block in LEAVES[:30]})
    gateway.has_cars = False
    async with running(gateway) as fetcher:
        group = fetcher.open()
        patient = [leaf(group, i) for i in range(40)]
        await until(lambda: len(gateway.raws) == 8)
        urgent = Wanted(group, LEAVES[35], DagRange(str(ROOT.cid), 0, 1, 1), urgency=0)
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
        assert fetcher._pending.first is None


async def test_a_group_may_be_closed_twice_at_once() -> None:
    """Both return, when the worker that has its block is done."""
    gateway, may_end, entered = Gateway(), threading.Event(), threading.Event()

    def accept(_: Block) -> None:
        entered.set()
        assert may_end.wait(PATIENCE_S)

    async with running(gateway) as fetcher:
        group = fetcher.open()
        group.submit(LEAVES[0].cid, size_bytes=SIZE, priority=(0,), accept=accept, done=lambda *_: None)
        await until(entered.is_set)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(group.aclose)
            tasks.start_soon(group.aclose)
            await until(lambda: not len(fetcher._pending))
            may_end.set()
