"""The arms of the comparison: the same stream, the same learner, the same gateways, fetched in different ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dnc_async.demo.flights import Flights
from dnc_async.demo.learner import Learner, Score
from dnc_async.shortcuts import stream
from dnc_async.telemetry import StreamStatistics
from dnc_async.testing import GatewayProcess

#: The first idea gets so many batches; more would only show the same again.
FIRST_IDEA_BATCHES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all arms share."""

    cid: str
    flights: Flights
    batches: int
    held_out: int
    gateways: Sequence[GatewayProcess]
    budget_bytes: int
    spool_dir: Path
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What one arm did. ``early`` are the weights after the first idea's last batch, ``final`` those at the end."""

    name: str
    batches: int
    seconds: float
    computed_s: float
    statistics: StreamStatistics
    early: str
    final: str | None
    score: Score | None

    @property
    def idle_share(self) -> float:
        """The share of the time after the first batch that was spent waiting for a batch."""
        return self.statistics.waited_s / max(1e-9, self.seconds - (self.statistics.first_batch_s or 0.0))


async def run_arm(
    setting: Setting,
    name: str,
    *,
    first_idea: bool = False,
    kill_at: int | None = None,
    tell: Callable[[str, int, int], None],
) -> Arm:
    """Train through one arm; ``kill_at`` is the batch at which the first gateway dies."""
    learner = Learner(setting.seed, len(setting.flights.features))
    limit = FIRST_IDEA_BATCHES if first_idea else setting.batches
    early = ""
    began = time.monotonic()
    batches = stream(
        setting.cid,
        gateways=[gateway.url for gateway in setting.gateways],
        disk_budget=setting.budget_bytes,
        spool_dir=setting.spool_dir,
        prefetch=0 if first_idea else "auto",
    )
    async with batches:
        count = 0
        async for x, y in batches:
            count += 1
            if count <= setting.batches - setting.held_out:
                learner.learn(x, y)
            else:
                learner.hold_out(x, y)
            if count == kill_at:
                setting.gateways[0].kill()
            if count == min(FIRST_IDEA_BATCHES, setting.batches - setting.held_out):
                early = learner.fingerprint()
            tell(name, count, limit)
            if count == limit:
                break
        seconds = time.monotonic() - began
        statistics = batches.statistics()
    whole = limit == setting.batches and setting.held_out > 0
    return Arm(
        name=name,
        batches=count,
        seconds=seconds,
        computed_s=learner.computed_s,
        statistics=statistics,
        early=early,
        final=learner.fingerprint() if whole else None,
        score=learner.score() if whole else None,
    )
