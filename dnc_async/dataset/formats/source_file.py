"""A file that is read block by block, and checked at the end for changes since it was opened.

It is never memory-mapped: truncating a mapped file would kill the process that reads it (SIGBUS).
"""

from __future__ import annotations

import io
import os
import stat
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from dnc_async.dataset.formats import compression
from dnc_async.dataset.formats.compression import ByteStream
from dnc_async.errors import DatasetError

# Non-blocking: opening a pipe that has replaced the file would wait for its writer.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class SourceFile:
    """A regular file, opened when it is read. ``suffix`` is that of its content, without that of a compression."""

    def __init__(self, path: Path) -> None:
        """Look at the file; raises :class:`~dnc_async.errors.DatasetError` if it is not a regular file."""
        self.path = path
        self.suffix, self.compression = compression.suffixes(path)
        self._raw: io.FileIO | None = None
        self._done = 0
        try:
            self._status = path.stat()
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path}: {_why_not_open(path, error)}") from error
        if not stat.S_ISREG(self._status.st_mode):
            raise DatasetError(f"{path} is {_kind(self._status.st_mode)}")

    @property
    def raw(self) -> io.FileIO:
        """The open file."""
        if self._raw is None:
            try:
                descriptor = os.open(self.path, _FLAGS)
            except OSError as error:
                raise DatasetError(f"{self.path}: {_why_not_open(self.path, error)}") from error
            self._raw = io.FileIO(descriptor, "rb")
            if _identity(os.fstat(descriptor)) != _identity(self._status):
                raise self._changed("is another file now")
        return self._raw

    @property
    def size_bytes(self) -> int:
        """The size when it was first looked at."""
        return self._status.st_size

    @property
    def read_bytes(self) -> int:
        """How many bytes were read so far."""
        return self._done if self._raw is None else self._raw.tell()

    def head(self, size: int) -> bytes:
        """The first bytes."""
        self.raw.seek(0)
        return self.raw.read(size) or b""

    def stream(self, *, last: bool = False) -> ByteStream:
        """The file's content from its beginning, decompressed. A file has one stream at a time; ``last`` if no other follows."""
        self.raw.seek(0)
        return self._decompressed(_Reading(self.raw.read))

    def _decompressed(self, file: _Reading) -> ByteStream:
        if not self.compression:
            return file
        inside = compression.decompressed(file, self.compression, str(self.path))  # type: ignore[arg-type]  # it is only read
        return _Reading(inside.read, damaged=f"{self.path}: damaged or cut off, no valid {self.compression} data")

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
        """Raise if the file was written to, truncated, replaced or removed since it was first looked at."""
        before = self._status
        if self._raw is not None:
            after = os.fstat(self._raw.fileno())
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

    def rest(self) -> None:
        """Close the file until it is read again, because only so many can be open at once."""
        if self._raw is not None:
            self._done = max(self._done, self._raw.tell())
            self._raw.close()
            self._raw = None


class StdinFile(SourceFile):
    """Standard input, or another pipe, which is read once; its beginning is kept until its last stream is read."""

    def __init__(self, file: IO[bytes] | None = None) -> None:
        self.path = Path("-")
        self._file = sys.stdin.buffer if file is None else file
        self._kept: list[bytes] = []
        self._is_last = False
        self._done = 0
        self.suffix, self.compression = "", ""
        self.compression = compression.by_magic(self.head(16))

    @property
    def size_bytes(self) -> int:
        """Not known."""
        return 0

    @property
    def read_bytes(self) -> int:
        """How many bytes were read so far."""
        return self._done

    def head(self, size: int) -> bytes:
        """The first bytes, which are given again later."""
        stream, found = self._replayed(), b""
        while len(found) < size and (piece := stream.read(size - len(found))):
            found += piece
        return found

    def stream(self, *, last: bool = False) -> ByteStream:
        """What comes, from its beginning."""
        self._is_last = last
        return self._decompressed(self._replayed())

    def _replayed(self) -> _Reading:
        place, offset = 0, 0

        def read(size: int) -> bytes:
            nonlocal place, offset
            if place == len(self._kept):
                data = self._file.read(size)
                self._done += len(data)
                if not self._is_last:
                    self._kept.append(data)
                    place += 1
                return data
            piece = self._kept[place][offset : offset + size]
            offset += len(piece)
            if offset == len(self._kept[place]):
                place, offset = place + 1, 0
                if self._is_last:
                    self._kept[place - 1] = b""
            return piece or (read(size) if place < len(self._kept) else b"")

        return _Reading(read)

    @property
    def raw(self) -> io.FileIO:
        """Raise: a pipe cannot be read by place."""
        raise DatasetError("stdin: this format is read by place, and a pipe cannot be; save it to a file first")

    def check_unchanged(self) -> None:
        """A pipe does not change."""

    def rest(self) -> None:
        """A pipe stays open."""


class _Reading:
    """A file object that is only read, and never closes what it reads from."""

    closed = False

    def __init__(self, read: Callable[[int], bytes | None], *, damaged: str = "") -> None:
        self._read = read
        self._damaged = damaged

    def read(self, size: int = -1) -> bytes:
        """The next bytes; raises :class:`~dnc_async.errors.DatasetError` if they are damaged."""
        try:
            return self._read(size) or b""
        except (*compression.DAMAGE, zlib.error) as error:
            if not self._damaged or isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{self._damaged} ({error})") from error

    def close(self) -> None:
        """Leave it open."""


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _why_not_open(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "a symlink that leads nowhere" if path.is_symlink() else "no such file"
    return str(getattr(error, "strerror", None) or error)


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    name = next((name for is_kind, name in kinds if is_kind(mode)), "no regular file")
    return f"{name}, which cannot be read by place, or twice; save it to a file first, or pass an iterable of blocks in Python"
