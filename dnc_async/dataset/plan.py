"""The plan of a run: which chunks make which batches, and in which order. PURE: the order is a function.

A plan is computed, not stored, so nothing here grows with the dataset.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from dnc_async.dataset.cursor import PlanFacts
from dnc_async.dataset.manifest import Manifest


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """The batch at ``position`` of a run: the ``index``-th of its ``epoch``, made of ``chunks``.

    ``skipped`` batches precede the run, which goes on where another one stopped.
    """

    position: int
    epoch: int
    index: int
    samples: int
    chunks: range
    skipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The batches of a run over a dataset, in order.

    ``epochs`` is ``None`` for an endless run. ``drop_last`` omits a short last batch from every epoch. A run that goes on where
    another one stopped omits the ``first`` batches; its own positions begin at 0 again.
    """

    manifest: Manifest
    epochs: int | None = 1
    drop_last: bool = False
    first: int = 0

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches in one epoch."""
        short = self.manifest.samples % self.manifest.batch_size != 0
        return self.manifest.batches - (1 if self.drop_last and short else 0)

    @property
    def facts(self) -> PlanFacts:
        """What is told of the plan when its stream is open."""
        batches = None if self.epochs is None else self.batches_per_epoch * self.epochs
        manifest = self.manifest
        return PlanFacts(batches, self.first, self.batches_per_epoch, manifest.batch_size, manifest.samples)

    def __len__(self) -> int:
        if self.epochs is None:
            raise TypeError("a run with epochs=None has no length")
        return max(0, self.batches_per_epoch * self.epochs - self.first)

    def batches(self, start: int = 0) -> Iterator[PlannedBatch]:
        """The batches from position ``start`` on."""
        manifest, per_epoch, first = self.manifest, self.batches_per_epoch, self.first
        if not per_epoch:
            return
        for position in itertools.count(start) if self.epochs is None else range(start, len(self)):
            epoch, index = divmod(first + position, per_epoch)
            samples, chunks = manifest.batch_samples(index), manifest.batch_chunks(index)
            yield PlannedBatch(position, epoch, index, samples, chunks, first)
