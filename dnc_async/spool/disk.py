"""The file operations of a spool, as a protocol: the operating system's, or those of a simulated disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from dnc_async import system
from dnc_async.system.folders import OwnedFolder, delete_tree, sweep

#: How often another process may remove the spool's parent folder while a folder is created in it.
_CLAIM_TRIES = 100


class Folder(Protocol):
    """A folder that this process owns, until it removes it or dies."""

    path: Path

    def restore(self) -> None:
        """Create the folder again, empty, after something else deleted it. Raises ``OSError`` if that fails."""

    def remove(self) -> None:
        """Delete the folder with everything in it. A second call does nothing."""


class Disk(Protocol):
    """A disk. Every method raises ``OSError`` if it fails. Descriptors are numbers of the disk's own."""

    def claim(self, parent: Path) -> Folder:
        """Delete what dead owners left in ``parent``, and create a new folder there."""

    def unit_bytes(self, folder: Path) -> int:
        """The file system's allocation unit: a block, or a cluster of blocks."""

    def free_bytes(self, folder: Path) -> int | None:
        """How many bytes may still be written to the file system of ``folder``; ``None`` if it does not say."""

    def make(self, path: Path) -> int:
        """Create a file that does not exist yet; returns a descriptor to write and read it."""

    def write_at(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""

    def read_at(self, fd: int, buffers: Sequence[tuple[int, memoryview]]) -> None:
        """Fill each (offset, buffer); raises ``EOFError`` if the file ends before a buffer is full."""

    def disk_bytes(self, fd: int) -> int:
        """How many bytes the file takes on disk: its blocks, not its size."""

    def truncate(self, fd: int) -> None:
        """Truncate an open file to nothing, which frees its space."""

    def close(self, fd: int) -> None:
        """Close an open file."""

    def unlink(self, path: Path) -> None:
        """Delete a file if it exists."""

    def clear(self, path: Path) -> None:
        """Delete whatever is at ``path``, including a folder with everything in it, as far as possible."""

    def remove_if_empty(self, folder: Path) -> None:
        """Delete a folder if it exists and is empty."""


class SystemDisk:
    """The operating system's file operations."""

    def claim(self, parent: Path) -> Folder:
        """Delete what dead processes left in ``parent``, and create a new folder there.

        Another process that ends may remove an empty ``parent`` at any moment: then it is created again.
        """
        for tries_left in range(_CLAIM_TRIES, 0, -1):
            try:
                parent.mkdir(parents=True, exist_ok=True)
                sweep(parent)
                return OwnedFolder.claim(parent)
            except (FileNotFoundError, FileExistsError):
                if tries_left == 1:
                    raise
        raise AssertionError  # the last try returns or raises

    def unit_bytes(self, folder: Path) -> int:
        """The file system's allocation unit, measured with a file of one block."""
        block_bytes = system.block_bytes(folder)
        path = folder / "0"
        fd = self.make(path)
        try:
            system.write_at(fd, bytes(block_bytes), 0)
            return max(block_bytes, system.disk_bytes(fd))
        finally:
            os.close(fd)
            system.unlink_quietly(path)

    def free_bytes(self, folder: Path) -> int | None:
        """How many bytes may still be written to the file system of ``folder``; ``None`` if it does not say."""
        return system.free_bytes(folder)

    def make(self, path: Path) -> int:
        """Create a file that does not exist yet; returns a descriptor to write and read it."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600)

    def write_at(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""
        system.write_at(fd, data, offset)

    def read_at(self, fd: int, buffers: Sequence[tuple[int, memoryview]]) -> None:
        """Fill each (offset, buffer); raises ``EOFError`` if the file ends before a buffer is full."""
        system.read_at(fd, buffers)

    def disk_bytes(self, fd: int) -> int:
        """How many bytes the file takes on disk: its blocks, not its size."""
        return system.disk_bytes(fd)

    def truncate(self, fd: int) -> None:
        """Truncate an open file to nothing, which frees its space."""
        os.ftruncate(fd, 0)

    def close(self, fd: int) -> None:
        """Close an open file."""
        os.close(fd)

    def unlink(self, path: Path) -> None:
        """Delete a file if it exists."""
        system.unlink_quietly(path)

    def clear(self, path: Path) -> None:
        """Delete whatever is at ``path``, including a folder with everything in it, as far as possible."""
        delete_tree(path)
        with contextlib.suppress(OSError):
            path.unlink()

    def remove_if_empty(self, folder: Path) -> None:
        """Delete a folder if it exists and is empty."""
        with contextlib.suppress(OSError):
            folder.rmdir()
