"""Datasets for simulations: created by the real ``publish``, kept in memory, the same bytes on every machine."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dnc_async.dataset.manifest import Manifest
from dnc_async.errors import ManifestError
from dnc_async.ipld.block import Block
from dnc_async.ipld.builder import Root
from dnc_async.ipld.cid import Cid
from dnc_async.publish.packing import BlockSink
from dnc_async.publish.target import publish

Array = NDArray[Any]
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetScript:
    """``samples`` of about ``row_bytes`` each. ``kind``: columns of fixed size, or one of ``bytes`` of different sizes."""

    samples: int = 64
    batch_size: int = 8
    row_bytes: int = 1000
    kind: Literal["fixed", "ragged"] = "fixed"

    @property
    def batches(self) -> int:
        """The number of batches in an epoch."""
        return -(-self.samples // self.batch_size)

    @property
    def size_bytes(self) -> int:
        """The approximate size of all samples."""
        return self.samples * (self.row_bytes + 8)


@dataclass(frozen=True, slots=True, eq=False)
class Published:
    """A dataset's root, all its blocks, and its source: ``rows[i]`` is the content of sample i."""

    root: Cid
    blocks: Mapping[Cid, bytes]
    numbers: Array
    rows: Any
    manifest: Manifest

    @property
    def largest_chunk_bytes(self) -> int:
        """The size of the largest chunk, in bytes."""
        return self.manifest.largest_chunk_bytes

    def first_chunk(self) -> tuple[str, bytes]:
        """The first chunk's path below the root, and its bytes."""
        (entry, *_) = self.manifest.entries(0, self.manifest.first_page)
        return self.manifest.chunk_path(0), b"".join(self.blocks[leaf.cid] for leaf in entry.leaves())

    def check(self, batch: dict[str, Any], first: int) -> str:
        """What is wrong with a batch that begins with sample ``first``; empty if it is correct."""
        numbers, rows = batch["y"], batch["x"]
        expected = self.numbers[first : first + len(numbers)]
        if not np.array_equal(numbers, expected):
            return f"the batch holds samples {numbers.tolist()[:8]}, expected {expected.tolist()[:8]}"
        for place, number in enumerate(expected.tolist()):
            if not np.array_equal(np.frombuffer(rows[place], np.uint8), np.frombuffer(self.rows[number], np.uint8)):
                return f"sample {number} has other bytes than were published"
        return ""


class _Memory:
    """A target and sink that keeps blocks in a dict."""

    name = "memory"

    def __init__(self) -> None:
        self.blocks: dict[Cid, bytes] = {}

    def put(self, block: Block) -> None:
        self.blocks[block.cid] = block.data

    async def begin(self) -> BlockSink:
        return self

    async def finish(self, root: Root) -> None:
        """Nothing has to be stored elsewhere."""

    async def aclose(self) -> None:
        """Nothing is open."""


@functools.lru_cache(maxsize=64)
def published(script: DatasetScript) -> Published:
    """Publish a dataset into memory; not inside a running event loop."""
    count = script.samples * script.row_bytes
    noise = (np.arange(1, count + 1, dtype=np.uint64) * _ODD >> np.uint64(40)).astype(np.uint8)
    rows: Any = noise.reshape(script.samples, script.row_bytes)
    if script.kind == "ragged":
        rows = [bytes(row[: 1 + (7 * i) % script.row_bytes]) for i, row in enumerate(rows)]
    numbers = np.arange(script.samples, dtype=np.int64)
    target = _Memory()
    done = asyncio.run(
        publish({"x": rows, "y": numbers}, target, batch_size=script.batch_size, chunk_bytes=None, progress=None)
    )
    return Published(Cid.parse(done.cid), target.blocks, numbers, rows, _manifest(target.blocks))


def _manifest(blocks: Mapping[Cid, bytes]) -> Manifest:
    for data in blocks.values():
        with contextlib.suppress(ManifestError):
            return Manifest.decode(data)
    raise AssertionError  # a dataset has a manifest
