"""A small published dataset, and what must be gone when a stream was left."""

import asyncio
import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc
from dnc_async import system
from dnc_async.dataset.manifest import Manifest
from dnc_async.ipld.block import Block
from dnc_async.ipld.cid import Cid
from dnc_async.store import BlockStore
from dnc_async.store.integrity import walk

from ..conftest import PATIENCE_S

SAMPLES, BATCH = 2_000, 100
BATCHES = SAMPLES // BATCH
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="engine='process' works on Linux alone")


@dataclass(frozen=True)
class Published:
    """A dataset in a store: its rows, its result, and where it is."""

    x: Any
    y: Any
    result: dnc.UploadResult
    store: Path
    spool: Path

    def check(self, batch: dict[str, Any], index: int) -> None:
        """The batch at an index has the right rows."""
        rows = slice(index * BATCH, (index + 1) * BATCH)
        assert (batch["x"] == self.x[rows]).all()
        assert (batch["y"] == self.y[rows]).all()


@pytest.fixture
def published(tmp_path: Path) -> Published:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(SAMPLES, 30)).astype("f4"), np.arange(SAMPLES)
    upload = dnc.upload({"x": x, "y": y}, batch_size=BATCH, store=tmp_path / "store")
    result = asyncio.run(upload)
    return Published(x, y, result, tmp_path / "store", tmp_path / "spool")


@pytest.fixture(scope="session")
def published_once(tmp_path_factory: pytest.TempPathFactory) -> Published:
    rows = {"x": np.random.default_rng(0).normal(size=(SAMPLES, 30)).astype("f4"), "y": np.arange(SAMPLES)}
    folder = tmp_path_factory.mktemp("published")
    result = asyncio.run(dnc.upload(rows, batch_size=BATCH, store=folder / "store"))
    return Published(rows["x"], rows["y"], result, folder / "store", folder / "spool")


@pytest.fixture
def read_only(published_once: Published, tmp_path: Path) -> Published:
    """Published once for all tests that only read it; each has a spool of its own."""
    return replace(published_once, spool=tmp_path / "spool")


def stream(published: Published, transform: Any, workers: Any = 0, **options: Any) -> dnc.BatchStream:
    """Of the dataset, with a function of the consumer's."""
    options = {"store": published.store, "spool_dir": published.spool, "disk_budget": "1MB", **options}
    return dnc.stream(published.result, transform=transform, transform_workers=workers, **options)


def number(batch: dict[str, Any]) -> int:
    """Which of the dataset's batches this is."""
    return int(batch["y"][0]) // BATCH


async def run_here(function: Callable[..., None], *args: Any) -> None:
    """As a fetcher does in a worker."""
    function(*args)


def engine_processes() -> list[int]:
    """Engines in processes of their own that this process has started, and that run or were not waited for."""
    found = []
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # it ends meanwhile
            for pid in Path(f"/proc/self/task/{task}/children").read_text().split():
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"dnc_async.engine.process" in command or not command:  # a zombie has none
                    found.append(int(pid))
    return found


@pytest.fixture(params=["thread", pytest.param("process", marks=[needs_linux, pytest.mark.border])])
def engine(request: pytest.FixtureRequest) -> str:
    """Where the engine runs."""
    return str(request.param)


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], Any]]:
    """Makes a module of the consumer's, by name and text, that is found by its ``sys.path`` alone."""
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def make(name: str, text: str) -> Any:
        (folder / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    made = set(sys.modules)
    yield make
    for name in set(sys.modules) - made:
        if getattr(sys.modules[name], "__file__", None) and folder in Path(str(sys.modules[name].__file__)).parents:
            del sys.modules[name]


def left(spool: Path) -> list[str]:
    """Threads, files and processes of the engine that are not gone: a close that was only posted is waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        threads = [t.name for t in threading.enumerate() if t.name.startswith("dnc_async")]
        files = [f"{place}/{name}" for place, _, names in os.walk(spool) for name in names]
        found = threads + files + [f"process {pid}" for pid in engine_processes()]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.005)


def halves(published: Published) -> tuple[list[Block], list[Block]]:
    """The dataset's blocks without every other chunk, and without the others: neither is enough, and each has the manifest."""
    store, root = BlockStore.open(published.store), Cid.parse(published.result.cid)
    manifest = Manifest.decode(asyncio.run(dnc.cat(f"{root}/manifest", store=published.store)))
    chunks = [entry.cid for entry in manifest.entries(0, manifest.first_page)]
    blocks = list(walk(store, root, lambda *_: None))
    first, second = ([block for block in blocks if block.cid not in chunks[half::2]] for half in (0, 1))
    return first, second


def keep(folder: Path, blocks: list[Block]) -> Path:
    """A store of these blocks, the first of which is the root."""
    with BlockStore.open(folder, create=True).begin() as transaction:
        for block in blocks:
            transaction.put(block)
        transaction.commit(blocks[0].cid)
    return folder


class DiskWatch:
    """Looks at the disk as ``du`` does, by itself, after each write: between two of them a spool can only shrink."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder = folder
        self.peak_bytes = self.peak_files = self.writes = 0
        self._write_at = system.write_at
        monkeypatch.setattr(system, "write_at", self._watched)

    def _watched(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        try:
            self._write_at(fd, data, offset)
        finally:
            self.look()

    def look(self) -> None:
        """The folders count, too; what vanishes meanwhile does not."""
        total = files = 0
        for place, folders, names in os.walk(self.folder):
            for name in [*folders, *names]:
                with contextlib.suppress(FileNotFoundError):
                    total += os.lstat(f"{place}/{name}").st_blocks * 512
            files += len(names)
        self.writes += 1
        self.peak_bytes = max(self.peak_bytes, total)
        self.peak_files = max(self.peak_files, files)


@pytest.fixture
def watch(published: Published, monkeypatch: pytest.MonkeyPatch) -> DiskWatch:
    return DiskWatch(monkeypatch, published.spool)


@pytest.fixture
def many_leaves(tmp_path: Path) -> Published:
    """Six batches of 2 MiB in chunks of five leaves each."""
    x = np.random.default_rng(1).integers(0, 255, (6 * BATCH, 2**21 // BATCH - 8), dtype=np.uint8)
    y = np.arange(6 * BATCH)
    result = asyncio.run(dnc.upload({"x": x, "y": y}, batch_size=BATCH, store=tmp_path / "large store"))
    return Published(x, y, result, tmp_path / "large store", tmp_path / "spool")
