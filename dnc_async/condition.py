"""A condition on which the tasks of one event loop wait."""

from __future__ import annotations

from collections.abc import Callable

import anyio


class Condition:
    """Tasks wait until a predicate is true; it is checked whenever something has changed.

    Unlike :class:`asyncio.Condition` it has no lock, because in one event loop nothing changes between two awaits. It may be
    created and notified outside of any task.
    """

    def __init__(self) -> None:
        #: The number of changes so far.
        self.changes = 0
        self._event: anyio.Event | None = None

    def __repr__(self) -> str:
        waiting = self._event.statistics().tasks_waiting if self._event is not None else 0
        return f"<Condition changed {self.changes} times, {waiting} tasks wait>"

    def notify_all(self) -> None:
        """Something has changed: have all waiting tasks check their predicates."""
        self.changes += 1
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def until(self, predicate: Callable[[], object]) -> None:
        """Wait until ``predicate()`` is true. It is checked at once, and after each change."""
        while not predicate():
            await self.past(self.changes)

    async def past(self, changes: int) -> None:
        """Wait until there were more than ``changes`` changes: none is missed that happened since ``changes`` was read."""
        while self.changes <= changes:
            if self._event is None:
                self._event = anyio.Event()
            await self._event.wait()
