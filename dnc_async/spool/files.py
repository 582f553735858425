"""The spool's folder and files on disk.

A folder belongs to one client. Beside it lies a lock file that its process holds for as long as it lives; a folder whose
lock is free belonged to a process that died, and is deleted by whoever opens a spool next. File names are slots that are
used again, so that the folder itself does not grow.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import threading
import weakref
from pathlib import Path

from dnc_async import system
from dnc_async.errors import DiskFullError, SpoolError
from dnc_async.spool.governor import Lease
from dnc_async.system.folders import OwnedFolder, sweep

#: Charged for the folder and its lock file: what a folder of some hundred slots takes, with room.
FOLDER_BYTES = 64 * 2**10
#: Leaves that are written out of order cost up to this many blocks of the file system beside their own.
_EXTRA_BLOCKS = 2
_FULL = {errno.ENOSPC, errno.EDQUOT}


class SpoolFile:
    """One chunk on disk. Written at any position by worker threads, read once, then gone with its lease."""

    def __init__(self, folder: SpoolFolder, slot: int, fd: int, lease: Lease) -> None:
        self._folder = folder
        self._slot = slot
        self._fd = fd
        self._lease = lease

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write verified bytes. Raises :class:`~dnc_async.errors.SpoolError`, or its DiskFullError."""
        try:
            system.write_at(self._fd, data, offset)
        except OSError as error:
            raise _spool_error(self._folder.path, error) from error

    def read_into(self, segments: tuple[tuple[int, memoryview], ...]) -> None:
        """Fill (offset, memory) segments from the file."""
        try:
            system.read_at(self._fd, segments)
        except (OSError, EOFError) as error:
            raise SpoolError(f"{self._folder.path}: cannot read a staged chunk back: {error}") from error

    def disk_bytes(self) -> int:
        """What the file takes on disk now; 0 when it is gone."""
        try:
            return system.disk_bytes(self._fd) if self._fd >= 0 else 0
        except OSError:  # discarded meanwhile, by the engine's thread
            return 0

    def discard(self) -> None:
        """Close and delete the file, then release its lease. A second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        os.close(fd)
        self._folder.free(self._slot)
        self._lease.release()


class SpoolFolder:
    """The folder of one client: made when the first file is, gone when it is closed."""

    def __init__(self, parent: Path) -> None:
        """Make the folder in ``parent``, and delete what dead processes left there.

        Raises :class:`~dnc_async.errors.SpoolError` where that cannot be.
        """
        try:
            parent.mkdir(parents=True, exist_ok=True)
            sweep(parent)
            self._owned = OwnedFolder.claim(parent)
            self.path = self._owned.path
            self._block_bytes = os.statvfs(self.path).f_bsize if hasattr(os, "statvfs") else 4096
        except OSError as error:
            raise SpoolError(
                f"spool_dir {parent}: cannot be used ({error.strerror or error}); name a folder that you may write to"
            ) from error
        self._closed = False
        self._free: list[int] = []
        self._slots = 0
        self._mutex = threading.Lock()
        self._open: weakref.WeakSet[SpoolFile] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<SpoolFolder {self.path}, {self._slots - len(self._free)} files>"

    def cost(self, size_bytes: int) -> int:
        """What a lease must hold for a file of this size: its blocks, and two more."""
        return -(-size_bytes // self._block_bytes) * self._block_bytes + _EXTRA_BLOCKS * self._block_bytes

    def create(self, lease: Lease) -> SpoolFile:
        """Make a file that the lease pays for; the file owns the lease from here on."""
        with self._mutex:
            slot = heapq.heappop(self._free) if self._free else self._slots
            self._slots = max(self._slots, slot + 1)
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
        try:
            fd = os.open(self.path / str(slot), flags, 0o600)
        except OSError as error:
            with self._mutex:
                heapq.heappush(self._free, slot)
            raise _spool_error(self.path, error) from error
        file = SpoolFile(self, slot, fd, lease)
        self._open.add(file)
        return file

    def disk_bytes(self) -> int:
        """What all files take on disk now, as the file system counts."""
        return sum(file.disk_bytes() for file in list(self._open))

    def free(self, slot: int) -> None:
        """Delete a slot's file (called by the file)."""
        system.unlink_quietly(self.path / str(slot))
        with self._mutex:
            heapq.heappush(self._free, slot)

    def close(self) -> None:
        """Delete everything. Synchronous, so that it works at interpreter exit. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        for file in list(self._open):
            file.discard()
        self._owned.remove()
        with contextlib.suppress(OSError):  # the parent goes when it is empty and ours was the last
            self.path.parent.rmdir()


def _spool_error(path: Path, error: OSError) -> SpoolError:
    if error.errno in _FULL:
        return DiskFullError(f"{path}: the file system is full, although the disk budget is not; free some space")
    return SpoolError(f"{path}: cannot write a staged chunk: {error.strerror or error}")
