"""``python -m bench policy``: what each ingredient of the scoreboard's policy is worth, beside the simpler one.

The same seeded scenarios are simulated with the whole policy and with one ingredient at a time replaced; a run's figure is its
time over the fluid bound (all gateways sending all the time what their scripts let them). Nothing here depends on the machine:
the figures of a seed are the same everywhere. ``off/on`` is the time without an ingredient over the time with it, run by run.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dnc_async.gateways.score import Best, Score
from dnc_async.gateways.scoreboard import Scoreboard
from dnc_async.gateways.want import Want
from dnc_async.testing import Simulator, Workload

_FEW = 4
_STEADY_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run of one kind."""

    kind: str
    seed: int
    gateways: tuple[str, ...]
    requests_per_minute: tuple[float | None, ...]
    workload: Workload


# The policy with one ingredient replaced.


class _Scores(Scoreboard):
    """A scoreboard with other scores."""

    def __init__(self, gateways: int, **options: Any) -> None:  # noqa: ANN401 - as of the scoreboard
        super().__init__(gateways, **options)
        limits = options["requests_per_minute"]
        self.scores = [self.score(self._best, self._jitter, limit) for limit in limits]

    score = Score


class RoundRobin(Scoreboard):
    """Each block belongs to the next gateway in turn."""

    _turn = 0

    def _earliest(self, want: Want, begins: Mapping[int, float], now: float) -> int | None:
        able = [i for i in begins if i not in want.excluded]
        self._turn += 1
        return able[self._turn % len(able)] if able else None


class _FewAtOnce(Score):
    def window_bytes(self, size_bytes: int, now: float = -math.inf) -> float:
        del now
        return _FEW * size_bytes


class FixedWindow(_Scores):
    """Four requests at each gateway, whatever it can do."""

    score = _FewAtOnce

    def __init__(self, gateways: int, **options: Any) -> None:  # noqa: ANN401 - as of the scoreboard
        super().__init__(gateways, **{**options, "max_requests": _FEW})


class _Eager(Score):
    def lead_s(self) -> float:
        return math.inf


class NoPacing(_Scores):
    """As much as the window holds is asked for at once."""

    score = _Eager


class _Unvaried(Score):
    def first_byte(self, key: object, now: float) -> None:
        """As ever, but that latencies vary is not noted."""
        super().first_byte(key, now)
        self.jitter_s = 0.0


class NoVariation(_Scores):
    """Window, pacing and patience go by the latency alone, however much it varies."""

    score = _Unvaried


class _Prior(Best):
    def refresh(self, scores: Iterable[Score]) -> None:
        """What is not known stays what it was taken to be."""


class NoOptimism(_Scores):
    """An unknown gateway is taken to be a slow one."""

    def __init__(self, gateways: int, **options: Any) -> None:  # noqa: ANN401 - as of the scoreboard
        super().__init__(gateways, **options)
        self._best = _Prior(rate=1e5, latency_s=0.5)
        self.scores = [Score(self._best, self._jitter, limit) for limit in options["requests_per_minute"]]


class NoHedges(Scoreboard):
    """Who is late is waited for."""

    def hedges(self, now: float, spend: Callable[[Want], bool]) -> list[tuple[Want, int]]:
        """None."""
        del now, spend
        return []


class NoSuspicion(Scoreboard):
    """A gateway whose oldest request is overdue is asked as ever."""

    def _usable(self, now: float) -> Sequence[int]:
        return [i for i, score in enumerate(self.scores) if score.paused_until <= now]


class NeitherHedgesNorSuspicion(NoHedges, NoSuspicion):
    """A gateway that fell silent holds up what it was asked for, and is asked for more."""


class NoSpans(Scoreboard):
    """One block a request."""

    def __init__(self, gateways: int, **options: Any) -> None:  # noqa: ANN401 - as of the scoreboard
        super().__init__(gateways, **{**options, "can_car": (False,) * gateways})


class NoStaleRetry(Scoreboard):
    """Who was slow once is not asked again."""

    def _try_stale(self, *_: object) -> None:
        return


POLICIES: dict[str, Callable[..., Scoreboard]] = {
    "the whole policy": Scoreboard,
    "earliest arrival -> round robin": RoundRobin,
    "window -> four requests": FixedWindow,
    "pacing off": NoPacing,
    "variation of latency off": NoVariation,
    "optimism off": NoOptimism,
    "hedges off": NoHedges,
    "suspicion off": NoSuspicion,
    "neither hedges nor suspicion": NeitherHedgesNorSuspicion,
    "spans off": NoSpans,
    "stale retry off": NoStaleRetry,
}

# The scenarios.


def scenarios(seeds: int) -> Iterator[Scenario]:
    """So many of each kind."""
    for kind, make in _KINDS.items():
        for seed in range(seeds):
            draw = random.Random(f"{kind}/{seed}")
            gateways, rationed = make(draw)
            work = _pulsing(draw) if kind in {"recovering", "one much slower"} else _steady(draw, gateways)
            limits = (rationed, *(None,) * (len(gateways) - 1))
            yield Scenario(kind=kind, seed=seed, gateways=gateways, requests_per_minute=limits, workload=work)


def _steady(draw: random.Random, gateways: Sequence[str]) -> Workload:
    """Some seconds of work, wanted at once or by a consumer that can hold four files."""
    rate = sum(float(each.split("MB")[0].removeprefix("rate=")) for each in gateways) * 1e6
    leaf = draw.choice([2**14, 2**16, 2**18, 2**20])
    leaves = 16 if leaf >= 2**18 else 64
    files = min(24, max(2, math.ceil(rate * _STEADY_S / (leaf * leaves))))
    return Workload(files=files, leaves=leaves, leaf_bytes=leaf, budget_bytes=draw.choice([None, 4 * leaf * leaves]))


