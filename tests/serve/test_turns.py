"""Who has the next turn in a reading thread, who may be answered, and what is remembered. No sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from dnc_async.errors import DagError
from dnc_async.ipld.block import make
from dnc_async.serve.memory import HeldMemory
from dnc_async.serve.open_blocks import OpenBlocks
from dnc_async.serve.sent_blocks import SentBlocks, SharedMemory
from dnc_async.serve.slots import Answer, Slots, peer_of
from dnc_async.serve.steps import HeldBlock, NotHereError, Steps, finish, take_turn
from dnc_async.serve.turns import ReadingTurns

from ..conftest import PATIENCE_S, until

BLOCKS = [make(bytes([number]) * 1000) for number in range(40)]


@pytest.fixture
async def turns() -> AsyncIterator[ReadingTurns]:
    taking = ReadingTurns(threads=2, long_threads=1)
    yield taking
    taking.close()


class Gate:
    """Work that lasts until it is let go, and notes its order."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.order: list[str] = []

    def held(self, name: str) -> str:
        self.order.append(name)
        assert self.open.wait(PATIENCE_S)
        return name


async def test_who_has_used_least_is_next(turns: ReadingTurns) -> None:
    gate = Gate()
    first = [asyncio.create_task(turns.take(0, lambda: gate.held("held"))) for _ in range(2)]
    await until(lambda: len(gate.order) == 2)
    later = [
        asyncio.create_task(turns.take(used, lambda used=used: gate.order.append(str(used))))
        for used in (30, 10, 0, 20)
    ]
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(*first, *later)
    assert gate.order[2:] == ["0", "10", "20", "30"]


async def test_a_thread_is_kept_for_those_who_had_no_turn_yet(turns: ReadingTurns) -> None:
    gate = Gate()
    long = [asyncio.create_task(turns.take(1, lambda: gate.held("long"))) for _ in range(3)]
    await until(lambda: gate.order == ["long"])
    assert await turns.take(0, lambda: "cheap") == "cheap"
    assert gate.order == ["long"]
    gate.open.set()
    assert await asyncio.gather(*long) == ["long"] * 3


async def test_who_is_cancelled_while_waiting_has_no_turn(turns: ReadingTurns) -> None:
    gate = Gate()
    held = [asyncio.create_task(turns.take(0, lambda: gate.held("held"))) for _ in range(2)]
    await until(lambda: len(gate.order) == 2)
    waiting = asyncio.create_task(turns.take(0, lambda: gate.held("never")))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.open.set()
    await asyncio.gather(*held)
    assert await turns.take(0, lambda: 1) == 1
    assert "never" not in gate.order


async def test_who_is_cancelled_in_a_thread_leaves_when_the_thread_does(turns: ReadingTurns) -> None:
    gate = Gate()
    task = asyncio.create_task(turns.take(0, lambda: gate.held("held")))
    await until(lambda: gate.order)
    task.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done()
    gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.gather(*(turns.take(1, lambda: 1) for _ in range(5))) == [1] * 5


async def test_who_is_cancelled_as_the_turn_is_granted_gives_it_back(turns: ReadingTurns) -> None:
    gate = Gate()
    held = [asyncio.create_task(turns.take(0, lambda: gate.held("held"))) for _ in range(2)]
    await until(lambda: len(gate.order) == 2)
    waiting = asyncio.create_task(turns.take(0, lambda: gate.held("never")))
    await asyncio.sleep(0)
    turns._done()  # grants it
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.open.set()
    await asyncio.gather(*held)
    assert "never" not in gate.order


async def test_an_error_is_the_callers(turns: ReadingTurns) -> None:
    def fail() -> None:
        raise DagError("broken")

    with pytest.raises(DagError, match="broken"):
        await turns.take(0, fail)
    assert await turns.take(0, lambda: 1) == 1


def work(count: int, error: Exception | None = None) -> Steps[str]:
    for block in BLOCKS[:count]:
        yield None
        yield block.cid, block.data
    if error is not None:
        raise error
    return "end"


def test_a_turn_is_so_many_steps_or_bytes() -> None:
    taken = take_turn(work(40), most_steps=50)
    assert (len(taken.blocks), taken.done) == (5, False)
    assert len(take_turn(work(40), most_bytes=2500).blocks) == 3
    assert len(take_turn(work(40), most_bytes=1).blocks) == 1


def test_the_last_turn_has_the_result_or_the_error() -> None:
    last = take_turn(work(2))
    assert (len(last.blocks), last.done, last.result, last.error) == (2, True, "end", None)
    failed = take_turn(work(2, NotHereError(BLOCKS[0].cid)))
    assert (len(failed.blocks), failed.done) == (2, True)
    assert str(BLOCKS[0].cid) in str(failed.error)
    assert finish(work(2)) == "end"


