"""Measures a folder's size from outside, as ``du`` does, while something else writes to it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from dnc_async.system import tree_disk_bytes


@contextlib.contextmanager
def watched_disk(folder: Path, every_s: float) -> Iterator[Callable[[], int]]:
    """Measure again and again; yields a function that returns the most bytes on disk so far."""
    stop, peak = threading.Event(), [0]

    def look() -> None:
        while not stop.wait(every_s):
            peak[0] = max(peak[0], tree_disk_bytes(folder))

    thread = threading.Thread(target=look, name="dnc disk watch")
    thread.start()
    try:
        yield lambda: peak[0]
    finally:
        stop.set()
        thread.join()
