"""``python -m bench idle``: how much of its time a consumer waits, beside what physics demands.

Three gateways in processes of their own, 50 ms away, 10 MB/s each by one token bucket over all its connections; a consumer
whose step blocks its loop for 30 ms. Arms: (a) the original idea's first version (download, train, delete, next), which
here may use all gateways at once; (b) half-batch buffering, ours; (c) the ideal stream, for the steps that (b) took.
Budgets count what the file system counts: so many batches' leases, and the folder; the ideal gets the batches alone.

``ideal`` and ``fluid`` hold a chunk's room until it has arrived, as the design first said, and a run with little budget can
beat them; ``model`` is what the run's own report makes of its measured gateways, with the room given back as early as the
engine does, and is what ``idle`` is to be read beside there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import dnc_async as dnc
from dnc_async.engine.ideal import Ideal, Link, ideal_stream
from dnc_async.publish.packing import leaf_bytes
from dnc_async.spool.files import FOLDER_BYTES
from dnc_async.system import tree_disk_bytes
from dnc_async.testing import Faults, GatewayProcess

GATEWAYS, RATE, LATENCY_S, STEP_S = 3, 10e6, 0.050, 0.030
_BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. Shares are of the time after the first batch."""

    load: float
    budget_batches: float
    arm: str
    batches: int
    idle: float
    ideal: float
    fluid: float
    model: float | None
    first_batch_s: float
    step_ms: float
    budget_bytes: int
    polled_peak_bytes: int
    causes: dict[str, float]


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench idle", description=__doc__)
    parser.add_argument("--batches", type=int, default=200, help="length of a run of ours")
    parser.add_argument("--first-idea-batches", type=int, default=40, help="length of a run of the first idea")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.9], help="demand over supply")
    parser.add_argument("--budgets", type=float, nargs="+", default=[2, 4, 10], help="disk budgets in batches")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    rows = asyncio.run(_run(options))
    if options.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows]) + "\n")
    return 0 if all(row.polled_peak_bytes <= row.budget_bytes for row in rows) else 1


async def _run(options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    out = sys.stderr if options.json else sys.stdout
    out.write(
        "load  budget  arm                     batches   idle  ideal  fluid  model  over ideal   first batch   step"
        "   peak/budget\n"
    )
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as folder:
        for load in options.loads:
            done, size = await _publish(Path(folder), load, options.batches)
            runs = [(options.budgets[0], True)] + [(budget, False) for budget in options.budgets]
            for budget, first_idea in runs:
                row = await _measure(Path(folder), done.cid, load, size, budget, first_idea, options)
                rows.append(row)
                out.write(_line(row) + "\n")
                out.flush()
    return rows


async def _publish(folder: Path, load: float, batches: int) -> tuple[dnc.UploadResult, int]:
    size = int(load * GATEWAYS * RATE * STEP_S)
    samples, width = 256, size // 256
    rng = np.random.default_rng(0)

    def rows() -> Iterator[dict[str, np.ndarray]]:
        for _ in range(batches):
            yield {"x": rng.integers(0, 256, (samples, width), dtype=np.uint8)}

    return await dnc.upload(rows(), batch_size=samples, store=folder / "store"), size


async def _measure(
    folder: Path, cid: str, load: float, size: int, budget: float, first_idea: bool, options: argparse.Namespace
) -> Row:
    half = size // 2
    lease = -(-half // _BLOCK) * _BLOCK + 3 * _BLOCK  # the header of a chunk may need one block more
    budget_bytes = int(2 * budget) * lease + FOLDER_BYTES
    spool = folder / "spool"
    spool.mkdir(exist_ok=True)
    limit = options.first_idea_batches if first_idea else options.batches
    faults = Faults.parse(f"rate={RATE:.0f},latency={LATENCY_S * 1e3:.0f}ms")
    with contextlib.ExitStack() as stack:
        gateways = [stack.enter_context(GatewayProcess(folder / "store", faults)) for _ in range(GATEWAYS)]
        peak = stack.enter_context(polling(spool))
        stream = dnc.stream(
            cid,
            gateways=[gateway.url for gateway in gateways],
            disk_budget=budget_bytes,
            spool_dir=spool,
            prefetch=0 if first_idea else "auto",
        )
        steps = []
        async with stream:
            async for _ in stream:
                began = time.perf_counter()
                time.sleep(STEP_S)  # noqa: ASYNC251 - a step that holds its loop, as in a notebook, is the point
                steps.append(time.perf_counter() - began)
                if len(steps) == limit:
                    break
            figures, report = stream.statistics(), stream.report()
    ideal, fluid = (_ideal(half, budget, steps, fluid=fluid) for fluid in (False, True))
    return Row(
        load=load,
        budget_batches=budget,
        arm="download, train, delete" if first_idea else "dnc_async",
        batches=len(steps),
        idle=figures.waited_s / (figures.waited_s + sum(steps)),
        ideal=ideal.idle_share,
        fluid=fluid.idle_share,
        model=report.what_if(),
        first_batch_s=figures.first_batch_s or 0.0,
        step_ms=statistics.mean(steps) * 1e3,
        budget_bytes=budget_bytes,
        polled_peak_bytes=peak(),
        causes=figures.causes,
    )


def _ideal(half: int, budget: float, steps: Sequence[float], *, fluid: bool) -> Ideal:
    leaf = leaf_bytes(half)
    blocks = [leaf] * (half // leaf) + ([half % leaf] if half % leaf else [])
    links = [Link(latency_s=LATENCY_S, rate=RATE)] * GATEWAYS
    plan = [[blocks, blocks]] * len(steps)
    return ideal_stream(plan, links=links, budget_bytes=2 * budget * half, steps_s=steps, fluid=fluid)


@contextlib.contextmanager
def polling(folder: Path) -> Iterator[Callable[[], int]]:
    """Look at the folder from outside every few milliseconds, as ``du`` does."""
    stop, peak = threading.Event(), [0]

    def poll() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], tree_disk_bytes(folder))

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield lambda: peak[0]
    finally:
        stop.set()
        thread.join()


def _line(row: Row) -> str:
    return (
        f"{row.load:<6}{row.budget_batches:<8g}{row.arm:<24}{row.batches:>7}{row.idle:>7.1%}{row.ideal:>7.1%}{row.fluid:>7.1%}{_share(row.model)}"
        f"{(row.idle - row.ideal) * 100:>9.1f} pt{row.first_batch_s:>12.2f} s{row.step_ms:>7.1f} ms"
        f"{row.polled_peak_bytes / row.budget_bytes:>10.0%}"
    )


def _share(share: float | None) -> str:
    return f"{'-':>7}" if share is None else f"{share:>7.1%}"
