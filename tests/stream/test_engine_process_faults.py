"""What goes wrong at the border between two processes ends what it concerns, is told, and leaves nobody waiting."""

import asyncio
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc
from dnc_async import telemetry
from dnc_async.dataset.manifest import Manifest
from dnc_async.engine.process import remote
from dnc_async.engine.process.messages import Log
from dnc_async.errors import ArgumentError, DncError, EngineError, StreamClosedError, TransformError
from dnc_async.store import BlockStore
from dnc_async.testing import Faults, ScriptedGateway

from .conftest import BATCH, PATIENCE_S, SAMPLES, Published, engine_processes, left, needs_linux

pytestmark = [needs_linux, pytest.mark.border]

MODULE = """
import dataclasses, os, threading, time
@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    what: str
class Unhinged(Exception):
    def __reduce__(self):
        return int, ("no number",)
class Result:
    def __init__(self, raised):
        self.raised = raised
    def __reduce__(self):
        raise self.raised
class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")
def frozen(batch): raise Frozen("takes no note")
def unhinged(batch): raise Unhinged("is pickled, and is not made again")
def mute(batch): return Result(Mute())
def leaves(batch): return Result(SystemExit(3))
def forks(batch):
    if not os.fork():
        time.sleep(3600)
        os._exit(0)
    return batch
"""


def stream(published: Published, **options: Any) -> dnc.BatchStream:
    options = {"disk_budget": "1MB", **options}
    return dnc.stream(published.result, store=published.store, spool_dir=published.spool, engine="process", **options)


def client(published: Published, **options: Any) -> dnc.Client:
    return dnc.Client(store=published.store, spool_dir=published.spool, engine="process", **options)


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file may be larger, which holds for the memory that is passed to another process, too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    yield 2**20
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_limit_of_file_sizes(
    published: Published, small_files: int, importable: Callable[[str, str], Any]
) -> None:
    """Is told as such, from either side, and not as something that cannot be pickled."""
    module = importable("larger", "class Larger:\n  held = b''\n  def __call__(self, batch): return bytes(2**21)\n")
    with pytest.raises(EngineError, match=r"batch 0 .* 2,097,\d+ bytes .*ulimit -f") as raised:
        async for _ in stream(published, transform=module.Larger(), disk_budget=0):
            pass
    assert "pickl" not in str(raised.value)
    larger = module.Larger()
    larger.held = bytes(2 * small_files)
    with pytest.raises(EngineError, match=r"cannot be passed to another process: .*ulimit -f"):
        async for _ in stream(published, transform=larger, disk_budget=0):
            pass
    assert left(published.spool) == []


@pytest.fixture
def strange(importable: Callable[[str, str], Any]) -> Any:
    """A module with functions that fail strangely."""
    return importable("strange_transforms", MODULE)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("frozen", TransformError), ("unhinged", TransformError), ("mute", EngineError), ("leaves", EngineError)],
)
async def test_strange_errors(published: Published, strange: Any, name: str, kind: type[DncError]) -> None:
    """However an exception or a result behaves when it is pickled: the stream ends, and the consumer is told."""
    batches = stream(published, transform=getattr(strange, name))
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(kind):
            await anext(batches)
        await batches.aclose()
    assert left(published.spool) == []


async def test_an_observer_that_asks(published: Published) -> None:
    """It is called in the very thread that reads the answers, and gets one."""
    told: list[int] = []

    def observe(event: object) -> None:
        if isinstance(event, telemetry.Gap) and len(told) < 3:
            told.append(batches.statistics().batches)

    batches = stream(published, progress=observe)
    async with asyncio.timeout(PATIENCE_S):
        async for _ in batches:
            pass
    assert len(told) == 3
    assert told == sorted(told)
    assert told[0] >= 1


