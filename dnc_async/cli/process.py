"""The command as a process: the signals that end it, its standard streams, and the library's warnings."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TextIO

from dnc_async.errors import OutputError

_LOGGER = "dnc_async"
_TWICE_S = 2.0


@contextlib.contextmanager
def ended_by_signals() -> Iterator[Callable[[], int]]:
    """Have SIGTERM and SIGHUP end the command as Ctrl-C does, so that nothing is left behind.

    Yields a function that returns the exit status of an interrupted command: 128 and the signal's number. A signal that the
    parent process had set to be ignored (``nohup``) stays ignored.
    """
    received: list[int] = []
    heeded = 0.0

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal heeded
        now = time.monotonic()
        # A terminal that closes signals its processes twice: ignore the second. A later signal may have been lost in a
        # callback whose exceptions the interpreter ignores.
        if received and now - heeded < _TWICE_S:
            return
        heeded = now
        received.append(number)
        interrupt = signal.getsignal(signal.SIGINT)  # the interpreter's own, or what asyncio put in its place
        if not callable(interrupt):
            raise KeyboardInterrupt
        interrupt(signal.SIGINT, frame)

    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
                if signal.getsignal(number) is signal.SIG_DFL:
                    stack.callback(signal.signal, number, signal.signal(number, end))
        yield lambda: 128 + (received[0] if received else signal.SIGINT)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Have Ctrl-C interrupt a blocking call at once, even in an event loop, which otherwise waits for the call to end."""
    if (
        threading.current_thread() is not threading.main_thread()
        or (before := signal.getsignal(signal.SIGINT)) in (None, signal.SIG_IGN, signal.SIG_DFL)
        or before is signal.default_int_handler
    ):
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def open_standard_streams() -> None:
    """Open those standard streams on the null device that the parent process has closed.

    Otherwise the next file or socket would get their number, and Python would have no ``sys.stdout``.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # opens the lowest free number, which is this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - it stays open


@contextlib.contextmanager
def stdout_errors() -> Iterator[None]:
    """Convert errors of standard output, except a closed pipe, to :class:`~dnc_async.errors.OutputError`."""
    try:
        yield
    except BrokenPipeError:  # the reader has closed the pipe
        give_up_stdout()
        raise
    except OSError as error:
        give_up_stdout()
        raise OutputError(f"standard output: {error.strerror or error}; the result was not written whole") from error


def give_up_stdout() -> None:
    """Discard what was not written, else the interpreter would try again when it exits."""
    _give_up(sys.stdout)


def give_up_full_stderr() -> None:
    """The same for a standard error that is full: otherwise the interpreter's exit status would be 120."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        _give_up(sys.stderr)


def _give_up(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, stream.fileno())
        finally:
            os.close(null)


class _Lines(logging.Handler):
    """Prints the library's warnings as the command's own, a line each."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Called from any thread."""
        self._say(f"dnc: {record.getMessage()}")


@contextlib.contextmanager
def warnings_shown(say: Callable[[str], None]) -> Iterator[None]:
    """Print the library's warnings."""
    lines = _Lines(say)
    logging.getLogger(_LOGGER).addHandler(lines)
    try:
        yield
    finally:
        logging.getLogger(_LOGGER).removeHandler(lines)
