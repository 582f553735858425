"""``python -m bench hostile``: what a hostile gateway costs a stream that has an honest one, too.

For each script: the stream's time, its longest gap after the first batch, its memory and its CPU, compared with the same stream
from the honest gateway alone (8 MB/s). The gateways, and each stream, are processes of their own. The targets are
those of the promise: 1.5 times the time and 3 s, no gap beyond 3 s, 128 MB more memory, twice the CPU.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import dnc_async as dnc
from bench.table import Line, show
from dnc_async.testing import GatewayProcess

_HONEST = "rate=8MB,latency=20ms"
_ROW_BYTES, _BATCH = 1000, 500
_SCRIPTS = (
    "interim", "unasked", "long-header", "drip=3", "drip=3,no-car", "drip=1", "trickle=1kB", "miss=1", "miss=3", "html", "html=3",
    "flip=1", "flip=3", "other=2", "stall=100kB", "stall=0", "cut=50kB", "straggle=2", "silent=0.5s-", "down=0.5s-", "slow=0.3s-",
    "busy=600s,retry-after=86400s", "busy=0.5s-600s,retry-after=1s", "ignore-entity-bytes", "cold",
)  # fmt: skip
_TIMES, _MORE_S, _GAP_S, _MORE_MB, _CPU = 1.5, 3.0, 3.0, 128.0, 2.0
#: Below this a stream's CPU is mostly its start.
_LEAST_CPU_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one stream took."""

    seconds: float
    gap_s: float
    memory_mb: float
    cpu_s: float


def main(arguments: Sequence[str]) -> int:
    """Print the table; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(prog="python -m bench hostile", description=__doc__)
    parser.add_argument("--script", action="append", help="only this one (repeatable), for example drip=3")
    parser.add_argument("--megabytes", type=int, default=10, help="how much data (10)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--stream", nargs="+", help=argparse.SUPPRESS)  # what a child process does
    options = parser.parse_args(arguments)
    if options.stream:
        sys.stdout.write(json.dumps(asyncio.run(_stream(*options.stream))) + "\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as folder:
        return show(_lines(Path(folder), options.script or _SCRIPTS, options.megabytes), as_json=options.json)


def _lines(folder: Path, scripts: Sequence[str], megabytes: int) -> Iterator[Line]:
    rows = np.random.default_rng(0).integers(0, 256, (megabytes * 1_000_000 // _ROW_BYTES, _ROW_BYTES), "u1")
    done = asyncio.run(dnc.upload({"x": rows}, batch_size=_BATCH, store=folder / "store"))
    with GatewayProcess(folder / "store", _HONEST) as honest:
        alone = _measure(done.cid, honest.url)
        yield Line.plain("honest alone: time", alone.seconds, "s")
        yield Line.plain("honest alone: CPU", alone.cpu_s, "s")
        for script in scripts:
            with GatewayProcess(folder / "store", script) as hostile:
                run = _measure(done.cid, hostile.url, honest.url)
            yield Line.most(f"{script}: time", run.seconds, _TIMES * alone.seconds + _MORE_S, "s")
            yield Line.most(f"{script}: longest gap", run.gap_s, _GAP_S, "s")
            yield Line.most(f"{script}: memory, more", run.memory_mb - alone.memory_mb, _MORE_MB, "MB")
            yield Line.most(f"{script}: CPU", run.cpu_s, max(_LEAST_CPU_S, _CPU * alone.cpu_s), "s")


def _measure(cid: str, *gateways: str) -> Run:
    command = [sys.executable, "-m", "bench", "hostile", "--stream", cid, *gateways]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=600)  # noqa: S603 - our own module
    return Run(**json.loads(done.stdout))


async def _stream(cid: str, *gateways: str) -> dict[str, float]:
    """Stream the dataset as its user would, and measure it in this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    begin_cpu, began = used.ru_utime + used.ru_stime, time.monotonic()
    rows, gap_s, before = 0, 0.0, None
    async for batch in dnc.stream(cid, gateways=list(gateways), disk_budget="4 MB"):
        now = time.monotonic()
        gap_s = gap_s if before is None else max(gap_s, now - before)
        before, rows = now, rows + len(batch["x"])
    expected = (await dnc.inspect(cid, gateways=list(gateways[-1:]))).samples
    if rows != expected:
        raise SystemExit(f"{rows} rows came, expected {expected}")
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": time.monotonic() - began,
        "gap_s": gap_s,
        "memory_mb": used.ru_maxrss * 1024 / 1e6,
        "cpu_s": used.ru_utime + used.ru_stime - begin_cpu,
    }
