"""The engine of a simulation: the real one, with its tasks in the consumer's own event loop instead of a thread's."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from typing import Any

from dnc_async.engine.bridge import LoopThread, Setup
from dnc_async.engine.wakeup import Wakeup

from .virtual_loop import VirtualLoop

#: How long it takes until the engine is told what its consumer did.
_HEARS_S = (0.0, 0.0, 1e-5, 1e-4, 3e-3)
_APART_S = 1e-8


class SameLoop(LoopThread):
    """Has the interface of a thread with its own event loop, without the thread."""

    def __init__(self, setup: Setup, *, loop: VirtualLoop, dice: random.Random) -> None:
        super().__init__(setup)
        self._virtual_loop = loop
        self._early: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._running: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self.wakeup = _LateWakeup(self.post, loop, dice)

    def __repr__(self) -> str:
        return f"<SameLoop {'running' if self._running is not None and not self.ended.done() else 'at rest'}>"

    def start(self) -> None:
        """Start the engine's tasks."""
        self._running = self._virtual_loop.create_task(self._run_here(), name="engine")

    def post(self, function: Callable[..., object], *args: Any) -> bool:  # noqa: ANN401
        """Have the engine call a function, in order; returns ``False`` if it has ended."""
        if self._running is None or self.ended.done():
            return False
        self._early.append((function, args))
        self._virtual_loop.call_soon(self._pass_on)
        return True

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function after a delay, if the engine still runs then."""
        self.post(lambda: self._timers.append(self._virtual_loop.call_later(seconds, function)))

    def join(self) -> None:
        """Does nothing, because there is no thread."""

    def _pass_on(self) -> None:
        if self._calls is not None:
            for function, args in self._early:
                self._calls.put(function, *args)
            self._early.clear()

    async def _run_here(self) -> None:
        self._virtual_loop.call_soon(self._pass_on)
        try:
            await self._main()
        finally:
            for timer in self._timers:  # the timers of a thread's loop end with it
                timer.cancel()
            self.wakeup.end()
            for result in list(self._unanswered):
                with contextlib.suppress(InvalidStateError):
                    result.set_exception(self.reason())
            self.ended.set_result(None)


class _LateWakeup(Wakeup):
    """Passes calls on a moment later, in order."""

    def __init__(self, post: Callable[..., object], loop: VirtualLoop, dice: random.Random) -> None:
        super().__init__(post)
        self._virtual_loop = loop
        self._engine_post = post
        self._dice = dice
        self._last_s = 0.0
        self._calls_to_come: deque[asyncio.TimerHandle] = deque()

    def call_soon(self, call: Callable[[], None], *, at_once: bool = False) -> None:
        """Have the engine call a function."""
        heard_s = self._virtual_loop.time() + self._dice.choice(_HEARS_S)
        self._last_s = max(self._last_s + _APART_S, heard_s)  # timers with the same time have no fixed order
        self._calls_to_come.append(self._virtual_loop.call_at(self._last_s, self._pass_on, call))

    def end(self) -> None:
        """The engine has ended, and cannot be told anything."""
        for handle in self._calls_to_come:
            handle.cancel()

    def _pass_on(self, call: Callable[[], None]) -> None:
        self._calls_to_come.popleft()
        self._engine_post(call)
