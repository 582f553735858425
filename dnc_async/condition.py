"""What tasks of one event loop wait on until something has changed, and look again."""

from __future__ import annotations

from collections.abc import Callable

import anyio


class Condition:
    """Wakes all tasks that wait when something has changed; each looks again whether what it waits for is so.

    Unlike :class:`asyncio.Condition` it has no lock: in one event loop nothing changes between two awaits. It may be made, and
    notified, outside of any task.
    """

    def __init__(self) -> None:
        #: How often something has changed.
        self.changes = 0
        self._event: anyio.Event | None = None

    def __repr__(self) -> str:
        waiting = self._event.statistics().tasks_waiting if self._event is not None else 0
        return f"<Condition changed {self.changes} times, {waiting} tasks wait>"

    def notify_all(self) -> None:
        """Something has changed."""
        self.changes += 1
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def until(self, predicate: Callable[[], object]) -> None:
        """Wait until this is true: it is asked at once, and at each change."""
        while not predicate():
            await self.past(self.changes)

    async def past(self, changes: int) -> None:
        """Wait until there have been more changes than that: none is missed that came since it was read."""
        while self.changes <= changes:
            if self._event is None:
                self._event = anyio.Event()
            await self._event.wait()
