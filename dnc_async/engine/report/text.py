"""The report as text for a terminal, and the words and numbers that all its forms use. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dnc_async.engine.ledger import CONTENTION, ENGINE
from dnc_async.engine.report.what_if import AS_IT_WAS, scenarios
from dnc_async.quoting import quoted

if TYPE_CHECKING:
    from dnc_async.engine.report.record import RunRecord, TransformRun
    from dnc_async.telemetry import GatewayStatistics

_BAR = 24
_WORTH_A_HINT = 0.02  # of the time
_LEAST_HINT_S = 0.01  # smaller values are noise
_LONGEST_URL = 200


def samples_of(batch: Any) -> int:  # noqa: ANN401 - a dict, a tuple or an array: what was uploaded
    """The number of samples in a batch."""
    if isinstance(batch, dict):
        return len(next(iter(batch.values())))
    return len(batch[0]) if isinstance(batch, tuple) else len(batch)


def gap_line(row: Mapping[str, Any], total: int) -> str:
    """One line about one batch."""
    return f"batch {row['batch'] + 1:>{len(str(total))}}/{total}  {row['samples']} samples  waited {row['waited_s'] * 1e3:.1f} ms"


def size(count: float | None) -> str:
    """Bytes for the reader: powers of 1000, three digits."""
    if count is None:
        return "not known"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds, or milliseconds below one second."""
    return f"{seconds:.2f} s" if seconds >= 0.9995 else f"{seconds * 1e3:.1f} ms"


def headline(report: RunRecord) -> str:
    """The two most important sentences."""
    first = "no batch yet" if report.first_batch_s is None else f"first batch after {duration(report.first_batch_s)}"
    return (
        f"{report.batches:,} batches, {report.samples:,} samples in {duration(report.elapsed_s)}; {first}\n"
        f"computing {report.computing_share:.1%}, idle {report.idle_share:.1%} of the time after it "
        f"({duration(report.waited_s)} of {duration(report.steady_s)})"
    )


def causes(report: RunRecord) -> list[tuple[str, float, float]]:
    """(cause, seconds, share of the waiting), the longest first."""
    total = max(report.waited_s, *report.causes.values(), 0.0) or 1.0  # of a foreign report they may not add up
    return [(name, seconds, seconds / total) for name, seconds in sorted(report.causes.items(), key=lambda c: -c[1])]


def facts(report: RunRecord) -> list[tuple[str, str]]:
    """(name, text) of each line of counters."""
    gaps, settings, transform = report.gaps, report.settings, report.transform
    disk = (
        f"{size(report.peak_leased_bytes)} of {size(report.budget_bytes)} reserved at most"
        if report.budget_bytes
        else "none"
    )
    if report.peak_ahead_bytes:
        disk += f"; {size(report.peak_ahead_bytes)} requested before there was space"
    ahead = "auto" if settings.prefetch is None else str(settings.prefetch)
    epochs = "without end" if settings.epochs is None else str(settings.epochs)
    hedged, failed = size(report.hedged_bytes), f"{report.requests_failed:,}"
    came = f"{size(report.fetched_bytes)} fetched, {size(report.verified_bytes)} of them verified"
    return [
        (
            "gaps",
            "   ".join(f"{n} {duration(s)}" for n, s in zip(("p50", "p95", "p99", "max"), _gaps(gaps), strict=True)),
        ),
        (
            "bytes",
            f"{came}, {size(report.useful_bytes)} handed over; {hedged} requested twice",
        ),
        (
            "blocks",
            f"{report.blocks_verified:,} verified, {report.blocks_rejected:,} rejected; {failed} requests failed",
        ),
        ("disk", disk),
        *(() if transform is None else (("calls", _calls(transform)),)),
        ("memory", f"{size(report.peak_memory_bytes)} at most, the whole process"),
        ("run", f"{report.dataset}, epochs {epochs}, prefetch {ahead}, dnc-async {settings.library_version}"),
        ("order", report.order[:16]),
        *(("hint", text) for text in hints(report)),
    ]


