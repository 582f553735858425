"""Parquet files, which Hugging Face datasets and Ray Data both read: one for each shard."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from bench.peers import arm


def write(shape: arm.Shape, folder: str) -> None:
    """A Parquet file of one row group for each shard, uncompressed, since the bytes are random."""
    for shard in range(shape.shards):
        table = pa.table({"x": pa.array(list(shape.shard(shard)), pa.binary())})
        path = Path(folder) / f"{shard:06}.parquet"
        pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False)
