"""A position in a run over a dataset, and its state as plain data: what ``state_dict()`` returns and a checkpoint holds. PURE.

::

    {"format": "dnc-stream", "version": 1, "dataset": "bafy…", "first_epoch": 0, "epoch": 2, "position": 40960,
     "order": {"shuffle": false, "lanes": 1}}

``position`` counts the samples of the epoch that were consumed. The ``order`` holds what determines the order of the samples, and
nothing else: gateways, budgets and prefetching may differ where a run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from dnc_async.errors import ArgumentError
from dnc_async.quoting import quoted

FORMAT, VERSION = "dnc-stream", 1
#: The only order so far: as published.
_ORDER: dict[str, object] = {"shuffle": False, "lanes": 1}
_COUNTS = ("first_epoch", "epoch", "position")
_MOST = 2**62


class PlanFacts(NamedTuple):
    """What an open stream tells of its plan: ``first`` batches of it precede the run, and ``batches`` are all, or ``None``."""

    batches: int | None
    first: int
    batches_per_epoch: int
    batch_size: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Where a run is: ``position`` samples of ``epoch`` were consumed. Its passes began with ``first_epoch``."""

    first_epoch: int = 0
    epoch: int = 0
    position: int = 0

    @classmethod
    def of_epoch(cls, epoch: int) -> Self:
        """The beginning of an epoch, with which the passes begin."""
        return cls(first_epoch=epoch, epoch=epoch)

    def after(self, batches: int, facts: PlanFacts) -> Cursor:
        """The cursor after so many batches more than there were when the stream was opened."""
        epochs, index = divmod(facts.first + batches, facts.batches_per_epoch)
        position = min(index * facts.batch_size, facts.samples)
        return Cursor(first_epoch=self.first_epoch, epoch=self.first_epoch + epochs, position=position)

    def batches_before(self, *, batch_size: int, batches_per_epoch: int) -> int:
        """How many batches of the plan precede it. Raises :class:`~dnc_async.errors.ArgumentError` within a batch."""
        batches, rest = divmod(self.position, batch_size)
        batches = min(batches, batches_per_epoch)  # behind the last one, which drop_last omits
        if rest and batches < batches_per_epoch:
            raise ArgumentError(
                f"the state is at sample {self.position} of epoch {self.epoch}, which is within a batch of {batch_size}"
            )
        return (self.epoch - self.first_epoch) * batches_per_epoch + batches

    def state(self, dataset: str) -> dict[str, Any]:
        """The state as plain data, for JSON."""
        counts = {name: getattr(self, name) for name in _COUNTS}
        return {"format": FORMAT, "version": VERSION, "dataset": dataset, **counts, "order": dict(_ORDER)}

    @classmethod
    def from_state(cls, state: object, dataset: str, where: str) -> Self:
        """The cursor of a state for this dataset. Raises :class:`~dnc_async.errors.ArgumentError`, which names ``where``."""
        if not isinstance(state, Mapping) or state.get("format") != FORMAT:
            raise ArgumentError(f"{where}: this is not the state of a stream; expected what its state_dict() returned")
        if state.get("version") != VERSION:
            version = quoted(str(state.get("version"))[:40])
            raise ArgumentError(
                f"{where}: the state has version {version}, this library reads {VERSION}: upgrade dnc-async"
            )
        if state.get("dataset") != dataset:
            other = quoted(str(state.get("dataset"))[:200])
            raise ArgumentError(
                f"{where}: the state is of the dataset {other}, and this is {dataset}; use it with its own"
            )
        if state.get("order") != _ORDER:
            order = quoted(str(state.get("order"))[:200])
            raise ArgumentError(f"{where}: the state is of another order, {order}; this version knows only {_ORDER}")
        counts = {name: _count(state.get(name), f"{where}: its {name!r}") for name in _COUNTS}
        if counts["epoch"] < counts["first_epoch"]:
            raise ArgumentError(f"{where}: its epoch {counts['epoch']} is before its first, {counts['first_epoch']}")
        return cls(**counts)


def _count(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST:
        raise ArgumentError(f"{what} is {quoted(str(value)[:40])}, expected a whole number of at least 0")
    return value