def test_opened_from_several_threads(published: Published) -> None:
    """One process, however many threads begin at the same moment."""
    several, counts = client(published), []
    together = threading.Barrier(4)

    async def consume() -> int:
        together.wait()
        return len([batch async for batch in several.stream(published.result)])

    threads = [threading.Thread(target=lambda: counts.append(asyncio.run(consume()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert counts == [SAMPLES // BATCH] * 4
    assert len(engine_processes()) == 1
    asyncio.run(several.aclose())
    assert left(published.spool) == []


@pytest.mark.parametrize("executable", ["/bin/false", "/no/such/python"])
async def test_a_process_that_does_not_start(
    published: Published, executable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told, also the second time."""
    monkeypatch.setattr(sys, "executable", executable)
    several = client(published)
    for _ in range(2):
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(EngineError, match=r"could not be started|ended with exit status 1"):
                await anext(several.stream(published.result))
    await several.aclose()
    assert left(published.spool) == []


async def test_killed_while_a_fork_holds_its_sockets(published: Published, strange: Any) -> None:
    """That the process is gone is known at once, whoever has copies of what it held."""
    batches = stream(published, transform=strange.forks, epochs=None)
    await anext(batches)
    pid = engine_processes()[0]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(pid, signal.SIGKILL)
    try:
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(EngineError, match="signal 9"):
                async for _ in batches:
                    pass
        assert "streaming" in repr(batches) or "closed" in repr(batches)
    finally:
        for child in children:
            os.kill(int(child), signal.SIGKILL)


async def test_a_batch_that_lay_ready_comes_before_an_error(tmp_path: Path) -> None:
    """An error that is not about it, such as a page of the manifest that nobody has, takes none of what was there before."""
    rows = np.arange(200)
    done = await dnc.upload(rows, batch_size=2, store=tmp_path / "store")
    store = BlockStore.open(tmp_path / "store")
    manifest = await dnc.cat(f"{done}/manifest", store=tmp_path / "store")
    counts = []
    missing = next(cid for cid in _pages(manifest) if store.has(cid))
    for path in store.path.rglob("*"):
        if path.is_file() and path.read_bytes() == store.read(missing):
            path.unlink()
    async with ScriptedGateway(store, Faults()) as gateway:
        for engine in ("thread", "process"):
            batches = dnc.stream(done, gateways=[gateway.url], spool_dir=tmp_path / "spool", engine=engine)  # type: ignore[arg-type]
            count = 0
            with pytest.raises(DncError):  # noqa: PT012 - how many came before it is the point
                async for batch in batches:
                    assert batch[0] == 2 * count
                    count += 1
            counts.append(count)
    assert counts == [32, 32]  # the first page has 64 chunks


def _pages(manifest: bytes) -> tuple[Any, ...]:
    return Manifest.decode(manifest).pages


async def test_an_engine_that_does_not_listen_holds_nobody_up(published: Published) -> None:
    """However often a consumer asks for a batch and gives up."""
    async with client(published) as several:
        batches = several.stream(published.result, epochs=None)
        await anext(batches)
        (pid,) = engine_processes()
        os.kill(pid, signal.SIGSTOP)
        try:
            polls = 0
            async with asyncio.timeout(PATIENCE_S):
                while polls < 1000:
                    try:
                        await asyncio.wait_for(anext(batches), 0.001)
                    except TimeoutError:
                        polls += 1
        finally:
            os.kill(pid, signal.SIGCONT)
        await anext(batches)


async def test_a_log_handler_that_raises(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the application's, and ends no stream."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk of the log is full")

    monkeypatch.setattr(telemetry.logger, "handlers", [Broken()])
    monkeypatch.setattr(telemetry.logger, "propagate", False)
    async with client(published) as several:
        batches = several.stream(published.result)
        await anext(batches)
        process = several._engine
        assert process is not None
        record = telemetry.logger.makeRecord("dnc_async", logging.WARNING, __file__, 1, "words", (), None)
        process._handle(Log(record))
        async for _ in batches:
            pass


async def test_a_client_that_was_closed(published: Published) -> None:
    """It starts no process any more."""
    several = client(published)
    await several.aclose()
    with pytest.raises(StreamClosedError, match="was closed"):
        async with several:
            pass
    with pytest.raises(StreamClosedError, match="was closed"):
        await anext(several.stream(published.result))
    assert engine_processes() == []


async def test_what_can_no_longer_be_pickled(published: Published) -> None:
    """It is told as an argument that cannot work, and the client goes on."""
    async with client(published) as several:
        with pytest.raises(ArgumentError, match="no longer be pickled"):
            await anext(several.stream(published.result, transform=_Changes()))
        assert len([batch async for batch in several.stream(published.result)]) == SAMPLES // BATCH
    assert left(published.spool) == []


class _Changes:
    """A callable that can be pickled once."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, batch: object) -> object:
        return batch

    def __getstate__(self) -> dict[str, object]:
        self.times += 1
        if self.times > 1:
            raise TypeError("a lock came into it")
        return {}


async def test_somebody_ends_the_process(published: Published) -> None:
    """SIGTERM that is not ours: the consumer is not told that it closed the stream itself."""
    batches = stream(published)
    await anext(batches)
    (pid,) = engine_processes()
    os.kill(pid, signal.SIGTERM)
    with pytest.raises(EngineError, match=f"{pid} was ended by SIGTERM"):
        async for _ in batches:
            pass
    assert left(published.spool) == []


@pytest.mark.parametrize("leaves", ["the stream", "the client"])
async def test_it_hangs(published: Published, leaves: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was stopped (SIGSTOP): it is asked, told, killed; nothing is left of it, neither process nor file."""
    monkeypatch.setattr(remote, "_THERE_S", 0.2)
    monkeypatch.setattr(remote, "_TERMINATE_S", 0.1)
    async with dnc.Client(
        store=published.store, spool_dir=published.spool, disk_budget="1MB", engine="process"
    ) as client:
        batches = client.stream(published.result)
        await anext(batches)
        (pid,) = engine_processes()
        os.kill(pid, signal.SIGSTOP)
        if leaves == "the stream":
            await asyncio.wait_for(batches.aclose(), PATIENCE_S)
    assert left(published.spool) == []


async def test_it_hangs_and_is_asked(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for statistics is told so, and waits for it once at most."""
    monkeypatch.setattr(remote, "_ANSWER_S", 0.05)
    batches = dnc.stream(
        published.result, store=published.store, spool_dir=published.spool, disk_budget="1MB", engine="process"
    )
    await anext(batches)
    (pid,) = engine_processes()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(EngineError, match="did not answer"):
        batches.statistics()
    with pytest.raises(EngineError, match="does not answer"):
        batches.report()
    assert "streaming" in repr(batches)
    os.kill(pid, signal.SIGCONT)
    await batches.aclose()
    assert left(published.spool) == []
