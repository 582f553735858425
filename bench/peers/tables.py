"""The tables: medians over the repeats, and what was promised beside what was measured."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.peers.measure import Row
from bench.peers.plan import LATENCY_S, LOADERS, SCENARIOS, SWEEP, Loader, Scenario
from bench.table import Line
from bench.table import show as show_lines
from dnc_async.engine.ideal import GatewayLink, ideal_stream, window_bytes
from dnc_async.publish.packing import leaf_bytes

_LEAST_IDLE = 1e-3  # less is not told from nothing: 2 ms of 2 s


@dataclass(frozen=True, slots=True)
class Group:
    """The repeats of one loader with one count of workers in one scenario."""

    loader: Loader
    workers: int
    rows: tuple[Row, ...]

    def median(self, figure: Callable[[Row], float]) -> float:
        """Over the repeats."""
        return statistics.median(map(figure, self.rows))

    @property
    def idle(self) -> float:
        """The median of the idle shares; a run that did not end counts as one that waits for ever."""
        return self.median(lambda row: row.idle if row.is_whole else 1.0)

    @property
    def peak_disk_bytes(self) -> int:
        """The worst of all repeats."""
        return max(row.peak_disk_bytes for row in self.rows)

    @property
    def of_ceiling(self) -> float:
        """The worst peak over the ceiling; 0 where there is none."""
        return self.peak_disk_bytes / (self.rows[0].ceiling_bytes or float("inf"))

    @property
    def is_over(self) -> bool:
        """Whether it took more disk than it was allowed, beyond a hundredth for what a file system rounds up."""
        return self.of_ceiling > 1.01

    @property
    def is_whole(self) -> bool:
        """Whether every repeat handed over every sample."""
        return all(row.is_whole for row in self.rows)


def show(rows: Sequence[Row]) -> bool:
    """Print a table for each scenario and the targets; tells whether all that apply are met."""
    lines: list[Line] = []
    for scenario in (*SCENARIOS, *SWEEP):
        groups = grouped(rows, scenario.name)
        if groups:
            sys.stdout.write(_title(scenario, groups) + _head())
            for group in groups:
                sys.stdout.write(_line(group))
            lines += _targets(scenario, groups)
    sys.stdout.write("\n")
    return show_lines(lines, as_json=False) == 0


def grouped(rows: Iterable[Row], scenario: str) -> list[Group]:
    """A scenario's rows by loader and workers, in the order of the plan."""
    repeats: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        if row.scenario == scenario:
            repeats.setdefault((row.loader, row.workers), []).append(row)
    return [
        Group(loader, workers, tuple(repeats[name, workers]))
        for loader in LOADERS
        for name, workers in sorted(repeats)
        if name == loader.name
    ]


def best(groups: Iterable[Group]) -> dict[str, Group]:
    """Each loader with the count of workers that waited least."""
    found: dict[str, Group] = {}
    for group in groups:
        known = found.get(group.loader.name)
        if known is None or group.idle < known.idle:
            found[group.loader.name] = group
    return found


