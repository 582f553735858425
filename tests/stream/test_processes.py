"""Several processes share one spool folder: the living leave each other alone, and the dead leave nothing for long."""

import subprocess
import sys

import pytest

import dnc_async as dnc
from dnc_async.spool.governor import Account, Lease, Place
from dnc_async.system import tree_disk_bytes

from ..conftest import PATIENCE_S
from .conftest import DiskWatch, Published, left

SCRIPT = """
import asyncio, sys, dnc_async as dnc
async def main():
    count = 0
    async with asyncio.timeout(3600):
        async for batch in dnc.stream(sys.argv[1], store=sys.argv[2], spool_dir=sys.argv[3], disk_budget="200 kB"):
            assert batch["y"][0] == count * 100
            count += 1
            if count == 3:
                while not any((folder / "3").exists() for folder in Path(sys.argv[3]).iterdir()):
                    await asyncio.sleep(0.005)
                print("ready", flush=True)
                await asyncio.to_thread(sys.stdin.readline)
    print(count, flush=True)
from pathlib import Path
asyncio.run(main())
"""


def started(published: Published) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(published.result), str(published.store), str(published.spool)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


async def test_two_at_once_and_one_is_killed(
    published: Published, watch: DiskWatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed one left is gone before the next one's first lease; the other goes on over its own files."""
    seen: list[list[str]] = []
    try_lease = Account.try_lease

    def looked(self: Account, size_bytes: int, place: Place) -> Lease | None:
        seen.append(sorted(path.name for path in published.spool.glob("*.lock")))
        return try_lease(self, size_bytes, place)

    monkeypatch.setattr(Account, "try_lease", looked)
    with started(published) as killed:
        (of_the_dead,) = published.spool.glob("*.lock")
        with started(published) as living:
            (of_the_living,) = set(published.spool.glob("*.lock")) - {of_the_dead}
            killed.kill()
            killed.wait()
            assert tree_disk_bytes(of_the_dead.with_suffix(""))
            assert tree_disk_bytes(of_the_living.with_suffix(""))
            stream = dnc.stream(
                published.result, store=published.store, spool_dir=published.spool, disk_budget="200 kB"
            )
            count = 0
            async for batch in stream:
                published.check(batch, count)
                count += 1
            assert count == 20
            assert all(of_the_dead.name not in names and of_the_living.name in names for names in seen)
            assert {len(names) for names in seen} == {2}
            said, _ = living.communicate("go on\n", timeout=PATIENCE_S)
            assert said == "20\n"
            assert living.returncode == 0
    assert watch.writes
    assert left(published.spool) == []
    assert not published.spool.exists()
