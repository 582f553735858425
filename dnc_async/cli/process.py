"""The command as a process among others: the signals that end it, its standard streams, and the library's warnings."""

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

    Gives what tells the exit status of a command that was interrupted: 128 and the signal's number. A signal that whoever
    started us has us ignore (``nohup``) stays ignored.
    """
    received: list[int] = []
    heeded = 0.0

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal heeded
        now = time.monotonic()
        # A terminal that goes away tells its processes twice: the first one is being heeded. Later it may have been lost in a
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
    """Have Ctrl-C break off a blocking call at once, also in an event loop, which else first waits for its end."""
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
    """Open on the null device what whoever started us has closed.

    Its number would else be that of the next file or socket, and Python has no ``sys.stdout`` then.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - it stays open


@contextlib.contextmanager
def stdout_errors() -> Iterator[None]:
    """Raise an :class:`~dnc_async.errors.OutputError` where standard output takes no more, other than by being closed."""
    try:
        yield
    except BrokenPipeError:  # its reader has seen enough
        give_up_stdout()
        raise
    except OSError as error:
        give_up_stdout()
        raise OutputError(f"standard output: {error.strerror or error}; the result was not written whole") from error


def give_up_stdout() -> None:
    """Let what was not written go nowhere, else the interpreter tries once more when it exits."""
    _give_up(sys.stdout)


def give_up_full_stderr() -> None:
    """The same for standard error, where it takes no more: the interpreter's exit status would be 120, whatever was done."""
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
    """Shows the library's warnings as the command's own, a line each."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """From any thread."""
        self._say(f"dnc: {record.getMessage()}")


@contextlib.contextmanager
def warnings_shown(say: Callable[[str], None]) -> Iterator[None]:
    """Show what the library warns of."""
    lines = _Lines(say)
    logging.getLogger(_LOGGER).addHandler(lines)
    try:
        yield
    finally:
        logging.getLogger(_LOGGER).removeHandler(lines)
