"""An upload that is given up: it ends, and leaves nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc

from ..conftest import PATIENCE_S
from .rounds import nothing_published


@pytest.mark.parametrize("kind", ["array", "npy", "csv", "blocks", "samples"])
async def test_cancelled_between_chunks(kind: str, tmp_path: Path) -> None:
    """Nothing is closed while a thread still works on it."""
    rows = np.arange(40_000.0).reshape(10_000, 4)
    np.save(tmp_path / "t.npy", rows)
    (tmp_path / "t.csv").write_text("x\n" + "".join(f"{i}\n" for i in range(10_000)), encoding="utf-8")
    source: Any = {"array": rows, "npy": tmp_path / "t.npy", "csv": tmp_path / "t.csv"}.get(kind, iter(rows))
    seen = []

    def progress(samples: int, _: int) -> None:
        seen.append(samples)
        if len(seen) == 3:
            task.cancel()

    task = asyncio.create_task(
        dnc.upload(source, batch_size=100, samples=kind == "samples", store=tmp_path / "store", progress=progress)
    )
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(seen) == 3
    assert nothing_published(tmp_path)


async def test_a_source_that_never_goes_on(tmp_path: Path) -> None:
    """A generator that waits for ever does not hold the upload, which was told to end."""
    waits, end = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def blocks() -> Iterator[np.ndarray]:
        yield np.arange(3)
        loop.call_soon_threadsafe(waits.set)
        end.wait()

    task = asyncio.create_task(dnc.upload(blocks(), batch_size=10, store=tmp_path / "store"))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE_S)
    end.set()
    assert nothing_published(tmp_path)


INTERRUPTED = """
import os, signal, sys
import numpy as np
from dnc_async import sync

def blocks():
    for i in range(10**9):
        if i == 10:
            os.kill(os.getpid(), signal.SIGINT)
        yield np.arange(1000)

try:
    sync.upload(blocks(), batch_size=100, store=sys.argv[1])
except KeyboardInterrupt:
    print("interrupted")
"""


def test_interrupting_the_blocking_face(tmp_path: Path) -> None:
    """Ctrl-C ends ``sync.upload``, which works in a thread, as it ends any call."""
    words = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "store")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
    assert nothing_published(tmp_path)