def bound(scenario: Scenario) -> float:
    """The share that no stream with this server and this budget can go below.

    It is the fluid bound, with room given back early, and chunks asked for as long before they have some as they take to come.
    """
    half = scenario.shape.batch_bytes // 2
    leaf = leaf_bytes(half)
    blocks = [leaf] * (half // leaf) + ([half % leaf] if half % leaf else [])
    total = scenario.shape.batches * scenario.shape.batch_bytes
    links = [GatewayLink(latency_s=LATENCY_S, rate=scenario.rate)]
    return ideal_stream(
        [[blocks, blocks]] * scenario.shape.batches,
        links=links,
        budget_bytes=total if scenario.ceiling_bytes is None else scenario.ceiling_bytes,
        steps_s=[scenario.step_s] * scenario.shape.batches,
        fluid=True,
        moves_early=True,
        window_bytes=window_bytes(links, max(blocks)),
    ).idle_share


def _title(scenario: Scenario, groups: Sequence[Group]) -> str:
    ceiling = "no ceiling" if scenario.ceiling_bytes is None else f"a ceiling of {scenario.ceiling_bytes / 1e6:g} MB"
    averages = [row.load_average for group in groups for row in group.rows]
    return (
        f"\n{scenario.name}: {ceiling}, {scenario.shape.batches} batches of {scenario.shape.batch_bytes / 1e6:g} MB, "
        f"step {scenario.step_s * 1e3:g} ms, server {scenario.rate / 1e6:.1f} MB/s in all, {LATENCY_S * 1e3:g} ms away; "
        f"undisturbed, at least {bound(scenario):.1%} idle; load average {min(averages):.1f} to {max(averages):.1f}\n"
    )


def _line(group: Group) -> str:
    return "".join(f"{text(group):{align}{width}}" for _, align, width, text in _COLUMNS).rstrip() + "\n"


def _head() -> str:
    return "".join(f"{title:{align}{width}}" for title, align, width, _ in _COLUMNS).rstrip() + "\n"


def _figure(figure: Callable[[Row], float], form: str) -> Callable[[Group], str]:
    """The median, of runs that ended; what was refused or broke off has no figures worth comparing."""
    return lambda group: format(group.median(figure), form) if group.is_whole else "-"


def _gap(share: float) -> Callable[[Row], float]:
    return lambda row: 1e3 * _quantile(row.gaps_s, share)


def _spread(group: Group) -> str:
    idles = [row.idle for row in group.rows]
    return f"({min(idles):.1%}-{max(idles):.1%})" if group.is_whole else "-"


def _of_ceiling(group: Group) -> str:
    return f"{group.of_ceiling:.0%}" if group.rows[0].ceiling_bytes else "-"


def _said(group: Group) -> str:
    hashing = group.median(lambda row: row.more.get("hashing_s", 0.0))
    cost = [f"hashing as many bytes: {hashing:.2f} CPU s"] if hashing else []
    return "  " + "; ".join([*sorted({_came(row) for row in group.rows}), *cost])


def _came(row: Row) -> str:
    met = [f"{count} {what}" for count, what in ((row.stalled, "stalls"), (row.flipped, "byte wrong")) if count]
    return " after ".join([row.said[:70] or "all, undamaged", *met])


def _targets(scenario: Scenario, groups: Sequence[Group]) -> Iterator[Line]:
    """Ours beside each peer's best count of workers, and the ceiling."""
    peers = [group for group in _compared(groups) if not group.loader.is_ours]
    for ours in (group for group in groups if group.loader.is_ours):
        about = f"{scenario.name}: {ours.loader.name}"
        for peer in peers if scenario.target is not None and ours.is_whole else ():
            over = f", at {peer.of_ceiling:.0%} of the ceiling" if peer.is_over else ""
            what = f"{about}, less idle than {peer.loader.name} ({peer.workers}{over}), times"
            yield Line.least(what, peer.idle / max(ours.idle, _LEAST_IDLE), scenario.target or 0)
        if ours.rows[0].ceiling_bytes:
            yield Line.most(f"{about}, peak of the ceiling", ours.of_ceiling, 1.0, "")
        clean = sum(row.said == "" for row in ours.rows)
        yield Line.least(f"{about}, runs that ended whole and undamaged, of all", clean / len(ours.rows), 1.0)


def _compared(groups: Sequence[Group]) -> Iterator[Group]:
    """Each loader at its best, and where that is over the ceiling, at its best below, too; who did not end is no rival."""
    whole = [group for group in groups if group.is_whole]
    within = best(group for group in whole if not group.is_over)
    for name, group in best(whole).items():
        yield group
        if group.is_over and name in within:
            yield within[name]


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


# After the functions that it names: title, alignment, width, text.
_COLUMNS: tuple[tuple[str, str, int, Callable[[Group], str]], ...] = (
    ("loader", "<", 22, lambda group: group.loader.name),
    ("workers", ">", 8, lambda group: str(group.workers)),
    ("runs", ">", 5, lambda group: str(len(group.rows))),
    ("wall s", ">", 8, _figure(lambda row: row.wall_s, ".2f")),
    ("first ms", ">", 9, _figure(lambda row: row.first_batch_s * 1e3, ".0f")),
    ("gap p50", ">", 8, _figure(_gap(0.5), ".1f")),
    ("p95", ">", 5, _figure(_gap(0.95), ".0f")),
    ("max ms", ">", 7, _figure(_gap(1.0), ".0f")),
    ("idle", ">", 7, _figure(lambda row: row.idle, ".1%")),
    ("(spread)", ">", 15, _spread),
    ("later", ">", 7, _figure(lambda row: row.later_idle, ".1%")),
    ("disk MB", ">", 8, lambda group: f"{group.peak_disk_bytes / 1e6:.2f}"),
    ("ceiling", ">", 8, _of_ceiling),
    ("MB", ">", 7, _figure(lambda row: row.fetched_bytes / 1e6, ".1f")),
    ("requests", ">", 9, _figure(lambda row: row.requests, ".0f")),
    ("conns", ">", 6, _figure(lambda row: row.connections, ".0f")),
    ("at once", ">", 8, _figure(lambda row: row.peak_connections, ".0f")),
    ("CPU s", ">", 6, _figure(lambda row: row.cpu_s, ".2f")),
    ("  what came", "<", 11, _said),
)
