"""The dataset as a UnixFS directory, built as a stream of blocks: leaves first, the root last.

Memory is bounded by the batch: besides the rows of half a batch, only what one page of the manifest and one directory of
each level list is held. The same rows give the same root, byte for byte, on any machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol

import anyio.to_thread

from dnc_async.config import whole_number
from dnc_async.dataset import chunk as chunk_format
from dnc_async.dataset.manifest import (
    CHUNKS_ON_FIRST_PAGE,
    CHUNKS_PER_PAGE,
    ENTRIES_PER_DIRECTORY,
    MAX_CHUNK_BYTES,
    Manifest,
    halves,
)
from dnc_async.dataset.page import (
    CHUNKS_PER_DIRECTORY,
    MAX_LISTED_LEAVES,
    ChunkDirectory,
    ChunkRow,
    encode_page,
)
from dnc_async.dataset.schema import Columns, Schema
from dnc_async.errors import DatasetError
from dnc_async.ipld.block import Block
from dnc_async.ipld.builder import UNIXFS_V1_2025, Root, build_directory, build_file
from dnc_async.publish.rows import RowStream

_LEAVES_PER_CHUNK = 8
_USEFUL_LEAF_BYTES, _MAX_LEAF_BYTES = 192 * 2**10, 2**20
_LEAF_STEP_BYTES = 2**12
_PROBE_ROWS = 1024


class BlockSink(Protocol):
    """Where blocks go; may block, is called in a worker thread, one call at a time."""

    def put(self, block: Block) -> None:
        """Take a block over."""


def leaf_bytes(chunk_bytes: int) -> int:
    """The size of a chunk's leaves, in bytes: 8 leaves where they have 192 KiB each, else as many of about that size.

    They are of one size, but for what steps of 4 KiB leave to the last, and at most 1 MiB. A block is verified whole, so one
    leaf comes from one gateway: many small ones spread over many gateways. But each is a request, and what that costs both
    machines hardly depends on its size.
    """
    wanted = min(_LEAVES_PER_CHUNK, round(chunk_bytes / _USEFUL_LEAF_BYTES))
    leaves = max(1, wanted, -(-chunk_bytes // _MAX_LEAF_BYTES))
    return -(-chunk_bytes // (leaves * _LEAF_STEP_BYTES)) * _LEAF_STEP_BYTES


async def choose_batch_size(rows: RowStream, schema: Schema, batch_size: int | None, chunk_bytes: int) -> int:
    """The batch size to publish with: the one that was asked for, else two chunks of about ``chunk_bytes`` each."""
    if batch_size is not None:
        return whole_number(batch_size, name="batch_size", least=1, most=2**48, meaning="a whole number of samples")
    probe = await rows.peek(_PROBE_ROWS)
    samples = len(next(iter(probe.values())))
    encoded = len(await anyio.to_thread.run_sync(chunk_format.encode, schema, probe))
    return 2 * max(1, chunk_bytes * samples // encoded)


class Packer:
    """Builds one dataset into a sink. Synchronous: the async loop around it is :func:`pack`."""

    def __init__(self, schema: Schema, batch_size: int, sink: BlockSink) -> None:
        self._schema = schema
        self._batch_size = batch_size
        self._sink = sink
        self._tree = _DirectoryTree(self._keep, ENTRIES_PER_DIRECTORY)
        self._directory: list[Root] = []
        self._rows: list[ChunkRow] = []
        self._page: list[ChunkDirectory] = []
        self._first_page: tuple[ChunkDirectory, ...] | None = None
        self._pages: list[Root] = []
        self._largest = self._size = self._samples = self._chunks = 0

    def add(self, columns: Columns) -> int:
        """Add the next chunk; returns its size in bytes."""
        data = chunk_format.encode(self._schema, columns)
        if len(data) > MAX_CHUNK_BYTES:
            raise DatasetError(
                f"half a batch has {len(data)} bytes, more than {MAX_CHUNK_BYTES}: use a smaller batch_size"
            )
        self._add_file(data)
        self._samples += len(next(iter(columns.values())))
        self._chunks += 1
        self._size += len(data)
        self._largest = max(self._largest, len(data))
        if len(self._directory) == CHUNKS_PER_DIRECTORY:
            self._close_directory()
        return len(data)

    def finish(self) -> tuple[Manifest, Root]:
        """Close the last page and build the manifest and the root directory."""
        self._close_directory()
        self._close_page()
        manifest = Manifest(
            schema=self._schema,
            samples=self._samples,
            batch_size=self._batch_size,
            size_bytes=self._size,
            largest_chunk_bytes=self._largest,
            first_page=self._first_page or (),
            pages=tuple(page.cid for page in self._pages),
        )
        body = manifest.encode()
        pages = _DirectoryTree(self._keep, ENTRIES_PER_DIRECTORY)
        for page in self._pages:
            pages.add(page)
        entries = [
            ("chunks", self._tree.finish()),
            ("manifest", self._file(body, _MAX_LEAF_BYTES)),
            ("pages", pages.finish()),
        ]
        return manifest, self._keep(*build_directory(entries, UNIXFS_V1_2025))

    def _add_file(self, data: bytearray) -> None:
        size = leaf_bytes(len(data))
        blocks, root = build_file(data, dataclasses.replace(UNIXFS_V1_2025, leaf_bytes=size))
        self._directory.append(self._keep(blocks, root))
        row = ChunkRow(root.cid, len(data))
        if 1 < -(-len(data) // size) <= MAX_LISTED_LEAVES:  # the root over them is the last block
            row = row._replace(leaf_bytes=size, digests=b"".join(block.cid.multihash[2:] for block in blocks[:-1]))
        self._rows.append(row)

    def _file(self, data: bytes | bytearray, size: int) -> Root:
        return self._keep(*build_file(data, dataclasses.replace(UNIXFS_V1_2025, leaf_bytes=size)))

    def _keep(self, blocks: Sequence[Block], root: Root) -> Root:
        for block in blocks:
            self._sink.put(block)
        return root

    def _close_directory(self) -> None:
        if not self._directory:
            return
        root = self._keep(*build_directory(_numbered(self._directory), UNIXFS_V1_2025))
        self._tree.add(root)
        self._page.append(ChunkDirectory(root.cid, tuple(self._rows)))
        self._directory, self._rows = [], []
        limit = CHUNKS_ON_FIRST_PAGE if self._first_page is None else CHUNKS_PER_PAGE
        if len(self._page) * CHUNKS_PER_DIRECTORY == limit:
            self._close_page()

    def _close_page(self) -> None:
        if not self._page:
            return
        if self._first_page is None:
            self._first_page = tuple(self._page)
        else:
            self._pages.append(self._file(encode_page(tuple(self._page)), _MAX_LEAF_BYTES))
        self._page = []


class _DirectoryTree:
    """A directory of any number of numbered entries, as a balanced tree of plain directories."""

    def __init__(self, keep: Callable[[Sequence[Block], Root], Root], width: int) -> None:
        self._keep = keep
        self._width = width
        self._levels: list[list[Root]] = [[]]

    def add(self, root: Root, level: int = 0) -> None:
        if level == len(self._levels):
            self._levels.append([])
        if len(self._levels[level]) == self._width:
            self.add(self._close(level), level + 1)
        self._levels[level].append(root)

    def finish(self) -> Root:
        for level in range(len(self._levels) - 1):
            self.add(self._close(level), level + 1)
        return self._close(len(self._levels) - 1)

    def _close(self, level: int) -> Root:
        entries, self._levels[level] = self._levels[level], []
        return self._keep(*build_directory(_numbered(entries), UNIXFS_V1_2025))


def _numbered(roots: Sequence[Root]) -> list[tuple[str, Root]]:
    return [(f"{number:06d}", root) for number, root in enumerate(roots)]


async def pack(
    rows: RowStream, schema: Schema, batch_size: int, sink: BlockSink, progress: Callable[[int, int], None] | None
) -> tuple[Manifest, Root]:
    """Divide all rows into half-batch chunks and build the dataset; ``progress(samples, bytes)`` after each chunk."""
    packer = Packer(schema, batch_size, sink)
    samples = size = 0
    while (batch := await rows.take(batch_size)) is not None:
        start = 0
        for count in halves(len(next(iter(batch.values())))):
            part = {name: array[start : start + count] for name, array in batch.items()}
            size += await anyio.to_thread.run_sync(packer.add, part)
            samples, start = samples + count, start + count
            if progress is not None:
                progress(samples, size)
    return await anyio.to_thread.run_sync(packer.finish)
