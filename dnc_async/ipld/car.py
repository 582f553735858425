"""CAR streams: sections of a CID and a block each, after a header that names the roots.

:class:`CarReader` does no I/O: feed it pieces of any size, and it hands out blocks that are verified. It reads CARv1 and
the CARv1 inside a CARv2 (whose index it ignores), and never holds more than one section.

A CAR that lacks blocks looks complete: that nothing is missing, only a walk from the root can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256

from libipld import decode_dag_cbor

from dnc_async.errors import BlockMismatchError, CarError, CarTruncatedError, CidError, IpldError
from dnc_async.ipld import block as blocks
from dnc_async.ipld import varint
from dnc_async.ipld.block import MAX_BLOCK_BYTES, Block
from dnc_async.ipld.cid import Cid
from dnc_async.ipld.varint import Buffer

#: An identity CID of 128 bytes, with its version, codec, function and length.
_LONGEST_CID = 160
MAX_SECTION_BYTES = MAX_BLOCK_BYTES + _LONGEST_CID
MAX_HEADER_BYTES = 256 * 1024

_V2_HEADER_BYTES = 40
_V2_FIRST_PAYLOAD = 51
_SMALL_PIECE = 4096


class CarReader:
    """Reads one CAR. ``roots`` is None until the header was read; believe the blocks, not the roots.

    An error never takes verified blocks along: :meth:`feed` returns those that came before it, and the error is raised
    by the next :meth:`feed` or by :meth:`close`, and by every call after that.
    """

    def __init__(self) -> None:
        self.roots: tuple[Cid, ...] | None = None
        self._offset = 0  # of the unit that is being read, in the stream
        self._pieces = _Pieces()
        self._step: Callable[[], list[Block]] = self._read_header
        self._need = 0  # bytes of the unit after its length; 0 while the length is not known
        self._prefix = 0  # bytes of that length
        self._skip = 0
        self._end: int | None = None  # of the payload, inside a CARv2
        self._error: IpldError | None = None

    def __repr__(self) -> str:
        state = "broken" if self._error else "reading the header" if self.roots is None else "reading"
        return f"<CarReader {state} at byte {self._offset}>"

    def feed(self, data: Buffer) -> list[Block]:
        """Take the next piece of the stream; returns the blocks that it completes.

        Raises :class:`CarError` or :class:`BlockMismatchError` for what an earlier piece held, or for this one when no
        block came before the fault.
        """
        if self._error is not None:
            raise self._error
        found: list[Block] = []
        try:
            self._consume(data if type(data) is bytes else bytes(data), found)
        except IpldError as error:
            self._error = error
            self._pieces.clear()
            if not found:
                raise
        return found
