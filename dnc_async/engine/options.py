"""The options of a stream: one object that is passed on whole, from the call to the engine in its own process."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal

from dnc_async.config.numbers import whole_number
from dnc_async.engine.transform import TransformFunction, Workers
from dnc_async.errors import ArgumentError
from dnc_async.telemetry import Observer

#: The consumer's functions, which stay in its process.
_STAYING = ("progress", "transform", "transform_workers", "resume", "checkpoint")


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """How a stream goes through its dataset. Raises :class:`~dnc_async.errors.ArgumentError` for invalid options.

    epochs:
        The number of passes over the dataset; ``None`` for an endless stream.
    drop_last:
        Omit a short last batch.
    prefetch:
        How many batches ahead of the consumer to fetch, within the budget; 0 fetches a batch when it is asked for.
    resume:
        A state that ``state_dict()`` returned: go on with the batch after those that it counts, also on another machine, from
        other gateways, with another budget. With ``epochs=N``, the passes that were left are made.
    checkpoint:
        A file in which the stream keeps its position: a run that finds it goes on from there, any other begins with the first
        batch. It is written when the next batch is asked for, so after a kill the batch in hand is given again. For a model that
        is saved now and then, save ``state_dict()`` with it instead.
    transform:
        A function that takes a batch and returns what you get instead: decode, augment, copy to a device. It runs while your
        step runs, never in an event loop, and keeps the order. Waiting for it is the cause ``transform`` in the report.
    transform_workers:
        0 calls it for one batch at a time, in one thread, and needs no additional batch in memory. N calls it for
        up to N batches at once, in N threads, with up to N more batches in memory; for functions that hold the GIL, give a
        ``ProcessPoolExecutor`` of your own, with ``mp_context`` "spawn" or "forkserver". The module
        :mod:`dnc_async.engine.transform` tells more about threads, contexts, memory and closing.
    progress:
        Called with frozen events: ``Gap`` for each batch that was handed over, ``BlockReceived`` and ``RequestFailed`` for the
        gateways (:mod:`dnc_async.telemetry`). It is called in the engine's thread and must return quickly; exceptions
        are logged and do no harm.
    """

    epochs: int | None = 1
    drop_last: bool = False
    prefetch: int | Literal["auto"] = "auto"
    resume: Mapping[str, Any] | None = None
    checkpoint: str | os.PathLike[str] | None = None
    transform: TransformFunction | None = None
    transform_workers: Workers = 0
    progress: Observer | None = None

    def __post_init__(self) -> None:
        if self.epochs is not None:
            passes = "a number of passes, or None for no end"
            self._set("epochs", whole_number(self.epochs, name="epochs", least=1, meaning=passes))
        if not (isinstance(self.prefetch, str) and self.prefetch == "auto"):
            ahead = "'auto' or how many batches ahead to fetch"
            self._set("prefetch", whole_number(self.prefetch, name="prefetch", least=0, meaning=ahead))
        if self.resume is not None and self.checkpoint is not None:
            raise ArgumentError("resume and checkpoint: a stream goes on from one of them; give the other one up")
        if self.progress is not None:
            check_observer(self.progress, "progress")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def __reduce__(self) -> tuple[Callable[[], StreamOptions], tuple[()]]:
        """What an engine in another process needs to know."""
        known = {field.name: getattr(self, field.name) for field in fields(StreamOptions) if field.name not in _STAYING}
        return partial(StreamOptions, **known), ()

    @property
    def batches_ahead(self) -> int | None:
        """How many batches ahead of the consumer may be fetched; ``None`` means no limit."""
        return None if isinstance(self.prefetch, str) else self.prefetch


def check_observer(observer: object, name: str) -> Observer:
    """Check that an observer can be called. Raises :class:`~dnc_async.errors.ArgumentError`."""
    if not callable(observer):
        raise ArgumentError(f"{name}: expected a callable that takes an event, got {observer!r}")
    return observer
