"""A small published dataset, and what must be gone when a stream was left."""

import asyncio
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc

SAMPLES, BATCH = 2_000, 100


@dataclass(frozen=True)
class Published:
    """A dataset in a store: its rows, its result, and where it is."""

    x: Any
    y: Any
    result: dnc.UploadResult
    store: Path
    spool: Path

    def check(self, batch: dict[str, Any], index: int) -> None:
        """The batch at an index has the right rows."""
        rows = slice(index * BATCH, (index + 1) * BATCH)
        assert (batch["x"] == self.x[rows]).all()
        assert (batch["y"] == self.y[rows]).all()


@pytest.fixture
def published(tmp_path: Path) -> Published:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(SAMPLES, 30)).astype("f4"), np.arange(SAMPLES)
    upload = dnc.upload({"x": x, "y": y}, batch_size=BATCH, store=tmp_path / "store")
    result = asyncio.run(upload)
    return Published(x, y, result, tmp_path / "store", tmp_path / "spool")


def left(spool: Path) -> list[str]:
    """Threads and files of the engine, after at most five seconds' grace for a close that was only posted."""
    deadline = time.monotonic() + 5
    while True:
        threads = [t.name for t in threading.enumerate() if t.name.startswith("dnc_async")]
        found = threads + [f"{place}/{name}" for place, _, names in os.walk(spool) for name in names]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.005)
