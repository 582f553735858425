"""WebDataset: tar files straight from HTTP, batched in the worker, and a ``WebLoader`` without a batch size of its own.

That is its documentation's pipeline. It stages nothing on disk by default, so a ceiling changes nothing.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from bench.peers import arm


def write(shape: arm.Shape, folder: str) -> None:
    """Tar files of one ``.bin`` for each sample."""
    for shard in range(shape.shards):
        with tarfile.open(Path(folder) / f"{shard:06}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, data in enumerate(shape.shard(shard)):
                entry = tarfile.TarInfo(f"{shard * shape.shard_samples + number:08}.bin")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def batches(task: arm.Task) -> Iterator[arm.Buffer]:
    """Stacked arrays, as tensors where a worker made them."""
    dataset = (
        webdataset.WebDataset(task.urls, shardshuffle=False, empty_check=False)
        .map(_decode)
        .to_tuple("x")
        .batched(task.shape.batch_samples)
    )
    for (batch,) in webdataset.WebLoader(dataset, batch_size=None, num_workers=task.workers):
        yield np.asarray(batch)


def _decode(sample: dict[str, Any]) -> dict[str, Any]:
    return {"x": np.frombuffer(sample["bin"], np.uint8)}


if __name__ == "__main__":
    arm.main(batches, write)
