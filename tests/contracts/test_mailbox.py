"""The contract of a mailbox's two sides, kept by both: within a process, and between two."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from dnc_async.engine.ledger import ChunkTimes, Handover
from dnc_async.engine.mailbox import BatchReceiver, BatchSender, Found, Mailbox, Receiver
from dnc_async.errors import DecodeError, StreamClosedError

from ..conftest import until

if sys.platform == "linux":
    from dnc_async.engine.process.channel import Channel
    from dnc_async.engine.process.inbox import Inbox
    from dnc_async.engine.process.messages import Awaits, Took
    from dnc_async.engine.process.outbox import Outbox


@dataclass
class Clock:
    """Stands still until it is set."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Pair:
    """Both sides, and what the engine heard of the consumer."""

    sender: BatchSender
    receiver: BatchReceiver
    clock: Clock
    taken: list[Handover]
    heard_waits: list[None]
    #: Whatever lies in the channel is looked for: between processes a thread does that.
    look: Callable[[], object]

    def put(self, number: int, *, transformed: float = 0.0) -> None:
        self.sender.put({"x": np.full(3, number)}, samples=3, chunks=(ChunkTimes(),), transformed=transformed)
        self.sender.wake()

    async def found(self) -> tuple[Found, Any]:
        """What comes, when it has come."""
        result: list[tuple[Found, Any]] = []

        def look() -> bool:
            found, batch = self.receiver.take()
            if found is not Found.NOTHING:
                result.append((found, batch))
            return bool(result)

        await until(look)
        return result[0]


def within(clock: Clock) -> Pair:
    taken: list[Handover] = []
    waits: list[None] = []
    mailbox = Mailbox(clock=clock)
    receiver = Receiver(mailbox, on_taken=taken.append, on_wait=lambda: waits.append(None))
    return Pair(mailbox, receiver, clock, taken, waits, lambda: None)


def between(clock: Clock) -> Pair:
    ours, theirs = Channel.pair()
    taken: list[Handover] = []
    waits: list[None] = []
    outbox = Outbox(Channel(theirs), clock=clock, fail=lambda: None)

    def tell(message: object) -> None:
        if isinstance(message, Took):
            taken.append(outbox.taken(message.at, message.waits))
        elif isinstance(message, Awaits):
            outbox.awaits()
            waits.append(None)

    inbox = Inbox(ours, 0, clock=clock, tell=tell, arm=lambda: None)
    return Pair(outbox, inbox, clock, taken, waits, inbox.wake)


@pytest.fixture(params=[within, between] if sys.platform == "linux" else [within], ids=lambda each: each.__name__)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    made: Pair = request.param(Clock())
    yield made
    made.sender.finish(None)
    if isinstance(made.receiver, Inbox):
        made.receiver.close(StreamClosedError("the test has ended"))


async def test_one_after_the_other(pair: Pair) -> None:
    """Each batch once, in order, and then the end, again and again."""
    assert pair.receiver.take() == (Found.NOTHING, None)
    for number in range(3):
        pair.put(number)
        found, batch = await pair.found()
        assert found is Found.BATCH
        assert batch["x"].tolist() == [number] * 3
        assert pair.receiver.take() == (Found.NOTHING, None)
    pair.sender.finish(None)
    for _ in range(2):
        assert await pair.found() == (Found.END, None)
    assert len(pair.taken) == 3


async def test_an_error_comes_last(pair: Pair) -> None:
    """After the batch that lies there, and as often as it is asked for; the first end counts."""
    pair.put(1)
    pair.sender.finish(DecodeError("chunk 7 is broken"))
    pair.sender.finish(None)
    found, _ = await pair.found()
    assert found is Found.BATCH
    for _ in range(2):
        with pytest.raises(DecodeError, match="chunk 7 is broken"):
            await pair.found()


async def test_who_waits_is_woken(pair: Pair) -> None:
    """Once, when something lies there; the engine hears that somebody waits, and how long that was."""
    woken = threading.Event()
    assert not pair.sender.is_awaited
    assert pair.receiver.wait(woken.set)
    assert pair.sender.is_awaited
    assert pair.heard_waits == [None]
    assert not woken.is_set()
    pair.clock.now = 102.5
    pair.put(1, transformed=102.0)

    def is_woken() -> bool:
        pair.look()
        return woken.is_set()

    await until(is_woken)
    pair.clock.now = 103.0
    await pair.found()
    (handover,) = pair.taken
    assert (handover.at, handover.put, handover.waits) == (103.0, 102.5, ((100.0, 103.0),))
    assert (handover.samples, handover.transformed) == (3, 102.0)
    assert not pair.sender.is_awaited


async def test_who_gives_up_loses_nothing(pair: Pair) -> None:
    """A wait that was given up is counted, nobody is woken for it, and the batch is there for the next."""
    woken = threading.Event()
    assert pair.receiver.wait(woken.set)
    pair.clock.now = 101.0
    pair.receiver.give_up()
    pair.clock.now = 105.0
    pair.put(1)
    found, _ = await pair.found()
    pair.look()
    assert found is Found.BATCH
    assert not woken.is_set()
    assert pair.taken[0].waits == ((100.0, 101.0),)


async def test_no_wait_after_the_end(pair: Pair) -> None:
    """Who would wait for nothing is told so."""
    pair.sender.finish(None)
    assert await pair.found() == (Found.END, None)
    assert not pair.receiver.wait(lambda: None)


async def test_the_batch_is_the_consumers_own(pair: Pair) -> None:
    """It may be written to."""
    pair.put(1)
    _, batch = await pair.found()
    batch["x"] += 1
    assert batch["x"].tolist() == [2, 2, 2]


def test_several_batches_at_once() -> None:
    """A mailbox in a process holds several, each with its own times; the consumer is woken when it is told to be."""
    clock, woken = Clock(), list[bool]()
    pair = within(clock)
    assert pair.receiver.wait(lambda: woken.append(True))
    for number in range(3):
        clock.now += 1
        pair.sender.put(number, samples=number, chunks=())
    assert not woken
    pair.sender.wake()
    pair.sender.wake()
    assert woken == [True]
    assert [pair.receiver.take() for _ in range(4)] == [
        *((Found.BATCH, number) for number in range(3)),
        (Found.NOTHING, None),
    ]
    assert [(each.put, each.samples, len(each.waits)) for each in pair.taken] == [(101, 0, 1), (102, 1, 0), (103, 2, 0)]
