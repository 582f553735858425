"""The arms of the comparison: the same stream, the same learner, the same gateways, fetched in different ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dnc_async.demo.flights import Flights
from dnc_async.demo.learner import Learner, Score
from dnc_async.shortcuts import stream
from dnc_async.telemetry import StreamStatistics
from dnc_async.testing import GatewayProcess

#: The first idea gets so many batches; more would only show the same again.
FIRST_IDEA_BATCHES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all arms have in common."""

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
    """The result of one arm. ``early`` are the weights after the first idea's last batch, ``final`` those at the end."""

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
    training = _Training(setting)
    limit = FIRST_IDEA_BATCHES if first_idea else setting.batches
    began = time.monotonic()
    batches = stream(
        setting.cid,
        gateways=[gateway.url for gateway in setting.gateways],
        disk_budget=setting.budget_bytes,
        spool_dir=setting.spool_dir,
        prefetch=0 if first_idea else "auto",
    )
    async with batches:
        async for x, y in batches:
            training.step(x, y)
            if training.batches == kill_at:
                setting.gateways[0].kill()
            tell(name, training.batches, limit)
            if training.batches == limit:
                break
        seconds = time.monotonic() - began
        return training.arm(name, seconds, batches.statistics())


class _Training:
    """One learner that goes through the data: it learns from all batches except the last ones, which are held out."""

    def __init__(self, setting: Setting) -> None:
        self._learner = Learner(setting.seed, len(setting.flights.features))
        self._all = setting.batches
        self._to_learn = setting.batches - setting.held_out
        self._early = ""
        self.batches = 0

    def step(self, x: npt.NDArray[np.float32], y: npt.NDArray[np.int8]) -> None:
        """Learn from the next batch, or hold it out."""
        self.batches += 1
        if self.batches <= self._to_learn:
            self._learner.learn(x, y)
        else:
            self._learner.hold_out(x, y)
        if self.batches == min(FIRST_IDEA_BATCHES, self._to_learn):
            self._early = self._learner.fingerprint()

    def arm(self, name: str, seconds: float, statistics: StreamStatistics) -> Arm:
        """The result; without a score if it did not reach the end."""
        learner, is_whole = self._learner, self.batches == self._all and self._to_learn < self._all
        return Arm(
            name=name,
            batches=self.batches,
            seconds=seconds,
            computed_s=learner.computed_s,
            statistics=statistics,
            early=self._early,
            final=learner.fingerprint() if is_whole else None,
            score=learner.score() if is_whole else None,
        )
