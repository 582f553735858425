"""A file that is read block by block, and checked at the end for changes since it was opened.

It is never memory-mapped: truncating a mapped file would kill the process that reads it (SIGBUS).
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dnc_async.errors import DatasetError

# Non-blocking: opening a pipe that has replaced the file would wait for its writer.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class SourceFile:
    """An open regular file. ``blocks`` are its rows, ``notes`` its reader's messages for the user, a line each."""

    def __init__(self, path: Path) -> None:
        """Open the file; raises :class:`~dnc_async.errors.DatasetError` if it is not a regular file."""
        self.path = path
        self.blocks: Iterator[Any] = iter(())
        self.notes: list[str] = []
        try:
            descriptor = os.open(path, _FLAGS)
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path}: {_why_not_open(path, error)}") from error
        self._status = os.fstat(descriptor)
        if not stat.S_ISREG(self._status.st_mode):
            os.close(descriptor)
            raise DatasetError(f"{path} is {_kind(self._status.st_mode)}")
        self.raw = io.FileIO(descriptor, "rb")

    @property
    def size_bytes(self) -> int:
        """The size when it was opened."""
        return self._status.st_size

    @property
    def read_bytes(self) -> int:
        """How many bytes were read so far."""
        return 0 if self.raw.closed else self.raw.tell()

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` with the bytes from ``offset`` on; raises if the file has fewer."""
        self.raw.seek(offset)
        done = 0
        while done < len(view):
            count = self.raw.readinto(view[done:])
            if not count:
                raise DatasetError(f"{self.path}: the file ends before its last row")
            done += count

    def check_unchanged(self) -> None:
        """Raise if the file was written to, truncated, replaced or removed since it was opened."""
        before, after = self._status, os.fstat(self.raw.fileno())
        if _identity(before) != _identity(after):
            raise self._changed(f"had {before.st_size} bytes and now has {after.st_size}")
        try:
            there = self.path.stat()
        except OSError as error:
            raise self._changed("was removed") from error
        if _identity(there) != _identity(before):
            raise self._changed("was replaced by another file")

    def _changed(self, how: str) -> DatasetError:
        return DatasetError(
            f"{self.path} changed while it was read: it {how}; nothing was published, upload it when it is at rest"
        )

    def close(self) -> None:
        """Close the file, and end its reader."""
        close = getattr(self.blocks, "close", None)
        if close is not None:
            close()
        self.raw.close()


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _why_not_open(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "a symlink that leads nowhere" if path.is_symlink() else "no such file"
    if isinstance(error, OSError) and os.path.exists(path) and not path.is_file():  # noqa: PTH110 - never raises
        return f"not a file, but {_kind(path.stat().st_mode)}"
    return str(getattr(error, "strerror", None) or error)


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return (
            "a folder, and upload reads one file (.npy, .npz or .csv): folders of images or of tables come in a later version; "
            "'dnc add' takes a folder as plain files"
        )
    kinds = (
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    name = next((name for is_kind, name in kinds if is_kind(mode)), "no regular file")
    return f"{name}, which cannot be read by place, or twice; save it to a file first, or pass an iterable of blocks in Python"
