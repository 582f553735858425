"""How a run would have waited with another budget or another gateway: the ideal stream, with the measured values. PURE.

The model is :func:`~dnc_async.engine.ideal.ideal_stream`, whose chunks move to memory early and are requested before they have
space, like the engine's. Its input: each gateway's rate and mean latency as estimated at the end of the run (the rate is
reduced by the share of blocks that were rejected), the recorded steps of the consumer (the mean of each bin; of a long run the
last 512 bins), and chunks and blocks of the mean size. So it assumes

- gateways that are always as fast as at the end, do not fail or pause, and serve this stream only;
- that no link in front of them is shared: another gateway adds its whole rate;
- perfect planning, and no time for proofs, verification, decoding and hand-over;
- that each call of a transform takes the mean duration, whatever else the machine does.

It tells what is possible, not what will be. A run waits longer than the model, unless a rate was estimated too low, or its
first batch, which is not counted, took longer than the model's and left time to fetch ahead. Compare a scenario with the model
of the run as it was, and that with the measured run: the closer those two are, the more the difference between scenarios means.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

from dnc_async.engine.ideal import Calls, GatewayLink, ideal_stream, window_bytes

if TYPE_CHECKING:
    from dnc_async.engine.report.record import RunRecord

_MOST_BATCHES = 512
_MOST_BLOCKS = 32  # of one chunk; more blocks are merged
_MOST_STEPS = 2**22  # a model of more blocks and gateways would take minutes
AS_IT_WAS = "as it was"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A variation of a run, and its idle share in the model."""

    name: str
    idle_share: float


def scenarios(report: RunRecord) -> tuple[Scenario, ...]:
    """The run as it was, then its variations."""
    budget = report.budget_bytes
    asked: list[tuple[str, int | None, int]] = [(AS_IT_WAS, None, 0)]
    if budget:
        asked += [("with twice the budget", 2 * budget, 0), ("with half the budget", budget // 2, 0)]
    else:
        asked += [("with a disk budget of four batches", report.settings.folder_bytes + 4 * _batch_lease(report), 0)]
    asked += [("with one more such gateway", None, 1)]
    found = ((name, idle_share(report, budget_bytes=size, more_gateways=more)) for name, size, more in asked)
    return tuple(Scenario(name=name, idle_share=share) for name, share in found if share is not None)


def idle_share(report: RunRecord, *, budget_bytes: int | None = None, more_gateways: int = 0) -> float | None:
    """The model's idle share; ``None`` if it cannot be computed."""
    links = _links(report)
    if not links or not report.timeline or not report.useful_bytes or report.settings.prefetch == 0:
        return None
    bins = report.timeline[-_MOST_BATCHES:]
    if not (
        report.batches and report.chunks and all(each.batches for each in bins)
    ):  # a report that somebody else wrote
        return None
    if len(bins) * _chunks_per_batch(report) * _MOST_BLOCKS * len(links) > _MOST_STEPS:
        return None
    more = GatewayLink(latency_s=mean(link.latency_s for link in links), rate=mean(link.rate for link in links))
    links += [more] * more_gateways
    chunk = _chunk(report)
    batch = [chunk] * _chunks_per_batch(report)
    steps = [each.step_s / each.batches for each in bins]
    ideal = ideal_stream(
        [batch] * (len(steps) + 1),
        links=links,
        budget_bytes=_staged_chunks(report, budget_bytes) * sum(chunk),
        steps_s=[*steps, 0.0],
        moves_early=True,
        window_bytes=window_bytes(links, max(chunk)),
        calls=_calls(report),
    )
    return ideal.idle_share


def _links(report: RunRecord) -> list[GatewayLink]:
    return [
        GatewayLink(
            latency_s=gateway.latency_s + gateway.jitter_s,
            rate=gateway.rate * gateway.blocks / (gateway.blocks + gateway.rejected),
        )
        for gateway in report.gateways
        if gateway.rate and gateway.latency_s is not None and gateway.blocks
    ]


def _chunk(report: RunRecord) -> list[int]:
    blocks = min(_MOST_BLOCKS, max(1, round(report.blocks / report.chunks)))
    size = max(blocks, round(report.useful_bytes / report.chunks))
    return [size // blocks] * (blocks - 1) + [size - size // blocks * (blocks - 1)]


def _chunks_per_batch(report: RunRecord) -> int:
    return max(1, round(report.chunks / max(1, report.batches)))


def _batch_lease(report: RunRecord) -> int:
    return _chunks_per_batch(report) * report.settings.lease_bytes


def _calls(report: RunRecord) -> Calls | None:
    run = report.transform
    if run is None:
        return None
    return Calls(seconds=run.mean_s, workers=max(1, run.places), places=_places(report))


def _places(report: RunRecord) -> int:
    """How many batches are in memory for a transform, in addition to the one being received; ``prefetch`` includes them."""
    places, prefetch = report.transform.places if report.transform is not None else 0, report.settings.prefetch
    return places if prefetch is None else min(places, prefetch - 1)


def _staged_chunks(report: RunRecord, budget_bytes: int | None) -> int:
    """How many chunks may be on disk: what fits into the budget, and what ``prefetch`` allows."""
    settings = report.settings
    budget = report.budget_bytes if budget_bytes is None else budget_bytes
    room = max(0, budget - settings.folder_bytes) // max(1, settings.lease_bytes)
    if settings.prefetch is not None:  # the next batch comes into memory, and those that a transform has places for
        room = min(room, (settings.prefetch - 1 - _places(report)) * _chunks_per_batch(report))
    return room
