"""The consumer's own function: order, errors, memory, threads, and what is left of it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import operator
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import dnc_async as dnc
from dnc_async import sync
from dnc_async.config import FetchSettings
from dnc_async.dataset.batch import BatchBuffer
from dnc_async.dataset.plan import PlannedBatch
from dnc_async.dataset.schema import Array, Column
from dnc_async.engine.environment import worker_threads
from dnc_async.engine.transform import Transform, Transforms
from dnc_async.errors import DecodeError, TransformError

from .conftest import BATCH, BATCHES, PATIENCE_S, Published, left, number, run_here, stream


@pytest.fixture
def published(read_only: Published) -> Published:
    return read_only


class Gate:
    """A transform that stays inside until it is let go."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        if number(batch) == self.at:
            self.entered.set()
            assert self.open.wait(PATIENCE_S)
        return batch

    async def is_entered(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, PATIENCE_S)


@pytest.mark.parametrize("budget", [0, "1MB"])
@pytest.mark.parametrize("workers", [0, 1, 3])
async def test_each_batch_in_order(published: Published, workers: int, budget: int | str) -> None:
    """Every batch went through the function once, whole, and in a thread that is neither the consumer's nor the engine's."""
    threads = set()

    def transform(batch: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        threads.add(threading.current_thread().name)
        return number(batch), batch

    async with stream(published, transform, workers, disk_budget=budget, epochs=2) as batches:
        found = [each async for each in batches]
    assert [index for index, _ in found] == [*range(BATCHES), *range(BATCHES)]
    for index, batch in found:
        published.check(batch, index)
    assert all(name.startswith("dnc_async transform") for name in threads)
    assert len(threads) <= max(1, workers)
    assert left(published.spool) == []


async def test_later_ones_that_are_ready_earlier_wait(published: Published) -> None:
    """With three workers each first of three ends when the third has: the order stays, and three do run at once."""
    done = [threading.Event() for _ in range(BATCHES)]
    finished = []

    def transform(batch: dict[str, Any]) -> int:
        index = number(batch)
        if index % 3 == 0 and index + 2 < BATCHES:
            assert done[index + 2].wait(PATIENCE_S)
        finished.append(index)
        done[index].set()
        return index

    assert [index async for index in stream(published, transform, 3)] == list(range(BATCHES))
    assert finished != sorted(finished) == list(range(BATCHES))


@pytest.mark.parametrize(("workers", "at_once"), [(0, 1), (1, 1), (2, 2)])
async def test_as_many_at_once_as_there_are_workers(published: Published, workers: int, at_once: int) -> None:
    """So a function that is not safe for threads is safe with 0, which is the default."""
    inside, most, lock = 0, 0, threading.Lock()

    def transform(batch: dict[str, Any]) -> dict[str, Any]:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        batch["x"].sort()
        with lock:
            inside -= 1
        return batch

    async for _ in stream(published, transform, workers):
        pass
    assert 1 <= most <= at_once


class Live:
    """Counts the batches that are in memory, by their ``x``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.peak = 0
        self._changed = threading.Condition(threading.RLock())  # a finalizer may run within
        empty = Column.empty

        def counted(column: Column, samples: int) -> Array:
            array = empty(column, samples)
            if column.name == "x":
                weakref.finalize(array, self._count, -1)
                self._count(+1)
            return array

        monkeypatch.setattr(Column, "empty", counted)

    def _count(self, change: int) -> None:
        with self._changed:
            self.now += change
            self.peak = max(self.peak, self.now)
            self._changed.notify_all()

    def wait_until(self, enough: Callable[[int], bool]) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: enough(self.now), PATIENCE_S)


@pytest.mark.parametrize(("workers", "bound"), [(None, 2), (0, 2), (1, 3), (3, 5)])
@pytest.mark.parametrize("budget", [0, "1MB"])
async def test_memory_is_bounded(
    published: Published, monkeypatch: pytest.MonkeyPatch, workers: int | None, bound: int, budget: int | str
) -> None:
    """One batch with the consumer, one that arrives, and one for each worker: reached, and never passed."""
    live = Live(monkeypatch)
    transform = None if workers is None else lambda batch: batch
    count = 0
    batches = stream(published, transform, workers or 0, disk_budget=budget)
    async for batch in batches:
        published.check(batch, count)
        count += 1
        if count in (1, 7, 12):
            assert await asyncio.to_thread(live.wait_until, lambda now: now >= bound)
        del batch
    assert count == BATCHES
    assert live.peak == bound
    assert live.now == 0


async def test_what_goes_in_is_let_go(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of batches that were made into something smaller nothing stays: only the arriving one is there."""
    live = Live(monkeypatch)
    ready = threading.Event()

    def transform(batch: dict[str, Any]) -> int:
        if number(batch) == 4:
            ready.set()
        return number(batch)

    batches = stream(published, transform, 4)
    assert await anext(batches) == 0
    assert await asyncio.to_thread(ready.wait, PATIENCE_S)  # 1 to 4 were transformed, and nobody took them
    assert await asyncio.to_thread(live.wait_until, lambda count: count <= 1)
    await batches.aclose()


@pytest.mark.parametrize("workers", [0, 3])
async def test_error_has_its_position(published: Published, workers: int) -> None:
    """It comes when the consumer gets there: all batches before it are handed over, and nothing is left."""
    seen: list[int] = []

    def transform(batch: dict[str, Any]) -> dict[str, Any]:
        seen.append(number(batch))
        if seen.count(3) == 2 and number(batch) == 3:
            raise KeyError("three")
        return batch

    batches = stream(published, transform, workers, epochs=2)
    count = 0
    with pytest.raises(TransformError) as caught:  # noqa: PT012 - the batches before it are checked
        async for batch in batches:
            published.check(batch, count % BATCHES)
            count += 1
    assert count == BATCHES + 3 == caught.value.position
    assert caught.value.index == 3
    assert isinstance(caught.value.__cause__, KeyError)
    assert str(caught.value) == (
        "the transform test_error_has_its_position.<locals>.transform failed for batch 23 of the stream "
        "(batch 3 of the dataset): KeyError: 'three'"
    )
    assert left(published.spool) == []


@pytest.mark.parametrize("error", [StopIteration(1), SystemExit(3), asyncio.CancelledError(), dnc.DncError("x")])
async def test_whatever_is_raised(published: Published, error: BaseException) -> None:
    """Those that mean something to a loop or an interpreter, too."""

    def transform(_: object) -> None:
        raise error

    with pytest.raises(TransformError) as caught:
        await anext(stream(published, transform))
    assert caught.value.__cause__ is error
    assert caught.value.position == 0
    assert left(published.spool) == []


async def test_errors_of_the_stream_do_not_overtake(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk that cannot be decoded while batches before it are being transformed: they come first."""
    finish, finished = BatchBuffer.finish, [0]

    def broken(buffer: BatchBuffer, part: int) -> None:
        finish(buffer, part)
        finished[0] += 1
        if finished[0] == 7:
            raise DecodeError("the fourth batch")

    monkeypatch.setattr(BatchBuffer, "finish", broken)
    gate = Gate(at=2)
    found = []

    async def consume() -> None:
        async for batch in stream(published, gate, 3):
            found.append(number(batch))  # noqa: PERF401 - what came before the error counts

    task = asyncio.create_task(consume())
    await gate.is_entered()
    gate.open.set()
    with pytest.raises(DecodeError, match="fourth"):
        await task
    assert found == [0, 1, 2]


@pytest.mark.parametrize("value", [None, 7, [1, 2]])
async def test_any_object_is_passed_on(published: Published, value: object) -> None:
    """Whatever the function returns is what the consumer gets."""
    assert [each async for each in stream(published, lambda _: value, 2)] == [value] * BATCHES


async def test_left_while_the_function_runs(published: Published) -> None:
    """aclose() returns when it has ended: no thread of ours is left. The same where the first batch was waited for."""
    for at in (0, 1):
        gate = Gate(at)
        batches = stream(published, gate, 2)
        for _ in range(at):
            await anext(batches)
        waiting = asyncio.create_task(anext(batches))
        await gate.is_entered()
        waiting.cancel()
        closing = asyncio.create_task(batches.aclose())
        await asyncio.wait([waiting])
        assert not closing.done()
        gate.open.set()
        await asyncio.wait_for(closing, PATIENCE_S)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("dnc_async")]
        assert left(published.spool) == []


async def test_left_while_results_wait(published: Published) -> None:
    """By a bare break, and by an exception, with transformed batches that nobody wants."""
    for error in (None, KeyError):
        gate = Gate(at=3)
        try:
            async for _ in stream(published, gate, 3):
                await gate.is_entered()
                gate.open.set()
                if error is not None:
                    raise error
                break
        except KeyError:
            pass
        gc.collect()
        assert left(published.spool) == []


async def test_what_has_not_begun_is_given_up() -> None:
    """One runs, two stand in line behind it: they are never called, and the thread has ended."""
    called = []
    gate = Gate(at=0)

    def function(batch: dict[str, Any]) -> object:
        called.append(number(batch))
        return gate(batch)

    transform = Transform.of(function, 1)
    assert transform is not None
    transforms = Transforms(
        transform,
        in_worker=run_here,
        threads=worker_threads,
        clock=lambda: 0.0,
        patience_s=PATIENCE_S,
        executor_batches=1,
    )
    planned = PlannedBatch(0, 0, 0, BATCH, range(2))
    jobs = [await transforms.start(planned, {"y": [index * BATCH]}) for index in range(3)]
    await gate.is_entered()
    closing = asyncio.create_task(transforms.aclose())
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.wait_for(closing, PATIENCE_S)
    assert called == [0]
    assert jobs[0].take() == {"y": [0]}
    assert [thread for thread in threading.enumerate() if thread.name.startswith("dnc_async")] == []


async def test_a_function_that_hangs(published: Published, caplog: pytest.LogCaptureFixture) -> None:
    """It is not waited for for ever: a warning names it and its batch, and its thread ends with it."""
    gate = Gate(at=1)
    settings = FetchSettings(transform_patience_s=0.01)
    options: dict[str, Any] = {"store": published.store, "spool_dir": published.spool, "disk_budget": "1MB"}
    with caplog.at_level(logging.WARNING, "dnc_async"):
        async with dnc.Client(**options, settings=settings) as client:
            batches = client.stream(published.result, transform=gate)
            await anext(batches)
            await gate.is_entered()
            await asyncio.wait_for(batches.aclose(), PATIENCE_S)
            async for batch in client.stream(published.result):  # the client's other streams go on
                published.check(batch, 0)
                break
    assert "the transform Gate of batch 1 is still running after 0.01 s" in caplog.text
    assert [t for t in threading.enumerate() if t.name.startswith("dnc_async")] != []
    gate.open.set()
    assert left(published.spool) == []


async def test_cancelled_waits_lose_nothing(published: Published) -> None:
    """However often a wait is cancelled while functions run, each batch comes once."""
    gates = [Gate(at) for at in range(BATCHES)]
    batches = stream(published, lambda batch: gates[number(batch)](batch), 2)
    for index, gate in enumerate(gates):
        waiting = asyncio.create_task(anext(batches))
        await gate.is_entered()
        waiting.cancel()
        await asyncio.wait([waiting])
        gate.open.set()
        published.check(await anext(batches), index)
    await batches.aclose()


async def test_its_time_is_a_cause_of_its_own(published: Published) -> None:
    """A function that ends when the consumer has begun to wait for it; the causes still add up."""

    def transform(batch: dict[str, Any]) -> dict[str, Any]:
        while number(batch) and not batches.handle.running._mailbox.is_awaited:  # type: ignore[union-attr]
            pass
        return batch

    batches = stream(published, transform)
    async with batches:
        async for _ in batches:
            pass
        report = batches.report()
    assert 0 < report.causes["transform"] <= report.waited_s
    assert sum(report.causes.values()) == pytest.approx(report.waited_s)
    assert "transform" in str(report)
    assert "transform" in report._repr_html_()


async def test_no_transform_no_cause(published: Published) -> None:
    async with stream(published, None, 3) as batches:
        async for _ in batches:
            pass
        assert "transform" not in batches.report().causes


async def test_context(published: Published) -> None:
    """Each call sees what the caller of stream() saw, not who made the client, and changes nobody's."""
    colour = contextvars.ContextVar("colour", default="none")

    def transform(_: object) -> str:
        seen = colour.get()
        colour.set("changed")
        return seen

    async with dnc.Client(store=published.store, spool_dir=published.spool, disk_budget="1MB") as client:
        colour.set("blue")
        batches = client.stream(published.result, transform=transform, transform_workers=2)
        colour.set("red")
        assert [each async for each in batches] == ["blue"] * BATCHES


def test_blocking_face(published: Published) -> None:
    """The same options; errors, too."""
    options: dict[str, Any] = {"store": published.store, "spool_dir": published.spool, "disk_budget": "1MB"}
    numbers = sync.stream(published.result, transform=number, transform_workers=2, **options)
    assert list(numbers) == list(range(BATCHES))
    with pytest.raises(TransformError, match="batch 0"):
        next(sync.stream(published.result, transform=operator.itemgetter("nonsense"), **options))
    assert left(published.spool) == []


async def test_in_a_notebook(published: Published) -> None:
    """A cell that blocks its loop takes batches one by one; what works on them needs no loop."""
    options: dict[str, Any] = {"store": published.store, "spool_dir": published.spool, "disk_budget": "1MB"}
    found = [sync.download_first(published.result, transform=number, **options)]
    while (index := sync.download_next()) is not None:
        found.append(index)
    assert found == list(range(BATCHES))
    assert [each async for each in stream(published, number)] == found
    assert left(published.spool) == []
