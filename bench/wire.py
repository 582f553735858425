"""``python -m bench wire``: what the ways on the wire cost and save: small blocks, rationed requests, hedges, round trips.

Gateways are processes of their own, with one token bucket each. A chunk's time is from the first request for one of its
leaves until its last leaf was verified; extra bytes are what the gateways sent beyond the dataset's own blocks.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dnc_async as dnc
from bench.table import Line, show
from dnc_async.dataset.manifest import Manifest
from dnc_async.dataset.page import ChunkEntry, decode_page
from dnc_async.ipld.cid import RAW, Cid
from dnc_async.store import BlockStore
from dnc_async.store.integrity import walk
from dnc_async.telemetry import BlockReceived, Event, RequestSent
from dnc_async.testing import GatewayProcess, GatewayStats

_STEADY = "rate=20MB,latency=50ms"
_FAR = "rate=20MB,latency=100ms"
_ROUND_TRIP_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A published one: its store, root, bytes, and the chunk that each leaf belongs to."""

    store: Path
    cid: str
    size_bytes: int
    chunk_of: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run took; ``chunks_s`` are the times of its chunks."""

    seconds: float
    first_batch_s: float
    size_bytes: int
    chunks_s: tuple[float, ...]
    gateways: tuple[GatewayStats, ...]

    @property
    def rate(self) -> float:
        """MB of batches per second."""
        return self.size_bytes / self.seconds / 1e6

    @property
    def p99_s(self) -> float:
        """The 99th percentile of the chunks' times."""
        return float(np.quantile(self.chunks_s, 0.99))

    def extra_share(self, dataset: Dataset) -> float:
        """The share of bytes beyond those that the dataset has."""
        return sum(gateway.bytes_served for gateway in self.gateways) / dataset.size_bytes - 1


