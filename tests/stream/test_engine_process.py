"""An engine in a process of its own: the same stream, and what can go wrong between two processes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc
from dnc_async import sync, telemetry
from dnc_async.config import FetchSettings
from dnc_async.errors import (
    ArgumentError,
    ChunkUnavailableError,
    EngineError,
    ManifestError,
    TransformError,
)

from ..conftest import PATIENCE_S, eventually, until
from .conftest import BATCH, SAMPLES, Published, engine_processes, left, needs_linux

pytestmark = [needs_linux, pytest.mark.border]

TRANSFORMS = """
import pathlib, threading, time
def double(batch):
    return {"x": 2 * batch["x"], "where": threading.current_thread().name}
def fail(batch):
    raise KeyError("no such thing")
def opaque(batch):
    return threading.Lock()
def slow(batch):
    here = pathlib.Path(__file__)
    here.with_name("began").touch()
    while not here.with_name("may end").exists():
        time.sleep(0.01)
    return batch
"""


def stream(published: Published, **options: Any) -> dnc.BatchStream:
    options = {"disk_budget": "1MB", **options}
    return dnc.stream(published.result, store=published.store, spool_dir=published.spool, engine="process", **options)


@pytest.fixture
def transforms(importable: Callable[[str, str], Any]) -> Any:
    """A module of the consumer's."""
    return importable("my_transforms", TRANSFORMS)


@pytest.mark.parametrize("rows", [BATCH, 20_000])
async def test_every_kind_of_column(tmp_path: Path, rows: int) -> None:
    """Batches come over as they were, small ones and large, and belong to the consumer."""
    x = np.arange(2 * rows * 3, dtype="i4").reshape(-1, 3)
    text = np.array([f"ä{i}" for i in range(2 * rows)], dtype=np.dtypes.StringDType())
    raw = [b"%d" % i for i in range(2 * rows)]
    done = await dnc.upload({"x": x, "text": text, "raw": raw}, batch_size=rows, store=tmp_path / "store")
    kept = []
    async for batch in dnc.stream(done, store=tmp_path / "store", spool_dir=tmp_path / "spool", engine="process"):
        kept.append(batch)
        batch["x"][0] += 1  # writable
    assert len(kept) == 2
    x[[0, rows]] += 1
    assert (np.concatenate([batch["x"] for batch in kept]) == x).all()
    assert (np.concatenate([batch["text"] for batch in kept]) == text).all()
    assert [bytes(kept[1]["raw"][i]) for i in (0, rows - 1)] == [raw[rows], raw[-1]]


async def test_a_tuple_stays_a_tuple(tmp_path: Path) -> None:
    """The structure of what was uploaded comes over, too."""
    pair = np.arange(10.0), np.arange(10)
    done = await dnc.upload(pair, batch_size=5, store=tmp_path / "store")
    async for x, y in dnc.stream(done, store=tmp_path / "store", spool_dir=tmp_path / "spool", engine="process"):
        assert (x == y).all()


def test_blocking(published: Published) -> None:
    """The blocking face has it, too."""
    options: Any = {"store": published.store, "spool_dir": published.spool, "disk_budget": "1MB", "engine": "process"}
    with sync.stream(published.result, **options) as batches:
        for index, batch in enumerate(batches):
            published.check(batch, index)
    assert batches.report().batches == SAMPLES // BATCH
    assert sync.download_first(published.result, **options)["y"][0] == 0
    while sync.download_next() is not None:
        pass
    assert left(published.spool) == []


async def test_the_same_report(published: Published) -> None:
    """Statistics and report say the same as those of a thread, while it runs and after its end."""
    batches = stream(published)
    first = asyncio.create_task(anext(batches))
    await until(engine_processes)
    (pid,) = engine_processes()
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(0.1)
    os.kill(pid, signal.SIGCONT)
    published.check(await first, 0)
    async for batch in batches:
        taken = batches.statistics().batches
        published.check(batch, taken - 1)
    thread = dnc.stream(published.result, store=published.store, spool_dir=published.spool, disk_budget="1MB")
    async for _ in thread:
        pass
    ours, theirs = batches.report(), thread.report()
    assert (ours.order, ours.batches, ours.useful_bytes) == (theirs.order, theirs.batches, theirs.useful_bytes)
    assert sum(ours.causes.values()) == pytest.approx(ours.waited_s)
    assert ours.first_batch_s is not None
    assert ours.first_batch_s > 0.1  # the process has to start first, and that is told
    assert "delivered" in repr(batches)


