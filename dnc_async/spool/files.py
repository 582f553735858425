"""The spool's folder and its files on disk.

A folder belongs to one client. Its process holds a lock on a file beside it while it lives; a folder whose lock is free
belonged to a process that died, and is deleted when a spool is next opened. File names are slots that are reused, so that the
folder itself does not grow. A forked child inherits open files, whose space would stay in use after they were deleted, so it
closes them at once.

A lease covers the most that any file system should need for a file. If a file takes more all the same, this is noticed while it
is written: its lease grows, other chunks are dropped for it if necessary, and all later leases cover that much more.
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
from dnc_async.spool.disk import Disk, Folder, SystemDisk
from dnc_async.spool.governor import Lease

#: What the folder and its lock file take of the budget: a folder of MAX_FILES slots, with a margin.
FOLDER_BYTES = 64 * 2**10
#: The most files in a folder at once (a folder takes, on ext4, 20 KiB for 1024, 40 for 2048).
MAX_FILES = 1024
#: A file that is written out of order is fragmented for a while. The metadata of its extents takes up to this many blocks, and
#: one more for this many leaves (measured on ext4, every other leaf first: 22 blocks for 2,048 leaves, 9 for 1,024).
_EXTRA_BLOCKS = 2
_LEAVES_PER_BLOCK = 64
#: The smallest leaves that upload() makes of a large chunk; smaller ones are counted one by one.
_LEAF_BYTES = 64 * 2**10
#: The size of a file is compared with its lease after the first write, and then after this many bytes each.
_COMPARISONS = 8
_FULL = {errno.ENOSPC, errno.EDQUOT}
_TOO_MANY = {errno.EMFILE, errno.ENFILE}
_VANISHED = {errno.ENOENT, errno.ENOTDIR}


class SpoolFile:
    """One chunk on disk. Written at any position by one worker thread at a time, read once, then deleted and its lease released.

    It is created by :meth:`open` or by its first write, so that requesting a chunk does not wait for the disk.
    """

    def __init__(self, folder: SpoolFolder, slot: int, lease: Lease, size_bytes: int) -> None:
        self._folder = folder
        self._slot = slot
        self._fd = -1
        self._is_gone = False
        self._lease = lease
        self._size_bytes = size_bytes
        self._written = self._compare_at = 0
        self._needed_bytes = 0
        self.seen_bytes = 0  # what it took on disk when last measured: changed by the folder only

    def __repr__(self) -> str:
        state = "gone" if self._is_gone else f"{self._written} of {self._size_bytes} bytes"
        return f"<SpoolFile {self._folder.path / str(self._slot)}, {state}>"

    def open(self) -> None:
        """Create the file. Raises :class:`~dnc_async.errors.SpoolError`, or its DiskFullError if there is too little space."""
        if self._is_gone:
            raise SpoolError(f"{self._folder.path}: a staged chunk was given up")
        self._fd = self._folder.make(self._slot, self._lease.size_bytes)

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Write verified bytes. Raises :class:`~dnc_async.errors.SpoolError`, or its DiskFullError."""
        if self._fd < 0:
            self.open()
        try:
            self._folder.disk.write_at(self._fd, data, offset)
        except OSError as error:
            raise _spool_error(self._folder.path, error) from error
        self._written += len(data)
        if self._written >= min(self._compare_at, self._size_bytes):
            self._compare_at = self._written + self._size_bytes // _COMPARISONS
            taken = self.disk_bytes()
            self._folder.saw(self, taken)
            if taken > self._lease.size_bytes:
                self._needed_bytes = taken + max(0, self._size_bytes - self._written)

    def settle(self) -> None:
        """Have the lease cover what the file takes, and will take, if that is more than was reserved (in the engine's thread)."""
        if self._needed_bytes > self._lease.size_bytes:
            self._folder.take_note(self._needed_bytes - self._lease.size_bytes)
            self._lease.grow(self._needed_bytes)

    def read_at(self, offset: int, memory: memoryview) -> None:
        """Fill memory from the file. Raises :class:`~dnc_async.errors.SpoolError`."""
        try:
            self._folder.disk.read_at(self._fd, [(offset, memory)])
        except (OSError, EOFError) as error:
            raise SpoolError(f"{self._folder.path}: cannot read a staged chunk back: {error}") from error

    def disk_bytes(self) -> int:
        """How many bytes the file takes on disk now; 0 when it is deleted."""
        try:
            return self._folder.disk.disk_bytes(self._fd) if self._fd >= 0 else 0
        except OSError:  # discarded meanwhile, by the engine's thread
            return 0

    def discard(self) -> None:
        """Delete and close the file, then release its lease. A second call does nothing."""
        self.delete()
        self._lease.release()

    def delete(self) -> None:
        """Delete and close the file (in any thread). A second call does nothing."""
        if self._is_gone:
            return
        if not self._folder.free(self._slot) and self._fd >= 0:
            with contextlib.suppress(
                OSError
            ):  # the name stays, but its space must not, or the lease would be released too early
                self._folder.disk.truncate(self._fd)
        self.close()
        self._folder.saw(self, 0)

    def close(self) -> None:
        """Close the file without deleting it. A second call does nothing."""
        self._is_gone = True
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._folder.disk.close(fd)

    @property
    def is_gone(self) -> bool:
        """Whether it was closed."""
        return self._is_gone


