"""``python -m bench idle``: how much of its time a consumer waits, beside what physics demands.

Three gateways, 50 ms away, 10 MB/s each; a consumer whose step blocks its loop for 30 ms. Arms: (a) the original idea's first
version (download, train, delete, next), which here may use all gateways at once; (b) half-batch buffering, ours; (c) the ideal
stream, for the steps that (b) took. ``python -m bench budget`` has longer runs, repeats, smaller budgets, and what goes wrong.

``ideal`` and ``fluid`` ask for a chunk when it has room and hold that until it has arrived, as the design first said, and a run
with little budget can beat them; ``early`` asks ahead of the room and gives it back as early as the engine does, and ``model`` is
what the run's own report makes of its measured gateways in the same way: with little budget, ``idle`` is to be read beside these.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.setting import Outcome, Setting, publish, run


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    load: float
    budget_batches: float
    arm: str
    outcome: Outcome


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
    return 0 if all(row.outcome.polled_peak_bytes <= row.outcome.budget_bytes for row in rows) else 1


async def _run(options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    out = sys.stderr if options.json else sys.stdout
    out.write(
        "load  budget  arm                     batches   idle  ideal  fluid  early  model  over ideal   first batch"
        "     step   peak/budget\n"
    )
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as folder:
        for load in options.loads:
            store = Path(folder) / f"store-{load}"
            cid = await publish(store, Setting(load=load), options.batches)
            arms = [(options.budgets[0], 0), *((budget, None) for budget in options.budgets)]
            for budget, prefetch in arms:
                setting = Setting(load=load, budget_batches=budget, prefetch=prefetch)
                batches = options.batches if prefetch is None else options.first_idea_batches
                arm = "dnc_async" if prefetch is None else "download, train, delete"
                row = Row(load=load, budget_batches=budget, arm=arm, outcome=await run(setting, store, cid, batches))
                rows.append(row)
                out.write(_line(row) + "\n")
                out.flush()
    return rows


def _line(row: Row) -> str:
    it = row.outcome
    shares = "".join(f"{share:>7.1%}" for share in (it.idle, it.ideal, it.fluid, it.early))
    model = f"{'-':>7}" if it.model is None else f"{it.model:>7.1%}"
    return (
        f"{row.load:<6}{row.budget_batches:<8g}{row.arm:<24}{it.batches:>7}{shares}{model}"
        f"{(it.idle - it.ideal) * 100:>9.1f} pt{it.first_batch_s:>12.2f} s{it.step_ms:>7.1f} ms"
        f"{it.polled_peak_bytes / it.budget_bytes:>10.0%}"
    )
