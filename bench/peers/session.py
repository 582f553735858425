"""All processes of one session: what they cost, looked at from outside, and their end.

A parent is told the CPU time of those whose parents waited for them, which nobody does for the workers of a fork server or of
Ray. They do stay in the session that a loader's process began. Elsewhere than on Linux nobody is found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_LOOK_S = 0.5
_SESSION, _USER, _SYSTEM = 3, 11, 12  # fields of /proc/PID/stat, counted from behind the name


def processes(session: int) -> dict[int, float]:
    """Those that there are now, and the CPU seconds of each without its children's."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            words = stat.read_text().rpartition(")")[2].split()
            if int(words[_SESSION]) == session:
                ticks = int(words[_USER]) + int(words[_SYSTEM])
                found[int(stat.parent.name)] = ticks / os.sysconf("SC_CLK_TCK")
    return found


@contextlib.contextmanager
def watched(session: int) -> Iterator[Callable[[], float]]:
    """Look at it every so often for as long as the block lasts; tells the CPU seconds of all who were seen."""
    stop, seen = threading.Event(), processes(session)

    def look() -> None:
        while not stop.wait(_LOOK_S):
            seen.update(processes(session))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: sum(seen.values())
    finally:
        stop.set()
        thread.join()


def kill(session: int, *, patience_s: float = 0.0) -> None:
    """End whoever is left of it, once those who are about to end have had their time: some tidy up behind the others."""
    patient_until = time.monotonic() + patience_s
    while (left := processes(session)) and time.monotonic() < patient_until:
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
