"""ipfsspec: files by CID from a gateway, into memory. It has no prefetch of its own, so this keeps a window of files.

Its ``cat`` takes the gateway's word. It stages nothing on disk, so a ceiling changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import fsspec

from bench.peers import arm

_WINDOW = 4


def batches(task: arm.Task) -> Iterator[arm.Buffer]:
    """Slices of the files."""
    files = fsspec.filesystem("ipfs", gateway_addr=task.url)
    left = iter(task.files)
    size = task.shape.batch_bytes
    with ThreadPoolExecutor(_WINDOW) as pool:
        window: deque[Future[bytes]] = deque()
        while True:
            while len(window) < _WINDOW and (name := next(left, None)) is not None:
                window.append(pool.submit(files.cat_file, name.removeprefix("ipfs/")))
            if not window:
                return
            data = memoryview(window.popleft().result())
            for start in range(0, len(data), size):
                yield data[start : start + size]


if __name__ == "__main__":
    arm.main(batches)
