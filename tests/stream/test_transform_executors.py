"""Where the consumer's own function may run: executors of the consumer's, what is none, and the interpreter's exit."""

from __future__ import annotations

import gc
import multiprocessing
import operator
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pytest

from dnc_async.dataset.plan import PlannedBatch
from dnc_async.engine.transform import Transform, Transforms
from dnc_async.errors import ArgumentError, TransformError

from .conftest import BATCH, BATCHES, PATIENCE_S, Published, left, number, run_here, stream


@pytest.fixture
def published(read_only: Published) -> Published:
    return read_only


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


async def test_processes(published: Published, processes: ProcessPoolExecutor) -> None:
    """A pool of the consumer's: the same batches in the same order, and it is still theirs afterwards."""
    found = [each async for each in stream(published, operator.itemgetter("x", "y"), processes)]
    assert len(found) == BATCHES
    for index, (x, y) in enumerate(found):
        published.check({"x": x, "y": y}, index)
    async for _ in stream(published, operator.itemgetter("y"), processes):
        break
    gc.collect()
    assert left(published.spool) == []
    assert processes.submit(int, "7").result(PATIENCE_S) == 7


async def test_errors_of_processes(published: Published, processes: ProcessPoolExecutor) -> None:
    """What cannot go there is told at once; what cannot come back, and what failed there, with its batch."""
    with pytest.raises(ArgumentError, match=r"can be pickled.*lambda"):
        stream(published, lambda batch: batch, processes)
    with pytest.raises(TransformError, match=r"batch 0.*must be picklable"):
        await anext(stream(published, operator.methodcaller("keys"), processes))
    with pytest.raises(TransformError, match=r"batch 0 .*KeyError: 'nonsense'") as caught:
        await anext(stream(published, operator.itemgetter("nonsense"), processes))
    assert isinstance(caught.value.__cause__, KeyError)


class Scripted(Executor):
    """An executor that does with the third call what it is told to, and tells no number of workers."""

    def __init__(self, third: Callable[[Future[Any]], object]) -> None:
        self.calls, self.third = 0, third

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls += 1
        future: Future[Any] = Future()
        if self.calls == 3:
            self.third(future)
        else:
            future.set_result(function(*args, **kwargs))
        return future


async def test_a_thread_holds_no_result() -> None:
    """What it returned is gone when the consumer lets it go, also where the thread is late and has its future still."""
    futures: list[Future[Any]] = []

    class Late(ThreadPoolExecutor):
        def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            futures.append(super().submit(function, *args, **kwargs))
            return futures[-1]

    transform = Transform.of(lambda batch: batch["x"] + 1, 1)
    assert transform is not None
    transforms = Transforms(
        transform,
        in_worker=run_here,
        threads=lambda workers, _: Late(workers),
        clock=lambda: 0.0,
        patience_s=PATIENCE_S,
        executor_batches=1,
    )
    job = await transforms.start(PlannedBatch(0, 0, 0, BATCH, range(2)), {"x": np.zeros(3)})
    await job.finished.wait()
    result = job.take()
    assert result.tolist() == [1, 1, 1]
    gone = weakref.ref(result)
    del result
    assert gone() is None
    assert len(futures) == 1
    await transforms.aclose()


def refuse(_: Future[Any]) -> None:
    raise RuntimeError("cannot schedule new futures after shutdown")


@pytest.mark.parametrize(
    ("third", "said"),
    [
        (refuse, "RuntimeError: cannot schedule"),
        (lambda future: future.cancel(), "keep it running"),
        (lambda future: future.set_exception(BrokenProcessPool("died")), "put it into a module"),
    ],
)
async def test_executors_that_fail(published: Published, third: Any, said: str) -> None:
    """Shut down, or emptied, or broken: the batches before are handed over, then it is told what to do."""
    found = []
    with pytest.raises(TransformError, match=f"(?s)batch 2 .*{said}"):  # noqa: PT012 - what came before counts
        async for index in stream(published, number, Scripted(third)):
            found.append(index)  # noqa: PERF401 - as above
    assert found == [0, 1]
    assert left(published.spool) == []


async def later(batch: object) -> object:
    return batch


class Later:
    async def __call__(self, batch: object) -> object:
        return batch


@pytest.mark.parametrize("transform", [3, "name", later, Later()])
def test_functions_that_are_none(published: Published, transform: object) -> None:
    with pytest.raises(ArgumentError, match="transform: expected"):
        stream(published, transform)


@pytest.mark.parametrize("workers", [-1, True, 1.5, "4", None])
def test_workers_that_are_none(published: Published, workers: object) -> None:
    """Also without a function, before anything is started."""
    for transform in (number, None):
        with pytest.raises(ArgumentError, match=r"transform_workers: expected how many threads.*executor"):
            stream(published, transform, workers)


SCRIPT = """
import asyncio, sys, time, dnc_async as dnc
def transform(batch):
    time.sleep(0.01)
    return batch
async def main():
    batches = dnc.stream(sys.argv[1], store=sys.argv[2], spool_dir=sys.argv[3], disk_budget="1MB", epochs=None,
                         transform=transform, transform_workers=3)
    await anext(batches)
    await anext(batches)
    {then}
asyncio.run(main())
"""


@pytest.mark.parametrize(("then", "status"), [("return", 0), ("globals().update(kept=batches)", 0), ("sys.exit(3)", 3)])
def test_interpreter_exit(published: Published, then: str, status: int) -> None:
    """While functions run: soon, without a word, and without a file left."""
    words = [sys.executable, "-c", SCRIPT.replace("{then}", then)]
    words += [str(published.result), str(published.store), str(published.spool)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (status, "")
    assert list(published.spool.rglob("*")) == []
