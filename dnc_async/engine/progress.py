"""How far a stream has come, in batches, and what may be done next. PURE."""

from __future__ import annotations

from dnc_async.dataset.plan import PlannedBatch


class Progress:
    """The numbers of batches that are ``complete``, ``taken`` by the consumer, and ``wanted``, including the one it waits for."""

    def __init__(self, *, prefetch: int | None, places: int) -> None:
        """``prefetch`` batches ahead of the demand may be fetched.

        ``places`` further batches have memory: for a transform, or in the mailbox.
        """
        self._prefetch = prefetch
        self._places = places
        self.complete = self.taken = self.wanted = 0

    def __repr__(self) -> str:
        return f"<Progress {self.complete} batches complete, {self.taken} taken, {self.wanted} wanted>"

    def has_rows(self, batch: PlannedBatch) -> bool:
        """Whether the batch's place in memory is free: all before it are complete, and few enough are not handed over."""
        return batch.position <= min(self.complete, self.taken + self._places)

    def is_next(self, batch: PlannedBatch) -> bool:
        """Whether the consumer takes this batch next."""
        return batch.position <= self.taken

    def is_too_far(self, batch: PlannedBatch) -> bool:
        """Whether the batch is beyond what may be fetched ahead."""
        return self._prefetch is not None and batch.position >= self.wanted + self._prefetch
