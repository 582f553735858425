"""The blocks that the work for one client reads, and those of them that it holds in memory, which are few."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from dnc_async.ipld.cid import RAW, Cid
from dnc_async.ipld.stepwise import Source

from .steps import NotHereError

Read = Callable[[Cid], bytes | None]

_OPEN = 16
_OPEN_BYTES = 2**18  # what the open blocks may take together; the last one may always be open
_KEPT_BYTES = 2**16  # a node up to this size is read once, to be sent and to be followed


class OpenBlocks:
    """Reads blocks with ``read``. One thread at a time may use it."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._open: deque[Source] = deque()
        self._last: tuple[Cid, bytes] | None = None

    @property
    def held_bytes(self) -> int:
        """How many bytes of blocks are in memory."""
        return sum(source.held_bytes for source in self._open) + (len(self._last[1]) if self._last else 0)

    def load(self, cid: Cid) -> bytes:
        """A block's bytes; raises :class:`NotHereError`."""
        if self._last is not None and self._last[0] == cid:
            return self._last[1]
        data = self._read(cid)
        if data is None:
            raise NotHereError(cid)
        if cid.codec != RAW and len(data) <= _KEPT_BYTES:
            self._last = (cid, data)
        return data

    def source(self, cid: Cid) -> Source:
        """A block that is open from its first use until it is closed, or others need its room; then it is read again."""

        def read() -> bytes:
            data = self.load(cid)
            self._open.append(source)
            while len(self._open) > 1 and (len(self._open) > _OPEN or self.held_bytes + len(data) > _OPEN_BYTES):
                self._open.popleft().empty()
            return data

        source = Source(read)
        return source

    def close(self, source: Source) -> None:
        """Close a block that is not needed any more."""
        if source in self._open:
            self._open.remove(source)
        source.empty()

    def empty(self) -> None:
        """Hold nothing until something is read again."""
        while self._open:
            self._open.pop().empty()
        self._last = None
