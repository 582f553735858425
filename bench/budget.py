"""``python -m bench budget``: idle time beyond the ideal's, for any budget, load, gateway, step and fault.

Excess idle is the wall time minus that of an all-knowing stream (for the steps that were taken), over the wall time, after the
first batch: the median of interleaved repeats, and the smallest and largest of them. ``ideal`` is the share that the design's
ideal waits, which asks for a chunk when it has room and holds that until the chunk has arrived: with little budget, runs beat it,
and ``over ideal`` is negative. ``early`` asks for chunks ahead of their room and gives that back as early as the engine does:
``excess`` is counted from this one, the harder yardstick, and the targets are for that. ``model`` is what the run's own report
makes, in the same way, of its gateways as it measured them. ``stolen`` is the largest share of the processors' time that other
machines on the same hardware took from a run: a run that lost more than a percent was disturbed, whatever it shows.

``--only`` chooses some of the parts: ``budgets`` (with loads below and above 1), ``gateways`` (of unlike rates), ``steps`` (that
leave the loop, or hold the GIL) and ``faults`` (one slow, one dying, one lying, a stall of 2 s, jitter). ``--match`` chooses by
name: ``--match "0.9, 1 batch" dies``.

With ``--results FILE`` runs are appended, and the table is of all that it holds: five repeats of everything take four hours,
and can be made in parts. With ``--repeats 0`` it is only shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.rows import keep, kept
from bench.setting import LINK, STEP_S, STEPS, Outcome, Setting, publish, run
from dnc_async.engine.ideal import GatewayLink

_PARTS = ("budgets", "gateways", "steps", "faults")
_BATCHES = 200  # of the dataset, which is gone through again and again
_UNLIKE = tuple(GatewayLink(latency_s=0.050, rate=rate) for rate in (16e6, 9e6, 5e6))


@dataclass(frozen=True, slots=True)
class Case:
    """A setting, what to call it, and how much excess idle it may have."""

    part: str
    name: str
    setting: Setting
    target: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One run of a case."""

    case: str
    target: float | None
    seconds: float
    outcome: Outcome


def main(arguments: Sequence[str]) -> int:
    """Print the table; the exit status says whether every target was met and no budget was overstepped."""
    parser = argparse.ArgumentParser(prog="python -m bench budget", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument(
        "--match", nargs="+", default=[""], metavar="TEXT", help="cases whose name contains one of these"
    )
    parser.add_argument("--budgets", type=float, nargs="+", default=[0, 0.5, 1, 1.5, 2, 6, 10], help="in batches")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.9, 1.0, 1.1], help="demand over supply")
    parser.add_argument("--seconds", type=float, default=60, help="of the consumer's own time, in each run")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved")
    parser.add_argument("--results", type=Path, help="a file of runs, to append to")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    cases = [case for case in _cases(options.budgets, options.loads) if case.part in options.only]
    cases = [case for case in cases if any(text in case.name for text in options.match)]
    if not cases:
        parser.error(f"--match: no case has one of {options.match} in its name")
    rows = [Row(**{**each, "outcome": Outcome(**each["outcome"])}) for each in kept(options.results)]

    def measured(row: Row) -> None:
        rows.append(row)
        keep(options.results, row)

    try:
        asyncio.run(_run(cases, options.seconds, options.repeats, measured))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; these are the rows so far\n")
    out = sys.stderr if options.json else sys.stdout
    out.write(
        f"{'case':<36}{'runs':>5}{'each':>7}{'idle':>7}{'ideal':>7}{'early':>7}{'model':>7}"
        f"{'over ideal':>12}{'excess':>8}{'smallest':>10}{'largest':>9}"
        f"{'target':>9}{'first batch':>14}{'peak/budget':>13}{'stolen':>8}\n"
    )
    cases_run = dict.fromkeys((row.case, row.seconds) for row in rows)
    met = [_show([row for row in rows if (row.case, row.seconds) == each], out.write) for each in cases_run]
    if options.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows]) + "\n")
    return 0 if all(met) else 1


