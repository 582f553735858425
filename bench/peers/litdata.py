"""LitData: ``StreamingDataset`` and ``StreamingDataLoader``, as its README shows them.

It has no plain HTTP, so it gets a downloader by ``register_downloader``. Without a ceiling ``max_pre_download`` is 8, which
its documentation suggests for remote storage; under one it keeps its default of 2, because more could not fit.
``LITDATA_POSIX_FAST=0``: else it deletes nothing, and no ceiling holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

os.environ["LITDATA_POSIX_FAST"] = "0"  # read at import

import litdata
import numpy as np
from filelock import FileLock, Timeout
from litdata.streaming.downloader import Downloader, register_downloader
from litdata.streaming.resolver import Dir

from bench.peers import arm, http_get


class HttpDownloader(Downloader):  # type: ignore[misc, unused-ignore] # untyped where it is not installed
    """The locking is that of its own downloaders."""

    def download_file(self, remote_filepath: str, local_filepath: str) -> None:
        """Fetch one chunk, unless somebody else does."""
        wait_s = 1 if remote_filepath.endswith("index.json") else 0
        with suppress(Timeout, FileNotFoundError), FileLock(f"{local_filepath}.lock", timeout=wait_s):
            if not Path(local_filepath).exists():
                http_get.download(remote_filepath, local_filepath)


def write(shape: arm.Shape, folder: str) -> None:
    """Its own format, by its own writer."""
    litdata.optimize(
        fn=partial(_sample, shape),
        inputs=list(range(shape.samples)),
        output_dir=folder,
        chunk_size=shape.shard_samples,
        num_workers=1,
    )


def _sample(shape: arm.Shape, number: int) -> dict[str, Any]:
    return {"x": np.frombuffer(shape.sample(number), np.uint8)}


def batches(task: arm.Task) -> Iterator[arm.Buffer]:
    """Collated tensors."""
    register_downloader("http://", HttpDownloader)
    dataset = litdata.StreamingDataset(
        Dir(path=f"{task.folder}/cache", url=task.url),
        max_cache_size=task.ceiling_bytes,
        max_pre_download=8 if task.ceiling_bytes is None else 2,
        shuffle=False,
    )
    loader = litdata.StreamingDataLoader(dataset, batch_size=task.shape.batch_samples, num_workers=task.workers)
    for batch in loader:
        yield batch["x"].numpy()


if __name__ == "__main__":
    arm.main(batches, write)
