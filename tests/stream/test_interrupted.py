"""A consumer that was interrupted: one that comes back loses nothing, one that does not leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest

import dnc_async as dnc
from dnc_async import sync
from dnc_async.engine import handle
from dnc_async.engine.mailbox import Receiver
from dnc_async.errors import StreamClosedError
from dnc_async.store import BlockStore
from dnc_async.testing import Faults, ScriptedGateway

from ..conftest import until
from .conftest import BATCHES, PATIENCE_S, Published, left, needs_linux, number

SLOW = "rate=1MB,latency=20ms"


def options(published: Published, gateway: ScriptedGateway, **more: Any) -> dict[str, Any]:
    return {"gateways": [gateway.url], "spool_dir": published.spool, "disk_budget": "1MB", **more}


@pytest.fixture(params=["thread", pytest.param("process", marks=[needs_linux, pytest.mark.border])])
def chosen(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"engine": request.param}


async def interrupted(batches: dnc.BatchStream, kept: list[object]) -> None:
    """Take batches in a task that is cancelled while it waits; what was raised is kept with its traceback, as a notebook does."""
    waits = asyncio.Event()

    async def consume() -> None:
        mine = batches  # this frame is in the traceback, too
        while True:
            waits.set()
            await anext(mine)

    task = asyncio.create_task(consume())
    await waits.wait()
    task.cancel()
    await asyncio.wait([task])
    try:
        await task
    except asyncio.CancelledError as error:
        kept.append(error)


async def test_a_cancelled_task_that_ends(
    read_only: Published, chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks again: everything is freed, though the stream has a name and a traceback holds it; who asks later goes on."""
    monkeypatch.setattr(handle, "_GRACE_S", 0.01)
    kept: list[object] = []
    async with ScriptedGateway(BlockStore.open(read_only.store), Faults.parse(SLOW)) as gateway:
        batches = dnc.stream(read_only.result, **options(read_only, gateway, **chosen))
        read_only.check(await anext(batches), 0)
        await interrupted(batches, kept)
        assert await asyncio.to_thread(left, read_only.spool) == []
        assert "suspended" in repr(batches)
        assert batches.statistics().batches >= 1
        seen = [number(batch) async for batch in batches]
        assert seen == list(range(BATCHES - len(seen), BATCHES))
        assert left(read_only.spool) == []
    assert kept


