"""Simulated worker threads: their calls run in the loop's own thread, a moment of virtual time later."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

from .virtual_loop import VirtualLoop

P = ParamSpec("P")
T = TypeVar("T")

#: How long a call waits for its thread, and its result for the loop: usually hardly at all.
_TURNS_S = (0.0, 0.0, 1e-5, 1e-4, 2e-3)


class VirtualWorkers(Executor):
    """``workers`` calls run at once. ``busy_s`` returns how long the last call took, because of the disk."""

    def __init__(self, loop: VirtualLoop, workers: int, *, dice: random.Random, busy_s: Callable[[], float]) -> None:
        self._loop = loop
        self._idle = workers
        self._dice = dice
        self._busy_s = busy_s
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._beginning: dict[asyncio.TimerHandle, Future[Any]] = {}
        self._is_shut_down = False

    def __repr__(self) -> str:
        return f"<VirtualWorkers {self._idle} idle, {len(self._queue)} calls queued>"

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function a moment later."""
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[T] = Future()
        self._queue.append((future, partial(fn, *args, **kwargs)))
        self._begin()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls."""
        self._is_shut_down = True
        if cancel_futures:
            for future, _ in self._queue:
                future.cancel()
        for timer, future in self._beginning.items():
            if future.cancelled():
                timer.cancel()

    def _begin(self) -> None:
        while self._idle and self._queue:
            self._idle -= 1
            self._begin_one(*self._queue.popleft())

    def _begin_one(self, future: Future[Any], call: Callable[[], Any]) -> None:
        timer: asyncio.TimerHandle = self._loop.call_later(
            self._dice.choice(_TURNS_S), lambda: self._run(timer, future, call)
        )
        self._beginning[timer] = future

    def _run(self, timer: asyncio.TimerHandle, future: Future[Any], call: Callable[[], Any]) -> None:
        del self._beginning[timer]
        if not future.set_running_or_notify_cancel():
            self._end(lambda: None)
            return
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - it is the future's, as a real executor does it
            end = partial(future.set_exception, error)
        else:
            end = partial(future.set_result, result)
        self._loop.call_later(self._busy_s() + self._dice.choice(_TURNS_S), self._end, end)

    def _end(self, tell: Callable[[], object]) -> None:
        self._idle += 1
        tell()
        self._begin()
