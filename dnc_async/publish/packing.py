"""Packs rows into a dataset: a UnixFS directory, built as a stream of blocks, leaves first, the root last.

Memory is bounded by the batch: the rows of half a batch, and the lists of one page of the manifest and one directory per level.
The same rows give the same root, byte for byte, on any machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from dnc_async.config.numbers import whole_number
from dnc_async.dataset import chunk_format
from dnc_async.dataset.limits import MAX_CHUNK_BYTES, MAX_COUNT, MAX_MANIFEST_BYTES
from dnc_async.dataset.manifest import (
    CHUNKS_ON_FIRST_PAGE,
    CHUNKS_PER_PAGE,
    ENTRIES_PER_DIRECTORY,
    Manifest,
    halves,
)
from dnc_async.dataset.page import (
    CHUNKS_PER_DIRECTORY,
    MAX_LISTED_LEAVES,
    ChunkDirectory,
    ChunkRow,
    decode_page,
    encode_page,
)
from dnc_async.dataset.schema import Columns, Schema
from dnc_async.errors import DatasetError, ManifestError
from dnc_async.ipld.block import Block
from dnc_async.ipld.builder import UNIXFS_V1_2025, FileBuilder, Root, build_directory, build_file
from dnc_async.publish.rows import RowStream, count_rows, first_rows
from dnc_async.publish.threads import in_thread

_END = object()
_LEAVES_PER_CHUNK = 8
_USEFUL_LEAF_BYTES, _MAX_LEAF_BYTES = 192 * 2**10, 2**20
_LEAF_STEP_BYTES = 2**12
_PROBE_ROWS, _PROBE_CHUNKS = 1024, 4
#: A call of the packer returns after about this many bytes, so that the caller can be cancelled.
_TURN_BYTES = 8 * 2**20


class BlockSink(Protocol):
    """Takes blocks. May block; it is called in a worker thread, one call at a time."""

    def put(self, block: Block) -> None:
        """Take a block."""


def leaf_bytes(chunk_bytes: int) -> int:
    """The size of a chunk's leaves, in bytes: 8 leaves if they have at least 192 KiB each, else as many of about that size.

    The leaves are of equal size, in steps of 4 KiB, except for the last one, and at most 1 MiB. A leaf is verified as a whole,
    so it comes from one gateway: many small leaves can be spread over many gateways. But each is a request, whose cost hardly
    depends on its size.
    """
    wanted = min(_LEAVES_PER_CHUNK, round(chunk_bytes / _USEFUL_LEAF_BYTES))
    leaves = max(1, wanted, -(-chunk_bytes // _MAX_LEAF_BYTES))
    return -(-chunk_bytes // (leaves * _LEAF_STEP_BYTES)) * _LEAF_STEP_BYTES


async def choose_batch_size(rows: RowStream, schema: Schema, batch_size: int | None, chunk_bytes: int) -> int:
    """The batch size to publish with: the given one, or such that a chunk has about ``chunk_bytes``.

    The size of a row is taken from the first rows: it depends on the rows, not on the blocks in which they arrive.
    """
    if batch_size is not None:
        return whole_number(batch_size, name="batch_size", least=1, most=MAX_COUNT, meaning="a whole number of samples")
    asked = 1
    while True:
        probe = await rows.peek(asked)
        samples = count_rows(probe)
        encoded = (await in_thread(chunk_format.Encoded, schema, probe)).layout.size_bytes
        if samples < asked or samples == _PROBE_ROWS or encoded >= _PROBE_CHUNKS * chunk_bytes:
            return 2 * max(1, chunk_bytes * samples // encoded)
        asked *= 2


class Packer:
    """Builds one dataset into a sink. Synchronous; :func:`pack` is the async loop around it."""

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
        self._largest = self._samples = self._chunks = 0
        self.size_bytes = 0

    def add(self, parts: Sequence[Columns]) -> Iterator[None]:
        """Add the next chunk, whose rows are given in pieces; yields after every few megabytes."""
        chunk = chunk_format.Encoded(self._schema, parts)
        size = chunk.layout.size_bytes
        if size > MAX_CHUNK_BYTES:
            raise DatasetError(f"half a batch has {size} bytes, more than {MAX_CHUNK_BYTES}: use a smaller batch_size")
        yield from self._add_file(chunk)
        self._samples += count_rows(parts)
        self._chunks += 1
        self.size_bytes += size
        self._largest = max(self._largest, size)
        if len(self._directory) == CHUNKS_PER_DIRECTORY:
            self._close_directory()

    def finish(self) -> tuple[Manifest, Root]:
        """Close the last page and build the manifest and the root directory.

        Raises :class:`~dnc_async.errors.DatasetError` if readers would refuse them.
        """
        self._close_directory()
        self._close_page()
        manifest = Manifest(
            schema=self._schema,
            samples=self._samples,
            batch_size=self._batch_size,
            size_bytes=self.size_bytes,
            largest_chunk_bytes=self._largest,
            first_page=self._first_page or (),
            pages=tuple(page.cid for page in self._pages),
        )
        body = _readable(manifest)
        pages = _DirectoryTree(self._keep, ENTRIES_PER_DIRECTORY)
        for page in self._pages:
            pages.add(page)
        entries = [
            ("chunks", self._tree.finish()),
            ("manifest", self._file(body, _MAX_LEAF_BYTES)),
            ("pages", pages.finish()),
        ]
        return manifest, self._keep(*build_directory(entries, UNIXFS_V1_2025))

    def _add_file(self, chunk: chunk_format.Encoded) -> Iterator[None]:
        size = chunk.layout.size_bytes
        leaf_size = leaf_bytes(size)
        builder = FileBuilder(dataclasses.replace(UNIXFS_V1_2025, leaf_bytes=leaf_size))
        digests, since = [], 0
        for piece in chunk:
            for block in builder.feed(piece):
                self._sink.put(block)
                digests.append(block.cid.multihash[2:])
                since += len(block.data)
            if since >= _TURN_BYTES:
                yield
                since = 0
        blocks, root = builder.finish()
        self._keep(blocks, root)
        self._directory.append(root)
        row = ChunkRow(root.cid, size)
        if 1 < -(-size // leaf_size) <= MAX_LISTED_LEAVES:  # the root over them is the last block
            digests += [block.cid.multihash[2:] for block in blocks[:-1]]
            row = row._replace(leaf_bytes=leaf_size, digests=b"".join(digests))
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
            page = encode_page(tuple(self._page))
            decode_page(page)  # as a reader does
            self._pages.append(self._file(page, _MAX_LEAF_BYTES))
        self._page = []


class _DirectoryTree:
    """A directory with any number of numbered entries, as a balanced tree of plain directories."""

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


def _readable(manifest: Manifest) -> bytes:
    """The bytes of a manifest, checked by decoding them as a reader does."""
    try:
        body = manifest.encode()
        if len(body) > MAX_MANIFEST_BYTES:
            raise DatasetError(
                f"the manifest would have {len(body)} bytes, more than {MAX_MANIFEST_BYTES}: use a larger batch_size"
            )
        if Manifest.decode(body) != manifest:
            raise DatasetError("the manifest changes when it is written and read")
    except (ManifestError, UnicodeError, OverflowError) as error:
        raise DatasetError(f"no reader would take this dataset: {error}") from error
    return body


async def pack(
    rows: RowStream, schema: Schema, batch_size: int, sink: BlockSink, progress: Callable[[int, int], None] | None
) -> tuple[Manifest, Root]:
    """Divide all rows into half-batch chunks and build the dataset; calls ``progress(samples, bytes)`` after each chunk."""
    packer = Packer(schema, batch_size, sink)
    samples = 0
    while batch := await rows.take(batch_size):
        for count in halves(count_rows(batch)):
            part, batch = first_rows(batch, count)  # do not keep packed rows in memory
            steps = packer.add(part)
            while await in_thread(next, steps, _END) is not _END:
                pass
            samples += count
            del part, steps
            if progress is not None:
                progress(samples, packer.size_bytes)
    rows.check_unchanged()
    return await in_thread(packer.finish)