async def test_a_stream_of_a_shared_client(read_only: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease and files go, and the client's other streams go on; so does it, when it is asked again."""
    monkeypatch.setattr(handle, "_GRACE_S", 0.01)
    kept: list[object] = []
    async with ScriptedGateway(BlockStore.open(read_only.store), Faults.parse(SLOW)) as gateway:
        async with dnc.Client(**options(read_only, gateway)) as client:
            one, other = client.stream(read_only.result), client.stream(read_only.result)
            await anext(one)
            read_only.check(await anext(other), 0)
            await interrupted(one, kept)
            await until(lambda: one.handle.suspended)
            read_only.check(await anext(other), 1)
            batch = await anext(one)
            read_only.check(batch, number(batch))
            assert number(batch) >= 1
        assert left(read_only.spool) == []


@pytest.mark.parametrize("in_between", [0.0, 0.03])
async def test_timeouts_lose_nothing(read_only: Published, monkeypatch: pytest.MonkeyPatch, in_between: float) -> None:
    """However a batch's wait is limited, by whom it is asked for, and however long nobody asks between: all come, in order."""
    monkeypatch.setattr(handle, "_GRACE_S", 0.01)

    async def helper(batches: dnc.BatchStream) -> Any:
        return await anext(batches)

    async def timeout(batches: dnc.BatchStream) -> Any:
        async with asyncio.timeout(0.004):
            return await anext(batches)

    async def wait_for(batches: dnc.BatchStream) -> Any:
        return await asyncio.wait_for(helper(batches), 0.004)

    async def task(batches: dnc.BatchStream) -> Any:
        asked = asyncio.create_task(helper(batches))
        await asyncio.wait([asked], timeout=0.004)
        asked.cancel()
        try:
            return await asked
        except asyncio.CancelledError as error:
            raise TimeoutError from error

    ways: list[Callable[[dnc.BatchStream], Awaitable[Any]]] = [timeout, wait_for, task]
    async with ScriptedGateway(BlockStore.open(read_only.store), Faults.parse(SLOW)) as gateway:
        batches = dnc.stream(read_only.result, **options(read_only, gateway))
        seen: list[int] = []
        timeouts = 0
        while len(seen) < BATCHES:
            try:
                batch = await ways[(len(seen) + timeouts) % 3](batches)
            except TimeoutError:
                timeouts += 1
                await asyncio.sleep(in_between)
                continue
            seen.append(number(batch))
        assert seen == list(range(BATCHES))
        assert timeouts
        await batches.aclose()


def test_interrupted_while_it_blocks(read_only: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the blocking face, which a traceback holds: freed at once, and gone on with."""
    batches = sync.stream(read_only.result, store=read_only.store, spool_dir=read_only.spool, disk_budget="1MB")
    assert number(next(batches)) == 0
    with monkeypatch.context() as patched:

        def interrupt(self: Receiver) -> Any:
            raise KeyboardInterrupt

        patched.setattr(Receiver, "take", interrupt)
        with pytest.raises(KeyboardInterrupt) as kept:
            next(batches)
    assert left(read_only.spool) == []
    assert [number(batch) for batch in batches] == list(range(1, BATCHES))
    assert kept.traceback
    batches.close()
    with pytest.raises(StreamClosedError, match="make a new one"):
        iter(batches)


def test_interrupted_at_any_call(read_only: Published) -> None:
    """Ctrl-C comes when a call begins or returns: wherever that is, no batch is lost or comes twice, and nothing is left."""
    options: dict[str, Any] = {"store": read_only.store, "spool_dir": read_only.spool, "disk_budget": "1MB"}
    at = itertools.count(1)
    is_hit = True
    while is_hit:
        batches, hit = sync.stream(read_only.result, **options), InterruptAt(next(at))
        seen: list[int] = []
        with contextlib.suppress(KeyboardInterrupt), hit:
            seen.extend(number(next(batches)) for _ in range(2))
        is_hit = hit.is_hit
        while len(seen) < 3:
            seen.append(number(next(batches)))
        batches.close()
        assert seen == [0, 1, 2], hit.where
        assert left(read_only.spool) == [], hit.where


class InterruptAt:
    """Raises ``KeyboardInterrupt`` at so many calls and returns of the library in this thread."""

    def __init__(self, count: int) -> None:
        self._left = count
        self.is_hit = False
        self.where = ""

    def __enter__(self) -> None:
        sys.setprofile(self._look)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _look(self, frame: FrameType, event: str, argument: object) -> None:
        if event not in ("call", "c_return") or not frame.f_globals.get("__name__", "").startswith("dnc_async"):
            return
        self._left -= 1
        if not self._left:
            sys.setprofile(None)
            self.is_hit, self.where = True, f"{frame.f_code.co_qualname}, line {frame.f_lineno}, {event} {argument!r}"
            raise KeyboardInterrupt


async def test_a_task_that_fails_in_its_own_step(read_only: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames are kept with its error, and the stream in them; or it is cancelled there. Nobody asks again: it is freed."""
    monkeypatch.setattr(handle, "_GRACE_S", 0.01)

    async def fails(batches: dnc.BatchStream) -> None:
        async for _ in batches:
            raise ZeroDivisionError

    async def sleeps(batches: dnc.BatchStream) -> None:
        async for _ in batches:
            sleeping.set()
            await asyncio.Event().wait()

    for step in (fails, sleeps):
        sleeping = asyncio.Event()
        batches = dnc.stream(read_only.result, store=read_only.store, spool_dir=read_only.spool, disk_budget="1MB")
        task = asyncio.create_task(step(batches))
        if step is sleeps:
            await sleeping.wait()
            task.cancel()
        kept = await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.to_thread(left, read_only.spool) == []
        assert "suspended" in repr(batches)
        assert number(await anext(batches)) == 1
        await batches.aclose()
        assert kept


async def test_a_task_keeps_no_stream(read_only: Published) -> None:
    """A service's task that opens one stream after the other, for years."""
    kept: list[weakref.ref[object]] = []
    for _ in range(3):
        async with dnc.stream(read_only.result, store=read_only.store, disk_budget=0) as batches:
            await anext(batches)
            kept.append(weakref.ref(batches.handle))
        del batches
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3


def test_two_threads_ask_one_stream(read_only: Published) -> None:
    """As two tasks do: the second is told, and the first gets its batch."""
    asked, go = threading.Event(), threading.Event()

    def slow(batch: Any) -> Any:
        asked.set()
        go.wait(PATIENCE_S)
        return batch

    with sync.stream(
        read_only.result, store=read_only.store, spool_dir=read_only.spool, disk_budget="1MB", transform=slow
    ) as batches:
        with ThreadPoolExecutor(1) as executor:
            first = executor.submit(next, batches)
            assert asked.wait(PATIENCE_S)
            with pytest.raises(RuntimeError, match="two threads"):
                next(batches)
            go.set()
            assert number(first.result(PATIENCE_S)) == 0
        assert number(next(batches)) == 1


def test_a_wait_on_a_loop_that_was_closed(read_only: Published) -> None:
    """Its coroutine never ended, and is kept: the next loop gets the batch all the same."""
    batches = dnc.stream(read_only.result, store=read_only.store, spool_dir=read_only.spool, disk_budget="1MB")

    async def ask() -> Any:
        return await anext(batches)

    first = asyncio.new_event_loop()
    waiting = first.create_task(ask())
    first.call_soon(first.stop)
    first.run_forever()
    first.close()
    assert not waiting.done()
    batch = asyncio.run(ask())
    read_only.check(batch, 0)
    asyncio.run(batches.aclose())
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]  # what asyncio says of it is not the matter here
    assert left(read_only.spool) == []


async def test_a_second_loop_over_a_stream_that_ended(read_only: Published) -> None:
    """Is a second pass; who only asks for one more batch finds the end, and after closing nobody finds anything."""
    batches = dnc.stream(read_only.result, store=read_only.store, spool_dir=read_only.spool, disk_budget="1MB")
    assert len([batch async for batch in batches]) == BATCHES
    with pytest.raises(StopAsyncIteration):
        await anext(batches)
    assert len([batch async for batch in batches]) == BATCHES
    await batches.aclose()
    with pytest.raises(StreamClosedError, match="make a new one"):
        async for _ in batches:
            pass


async def test_a_plain_for_loop_is_told_what_to_do(read_only: Published) -> None:
    """Also one of a DataLoader's, which asks for an index or a length."""
    batches = dnc.stream(read_only.result, store=read_only.store)
    with pytest.raises(TypeError, match=r"async for.*sync\.stream"):
        for _ in batches:
            pass
    with pytest.raises(TypeError, match=r"async for.*sync\.stream"):
        batches[0]
    with pytest.raises(TypeError, match="async with"):
        len(batches)
