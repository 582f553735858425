"""``python -m bench cost``: what a verified byte costs, in CPU and in throughput, against a bare download loop.

The bare loop is aiohttp with 16 GETs of the same raw leaves at once, and sha256 of each body in a worker thread: it keeps and
places nothing. ``stream()`` without a spool delivers the same leaves as batches. Both arms, and every gateway, are processes of
their own; CPU seconds count all threads and child processes of an arm, without its imports. The rounds are interleaved, ratios
are of one round, and the figures are medians of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import importlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import aiohttp
import numpy as np

import dnc_async as dnc
from bench.fetch import leaves_of
from bench.table import Line, show
from dnc_async.ipld.cid import RAW
from dnc_async.store import BlockStore
from dnc_async.testing import GatewayProcess

_AT_ONCE = 16
_LINE = "rate=37MB"
_ROW_BYTES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A batch size, the leaves that it has, how much to stream, and what is to be reached: shares of the bare loop's figures."""

    leaf: str
    batch_bytes: int
    megabytes: int
    rate: float
    cpu: float
    line_cpu: float


_SIZES = (
    Size(leaf="164 KB", batch_bytes=10**6, megabytes=256, rate=0.75, cpu=1.5, line_cpu=1.4),
    Size(leaf="504 KB", batch_bytes=8 * 10**6, megabytes=512, rate=0.85, cpu=1.25, line_cpu=1.25),
)
_SHAPED_MB = 128
_BLOCK_MS = 0.15
_SPOOLED_S, _THREE, _PROCESS = 0.3, 1.15, 1.2
_TINY_ROWS, _TINY_BATCH, _TINY_TAKEN = 10**7, 1000, 2000
_TINY_DISK_MS, _TINY_MEMORY_MS = 0.5, 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one arm took."""

    seconds: float
    cpu_s: float
    size_bytes: int
    batches: int = 0

    @property
    def rate(self) -> float:
        """MB per second."""
        return self.size_bytes / self.seconds / 1e6

    @property
    def cpu(self) -> float:
        """CPU seconds per GB."""
        return self.cpu_s / self.size_bytes * 1e9


def main(arguments: Sequence[str]) -> int:
    """Print the table; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(prog="python -m bench cost", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["open", "line", "spool", "three", "process", "tiny"], action="append")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--arm", help=argparse.SUPPRESS)  # what a child process of ours does, as JSON
    options = parser.parse_args(arguments)
    if options.arm:
        sys.stdout.write(json.dumps(asyncio.run(_measured(json.loads(options.arm)))) + "\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as folder:
        return show(_lines(Path(folder), options.repeats, options.only), as_json=options.json)


def _lines(folder: Path, repeats: int, only: Sequence[str] | None) -> Iterator[Line]:
    parts: dict[str, Callable[[], Iterator[Line]]] = {
        "open": lambda: _open(folder, repeats),
        "line": lambda: _on_a_line(folder, repeats),
        "spool": lambda: _spooled(folder, repeats),
        "three": lambda: _three(folder, repeats),
        "process": lambda: _own_process(folder, repeats),
        "tiny": lambda: _tiny(folder, repeats),
    }
    for name, lines in parts.items():
        if only is None or name in only:
            yield from lines()


# The parts of the table.


def _open(folder: Path, repeats: int) -> Iterator[Line]:
    for size in _SIZES:
        store, cid, leaves = _dataset(folder, size)
        with GatewayProcess(store) as gateway:
            pairs = [_pair(gateway.url, cid, leaves, size.megabytes) for _ in range(repeats)]
        what = f"{size.leaf}, unshaped"
        yield from _shown(what, pairs)
        yield Line.least(f"{what}: rate, of the bare loop's", _median(a.rate / b.rate for a, b in pairs), size.rate)
        yield Line.most(f"{what}: CPU, of the bare loop's", _median(a.cpu / b.cpu for a, b in pairs), size.cpu, "")
        blocks = size.megabytes * 10**6 / _leaf_size(leaves)
        extra = _median((a.cpu_s - b.cpu_s) / blocks for a, b in pairs)
        yield Line.most(f"{what}: CPU of a block beyond the bare loop's", extra * 1e3, _BLOCK_MS, "ms")


def _on_a_line(folder: Path, repeats: int) -> Iterator[Line]:
    for size in _SIZES:
        store, cid, leaves = _dataset(folder, size)
        with GatewayProcess(store, _LINE) as gateway:
            pairs = [_pair(gateway.url, cid, leaves, _SHAPED_MB) for _ in range(repeats)]
        what = f"{size.leaf}, 37 MB/s"
        yield from _shown(what, pairs)
        yield Line.most(f"{what}: CPU, of the bare loop's", _median(a.cpu / b.cpu for a, b in pairs), size.line_cpu, "")


def _spooled(folder: Path, repeats: int) -> Iterator[Line]:
    """A consumer at 30 MB/s behind a line of 37 MB/s, so that chunks wait on the disk.

    All of the dataset: else what was fetched ahead and not consumed would count.
    """
    size = _SIZES[0]
    store, cid, _ = _dataset(folder, size)
    step_s = size.batch_bytes / 30e6
    with GatewayProcess(store, _LINE) as gateway:
        arms = {"0": list[Run](), str(20 * size.batch_bytes + 2**20): list[Run]()}
        for _ in range(repeats):
            for budget, runs in arms.items():
                runs.append(_stream([gateway.url], cid, size.megabytes, budget=budget, step_s=step_s))
    memory, disk = arms.values()
    extra = _median(b.cpu - a.cpu for a, b in zip(memory, disk, strict=True))
    yield Line.most("through the spool, of 20 batches: CPU more than without", extra, _SPOOLED_S, "s/GB")


def _three(folder: Path, repeats: int) -> Iterator[Line]:
    size = _SIZES[0]
    store, cid, _ = _dataset(folder, size)
    with contextlib.ExitStack() as stack:
        third = [stack.enter_context(GatewayProcess(store, "rate=12.3MB")).url for _ in range(3)]
        whole = stack.enter_context(GatewayProcess(store, _LINE)).url
        runs = [(_stream(third, cid, _SHAPED_MB), _stream([whole], cid, _SHAPED_MB)) for _ in range(repeats)]
    yield Line.most(
        "three gateways of a third the rate: CPU, of one", _median(a.cpu / b.cpu for a, b in runs), _THREE, ""
    )


def _own_process(folder: Path, repeats: int) -> Iterator[Line]:
    """Without what it takes to start the process, and to open a stream."""
    size = _SIZES[1]
    store, cid, _ = _dataset(folder, size)

    def beyond_the_first(url: str, engine: str) -> float:
        first, all_of_it = (_stream([url], cid, most, engine=engine) for most in (1, _SHAPED_MB))
        return (all_of_it.cpu_s - first.cpu_s) / (all_of_it.size_bytes - first.size_bytes)

    with GatewayProcess(store, _LINE) as gateway:
        arms = [
            (beyond_the_first(gateway.url, "process"), beyond_the_first(gateway.url, "thread")) for _ in range(repeats)
        ]
    ratio = _median(process / thread for process, thread in arms)
    yield Line.most("the engine in its own process: CPU, of a thread's", ratio, _PROCESS, "")


def _tiny(folder: Path, repeats: int) -> Iterator[Line]:
    """Rows of one byte: what a batch costs beside its bytes."""
    cid = asyncio.run(_publish_tiny(folder / "tiny"))
    with GatewayProcess(folder / "tiny") as gateway:
        for what, budget, most in (("a disk", "64 MB", _TINY_DISK_MS), ("none", "0", _TINY_MEMORY_MS)):
            runs = [_stream([gateway.url], cid, _TINY_TAKEN * _TINY_BATCH / 1e6, budget=budget) for _ in range(repeats)]
            each = _median(run.seconds / run.batches for run in runs)
            yield Line.most(f"batches of 1,000 one-byte rows, with {what}: each", each * 1e3, most, "ms")


def _shown(what: str, pairs: Sequence[tuple[Run, Run]]) -> Iterator[Line]:
    """The figures themselves; there is no target for them, because they are the machine's."""
    for who, runs in (("stream()", [ours for ours, _ in pairs]), ("the bare loop", [bare for _, bare in pairs])):
        yield Line.plain(f"{what}: {who}", _median(run.rate for run in runs), "MB/s")
        yield Line.plain(f"{what}: CPU of {who}", _median(run.cpu for run in runs), "s/GB")


def _median(values: Iterator[float]) -> float:
    return statistics.median(values)


# Datasets.


def _dataset(folder: Path, size: Size) -> tuple[Path, str, Path]:
    """The store, the dataset's CID, and a file with the CIDs of its leaves."""
    store, leaves = folder / size.leaf, folder / f"{size.leaf}.leaves"
    if not leaves.exists():
        rows = size.batch_bytes // _ROW_BYTES
        rng = np.random.default_rng(1)
        batches = (
            {"x": rng.integers(0, 256, (rows, _ROW_BYTES), dtype=np.uint8)}
            for _ in range(size.megabytes * 10**6 // size.batch_bytes)
        )
        cid = asyncio.run(dnc.upload(batches, batch_size=rows, store=store)).cid
        raw = [str(each) for each in leaves_of(BlockStore.open(store), cid) if each.codec == RAW]
        leaves.write_text("\n".join([cid, *raw]))
    return store, leaves.read_text().split()[0], leaves


def _leaf_size(leaves: Path) -> float:
    """The mean size of a leaf, in bytes, of the dataset whose leaves were listed."""
    cids = leaves.read_text().split()[1:]
    size = next(size for size in _SIZES if size.leaf == leaves.stem)
    return size.megabytes * 10**6 / len(cids)


async def _publish_tiny(store: Path) -> str:
    rows = np.random.default_rng(1).integers(0, 256, _TINY_ROWS, dtype=np.uint8)
    return (await dnc.upload({"x": rows}, batch_size=_TINY_BATCH, store=store)).cid


# The arms.


def _pair(url: str, cid: str, leaves: Path, megabytes: float) -> tuple[Run, Run]:
    bare = _child({"do": "bare", "url": url, "leaves": str(leaves), "most": megabytes * 1e6})
    return _stream([url], cid, megabytes), bare


def _stream(
    urls: Sequence[str], cid: str, megabytes: float, *, budget: str = "0", step_s: float = 0.0, engine: str = "thread"
) -> Run:
    what = {"urls": list(urls), "cid": cid, "most": megabytes * 1e6, "budget": budget, "step": step_s, "engine": engine}
    return _child({"do": "stream", **what})


def _child(task: dict[str, object]) -> Run:
    command = [sys.executable, "-m", "bench", "cost", "--arm", json.dumps(task)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves
    return Run(**json.loads(done.stdout))


async def _measured(task: dict[str, object]) -> dict[str, float]:
    for module in ("client", "gateways.http", "engine.pipeline"):  # loading them is not fetching
        importlib.import_module(f"dnc_async.{module}")
    before, began = _cpu_s(), time.perf_counter()
    size, batches = await (_bare(task) if task["do"] == "bare" else _streamed(task))
    return {
        "seconds": time.perf_counter() - began,
        "cpu_s": _cpu_s() - before,
        "size_bytes": size,
        "batches": batches,
    }


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


async def _bare(task: dict[str, object]) -> tuple[int, int]:
    left = iter(Path(str(task["leaves"])).read_text().split()[1:])  # noqa: ASYNC240 - a bench
    most, size = float(str(task["most"])), 0
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False) as session:

        async def work() -> None:
            nonlocal size
            for cid in left:
                if size >= most:
                    return
                async with session.get(f"{task['url']}/ipfs/{cid}?format=raw") as response:
                    body = await response.read()
                await loop.run_in_executor(None, _digest, body)
                size += len(body)

        await asyncio.gather(*(work() for _ in range(_AT_ONCE)))
    return size, 0


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


async def _streamed(task: dict[str, object]) -> tuple[int, int]:
    size = batches = 0
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as spool:
        async with dnc.stream(
            str(task["cid"]),
            gateways=[str(url) for url in cast(Sequence[str], task["urls"])],
            disk_budget=str(task["budget"]),
            spool_dir=spool,
            engine="process" if task["engine"] == "process" else "thread",
        ) as stream:
            async for batch in stream:
                size += batch["x"].nbytes
                batches += 1
                if size >= float(str(task["most"])):
                    break
                if task["step"]:
                    await asyncio.sleep(float(str(task["step"])))
    return size, batches