async def test_several_streams_share_one(published: Published) -> None:
    """A client has one process, one budget, and goes on when a stream is closed."""
    async with dnc.Client(
        store=published.store, spool_dir=published.spool, disk_budget="300 kB", engine="process"
    ) as client:
        assert len(engine_processes()) == 1
        first, second = client.stream(published.result), client.stream(published.result)
        for index in range(5):
            published.check(await anext(first), index)
            published.check(await anext(second), index)
        assert len(engine_processes()) == 1
        await second.aclose()
        async for batch in first:
            index += 1
            published.check(batch, index)
        assert index == SAMPLES // BATCH - 1
        assert (await client.inspect(published.result)).samples == SAMPLES
        assert first.statistics().peak_leased_bytes <= 300_000
        assert second.report().batches == 5
    assert left(published.spool) == []


async def test_the_engine_is_killed(published: Published) -> None:
    """Its consumer is told by what, does not hang, and what lay on the disk is deleted."""
    batches = stream(published, epochs=None)
    await anext(batches)
    (pid,) = engine_processes()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineError, match=f"{pid} ended by signal 9"):
        async for _ in batches:
            pass
    with pytest.raises(EngineError):
        batches.statistics()
    assert engine_processes() == []
    assert left(published.spool) == []


CONSUMER = """
import asyncio, os, sys, time, dnc_async as dnc
async def main():
    async for batch in dnc.stream(sys.argv[1], store=sys.argv[2], spool_dir=sys.argv[3], disk_budget="1MB", epochs=None,
                                  engine="process"):
        {then}
asyncio.run(main())
"""


def consumer(published: Published, then: str) -> list[str]:
    words = str(published.result), str(published.store), str(published.spool)
    return [sys.executable, "-c", CONSUMER.replace("{then}", then), *words]


def entries(folder: Path) -> list[str]:
    """What is in a folder that another process may be removing meanwhile (``Path.rglob`` fails then)."""
    return [name for _, folders, files in os.walk(folder) for name in (*folders, *files)]


