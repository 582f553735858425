"""One stream over shaped gateways to a consumer with a step, and the ideal stream for the steps that it took.

What ``bench idle`` and ``bench budget`` share. Gateways run in processes of their own, each shaped by one token bucket over all
its connections. Budgets count what the file system counts: so many batches' leases, and the folder; the ideal gets the batches
alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import dnc_async as dnc
from dnc_async.client import EngineKind
from dnc_async.engine.ideal import GatewayLink, Ideal, ideal_stream, window_bytes
from dnc_async.publish.packing import leaf_bytes
from dnc_async.spool.files import FOLDER_BYTES
from dnc_async.testing import GatewayProcess
from dnc_async.testing.watching import watched_disk

Batch = Mapping[str, np.ndarray]

STEP_S = 0.030
LINK = GatewayLink(latency_s=0.050, rate=10e6)
STEPS = ("blocking", "async", "numpy", "gil")
_SAMPLES = 256
_BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A load (demand over supply) on some gateways, with a budget in batches.

    ``faults`` are what else each gateway does, as text; ``step`` is what the consumer does with a batch: hold its loop
    (``blocking``) or not (``async``), compute without the GIL on one core (``numpy``), or with it (``gil``). ``engine`` is where
    the engine runs.
    """

    load: float = 0.9
    budget_batches: float = 2
    links: tuple[GatewayLink, ...] = (LINK,) * 3
    faults: tuple[str, ...] = ()
    step: str = "blocking"
    engine: EngineKind = "thread"
    prefetch: int | None = None

    @property
    def batch_bytes(self) -> int:
        """Of the arrays that a consumer gets."""
        return int(self.load * sum(link.rate for link in self.links) * STEP_S) // _SAMPLES * _SAMPLES

    @property
    def budget_bytes(self) -> int:
        """The disk budget: leases of so many half batches, and the folder."""
        lease = -(-self.batch_bytes // 2 // _BLOCK) * _BLOCK + 3 * _BLOCK  # a chunk's header may need one block more
        return int(2 * self.budget_batches) * lease + FOLDER_BYTES if self.budget_batches else 0

    def scripts(self) -> Iterator[str]:
        """What each gateway does."""
        for i, link in enumerate(self.links):
            shape = f"rate={link.rate:.0f},latency={link.latency_s * 1e3:.0f}ms"
            yield ",".join(filter(None, (shape, self.faults[i] if self.faults else "")))

    def since(self, ages_s: Sequence[float]) -> Setting:
        """The same on a clock that begins when the gateways are so old: that of the stream."""
        return replace(self, links=tuple(_later(link, age) for link, age in zip(self.links, ages_s, strict=True)))

    def ideal(self, steps_s: Sequence[float], *, fluid: bool = False, early: bool = False) -> Ideal:
        """What an all-knowing stream would do, for the steps that were taken.

        ``early``: one that gives room back, and asks for what is to come into it, as early as the engine does.
        """
        half = self.batch_bytes // 2
        leaf = leaf_bytes(half)
        blocks = [leaf] * (half // leaf) + ([half % leaf] if half % leaf else [])
        return ideal_stream(
            [[blocks, blocks]] * len(steps_s),
            links=self.links,
            budget_bytes=2 * self.budget_batches * half,
            steps_s=steps_s,
            fluid=fluid,
            moves_early=early,
            window_bytes=window_bytes(self.links, max(blocks)) if early else 0.0,
        )


def _later(link: GatewayLink, seconds: float) -> GatewayLink:
    return replace(link, changes=tuple((at - seconds, factor) for at, factor in link.changes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run. Shares are of the time after the first batch.

    ``over`` is the wall time beyond the ideal's, over the wall time, and ``excess`` that beyond the early one's. ``stolen`` is
    the share of the processors' time that went to other machines on the same hardware meanwhile: what the run could not have.
    """

    batches: int
    wall_s: float
    idle: float
    ideal: float
    early: float
    fluid: float
    over: float
    excess: float
    model: float | None
    first_batch_s: float
    step_ms: float
    budget_bytes: int
    polled_peak_bytes: int
    causes: Mapping[str, float]
    stolen: float = 0.0


async def publish(store: Path, setting: Setting, batches: int) -> str:
    """A dataset of so many batches of the setting's size, no two rows alike: its CID."""
    rng = np.random.default_rng(0)
    width = setting.batch_bytes // _SAMPLES

    def rows() -> Iterator[dict[str, np.ndarray]]:
        for _ in range(batches):
            yield {"x": rng.integers(0, 256, (_SAMPLES, width), dtype=np.uint8)}

    return (await dnc.upload(rows(), batch_size=_SAMPLES, store=store)).cid


async def run(setting: Setting, store: Path, cid: str, batches: int) -> Outcome:
    """Stream so many batches, over and over the dataset if need be."""
    spool = store.with_name("spool")
    spool.mkdir(exist_ok=True)
    take = step_of(setting.step)
    steps: list[float] = []
    with contextlib.ExitStack() as stack:
        urls, ready = [], []
        for script in setting.scripts():
            urls.append(stack.enter_context(GatewayProcess(store, script)).url)
            ready.append(time.perf_counter())
        peak = stack.enter_context(watched_disk(spool, 0.005))
        stolen = _stolen_s()
        stream = dnc.stream(
            cid,
            gateways=urls,
            disk_budget=setting.budget_bytes,
            spool_dir=spool,
            prefetch="auto" if setting.prefetch is None else setting.prefetch,
            epochs=None,
            engine=setting.engine,
        )
        ideally = setting.since([time.perf_counter() - each for each in ready])
        async with stream:
            async for batch in stream:
                began = time.perf_counter()
                take(batch)
                if setting.step == "async":
                    await asyncio.sleep(STEP_S)
                steps.append(time.perf_counter() - began)
                if len(steps) == batches:
                    break
            figures, report = stream.statistics(), stream.report()
        stolen = _stolen_s() - stolen
    ideal, fluid = ideally.ideal(steps), ideally.ideal(steps, fluid=True)
    early = ideally.ideal(steps, early=True)
    wall = figures.waited_s + sum(steps)
    return Outcome(
        batches=len(steps),
        wall_s=wall,
        idle=figures.waited_s / wall,
        ideal=ideal.idle_share,
        early=early.idle_share,
        fluid=fluid.idle_share,
        over=(wall - (ideal.wall_s - ideal.waits[0])) / wall,
        excess=(wall - (early.wall_s - early.waits[0])) / wall,
        model=report.what_if(),
        first_batch_s=figures.first_batch_s or 0.0,
        step_ms=statistics.mean(steps) * 1e3,
        budget_bytes=setting.budget_bytes,
        polled_peak_bytes=peak(),
        causes=figures.causes,
        stolen=stolen / (os.cpu_count() or 1) / (wall + (figures.first_batch_s or 0.0)),
    )


def _stolen_s() -> float:
    """Seconds that a hypervisor gave to others when somebody here was ready to run, of all processors (proc_stat(5)); Linux."""
    try:
        return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0


def step_of(kind: str) -> Callable[[Batch], None]:
    """What a consumer does with a batch: for 30 ms, all but ``async``."""

    def sleep(_: Batch) -> None:
        time.sleep(STEP_S)

    def compute(batch: Batch) -> None:  # steps of a logistic regression
        end = time.perf_counter() + STEP_S
        x = batch["x"].astype(np.float32)
        weights, target = np.zeros(x.shape[1], np.float32), x[:, 0] > 127
        while time.perf_counter() < end:
            weights -= 1e-9 * (x.T @ (1 / (1 + np.exp(-np.clip(x @ weights, -30, 30))) - target))

    def hold(_: Batch) -> None:
        end = time.perf_counter() + STEP_S
        while time.perf_counter() < end:
            pass

    def leave(_: Batch) -> None:
        """The caller sleeps in its loop."""

    return {"blocking": sleep, "numpy": compute, "gil": hold, "async": leave}[kind]
