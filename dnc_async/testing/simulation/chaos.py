"""Runs seeded scenarios until this many faults were injected, or one breaks a promise.

``python -m dnc_async.testing chaos``: a failing seed is shrunk, and printed with the command that runs it again.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context

from dnc_async.testing.faults import Faults

from .consumer import ConsumerScript
from .disk_faults import DiskFaults
from .invariants import is_honest
from .scenario import scenario
from .shrinking import shrink
from .simulation import SimulatedRun, Simulation

_SEEDS_AT_ONCE = 20
#: With faulty gateways beside honest ones, a run may take this many times as long as with the honest ones, and these seconds.
_MORE_TIME, _MORE_S = 1.5, 3.0


def run_and_compare(plan: Simulation) -> tuple[SimulatedRun, tuple[str, ...]]:
    """Run a simulation and, if some of its gateways are honest, again with only those; returns the problems."""
    run = plan.run()
    scripts = [Faults.parse(str(script)) for script in plan.gateways]
    honest = [script for script in scripts if is_honest(script)]
    if run.problems or not honest or plan.crash_s is not None:
        return run, run.problems
    alone = replace(plan, gateways=honest).run()
    # What could not be read back from the disk is fetched again.
    again = (run.faults["disk read-error"] + run.faults["disk flip"]) * max(_trip_s(script, run) for script in honest)
    limit_s = _MORE_TIME * alone.simulated_s + _MORE_S + again + _slow_disk_s(plan)
    if run.simulated_s > limit_s:
        return run, (f"it took {run.simulated_s:.3f} s, and {alone.simulated_s:.3f} s with the honest gateways alone",)
    return run, ()


@dataclass(frozen=True, slots=True)
class Tally:
    """The results of some seeds. ``failed`` are (seed, problems)."""

    seeds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    simulated_s: float = 0.0
    cpu_s: float = 0.0
    failed: tuple[tuple[int, tuple[str, ...]], ...] = ()

    def plus(self, other: Tally) -> Tally:
        """The sum of two tallies."""
        return Tally(
            self.seeds + other.seeds,
            self.faults + other.faults,
            self.simulated_s + other.simulated_s,
            self.cpu_s + other.cpu_s,
            self.failed + other.failed,
        )


def _slow_disk_s(plan: Simulation) -> float:
    """How long a slow disk takes to write and read all data: what arrives in another order may or may not pass through it."""
    disk = DiskFaults.parse(str(plan.disk))
    passes = sum(ConsumerScript.parse(str(script)).epochs for script in plan.consumers)
    return 2 * passes * plan.data.size_bytes / disk.rate if disk.rate else 0.0


def _trip_s(script: Faults, run: SimulatedRun) -> float:
    """The longest time that a gateway takes for a block."""
    return script.latency_s + script.jitter_s + run.largest_block_bytes / (script.rate or 1e9)


def run_seeds(seeds: Sequence[int]) -> Tally:
    """Run some seeds, one after the other."""
    total = Tally()
    for seed in seeds:
        run, problems = run_and_compare(scenario(seed))
        failed = ((seed, problems),) if problems else ()
        total = total.plus(Tally(1, run.faults, run.simulated_s, run.cpu_s, failed))
    return total


def replay(seed: int, write: Callable[[str], object] = sys.stdout.write) -> int:
    """Run one seed, and print everything that happened; returns the exit status."""
    plan = scenario(seed)
    run, problems = run_and_compare(plan)
    write("\n".join([*run.log, "", str(plan), repr(run), *problems, ""]))
    return 1 if problems else 0


def chaos(
    *, faults: int | None, seeds: range, processes: int, write: Callable[[str], object] = sys.stdout.write
) -> int:
    """Run seeds until this many faults were injected, or all of ``seeds``; returns the exit status."""
    began, total = time.monotonic(), Tally()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for tally in _tallies(pool, processes, seeds):
            total = total.plus(tally)
            write(_progress(total, time.monotonic() - began))
            if faults is not None and total.faults.total() >= faults:
                break
        pool.shutdown(cancel_futures=True)
    for seed, problems in total.failed:
        write(_failure(seed, problems))
    write(_summary(total, time.monotonic() - began))
    return 1 if total.failed else 0


def _tallies(pool: ProcessPoolExecutor, processes: int, seeds: range) -> Iterator[Tally]:
    """The tallies of batches of seeds, in their order; some are computed ahead."""
    batches = (seeds[i : i + _SEEDS_AT_ONCE] for i in range(0, len(seeds), _SEEDS_AT_ONCE))
    waiting = [pool.submit(run_seeds, batch) for _, batch in zip(range(2 * processes), batches, strict=False)]
    while waiting:
        yield waiting.pop(0).result()
        for batch in batches:
            waiting.append(pool.submit(run_seeds, batch))
            break


def _progress(total: Tally, seconds: float) -> str:
    return (
        f"{total.seeds:,} seeds, {total.faults.total():,} faults, {total.simulated_s:,.0f} s simulated "
        f"in {seconds:.0f} s, {len(total.failed)} failed\n"
    )


def _failure(seed: int, problems: Sequence[str]) -> str:
    smallest, left = shrink(scenario(seed), lambda plan: run_and_compare(plan)[1])
    return (
        f"\nseed {seed} broke a promise:\n  "
        + "\n  ".join(problems)
        + f"\nagain: python -m dnc_async.testing chaos --seed {seed}\nshrunk: {smallest}\n  "
        + "\n  ".join(left)
        + "\n"
    )


def _summary(total: Tally, seconds: float) -> str:
    by_kind = ", ".join(f"{kind} {count:,}" for kind, count in total.faults.most_common())
    return (
        f"\nfaults by kind: {by_kind}\n"
        f"{total.simulated_s:,.0f} s simulated in {total.cpu_s:,.0f} s of one core "
        f"({total.simulated_s / max(1e-9, total.cpu_s):,.0f} times as fast), {seconds:.0f} s in all\n"
        f"{total.seeds:,} seeds, {len(total.failed)} failed\n"
        f"{total.faults.total():,} faults\n"
    )
