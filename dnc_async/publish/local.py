"""Publishing into the local store: the blocks stay on this machine, and ``dnc serve`` makes a gateway of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from dnc_async.config import DEFAULT_CHUNK_BYTES
from dnc_async.dataset.manifest import Manifest
from dnc_async.ipld.builder import Root
from dnc_async.publish.packing import choose_batch_size, pack
from dnc_async.publish.rows import RowStream
from dnc_async.store import BlockStore, Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadResult:
    """What was published. ``str()`` gives the CID. ``size_bytes`` is the sum of the chunks."""

    cid: str
    batches: int
    samples: int
    size_bytes: int
    target: str

    def __str__(self) -> str:
        return self.cid


async def publish_local(
    source: object,
    *,
    store_path: Path,
    batch_size: int | None,
    chunk_bytes: int | None,
    progress: Callable[[int, int], None] | None,
) -> UploadResult:
    """Divide a source and keep its blocks; nothing of it stays when this fails."""
    rows = RowStream(source)
    try:
        schema = await rows.open()
        size = await choose_batch_size(rows, schema, batch_size, chunk_bytes or DEFAULT_CHUNK_BYTES)
        store = await anyio.to_thread.run_sync(lambda: BlockStore.open(store_path, create=True))
        with _transaction(store) as transaction:
            manifest, root = await pack(rows, schema, size, transaction, progress)
            await anyio.to_thread.run_sync(transaction.commit, root.cid)
    finally:
        await rows.aclose()
    return result(manifest, root, target=f"local store {store_path}")


@contextlib.contextmanager
def _transaction(store: BlockStore) -> Iterator[Transaction]:
    with store.begin() as transaction:
        yield transaction


def result(manifest: Manifest, root: Root, *, target: str) -> UploadResult:
    """The result that a caller gets."""
    return UploadResult(
        cid=str(root.cid),
        batches=manifest.batches,
        samples=manifest.samples,
        size_bytes=manifest.size_bytes,
        target=target,
    )
