"""The invariants that must hold after every simulated run, whatever its scripts did."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from dnc_async.errors import ChunkUnavailableError, DiskFullError, DncError, SpoolError, StreamClosedError
from dnc_async.testing.faults import Faults

if TYPE_CHECKING:
    from .simulation import _Run

#: The faults of a disk after which a stream may end with an error.
_FATAL_OF_A_DISK = {"write-error"}

#: The faults of a gateway that only cost time.
_HARMLESS = {"rate", "latency_s", "jitter_s", "slow", "no_car", "ignore_entity_bytes", "seed", "retry_after_s"}


def is_honest(script: Faults) -> bool:
    """Whether a gateway sends every requested block, sooner or later."""
    return all(getattr(script, each.name) == each.default for each in fields(script) if each.name not in _HARMLESS)


def problems_of(run: _Run, threads: int) -> Iterator[str]:
    """What is wrong after a run; ``threads`` is the number of threads at its start."""
    gc.collect()
    for consumer in run.consumers:
        for problem in consumer.problems:
            yield f"consumer {consumer.number}: {problem}"
    yield from _errors(run)
    yield from _disk(run)
    yield from _leftovers(run, threads)
    yield from _ledger(run)


def _errors(run: _Run) -> Iterator[str]:
    """A stream fails only if no gateway could serve it, or the disk fails, and its error names the culprit."""
    for consumer in run.consumers:
        error = consumer.error
        if error is None:
            continue
        if not isinstance(error, DncError):
            yield f"consumer {consumer.number}: {error!r} is not an error of ours"
        elif isinstance(error, StreamClosedError):
            yield f"consumer {consumer.number}: {error}"
        elif isinstance(error, SpoolError):
            refused = isinstance(error, DiskFullError) and not consumer.batches and run.disk.faults
            if not refused and not _FATAL_OF_A_DISK & set(run.disk.faults):
                yield f"consumer {consumer.number}: a disk without faults failed: {error}"
        elif any(is_honest(gateway.script) for gateway in run.gateways):
            yield f"consumer {consumer.number}: an honest gateway was there all the time: {error}"
        elif isinstance(error, ChunkUnavailableError):
            named = {getattr(cause, "gateway", "") for cause in error.exceptions}
            if not named <= {gateway.name for gateway in run.gateways} or not named:
                yield f"consumer {consumer.number}: the error names {named}"


def _disk(run: _Run) -> Iterator[str]:
    if run.disk.peak_bytes > run.budget_bytes:
        yield f"the disk held {run.disk.peak_bytes} bytes, the budget is {run.budget_bytes}"
    if not run.disk.is_empty:
        yield f"left on the disk: {run.disk!r}"


def _leftovers(run: _Run, threads: int) -> Iterator[str]:
    tasks = [task.get_name() for task in asyncio.all_tasks(run.loop)]
    if tasks:
        yield f"left: tasks {', '.join(sorted(tasks))}"
    timers = run.loop.timers()
    if timers:
        yield f"left: {len(timers)} timers, the first {timers[0]!r}"
    if threading.active_count() > threads:
        yield f"left: {threading.active_count() - threads} threads"
    for engine in run.engines:
        if engine.is_started:
            statistics = engine.runtime.governor.statistics()
            if statistics.leased_bytes or statistics.accounts:
                yield f"left: {statistics}"


def _ledger(run: _Run) -> Iterator[str]:
    """The causes of each wait add up to it, and the waits to what the consumers waited."""
    for gap in run.gaps:
        if abs(sum(gap.causes.values()) - gap.seconds) > 1e-6:
            yield f"batch {gap.position}: the causes {gap.causes} do not add up to {gap.seconds}"
        if any(seconds < 0 for seconds in gap.causes.values()):
            yield f"batch {gap.position}: a cause took less than no time: {gap.causes}"
    complete = all(consumer.is_complete for consumer in run.consumers)
    patient = run.plan.cancel_turn is None and all(
        consumer.script.patience_s is None and consumer.script.cancelled is None for consumer in run.consumers
    )
    told, waited = sum(gap.seconds for gap in run.gaps), sum(consumer.waited_s for consumer in run.consumers)
    if complete and patient and abs(told - waited) > 1e-3 * (1 + len(run.gaps)):
        yield f"the consumers waited {waited:.6f} s, the ledger says {told:.6f} s"
