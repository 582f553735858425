"""Runs blocking code in worker threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import ParamSpec, TypeVar

import anyio

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_worker(executor: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function in a worker thread. A cancelled caller waits for it to end, because it may use a file."""
    loop = asyncio.get_running_loop()
    given, result = [partial(function, *args, **kwargs)], list[T]()

    def run() -> None:
        # An idle thread keeps references to its last call and result. Those may own a batch's memory, so it gets neither.
        result.append(given.pop()())

    running = loop.run_in_executor(executor, run)
    with anyio.CancelScope(shield=True):
        await running
    return result.pop()
