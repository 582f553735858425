"""Chunks on their way out of their files: to their rows, or away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from dnc_async.condition import Condition
from dnc_async.engine.chunks import Chunk, State
from dnc_async.engine.placement import Placement
from dnc_async.engine.sink import Sink
from dnc_async.engine.starvation import Starvation
from dnc_async.engine.tiering import Tiering
from dnc_async.ipld.block import verify
from dnc_async.ipld.plan import payload
from dnc_async.spool.governor import Account

from .parts import Borrower, Parts, cancelled_at_each_turn, parts, run


@dataclass
class Tier:
    """A tiering, and what it told."""

    tiering: Tiering
    placement: Placement
    account: Account
    dropped: list[Chunk] = field(default_factory=list)
    damaged: list[dict[int, str]] = field(default_factory=list)


@asynccontextmanager
async def tier(p: Parts) -> AsyncIterator[Tier]:
    """A tiering whose tasks have ended when this has."""
    account = p.governor.open(floor_bytes=p.cost, borrower=Borrower())
    placement = p.placement(account)
    dropped: list[Chunk] = []
    damaged: list[dict[int, str]] = []
    try:
        async with anyio.create_task_group() as tasks:
            tiering = Tiering(
                tasks=tasks,
                placement=placement,
                progress=p.progress,
                change=Condition(),
                group=p.group,
                starvation=Starvation(window_bytes=lambda: 0.0),
                clock=p.loop.time,
                thread_clock=lambda: 0.0,
                dropped=dropped.append,
                damaged=lambda _, __, leaves: damaged.append(leaves),
            )
            yield Tier(tiering, placement, account, dropped, damaged)
    finally:
        account.close()


async def staged(p: Parts, it: Tier, number: int) -> tuple[Chunk, Sink]:
    """A chunk in its file, whole."""
    chunk = p.chunk(number)
    chunk.sink = sink = await it.placement.find(chunk)
    assert sink is not None
    assert sink.is_on_disk
    for leaf in chunk.leaves:
        sink.write_at(leaf.offset, payload(leaf, verify(leaf.cid, p.data.blocks[leaf.cid])))
    return chunk, sink


def next_batch_has_rows(p: Parts) -> None:
    p.progress.complete = p.progress.taken = 1


def test_not_before_its_rows_are_free() -> None:
    """A chunk of a later batch stays where it is."""

    async def check() -> None:
        async with parts() as p:
            async with tier(p) as it:
                chunk, sink = await staged(p, it, 2)
                it.tiering.promote_if_due(chunk)
                assert chunk.state is State.STAGED
                sink.discard()
            p.nothing_is_left()

    run(check)


def test_promoted() -> None:
    """Its bytes are in its rows, its file is gone and its lease released, before anybody takes the batch."""

    async def check() -> None:
        async with parts() as p:
            async with tier(p) as it:
                pair = [await staged(p, it, number) for number in (2, 3)]
                next_batch_has_rows(p)
                for chunk, _ in pair:
                    it.tiering.promote_if_due(chunk)
                    assert chunk.state is State.PROMOTING
                    it.tiering.evict_if_staged(chunk)
                    assert chunk.state is State.PROMOTING, "it gives its lease back by itself"
                for chunk, _ in pair:
                    await chunk.ready.wait()
            assert p.governor.statistics().leased_bytes == 0
            rows = it.placement.rows(p.batch(1))
            for chunk, _ in pair:
                rows.finish(chunk.part)
            batch = it.placement.complete(p.batch(1))
            assert isinstance(batch, dict)
            assert p.data.check(batch, 4) == ""
            assert it.damaged == []
            p.nothing_is_left()

    run(check)


def test_what_the_disk_lost_is_told() -> None:
    """By offset, and why; the chunk has its rows all the same, where it comes again."""

    async def check() -> None:
        async with parts(disk="flip=1") as p:
            async with tier(p) as it:
                chunk, _ = await staged(p, it, 2)
                next_batch_has_rows(p)
                it.tiering.promote_if_due(chunk)
                await chunk.ready.wait()
            assert chunk.state is State.PLACED
            assert [list(leaves) for leaves in it.damaged] == [[0]]
            p.nothing_is_left()

    run(check)


def test_evicted() -> None:
    """It has no file and no lease, and asks for space again in its turn; one that failed does not."""

    async def check() -> None:
        async with parts() as p:
            async with tier(p) as it:
                chunk, _ = await staged(p, it, 2)
                failed, _ = await staged(p, it, 3)
                failed.error = ValueError("of its own")
                it.tiering.evict_if_staged(chunk)
                it.tiering.evict_if_staged(failed)
                assert chunk.state is State.EVICTING
            assert (chunk.state, chunk.sink) == (State.PLANNED, None)
            assert it.dropped == [chunk]
            p.nothing_is_left()

    run(check)


def test_cancelled_at_each_turn() -> None:
    """Promoted or evicted: whoever owns the chunk finds either its file or none, and frees it."""

    async def work(p: Parts) -> None:
        chunks: list[Chunk] = []
        try:
            async with tier(p) as it:
                for number in (2, 3):
                    chunk, _ = await staged(p, it, number)
                    chunks.append(chunk)
                it.tiering.evict_if_staged(chunks[1])
                next_batch_has_rows(p)
                it.tiering.promote_if_due(chunks[0])
                await chunks[0].ready.wait()
        finally:
            for chunk in chunks:
                if chunk.sink is not None:
                    chunk.sink.discard()

    assert cancelled_at_each_turn(work, lambda _: None) > 3
