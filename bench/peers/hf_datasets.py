"""Hugging Face datasets: Parquet by URL with ``streaming=True``, and PyTorch's ``DataLoader``.

``fragment_scan_options`` with a prefetch of one range is what its documentation shows for faster streaming. It stages nothing
on disk, so a ceiling changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import torch
from torch.utils.data import DataLoader

from bench.peers import arm, parquet


def batches(task: arm.Task) -> Iterator[arm.Buffer]:
    """Collated tensors."""
    datasets.disable_progress_bars()
    options = pyarrow.dataset.ParquetFragmentScanOptions(
        cache_options=pa.CacheOptions(prefetch_limit=1, range_size_limit=128 << 20)
    )
    dataset = datasets.load_dataset(
        "parquet", data_files=task.urls, split="train", streaming=True, fragment_scan_options=options
    )
    size, workers = task.shape.batch_samples, task.workers
    for batch in DataLoader(dataset, batch_size=size, num_workers=workers, collate_fn=_collate):
        yield batch.numpy()


def _collate(rows: Sequence[dict[str, Any]]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.frombuffer(row["x"], np.uint8) for row in rows]))


if __name__ == "__main__":
    arm.main(batches, parquet.write)
