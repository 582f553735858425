"""Suspends streams that a notebook's cell leaves by an error.

IPython keeps the error with the frames of all functions that it passed through, and so every stream in their variables. Neither
a finalizer nor a task tells then that the loop has ended, but IPython does: a stream that a cell asked for batches is suspended
when that cell has failed. A stream that a background task or another thread consumes is left alone.
"""

from __future__ import annotations

import sys
import threading
import weakref
from typing import Any, Protocol


class Stream(Protocol):
    """A stream that a cell asks for batches."""

    @property
    def is_consumed(self) -> bool:
        """Whether a running task consumes it."""

    def suspend(self) -> None:
        """Free everything except its position."""


_asked: weakref.WeakKeyDictionary[Stream, int] = weakref.WeakKeyDictionary()
_shells: weakref.WeakSet[Any] = weakref.WeakSet()


def asks(stream: Stream) -> None:
    """Note that the current cell asks this stream for a batch; does nothing outside of IPython."""
    ipython = sys.modules.get("IPython")
    shell = getattr(ipython, "get_ipython", _none)()
    if shell is None:
        return
    if shell not in _shells:
        _shells.add(shell)
        shell.events.register("post_run_cell", _ran)
    _asked[stream] = threading.get_ident()


def _ran(result: Any) -> None:  # noqa: ANN401 - IPython's ExecutionResult, or None where the cell was cancelled
    thread = threading.get_ident()
    streams = [stream for stream, its_thread in list(_asked.items()) if its_thread == thread]
    for stream in streams:
        _asked.pop(stream, None)
        if (result is None or not result.success) and not stream.is_consumed:
            stream.suspend()


def _none() -> None:
    """There is no shell."""
