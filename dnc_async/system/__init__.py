"""The operating system: file locks, and reads and writes at a position, which Windows does differently.

Linux and macOS are supported; the fallbacks for Windows are experimental.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import functools
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if sys.platform == "win32":  # pragma: no cover - experimental, not tested in CI
    import msvcrt
else:
    import fcntl
    import resource


#: The error numbers if another process holds the lock. Any other means that the file system has no locks: NFS without
#: lockd (ENOLCK), Lustre and some containers (ENOSYS, EOPNOTSUPP, EINVAL), a descriptor that NFS cannot lock (EBADF).
_HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK})


class Lock(enum.Enum):
    """The result of trying to lock a file."""

    OURS = "ours"
    HELD = "held"  # by another process
    UNAVAILABLE = "unavailable"  # the file system has no locks


def try_lock(fd: int, folder: str | os.PathLike[str], unprotected: str) -> Lock:
    """Try to take an exclusive lock on an open file, without waiting.

    The lock belongs to the open file: it is released when the last descriptor of the file is closed, or its process dies. If
    the file system has no locks, a warning names the ``folder`` and what is ``unprotected`` there, once.
    """
    try:
        if sys.platform == "win32":  # pragma: no cover
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return Lock.HELD
        _warn_of_no_locks(os.fspath(folder), error.strerror or str(error), unprotected)
        return Lock.UNAVAILABLE
    return Lock.OURS


@functools.lru_cache(maxsize=256)  # so each is said once
def _warn_of_no_locks(folder: str, why: str, unprotected: str) -> None:
    logging.getLogger("dnc_async").warning("%s: files cannot be locked here (%s), so %s", folder, why, unprotected)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``. Other threads may write elsewhere in the file at the same time."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def read_at(fd: int, buffers: Sequence[tuple[int, memoryview]]) -> None:
    """Fill each (offset, buffer); raises ``EOFError`` if the file ends before a buffer is full."""
    for start, buffer in buffers:
        offset, rest = start, buffer
        while rest:
            count = os.preadv(fd, [rest], offset)
            if not count:
                raise EOFError(f"the file ends at byte {offset}, {len(rest)} bytes early")
            rest, offset = rest[count:], offset + count


def disk_bytes(fd: int) -> int:
    """How many bytes a file takes on disk: its blocks, not its length."""
    status = os.fstat(fd)
    return status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size


def block_bytes(folder: str | os.PathLike[str]) -> int:
    """The allocation unit, in bytes, of the file system that a folder is on."""
    return os.statvfs(folder).f_frsize or 4096 if hasattr(os, "statvfs") else 4096


def free_bytes(folder: str | os.PathLike[str]) -> int | None:
    """How many bytes we may still write to the file system that a folder is on; ``None`` if it does not say."""
    if not hasattr(os, "statvfs"):  # pragma: no cover - experimental
        return None
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def tree_disk_bytes(folder: str | os.PathLike[str]) -> int:
    """How many bytes all files below a folder take on disk, as ``du`` counts. Files that vanish meanwhile are skipped."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(f"{place}/{name}").st_blocks * 512  # noqa: PTH116 - called hundreds of times a second
    return total


def most_files() -> int | None:
    """How many files this process may have open at once; ``None`` if there is no limit, or it is not known."""
    if sys.platform == "win32":  # pragma: no cover
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def spare_files() -> int | None:
    """How many more files this process may open now; ``None`` if there is no limit, or it is not known."""
    limit = most_files()
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return None if limit is None else max(0, limit - sum(1 for _ in Path(folder).iterdir()))
    return limit


def peak_memory_bytes() -> int | None:
    """The peak resident memory of this process so far, in bytes; ``None`` if it is not known."""
    if sys.platform == "win32":  # pragma: no cover
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def memory_bytes() -> int | None:
    """The memory that this process may use at most: the machine's, or its container's if that has less; ``None`` if unknown."""
    limits = []
    with contextlib.suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # ValueError: the limit is "max"
            limits.append(int(Path(name).read_text(encoding="ascii")))
    return min((limit for limit in limits if limit > 0), default=None)


def unlink_quietly(path: str | os.PathLike[str]) -> None:
    """Delete a file if it exists."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.unlink(path)  # noqa: PTH108 - also called at interpreter exit, where less is better
