"""Leaving is clean, and being interrupted loses nothing."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

import dnc_async as dnc
from dnc_async.engine.wakeup import Wakeup
from dnc_async.errors import StreamClosedError
from dnc_async.store import BlockStore
from dnc_async.telemetry import Gap
from dnc_async.testing import Faults, ScriptedGateway

from ..conftest import PATIENCE_S
from .conftest import BATCH, SAMPLES, Published, left

CHOSEN: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def chosen(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of this holds wherever the engine runs."""
    monkeypatch.setitem(CHOSEN, "engine", engine)


def stream(published: Published, **options: object) -> dnc.BatchStream:
    options = {"disk_budget": "1MB", **CHOSEN, **options}
    return dnc.stream(published.result, store=published.store, spool_dir=published.spool, **options)  # type: ignore[arg-type]


async def test_break(published: Published) -> None:
    """A bare break frees everything."""
    async for _ in stream(published):
        break
    gc.collect()
    assert left(published.spool) == []


async def test_what_was_taken_is_told(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each batch that was handed over, before it ends; also where the engine hears of nothing else any more."""
    monkeypatch.setattr(Wakeup, "call_soon", lambda *_, **__: None)
    gaps: list[int] = []
    batches = stream(published, progress=lambda event: gaps.append(event.position) if isinstance(event, Gap) else None)
    await anext(batches)
    await batches.aclose()
    assert gaps == [0]


async def test_close_before_the_engine_has_begun(published: Published) -> None:
    """Cancelled at the very start, as by Ctrl-C while something else was being set up: nobody waits for ever."""
    for _ in range(30 if CHOSEN["engine"] == "thread" else 5):
        batches = stream(published)
        batches.handle.open()
        batches.handle.post_close()
        await asyncio.wait_for(batches.aclose(), PATIENCE_S)
    assert left(published.spool) == []


async def test_cancelled_while_it_opens(published: Published) -> None:
    """The same through ``async with``, cancelled before its first wait."""

    async def use() -> None:
        async with stream(published):
            pass

    for _ in range(30 if CHOSEN["engine"] == "thread" else 5):
        opening = asyncio.ensure_future(use())
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(opening, PATIENCE_S)
    assert left(published.spool) == []


async def test_exception(published: Published) -> None:
    """An exception in the loop body frees everything, and reaches the caller."""
    with pytest.raises(KeyError):  # noqa: PT012 - raising inside the loop is the point
        async for _ in stream(published):
            raise KeyError
    gc.collect()
    assert left(published.spool) == []


async def test_end(published: Published) -> None:
    """When the loop has ended by itself nothing is left, although the stream still has a name."""
    batches = stream(published)
    count = 0
    async for batch in batches:
        published.check(batch, count)
        count += 1
    assert count == SAMPLES // BATCH
    assert left(published.spool) == []
    with pytest.raises(StopAsyncIteration):
        await anext(batches)
    assert batches.statistics().batches == count


async def test_aclose(published: Published) -> None:
    """aclose() returns when everything is gone, may be called again, and the stream is then closed."""
    batches = stream(published)
    await anext(batches)
    await batches.aclose()
    await batches.aclose()
    assert left(published.spool) == []
    with pytest.raises(StreamClosedError):
        await anext(batches)
    unopened = stream(published)
    await unopened.aclose()


async def test_async_with(published: Published) -> None:
    """The explicit form knows its length before the first batch."""
    async with stream(published, epochs=2) as batches:
        assert len(batches) == 2 * SAMPLES // BATCH
        published.check(await anext(batches), 0)
    assert left(published.spool) == []


async def test_still_named_goes_on(published: Published) -> None:
    """A stream that was broken off and still has a name goes on at the next batch."""
    batches = stream(published)
    async for batch in batches:
        published.check(batch, 0)
        break
    async for batch in batches:
        published.check(batch, 1)
        break
    await batches.aclose()


async def test_wait_for_loses_nothing(published: Published) -> None:
    """However often a wait is cancelled, the batches come complete and in order."""
    async with ScriptedGateway(BlockStore.open(published.store), Faults.parse("rate=1MB,latency=20ms")) as gateway:
        batches = stream(published, gateways=[gateway.url])
        count = timeouts = 0
        while count < SAMPLES // BATCH:
            try:
                batch = await asyncio.wait_for(anext(batches), 0.002)
            except TimeoutError:
                timeouts += 1
                continue
            published.check(batch, count)
            count += 1
        assert timeouts
        await batches.aclose()
    assert left(published.spool) == []


async def test_cancelled_consumer(published: Published) -> None:
    """A cancelled task leaves nothing."""
    consumes = asyncio.Event()

    async def consume() -> None:
        async for _ in stream(published, epochs=None):
            consumes.set()

    task = asyncio.create_task(consume())
    await consumes.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    del task  # it holds the error, whose traceback holds the iterator
    gc.collect()
    assert left(published.spool) == []


def test_closed_loop(published: Published) -> None:
    """A loop that is closed in mid-stream harms nothing: the next loop gets the next batch."""
    batches = stream(published)

    async def one(index: int) -> None:
        published.check(await anext(batches), index)

    for index in range(3):
        asyncio.run(one(index))
    asyncio.run(batches.aclose())
    assert left(published.spool) == []


async def test_two_at_once(published: Published) -> None:
    """Two tasks cannot ask for a batch at the same time."""
    batches = stream(published)
    results = await asyncio.gather(anext(batches), anext(batches), return_exceptions=True)
    assert [type(result) for result in results] == [dict, RuntimeError]
    await batches.aclose()


SCRIPT = """
import asyncio, os, sys, dnc_async as dnc
async def main():
    batches = dnc.stream(sys.argv[1], store=sys.argv[2], spool_dir=sys.argv[3], disk_budget="1MB", epochs=None,
                         engine=sys.argv[4])
    count = 0
    async for batch in batches:
        count += 1
        if count == 3:
            print("ready", flush=True)
            {then}
asyncio.run(main())
"""


def script(published: Published, then: str) -> list[str]:
    code = SCRIPT.replace("{then}", then)
    return [
        sys.executable,
        "-c",
        code,
        str(published.result),
        str(published.store),
        str(published.spool),
        CHOSEN["engine"],
    ]


@pytest.mark.parametrize(
    ("then", "status"), [("return", 0), ("globals().update(kept=batches); return", 0), ("sys.exit(3)", 3)]
)
def test_interpreter_exit(published: Published, then: str, status: int) -> None:
    """The interpreter ends in mid-stream: at once, without a word, and without a file left."""
    done = subprocess.run(script(published, then), capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (status, "")
    assert list(published.spool.rglob("*")) == []


def test_interrupt(published: Published) -> None:
    """Ctrl-C in mid-stream leaves no file."""
    with subprocess.Popen(script(published, "pass"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    assert list(published.spool.rglob("*")) == []


async def test_leftovers_of_a_killed_process(published: Published) -> None:
    """What a killed process left is deleted by the next stream in the same spool folder."""
    with subprocess.Popen(script(published, "pass"), stdout=subprocess.PIPE) as process:  # noqa: ASYNC220 - for a line
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    assert list(published.spool.iterdir()) != []
    async with stream(published) as batches:
        await anext(batches)
    assert list(published.spool.rglob("*")) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_is_refused(published: Published) -> None:
    """A forked child that uses its parent's stream is told so."""
    then = (
        "child = os.fork()\n"
        "            if child: sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "            try: await anext(batches)\n"
        "            except dnc.StreamClosedError as e: os._exit(7 if 'fork' in str(e) else 8)"
    )
    done = subprocess.run(script(published, then), capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 7