_open_files: weakref.WeakSet[SpoolFile] = weakref.WeakSet()


def _after_fork() -> None:
    for file in list(_open_files):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)  # only fork itself can tell


class SpoolFolder:
    """The folder of one client: created with its first file, deleted when it is closed."""

    def __init__(self, parent: Path, disk: Disk | None = None) -> None:
        """Create the folder in ``parent``, and delete what dead processes left there; on the system's disk if none is given.

        Raises :class:`~dnc_async.errors.SpoolError` if that fails.
        """
        self.disk = disk or SystemDisk()
        self._owned: Folder | None = None
        try:
            self._owned = self.disk.claim(parent)
            self.path = self._owned.path
            #: The least that a file takes on disk, unless it is empty.
            self.unit_bytes = self.disk.unit_bytes(self.path)
        except OSError as error:
            if self._owned is not None:
                self._owned.remove()
            if error.errno in _FULL | _TOO_MANY:
                raise _spool_error(parent, error) from error
            raise SpoolError(
                f"spool_dir {parent}: cannot be used ({error.strerror or error}); name a folder that you may write to"
            ) from error
        self._learned_bytes = 0
        self._closed = False
        self._free: list[int] = []
        self._slots = 0
        self._mutex = threading.Lock()
        self._disk_bytes = 0
        self._open: weakref.WeakSet[SpoolFile] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<SpoolFolder {self.path}, {self._slots - len(self._free)} files>"

    def cost(self, size_bytes: int, leaves: int = 0) -> int:
        """How many bytes a lease must cover for a file of this size: its blocks, metadata of extents, and what was learned."""
        leaves = max(leaves, size_bytes // _LEAF_BYTES)
        blocks = -(-size_bytes // self.unit_bytes) + _EXTRA_BLOCKS + leaves // _LEAVES_PER_BLOCK
        return blocks * self.unit_bytes + self._learned_bytes

    def take_note(self, excess_bytes: int) -> None:
        """A file took this much more than :meth:`cost` said: later leases cover that, too (called by the file)."""
        self._learned_bytes += excess_bytes

    def reserve(self, lease: Lease, size_bytes: int) -> SpoolFile:
        """A file with this lease, which it owns from now on. The disk is not touched yet."""
        with self._mutex:
            slot = heapq.heappop(self._free) if self._free else self._slots
            self._slots = max(self._slots, slot + 1)
        file = SpoolFile(self, slot, lease, size_bytes)
        self._open.add(file)
        _open_files.add(file)
        return file

    def make(self, slot: int, lease_bytes: int) -> int:
        """Create a slot's file if the file system has space for its lease; returns its descriptor (called by the file)."""
        try:
            try:
                return self._make(slot, lease_bytes)
            except OSError as error:
                if error.errno not in _VANISHED | {errno.EEXIST} or self._owned is None:
                    raise
                if error.errno == errno.EEXIST:  # the folder is ours, and is deleted with everything in it
                    self.disk.clear(self.path / str(slot))
                with self._mutex:
                    self._owned.restore()  # the folder was deleted by something else; open files still have their content
                return self._make(slot, lease_bytes)
        except OSError as error:
            raise _spool_error(self.path, error) from error

    def _make(self, slot: int, lease_bytes: int) -> int:
        room = self.disk.free_bytes(self.path)
        if room is not None and room < lease_bytes:
            raise _disk_full(self.path)
        return self.disk.make(self.path / str(slot))

    def disk_bytes(self) -> int:
        """How many bytes all files take on disk, as last measured; exact for complete files."""
        return self._disk_bytes

    def saw(self, file: SpoolFile, size_bytes: int) -> None:
        """Record how much a file takes on disk (called by the file, from any thread)."""
        with self._mutex:
            now = 0 if file.is_gone else size_bytes
            self._disk_bytes += now - file.seen_bytes
            file.seen_bytes = now

    def free(self, slot: int) -> bool:
        """Delete a slot's file (called by the file); ``False`` if the name stays, which the slot's next file then handles."""
        try:
            self.disk.unlink(self.path / str(slot))
        except OSError:
            return False
        finally:
            with self._mutex:
                heapq.heappush(self._free, slot)
        return True

    def close(self) -> None:
        """Delete everything. Synchronous, so that it works at interpreter exit. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        for file in list(self._open):
            file.discard()
        if self._owned is not None:
            self._owned.remove()
        self.disk.remove_if_empty(self.path.parent)  # ours was the last


def _spool_error(path: Path, error: OSError) -> SpoolError:
    if error.errno in _FULL:
        return _disk_full(path)
    if error.errno in _TOO_MANY:  # treated as a full disk: open files are used on, and chunks further ahead wait
        return DiskFullError(
            f"{path}: no more files can be opened for chunks ({error.strerror}; this process may have "
            f"{system.most_files() or 'any number'} open); close some, or raise the limit (ulimit -n)"
        )
    return SpoolError(f"{path}: cannot write a staged chunk: {error.strerror or error}")


def _disk_full(path: Path) -> DiskFullError:
    return DiskFullError(
        f"{path}: the file system is full, although the disk budget is not; free some space, name another spool_dir, "
        "or stage in memory alone with disk_budget=0"
    )
