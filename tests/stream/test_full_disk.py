"""A file system that is full below the budget: staging pauses, says so once, and goes on; the stream never stops."""

import asyncio
import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import dnc_async as dnc
from dnc_async.config import FetchSettings
from dnc_async.errors import DiskFullError
from dnc_async.spool.disk_backoff import DiskBackoff
from dnc_async.spool.files import FOLDER_BYTES, SpoolFolder
from dnc_async.spool.governor import Governor, Lease, Place

from ..conftest import PATIENCE_S, eventually
from .conftest import Published

KIB = 1024


class Anybody:
    """A borrower to whom nothing happens."""

    def changed(self) -> None: ...

    def revoked(self, lease: Lease) -> None: ...

    def due(self, place: Place) -> float:
        return 0.0


@pytest.fixture(params=["tmpfs", "ext4", "ext4 in clusters"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A real file system of some 6 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(folder)]
    if request.param != "tmpfs":
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("needs mkfs.ext4")
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(7 * 2**20)
        clusters = ["-O", "bigalloc", "-C", "65536"] if "clusters" in request.param else []
        make = ["mkfs.ext4", "-q", "-m", "0", "-b", "4096", "-O", "^has_journal", *clusters, str(image)]
        subprocess.run(make, check=True, capture_output=True)
        mount = ["mount", "-o", "loop", str(image), str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs the program 'mount'")
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607 - as mount, which is found on the PATH


def free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def fill(folder: Path, leave: int) -> Path:
    """A file that takes the disk, but for so many bytes."""
    path = folder / "somebody else's"
    with path.open("wb", buffering=0) as file:
        while free(folder) > leave:
            file.write(bytes(min(64 * KIB, free(folder) - leave)))
    return path


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def rest(published: Published, stream: dnc.BatchStream, start: int) -> int:
    count = start
    async for batch in stream:
        published.check(batch, count % 6)
        count += 1
    return count


def client_for(published: Published, disk: Path, **settings: float) -> dnc.Client:
    return dnc.Client(
        store=published.store,
        spool_dir=disk / "spool",
        disk_budget=2**26,
        settings=FetchSettings(**settings),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("leave", [192 * KIB, 1300 * KIB, 2500 * KIB])
async def test_full_for_good(
    many_leaves: Published, small_disk: Path, leave: int, caplog: pytest.LogCaptureFixture
) -> None:
    """With room for no chunk, for one or for two: the whole dataset comes, in order and right, with one warning."""
    fill(small_disk, leave)
    async with asyncio.timeout(PATIENCE_S), client_for(many_leaves, small_disk, disk_retry_s=0.02) as client:
        stream = client.stream(many_leaves.result, epochs=2)
        many_leaves.check(await anext(stream), 0)
        assert eventually(lambda: stream.statistics().disk_is_full)
        assert ", the disk is full>" in repr(stream)
        assert await rest(many_leaves, stream, 1) == 12
        assert stream.statistics().disk_full_s > 0
        granted = client._engine.runtime.governor.statistics().leases
    assert granted < 100, "it did not spin"
    (said,) = warnings(caplog)
    assert "the file system is full, although the disk budget is not; free some space" in said
    assert sorted(path.name for path in small_disk.iterdir() if path.name != "lost+found") == ["somebody else's"]


async def test_goes_on_when_there_is_room(
    many_leaves: Published, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Full, then freed in mid-stream: without anybody asking, chunks are staged again."""
    filler = fill(small_disk, 1300 * KIB)
    async with asyncio.timeout(PATIENCE_S), client_for(many_leaves, small_disk, disk_retry_s=0.02) as client:
        stream = client.stream(many_leaves.result, epochs=3)
        many_leaves.check(await anext(stream), 0)
        assert eventually(lambda: stream.statistics().disk_is_full)
        assert eventually(
            lambda: client._engine.runtime.governor.statistics().leased_bytes <= 1300 * KIB
        )  # what found no room is dropped
        before = client._engine.runtime.governor.statistics().leased_bytes
        filler.unlink()
        assert eventually(lambda: client._engine.runtime.governor.statistics().leased_bytes > before)
        async for batch in stream:
            many_leaves.check(batch, 1)
            break
        assert eventually(lambda: client._engine.runtime.governor.statistics().leased_bytes > 4 * 2**20)
        assert await rest(many_leaves, stream, 2) == 18
    assert len(warnings(caplog)) == 1


async def test_no_room_for_the_folder(published: Published, small_disk: Path) -> None:
    """Where not even a folder can be made, the stream does not start, and says what to do."""
    fill(small_disk, 0)
    if free(small_disk):
        pytest.skip("the last bytes of this file system cannot be taken")
    with pytest.raises(dnc.DiskFullError, match="name another spool_dir, or stage in memory alone"):
        await anext(
            dnc.stream(published.result, store=published.store, spool_dir=small_disk / "spool", disk_budget="1MB")
        )


def test_what_a_file_costs_here(small_disk: Path) -> None:
    """Space may be given in clusters of many blocks: leases hold what files take, from the first one on."""
    folder = SpoolFolder(small_disk / "spool")
    account = Governor(budget_bytes=2**30, overhead_bytes=0, max_leases=9).open(floor_bytes=0, borrower=Anybody())
    for size in (1, 5_000, 70_000, 900_000):
        cost = folder.cost(size)
        lease = account.try_lease(cost, (size,))
        assert lease is not None
        file = folder.reserve(lease, size)
        for start in sorted(range(0, size, 70_000), reverse=True):
            file.write_at(start, bytes(min(70_000, size - start)))
        os.fsync(file._fd)
        file.settle()
        assert size <= file.disk_bytes() <= lease.size_bytes == cost
        file.discard()
    assert folder.path.stat().st_blocks * 512 <= FOLDER_BYTES
    folder.close()


def test_one_chunk_at_a_time_and_ever_more_rarely(caplog: pytest.LogCaptureFixture) -> None:
    """The tries of an hour on a full disk can be counted; a chunk from before it was full proves nothing."""
    now = [100.0]
    pause = DiskBackoff(clock=lambda: now[0], retry_s=1.0, longest_retry_s=30.0)
    assert repr(pause) == "<DiskBackoff writing>"
    full = DiskFullError("disk: the file system is full")
    tries = []
    pause.refused(full)
    pause.worked(began=99.0)
    while now[0] < 3700:
        assert pause.is_full
        now[0] += pause.wait_s
        pause.tries()
        assert pause.wait_s > 0
        tries.append(now[0] - 100)
        pause.refused(full)
    assert tries[:7] == [1, 3, 7, 15, 31, 61, 91]
    assert len(tries) < 130
    assert pause.seconds == now[0] - 100
    pause.worked(began=now[0])
    assert not pause.is_full
    assert pause.wait_s == 0
    now[0] += 50
    assert pause.seconds == now[0] - 150
    pause.refused(full)
    assert repr(pause) == "<DiskBackoff paused, tries again in 1.0 s>"
    assert len(warnings(caplog)) == 1
