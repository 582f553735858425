"""The interface of a publishing target: it takes a dataset's blocks, and keeps them once the root is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dnc_async.config import DEFAULT_CHUNK_BYTES
from dnc_async.dataset.formats.options import ReadOptions
from dnc_async.ipld.builder import Root
from dnc_async.publish.packing import BlockSink, choose_batch_size, pack
from dnc_async.publish.rows import Reading, RowStream
from dnc_async.telemetry import logger

_AS_THEY_ARE = ReadOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadResult:
    """What was published. ``str()`` gives the CID. ``size_bytes`` is the sum of the chunks.

    ``structure`` and ``columns`` (name, dtype, shape of one sample) say how the source was understood. ``notes`` are remarks
    about the source that the publisher should read, a line each.
    """

    cid: str
    batches: int
    samples: int
    size_bytes: int
    target: str
    structure: str = "dict"
    columns: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.cid


class Target(Protocol):
    """One upload to one target. ``name`` is shown to the user and contains no secret."""

    name: str

    async def begin(self) -> BlockSink:
        """Prepare the upload; returns the sink for the blocks. A sink may block: it is called in a worker thread."""

    async def finish(self, root: Root) -> None:
        """Called after all blocks: keep them, and check that the target has the whole DAG of ``root``."""

    async def aclose(self) -> None:
        """Clean up: called at the end, whether the upload succeeded or not."""


async def publish(
    source: object,
    target: Target,
    *,
    batch_size: int | None,
    chunk_bytes: int | None,
    samples: bool = False,
    options: ReadOptions = _AS_THEY_ARE,
    progress: Callable[[int, int], None] | None,
    reading: Reading | None = None,
) -> UploadResult:
    """Divide a source into chunks and send their blocks to a target. The source is opened first, then the target.

    ``reading`` is called with the bytes that were read of a file, and its size.
    """
    rows = RowStream(source, samples=samples, options=options, reading=reading)
    try:
        schema = await rows.open()
        size = await choose_batch_size(rows, schema, batch_size, chunk_bytes or DEFAULT_CHUNK_BYTES)
        try:
            manifest, root = await pack(rows, schema, size, await target.begin(), progress)
            await target.finish(root)
        finally:
            await target.aclose()
    finally:
        await rows.aclose()
    for note in rows.notes:
        logger.warning("%s, %s", rows.where, note)
    return UploadResult(
        cid=str(root.cid),
        batches=manifest.batches,
        samples=manifest.samples,
        size_bytes=manifest.size_bytes,
        target=target.name,
        structure=schema.structure,
        columns=tuple((column.name, column.dtype, column.shape) for column in schema.ordered),
        notes=rows.notes,
    )
