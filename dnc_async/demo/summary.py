"""What the demo prints at its end: short, and honest if something went wrong."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dnc_async.demo.arms import Arm
from dnc_async.demo.flights import Flights

_BAR = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The results of the demo. ``left_behind`` names files, threads and processes that should be gone."""

    cid: str
    batch_size: int
    data_bytes: int
    budget_bytes: int
    left_out: int
    samples: int
    arms: tuple[Arm, ...]
    polled_peak_bytes: int
    left_behind: tuple[str, ...]
    faults: bool

    @property
    def same_early(self) -> bool:
        """Whether all arms had the same weights where the first idea stops."""
        return len({arm.early for arm in self.arms}) == 1

    @property
    def same_final(self) -> bool:
        """Whether the arms that saw all batches ended with the same weights."""
        return len({arm.final for arm in self.arms if arm.final}) == 1

    def to_json(self) -> dict[str, Any]:
        """Everything, for ``--json``."""
        wire = asdict(self)
        for arm, row in zip(self.arms, wire["arms"], strict=True):
            row["idle_share"] = arm.idle_share
        return {**wire, "identical_weights": {"early": self.same_early, "final": self.same_final}}


def describe_data(flights: Flights, late_minutes: int) -> str:
    """The line about the input."""
    return (
        f"{len(flights.y):,} flights from New York in 2013, {len(flights.features)} features; "
        f"label: arrived more than {late_minutes} minutes late ({flights.y.mean():.1%}); "
        f"{flights.left_out:,} without an arrival delay left out"
    )


def render(summary: Summary) -> str:
    """The summary as text."""
    lines = ["", f"{'':34}idle   waiting | computing          seconds   first batch   batches"]
    lines += [_arm_line(arm) for arm in summary.arms]
    lines += ["", *_learning(summary), *_fetching(summary), *_left(summary)]
    lines += [
        "",
        "Next, publish your own:   dnc upload data.npz --batch-size 4096      (or .npy, .csv; arrays: await dnc.upload({...}))",
        "and train from it:        async for batch in dnc_async.stream(cid): model.partial_fit(batch['x'], batch['y'])",
    ]
    return "\n".join(lines)


def _arm_line(arm: Arm) -> str:
    waiting = round(arm.idle_share * _BAR)
    bar = "·" * waiting + "█" * (_BAR - waiting)
    return (
        f"{arm.name:<32}{arm.idle_share:>7.1%}  {bar}{arm.seconds:>7.1f}"
        f"{arm.statistics.first_batch_s or 0.0:>12.2f} s{arm.batches:>9}"
    )


def _learning(summary: Summary) -> list[str]:
    scored = [arm for arm in summary.arms if arm.score]
    if not scored or scored[0].score is None:
        return []
    score = scored[0].score
    good = score.accuracy >= score.majority + 0.08 and score.auc >= 0.85
    both = "all arms after batch 20, and the whole runs at the end" if len(scored) > 1 else "all arms after batch 20"
    same = summary.same_early and summary.same_final
    return [
        f"held-out batches   accuracy {score.accuracy:.3f} (always 'on time': {score.majority:.3f}), ROC AUC {score.auc:.3f}"
        + ("" if good else "   BELOW the floors of +0.08 and 0.85"),
        f"weights            {'identical to the bit: ' + both if same else 'DIFFERENT between the arms'}",
    ]


def _fetching(summary: Summary) -> list[str]:
    peak = max(arm.statistics.peak_disk_bytes for arm in summary.arms)
    leased = max(arm.statistics.peak_leased_bytes for arm in summary.arms)
    rejected = sum(arm.statistics.blocks_rejected for arm in summary.arms)
    causes: dict[str, float] = {}
    for arm in summary.arms[1:]:
        for cause, seconds in arm.statistics.causes.items():
            causes[cause] = causes.get(cause, 0.0) + seconds
    why = ", ".join(f"{cause} {seconds:.2f} s" for cause, seconds in sorted(causes.items(), key=lambda c: -c[1])[:4])
    return [
        (
            f"disk               peak {_kb(max(peak, summary.polled_peak_bytes))} in files, {_kb(leased)} reserved, "
            f"of a budget of {_kb(summary.budget_bytes)} (the data: {_kb(summary.data_bytes)})"
        ),
        f"lies               {rejected} blocks rejected and fetched elsewhere",
        f"why ours waited    {why or 'it did not'}",
    ]


def _left(summary: Summary) -> list[str]:
    return [f"left behind        {', '.join(summary.left_behind) or 'nothing'}"]


def _kb(size_bytes: int) -> str:
    return f"{size_bytes / 1000:,.0f} kB"
