"""The picture: idle share against the disk budget in batches, ours, the peers' and the lower bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.peers.measure import Row
from bench.peers.plan import OURS, SCENARIOS, SMALL, SWEEP, Scenario
from bench.peers.tables import Group, best, bound, grouped
from dnc_async.errors import DncError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = {
    OURS: "#d55e00",
    "dnc_async, gateway": "#e69f00",
    "LitData": "#0072b2",
    "MosaicML Streaming": "#009e73",
    "WebDataset": "#56b4e9",
    "HF datasets": "#cc79a7",
    "ipfsspec, window of 4": "#444444",
    "Ray Data": "#f0e442",
    "LanceDB": "#999999",
}
_MARKERS = dict(zip(_COLOURS, "ooss^Dv*P", strict=True))
_BOUND = "lower bound, with one batch and what is on its way in memory"
#: Below it the axis is linear, above it logarithmic.
_LINEAR_TO = 0.01
_TICKS = (0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
_STAGES_NOTHING = "tight"  # the scenario whose rows stand for those that stage nothing


@dataclass(frozen=True, slots=True)
class _Column:
    """One place on the axis: a budget, or none."""

    label: str
    scenario: Scenario


def save(rows: Sequence[Row], path: str) -> None:
    """Draw it into a file, whose name says the format."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise DncError("the picture needs matplotlib: pip install matplotlib") from error
    columns = _columns()
    figure = Figure(figsize=(9.0, 5.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    for name, colour in _COLOURS.items():
        points = _points(rows, columns, name)
        if points:
            _draw(axes, name, colour, points)
    places = range(len(columns))
    axes.plot(places, [bound(each.scenario) for each in columns], color="#888888", ls=":", label=_BOUND)
    axes.set_xticks(places, [each.label for each in columns])
    axes.set_xlim(-0.4, len(columns) - 0.6)
    # Shares from thousandths to halves in one picture; the lower bound is 0, which a logarithm cannot show.
    axes.set_yscale("symlog", linthresh=_LINEAR_TO, linscale=0.5)
    axes.set_ylim(-_LINEAR_TO / 10, 10)  # the legend is above 1
    axes.set_yticks(_TICKS, [f"{100 * value:g}%" for value in _TICKS])
    axes.minorticks_off()
    axes.grid(axis="y", color="#eeeeee")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(
        f"ceiling on disk, in batches of {SMALL.batch_bytes / 1e6:g} MB; a hollow mark took more than it was allowed"
    )
    axes.set_ylabel("idle, of the time after the first batch")
    axes.set_title("Waiting for data, with demand at 0.9 of what the server can send", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="upper right")
    figure.savefig(path)


def _columns() -> list[_Column]:
    limited = [each for each in (*SCENARIOS, *SWEEP) if each.shape == SMALL and each.ceiling_batches is not None]
    columns = [_Column(f"{each.ceiling_batches:g}", each) for each in sorted(limited, key=_ceiling)]
    return [*columns, _Column("no ceiling", next(each for each in SCENARIOS if each.name == "none"))]


def _ceiling(scenario: Scenario) -> float:
    return scenario.ceiling_batches or 0.0


def _points(rows: Sequence[Row], columns: Sequence[_Column], name: str) -> list[tuple[int, Group]]:
    """Where a loader stands in each column, with the workers that waited least; what stages nothing stands at 0."""
    found = []
    for place, column in enumerate(columns):
        group = best(grouped(rows, column.scenario.name)).get(name)
        if group is not None and group.is_whole and (group.loader.stages or column.scenario.name == _STAGES_NOTHING):
            found.append((place if group.loader.stages else 0, group))
    return found


def _draw(axes: Axes, name: str, colour: str, points: Sequence[tuple[int, Group]]) -> None:
    """A line with the spread of the repeats; a hollow mark is a run that was over its ceiling."""
    loader = points[0][1].loader
    label, width = name if loader.stages else f"{name} (ahead in memory)", 2.2 if loader.is_ours else 1.2
    places, shares = [place for place, _ in points], [group.idle for _, group in points]
    axes.plot(places, shares, color=colour, lw=width, marker=_MARKERS[name], ms=7, label=label)
    for place, group in points:
        idles = [row.idle for row in group.rows]
        axes.vlines(place, min(idles), max(idles), color=colour, lw=1)
        if group.is_over:
            axes.plot(place, group.idle, color=colour, marker=_MARKERS[name], ms=7, mfc="white")