def answer(peer: str, waiting_s: float = 0.0, used: int = 0, cut: list[str] | None = None) -> Answer:
    found = Answer(peer, lambda: None if cut is None else cut.append(peer), HeldMemory(0).account())
    found.waiting_s = lambda: waiting_s
    found.used = used
    return found


def test_where_slots_are_free_everyone_has_one() -> None:
    slots = Slots(2)
    one = answer("a")
    assert slots.admit(one)
    assert slots.admit(answer("a", waiting_s=100))
    slots.leave(one)
    slots.leave(one)
    assert slots.admit(answer("a"))
    assert len(slots) == 2


def test_who_does_not_read_makes_room() -> None:
    slots, cut = Slots(3), list[str]()
    for peer, waiting_s in (("a", 0.1), ("b", 5.0), ("c", 1.0)):
        assert slots.admit(answer(peer, waiting_s, cut=cut))
    assert slots.admit(answer("d", cut=cut))
    assert slots.admit(answer("e", cut=cut))
    assert cut == ["b", "c"]
    assert not slots.admit(answer("f", cut=cut))
    assert len(slots) == 3


def test_who_has_the_most_makes_room_for_who_has_less() -> None:
    slots, cut = Slots(3), list[str]()
    for used in (1, 3, 2):
        assert slots.admit(answer("a", used=used, cut=cut))
    assert not slots.admit(answer("a", cut=cut))
    assert slots.admit(answer("b", cut=cut))
    assert not slots.admit(answer("b", cut=cut))
    assert slots.admit(answer("c", cut=cut))
    assert cut == ["a", "a"]


def test_without_slots_nobody_is_admitted() -> None:
    assert not Slots(0).admit(answer("a"))


def test_an_ipv6_network_is_one_peer() -> None:
    assert peer_of("2001:db8::1") == peer_of("2001:db8::ffff:1") != peer_of("2001:db8:0:1::1")
    assert peer_of("fe80::1%eth0") == peer_of("fe80::2%eth0")
    assert peer_of("192.0.2.1") != peer_of("192.0.2.2")
    assert peer_of("socket") == "socket"
    assert peer_of(None) == ""


def test_memory_is_scarce_above_its_limit_and_an_account_returns_what_it_held() -> None:
    memory = HeldMemory(100)
    one, other = memory.account(), memory.account()
    one.set(60)
    other.set(20)
    other.add(20)
    assert not memory.is_scarce
    one.set(61)
    assert one.is_scarce
    one.close()
    assert memory.held_bytes == 40


def test_what_the_hooks_changed_is_not_let_go() -> None:
    block = HeldBlock(BLOCKS[0].cid, b"other", rereadable=False)
    block.let_go()
    assert block.held_bytes == 5
    HeldBlock(BLOCKS[0].cid, None).change(None)


def test_sent_blocks_are_remembered_as_long_as_there_is_memory() -> None:
    shared = SharedMemory(1024)
    first, second = SentBlocks(shared), SentBlocks(shared)
    cids = [make(number.to_bytes(4)).cid for number in range(4096)]
    assert [first.add(cid) for cid in cids] == [(True, True)] * 4096
    assert [first.add(cid) for cid in cids[:3072]] == [(False, False)] * 3072
    assert first.add(cids[-1]) == (True, True)
    assert [second.add(cid) for cid in cids[:2048]] == [(True, True)] * 2048
    assert [second.add(cid) for cid in cids[:2048]] == [(False, False)] * 2048
    first.close()
    assert shared.take(1024)
    assert not shared.take(1)


def test_a_block_that_was_followed_in_part_is_followed_again_and_not_sent() -> None:
    sent = SentBlocks(SharedMemory(0))
    cid = BLOCKS[0].cid
    assert sent.add(cid, whole=False) == (True, True)
    assert sent.add(cid, whole=False) == (False, True)
    assert sent.add(cid) == (False, True)
    assert sent.add(cid) == sent.add(cid, whole=False) == (False, False)


def test_few_blocks_are_open_at_once() -> None:
    reads: list[int] = []
    blocks = {make(bytes([number]) * 100_000).cid: bytes([number]) * 100_000 for number in range(6)}
    opened = OpenBlocks(lambda cid: (reads.append(1), blocks.get(cid))[1])
    sources = [opened.source(cid) for cid in blocks]
    for source, data in zip(sources, blocks.values(), strict=True):
        assert source.get() == source.get() == data
    assert len(reads) == 6
    assert opened.held_bytes == 200_000
    assert sources[0].get() == blocks[next(iter(blocks))]
    assert len(reads) == 7
    opened.close(sources[0])
    opened.close(sources[1])
    assert opened.held_bytes == 100_000
    opened.empty()
    assert opened.held_bytes == 0
    with pytest.raises(NotHereError):
        opened.load(BLOCKS[0].cid)
