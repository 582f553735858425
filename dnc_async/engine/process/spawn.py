"""Starts an engine's process: our own module, with the Python and the search path of this process."""

from __future__ import annotations

import os
import subprocess
import sys

from dnc_async.errors import ArgumentError, EngineError

_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; from dnc_async.engine.process.host import main; main(int(sys.argv[1]))"
)


def check_supported() -> None:
    """Raise :class:`~dnc_async.errors.ArgumentError` if there is no anonymous memory that can be passed to a process."""
    if not (sys.platform == "linux" and hasattr(os, "memfd_create")):
        raise ArgumentError("engine: 'process' works on Linux alone; leave it at 'thread' here")
    if not sys.executable:
        raise ArgumentError("engine: 'process' needs to know which Python to start, and sys.executable is empty")


def spawned(descriptor: int) -> subprocess.Popen[bytes]:
    """Start the process, which communicates over an inherited socket. Raises :class:`~dnc_async.errors.EngineError`."""
    paths = [each for each in sys.path if isinstance(each, (str, bytes, os.PathLike))]  # as import does
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 - as multiprocessing does
    command = [sys.executable, *flags, "-P", "-c", _PROGRAM, str(descriptor), *paths]
    try:
        # In its own process group, so that Ctrl-C reaches only the consumer, which closes its streams in order.
        return subprocess.Popen(  # noqa: S603 - our own module, under our own interpreter
            command, stdin=subprocess.DEVNULL, pass_fds=[descriptor], process_group=0
        )
    except (OSError, ValueError) as error:
        raise EngineError(f"engine='process': {sys.executable} could not be started: {error}") from error
