"""Ray Data: Parquet by URL, ``iter_torch_batches`` with a ``collate_fn``, and a Ray of its own for the run.

``num_cpus=0.25`` for a reading task and ``override_num_blocks`` of as many as there are files are what its performance tips name
for more reads at once, ``prefetch_batches=10`` is what its guide to training shows, and ``preserve_order`` keeps the order, as
others do. The newer reader, on by default, heeds no such number: it packs files into tasks of 128 MiB, and would hand over
nothing of the small dataset before it has all of it; so ``use_datasource_v2`` is off. Starting Ray is part of the wait for the
first batch. Blocks wait in shared memory; they are spilled to disk only when that is full, for which there is no ceiling, so
what it spilled is what counts. Its logs lie elsewhere: the paths of its sockets must be short.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read at import

import numpy as np
import ray
import ray.data
import ray.data.collate_fn
import torch

from bench.peers import arm, parquet


def batches(task: arm.Task) -> Iterator[arm.Buffer]:
    """Collated tensors."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as logs:  # a socket's path has 107 bytes at most
        ray.init(
            include_dashboard=False,
            log_to_driver=False,
            object_spilling_directory=f"{task.folder}/spilled",
            _temp_dir=logs,
        )
        try:
            for batch in _dataset(task).iter_torch_batches(
                batch_size=task.shape.batch_samples, prefetch_batches=10, collate_fn=_Collate()
            ):
                yield batch.numpy()
        finally:
            ray.shutdown()


def _dataset(task: arm.Task) -> ray.data.Dataset:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.use_datasource_v2 = False
    return ray.data.read_parquet(task.urls, num_cpus=0.25, override_num_blocks=len(task.urls))


class _Collate(ray.data.collate_fn.NumpyBatchCollateFn):  # type: ignore[misc, unused-ignore] # untyped where it is not installed
    def __call__(self, batch: dict[str, Any]) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.frombuffer(each, np.uint8) for each in batch["x"]]))


if __name__ == "__main__":
    arm.main(batches, parquet.write)
