"""A disk in memory behind the spool's file operations: it counts bytes, fails by script, and loses unsynced data at a crash."""

from __future__ import annotations

import errno
import itertools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dnc_async.spool.files import FOLDER_BYTES

from .disk_faults import DiskFaults


@dataclass(slots=True, eq=False)
class _File:
    path: Path
    data: bytearray = field(default_factory=bytearray)
    blocks: set[int] = field(default_factory=set)
    is_linked: bool = True
    is_open: bool = True


class SimulatedFolder:
    """A folder on the disk, owned by one engine."""

    def __init__(self, disk: SimulatedDisk, path: Path) -> None:
        self._disk = disk
        self.path = path

    def __repr__(self) -> str:
        return f"<SimulatedFolder {self.path}>"

    def restore(self) -> None:
        """Create the folder again, empty, after something else deleted it."""
        self._disk.add_folder(self.path)

    def remove(self) -> None:
        """Delete the folder with everything in it."""
        self._disk.remove_folder(self.path)


class SimulatedDisk:
    """Follows a script of :class:`DiskFaults`. ``clock`` counts from the script's start.

    ``used_bytes`` is what all files and folders take, including deleted files that are still open; ``peak_bytes`` is its
    maximum over all instants. ``faults`` counts the faults that were injected.
    """

    def __init__(self, script: DiskFaults, *, unit_bytes: int, clock: Callable[[], float]) -> None:
        self._script = script
        self._unit_bytes = unit_bytes
        self._clock = clock
        self._files: dict[Path, _File] = {}
        self._open: dict[int, _File] = {}
        self._folders: dict[Path, bool] = {}
        self._next = itertools.count(1)
        self._writes = self._reads = 0
        self._busy_s = 0.0
        self._is_tidied = False
        self.used_bytes = self.peak_bytes = 0
        self.faults: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<SimulatedDisk {self.used_bytes} bytes in {len(self._open)} open files>"

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left: no file, no folder, nothing open."""
        return not (self._files or self._open or self._folders or self.used_bytes)

    def busy_s(self) -> float:
        """How long the operations since the last call took."""
        busy, self._busy_s = self._busy_s, 0.0
        return busy

    def crash(self) -> None:
        """The machine loses its power: unsynced data is lost (a spool syncs nothing), but file names stay."""
        for file in self._files.values():
            self._count(file, set())
            file.data.clear()
            file.is_open = False
        for file in self._open.values():
            self._count(file, set())
        self._open.clear()
        self._folders = dict.fromkeys(self._folders, False)

    # Called by the spool.

    def claim(self, parent: Path) -> SimulatedFolder:
        """Delete what dead owners left, and create a new folder."""
        for path in [path for path, is_owned in self._folders.items() if not is_owned]:
            self.remove_folder(path)
        path = parent / f"{next(self._next):016x}"
        self.add_folder(path)
        return SimulatedFolder(self, path)

    def add_folder(self, path: Path) -> None:
        """Create a folder (called by the folder)."""
        if path not in self._folders:
            self._need(FOLDER_BYTES)
            self._use(FOLDER_BYTES)
        self._folders[path] = True

    def remove_folder(self, path: Path) -> None:
        """Delete a folder with everything in it (called by the folder)."""
        for file in [each for each in self._files if each.parent == path]:
            self.unlink(file)
        if self._folders.pop(path, None) is not None:
            self._use(-FOLDER_BYTES)

    def unit_bytes(self, folder: Path) -> int:
        """The allocation unit."""
        return self._unit_bytes

    def free_bytes(self, folder: Path) -> int | None:
        """How many bytes may still be written."""
        if self._is_full():
            return 0
        capacity = self._script.capacity
        return None if capacity is None else max(0, capacity - self.used_bytes)

    def make(self, path: Path) -> int:
        """Create a file."""
        self._tidy()
        if path.parent not in self._folders:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        if path in self._files:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        if self._script.files is not None and len(self._open) >= self._script.files:
            self._fail(errno.EMFILE, "files")
        self._need(0)
        fd, file = next(self._next), _File(path)
        self._files[path] = self._open[fd] = file
        return fd

    def write_at(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        """Write at an offset; every block that is touched is allocated."""
        self._tidy()
        self._writes += 1
        if self._script.write_error is not None and self._writes % self._script.write_error == 0:
            self._fail(errno.EIO, "write-error")
        file, size = self._file(fd), len(data)
        unit = self._unit_bytes
        blocks = file.blocks | set(range(offset // unit, -(-(offset + size) // unit)))
        self._need((len(blocks) - len(file.blocks)) * unit)
        self._count(file, blocks)
        if len(file.data) < offset + size:
            file.data.extend(bytes(offset + size - len(file.data)))
        file.data[offset : offset + size] = data
        self._takes(size)

    def read_at(self, fd: int, buffers: Sequence[tuple[int, memoryview]]) -> None:
        """Fill buffers, as the script allows."""
        file = self._file(fd)
        for offset, buffer in buffers:
            if not buffer.nbytes:
                continue
            self._reads += 1
            if self._script.read_error is not None and self._reads % self._script.read_error == 0:
                self._fail(errno.EIO, "read-error")
            if offset + buffer.nbytes > len(file.data):
                raise EOFError(f"the file ends at byte {len(file.data)}")
            buffer[:] = file.data[offset : offset + buffer.nbytes]
            if self._script.flip is not None and buffer.nbytes and self._reads % self._script.flip == 0:
                buffer[self._reads % buffer.nbytes] ^= 1 << (self._reads % 8)
                self.faults["flip"] += 1
            self._takes(buffer.nbytes)

    def disk_bytes(self, fd: int) -> int:
        """What the file takes."""
        return len(self._file(fd).blocks) * self._unit_bytes

    def truncate(self, fd: int) -> None:
        """Free a file's space."""
        file = self._file(fd)
        file.data.clear()
        self._count(file, set())

    def close(self, fd: int) -> None:
        """Close a file; a deleted one frees its space now."""
        file = self._open.pop(fd)
        file.is_open = False
        self._release(file)

    def unlink(self, path: Path) -> None:
        """Delete a file; an open one keeps its space."""
        file = self._files.pop(path, None)
        if file is not None:
            file.is_linked = False
            self._release(file)

    def clear(self, path: Path) -> None:
        """Delete whatever is there."""
        self.unlink(path)

    def remove_if_empty(self, folder: Path) -> None:
        """Does nothing: parents of folders are not simulated."""

    # Counting and failing.

    def _file(self, fd: int) -> _File:
        if fd not in self._open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._open[fd]

    def _release(self, file: _File) -> None:
        if not (file.is_linked or file.is_open):
            self._count(file, set())

    def _count(self, file: _File, blocks: set[int]) -> None:
        self._use((len(blocks) - len(file.blocks)) * self._unit_bytes)
        file.blocks = blocks

    def _use(self, more_bytes: int) -> None:
        self.used_bytes += more_bytes
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)

    def _is_full(self) -> bool:
        return self._script.full is not None and self._clock() in self._script.full

    def _need(self, more_bytes: int) -> None:
        capacity = self._script.capacity
        if self._is_full() or (capacity is not None and self.used_bytes + more_bytes > capacity):
            self._fail(errno.ENOSPC, "full")

    def _fail(self, number: int, fault: str) -> None:
        self.faults[fault] += 1
        raise OSError(number, os.strerror(number))

    def _takes(self, size_bytes: int) -> None:
        if self._script.rate is not None:
            self._busy_s += size_bytes / self._script.rate

    def _tidy(self) -> None:
        if self._script.tidy_s is not None and not self._is_tidied and self._clock() >= self._script.tidy_s:
            self._is_tidied = True
            self.faults["tidy"] += 1
            for path in list(self._folders):
                self.remove_folder(path)
