"""Writes to the store: all or nothing.

Blocks are staged in a folder of the transaction's own, inside the store (so on the same file system), in the same subfolders as
the store's. ``commit`` flushes them to the disk and renames them into place, the root's block last: if the root's block is
stored, its whole DAG is, also after a power failure. Without ``commit`` nothing remains. A process that dies leaves its staging
folder behind unlocked, and the next ``begin()`` removes it.
"""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING, Self

from dnc_async.errors import StoreError
from dnc_async.system.folders import OwnedFolder, sweep

from .durable import flush
from .layout import StoreLayout, block_name, store_errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from dnc_async.ipld.block import Block
    from dnc_async.ipld.cid import Cid


class Transaction:
    """Blocks that are being added to the store; ``BlockStore.begin()`` creates it.

    ``put`` may be called from several threads. Memory does not grow with the number of blocks. Readers of the store see none of
    the blocks before ``commit``.
    """

    def __init__(self, layout: StoreLayout) -> None:
        self._layout = layout
        self._counting = threading.Lock()
        self._staged_blocks = 0
        self._staged_bytes = 0
        self._open = False
        self._broken = False
        with store_errors(f"cannot stage blocks in {layout.staging}"):
            sweep(layout.staging)
            self._owned = OwnedFolder.claim(layout.staging)
        self._folder = self._owned.path
        self._open = True

    def __repr__(self) -> str:
        state = "open" if self._open else "closed"
        return f"<Transaction {state}: {self._staged_blocks} blocks, {self._staged_bytes} bytes staged>"

    @property
    def staged_blocks(self) -> int:
        """The number of blocks written. Blocks that the store had already, undamaged, are not counted."""
        return self._staged_blocks

    @property
    def staged_bytes(self) -> int:
        """The size of those blocks in bytes."""
        return self._staged_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what was staged and not committed."""
        self.rollback()

    def put(self, block: Block) -> None:
        """Stage ``block``, unless the store or this transaction has it, or its CID contains it (identity).

        A block that the store has already is compared byte by byte: a damaged file is written again. Raises :class:`StoreError`
        if the block cannot be written; the transaction can then only be rolled back.
        """
        self._require_open()
        if block.cid.inline is not None:
            return
        name = block_name(block.cid)
        if self._layout.holds(name, block.data):
            return
        path = self._layout.block_path(name, under=self._folder)
        try:
            staged = _write_new(path, block.data)
        except OSError as error:
            self._broken = True
            limited = error.errno == errno.EFBIG
            remedy = "raise the limit of files' sizes (ulimit -f)" if limited else "free some space"
            raise StoreError(f"cannot write {path}: {error.strerror}; {remedy} and start again") from error
        if staged:
            with self._counting:
                self._staged_blocks += 1
                self._staged_bytes += len(block.data)

    def commit(self, *roots: Cid) -> None:
        """Make the staged blocks visible, those of ``roots`` last, and add these to the store's roots.

        The roots' blocks must have been put, or be in the store. If it fails half way, blocks may remain that no listed root
        needs; they do no harm.
        """
        self._require_open()
        if self._broken:
            raise StoreError(f"{self._layout.path}: a block of this transaction was not written; start again")
        missing = [root for root in roots if not self.has(root)]
        if missing:
            raise StoreError(
                f"{self._layout.path}: the block of the root {missing[0]} was never put; put it, then commit"
            )
        last = {block_name(root) for root in roots if root.inline is None}
        with store_errors(f"cannot commit to {self._layout.path}"):
            flush(self._folder)
            for name, path in self._staged():
                if name not in last:
                    self._layout.move_in(path, name)
            for name in sorted(last):
                path = self._layout.block_path(name, under=self._folder)
                if path.exists():
                    self._layout.move_in(path, name)
            for root in roots:
                self._layout.add_root(root)
        self.rollback()

    def has(self, cid: Cid) -> bool:
        """Whether the block was put, or is in the store, or is contained in the CID."""
        if cid.inline is not None:
            return True
        name = block_name(cid)
        if self._layout.block_path(name, under=self._folder).exists():
            return True
        with store_errors(f"cannot look for {cid} in {self._layout.path}"):
            return self._layout.size_of(name) is not None

    def rollback(self) -> None:
        """Remove what is still staged and end the transaction. A second call does nothing."""
        if self._open:
            self._owned.remove()
            self._open = False  # only now, so that an interrupted rollback is repeated

    def _require_open(self) -> None:
        if not self._open:
            raise StoreError(f"{self._layout.path}: this transaction has ended; begin another one")

    def _staged(self) -> Iterator[tuple[str, Path]]:
        """The name and path of every staged block. Holds one subfolder's names in memory at a time."""
        for folder in sorted(path for path in self._folder.iterdir() if path.is_dir()):
            for name in sorted(os.listdir(folder)):  # noqa: PTH208 - names, not a Path object for each
                yield name, folder / name


def _write_new(path: Path, data: bytes | memoryview) -> bool:
    """Write a file that does not exist yet; returns ``False`` if it does. Never leaves half a file behind."""
    try:
        file = path.open("xb", buffering=0)
    except FileExistsError:
        return False
    except FileNotFoundError:
        path.parent.mkdir(exist_ok=True)
        return _write_new(path, data)
    try:
        with file:
            rest = memoryview(data)
            while rest:
                rest = rest[file.write(rest) :]
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True
