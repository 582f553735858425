"""How a store lies on disk. Nothing else knows these names.

::

    format               one line: what this folder is, and the version of its layout
    blocks/xy/<name>     a block's bytes; <name> is its multihash in base32, xy the two characters before the last
    roots/<cid>          an empty file for each root that was committed
    staging/<random>/    one open transaction's blocks, under the same fan-out; <random>.lock says that it lives

The fan-out makes 1,024 folders, so that a million blocks are a thousand files in each. The last character of a
base32 digest carries only a few bits, which is why the two before it are taken.
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
# What lies in a block's place may be anything: a FIFO is not waited for.
_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_PARTS = frozenset({"blocks", "format", "roots", "staging"})


def block_name(cid: Cid) -> str:
    """Give the file name of a block: the same for every CID with its multihash."""
    return b32encode(cid.multihash).decode("ascii").rstrip("=").lower()


@contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """Raise what the operating system says as a :class:`StoreError` that begins with ``doing``."""
    try:
        yield
    except OSError as error:
        remedy = "check who owns the folder and the space on its disk, or choose another one"
        where = f"{error.filename}: " if error.filename is not None and os.fspath(error.filename) not in doing else ""
        raise StoreError(f"{doing}: {where}{error.strerror or error}; {remedy}") from error


@dataclass(frozen=True)
class Layout:
    """The paths of one store. :meth:`create` and :meth:`check` are the only ways to be sure that it exists."""

    path: Path
    blocks: Path
    roots: Path
    staging: Path

    @classmethod
    def at(cls, path: Path) -> Self:
        """Name the parts of a store; touches no disk."""
        return cls(path=path, blocks=path / "blocks", roots=path / "roots", staging=path / "staging")

    def create(self) -> None:
        """Make an empty store here, or complete one. A folder with anything else in it is refused."""
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
        """Raise :class:`StoreError` unless this folder holds a store that this version reads."""
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
        with store_errors(f"cannot look for a store in {self.path}"):  # in a folder of somebody else's, say
            return self.path.exists()

    def check_writable(self) -> None:
        """Raise :class:`StoreError` if blocks cannot be added here. Reading needs no permission to write."""
        for part in (self.blocks, self.roots, self.staging):
            if not os.access(part, os.W_OK | os.X_OK):
                raise StoreError(
                    f"{part} is not writable for this user; give the user the right to, or choose another store"
                )

    def block_path(self, name: str, *, under: Path | None = None) -> Path:
        """Where the block called ``name`` lies, in the store or under another folder with its fan-out."""
        return Path(f"{under or self.blocks}/{name[-3:-1]}/{name}")

    def size_of(self, name: str) -> int | None:
        """Give the size in bytes of a stored block; None if it is not there."""
        try:
            return os.stat(f"{self.blocks}/{name[-3:-1]}/{name}").st_size  # noqa: PTH116 - a Path costs 10 times more
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, name: str) -> bytes | None:
        """Give the bytes of a stored block as they are; None if it is not there. Raises ``OSError`` where they cannot be read."""
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
        """Whether the block called ``name`` is stored, and its file can be read and has just these bytes."""
        try:
            return self.read(name) == data
        except OSError:
            return False

    def move_in(self, staged: Path, name: str) -> None:
        """Rename a staged block into the store; whatever has its name there is replaced."""
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
        """List ``root`` among the committed ones."""
        (self.roots / str(root)).touch()

    def list_roots(self) -> list[Cid]:
        """Give the committed roots, sorted by their text."""
        return [root for name in self._root_names() if (root := _cid(name)) is not None]

    def list_strangers(self) -> list[str]:
        """Give the names among the roots that are none, such as ``.DS_Store``, sorted."""
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
        """Write a small file so that nobody ever sees half of it."""
        draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        draft.write_bytes(data)
        draft.replace(path)


def _cid(text: str) -> Cid | None:
    try:
        return Cid.parse(text, foreign=True)
    except CidError:
        return None
