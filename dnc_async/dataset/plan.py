"""The plan of a run: which chunks, in which order, make which batches. PURE: the order is a function.

A plan is computed, not stored: nothing here grows with the dataset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dnc_async.dataset.manifest import Manifest


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """The ``position``-th batch of a run: ``index`` within its ``epoch``, and the chunks that it consists of.

    ``skipped`` batches came before the run: it goes on where another one stopped.
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

    ``epochs`` is ``None`` for a run without end. ``drop_last`` leaves a short last batch out of every epoch. A run that goes on
    where another one stopped leaves out the ``first`` batches; its own positions begin at 0 again.
    """

    manifest: Manifest
    epochs: int | None = 1
    drop_last: bool = False
    first: int = 0

    @property
    def batches_per_epoch(self) -> int:
        """How many batches one epoch delivers."""
        short = self.manifest.samples % self.manifest.batch_size != 0
        return self.manifest.batches - (1 if self.drop_last and short else 0)

    def __len__(self) -> int:
        if self.epochs is None:
            raise TypeError("a run with epochs=None has no length")
        return max(0, self.batches_per_epoch * self.epochs - self.first)

    def batches(self, start: int = 0) -> Iterator[PlannedBatch]:
        """The batches from position ``start`` on."""
        position = start
        while self.batches_per_epoch and (self.epochs is None or position < len(self)):
            epoch, index = divmod(self.first + position, self.batches_per_epoch)
            manifest = self.manifest
            samples, chunks = manifest.batch_samples(index), manifest.batch_chunks(index)
            yield PlannedBatch(position, epoch, index, samples, chunks, self.first)
            position += 1
