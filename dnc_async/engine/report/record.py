"""What a run's report consists of. PURE."""

from __future__ import annotations

from dataclasses import dataclass

from dnc_async.engine.timeline import Bin
from dnc_async.telemetry import GatewayStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """How long the consumer waited for a batch after the first one. Quantiles within 1 %, the maximum exactly."""

    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """The options of the run. ``folder_bytes`` of the budget are the spool folder's; each chunk takes ``lease_bytes``."""

    epochs: int | None
    drop_last: bool
    prefetch: int | None
    folder_bytes: int
    lease_bytes: int
    library_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformRun:
    """The calls of the transform: their number, and their mean duration.

    ``places`` batches had memory for it in addition to the one that is being received, and as many calls ran at once, or one.
    """

    calls: int
    mean_s: float
    places: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What was measured of a run; :class:`~dnc_async.engine.report.report.Report` explains it."""

    dataset: str
    settings: RunSettings
    batches: int
    samples: int
    chunks: int
    blocks: int
    first_batch_s: float | None
    waited_s: float
    elapsed_s: float
    causes: dict[str, float]
    gaps: Gaps
    timeline: tuple[Bin, ...]
    order: str
    budget_bytes: int
    peak_leased_bytes: int
    peak_disk_bytes: int
    peak_memory_bytes: int | None
    fetched_bytes: int
    useful_bytes: int
    hedged_bytes: int
    blocks_verified: int
    blocks_rejected: int
    requests_failed: int
    gateways: tuple[GatewayStatistics, ...]
    transform: TransformRun | None = None
    peak_ahead_bytes: int = 0
    verified_bytes: int = 0

    @property
    def steady_s(self) -> float:
        """The seconds from the first batch to the last."""
        return max(0.0, self.elapsed_s - (self.first_batch_s or 0.0))

    @property
    def idle_share(self) -> float:
        """The share of the time after the first batch for which the consumer waited."""
        return min(1.0, self.waited_s / self.steady_s) if self.steady_s else 0.0

    @property
    def computing_share(self) -> float:
        """The rest: the utilization of an accelerator that works whenever it has a batch."""
        return 1.0 - self.idle_share
