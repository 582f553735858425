"""Somebody else at the spool: deleted, replaced, written to, or out of reach; and a process that may open few files."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc
from dnc_async.engine.sink import Sink
from dnc_async.errors import SpoolError
from dnc_async.spool.files import SpoolFile
from dnc_async.store import BlockStore
from dnc_async.testing import Faults, ScriptedGateway

from ..conftest import PATIENCE_S, eventually, until
from .conftest import BATCH, BATCHES, Published, left, number


async def staged(published: Published) -> tuple[dnc.BatchStream, Path]:
    """A stream that was begun and has chunks on the disk; and its folder there."""
    # Small enough that more is staged after this.
    batches = dnc.stream(published.result, store=published.store, spool_dir=published.spool, disk_budget="200kB")
    published.check(await anext(batches), 0)
    assert eventually(lambda: len(files(published.spool)) > 3)
    (folder,) = (path for path in published.spool.iterdir() if path.is_dir())
    return batches, folder


def delete(folder: Path) -> None:
    """All at once: the engine writes there meanwhile."""
    shutil.rmtree(folder.rename(folder.parent.parent / f"deleted {folder.name}"))


def files(spool: Path) -> list[Path]:
    return [path for path in spool.glob("*/*") if path.is_file()]


async def test_the_folder_is_deleted(read_only: Published) -> None:
    """A tidy cron job: what is open is read, what comes is staged in a folder that is made again, nothing is left."""
    batches, folder = await staged(read_only)
    delete(folder)
    numbers = [number(batch) async for batch in batches]
    assert numbers == list(range(1, BATCHES))
    assert left(read_only.spool) == []
    assert not read_only.spool.exists()


async def test_all_of_the_spool_is_deleted(read_only: Published) -> None:
    """With the lock file beside the folder: it is made again, too, so that no other process takes the folder for a dead one's."""
    batches, folder = await staged(read_only)
    delete(read_only.spool)
    seen = 1
    async for batch in batches:
        assert number(batch) == seen
        seen += 1
        if folder.exists():
            assert folder.with_suffix(".lock").exists()
    assert seen == BATCHES
    assert left(read_only.spool) == []


async def test_something_else_in_its_place(read_only: Published) -> None:
    """A file where the folder was: the error is ours and names it, and the file stays."""
    batches, folder = await staged(read_only)
    while not folder.is_file():  # the engine makes the folder again, if it is faster
        with contextlib.suppress(IsADirectoryError):
            delete(folder)
            folder.write_text("mine")
    with pytest.raises(SpoolError, match=str(folder)):
        async for _ in batches:
            pass
    assert folder.read_text() == "mine"
    folder.unlink()
    assert left(read_only.spool) == []


@pytest.mark.parametrize("kind", ["file", "folder", "fifo"])
async def test_something_else_in_the_folder(read_only: Published, kind: str) -> None:
    """Where the next chunks would be staged: the folder is the engine's, so what is in its way goes."""
    make: dict[str, Callable[[Path], object]] = {"file": Path.touch, "folder": Path.mkdir, "fifo": os.mkfifo}
    batches, folder = await staged(read_only)
    for slot in range(BATCHES):
        (folder / str(slot)).unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):  # the engine was faster
            make[kind](folder / str(slot))
    assert [number(batch) async for batch in batches] == list(range(1, BATCHES))
    assert left(read_only.spool) == []
    assert not read_only.spool.exists()


async def test_the_working_directory_changes(
    read_only: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative folder is where it was when the stream was made."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    batches = dnc.stream(read_only.result, store=read_only.store, spool_dir="spool", disk_budget="1MB")
    await anext(batches)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [number(batch) async for batch in batches] == list(range(1, BATCHES))
    assert list(tmp_path.rglob("spool")) == []
    assert list((tmp_path / "elsewhere").iterdir()) == []


def flip(file: SpoolFile) -> None:
    byte = os.pread(file._fd, 1, 100)
    os.pwrite(file._fd, bytes([byte[0] ^ 1]), 100)


def cut(file: SpoolFile) -> None:
    os.ftruncate(file._fd, 10)


@pytest.mark.parametrize("harm", [flip, cut])
async def test_what_was_staged_is_not_what_was_written(
    read_only: Published,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[SpoolFile], None],
) -> None:
    """A flipped bit, a file that was cut: it comes again, with a warning; what is handed over is right."""
    move_to, harmed = Sink.move_to, []

    def moved(self: Sink, place: Any) -> dict[int, str]:
        if self._file is not None and self._written and len(harmed) < 3:
            harm(self._file)
            harmed.append(1)
        return move_to(self, place)

    monkeypatch.setattr(Sink, "move_to", moved)
    async with ScriptedGateway(BlockStore.open(read_only.store), Faults.parse("latency=5ms")) as gateway:
        options: dict[str, Any] = {"spool_dir": read_only.spool, "disk_budget": "1MB"}
        with caplog.at_level(logging.WARNING, "dnc_async"):
            index = 0
            async for batch in dnc.stream(read_only.result, gateways=[gateway.url], **options):
                read_only.check(batch, index)
                index += 1
                if index == 1:
                    await until(lambda: files(read_only.spool))  # of which the next ones are read
    assert index == BATCHES
    assert harmed
    assert "fetched again" in caplog.text


FEW = """
import asyncio, os, resource, sys
import dnc_async as dnc, aiohttp, numpy
spare = int(sys.argv[4])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + spare, hard))
async def main():
    batches = 0
    cid, gateway, spool, _, engine = sys.argv[1:]
    async for batch in dnc.stream(cid, gateways=[gateway], spool_dir=spool, disk_budget="8MB", engine=engine):
        batches += 1
        mine = [open(os.devnull) for _ in range(spare // 4)]
        for each in mine: each.close()
    print(batches)
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("spare", [16, 24, 64])
@pytest.mark.parametrize("engine", ["thread", pytest.param("process", marks=pytest.mark.border)])
async def test_few_files_may_be_open(tmp_path: Path, spare: int, engine: str) -> None:
    """More chunks than files that may be open: fewer are staged at once, and the consumer has some files for itself."""
    store = tmp_path / "store"
    result = await dnc.upload({"x": np.arange(80 * BATCH)}, batch_size=BATCH, store=store)
    async with ScriptedGateway(BlockStore.open(store), Faults()) as gateway:
        words = [str(result), gateway.url, str(tmp_path / "spool"), str(spare), engine]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", FEW, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert (out.decode().strip(), err.decode()) == ("80", "")


async def test_no_file_may_be_opened(
    published: Published, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The limit is reached while it runs: as with a full disk, one warning, and the stream goes on."""
    resource = pytest.importorskip("resource")
    batches = dnc.stream(
        published.result, store=published.store, spool_dir=published.spool, disk_budget="1MB", prefetch=2
    )
    published.check(await anext(batches), 0)
    real = os.open

    def refuses(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if str(published.spool) in str(path):
            raise OSError(24, "Too many open files")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuses)
    with caplog.at_level(logging.WARNING, "dnc_async"):
        assert [number(batch) async for batch in batches] == list(range(1, BATCHES))
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"may have {resource.getrlimit(resource.RLIMIT_NOFILE)[0]} open" in said
