"""Adds a file or folder as plain UnixFS, with the same CIDs as Kubo: ``dnc add``.

Everything is streamed: one leaf of a file is held, and the entries of a folder. Symlinks are kept as symlinks and not followed.
What is neither file, folder nor symlink is refused, and so is a file that changes while it is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dnc_async.errors import DatasetError
from dnc_async.ipld.block import Block
from dnc_async.ipld.builder import FileBuilder, Profile, Root, build_directory, build_symlink

_PIECE_BYTES = 2**20
# In case something replaces the file before it is opened: do not wait for a FIFO's writer, do not follow a symlink.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


@dataclass(slots=True, kw_only=True)
class Added:
    """What was added so far; ``hidden`` are the names that were left out, at most 100 of them."""

    files: int = 0
    size_bytes: int = 0
    hidden_count: int = 0
    hidden: list[str] = field(default_factory=list)

    def skip(self, path: str) -> None:
        """Count a hidden file that is left out."""
        self.hidden_count += 1
        if len(self.hidden) < 100:
            self.hidden.append(path)


class Adder:
    """Adds paths to a sink of blocks. ``added`` counts progress; ``progress`` is called with it after each megabyte."""

    def __init__(
        self,
        put: Callable[[Block], None],
        *,
        profile: Profile,
        hidden: bool,
        progress: Callable[[Added], None] | None = None,
    ) -> None:
        """Without ``hidden``, names that begin with a dot are left out below a folder, as Kubo does."""
        self._put = put
        self._profile = profile
        self._hidden = hidden
        self._progress = progress
        self.added = Added()

    def add(self, path: Path) -> Root:
        """Add a file, a folder with everything below it, or a symlink. Children's blocks come before their parents'.

        Raises :class:`~dnc_async.errors.DatasetError`, which names the path that cannot be added.
        """
        try:
            return self._tree(str(path))
        except OSError as error:
            raise DatasetError(f"{error.filename or path}: {error.strerror or error}; nothing was added") from error

    def _tree(self, path: str) -> Root:
        """Walk depth first with an explicit stack, because folders may be nested deeper than Python's call stack."""
        root = self._leaf(path)
        if root is not None:
            return root
        open_folders = [_Folder("", path, self._names(path))]
        while True:
            folder = open_folders[-1]
            name = next(folder.names, None)
            if name is None:
                root = self._keep(*build_directory(folder.entries, self._profile))
                open_folders.pop()
                if not open_folders:
                    return root
                open_folders[-1].entries.append((folder.name, root))
                continue
            child = f"{folder.path}/{name}"
            root = self._leaf(child)
            if root is None:
                open_folders.append(_Folder(name, child, self._names(child)))
            else:
                folder.entries.append((name, root))

    def _names(self, path: str) -> Iterator[str]:
        for name in sorted(os.listdir(path)):  # noqa: PTH208 - names, and in bytes that no Path would keep
            if self._hidden or not name.startswith("."):
                yield name
            else:
                self.added.skip(f"{path}/{name}")

    def _leaf(self, path: str) -> Root | None:
        """Add what is not a folder; returns ``None`` for a folder."""
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            return None
        if stat.S_ISLNK(status.st_mode):
            self.added.files += 1
            return self._keep(*build_symlink(os.readlink(path), self._profile))  # noqa: PTH115 - the text as it is
        if stat.S_ISREG(status.st_mode):
            return self._file(path)
        raise DatasetError(f"{path} is neither a file, a folder nor a symlink, so it cannot be added")

    def _file(self, path: str) -> Root:
        builder = FileBuilder(self._profile)
        with open(os.open(path, _FLAGS), "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            before = os.fstat(file.fileno())
            while piece := file.read(_PIECE_BYTES):
                for block in builder.feed(piece):
                    self._put(block)
                self.added.size_bytes += len(piece)
                self._tell()
            after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise DatasetError(f"{path} changed while it was read; nothing was added")
        self.added.files += 1
        self._tell()
        return self._keep(*builder.finish())

    def _keep(self, blocks: list[Block], root: Root) -> Root:
        for block in blocks:
            self._put(block)
        return root

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress(self.added)


@dataclass(slots=True)
class _Folder:
    """A folder whose entries are not all added yet."""

    name: str
    path: str
    names: Iterator[str]
    entries: list[tuple[str, Root]] = field(default_factory=list)
