"""LanceDB: its ``StreamingDataset`` with PyTorch's ``DataLoader``, over S3, since it knows no ``http://``.

The web server is an S3 with neither signatures nor writing: plain GETs, and a listing (:mod:`bench.peers.bucket`). Reads of 64
rows, four at once for each split, are its defaults. Without workers is what its documentation says to start with; with them
it wants ``forkserver`` and as many splits. It caches nothing on disk, so a ceiling changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import torch
from lancedb.streaming import StreamingDataset
from torch.utils.data import DataLoader

from bench.peers import arm

_TABLE = "samples"


def write(shape: arm.Shape, folder: str) -> None:
    """A table of fixed-size lists, as it keeps vectors, with a fragment for each shard."""
    import lance  # noqa: PLC0415 - for writing only: who reads is spared its import

    schema = pa.schema({"x": pa.list_(pa.uint8(), shape.sample_bytes)})

    def shards() -> Iterator[pa.RecordBatch]:
        for shard in range(shape.shards):
            data = pa.array(np.frombuffer(b"".join(shape.shard(shard)), np.uint8))
            yield pa.record_batch([pa.FixedSizeListArray.from_arrays(data, shape.sample_bytes)], schema=schema)

    rows = pa.RecordBatchReader.from_batches(schema, shards())
    lance.write_dataset(rows, f"{folder}/{_TABLE}.lance", max_rows_per_file=shape.shard_samples)


def batches(task: arm.Task) -> Iterator[arm.Buffer]:
    """Collated tensors."""
    endpoint, _, bucket = task.url.rpartition("/")
    options = {
        "aws_endpoint": endpoint,
        "allow_http": "true",
        "aws_skip_signature": "true",
        "aws_region": "us-east-1",  # it must have one
    }
    table = lancedb.connect(f"s3://{bucket}", storage_options=options).open_table(_TABLE)
    dataset = StreamingDataset(table, num_splits=max(1, task.workers), shuffle=False, transform=_rows)
    for batch in DataLoader(
        dataset,
        batch_size=task.shape.batch_samples,
        num_workers=task.workers,
        collate_fn=_collate,
        multiprocessing_context="forkserver" if task.workers else None,
    ):
        yield batch.numpy()


def _rows(batch: pa.RecordBatch) -> Sequence[Any]:
    column = batch.column(0)
    return column.flatten().to_numpy().reshape(len(column), -1)  # type: ignore[no-any-return, unused-ignore] # untyped


def _collate(rows: Sequence[Any]) -> torch.Tensor:
    return torch.from_numpy(np.stack(rows))


if __name__ == "__main__":
    arm.main(batches, write)