def hints(report: RunRecord) -> list[str]:
    """What would help, as far as the report can tell."""
    found, worth_s = [], max(_WORTH_A_HINT * report.steady_s, _LEAST_HINT_S)
    contended, engine = report.causes.get(CONTENTION, 0.0), report.causes.get(ENGINE, 0.0)
    if report.idle_share >= _WORTH_A_HINT and contended >= worth_s:
        no_turn = f"the engine could not run for {duration(contended)}"
        found.append(f"{no_turn}: a step in pure Python holds Python's lock; try engine='process'")
    if report.idle_share >= _WORTH_A_HINT and engine >= worth_s:
        found.append(
            f"the consumer waited {duration(engine)} for the engine's own work; larger batches need less of it"
        )
    return found


def gateway_cells(gateway: GatewayStatistics) -> tuple[str, ...]:
    """The cells of a gateway's row. All rows are as wide as the longest URL, so a foreign one is cut off."""
    return (
        gateway.url if len(gateway.url) <= _LONGEST_URL else gateway.url[: _LONGEST_URL - 1] + "…",
        f"{gateway.blocks:,}",
        size(gateway.bytes),
        f"{size(gateway.rate)}/s" if gateway.rate else "-",
        _latency(gateway),
        f"{gateway.rejected:,}",
        f"{gateway.failures:,}",
    )


def _latency(gateway: GatewayStatistics) -> str:
    """The minimum, and the mean if it differs."""
    if gateway.latency_s is None:
        return "-"
    least, mean = (round(each * 1e3) for each in (gateway.latency_s, gateway.latency_s + gateway.jitter_s))
    return f"{least} ms" if mean <= least + max(1, least // 10) else f"{least} ms, mean {mean}"


GATEWAY_HEAD = ("gateway", "blocks", "bytes", "rate", "latency", "rejected", "failed")


def scenario_lines(report: RunRecord) -> list[tuple[str, str]]:
    """(name, idle share): as measured, as modelled for the same run, and as modelled for variations."""
    found = scenarios(report)
    if not found:
        return []
    named = [
        ("modelled, " + each.name if each.name == AS_IT_WAS else each.name, f"{each.idle_share:.1%}") for each in found
    ]
    return [("measured", f"{report.idle_share:.1%}"), *named]


def what_if_title(report: RunRecord) -> str:
    """The title of :func:`scenario_lines`, with what the model does not include."""
    failed = report.requests_failed + report.blocks_rejected
    unknown = ", without the faults that this run had" if failed else ""
    return f"idle time by a model of perfect planning{unknown}; compare it with what was measured"


def render(report: RunRecord) -> str:
    """The whole report, each line quoted: it may be somebody else's."""
    lines = [*headline(report).split("\n"), ""]
    for name, seconds, share in causes(report):
        bar = "█" * max(1, round(share * _BAR))
        lines.append(f"  waited for {name:<28}{duration(seconds):>10}{share:>7.1%}  {bar}")
    lines += [f"  {name:<8}{text}" for name, text in facts(report)]
    lines += ["", *_columns([GATEWAY_HEAD, *map(gateway_cells, report.gateways)])]
    what_if = scenario_lines(report)
    if what_if:
        lines += ["", f"  {what_if_title(report)}"]
        lines += [f"    {name:<36}{share:>7}" for name, share in what_if]
    return "\n".join(map(quoted, lines))


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            f"{cell:<{width}}" if not i else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _calls(run: TransformRun) -> str:
    at_once = "one at a time" if run.places <= 1 else f"{run.places} at once"
    return f"{run.calls:,} of the transform, {duration(run.mean_s)} each on average, {at_once}"


def _gaps(gaps: Any) -> tuple[float, ...]:  # noqa: ANN401
    return gaps.p50_s, gaps.p95_s, gaps.p99_s, gaps.max_s
