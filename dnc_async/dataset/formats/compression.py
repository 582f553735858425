"""Compressed files: which suffix says it, and the stream of what is inside."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Protocol

from dnc_async.dataset.formats.extras import pyarrow


class ByteStream(Protocol):
    """Bytes that are read from their beginning to their end."""

    def read(self, size: int, /) -> bytes:
        """At most so many of the next bytes; none at the end."""


def _by_arrow(codec: str) -> Callable[[IO[bytes], str], ByteStream]:
    def opened(raw: IO[bytes], where: str) -> ByteStream:
        stream: Any = pyarrow(where)
        return stream.CompressedInputStream(stream.PythonFile(raw, mode="r"), codec)  # type: ignore[no-any-return]

    return opened


_OPENERS: dict[str, Callable[[IO[bytes], str], ByteStream]] = {
    ".gz": lambda raw, _: gzip.GzipFile(fileobj=raw, mode="rb"),
    ".bz2": lambda raw, _: bz2.BZ2File(raw),
    ".xz": lambda raw, _: lzma.LZMAFile(raw),  # noqa: SIM115 - the caller reads it
    ".zst": _by_arrow("zstd"),
    ".lz4": _by_arrow("lz4"),
}
_SHORT = {".tgz": (".tar", ".gz"), ".tbz2": (".tar", ".bz2"), ".txz": (".tar", ".xz")}
_MAGIC = {
    b"\x1f\x8b": ".gz",
    b"BZh": ".bz2",
    b"\xfd7zXZ\0": ".xz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"\x04\x22\x4d\x18": ".lz4",
}
#: What damaged data raises: each library has its own errors.
DAMAGE = (EOFError, OSError, lzma.LZMAError, ValueError)


def suffixes(path: Path) -> tuple[str, str]:
    """The suffix of what is inside, and that of the compression, empty if there is none: ``.csv`` and ``.gz``."""
    last = path.suffix.lower()
    if last in _SHORT:
        return _SHORT[last]
    return (Path(path.stem).suffix.lower(), last) if last in _OPENERS else (last, "")


def by_magic(head: bytes) -> str:
    """The suffix of the compression that a file's first bytes show; empty if none."""
    return next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), "")


def decompressed(raw: IO[bytes], suffix: str, where: str) -> ByteStream:
    """The stream of what is inside of a compressed file."""
    return _OPENERS[suffix](raw, where)