def _pulsing(draw: random.Random) -> Workload:
    """A consumer that can hold so little that a slow gateway's block is never the first to arrive; half a minute of it."""
    leaves, leaf = draw.choice([4, 8]), 2**18
    return Workload(files=256 // leaves, leaves=leaves, leaf_bytes=leaf, budget_bytes=2 * leaves * leaf)


Made = tuple[tuple[str, ...], float | None]


def _line(rate: float, latency_ms: float, *faults: str) -> str:
    return ",".join((f"rate={rate:.3g}MB", f"latency={latency_ms:.0f}ms", *faults))


def _equal(draw: random.Random, *faults: str) -> tuple[str, ...]:
    rate, latency = draw.choice([2, 5, 10, 20]), draw.choice([10, 50, 150])
    return tuple(_line(rate, latency, *faults, f"seed={i}") for i in range(draw.choice([2, 3, 4])))


def _first(gateways: tuple[str, ...], *faults: str) -> Made:
    return (",".join((gateways[0], *faults)), *gateways[1:]), None


def _unequal(draw: random.Random) -> Made:
    rates = [draw.choice([1, 2, 5, 10, 20, 40]) for _ in range(draw.choice([2, 3, 4]))]
    return tuple(_line(rate, draw.choice([10, 50, 150, 300])) for rate in rates), None


def _recovering(draw: random.Random) -> Made:
    rate = draw.choice([1.0, 2.0, 3.0])
    return (_line(rate, 50, f"slow=0s-{draw.choice([1, 2, 4])}s"), _line(rate, 50)), None


_KINDS: dict[str, Callable[[random.Random], Made]] = {
    "equal": lambda draw: (_equal(draw), None),
    "unequal": _unequal,
    "one slowing": lambda draw: _first(_equal(draw), f"slow={draw.choice([0.5, 1, 2])}s-"),
    "recovering": _recovering,
    "one much slower": lambda draw: ((_line(draw.choice([0.02, 0.1, 0.5]), 50), _line(draw.choice([2, 8]), 50)), None),
    "dying": lambda draw: _first(_equal(draw), f"down={draw.choice([0.5, 1, 2])}s-{draw.choice(['', '2.5s'])}"),
    "stalling": lambda draw: _first(_equal(draw), f"stall={draw.choice([1, 10, 100])}kB"),
    "trickling": lambda draw: _first(_equal(draw), f"trickle={draw.choice([1, 10])}kB"),
    "straggling": lambda draw: (_equal(draw, f"straggle={draw.choice([20, 50])}"), None),
    "jitter": lambda draw: (_equal(draw, f"jitter={draw.choice([50, 100, 200])}ms"), None),
    "lying": lambda draw: _first(_equal(draw), f"flip={draw.choice([1, 3, 10])}"),
    "rationed": lambda draw: (_equal(draw), draw.choice([60.0, 200.0])),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One policy, over all scenarios; ``worst`` is the kind in which leaving the ingredient out costs most, by its median."""

    policy: str
    median: float
    p95: float
    ratio_median: float
    ratio_p95: float
    worst: str
    worst_ratio: float
    least: str
    least_ratio: float


def main(arguments: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench policy", description=__doc__)
    parser.add_argument("--seeds", type=int, default=8, help="scenarios of each kind")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    out = sys.stderr if options.json else sys.stdout
    out.write(f"{'over the fluid bound':<34}median    p95   off/on: median    p95   most / least, by kind\n")
    whole, rows = list[float](), list[Row]()
    cases = list(scenarios(options.seeds))
    for policy, board in POLICIES.items():
        times = [_over_fluid(case, board) for case in cases]
        whole = whole or times
        rows.append(_row(policy, cases, times, whole))
        out.write(_text(rows[-1]) + "\n")
        out.flush()
    if options.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows]) + "\n")
    return 0


def _over_fluid(case: Scenario, board: Callable[..., Scoreboard]) -> float:
    limits = case.requests_per_minute
    simulator = Simulator(case.gateways, requests_per_minute=limits, seed=case.seed, board=board)
    return simulator.run(case.workload).over_fluid


def _row(policy: str, cases: Sequence[Scenario], times: Sequence[float], whole: Sequence[float]) -> Row:
    ratios = [mine / theirs for mine, theirs in zip(times, whole, strict=True)]
    kinds = {
        kind: statistics.median(ratio for ratio, case in zip(ratios, cases, strict=True) if case.kind == kind)
        for kind in _KINDS
    }
    worst, least = max(kinds, key=kinds.__getitem__), min(kinds, key=kinds.__getitem__)
    return Row(
        policy=policy,
        median=statistics.median(times),
        p95=_p95(times),
        ratio_median=statistics.median(ratios),
        ratio_p95=_p95(ratios),
        worst=worst,
        worst_ratio=kinds[worst],
        least=least,
        least_ratio=kinds[least],
    )


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def _text(row: Row) -> str:
    return (
        f"{row.policy:<34}{row.median:>6.2f}{row.p95:>7.2f}{row.ratio_median:>17.2f}{row.ratio_p95:>7.2f}"
        f"   {row.worst} {row.worst_ratio:.2f} / {row.least} {row.least_ratio:.2f}"
    )
