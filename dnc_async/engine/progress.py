"""How far a stream has come, in batches, and what may be done by that. Lives in the engine's thread."""

from __future__ import annotations

from dnc_async.condition import Condition
from dnc_async.dataset.plan import PlannedBatch


class Progress:
    """How many batches are ``complete``, were ``taken`` by the consumer, and are ``wanted``, the one it waits for counted."""

    def __init__(self, *, prefetch: int | None, places: int) -> None:
        """So many batches ahead of the consumer's demand may be fetched; ``places`` in memory has a transform for others."""
        self._prefetch = prefetch
        self._places = places
        self.complete = self.taken = self.wanted = 0
        #: Notified when whoever waits for something shall look again.
        self.change = Condition()

    def __repr__(self) -> str:
        return f"<Progress {self.complete} batches complete, {self.taken} taken, {self.wanted} wanted>"

    def changed(self) -> None:
        """Whoever waits for something shall look again."""
        self.change.notify_all()

    async def until_taken(self, batches: int) -> None:
        """Wait until so many batches were handed over: then the place in memory is free for the next one."""
        await self.change.until(lambda: self.taken >= batches)

    def has_rows(self, batch: PlannedBatch) -> bool:
        """Whether the batch's place in memory is free: all before it are complete, and few enough are not handed over."""
        return batch.position <= min(self.complete, self.taken + self._places)

    def is_too_far(self, batch: PlannedBatch) -> bool:
        """Whether the batch comes later than what may be fetched ahead."""
        return self._prefetch is not None and batch.position >= self.wanted + self._prefetch
