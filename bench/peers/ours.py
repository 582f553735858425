"""dnc_async: the blocking face, every default the library's own.

One indexed CAR file on the web server of all the others is its only gateway. With a mirror the same file is named a second
time, on the same server behind the same bucket: nothing is faster for it, but a late request has somebody else to ask. Over a
gateway of its own kind, with a bucket and latency alike, it can ask for runs of blocks. What verification costs is told by
hashing as many bytes again, in blocks of the size that the dataset has.
"""

from __future__ import annotations

import hashlib
import importlib
import time
from collections.abc import Iterator, Mapping

from bench.peers import arm
from dnc_async import sync
from dnc_async.publish.packing import leaf_bytes

for _module in ("gateways.car_file", "gateways.http"):  # the others' imports are not measured either
    importlib.import_module(f"dnc_async.{_module}")


def batches(task: arm.Task) -> Iterator[arm.Buffer]:
    """Arrays of the consumer's own."""
    budget, spool = task.ceiling_bytes, task.folder
    with sync.stream(task.root, gateways=task.sources, disk_budget=budget, spool_dir=spool) as stream:
        for batch in stream:
            yield batch["x"]


def hashing(task: arm.Task) -> Mapping[str, float]:
    """CPU seconds of hashing the dataset."""
    size = leaf_bytes(task.shape.batch_bytes // 2)
    block = bytes(size)
    began = time.process_time()
    for _ in range(-(-task.shape.batches * task.shape.batch_bytes // size)):
        hashlib.sha256(block).digest()
    return {"hashing_s": time.process_time() - began}


if __name__ == "__main__":
    arm.main(batches, more=hashing)
