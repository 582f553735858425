"""A file on IPFS that is read like one on disk: seekable, by ranges, verified."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from dnc_async.engine.bridge import check_not_forked, finalize
from dnc_async.engine.files.paths import locate, parsed
from dnc_async.engine.files.read_window import AheadLimit, Begin, ReadWindow
from dnc_async.engine.files.reader import FileReader
from dnc_async.errors import ArgumentError, PathError, StreamClosedError
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld.cid import Cid

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

T = TypeVar("T")


class Caller(Protocol):
    """Runs a function in the engine, with its own fetch group."""

    async def __call__(self, function: Callable[[FetchGroup], Awaitable[T]], /) -> T:
        """The function's result."""


class RemoteFile:
    """A file on IPFS, open for reading: ``async with dnc_async.open(path) as file: await file.read(100)``.

    It has a position, as any file, which :meth:`read`, :meth:`readinto` and :meth:`seek` move. Reads that follow one another
    are recognised, and what comes next is fetched ahead: about twice as many bytes as they have read, and no more than
    :attr:`~dnc_async.config.FetchSettings.in_flight_bytes`, which the files of a client share. A read elsewhere drops it, and
    fetches only its own range. A cancelled read loses nothing: the position stays. One call at a time.
    """

    def __init__(
        self,
        root: Cid,
        path: Sequence[str],
        *,
        call: Caller,
        begin: Begin,
        close: Callable[[], Awaitable[None]] | None,
        limit: AheadLimit,
    ) -> None:
        """``call`` and ``begin`` run functions in the engine; ``close`` is called when it is closed."""
        self._root = root
        self._path = tuple(path)
        self._about = "/".join([str(root), *path])
        self._call = call
        self._begin = begin
        self._close = close
        self._limit = limit
        self._pid = os.getpid()
        self._reader: FileReader | None = None
        self._closed = False
        self._position = 0
        self._is_reading = False
        self._windows: list[ReadWindow] = []  # the last one serves reads; others have not ended yet
        self._finalizer = finalize(self, partial(_cancel_all, self._windows))

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
        # Its buffer becomes the result without a copy, and grows as the bytes arrive, because the size cannot be trusted.
        whole = io.BytesIO()
        await self._read(size, whole.write)
        return whole.getvalue()

    async def readinto(self, buffer: WriteableBuffer) -> int:
        """Read the next bytes into a writable buffer, as many as it has space for, and return how many there were."""
        view = memoryview(buffer).cast("B")
        if view.readonly:
            raise ArgumentError(
                "readinto: expected a writable buffer, such as a bytearray or an array, got one that is not"
            )
        at = 0

        def put(part: memoryview) -> None:
            nonlocal at
            view[at : at + len(part)] = part
            at += len(part)

        await self._read(len(view), put)
        return at

    async def _read(self, size: int, put: Callable[[memoryview], object]) -> None:
        """Call ``put`` with the next bytes, in order."""
        check_not_forked(self._pid)
        reader = await self._open()
        start = self._position
        end = reader.size_bytes if size < 0 else min(reader.size_bytes, start + size)
        if start >= end:
            return
        if self._is_reading:  # another task reads another place meanwhile
            limit = self._limit.limit_bytes
            put(memoryview(await self._call(lambda group: reader.read(group, start, end, limit_bytes=limit))))
        else:
            self._is_reading = True
            try:
                await asyncio.sleep(0)  # a task whose reads find all there must not keep others from running
                await self._copy(reader, start, end, put)
            finally:
                self._is_reading = False
        self._position = end

    async def _copy(self, reader: FileReader, start: int, end: int, put: Callable[[memoryview], object]) -> None:
        window = self._window(reader, start, end)
        at = start
        while True:
            for part in window.take(at, end):
                put(part)
                at += len(part)
            if at == end or end - start > self._limit.limit_bytes:
                window.advance(at)
            if at == end:
                return
            try:
                await window.wait(at, end)
            except Exception:
                window.close()
                self._check_open()
                if not window.has_read_ahead:
                    raise
                # What failed may have been ahead of this read.
                window = self._new_window(reader, at, end, may_read_ahead=False)

    def _window(self, reader: FileReader, start: int, end: int) -> ReadWindow:
        """The window that serves a read."""
        if self._windows and self._windows[-1].serves(start):
            self._windows[-1].ask(start, end)
            return self._windows[-1]
        return self._new_window(reader, start, end)

    def _new_window(self, reader: FileReader, start: int, end: int, *, may_read_ahead: bool = True) -> ReadWindow:
        _close_all(self._windows)
        self._windows[:] = [window for window in self._windows if not window.has_ended]
        window = ReadWindow(reader, start, end, begin=self._begin, limit=self._limit, may_read_ahead=may_read_ahead)
        self._windows.append(window)
        return window

    async def aclose(self) -> None:
        """Close it; returns when nothing is fetched for it any more. May be called again."""
        self._closed = True
        _close_all(self._windows)
        for window in self._windows:
            await window.aclose()
        self._windows.clear()
        if self._close is not None:
            await self._close()

    def _check_open(self) -> None:
        if self._closed:
            raise StreamClosedError(f"{self._about} was closed; open it again with open()")

    async def _open(self) -> FileReader:
        self._check_open()
        if self._reader is None:

            async def locate_it(group: FetchGroup) -> FileReader:
                block = await locate(group, self._root, self._path)
                reader = await parsed(group, block, FileReader, block, about=self._about)
                if not reader.is_sized:
                    raise PathError(
                        f"{self._about} does not say how long its parts are: read it whole, by cat() or get()"
                    )
                return reader

            self._reader = await self._call(locate_it)
        return self._reader


def _close_all(windows: list[ReadWindow]) -> None:
    for window in windows:
        window.close()


def _cancel_all(windows: list[ReadWindow]) -> None:
    for window in windows:
        window.cancel()
