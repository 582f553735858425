"""Builds the report of a stream from its counters."""

from __future__ import annotations

from dataclasses import replace

from dnc_async.config import installed_version
from dnc_async.engine.ledger import Ledger
from dnc_async.engine.options import StreamOptions
from dnc_async.engine.pace import CallPace
from dnc_async.engine.report.record import Gaps, RunSettings, TransformRun
from dnc_async.engine.report.report import Report
from dnc_async.engine.timeline import Timeline
from dnc_async.system import peak_memory_bytes
from dnc_async.telemetry import StreamStatistics


def build(
    statistics: StreamStatistics,
    ledger: Ledger,
    *,
    dataset: str,
    options: StreamOptions,
    folder_bytes: int,
    lease_bytes: int,
    hedged_bytes: int,
    calls: CallPace | None = None,
) -> Report:
    """The report of a stream so far. ``lease_bytes`` is what a chunk of mean size takes of the budget."""
    settings = RunSettings(
        epochs=options.epochs,
        drop_last=options.drop_last,
        prefetch=options.batches_ahead,
        folder_bytes=folder_bytes,
        lease_bytes=lease_bytes,
        library_version=installed_version(),
    )
    report = _report(statistics, ledger, dataset=dataset, settings=settings, hedged_bytes=hedged_bytes)
    return replace(report, transform=_transform(calls))


def _report(
    statistics: StreamStatistics, ledger: Ledger, *, dataset: str, settings: RunSettings, hedged_bytes: int
) -> Report:
    return Report(
        dataset=dataset,
        settings=settings,
        batches=statistics.batches,
        samples=statistics.samples,
        chunks=ledger.chunks,
        blocks=ledger.blocks,
        first_batch_s=statistics.first_batch_s,
        waited_s=statistics.waited_s,
        elapsed_s=statistics.elapsed_s,
        causes=statistics.causes,
        gaps=_gaps(ledger.timeline),
        timeline=ledger.timeline.bins(),
        order=ledger.order,
        budget_bytes=statistics.budget_bytes,
        peak_leased_bytes=statistics.peak_leased_bytes,
        peak_disk_bytes=statistics.peak_disk_bytes,
        peak_memory_bytes=peak_memory_bytes(),
        fetched_bytes=statistics.fetched_bytes,
        verified_bytes=statistics.verified_bytes,
        useful_bytes=ledger.useful_bytes,
        hedged_bytes=hedged_bytes,
        blocks_verified=sum(gateway.blocks for gateway in statistics.gateways),
        blocks_rejected=statistics.blocks_rejected,
        requests_failed=statistics.requests_failed,
        gateways=statistics.gateways,
        peak_ahead_bytes=statistics.peak_ahead_bytes,
    )


def _transform(calls: CallPace | None) -> TransformRun | None:
    if calls is None or not calls.calls:
        return None
    return TransformRun(calls=calls.calls, mean_s=calls.mean_s, places=calls.places)


def _gaps(timeline: Timeline) -> Gaps:
    return Gaps(
        p50_s=timeline.quantile(0.5),
        p95_s=timeline.quantile(0.95),
        p99_s=timeline.quantile(0.99),
        max_s=timeline.longest_s,
    )
