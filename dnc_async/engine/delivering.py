"""The last stage of a stream: puts complete batches into the mailbox, through the transform if there is one."""

from __future__ import annotations

import asyncio
from collections import deque

from dnc_async.dataset.manifest import Manifest
from dnc_async.dataset.plan import PlannedBatch
from dnc_async.engine.chunks import ChunkQueues
from dnc_async.engine.mailbox import BatchSender
from dnc_async.engine.pace import CallPace
from dnc_async.engine.transform import Job, Transforms

#: The mailbox may hold several batches if all of them together have no more bytes than this.
_MAILBOX_BYTES = 2**16


class Delivering:
    """Hands over one stream's batches, in the plan's order."""

    def __init__(
        self, *, mailbox: BatchSender, queues: ChunkQueues, transforms: Transforms | None, holds_several: bool
    ) -> None:
        """``holds_several``: the mailbox may hold several batches."""
        self._transforms = transforms
        self._mailbox = mailbox
        self._queues = queues
        self._jobs: deque[Job] = deque()
        self._holds_several = holds_several and transforms is None
        self._wakes = False
        #: How long the calls of the transform take, if there is one.
        self.calls = CallPace(transforms.places) if transforms is not None else None

    def __repr__(self) -> str:
        return f"<Delivering {len(self._jobs)} batches in the transform>"

    async def add(self, planned: PlannedBatch, batch: object) -> None:
        """Take a batch whose rows are complete."""
        if self._transforms is None:
            self._put(planned, batch)
        else:
            self._jobs.append(await self._transforms.start(planned, batch))

    async def run(self) -> None:
        """Hand over transformed batches; raise an error when all batches before it were taken, and not before."""
        while True:
            await self._queues.progressed.until(lambda: self._jobs)
            job = self._jobs.popleft()
            await job.finished.wait()
            if self.calls is not None:
                self.calls.ended(job.done_at, complete=job.complete_at)
            await self._queues.until_taken(job.planned.position)
            self._put(job.planned, job.take(), transformed=job.done_at)

    def _put(self, planned: PlannedBatch, batch: object, *, transformed: float = 0.0) -> None:
        times = tuple(each.times for each in self._queues.by_batch[planned.position])
        self._mailbox.put(batch, samples=planned.samples, chunks=times, transformed=transformed)
        if not self._holds_several:
            self._mailbox.wake()
        elif not self._wakes:  # when this task has put all that is ready, so that the consumer finds several
            self._wakes = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        self._wakes = False
        self._mailbox.wake()


def batches_in_memory(
    manifest: Manifest, mailbox: BatchSender, transforms: Transforms | None, *, is_small: bool
) -> int:
    """How many batches have memory beside the one that is being received and the one with the consumer.

    Those of the transform; else, if all chunks are small, those that may lie in the mailbox before the next one.
    """
    if transforms is not None or not is_small:
        return transforms.places if transforms is not None else 0
    batch_bytes = manifest.chunks_per_batch * manifest.largest_chunk_bytes
    return max(0, min(mailbox.capacity, _MAILBOX_BYTES // batch_bytes) - 1)
