"""``python -m bench scale``: what a batch costs where everything is ready, whatever the dataset's size; memory; the import.

A ready batch is handed over in microseconds; what a batch costs does not depend on how many chunks the dataset has; memory is
bounded by settings. Each figure comes from a process of its own that streams from ``dnc serve``'s gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import dnc_async as dnc
from bench.table import Line, show
from dnc_async.testing import GatewayProcess

_MB = 1e6
_LARGE_BATCH = 16 * 2**20
_FEW, _TINY_BATCHES = 100, 2000


def main(arguments: Sequence[str]) -> int:
    """Print the table; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(prog="python -m bench scale", description=__doc__)
    parser.add_argument(
        "--chunks", type=int, nargs="+", default=[10_000, 100_000], help="beside a dataset of 100 chunks"
    )
    parser.add_argument(
        "--data", type=Path, help="where to keep the datasets for the next run (10^6 chunks take 10 minutes)"
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=6, metavar="", help=argparse.SUPPRESS)  # what _child asks for
    options = parser.parse_args(arguments)
    if options.child:
        cid, url, spool, *numbers = options.child
        figures = asyncio.run(_stream(cid, url, spool, *map(float, numbers)))
        sys.stdout.write(json.dumps(figures) + "\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as temporary:
        folder = options.data or Path(temporary)
        lines = [*_imports(), *_ready(folder), *_sizes(folder, options.chunks), *_memory(folder)]
        return show(lines, as_json=options.json)


def _imports() -> Iterator[Line]:
    def seconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - ourselves
        return time.perf_counter() - began

    # One after the other, so that a busy machine is busy for both.
    pairs = [seconds("import dnc_async") - seconds("pass") for _ in range(11)]
    yield Line.most("import dnc_async", statistics.median(pairs) * 1e3, 150, "ms")


def _ready(folder: Path) -> Iterator[Line]:
    """A consumer that is always slower than its gateway, so that every batch waits for it."""
    rows = {"x": np.random.default_rng(0).integers(0, 256, (200 * 64, 1024), dtype=np.uint8)}
    with _served(folder / "ready", rows, batch_size=64) as (cid, url):
        found = _child(cid, url, folder, batches=200, step_s=0.02, budget_mb=2)
    yield Line.most("a ready batch is handed over, median", found["median_wait_s"] * 1e3, 0.2, "ms")
    yield Line.most("a ready batch is handed over, 95th percentile", found["p95_wait_s"] * 1e3, 1.0, "ms")


def _sizes(folder: Path, chunks: Sequence[int]) -> Iterator[Line]:
    found = {}
    for many in (_FEW, *chunks):
        rows = {"x": np.arange(many, dtype=np.int64)}
        with _served(folder / f"chunks-{many}", rows, batch_size=2) as (cid, url):
            runs = [_child(cid, url, folder, batches=_TINY_BATCHES, step_s=0, budget_mb=2) for _ in range(3)]
        found[many] = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    few = found[_FEW]
    yield Line.most("a batch of two tiny chunks, CPU", few["cpu_s"] / _TINY_BATCHES * 1e3, 5, "ms")
    for many in chunks:
        ratio = found[many]["cpu_s"] / few["cpu_s"]
        yield Line.most(f"CPU of a batch: {many} chunks over {_FEW}", ratio, 1.15, "")
        yield Line.most(f"first batch: {many} chunks over {_FEW}", found[many]["first_s"] / few["first_s"], 1.3, "")
        more = (found[many]["peak_rss_bytes"] - few["peak_rss_bytes"]) / _MB
        yield Line.most(f"memory: {many} chunks beyond that of {_FEW}", more, 16, "MB")


def _memory(folder: Path) -> Iterator[Line]:
    rng = np.random.default_rng(0)

    def rows() -> Iterator[dict[str, np.ndarray]]:
        for _ in range(40):
            yield {"x": rng.integers(0, 256, (16, _LARGE_BATCH // 16), dtype=np.uint8)}

    with _served(folder / "large", rows(), batch_size=16) as (cid, url):
        for budget in (0, 128):
            found = _child(cid, url, folder, batches=160, step_s=0, budget_mb=budget)
            more = (found["peak_rss_bytes"] - found["first_rss_bytes"] - 3 * _LARGE_BATCH) / _MB
            yield Line.most(f"memory beyond 3 batches of 16 MiB, budget of {budget} MB", more, 64, "MB")


@contextlib.contextmanager
def _served(store: Path, rows: object, *, batch_size: int) -> Iterator[tuple[str, str]]:
    note = store.with_suffix(".cid")
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(asyncio.run(dnc.upload(rows, batch_size=batch_size, store=store)).cid)
    with GatewayProcess(store) as gateway:
        yield note.read_text(), gateway.url


def _child(cid: str, url: str, folder: Path, *, batches: int, step_s: float, budget_mb: float) -> dict[str, float]:
    command = [sys.executable, "-m", "bench", "scale", "--child", cid, url, str(folder / "spool")]
    command += [str(batches), str(step_s), str(budget_mb)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


async def _stream(cid: str, url: str, spool: str, batches: float, step_s: float, budget_mb: float) -> dict[str, float]:
    Path(spool).mkdir(exist_ok=True)  # noqa: ASYNC240 - a bench
    waits: list[float] = []
    async with dnc.stream(cid, gateways=url, disk_budget=budget_mb * 1e6, spool_dir=spool, epochs=None) as stream:
        began = time.perf_counter()
        first_s = first_rss = first_cpu = 0.0
        while len(waits) < batches:
            asked = time.perf_counter()
            batch = await anext(stream)
            waits.append(time.perf_counter() - asked)
            del batch
            if len(waits) == 1:  # what was imported for it is there
                gc.collect()
                first_s, first_rss, first_cpu = time.perf_counter() - began, _rss_bytes(), time.process_time()
            time.sleep(step_s)  # noqa: ASYNC251 - as a notebook's cell does
        cpu_s = time.process_time() - first_cpu
    later = sorted(waits[10:])
    return {
        "first_s": first_s,
        "cpu_s": cpu_s,
        "median_wait_s": later[len(later) // 2],
        "p95_wait_s": later[len(later) * 95 // 100],
        "first_rss_bytes": first_rss,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0,
    }


def _rss_bytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))
