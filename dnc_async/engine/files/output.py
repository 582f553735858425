"""The output of ``get``: a file or tree under a hidden name beside the target, which is renamed at the end.

The hidden name contains the CID, so that a call that was killed can be continued: every byte is hashed again before it counts.
Nothing is written through a symlink: the tree's own symlinks are created last, files are opened without following one, and an
output that another user owns, as far as the file system distinguishes users, is refused. Everything is synchronous, for worker
threads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

from dnc_async.errors import OutputError
from dnc_async.ipld.block import MAX_BLOCK_BYTES
from dnc_async.ipld.cid import Cid
from dnc_async.ipld.plan import Leaf, holds
from dnc_async.ipld.unixfs import UnixFs
from dnc_async.quoting import quoted
from dnc_async.store.durable import flush
from dnc_async.system import Lock, block_bytes, free_bytes, try_lock, write_at

_FLAGS = (
    os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)
_UNPROTECTED = "two calls that write to one target at once would not notice each other: run one at a time"
_RESERVED_ON_WINDOWS = frozenset('<>:"\\|?*') | {chr(code) for code in range(32)}


@contextlib.contextmanager
def output_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Convert an ``OSError`` to an :class:`~dnc_async.errors.OutputError` that names the file."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space and repeat the call, which continues from here" if full else "choose another place"
        raise OutputError(
            f"{quoted(os.fsdecode(error.filename or path))}: {error.strerror or error}; {remedy}"
        ) from error
    except UnicodeEncodeError as error:
        encoding = sys.getfilesystemencoding()
        raise OutputError(
            f"{os.fspath(path)!r} is a name that this system's encoding ({encoding}) cannot write; choose another one"
        ) from error


def part_of(target: Path, cid: Cid) -> Path:
    """The hidden name, in the target's folder, one for each CID."""
    return target.with_name(f".{target.name[:40]}.{str(cid)[-24:]}.part")


class PartialOutput:
    """A file or tree that is being written. Only one process at a time uses it."""

    def __init__(self, path: Path, target: Path, *, folder: bool) -> None:
        """Create it, or take over what an earlier call left; raises :class:`~dnc_async.errors.OutputError`."""
        self.path = path
        self.target = target
        self._folder = folder
        self._made: dict[tuple[int, int], str] = {}
        self._making = threading.Lock()
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.resumed = os.path.lexists(path)
            if folder and not self.resumed:
                path.mkdir()
            self._descriptor = self._claim()

    def _claim(self) -> int:
        if os.name != "posix":  # pragma: no cover - folders cannot be opened, nor open files renamed
            return -1
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path, flags | (os.O_DIRECTORY if self._folder else os.O_CREAT), 0o666)
        try:
            # Its owner could change it without our notice, also after it was renamed to the target.
            owner = os.fstat(descriptor).st_uid
            ours = owner == os.geteuid() or owner == _owner_of_new_files(self.path.parent)
            if ours and try_lock(descriptor, self.path.parent, _UNPROTECTED) is not Lock.HELD:
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        why = "is being written by another process; wait for it" if ours else "is another user's; remove it"
        raise OutputError(f"{quoted(str(self.path))} {why}, or choose another place")

    def file(self, name: str, size: int | None = None) -> OutputFile:
        """Open a file in it (or itself, by an empty name) to write ``size`` bytes into it."""
        path = self._inside(name)
        with output_errors(path):
            file = OutputFile.open(path)
            try:
                self._remember(file.identity, path)
                if size is not None:
                    self._check_room(path, size - file.old_bytes)
            except BaseException:
                file.close()
                raise
        return file

    def write(self, name: str, cid: Cid, data: bytes, body: UnixFs | None) -> None:
        """Write a whole file that is in one block."""
        file = self.file(name)
        try:
            file.place(Leaf(cid, 0, len(data), data), data)
            file.finish(len(data), body)
        finally:
            file.close()

    def _check_room(self, path: str, size: int) -> None:
        if size > shutil.disk_usage(self.path.parent).free:
            raise OutputError(
                f"{quoted(path)}: {size} bytes are still missing, and the disk has no space for them; free some space"
            )

    def check_entries(self, entries: Callable[[], int]) -> None:
        """Raise :class:`~dnc_async.errors.OutputError` if there is no space for so many entries: each takes a block at least."""
        count = entries()
        with output_errors(self.path):
            there = sum(len(folders) + len(names) for _, folders, names in os.walk(self.path))
            free, block = free_bytes(self.path.parent), block_bytes(self.path.parent)
        if free is not None and (count - there) * block > free:
            raise OutputError(
                f"{quoted(str(self.path))}: the tree has {count:,} entries or more, of which {there:,} were made, and the disk "
                f"has space for {free // block:,} others; free some space, or get a part of it"
            )

    def has(self, name: str, cid: Cid) -> int | None:
        """The size of the file that an earlier call left here, if its content is that of this block; else ``None``."""
        path = self._inside(name)
        with output_errors(path):
            try:
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    return None
                descriptor = os.open(path, _FLAGS & ~os.O_CREAT)
            except (FileNotFoundError, PermissionError):
                return None
            try:
                status = os.fstat(descriptor)
                if status.st_size > MAX_BLOCK_BYTES:
                    return None
                data = os.pread(descriptor, status.st_size, 0)
            finally:
                os.close(descriptor)
        if not holds(Leaf(cid, 0, len(data), None), data):
            return None
        self._remember((status.st_dev, status.st_ino), path)
        return len(data)

    def make_folder(self, name: str) -> None:
        """Create a folder in it, unless an earlier call did."""
        path = self._inside(name)
        with output_errors(path):
            try:
                os.mkdir(path)  # noqa: PTH102 - a Path for each name costs more than the call
            except FileExistsError:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    raise
            status = os.lstat(path)
            self._remember((status.st_dev, status.st_ino), path)

    def link(self, name: str, text: str, mtime: tuple[int, int] | None) -> None:
        """Create a symlink with exactly this text."""
        path = self._inside(name)
        with output_errors(path):
            if not name or os.path.islink(path):  # noqa: PTH114 - as above
                os.unlink(path)  # noqa: PTH108 - an earlier call's, or the empty file that is the part
            os.symlink(text, path)  # noqa: PTH211
            if mtime is not None:
                os.utime(path, ns=(_nanoseconds(mtime),) * 2, follow_symlinks=False)

    def dress(self, name: str, body: UnixFs) -> None:
        """Set the mode and time of a folder to those in its node."""
        path = self._inside(name)
        with output_errors(path):
            if body.mode is not None:
                os.chmod(path, body.mode & 0o777)  # noqa: PTH101
            if body.mtime is not None:
                os.utime(path, ns=(_nanoseconds(body.mtime),) * 2)

    def flush(self, file: OutputFile) -> None:
        """Write to the disk what was written into a file of it so far. An error is told as :meth:`publish` tells it."""
        with output_errors(file.path if self._folder else self.target):
            file.flush()

    def publish(self) -> None:
        """Rename it to its target. Nothing that exists is replaced, except for an empty folder."""
        with output_errors(self.target):
            if self._folder:
                flush(self.path)
            elif self._descriptor >= 0:
                os.fsync(self._descriptor)
            refuse_taken(self.target, folder=self._folder)
            os.replace(self.path, self.target)  # noqa: PTH105

    def close(self) -> None:
        """Unlock it. If it is empty it is removed; otherwise it stays for the next call, unless it was published."""
        with contextlib.suppress(OSError):
            if self._folder:
                self.path.rmdir()
            elif not self.path.lstat().st_size:
                self.path.unlink()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _inside(self, name: str) -> str:
        if os.name == "nt" and _RESERVED_ON_WINDOWS & set(name.replace("/", "")):  # pragma: no cover - experimental
            raise OutputError(f"{name!r} is a name that this system cannot keep")
        return f"{self.path}/{name}" if name else str(self.path)

    def _remember(self, identity: tuple[int, int], path: str) -> None:
        with self._making:
            other = self._made.setdefault(identity, path)
        if other != path:
            raise OutputError(
                f"{quoted(path)} and {quoted(other)} are one file here: this file system does not tell their names apart"
            )