def main(arguments: Sequence[str]) -> int:
    """Print the table; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(prog="python -m bench wire", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as folder:
        return show(_lines(Path(folder), options.repeats), as_json=options.json)


def _lines(folder: Path, repeats: int) -> Iterator[Line]:
    large, small = _publish(folder / "1MiB", 400, 16 * 2**20), _publish(folder / "256KiB", 400, 4 * 2**20)
    rates = [(_run(small, [_FAR] * 4).rate, _run(large, [_FAR] * 4).rate) for _ in range(repeats)]
    yield Line.least(
        "blocks of 256 KiB, 100 ms away, of the rate with 1 MiB", statistics.median(a / b for a, b in rates), 0.9
    )
    yield from _scarce(folder, repeats)
    yield from _hedges(large, repeats)
    yield from _first_batch(folder, repeats)


def _scarce(folder: Path, repeats: int) -> Iterator[Line]:
    dataset = _publish(folder / "small", 120, 400_000)
    runs = [_run(dataset, [_STEADY], per_minute=200.0, budget="32 MB") for _ in range(repeats)]
    chunks = len(set(dataset.chunk_of.values()))
    rate = statistics.median(run.rate for run in runs)
    each = statistics.median(chunks / run.gateways[0].requests for run in runs)
    yield Line.least("chunks of 200 KB, 200 requests a minute, of 20 MB/s", rate / 20, 0.9)
    yield Line.least("chunks of 200 KB to a request there (a directory has 64)", each, 16)


def _hedges(dataset: Dataset, repeats: int) -> Iterator[Line]:
    steady = [_run(dataset, [_STEADY] * 4) for _ in range(repeats)]
    yield Line.most(
        "extra bytes, steady gateways", statistics.median(run.extra_share(dataset) for run in steady), 0.05, ""
    )
    jitter = "rate=20MB,latency=110ms,jitter=90ms,seed="
    runs = [_run(dataset, [f"{jitter}{seed}" for seed in range(4)]) for _ in range(repeats)]
    extra = statistics.median(run.extra_share(dataset) for run in runs)
    yield Line.most("extra bytes, 20 to 200 ms of latency on each request", extra, 0.10, "")
    lone = [_run(dataset, [f"{_STEADY},straggle=50", _STEADY, _STEADY, _STEADY]) for _ in range(repeats)]
    times = [(late.p99_s, usual.p99_s) for late, usual in zip(lone, steady, strict=True)]
    what = "p99 of a chunk's time, one request of 200 comes 10 s late"
    yield Line.most(what, statistics.median(late / usual for late, usual in times), 1.3, "")


def _first_batch(folder: Path, repeats: int) -> Iterator[Line]:
    dataset = _publish(folder / "first", 4, 400_000)
    far = f"latency={_ROUND_TRIP_S}s"
    raw = f"{far},no-car"
    for what, faults, target in (
        ("with CAR", [far], 2),
        ("with CAR, three gateways", [far] * 3, 2),
        ("raw blocks only", [raw], 5),
        ("raw blocks only, three gateways", [raw] * 3, 5),
        ("one of three with CAR", [raw, far, raw], 5),
    ):
        trips = [int(_run(dataset, faults).first_batch_s / _ROUND_TRIP_S) for _ in range(repeats)]
        yield Line.most(f"round trips before the first batch, {what}", statistics.median(trips), target, "")


def _publish(path: Path, megabytes: int, batch_bytes: int) -> Dataset:
    rng = np.random.default_rng(1)

    def rows() -> Iterator[dict[str, np.ndarray]]:
        for _ in range(megabytes * 10**6 // batch_bytes):
            yield {"x": rng.integers(0, 256, (16, batch_bytes // 16), dtype=np.uint8)}

    done = asyncio.run(dnc.upload(rows(), batch_size=16, store=path))
    store = BlockStore.open(path)
    found = {
        str(block.cid): entry.index
        for entry in asyncio.run(_entries(path, done.cid))
        for block in walk(store, entry.cid, lambda *_: None)
        if block.cid.codec == RAW  # a root is asked for long before there is room for the rest
    }
    size = sum(len(block.data) for block in walk(store, Cid.parse(done.cid), lambda *_: None))
    return Dataset(store=path, cid=done.cid, size_bytes=size, chunk_of=found)


async def _entries(store: Path, cid: str) -> list[ChunkEntry]:
    manifest = Manifest.decode(await dnc.cat(f"{cid}/manifest", store=store))
    pages = [manifest.first_page, *[decode_page(await dnc.cat(str(page), store=store)) for page in manifest.pages]]
    return [entry for number, page in enumerate(pages) for entry in manifest.entries(number, page)]


def _run(dataset: Dataset, faults: Sequence[str], *, per_minute: float | None = None, budget: str = "128 MB") -> Run:
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(GatewayProcess(dataset.store, each)) for each in faults]
        gateways = [dnc.Gateway(process.url, requests_per_minute=per_minute) for process in processes]
        seconds, first, size, chunks = asyncio.run(_stream(dataset, gateways, budget))
        stats = tuple(process.stats() for process in processes)
    return Run(seconds=seconds, first_batch_s=first, size_bytes=size, chunks_s=tuple(chunks), gateways=stats)


async def _stream(
    dataset: Dataset, gateways: Sequence[dnc.Gateway], budget: str
) -> tuple[float, float, int, list[float]]:
    sent: dict[int, float] = {}
    came: dict[int, float] = {}

    def observe(event: Event) -> None:
        if isinstance(event, RequestSent) and event.asked in dataset.chunk_of:
            sent.setdefault(dataset.chunk_of[event.asked], time.monotonic())
        elif isinstance(event, BlockReceived) and event.cid in dataset.chunk_of:
            came[dataset.chunk_of[event.cid]] = time.monotonic()

    size, first, began = 0, 0.0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as spool:
        async for batch in dnc.stream(
            dataset.cid, gateways=gateways, disk_budget=budget, spool_dir=spool, progress=observe
        ):
            first = first or time.monotonic() - began
            size += batch["x"].nbytes
    chunks = [came[chunk] - sent[chunk] for chunk in came if chunk in sent]
    return time.monotonic() - began, first, size, chunks
