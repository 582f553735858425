"""``get`` writes a file to the disk while it grows: nobody waits for that, and its errors are told as those at the end."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import dnc_async as dnc
from dnc_async.config import FetchSettings
from dnc_async.engine.files import output, write_back
from dnc_async.engine.files.output import OutputFile, PartialOutput
from dnc_async.engine.files.write_back import WriteBack
from dnc_async.errors import OutputError
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_directory, build_file
from dnc_async.ipld.cid import RAW, Cid
from dnc_async.ipld.plan import Leaf

from ..conftest import PATIENCE_S
from .conftest import Keep, content, threads

DATA = content(2**20)
PROFILE = replace(UNIXFS_V1_2025, leaf_bytes=2**14)

pytestmark = pytest.mark.skipif(not hasattr(os, "fdatasync"), reason="this system has no fdatasync")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flush after each 64 KiB."""
    monkeypatch.setattr(write_back, "_PART_BYTES", 2**16)


def leaf(offset: int, size: int) -> Leaf:
    return Leaf(Cid.of(b"", RAW), offset, size, None)


class Flushes:
    """In place of worker threads: a flush ends when the test says so."""

    def __init__(self) -> None:
        self.flushed: list[object] = []
        self.running: asyncio.Future[None] | None = None

    async def in_worker(self, function: Callable[[OutputFile], None], file: OutputFile) -> None:
        function(file)
        self.running = asyncio.get_running_loop().create_future()
        await self.running


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_files_are_flushed_one_at_a_time_when_they_have_grown(tmp_path: Path, small_parts: None) -> None:
    """Each after a part; what is written meanwhile counts for the next time; complete files not at all."""
    a, b = (OutputFile.open(str(tmp_path / name)) for name in "ab")
    flushes = Flushes()
    writes = WriteBack(flushes.flushed.append, in_worker=flushes.in_worker)
    task = asyncio.create_task(writes.run())
    try:
        writes.wrote(a, 2**16 - 1)
        await turns()
        assert flushes.flushed == []
        writes.wrote(a, 1)
        writes.wrote(b, 2**16)
        await turns()
        assert flushes.flushed == [a]
        writes.wrote(a, 2**17)
        for expected in ([a, b], [a, b, a]):
            assert flushes.running is not None
            flushes.running.set_result(None)
            await turns()
            assert flushes.flushed == expected
        writes.wrote(b, 2**20)
        writes.forget(b)
        flushes.running.set_result(None)
        await turns()
        assert flushes.flushed == [a, b, a]
        assert "0 files, 0 bytes" in repr(writes)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        a.close()
        b.close()


def test_others_write_and_close_while_a_file_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes its time holds up nobody but the flush."""
    begun, go_on = threading.Event(), threading.Event()
    closed: list[int] = []

    def slow(descriptor: int) -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        os.fstat(descriptor)
        closed.append(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    file = OutputFile.open(str(tmp_path / "out"))
    thread = threading.Thread(target=file.flush)
    thread.start()
    try:
        assert begun.wait(PATIENCE_S)
        file.place(leaf(0, 5), b"while")
        file.finish(5, None)
        file.close()
    finally:
        go_on.set()
        thread.join(PATIENCE_S)
    assert (tmp_path / "out").read_bytes() == b"while"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(closed[0])
    file.flush()  # closed: there is nothing to do
    assert len(closed) == 1


@pytest.mark.parametrize("is_tree", [False, True])
async def test_get_flushes_while_it_fetches(
    keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_parts: None, is_tree: bool
) -> None:
    """A file of its own, and a large one in a tree, before all of it is there."""
    blocks, root = build_file(DATA, PROFILE)
    if is_tree:
        above, root = build_directory([("f", root), ("again", root)], PROFILE)
        blocks += above
    sizes: list[int] = []

    def flush(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fdatasync", flush)
    settings = FetchSettings(in_flight_bytes=2**16)
    async with dnc.Client(store=keep(blocks, root.cid), disk_budget=0, settings=settings) as client:
        saved = await client.get(root.cid, tmp_path / "out")
    assert ((saved.path / "f") if is_tree else saved.path).read_bytes() == DATA
    assert sizes
    assert min(sizes) < len(DATA)
    assert threads() == []


async def test_get_where_the_system_has_no_such_call(
    keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_parts: None
) -> None:
    """Then all is flushed at the end."""
    monkeypatch.delattr(os, "fdatasync")
    blocks, root = build_file(DATA, PROFILE)
    saved = await dnc.get(root.cid, tmp_path / "out", store=keep(blocks, root.cid))
    assert saved.path.read_bytes() == DATA


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
async def test_an_error_is_told_as_at_the_end(
    keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_parts: None, code: int
) -> None:
    """In the same words, from the same cause, and what was written is kept for the next call."""
    blocks, root = build_file(DATA, PROFILE)
    store = keep(blocks, root.cid)

    def fails(_: int) -> None:
        raise OSError(code, os.strerror(code))

    said = []
    for name in ("fsync", "fdatasync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fails)
            with pytest.raises(OutputError) as caught:
                await dnc.get(root.cid, tmp_path / "out", store=store)
        assert isinstance(caught.value.__cause__, OSError)
        said.append(str(caught.value))
        assert not (tmp_path / "out").exists()
        assert threads() == []
        for part in tmp_path.glob(".out*"):
            os.truncate(part, 2**15)
    assert said[0] == said[1]
    assert said[0].startswith(f"{tmp_path / 'out'}: {os.strerror(code)}; ")
    saved = await dnc.get(root.cid, tmp_path / "out", store=store)
    assert saved.reused_bytes == 2**15
    assert saved.path.read_bytes() == DATA


def test_a_file_of_a_tree_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target would say too little."""
    part = PartialOutput(tmp_path / ".part", tmp_path / "out", folder=True)

    def fails(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(output.os, "fdatasync", fails)
    file = part.file("name")
    try:
        with pytest.raises(OutputError, match=r"\.part/name: broken; choose another place"):
            part.flush(file)
    finally:
        file.close()
        part.close()
