"""``python -m bench fetch``: how near to the wire the verified fetcher comes, alone and over many gateways.

Every gateway is a process of its own, and so is every client that is measured, so that CPU seconds are its own. The plain
arm is aiohttp that gets the same blocks, as many at once, and neither verifies nor keeps them. Shaped gateways have one
token bucket each over all their connections; ``share`` is of the sum of their rates.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np

import dnc_async as dnc
from bench.table import Line, show
from dnc_async.ipld.cid import RAW, Cid
from dnc_async.store import BlockStore
from dnc_async.store.integrity import walk
from dnc_async.testing import GatewayProcess

_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Gateways by their faults, how many MB to fetch, and the rate in MB/s that would be 1.0."""

    name: str
    gateways: tuple[str, ...]
    megabytes: int
    rate: float
    target: float


_SHAPED = (
    Scenario(name="20/20/20/20 MB/s", gateways=("rate=20MB,latency=50ms",) * 4, megabytes=800, rate=80, target=0.95),
    Scenario(
        name="40/20/10/10 MB/s",
        gateways=tuple(f"rate={rate}MB,latency=50ms" for rate in (40, 20, 10, 10)),
        megabytes=800,
        rate=80,
        target=0.95,
    ),
    Scenario(
        name="40/20/10/2 MB/s",
        gateways=tuple(f"rate={rate}MB,latency=50ms" for rate in (40, 20, 10, 2)),
        megabytes=720,
        rate=72,
        target=0.95,
    ),
    Scenario(
        name="one of four lies in every 10th block",
        gateways=("rate=20MB,latency=50ms",) * 3 + ("rate=20MB,latency=50ms,flip=10",),
        megabytes=600,
        rate=60,
        target=0.95,
    ),
    Scenario(
        name="one request of 200 stalls for 10 s",
        gateways=("rate=20MB,latency=50ms,straggle=200",) * 4,
        megabytes=800,
        rate=80,
        target=0.9,
    ),
)


