"""An event loop with a virtual clock: when nothing is to be done, the time jumps to the next timer.

It has no sockets and no threads, so the order of events depends only on the program.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import selectors
from collections import deque
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

#: The clock's initial time: not 0, which code might mistake for "no time yet".
START_S = 1000.0
#: After this many turns without a change of time, everything that can be done at once is done.
_TURNS = 200


class NothingWillHappenError(Exception):
    """All tasks wait, and there is no timer: they would wait for ever."""


class _NoSelector(selectors.BaseSelector):
    """A selector that watches only the clock."""

    def __init__(self, advance: Callable[[float | None], None]) -> None:
        self._advance = advance

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:  # noqa: ANN401
        """Accept the loop's own wake-up socket, which is never used."""
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:  # noqa: ANN401
        """Forget it."""
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Advance the clock by the time that the loop would sleep."""
        self._advance(timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Nothing is registered."""
        return {}


class _NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its number, so that sets of tasks are iterated in the same order each time."""

    def __init__(self, coroutine: Any, *, loop: VirtualLoop, **options: Any) -> None:  # noqa: ANN401 - as asyncio.Task
        self._number = next(loop.numbers)
        super().__init__(coroutine, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` advances only when nothing else is to be done. ``run_*`` may raise :class:`NothingWillHappenError`.

    anyio reschedules itself again and again while a cancelled task cleans up (in a shielded scope). If many turns of the loop
    do nothing else, the time advances to the next timer.
    """

    # Private attributes of asyncio, for lack of another way: its heap of timers, and its ready queue.
    _scheduled: list[asyncio.TimerHandle]
    _ready: deque[asyncio.Handle]

    def __init__(self, start_s: float = START_S) -> None:
        self._now = start_s
        self._turns = 0
        #: The number of turns of the loop so far.
        self.turns = 0
        self._at_turn: tuple[int, Callable[[], object]] | None = None
        self.numbers = itertools.count(1)
        super().__init__(_NoSelector(self._pass_time))
        self._clock_resolution = 1e-9
        self.set_task_factory(lambda _, coroutine, **options: _NumberedTask(coroutine, loop=self, **options))
        _number_scopes()

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    def at_turn(self, turn: int, function: Callable[[], object]) -> None:
        """Call a function at this turn of the loop, between two steps of its tasks."""
        self._at_turn = turn, function

    def _pass_time(self, timeout: float | None) -> None:
        self.turns += 1
        if self._at_turn is not None and self.turns >= self._at_turn[0]:
            (_, function), self._at_turn = self._at_turn, None
            function()
            timeout = 0.0 if self._ready else timeout
        if timeout is None:
            raise NothingWillHappenError("all tasks wait, and there is no timer")
        self._turns = 0 if timeout else self._turns + 1
        if self._turns > _TURNS and self._scheduled:
            timeout, self._turns = max(0.0, self._scheduled[0].when() - self._now), 0
        self._now += timeout

    def _write_to_self(self) -> None:
        """Does nothing: all calls come from this thread, so the loop never sleeps."""

    def timers(self) -> list[asyncio.TimerHandle]:
        """The timers that were neither called nor cancelled."""
        return [handle for handle in self._scheduled if not handle.cancelled()]


@functools.cache
def _number_scopes() -> None:
    """Have anyio's cancel scopes in a virtual loop iterated in a fixed order, too; all others stay as they are."""
    scope: Any = import_module(
        "anyio._backends._asyncio"
    ).CancelScope  # their order in sets decides which is cancelled first
    original, numbers = scope.__init__, dict[int, int]()

    def numbered(self: object, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - whatever a scope takes
        loop = _running_loop()
        if isinstance(loop, VirtualLoop):
            numbers[id(self)] = next(loop.numbers)
        else:
            numbers.pop(id(self), None)
        original(self, *args, **kwargs)

    scope.__init__ = numbered
    scope.__hash__ = lambda self: numbers.get(id(self)) or object.__hash__(self)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
