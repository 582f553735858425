"""The file operations of a spool, as a protocol: the operating system's, or those of a disk that a test simulates."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from dnc_async import system
from dnc_async.system.folders import OwnedFolder, delete_tree, sweep

#: How often another process may take the spool's parent folder away while a folder is made in it.
_CLAIM_TRIES = 100


class Folder(Protocol):
    """A folder that this process owns, until it removes it or dies."""

    path: Path

    def restore(self) -> None:
        """Make the folder again, empty, after somebody else has deleted it. Raises ``OSError`` where that cannot be."""

    def remove(self) -> None:
        """Delete the folder with all it holds. Doing it again does nothing."""


class Disk(Protocol):
    """A disk. Everything raises ``OSError`` where it cannot be done; descriptors are its own."""

    def claim(self, parent: Path) -> Folder:
        """Delete what dead owners left in ``parent``, and make a new folder there."""

    def unit_bytes(self, folder: Path) -> int:
        """The unit in which the file system gives space to a file: a block, or a cluster of them."""

    def free_bytes(self, folder: Path) -> int | None:
        """How many bytes may still be written to the file system of ``folder``; ``None`` where it does not say."""

    def make(self, path: Path) -> int:
        """Make a file that must not exist yet, and give a descriptor to write and read it."""

    def write_at(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""

    def read_at(self, fd: int, buffers: Sequence[tuple[int, memoryview]]) -> None:
        """Fill each (offset, buffer); raises ``EOFError`` where the file ends before a buffer is full."""

    def disk_bytes(self, fd: int) -> int:
        """How many bytes the file takes on disk: its blocks, not its size."""

    def truncate(self, fd: int) -> None:
        """Give the space of an open file back."""

    def close(self, fd: int) -> None:
        """Close an open file."""

    def unlink(self, path: Path) -> None:
        """Delete a file, if it is there."""

    def clear(self, path: Path) -> None:
        """Delete whatever is at ``path``, a folder with all it holds too, as far as that can be done."""

    def remove_if_empty(self, folder: Path) -> None:
        """Delete a folder, if it is there and empty."""


class SystemDisk:
    """The operating system's file operations."""

    def claim(self, parent: Path) -> Folder:
        """Delete what dead processes left in ``parent``, and make a new folder there.

        Another process that ends may take ``parent`` away, empty, at any moment: then it is made again.
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
        """The unit in which the file system gives space to a file, as a file of one block shows it."""
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
        """How many bytes may still be written to the file system of ``folder``; ``None`` where it does not say."""
        return system.free_bytes(folder)

    def make(self, path: Path) -> int:
        """Make a file that must not exist yet, and give a descriptor to write and read it."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0), 0o600)

    def write_at(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``."""
        system.write_at(fd, data, offset)

    def read_at(self, fd: int, buffers: Sequence[tuple[int, memoryview]]) -> None:
        """Fill each (offset, buffer); raises ``EOFError`` where the file ends before a buffer is full."""
        system.read_at(fd, buffers)

    def disk_bytes(self, fd: int) -> int:
        """How many bytes the file takes on disk: its blocks, not its size."""
        return system.disk_bytes(fd)

    def truncate(self, fd: int) -> None:
        """Give the space of an open file back."""
        os.ftruncate(fd, 0)

    def close(self, fd: int) -> None:
        """Close an open file."""
        os.close(fd)

    def unlink(self, path: Path) -> None:
        """Delete a file, if it is there."""
        system.unlink_quietly(path)

    def clear(self, path: Path) -> None:
        """Delete whatever is at ``path``, a folder with all it holds too, as far as that can be done."""
        delete_tree(path)
        with contextlib.suppress(OSError):
            path.unlink()

    def remove_if_empty(self, folder: Path) -> None:
        """Delete a folder, if it is there and empty."""
        with contextlib.suppress(OSError):
            folder.rmdir()
