"""Reads the local store: blocks by CID, whatever version and codec the CID has.

A block is found by its multihash, so CIDv0, CIDv1 dag-pb and CIDv1 raw of the same bytes lead to the same file. Identity CIDs
contain their bytes: they are always found, and never stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from dnc_async.errors import BlockMismatchError, StoreError
from dnc_async.ipld.block import verify

from .layout import StoreLayout, block_name, store_errors
from .transaction import Transaction

if TYPE_CHECKING:
    import os

    from dnc_async.ipld.block import Block
    from dnc_async.ipld.cid import Cid

_REMEDY = "check its disk and who owns it; publish or import the same data again, which writes it anew"


class BlockStore:
    """A folder of blocks; use :meth:`open`. Any number of threads and processes may use it at the same time.

    An open store holds no files open, so there is nothing to close. Reading needs no permission to write.
    """

    def __init__(self, layout: StoreLayout) -> None:
        """Use :meth:`open`, which checks the layout."""
        self._layout = layout

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, create: bool = False) -> Self:
        """Open the store in the folder ``path``; with ``create``, create it if it does not exist.

        Raises :class:`StoreError`, which says what to do, if the path is a file, is missing, contains something else or another
        version of the format, or (with ``create``) cannot be written.
        """
        layout = StoreLayout.at(Path(path).expanduser().absolute())
        if create:
            layout.create()
        else:
            layout.check()
        return cls(layout)

    @property
    def path(self) -> Path:
        """The store's folder."""
        return self._layout.path

    def __repr__(self) -> str:
        return f"<BlockStore {self.path}>"

    def has(self, cid: Cid) -> bool:
        """Whether the block is stored. It is not read."""
        return self.size_bytes(cid) is not None

    def size_bytes(self, cid: Cid) -> int | None:
        """The size of the block, from the file system; ``None`` if it is not stored."""
        if cid.inline is not None:
            return len(cid.inline)
        with store_errors(f"cannot look for {cid} in {self.path}"):
            return self._layout.size_of(block_name(cid))

    def read(self, cid: Cid) -> bytes | None:
        """The block's bytes, *unverified*, for callers whose receiver verifies them; ``None`` if it is not stored.

        Raises :class:`StoreError` if its file cannot be read.
        """
        if cid.inline is not None:
            return bytes(cid.inline)
        try:
            return self._layout.read(block_name(cid))
        except OSError as error:
            file = self._layout.block_path(block_name(cid))
            raise StoreError(f"{file} cannot be read: {error.strerror or error}; {_REMEDY}") from error

    def get(self, cid: Cid) -> Block | None:
        """The block, verified; ``None`` if it is not stored.

        Raises :class:`StoreError` if the file does not match its name any more.
        """
        data = self.read(cid)
        if data is None:
            return None
        try:
            return verify(cid, data)
        except BlockMismatchError as error:
            file = self._layout.block_path(block_name(cid))
            raise StoreError(
                f"{file} is damaged: it does not hash to {cid}; publish or import the same data again, which writes it anew"
            ) from error

    def begin(self) -> Transaction:
        """Begin a transaction, the only way to add blocks. Removes what crashed transactions left behind.

        Raises :class:`StoreError` if the store is not writable.
        """
        self._layout.check_writable()
        return Transaction(self._layout)

    def strangers(self) -> list[str]:
        """Files in the folder of roots that are not the store's, such as ``.DS_Store``. They are ignored."""
        with store_errors(f"cannot list the roots of {self.path}"):
            return [str(self._layout.roots / name) for name in self._layout.list_strangers()]

    def roots(self) -> list[Cid]:
        """The committed roots, sorted by their text."""
        with store_errors(f"cannot list the roots of {self.path}"):
            return self._layout.list_roots()
