"""Writes the files of ``get`` to the disk while they still grow, so that the flush at the end has little left to wait for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from dnc_async.condition import Condition
from dnc_async.engine.files.output import OutputFile

#: So much of a file is written between two flushes, in bytes.
_PART_BYTES = 8 * 2**20


class InWorker(Protocol):
    """Calls a blocking function in a worker thread."""

    def __call__(self, function: Callable[[OutputFile], None], file: OutputFile, /) -> Awaitable[None]:
        """Wait for it to return."""


class WriteBack:
    """Flushes the files that have grown, one at a time, in a worker thread; those that write are not kept waiting."""

    def __init__(self, flush: Callable[[OutputFile], None], *, in_worker: InWorker) -> None:
        """``flush`` writes to the disk what was written into a file, and may raise."""
        self._flush = flush
        self._in_worker = in_worker
        self._grown: dict[OutputFile, int] = {}
        self._changed = Condition()

    def __repr__(self) -> str:
        return f"<WriteBack of {len(self._grown)} files, {sum(self._grown.values())} bytes>"

    def wrote(self, file: OutputFile, size_bytes: int) -> None:
        """A file has grown by so much."""
        self._grown[file] = self._grown.get(file, 0) + size_bytes
        if self._grown[file] >= _PART_BYTES:
            self._changed.notify_all()

    def forget(self, file: OutputFile) -> None:
        """A file is complete, or was given up: the flush at the end is enough for the rest of it."""
        self._grown.pop(file, None)

    async def run(self) -> None:
        """Flush files until cancelled. Raises the error of a flush."""
        while True:
            await self._changed.until(self._due)
            for file in self._due():
                self._grown.pop(file, None)
                await self._in_worker(self._flush, file)

    def _due(self) -> list[OutputFile]:
        return [file for file, size_bytes in self._grown.items() if size_bytes >= _PART_BYTES]
