"""Where a chunk's verified bytes land: in its spool file, and from the moment its rows in memory are free, in those."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from dnc_async.dataset.batch import ChunkPlace
from dnc_async.spool.files import SpoolFile


class Landing:
    """A sink for worker threads, which write leaves in any order. It may move from disk to memory in between.

    Moving early is what makes small budgets work: the lease of a chunk that is still on its way is free for the next
    chunk as soon as the chunk's rows are, instead of when its last byte has arrived.
    """

    def __init__(self, *, file: SpoolFile | None = None, place: ChunkPlace | None = None) -> None:
        """Exactly one of them; the landing owns the file."""
        self._file = file
        self._place = place
        self._written: list[tuple[int, int]] = []
        self._lock = threading.Lock()

    @property
    def is_on_disk(self) -> bool:
        """Whether there is a file, and with it a lease."""
        return self._file is not None

    def write_at(self, offset: int, data: bytes | memoryview) -> None:
        """Put verified bytes where they belong. Raises :class:`~dnc_async.errors.SpoolError`."""
        with self._lock:  # of this chunk alone: it holds a write back only while the chunk moves
            if self._place is None and self._file is not None:
                self._file.write_at(offset, data)
                self._written.append((offset, offset + len(data)))
                return
            place = self._place
        if place is not None:
            place.write_at(offset, data)

    def move_to(self, place: ChunkPlace) -> None:
        """Bring what was written to memory, where all that is written from now on goes. The file may be discarded then.

        Raises :class:`~dnc_async.errors.SpoolError`.
        """
        with self._lock:
            if self._file is not None:
                for start, end in _runs(self._written):
                    self._file.read_into(place.between(start, end))
            self._place = place

    def settle(self) -> None:
        """Have the lease hold what the file takes, if that is more than was reserved (in the engine's thread)."""
        if self._file is not None:
            self._file.settle()

    def discard(self) -> None:
        """Delete the file and release its lease, if there is one. No worker may be writing to it."""
        file, self._file = self._file, None
        if file is not None:
            file.discard()


def _runs(written: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Neighbouring (start, end) ranges as one."""
    run: tuple[int, int] | None = None
    for start, end in sorted(written):
        if run is not None and run[1] == start:
            run = run[0], end
            continue
        if run is not None:
            yield run
        run = start, end
    if run is not None:
        yield run
