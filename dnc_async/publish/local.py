"""Publishes into the local store, from which ``dnc serve`` serves the blocks."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.to_thread

from dnc_async.ipld.builder import Root
from dnc_async.store import BlockStore, Transaction


class LocalTarget:
    """One transaction of the local store: all of the dataset, or nothing."""

    def __init__(self, path: Path) -> None:
        self.name = f"local store {path}"
        self._path = path
        self._transaction: Transaction | None = None

    async def begin(self) -> Transaction:
        """Open the store, and create it if it does not exist."""
        store = await anyio.to_thread.run_sync(lambda: BlockStore.open(self._path, create=True))
        self._transaction = await anyio.to_thread.run_sync(store.begin)
        return self._transaction

    async def finish(self, root: Root) -> None:
        """Make the blocks visible, the root's last."""
        assert self._transaction is not None  # noqa: S101 - begin() came first
        await anyio.to_thread.run_sync(self._transaction.commit, root.cid)

    async def aclose(self) -> None:
        """Remove what was staged and not committed."""
        if self._transaction is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._transaction.rollback)
