"""A file on IPFS that is read like one on disk: seekable, by ranges, verified."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Protocol, Self, TypeVar

from dnc_async.engine.files.paths import locate
from dnc_async.engine.files.reader import FileReader
from dnc_async.errors import ArgumentError, PathError, StreamClosedError
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld.cid import Cid

T = TypeVar("T")
_READ_AHEAD_BYTES = 4 * 2**20


class Caller(Protocol):
    """Runs a function in the engine, with its own fetch group."""

    async def __call__(self, function: Callable[[FetchGroup], Awaitable[T]], /) -> T:
        """The function's result."""


class RemoteFile:
    """A file on IPFS, open for reading: ``async with dnc_async.open(path) as file: await file.read(100)``.

    It has a position, as any file, which :meth:`read` and :meth:`seek` move. A read that continues where the last one ended
    fetches 4 MiB ahead, so that small reads do not wait one by one. One call at a time.
    """

    def __init__(
        self,
        root: Cid,
        path: Sequence[str],
        *,
        call: Caller,
        close: Callable[[], Awaitable[None]] | None,
        limit_bytes: int,
    ) -> None:
        """``limit_bytes`` may be requested at once; ``close`` is called when it is closed."""
        self._root = root
        self._path = tuple(path)
        self._about = "/".join([str(root), *path])
        self._call = call
        self._close = close
        self._limit_bytes = limit_bytes
        self._reader: FileReader | None = None
        self._closed = False
        self._position = 0
        self._read_on = 0
        self._ahead = (0, b"")

    def __repr__(self) -> str:
        state = "closed" if self._closed else "not opened" if self._reader is None else f"at byte {self._position}"
        return f"<RemoteFile {self._about}: {state}>"

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def size(self) -> int:
        """The file's size in bytes."""
        return (await self._open()).size_bytes

    async def tell(self) -> int:
        """The position in bytes."""
        return self._position

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, relative to the start, the position or the end, and return it. It may be behind the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: await self.size()}.get(whence)
        if base is None or base + offset < 0:
            raise ArgumentError(f"seek: expected a place in the file, got offset {offset} with whence {whence}")
        self._position = base + offset
        return self._position

    async def read(self, size: int = -1) -> bytes:
        """The next ``size`` bytes, by default all that are left; fewer at the end, none behind it."""
        reader = await self._open()
        start = self._position
        end = reader.size_bytes if size < 0 else min(reader.size_bytes, start + size)
        if start >= end:
            return b""
        data = await self._range(reader, start, end)
        self._position = self._read_on = end
        return data

    async def _range(self, reader: FileReader, start: int, end: int) -> bytes:
        begin, held = self._ahead
        there = held[start - begin : end - begin] if begin <= start <= begin + len(held) else b""
        if len(there) == end - start:
            return there
        first = start + len(there)
        last = min(reader.size_bytes, max(end, first + _READ_AHEAD_BYTES)) if start == self._read_on else end

        async def fetch(group: FetchGroup) -> bytes:
            return await reader.read(group, first, last, limit_bytes=self._limit_bytes)

        fresh = await self._call(fetch)
        self._ahead = (first, fresh) if len(fresh) <= _READ_AHEAD_BYTES else (last, b"")
        return there + fresh[: end - first]

    async def aclose(self) -> None:
        """Close it. May be called again."""
        self._closed = True
        self._ahead = (0, b"")
        if self._close is not None:
            await self._close()

    async def _open(self) -> FileReader:
        if self._closed:
            raise StreamClosedError(f"{self._about} was closed; open it again with open()")
        if self._reader is None:

            async def locate_it(group: FetchGroup) -> FileReader:
                reader = FileReader(await locate(group, self._root, self._path), about=self._about)
                if not reader.is_sized:
                    raise PathError(
                        f"{self._about} does not say how long its parts are: read it whole, by cat() or get()"
                    )
                return reader

            self._reader = await self._call(locate_it)
        return self._reader
