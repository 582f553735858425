"""The files and folders of a store. No other module knows these names.

::

    format               one line: what this folder is, and the version of its layout
    blocks/xy/<name>     a block's bytes; <name> is its multihash in base32, xy the two characters before the last
    roots/<cid>          an empty file for each committed root
    staging/<random>/    the blocks of one open transaction, in the same subfolders; <random>.lock is locked while it lives

The blocks are distributed over 1,024 subfolders, so that a million blocks are a thousand files in each. The last character of a
base32 digest has only a few bits, so the two before it are used.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from base64 import b32encode
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from dnc_async.errors import CidError, StoreError
from dnc_async.ipld.block import MAX_BLOCK_BYTES
from dnc_async.ipld.cid import Cid

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT = "dnc_async block store 1"
# Non-blocking, because a block's path may be anything: opening a FIFO would wait for its writer.
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_PARTS = frozenset({"blocks", "format", "roots", "staging"})


def block_name(cid: Cid) -> str:
    """The file name of a block: the same for every CID with its multihash."""
    return b32encode(cid.multihash).decode("ascii").rstrip("=").lower()


@contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """Convert an ``OSError`` to a :class:`StoreError` that begins with ``doing``."""
    try:
        yield
    except OSError as error:
        remedy = "check who owns the folder and the space on its disk, or choose another one"
        where = f"{error.filename}: " if error.filename is not None and os.fspath(error.filename) not in doing else ""
        raise StoreError(f"{doing}: {where}{error.strerror or error}; {remedy}") from error


@dataclass(frozen=True)
class StoreLayout:
    """The paths of one store. Call :meth:`create` or :meth:`check` before using them."""

    path: Path
    blocks: Path
    roots: Path
    staging: Path

    @classmethod
    def at(cls, path: Path) -> Self:
        """The paths of the store at ``path``. Does not access the disk."""
        return cls(path=path, blocks=path / "blocks", roots=path / "roots", staging=path / "staging")

    def create(self) -> None:
        """Create an empty store here, or complete one. Refuses a folder that contains anything else."""
        if self._exists() and not self.path.is_dir():
            raise StoreError(f"{self.path} is a file, not a folder; name a folder for the store")
        with store_errors(f"cannot make a store in {self.path}"):
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_strangers()
            if not (self.path / "format").exists():
                self._write_whole(self.path / "format", f"{FORMAT}\n".encode())
            for part in (self.blocks, self.roots, self.staging):
                part.mkdir(exist_ok=True)
        self.check()
        self.check_writable()

    def check(self) -> None:
        """Raise :class:`StoreError` unless this folder is a store that this version can read."""
        if not self._exists():
            raise StoreError(f"{self.path}: there is no store here; publish to it first, or open it with create=True")
        if not self.path.is_dir():
            raise StoreError(f"{self.path} is a file, not a folder; name the folder of a store")
        try:
            found = (self.path / "format").read_text("utf-8", "replace").strip()
        except FileNotFoundError:
            raise StoreError(
                f"{self.path} is not a store: it has no file called 'format'; name another folder, or open it "
                "with create=True if it is empty"
            ) from None
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error.strerror}; check who owns the folder") from error
        if found != FORMAT:
            raise StoreError(
                f"{self.path} holds {found!r}, this version reads {FORMAT!r}; use the version that wrote it, "
                "or another folder"
            )

    def _exists(self) -> bool:
        with store_errors(f"cannot look for a store in {self.path}"):  # for example in another user's folder
            return self.path.exists()

    def check_writable(self) -> None:
        """Raise :class:`StoreError` if blocks cannot be added. Reading needs no permission to write."""
        for part in (self.blocks, self.roots, self.staging):
            if not os.access(part, os.W_OK | os.X_OK):
                raise StoreError(
                    f"{part} is not writable for this user; give the user the right to, or choose another store"
                )

    def block_path(self, name: str, *, under: Path | None = None) -> Path:
        """The path of the block ``name``, in the store or under another folder with the same subfolders."""
        return Path(f"{under or self.blocks}/{name[-3:-1]}/{name}")

    def size_of(self, name: str) -> int | None:
        """The size in bytes of a stored block; ``None`` if it is not stored."""
        try:
            return os.stat(f"{self.blocks}/{name[-3:-1]}/{name}").st_size  # noqa: PTH116 - a Path costs 10 times more
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, name: str) -> bytes | None:
        """The bytes of a stored block, unverified; ``None`` if it is not stored. Raises ``OSError`` if they cannot be read."""
        try:
            descriptor = os.open(f"{self.blocks}/{name[-3:-1]}/{name}", _READ)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "this is no file")
            if status.st_size > MAX_BLOCK_BYTES:
                raise OSError(errno.EFBIG, f"{status.st_size} bytes are more than a block may have")
            return os.read(descriptor, status.st_size)  # a third less time than a file object takes
        finally:
            os.close(descriptor)

    def holds(self, name: str, data: bytes) -> bool:
        """Whether the block ``name`` is stored, and its file contains exactly these bytes."""
        try:
            return self.read(name) == data
        except OSError:
            return False

    def move_in(self, staged: Path, name: str) -> None:
        """Rename a staged block into the store, replacing what has its name there."""
        target = self.block_path(name)
        try:
            staged.replace(target)
        except FileNotFoundError:
            target.parent.mkdir(exist_ok=True)
            staged.replace(target)
        except IsADirectoryError:
            try:
                target.rmdir()
            except OSError as error:
                raise OSError(
                    error.errno, "a folder that is not empty is in a block's place; remove it", target
                ) from error
            staged.replace(target)

    def add_root(self, root: Cid) -> None:
        """Add ``root`` to the committed roots."""
        (self.roots / str(root)).touch()

    def list_roots(self) -> list[Cid]:
        """The committed roots, sorted by their text."""
        return [root for name in self._root_names() if (root := _cid(name)) is not None]

    def list_strangers(self) -> list[str]:
        """The files among the roots that are not roots, such as ``.DS_Store``, sorted."""
        return [name for name in self._root_names() if _cid(name) is None]

    def _root_names(self) -> list[str]:
        return sorted(os.listdir(self.roots))  # noqa: PTH208 - names, not Paths

    def _refuse_strangers(self) -> None:
        strangers = [entry.name for entry in self.path.iterdir() if entry.name not in _PARTS]
        strangers = sorted(name for name in strangers if not name.startswith(".format-"))
        if strangers and not (self.path / "format").exists():
            raise StoreError(
                f"{self.path} is not empty and not a store (it holds {strangers[0]!r}); name an empty folder"
            )

    @staticmethod
    def _write_whole(path: Path, data: bytes) -> None:
        """Write a small file so that no reader ever sees half of it."""
        draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        draft.write_bytes(data)
        draft.replace(path)


def _cid(text: str) -> Cid | None:
    try:
        return Cid.parse(text, foreign=True)
    except CidError:
        return None