def test_the_consumer_is_killed(published: Published) -> None:
    """The engine ends by itself, and takes its files along; also where the consumer had forked."""
    then = 'fork = os.fork() or time.sleep(3600); print("ready", fork, flush=True); sys.stdin.read()'
    with subprocess.Popen(
        consumer(published, then), stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        fork = int(process.stdout.readline().split()[1])
        try:
            process.kill()
            process.wait()
            assert eventually(lambda: not entries(published.spool))
        finally:
            os.kill(fork, signal.SIGKILL)


@pytest.mark.parametrize("kept", [1, 200])
def test_batches_that_are_kept(published: Published, kept: int) -> None:
    """A consumer may keep more batches than it may have files open, and lets go of the memory of those that it drops."""
    then = (
        f"kept = globals().setdefault('kept', []); kept[:] = [*kept, batch['x'].repeat(20, axis=0), batch][-2 * {kept}:]\n"
        "        n = globals()['n'] = globals().get('n', 0) + 1\n"
        "        if n == 1:\n"
        "            import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\n"
        "        if n == 200: print(len(os.listdir('/proc/self/fd')) < 100); return"
    )
    done = subprocess.run(consumer(published, then), capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


async def test_transform(published: Published, transforms: Any) -> None:
    """It runs in the engine's process, and what it returns comes over."""
    count = 0
    async for batch in stream(published, transform=transforms.double, transform_workers=2):
        rows = slice(count * BATCH, (count + 1) * BATCH)
        assert (batch["x"] == 2 * published.x[rows]).all()
        assert batch["where"].startswith("dnc_async transform")
        count += 1
    assert count == SAMPLES // BATCH
    assert left(published.spool) == []


async def test_transform_that_fails(published: Published, transforms: Any) -> None:
    """The error names the batch, and its cause has the other process's traceback."""
    batches = stream(published, transform=transforms.fail)
    with pytest.raises(TransformError, match="transform fail failed for batch 0") as caught:
        await anext(batches)
    assert caught.value.position == 0
    assert isinstance(caught.value.__cause__, KeyError)
    assert "my_transforms.py" in caught.value.__cause__.__notes__[0]
    assert left(published.spool) == []


async def test_transform_whose_result_stays(published: Published, transforms: Any) -> None:
    """What cannot be pickled cannot come over, and nobody waits for it."""
    with pytest.raises(EngineError, match=r"batch 0 .* a lock, cannot be handed .* pickle"):
        async for _ in stream(published, transform=transforms.opaque):
            pass
    assert left(published.spool) == []


async def test_transform_that_is_not_found(
    published: Published, transforms: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that only this process has."""
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(tmp_path / "code")])
    with pytest.raises(ArgumentError, match=r"cannot import it.*my_transforms"):
        async for _ in stream(published, transform=transforms.double):
            pass
    batches = stream(published, transform=transforms.double)
    with pytest.raises(ArgumentError, match="cannot import it"):
        async with batches:
            pass
    assert left(published.spool) == []


def test_bad_arguments(published: Published) -> None:
    """At once, before anything starts."""
    with pytest.raises(ArgumentError, match="engine: expected 'thread' or 'process', got 'fibre'"):
        dnc.Client(engine="fibre")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="transform: another process needs a function that can be pickled"):
        stream(published, transform=lambda batch: batch)
    with ThreadPoolExecutor(1) as pool, pytest.raises(ArgumentError, match="executor belongs to this process"):
        stream(published, transform=print, transform_workers=pool)
    code = "import dnc_async as dnc\ndef f(b): return b\ndnc.stream({!r}, engine='process', transform=f)"
    done = subprocess.run(
        [sys.executable, "-c", code.format(str(published.result))], capture_output=True, text=True, check=False
    )
    assert "ArgumentError: transform: f was defined in a notebook" in done.stderr


async def test_what_goes_wrong_comes_over(published: Published) -> None:
    """Errors keep their type, their parts and their culprits."""
    chunk = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
    async with dnc.Client(
        store=published.store, spool_dir=published.spool, gateways=["http://127.0.0.1:9"], engine="process"
    ) as client:
        with pytest.raises(ChunkUnavailableError) as caught:
            async with client.stream(chunk):
                pass
        assert "http://127.0.0.1:9" in str(caught.value)
    leaf = await dnc.upload(np.arange(4), batch_size=4, store=published.store)
    with pytest.raises(ManifestError, match="no_such"):
        await anext(dnc.stream(f"{leaf}/no_such", store=published.store, spool_dir=published.spool, engine="process"))
    assert left(published.spool) == []


async def test_observers_are_told(published: Published) -> None:
    """Events of the stream and of the client arrive, in their order, as in one process."""
    of_the_client: list[object] = []
    of_the_stream: list[object] = []
    async with dnc.Client(
        store=published.store, spool_dir=published.spool, observers=[of_the_client.append], engine="process"
    ) as client:
        batches = client.stream(published.result, progress=of_the_stream.append)
        async for _ in batches:
            pass
    for told in (of_the_client, of_the_stream):
        gaps = [event.position for event in told if isinstance(event, telemetry.Gap)]
        assert gaps == list(range(SAMPLES // BATCH))
        assert any(isinstance(event, telemetry.BlockReceived) for event in told)


async def test_what_is_logged_comes_over(
    published: Published, transforms: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning of the engine's is this process's to show; and a transform that runs on holds nobody up."""
    async with dnc.Client(
        store=published.store,
        spool_dir=published.spool,
        engine="process",
        settings=FetchSettings(transform_patience_s=0.01),
    ) as client:
        batches = client.stream(published.result, transform=transforms.slow)
        waiting = asyncio.ensure_future(anext(batches))
        await until(Path(transforms.__file__).with_name("began").exists)
        waiting.cancel()
        await asyncio.wait([waiting])
        await batches.aclose()
        Path(transforms.__file__).with_name("may end").touch()
    assert "the transform slow of batch 0 is still running" in caplog.text
    assert left(published.spool) == []
