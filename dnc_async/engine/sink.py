"""The destination of a chunk's verified bytes: its spool file, and its rows in memory from when those are free."""

from __future__ import annotations

import threading

from dnc_async.dataset.batch import ChunkPlace
from dnc_async.errors import SpoolError
from dnc_async.spool.checksum import checksum
from dnc_async.spool.files import SpoolFile


class Sink:
    """A destination for worker threads, which write leaves in any order. It may move from disk to memory meanwhile.

    Moving early is what makes small budgets work: the lease of a chunk that is still being received is released as soon as the
    chunk's rows are free, instead of when its last byte has arrived.

    A disk may return other bytes than were written, or another process may have written to the file. So each leaf's checksum is
    computed when it is written, and compared when it is read (:mod:`~dnc_async.spool.checksum`).
    """

    def __init__(self, *, file: SpoolFile | None = None, place: ChunkPlace | None = None) -> None:
        """Give exactly one of them; the sink then owns the file."""
        self._file = file
        self._place = place
        self._written: list[tuple[int, int, int]] = []
        self._lock = threading.Lock()

    @property
    def is_on_disk(self) -> bool:
        """Whether there is a file, and with it a lease."""
        return self._file is not None

    def is_quick(self) -> bool:
        """Whether a write copies to memory and waits for nothing: not for a disk, nor for a move to memory."""
        return self._file is None

    def write_at(self, offset: int, *pieces: bytes | memoryview) -> None:
        """Write verified bytes, one piece behind the other. Raises :class:`~dnc_async.errors.SpoolError`."""
        with self._lock:  # a lock of this chunk's own: a write waits only while the chunk moves
            if self._place is None and self._file is not None:
                whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                self._file.write_at(offset, whole)
                self._written.append((offset, offset + len(whole), checksum(whole)))
                return
            place = self._place
        if place is not None:
            for piece in pieces:
                place.write_at(offset, piece)
                offset += len(piece)

    def move_to(self, place: ChunkPlace) -> dict[int, str]:
        """Copy to memory what was written to the file, which may be discarded then. All later writes go to memory.

        Returns the offsets of the leaves that differ from what was written, each with what is wrong.
        """
        damaged: dict[int, str] = {}
        with self._lock:
            if self._file is not None:
                for start, end, expected in sorted(self._written):
                    try:
                        if _read_back(self._file, place, start, end) != expected:
                            damaged[start] = "a staged chunk is not what was written to the disk"
                    except SpoolError as error:
                        damaged[start] = str(error)
            self._place = place
        return damaged

    def settle(self) -> None:
        """Have the lease cover what the file takes, if that is more than was reserved (in the engine's thread)."""
        if self._file is not None:
            self._file.settle()

    def delete_file(self) -> None:
        """Delete the file after a move, in a worker thread, because it may take long; its lease is kept until it is discarded."""
        if self._file is not None:
            self._file.delete()

    def discard(self) -> None:
        """Delete the file and release its lease, if there is one. No worker thread may be writing to it."""
        file, self._file = self._file, None
        if file is not None:
            file.discard()


def _read_back(file: SpoolFile, place: ChunkPlace, start: int, end: int) -> int:
    """Read a range into its place; returns the checksum of the whole range, including bytes without a place there."""
    segments = place.between(start, end)
    if len(segments) == 1 and segments[0][1].nbytes == end - start:
        file.read_at(start, segments[0][1])
        return checksum(segments[0][1])
    whole = memoryview(bytearray(end - start))  # it has a header, padding, or parts of several columns
    file.read_at(start, whole)
    place.write_at(start, whole)
    return checksum(whole)