def _cases(budgets: Sequence[float], loads: Sequence[float]) -> Iterator[Case]:
    base = Setting()
    for load in loads:
        for budget in budgets:
            setting = replace(base, load=load, budget_batches=budget)
            yield Case("budgets", f"load {load:g}, {budget:g} batches", setting, _target(setting))
    for budget in budgets:
        setting = replace(base, links=_UNLIKE, budget_batches=budget)
        yield Case(
            "gateways", f"16, 9, 5 MB/s, {budget:g} batches", setting, 0.05 if 0 < budget < 2 else _target(setting)
        )
    for step in STEPS[1:]:
        for budget in (1, 6):
            setting = replace(base, step=step, budget_batches=budget)
            target = None if step == "gil" else _target(setting)  # one that holds the GIL is only reported
            yield Case("steps", f"{step} step, {budget:g} batches", setting, target)
            if step == "gil":
                setting = replace(setting, engine="process")
                yield Case("steps", f"{step} step, own process, {budget:g} batches", setting, _target(setting))
    half = replace(base, load=0.5, budget_batches=10)
    events = 2 * (LINK.latency_s + half.batch_bytes / 2 / LINK.rate)  # of each fault, in seconds
    yield Case("faults", "one at a tenth after 12 s", _faulty(half, "slow=12s-", (12, 0.1)), 0.01 + events / 60)
    yield Case("faults", "one dies at 12 s", _faulty(half, "down=12s-", (12, 0.0)), 0.01 + events / 60)
    lying = replace(half, links=(LINK, LINK, replace(LINK, changes=((0.0, 0.9),))), faults=("", "", "flip=10"))
    yield Case("faults", "one lies in every 10th block", lying, 0.01 + events / 60)
    silent = _faulty(half, "silent=12s-14s", (12, 0.0), (14, 1.0))
    yield Case("faults", "one is silent from 12 s to 14 s", silent, 0.01 + events / 60)
    jitter = tuple(replace(LINK, latency_s=0.110) for _ in range(3))
    varied = replace(base, budget_batches=16, links=jitter, faults=("jitter=90ms",) * 3)
    yield Case("faults", "latency of 20 to 200 ms, 16 batches", varied, 0.01)
    yield Case("faults", "latency of 20 to 200 ms, 1 batch", replace(varied, budget_batches=1), None)  # not promised


def _faulty(setting: Setting, fault: str, *changes: tuple[float, float]) -> Setting:
    """One of the gateways has a fault, of which the ideal knows."""
    return replace(setting, links=(LINK, LINK, replace(LINK, changes=changes)), faults=("", "", fault))


def _target(setting: Setting) -> float | None:
    """A hundredth where the budget covers what is on its way, three where it is small; between them nothing was promised."""
    block_s = setting.batch_bytes / 2 / LINK.rate
    covered = 1.5 * sum(link.rate for link in setting.links) * (LINK.latency_s + block_s)
    if setting.budget_batches >= 2 and setting.budget_batches * setting.batch_bytes >= covered:
        return 0.01
    return 0.03 if 0 < setting.budget_batches < 2 else None


async def _run(cases: Sequence[Case], seconds: float, repeats: int, measured: Callable[[Row], None]) -> None:
    with tempfile.TemporaryDirectory(prefix="dnc-bench-") as folder:
        published: dict[int, tuple[Path, str]] = {}
        for repeat in range(repeats):
            for case in cases:
                size = case.setting.batch_bytes
                if size not in published:
                    store = Path(folder) / f"store-{size}"
                    published[size] = store, await publish(store, case.setting, _BATCHES)
                outcome = await run(case.setting, *published[size], round(seconds / STEP_S))
                measured(Row(case.name, case.target, seconds, outcome))
                sys.stderr.write(
                    f"{repeat + 1}/{repeats}  {case.name:<36}{outcome.excess:>7.1%} excess, {outcome.idle:.1%} idle, "
                    f"{outcome.stolen:.1%} stolen\n"
                )


def _show(rows: Sequence[Row], write: Callable[[str], object]) -> bool:
    """A line for all runs of a case."""
    found = [row.outcome for row in rows]

    def middle(name: str) -> float:
        return float(statistics.median(getattr(outcome, name) for outcome in found))

    spread = [outcome.excess for outcome in found]
    excess, share = middle("excess"), max(each.polled_peak_bytes / max(1, each.budget_bytes) for each in found)
    fits = all(each.polled_peak_bytes <= each.budget_bytes for each in found)
    limit = rows[0].target
    met = limit is None or excess <= limit
    target = "-" if limit is None else f"{limit:.1%}"
    models = [each.model for each in found if each.model is not None]
    model = f"{statistics.median(models):.1%}" if models else "-"
    write(
        f"{rows[0].case:<36}{len(rows):>5}{rows[0].seconds:>5g} s"
        f"{middle('idle'):>7.1%}{middle('ideal'):>7.1%}{middle('early'):>7.1%}{model:>7}"
        f"{middle('over'):>12.1%}{excess:>8.1%}{min(spread):>10.1%}{max(spread):>9.1%}"
        f"{target:>9}{middle('first_batch_s'):>12.2f} s{share:>13.0%}"
        f"{max(each.stolen for each in found):>8.1%}"
        f"  {'ok' if met and fits else 'MISSED' if fits else 'OVER BUDGET'}\n"
    )
    return met and fits