def _owner_of_new_files(folder: Path) -> int:
    """The owner of files that we create in a folder: on mounts that map users, and some of FUSE's, it is not us."""
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
    try:
        return os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)
        os.unlink(name)  # noqa: PTH108 - as above


def refuse_taken(target: Path, *, folder: bool) -> None:
    """Raise :class:`~dnc_async.errors.OutputError` if a file or folder of this name exists already."""
    with output_errors(target):
        if folder and target.is_dir() and not target.is_symlink():
            if any(target.iterdir()):
                raise OutputError(
                    f"{quoted(str(target))} is a folder that is not empty; remove it, or choose another place"
                )
        elif target.exists() or target.is_symlink():
            raise OutputError(f"{quoted(str(target))} is there already; remove it, or choose another place")


class OutputFile:
    """One file that is written in pieces, by several threads."""

    def __init__(self, path: str, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self.path = path
        self.old_bytes = status.st_size
        self.identity = (status.st_dev, status.st_ino)
        self._descriptor = descriptor
        self._using = threading.Lock()

    @classmethod
    def open(cls, path: str) -> Self:
        """Open a regular file, created if necessary, whatever mode an earlier call gave it."""
        try:
            descriptor = os.open(path, _FLAGS, 0o666)
        except PermissionError:
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise
            os.chmod(path, 0o600)  # noqa: PTH101
            descriptor = os.open(path, _FLAGS)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OutputError(f"{quoted(path)} is in the way, and is not a file; remove it")
        return cls(path, descriptor)

    def place(self, leaf: Leaf, data: bytes) -> None:
        """Write a leaf's bytes at their offset; does nothing once the file was closed."""
        with self._using, output_errors(self.path):
            if self._descriptor >= 0:
                write_at(self._descriptor, data, leaf.offset)

    def lacking(self, leaves: Sequence[Leaf]) -> list[Leaf]:
        """The leaves that an earlier call did not write, or not correctly."""
        if not self.old_bytes:
            return list(leaves)
        return [leaf for leaf in leaves if not self._has(leaf)]

    def _has(self, leaf: Leaf) -> bool:
        size = leaf.size or 0
        if leaf.inline is not None or size > MAX_BLOCK_BYTES or leaf.offset + size > self.old_bytes:
            return False
        with output_errors(self.path):
            return holds(leaf, os.pread(self._descriptor, size, leaf.offset))

    def flush(self) -> None:
        """Write to the disk what was written into it so far; does nothing once it was closed, or where the system cannot."""
        with self._using:
            if self._descriptor < 0 or not hasattr(os, "fdatasync"):
                return
            descriptor = os.dup(self._descriptor)  # others write meanwhile, and may close theirs
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def finish(self, size: int, body: UnixFs | None) -> None:
        """Truncate it to its size, and set the mode and time in its node."""
        with output_errors(self.path):
            os.ftruncate(self._descriptor, size)
            if body is not None and body.mode is not None:
                os.fchmod(self._descriptor, body.mode & 0o777)
            if body is not None and body.mtime is not None:
                os.utime(self.path, ns=(_nanoseconds(body.mtime),) * 2)

    def close(self) -> None:
        """Close it, after the writes that are in progress."""
        with self._using:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _nanoseconds(mtime: tuple[int, int]) -> int:
    return mtime[0] * 10**9 + mtime[1]