def main(arguments: Sequence[str]) -> int:
    """Print the table; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(prog="python -m bench fetch", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["open", "shaped"], help="one half of it")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--arm", choices=["plain", "memory", "spool"], help=argparse.SUPPRESS)  # the child of _child
    parser.add_argument("--url", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--cids", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.arm:
        sys.stdout.write(json.dumps(asyncio.run(_arm(options))) + "\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as folder:
        halves = [half for half in (_open, _shaped) if options.only in (None, half.__name__[1:])]
        measured = (line for half in halves for line in half(Path(folder), options.repeats))
        return show(measured, as_json=options.json)


# One gateway without shaping.


def _open(folder: Path, repeats: int) -> Iterator[Line]:
    store, dataset = dataset_of(folder / "open", 1024)
    leaves = [cid for cid in leaves_of(store, dataset) if cid.codec == RAW]
    (folder / "leaves").write_text("\n".join(map(str, leaves)))
    with GatewayProcess(store.path) as gateway:
        found: dict[str, list[dict[str, float]]] = {"plain": [], "memory": [], "spool": []}
        for _ in range(repeats):
            for arm, what in (("plain", str(folder / "leaves")), ("memory", dataset), ("spool", dataset)):
                found[arm].append(_child(arm, [gateway.url], what))
    for arm, target, cpu in (("memory", 0.70, 1.5), ("spool", 0.55, 2.0)):
        pairs = zip(found[arm], found["plain"], strict=True)
        ratio = statistics.median(mine["rate"] / plain["rate"] for mine, plain in pairs)
        cost = statistics.median(each["cpu_s_per_gb"] for each in found[arm])
        what = "into memory" if arm == "memory" else "through the spool, decoded"
        yield Line.least(f"one gateway, {what}, of plain aiohttp", ratio, target)
        yield Line.most(f"one gateway, {what}: CPU", cost, cpu, "s/GB")


def leaves_of(store: BlockStore, dataset: str) -> list[Cid]:
    """The CIDs of all blocks below a root, and its own."""
    return [block.cid for block in walk(store, Cid.parse(dataset), lambda *_: None)]


def _child(arm: str, urls: Sequence[str], what: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench", "fetch", "--arm", arm, "--cids", what]
    for url in urls:
        command += ["--url", url]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


async def _arm(options: argparse.Namespace) -> dict[str, float]:
    arms = {"plain": _plain, "memory": _memory, "spool": _spool}
    for module in ("client", "gateways.http", "engine.pipeline"):  # loading them is not fetching
        importlib.import_module(f"dnc_async.{module}")
    before = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    size = await arms[options.arm](options.url, options.cids)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"rate": size / seconds / 1e6, "cpu_s": cpu, "cpu_s_per_gb": cpu / size * 1e9, "seconds": seconds}


async def _plain(urls: Sequence[str], cids: str) -> int:
    left = iter(Path(cids).read_text().split())  # noqa: ASYNC240 - a bench
    size = 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as session:

        async def work() -> None:
            nonlocal size
            for cid in left:
                async with session.get(f"{urls[0]}/ipfs/{cid}?format=raw") as response:
                    body = await response.read()
                    size += len(body)  # not before the await: that would add to what it was then

        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return size


async def _memory(urls: Sequence[str], cid: str) -> int:
    return (await _streamed(urls, cid, float("inf"), budget="0"))[1]


async def _spool(urls: Sequence[str], cid: str) -> int:
    return (await _streamed(urls, cid, float("inf")))[1]


# Several shaped gateways.


def _shaped(folder: Path, repeats: int) -> Iterator[Line]:
    store, dataset = dataset_of(folder / "shaped", max(scenario.megabytes for scenario in _SHAPED))
    for scenario in _SHAPED:
        shares = []
        for _ in range(max(1, repeats // 2)):
            with contextlib.ExitStack() as stack:
                urls = [stack.enter_context(GatewayProcess(store.path, each)).url for each in scenario.gateways]
                rate, _ = asyncio.run(_streamed(urls, dataset, scenario.megabytes * 10**6))
                shares.append(rate / 1e6 / scenario.rate)
        yield Line.least(f"{scenario.name}, of {scenario.rate:g} MB/s", statistics.median(shares), scenario.target)
    yield _changing(store, dataset, repeats)


def _changing(store: BlockStore, dataset: str, repeats: int) -> Line:
    """One of four gateways has a tenth of its rate after 5 s, one dies at 8 s: of what they could deliver."""
    steady = "rate=20MB,latency=50ms"
    shares = []
    for _ in range(max(1, repeats // 2)):
        with contextlib.ExitStack() as stack:
            began = time.perf_counter()
            faults = (steady, steady, f"{steady},slow=5s-", f"{steady},down=8s-")
            urls = [stack.enter_context(GatewayProcess(store.path, each)).url for each in faults]
            # The gateways' clocks began while they were started, a moment apart; the middle of it stands for all.
            offset = (time.perf_counter() - began) / 2
            started = time.perf_counter()
            rate, _ = asyncio.run(_streamed(urls, dataset, 720e6))
            seconds = time.perf_counter() - started
            possible = 40e6 * seconds + 20e6 * (5 - offset) + 2e6 * (seconds - 5 + offset) + 20e6 * (8 - offset)
            shares.append(rate * seconds / possible)
    what = "one of four at a tenth after 5 s, one dying at 8 s, of what remained"
    return Line.least(what, statistics.median(shares), 0.93)


def dataset_of(path: Path, megabytes: int) -> tuple[BlockStore, str]:
    """A dataset in batches of 16 MB, no two rows of it alike; its leaves have 1 MiB."""
    rng = np.random.default_rng(1)

    def rows() -> Iterator[dict[str, np.ndarray]]:
        for _ in range(megabytes // 16):
            yield {"x": rng.integers(0, 256, (16, 10**6), dtype=np.uint8)}

    done = asyncio.run(dnc.upload(rows(), batch_size=16, store=path))
    return BlockStore.open(path), done.cid


async def _streamed(urls: Sequence[str], cid: str, most_bytes: float, budget: str = "128 MB") -> tuple[float, int]:
    """Stream a dataset to a consumer that takes no time: verified bytes per second, and bytes taken."""
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as spool:
        size = 0
        began = time.perf_counter()
        async with dnc.stream(cid, gateways=urls, disk_budget=budget, spool_dir=spool) as batches:
            async for batch in batches:
                size += batch["x"].nbytes
                if size >= most_bytes:
                    break
            seconds = time.perf_counter() - began
            return batches.statistics().fetched_bytes / seconds, size
