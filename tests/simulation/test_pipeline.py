"""The stages of one stream: every batch in order, and nothing left, wherever it is cancelled."""

from __future__ import annotations

import anyio
import pytest

from dnc_async.engine.runtime import culprit
from dnc_async.errors import ChunkUnavailableError
from dnc_async.testing import DatasetScript

from .parts import DATA, Mailbox, Parts, cancelled_at_each_turn, parts, run

RAGGED = DatasetScript(samples=20, batch_size=4, row_bytes=1000, kind="ragged")


async def deliver(p: Parts, mailbox: Mailbox) -> None:
    """As a stream does it: the pipeline within its tasks, closed when they have ended."""
    pipeline = None
    try:
        async with anyio.create_task_group() as tasks:
            pipeline = p.pipeline(mailbox, tasks)
            pipeline.wanted()
            await pipeline.run()
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await p.group.aclose()
        if pipeline is not None:
            pipeline.close()


def check_all(p: Parts, mailbox: Mailbox) -> None:
    assert len(mailbox.batches) == 5
    for position, batch in enumerate(mailbox.batches):
        assert p.data.check(batch, 4 * position) == ""


@pytest.mark.parametrize("data", [DATA, RAGGED], ids=["fixed", "ragged"])
@pytest.mark.parametrize("leases", [1, 2, 5])
@pytest.mark.parametrize("gateway", ["latency=20ms", "latency=20ms,rate=100kB,flip=4", "html=5,latency=5ms"])
def test_every_batch_in_order(data: DatasetScript, leases: int, gateway: str) -> None:
    """With a budget of one chunk or of several, and gateways that fail now and then."""

    async def check() -> None:
        async with parts(leases=leases, gateway=gateway, data=data) as p:
            mailbox = Mailbox()
            await deliver(p, mailbox)
            check_all(p, mailbox)
            assert p.disk.peak_bytes - 65536 <= leases * p.cost
            p.nothing_is_left()

    run(check, data=data)


@pytest.mark.parametrize("spool", [True, False], ids=["disk", "no disk"])
@pytest.mark.parametrize("capacity", [1, 3])
def test_small_chunks_stay_in_memory(capacity: int, *, spool: bool) -> None:
    """They are requested together, whatever the budget; the mailbox holds no more than it can."""
    small = DatasetScript(samples=300, batch_size=4, row_bytes=100)

    async def check() -> None:
        async with parts(leases=1, data=small, spool=spool) as p:
            mailbox = Mailbox(capacity=capacity)
            await deliver(p, mailbox)
            assert len(mailbox.batches) == 75
            assert all(p.data.check(batch, 4 * place) == "" for place, batch in enumerate(mailbox.batches))
            assert mailbox.most == capacity
            assert p.governor.statistics().leases == 0
            assert p.disk.peak_bytes <= 65536
            assert p.limit.used_bytes == 0
            p.nothing_is_left()

    run(check, data=small)


@pytest.mark.parametrize("disk", ["full=0.1s-0.5s", "flip=2", "read-error=2", "files=1", "rate=100kB"])
def test_a_faulty_disk(disk: str) -> None:
    """It costs time, and no batch."""

    async def check() -> None:
        async with parts(disk=disk) as p:
            mailbox = Mailbox(taken_s=0.05)
            await deliver(p, mailbox)
            check_all(p, mailbox)
            p.nothing_is_left()

    run(check)


def test_a_block_that_nobody_serves() -> None:
    """Ends the stream when the consumer has got there, with the gateway's name, and leaves nothing."""

    async def check() -> None:
        async with parts(gateway="flip=1") as p:
            with pytest.raises(ExceptionGroup) as caught:
                await deliver(p, Mailbox())
            error = culprit(caught.value)
            assert isinstance(error, ChunkUnavailableError)
            assert "http://gateway" in str(error.exceptions[0])
            p.nothing_is_left()

    run(check)


@pytest.mark.parametrize(
    ("gateway", "disk", "leases"),
    [
        ("latency=20ms", "", 2),
        ("latency=20ms,rate=200kB,flip=5", "flip=3,rate=1MB", 4),
        ("latency=5ms", "full=0.03s-0.2s", 4),
    ],
)
def test_cancelled_at_each_turn(gateway: str, disk: str, leases: int) -> None:
    """No lease, no file, no wanted block, no credit and no account is left; what was handed over is right."""
    small = DatasetScript(samples=8, batch_size=4, row_bytes=700)
    mailboxes: list[Mailbox] = []

    async def work(p: Parts) -> None:
        mailboxes.append(Mailbox(taken_s=0.03))
        await deliver(p, mailboxes[-1])

    def check(p: Parts) -> None:
        for position, batch in enumerate(mailboxes[-1].batches if mailboxes else []):
            assert p.data.check(batch, 4 * position) == ""
        mailboxes.clear()

    turns = cancelled_at_each_turn(work, check, gateway=gateway, disk=disk, leases=leases, data=small)
    assert turns > 30
