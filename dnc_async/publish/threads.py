"""Runs a function in a worker thread, and waits for its end even if the caller is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

import anyio
import anyio.to_thread

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


async def in_thread(function: Callable[[Unpack[Arguments]], T], *arguments: *Arguments) -> T:
    """Call a function that blocks for a moment in a worker thread.

    A cancellation takes effect when the function has returned, so that what it works on is not closed meanwhile.
    """
    call = asyncio.create_task(anyio.to_thread.run_sync(function, *arguments))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            while not call.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([call])
        if not call.cancelled():
            call.exception()  # the cancellation takes precedence
        raise
