"""The report as a picture. Needs matplotlib, which is an extra."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from dnc_async.engine.ledger import (
    BANDWIDTH,
    BUDGET,
    CONTENTION,
    DECODING,
    ENGINE,
    EVENT_LOOP,
    HANDOVER,
    LATENCY,
    PREFETCH,
    PROOFS,
    TRANSFORM,
)
from dnc_async.engine.report.text import duration
from dnc_async.errors import ArgumentError, DncError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dnc_async.engine.report.record import RunRecord

# Okabe and Ito's colours, and one of Tol's, for colour-blind readers; causes without a colour of their own are faults.
_COLOURS = {
    BANDWIDTH: "#0072b2",
    LATENCY: "#56b4e9",
    BUDGET: "#e69f00",
    PREFETCH: "#f0e442",
    DECODING: "#009e73",
    CONTENTION: "#999933",
    ENGINE: "#88ccee",
    TRANSFORM: "#882255",
    PROOFS: "#cc79a7",
    EVENT_LOOP: "#999999",
    HANDOVER: "#444444",
}
_FAULTS = ("#d55e00", "#a63603", "#7f2704")
_FORMATS = ("png", "svg", "pdf")
_OTHERS = "#bbbbbb"
_LAYERS = 6  # further causes are drawn as one


@dataclass(frozen=True, slots=True)
class _Layer:
    """One colour of the picture: a cause, or all smaller ones together; its seconds, in total and in each bin."""

    label: str
    colour: str
    seconds: float
    waits: tuple[float, ...]


def draw(report: RunRecord) -> Figure:
    """Draw, above, the wait for each batch by cause; below, their running sum."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        remedy = "pip install matplotlib, which pip install 'dnc-async[plot]' brings along"
        raise DncError(f"the picture needs matplotlib: {remedy}") from error
    figure = Figure(figsize=(9.0, 5.0), dpi=120, layout="constrained")
    gaps, total = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    layers = _layers(report)
    _draw_gaps(gaps, report, layers)
    _draw_total(total, report, layers)
    gaps.set_title(
        f"{report.batches:,} batches: computing {report.computing_share:.1%}, idle {report.idle_share:.1%}",
        loc="left",
        fontsize=11,
    )
    for axes in (gaps, total):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(bottom=0)
        if report.first_batch_s:
            axes.axvspan(0, report.first_batch_s, color="#eeeeee", lw=0)
    total.set_xlim(0, report.elapsed_s or 1.0)
    total.set_xlabel("seconds since the start (grey: until the first batch)")
    return figure


def encode(report: RunRecord, name: str) -> bytes:
    """The picture in the format of a file name's suffix. Raises :class:`~dnc_async.errors.ArgumentError`."""
    form = PurePath(name).suffix.lower().removeprefix(".")
    if form not in _FORMATS:
        raise ArgumentError(f"{name}: expected a name that ends in {', '.join(f'.{each}' for each in _FORMATS)}")
    body = io.BytesIO()
    draw(report).savefig(body, format=form)
    return body.getvalue()


def _layers(report: RunRecord) -> list[_Layer]:
    ranked = sorted(report.causes, key=lambda cause: -report.causes[cause])
    named = ranked if len(ranked) <= _LAYERS else ranked[: _LAYERS - 1]
    faults = [name for name in named if name not in _COLOURS]
    layers = []
    for name in named:
        colour = _COLOURS.get(name) or _FAULTS[faults.index(name) % len(_FAULTS)]
        layers.append(_layer(report, [name], name, colour))
    lesser = ranked[len(named) :]
    return [*layers, _layer(report, lesser, f"{len(lesser)} others", _OTHERS)] if lesser else layers


def _layer(report: RunRecord, causes: Sequence[str], label: str, colour: str) -> _Layer:
    waits = tuple(sum(each.causes.get(cause, 0.0) for cause in causes) for each in report.timeline)
    return _Layer(label, colour, sum(report.causes[cause] for cause in causes), waits)


def _draw_gaps(axes: Axes, report: RunRecord, layers: Sequence[_Layer]) -> None:
    bins = report.timeline
    ends = [each.at_s for each in bins]
    # A bar ends at the hand-over. Its width is the length of the wait, but at least visible.
    thinnest = (report.elapsed_s or 1.0) / 400
    widths = [-max(thinnest, each.waited_s / each.batches) for each in bins]
    bottom = [0.0] * len(bins)
    for layer in layers:
        heights = [wait / each.batches * 1e3 for wait, each in zip(layer.waits, bins, strict=True)]
        axes.bar(ends, heights, widths, bottom, align="edge", color=layer.colour, lw=0)
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    several = max((each.batches for each in bins), default=1)
    axes.set_ylabel("gap [ms]" if several == 1 else f"mean gap of {several} batches [ms]")


def _draw_total(axes: Axes, report: RunRecord, layers: Sequence[_Layer]) -> None:
    times = [report.first_batch_s or 0.0, *(each.at_s for each in report.timeline)]
    if layers:
        axes.stackplot(
            times,
            *(list(itertools.accumulate(layer.waits, initial=0.0)) for layer in layers),
            labels=[f"{layer.label}  {duration(layer.seconds)}" for layer in layers],
            colors=[layer.colour for layer in layers],
            lw=0,
        )
        axes.legend(loc="upper left", frameon=False, fontsize=9)
    axes.set_ylabel("waited, summed [s]")
