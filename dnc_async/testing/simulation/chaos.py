"""Seeded scenarios: gateways, faults, budgets and consumers as the dice fall, run until something breaks a promise.

``python -m dnc_async.testing chaos`` goes through seeds until so many faults were injected. A seed that fails is shrunk, to
fewer gateways, consumers and faults, and printed with the command that runs it again.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context

from dnc_async.config import FetchSettings

from .dataset import DatasetScript, published
from .simulation import SimulatedRun, Simulation

#: How many runs a failing seed is shrunk by at most.
_SHRINKING_RUNS = 150
_SEEDS_AT_ONCE = 20


def scenario(seed: int) -> Simulation:
    """The simulation of a seed."""
    dice = random.Random(f"chaos {seed}")  # noqa: S311 - replayable, not secret
    data = _data(dice)
    consumers = [_consumer(dice) for _ in range(dice.choice((1, 1, 1, 2, 3)))]
    gateways = [_gateway(dice) for _ in range(dice.choice((1, 2, 2, 3)))]
    if dice.random() < 0.6:
        gateways[dice.randrange(len(gateways))] = ",".join(_line(dice))
    unit = dice.choice((512, 512, 4096))
    return Simulation(
        seed=seed,
        gateways=gateways,
        disk=_disk(dice),
        consumers=consumers,
        data=data,
        budget_bytes=_budget(dice, data, unit, len(consumers)),
        unit_bytes=unit,
        crash_s=dice.choice((0.2, 1.0, 3.0)) if dice.random() < 0.06 else None,
        settings=FetchSettings(
            stall_timeout_s=dice.choice((1.0, 5.0)),
            patience_s=dice.choice((2.0, 20.0)),
            busy_patience_s=dice.choice((10.0, 60.0)),
            disk_retry_s=0.5,
            requests_per_gateway=dice.choice((2, 8, 32)),
            in_flight_bytes=dice.choice((2**18, 2**22, 2**25)),
            early_bytes=dice.choice((2**14, 2**23)),
            hold_s=dice.choice((0.1, 20.0)),
            hedge_share=dice.choice((0.05, 0.5)),
            workers=dice.choice((1, 4)),
        ),
    )


def _data(dice: random.Random) -> DatasetScript:
    row_bytes = dice.choice((20, 1000, 1000, 20_000))
    batch_size = dice.choice((1, 2, 7, 16, 50))
    most = max(1, min(40 * batch_size, 3_000_000 // row_bytes))
    return DatasetScript(
        samples=dice.choice((1, most // 3 + 1, most)),
        batch_size=batch_size,
        row_bytes=row_bytes,
        kind=dice.choice(("fixed", "fixed", "ragged")),
    )


def _line(dice: random.Random) -> list[str]:
    words = [f"latency={dice.choice(('0ms', '5ms', '50ms', '300ms'))}"]
    rate = dice.choice(("", "200kB", "1MB", "1MB", "4MB", "20MB"))
    if rate:
        words.append(f"rate={rate}")
    if dice.random() < 0.3:
        words.append("jitter=20ms")
    if dice.random() < 0.15:
        words.append("no-car")
    if dice.random() < 0.15:
        words.append("ignore-entity-bytes")
    return words


def _window(dice: random.Random) -> str:
    start = dice.choice((0, 0.3, 1, 2))
    return f"{start}s-{start + dice.choice((0.3, 1, 3, 10))}s"


def _gateway(dice: random.Random) -> str:
    faults: list[Callable[[], str]] = [
        lambda: f"flip={dice.choice((1, 2, 3, 10))}",
        lambda: f"other={dice.choice((2, 5))}",
        lambda: f"stall={dice.choice((0, 300, 3000, 60000))}",
        lambda: f"cut={dice.choice((0, 300, 3000, 60000))}",
        lambda: f"trickle={dice.choice(('1kB', '20kB'))}",
        lambda: f"slow={_window(dice)}",
        lambda: f"silent={_window(dice)}",
        lambda: f"straggle={dice.choice((2, 7))}",
        lambda: f"busy={_window(dice)},retry-after={dice.choice((1, 2, 30))}s",
        lambda: f"down={_window(dice)}",
        lambda: f"html={dice.choice((1, 3, 5))}",
        lambda: "cold",
    ]
    chosen = dice.sample(faults, dice.choice((1, 1, 2, 3)))
    return ",".join([*_line(dice), *(fault() for fault in chosen)])


def _disk(dice: random.Random) -> str:
    faults: list[Callable[[], str]] = [
        lambda: f"full={_window(dice)}",
        lambda: f"rate={dice.choice(('300kB', '5MB'))}",
        lambda: f"read-error={dice.choice((2, 5))}",
        lambda: f"flip={dice.choice((2, 5))}",
        lambda: f"tidy={dice.choice((0.3, 1))}s",
        lambda: f"files={dice.choice((1, 3))}",
        lambda: f"capacity={dice.choice((30_000, 100_000))}",
    ]
    chosen = [] if dice.random() < 0.4 else dice.sample(faults, dice.choice((1, 2)))
    if dice.random() < 0.03:
        chosen.append(lambda: "write-error=7")
    return ",".join(fault() for fault in chosen)


def _consumer(dice: random.Random) -> str:
    words = [f"step={dice.choice(('0ms', '0ms', '5ms', '60ms', '700ms'))}"]
    count = dice.choice((1, 2, 5))
    ways: list[list[str]] = [
        [],
        [],
        [f"break={count}"],
        [f"raise={count}"],
        [f"cancel={count}", f"moment={dice.choice((0, 1, 40, 400))}ms"],
        [f"close={count}"],
        [f"patience={dice.choice((1, 20, 300))}ms"],
    ]
    way = dice.choice(ways)
    words += way
    if way and dice.random() < 0.5:
        words.append(f"back={dice.choice((0, 0.5, 4))}s")
    for chance, word in (
        (0.2, f"starts={dice.choice((0.1, 1))}s"),
        (0.2, f"epochs={dice.choice((2, 3))}"),
        (0.15, f"prefetch={dice.choice((0, 1, 3))}"),
        (0.1, "drop-last"),
        (0.15, f"transform={dice.choice((1, 50))}ms,workers={dice.choice((0, 2))}"),
    ):
        if dice.random() < chance:
            words.append(word)
    return ",".join(words)


def _budget(dice: random.Random, data: DatasetScript, unit: int, streams: int) -> int:
    """From nothing, and what one chunk of each stream needs, up."""
    blocks = -(-published(data).largest_chunk_bytes // unit) + 2
    floor = streams * blocks * unit
    return dice.choice((0, floor, floor, floor + unit, 2 * floor, 5 * floor, 1_000_000 + floor))


@dataclass(frozen=True, slots=True)
class Tally:
    """What some seeds came to. ``failed`` are (seed, problems)."""

    seeds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    simulated_s: float = 0.0
    real_s: float = 0.0
    failed: tuple[tuple[int, tuple[str, ...]], ...] = ()

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            self.seeds + other.seeds,
            self.faults + other.faults,
            self.simulated_s + other.simulated_s,
            self.real_s + other.real_s,
            self.failed + other.failed,
        )


def run_seeds(seeds: Sequence[int]) -> Tally:
    """Run some seeds, one after the other."""
    total = Tally()
    for seed in seeds:
        run = scenario(seed).run()
        failed = ((seed, run.problems),) if run.problems else ()
        total = total.plus(Tally(1, run.faults, run.simulated_s, run.real_s, failed))
    return total


def shrink(failing: Simulation) -> tuple[Simulation, SimulatedRun]:
    """A smaller simulation that fails, too, perhaps otherwise."""
    smallest, run, left = failing, failing.run(), _SHRINKING_RUNS
    while True:
        for smaller in _smaller(smallest):
            left -= 1
            if left < 0:
                return smallest, run
            tried = smaller.run()
            if tried.problems:
                smallest, run = smaller, tried
                break
        else:
            return smallest, run


def _smaller(plan: Simulation) -> Iterator[Simulation]:
    """Each simulation that has a little less in it."""
    for fewer in _fewer([str(script) for script in plan.consumers]):
        yield replace(plan, consumers=fewer)
    for fewer in _fewer([str(script) for script in plan.gateways]):
        yield replace(plan, gateways=fewer)
    for less in _less(str(plan.disk)):
        yield replace(plan, disk=less)
    if plan.crash_s is not None:
        yield replace(plan, crash_s=None)
    if plan.data.samples > 1:
        yield replace(plan, data=replace(plan.data, samples=max(1, plan.data.samples // 2)))


def _fewer(scripts: list[str]) -> Iterator[list[str]]:
    """Without one of several scripts, and with a word less in one."""
    if len(scripts) > 1:
        for place in range(len(scripts)):
            yield scripts[:place] + scripts[place + 1 :]
    for place, script in enumerate(scripts):
        for less in _less(script):
            yield [*scripts[:place], less, *scripts[place + 1 :]]


def _less(script: str) -> Iterator[str]:
    words = script.split(",") if script else []
    for place in range(len(words)):
        yield ",".join(words[:place] + words[place + 1 :])


def chaos(
    *, faults: int, seeds: range | None, processes: int, write: Callable[[str], object] = sys.stdout.write
) -> int:
    """Run seeds until so many faults were injected, or all of ``seeds``; gives the exit status."""
    began, total = time.monotonic(), Tally()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for tally in _tallies(pool, processes, seeds):
            total = total.plus(tally)
            write(_progress(total, time.monotonic() - began))
            if seeds is None and total.faults.total() >= faults:
                break
        pool.shutdown(cancel_futures=True)
    for seed, problems in total.failed:
        write(_failure(seed, problems))
    write(_summary(total, time.monotonic() - began))
    return 1 if total.failed else 0


def _tallies(pool: ProcessPoolExecutor, processes: int, seeds: range | None) -> Iterator[Tally]:
    """The tallies of batches of seeds, in their order, some ahead."""
    every = seeds if seeds is not None else range(10**9)
    batches = (every[i : i + _SEEDS_AT_ONCE] for i in range(0, len(every), _SEEDS_AT_ONCE))
    waiting = [pool.submit(run_seeds, batch) for batch, _ in zip(batches, range(2 * processes), strict=False)]
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
    smallest, run = shrink(scenario(seed))
    return (
        f"\nseed {seed} broke a promise:\n  "
        + "\n  ".join(problems)
        + f"\nagain: python -m dnc_async.testing chaos --seed {seed}\nshrunk: {smallest}\n  "
        + "\n  ".join(run.problems)
        + "\n"
    )


def _summary(total: Tally, seconds: float) -> str:
    by_kind = ", ".join(f"{kind} {count:,}" for kind, count in total.faults.most_common())
    return (
        f"\nfaults by kind: {by_kind}\n"
        f"{total.simulated_s:,.0f} s simulated in {total.real_s:,.0f} s of one core "
        f"({total.simulated_s / max(1e-9, total.real_s):,.0f} times as fast), {seconds:.0f} s in all\n"
        f"{total.seeds:,} seeds, {len(total.failed)} failed\n"
        f"{total.faults.total():,} faults\n"
    )
