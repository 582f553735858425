"""Gateways that are added while a fetcher runs, and blocks that wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.lowlevel
import pytest

from dnc_async.errors import ChunkUnavailableError, GatewayError, GatewayMissError
from dnc_async.gateways.fetcher import Fetcher
from dnc_async.gateways.scoreboard import Scoreboard
from dnc_async.gateways.transport import Arrivals
from dnc_async.ipld.block import make
from dnc_async.ipld.cid import Cid

from ..conftest import PATIENCE_S, fetcher_over
from .scripted import until

BLOCK = make(b"a block")


class Scripted:
    """A gateway that goes through some outcomes, and stays at the last: bytes, or an error's type."""

    has_cars = False
    is_complete = False

    def __init__(self, name: str, *outcomes: bytes | type[GatewayError]) -> None:
        self.name = name
        self._outcomes = list(outcomes)
        self.asked = 0

    async def raw(self, cid: Cid, *, limit_bytes: int, arrivals: Arrivals) -> bytes:
        await anyio.lowlevel.checkpoint()
        self.asked += 1
        outcome = self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]
        if isinstance(outcome, bytes):
            return outcome
        raise outcome("as scripted", gateway=self.name, cid=str(cid))


class Clock:
    """Time that the test sets forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def running() -> AsyncIterator[tuple[Fetcher, Clock]]:
    clock = Clock()
    with ThreadPoolExecutor(1) as executor:
        fetcher = fetcher_over([], executor, clock=clock, attempts=3)
        task = asyncio.create_task(fetcher.run())
        yield fetcher, clock
        task.cancel()
        await asyncio.wait([task])


class Wanted:
    """A block that somebody waits for, and what became of it."""

    def __init__(self, fetcher: Fetcher) -> None:
        self.ended: list[Exception | None] = []
        self.group = fetcher.open()
        self.group.submit(
            BLOCK.cid,
            size_bytes=len(BLOCK.data),
            priority=(0,),
            accept=lambda _: None,
            done=lambda _, error: self.ended.append(error),
        )

    async def end(self) -> Exception | None:
        await until(lambda: bool(self.ended))
        await self.group.aclose()
        return self.ended[0]


async def test_what_is_wanted_already_is_asked_of_a_new_one(running: tuple[Fetcher, Clock]) -> None:
    """Wanted while there was no gateway at all."""
    fetcher, _ = running
    fetcher.search_started()
    wanted = Wanted(fetcher)
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert wanted.ended == []
    fetcher.add(Scripted("new", BLOCK.data), 60.0)
    assert await wanted.end() is None
    assert [(each.url, each.blocks) for each in fetcher.statistics()] == [("new", 1)]
    fetcher.search_ended()


async def test_failed_at_all_and_then_one_is_added(running: tuple[Fetcher, Clock]) -> None:
    """It waits for as long as more are expected; the new one serves it."""
    fetcher, _ = running
    old = Scripted("old", GatewayMissError)
    fetcher.add(old)
    fetcher.search_started()
    wanted = Wanted(fetcher)
    await until(lambda: old.asked == 1)
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert wanted.ended == []
    fetcher.add(Scripted("new", BLOCK.data))
    fetcher.search_ended()
    assert await wanted.end() is None
    assert old.asked == 1


async def test_failed_at_all_and_nobody_came(running: tuple[Fetcher, Clock]) -> None:
    """The error says what the gateways said, and why nobody came; two searches must both have ended."""
    fetcher, _ = running
    old = Scripted("old", GatewayMissError)
    fetcher.add(old)
    fetcher.search_started()
    fetcher.search_started()
    wanted = Wanted(fetcher)
    await until(lambda: old.asked == 1)
    fetcher.search_ended([GatewayError("is down", gateway="router A")])
    for _ in range(10):
        await anyio.lowlevel.checkpoint()
    assert wanted.ended == []
    fetcher.search_ended([GatewayError("knows nobody", gateway="router B")])
    error = await wanted.end()
    assert isinstance(error, ChunkUnavailableError)
    assert [cause.gateway for cause in error.exceptions] == ["old", "router A", "router B"]
    later = await Wanted(fetcher).end()
    assert isinstance(later, ChunkUnavailableError)
    assert len(later.exceptions) == 3


async def test_nobody_at_all(running: tuple[Fetcher, Clock]) -> None:
    """Before the search has ended or after it: the same error."""
    fetcher, _ = running
    fetcher.search_started()
    wanted = Wanted(fetcher)
    fetcher.search_ended([GatewayError("is down", gateway="router")])
    for error in (await wanted.end(), await Wanted(fetcher).end()):
        assert isinstance(error, ChunkUnavailableError)
        assert [str(cause) for cause in error.exceptions] == ["router: is down"]


async def test_a_passing_failure_does_not_wait_for_a_router(running: tuple[Fetcher, Clock]) -> None:
    """The only gateway is asked again after its pause, as without a search."""
    fetcher, clock = running
    only = Scripted("only", GatewayError, BLOCK.data)
    fetcher.add(only)
    fetcher.search_started()
    wanted = Wanted(fetcher)
    await until(lambda: only.asked == 1 and fetcher.statistics()[0].failures == 1)
    clock.now += 10
    fetcher.add(Scripted("busy", GatewayMissError))  # wakes it, as time would
    assert await wanted.end() is None
    assert only.asked == 2
    fetcher.search_ended()


async def test_given_up_while_it_waits(running: tuple[Fetcher, Clock]) -> None:
    """A group that is closed waits for nobody."""
    fetcher, _ = running
    old = Scripted("old", GatewayMissError)
    fetcher.add(old)
    fetcher.search_started()
    wanted = Wanted(fetcher)
    await until(lambda: old.asked == 1)
    with anyio.fail_after(PATIENCE_S):
        await wanted.group.aclose()
    fetcher.search_ended()
    assert wanted.ended == []


def test_the_scoreboard_takes_one_more() -> None:
    """Nothing is known of it, but what it allows."""
    board = Scoreboard(1, max_requests=4, max_bytes=2**20, jitter=lambda: 0.5)
    board.add(60.0)
    assert [score.rate for score in board.scores] == [None, None]
    new = board.scores[1]
    for key in range(3):
        new.sent(key, 1, 5.0)
    assert board.scores[0].allowed_at(5.0) == 5.0
    assert new.allowed_at(5.0) == pytest.approx(5 + 60 / 58)  # three may go at once, and count
