"""An event loop on a virtual clock: when nothing is to be done, it is at once the time of the next timer.

It has no sockets and no threads, so the order in which things happen depends on nothing but the program.
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

#: Where the clock begins: not at 0, which is easily taken for "no time yet".
START_S = 1000.0
#: So many turns of the loop in which no time passes are enough for all that can be done at once.
_TURNS = 200


class NothingWillHappenError(Exception):
    """All tasks wait, and there is no timer: what they wait for will never come."""


class _NoSelector(selectors.BaseSelector):
    """Watches nothing but the clock."""

    def __init__(self, advance: Callable[[float | None], None]) -> None:
        self._advance = advance

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:  # noqa: ANN401
        """Accept the loop's own wake-up socket, which is never used."""
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:  # noqa: ANN401
        """Let go of it."""
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Pass the time that the loop would sleep."""
        self._advance(timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Nothing is registered."""
        return {}


class _NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its number, so that sets of tasks are gone through in the same order each time."""

    def __init__(self, coroutine: Any, *, loop: VirtualLoop, **options: Any) -> None:  # noqa: ANN401 - as asyncio.Task
        self._number = next(loop.numbers)
        super().__init__(coroutine, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` moves only when nothing else is to be done. Raises :class:`NothingWillHappenError` from ``run_*``.

    anyio calls itself again and again while a cancelled task cleans up (in a shielded scope): turns like these, in which nothing
    comes to its end, pass the time until the next timer.
    """

    # What asyncio tells in no other way: its heap of timers, and what is to be called next.
    _scheduled: list[asyncio.TimerHandle]
    _ready: deque[asyncio.Handle]

    def __init__(self, start_s: float = START_S) -> None:
        self._now = start_s
        self._turns = 0
        #: How often the loop has looked for something to do.
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
        """Have a function called at that turn of the loop, between two steps of its tasks."""
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
        """Nobody sleeps who would have to be woken: all calls come from this thread."""

    def timers(self) -> list[asyncio.TimerHandle]:
        """The timers that were neither called nor cancelled."""
        return [handle for handle in self._scheduled if not handle.cancelled()]


@functools.cache
def _number_scopes() -> None:
    """Have anyio's cancel scopes that are made in a virtual loop gone through in order, too; all others stay as they are."""
    scope: Any = import_module("anyio._backends._asyncio").CancelScope  # sets of them decide who is cancelled first
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
