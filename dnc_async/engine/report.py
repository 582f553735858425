"""Where the time of a stream went, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dnc_async.telemetry import StreamStatistics


def samples_of(batch: Any) -> int:  # noqa: ANN401 - a dict, a tuple or an array: what was uploaded
    """How many samples a batch holds."""
    if isinstance(batch, dict):
        return len(next(iter(batch.values())))
    return len(batch[0]) if isinstance(batch, tuple) else len(batch)


def gap_line(row: Mapping[str, Any], total: int) -> str:
    """A line for one batch."""
    return f"batch {row['batch'] + 1:>{len(str(total))}}/{total}  {row['samples']} samples  waited {row['waited_s'] * 1e3:.1f} ms"


def render(statistics: StreamStatistics) -> str:
    """The gap report of a stream as text."""
    first = statistics.first_batch_s or 0.0
    lines = [
        (
            f"{statistics.batches} batches in {statistics.elapsed_s:.2f} s; first batch after {first:.2f} s; "
            f"idle {statistics.idle_share:.1%} of the time after it ({statistics.waited_s:.2f} s)"
        ),
        (
            f"disk: {statistics.peak_leased_bytes:,} of {statistics.budget_bytes:,} bytes reserved at most; "
            f"{statistics.blocks_rejected} blocks rejected, {statistics.requests_failed} requests failed"
        ),
    ]
    lines += [
        f"  waited {seconds:.3f} s for {cause}"
        for cause, seconds in sorted(statistics.causes.items(), key=lambda c: -c[1])
    ]
    for gateway in statistics.gateways:
        rate = f"{gateway.rate / 1e6:.1f} MB/s" if gateway.rate else "no rate measured"
        latency = f"{gateway.latency_s * 1e3:.0f} ms" if gateway.latency_s is not None else "no answer"
        lines.append(
            f"  {gateway.url}: {gateway.blocks} blocks, {gateway.bytes:,} bytes, {rate}, {latency}, "
            f"{gateway.rejected} rejected, {gateway.failures} failed"
        )
    return "\n".join(lines)
