"""MosaicML Streaming: ``StreamingDataset`` with PyTorch's ``DataLoader``, whose ``batch_size`` both are told.

It has no plain HTTP, so it gets a ``CloudDownloader`` of ours. ``predownload`` is its default (8 batches),
``num_canonical_nodes=1`` keeps the order of one node, and ``validate_hash``, off by default, is on where damage is the point.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from streaming import MDSWriter, StreamingDataset
from streaming.base.storage.download import DOWNLOADER_MAPPINGS, CloudDownloader
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader

from bench.peers import arm, http_get

_HASH = "sha1"


class HttpDownloader(CloudDownloader):  # type: ignore[misc, unused-ignore] # untyped where it is not installed
    """Plain HTTP."""

    @staticmethod
    def _client_identifier() -> str:
        return "http"

    def clean_up(self) -> None:
        """Connections are kept for the process."""

    def _download_file_impl(self, remote: str, local: str, timeout: float) -> None:  # noqa: ARG002, RUF100 - its protocol
        http_get.download(remote, local)


def write(shape: arm.Shape, folder: str) -> None:
    """Its own format, by its own writer."""
    columns = {"x": f"ndarray:uint8:{shape.sample_bytes}"}
    overhead = 8 + 16  # of a sample and of a shard, in which the writer counts
    limit = shape.shard_samples * (shape.sample_bytes + overhead)
    with MDSWriter(out=folder, columns=columns, hashes=[_HASH], size_limit=limit) as sink:
        for number in range(shape.samples):
            sink.write({"x": np.frombuffer(shape.sample(number), np.uint8)})


def batches(task: arm.Task) -> Iterator[arm.Buffer]:
    """Collated tensors."""
    DOWNLOADER_MAPPINGS["http"] = HttpDownloader
    clean_stale_shared_memory()  # of a run that was killed
    dataset = StreamingDataset(
        remote=task.url,
        local=f"{task.folder}/cache",
        batch_size=task.shape.batch_samples,
        cache_limit=task.ceiling_bytes,
        validate_hash=_HASH if task.verify else None,
        num_canonical_nodes=1,
        shuffle=False,
    )
    for batch in DataLoader(dataset, batch_size=task.shape.batch_samples, num_workers=task.workers):
        yield batch["x"].numpy()


if __name__ == "__main__":
    arm.main(batches, write)
