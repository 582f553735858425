"""Where a chunk finds its space: its rows, a leased file, or nowhere for now."""

from __future__ import annotations

import anyio

from dnc_async.dataset.batch import BatchBuffer
from dnc_async.engine.chunks import State
from dnc_async.errors import DiskFullError
from dnc_async.testing import DatasetScript

from .parts import Borrower, Parts, cancelled_at_each_turn, parts, run


def test_the_first_batch_has_its_rows() -> None:
    """It costs no lease."""

    async def check() -> None:
        async with parts() as p:
            account = p.governor.open(floor_bytes=p.cost, borrower=Borrower())
            chunk = p.chunk(1)
            sink = await p.placement(account).find(chunk)
            assert sink is not None
            assert not sink.is_on_disk
            assert chunk.state is State.PLACED
            assert p.governor.statistics().leased_bytes == 0
            account.close()
            p.nothing_is_left()

    run(check)


def test_later_ones_have_files_as_far_as_the_budget_goes() -> None:
    """In plan order; the one that is refused has no space, and no state but that it is planned."""

    async def check() -> None:
        async with parts(leases=2) as p:
            account = p.governor.open(floor_bytes=p.cost, borrower=Borrower())
            placement = p.placement(account)
            sinks = [await placement.find(chunk) for chunk in (p.chunk(2), p.chunk(3))]
            assert all(sink is not None and sink.is_on_disk for sink in sinks)
            assert p.governor.statistics().leased_bytes == 2 * p.cost
            assert p.disk.used_bytes == p.disk.peak_bytes, "nothing is written before it is asked for"
            refused = p.chunk(4)
            assert await placement.find(refused) is None
            assert refused.state is State.PLANNED
            for sink in sinks:
                assert sink is not None
                sink.discard()
            sink = await placement.find(refused)
            assert sink is not None
            sink.discard()
            account.close()
            p.nothing_is_left()

    run(check)


def test_in_memory_alone() -> None:
    """Without a spool what has no rows has no space, unless it is small."""
    large = DatasetScript(samples=20, batch_size=4, row_bytes=3000)

    async def check() -> None:
        async with parts(spool=False, data=large) as p:
            account = p.governor.open(floor_bytes=0, borrower=Borrower())
            placement = p.placement(account)
            assert await placement.find(p.chunk(0)) is not None
            assert await placement.find(p.chunk(2)) is None
            p.progress.complete = p.progress.taken = 1
            assert await placement.find(p.chunk(2)) is not None
            account.close()
            p.nothing_is_left()

    run(check, data=large)


def test_a_full_disk_is_tried_before_anything_is_asked_for() -> None:
    """The file is made first; where that fails its lease is released, and the pause is longer."""

    async def check() -> None:
        async with parts(disk="full=0.05s-10s") as p:
            account = p.governor.open(floor_bytes=p.cost, borrower=Borrower())
            placement = p.placement(account)
            await anyio.sleep(0.1)
            p.backoff.refused(DiskFullError("full"))
            assert await placement.find(p.chunk(2)) is None, "it pauses"
            await anyio.sleep(p.backoff.wait_s)
            assert await placement.find(p.chunk(2)) is None
            assert p.governor.statistics().leased_bytes == 0
            assert p.backoff.wait_s > 0.5
            account.close()
            p.nothing_is_left()

    run(check)


def test_cancelled_while_it_tries_the_disk() -> None:
    """Wherever that is: the file and its lease are gone."""

    async def work(p: Parts) -> None:
        account = p.governor.open(floor_bytes=p.cost, borrower=Borrower())
        try:
            p.backoff.refused(DiskFullError("full"))
            await anyio.sleep(p.backoff.wait_s)
            sink = await p.placement(account).find(p.chunk(2))
            assert sink is not None
            sink.discard()
        finally:
            account.close()

    assert cancelled_at_each_turn(work, lambda _: None) > 3


def test_rows_are_made_once_and_handed_out_whole() -> None:
    """Both halves of a batch share one buffer, which is held no more when it is complete."""

    async def check() -> None:
        async with parts() as p:
            account = p.governor.open(floor_bytes=p.cost, borrower=Borrower())
            placement = p.placement(account)
            rows = placement.rows(p.batch(0))
            assert isinstance(rows, BatchBuffer)
            assert placement.rows(p.batch(0)) is rows
            assert placement.rows(p.batch(1)) is not rows
            for part in range(2):
                rows.place(part, p.chunk(part).entry.size_bytes)
            batch = placement.complete(p.batch(0))
            assert isinstance(batch, dict)
            assert len(batch["y"]) == 4
            assert placement.rows(p.batch(0)) is not rows
            account.close()

    run(check)
