"""A small dataset that was published and streamed, whose files and report fuzzing starts from."""

from __future__ import annotations

import asyncio
import functools
import json
import tempfile
from pathlib import Path

import numpy as np

import dnc_async as dnc


@functools.cache
def published() -> tuple[bytes, bytes]:
    """Its manifest, and the report of a run over it as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_run(Path(folder)))


async def _run(folder: Path) -> tuple[bytes, bytes]:
    rows = {"x": np.arange(64.0), "t": [str(i) for i in range(64)]}
    done = await dnc.upload(rows, batch_size=16, store=folder / "store")
    async with dnc.stream(done, store=folder / "store", spool_dir=folder / "spool") as batches:
        assert len([batch async for batch in batches]) == 4
        report = batches.report().to_dict()
    for gateway in report["gateways"]:
        gateway |= {
            "rate": 1e6,
            "latency_s": 0.05,
        }  # of a local store they are not measured, and nothing is modelled then
    return await dnc.cat(f"{done}/manifest", store=folder / "store"), json.dumps(report).encode()
