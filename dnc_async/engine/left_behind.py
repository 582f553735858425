"""Streams that nothing holds any more but the traceback of an error that ended an interactive command.

A notebook, and Python's prompt, keep the last error with all its frames. A stream in a local variable of one of them is never
dropped, although no code can reach it: interrupting ``for batch in batches: train(batch)`` within a function, in the middle of
``train``, would leave it running. So such streams are suspended (:mod:`~dnc_async.engine.handle`) when a cell of IPython has
ended with an error, and elsewhere when the next stream is opened. Variables of the notebook itself can be reached: they stay
as they are.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from types import FrameType
from typing import Any

from dnc_async.engine.handle import StreamHandle

_handles: weakref.WeakKeyDictionary[object, StreamHandle] = weakref.WeakKeyDictionary()
_watched: weakref.WeakSet[Any] = weakref.WeakSet()


def held_by(owner: object, handle: StreamHandle) -> None:
    """An iterator holds a stream (called when it is made)."""
    _handles[owner] = handle


def look() -> None:
    """A stream is opened: suspend those that the last error left behind, and have IPython tell of the next ones."""
    suspend_all_of(getattr(sys, "last_value", None))
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and shell not in _watched:
        _watched.add(shell)
        shell.events.register("post_run_cell", _after_cell)


def _after_cell(result: Any) -> None:  # noqa: ANN401 - IPython's ExecutionResult
    suspend_all_of(getattr(result, "error_in_exec", None))


def suspend_all_of(error: object) -> None:
    """Suspend the streams that are local variables of an error's frames, and for whose batches nobody waits."""
    if not isinstance(error, BaseException):
        return
    for frame in _frames(error):
        if frame.f_locals is not frame.f_globals:
            for value in list(frame.f_locals.values()):
                handle = _handle_of(value)
                if handle is not None and not handle.is_awaited:
                    handle.suspend()


def _frames(error: BaseException) -> Iterator[FrameType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _handle_of(value: object) -> StreamHandle | None:
    try:
        return _handles.get(value)
    except TypeError:  # it cannot be hashed, or referred to weakly
        return None
