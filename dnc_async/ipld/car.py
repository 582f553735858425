"""CAR streams: a header that names the roots, then sections of a CID and a block each (ipld.io/specs/transport/car).

:class:`CarReader` does no I/O: feed it pieces of any size, and it returns verified blocks. It reads CARv1 and the CARv1 inside
a CARv2 (ignoring the index), and holds at most one section and the last piece it was given.

Blocks whose hash function cannot be computed are left out, and listed.

An incomplete CAR looks like a complete one: only a walk from the root can tell whether blocks are missing.
"""

from __future__ import annotations

from collections.abc import Iterable

from dnc_async.errors import BlockMismatchError, CarError, CarTruncatedError, CidError, DagError, IpldError
from dnc_async.ipld import varint
from dnc_async.ipld.block import MAX_BLOCK_BYTES, Block, Pieces, matching, verify_pieces
from dnc_async.ipld.cid import COMMON_BYTES, Cid
from dnc_async.ipld.codecs import decode_dag_cbor
from dnc_async.ipld.multihash import is_checkable
from dnc_async.ipld.varint import Buffer

#: An identity CID of 128 bytes, with its version, codec, function and length.
_LONGEST_CID = 160
MAX_SECTION_BYTES = MAX_BLOCK_BYTES + _LONGEST_CID
MAX_HEADER_BYTES = 256 * 1024
_MOST_UNCHECKED = 1000
#: Smaller pieces of a block are joined, to pieces of this size.
_SMALL_BYTES, _JOINED_BYTES = 2**12, 2**16
_V2_HEADER_BYTES = 40
_V2_FIRST_PAYLOAD = 51


class CarReader:
    """Reads one CAR. ``roots`` is ``None`` until the header was read, and is not to be trusted.

    ``unchecked_count`` blocks were left out because their hash cannot be checked; ``unchecked`` are the first 1,000 of them.

    An error loses no verified blocks: :meth:`feed` returns the blocks that precede it, and the error is raised by the next
    :meth:`feed` or by :meth:`close`, and by every call after that.
    """

    def __init__(self) -> None:
        self.roots: tuple[Cid, ...] | None = None
        self.unchecked: list[Cid] = []
        self.unchecked_count = 0
        self._rest = b""  # the beginning of a section whose length or CID is not complete
        self._body: _Body | None = None  # a block that is not complete
        self._offset = 0  # the offset in the stream of the first byte that was not consumed
        self._skip = 0  # bytes of a CARv2's padding that are to be skipped
        self._end: int | None = None  # where a CARv2's payload ends, in the stream
        self._is_v2 = False
        self._error: IpldError | None = None

    def __repr__(self) -> str:
        state = "broken" if self._error else "reading the header" if self.roots is None else "reading"
        return f"<CarReader {state} at byte {self._begin}>"

    def feed(self, data: Buffer) -> list[Block]:
        """Take the next piece of the stream; returns the blocks that it completes.

        Raises :class:`~dnc_async.errors.CarError` or :class:`~dnc_async.errors.BlockMismatchError` for an earlier piece, or for
        this one if no block precedes the fault.
        """
        if self._error is not None:
            raise self._error
        found: list[Block] = []
        try:
            self._consume(data if type(data) is bytes else bytes(data), found)
        except IpldError as error:
            self._error = error
            self._rest, self._body = b"", None
            if not found:
                raise
        return found

    def close(self) -> None:
        """Take the end of the stream; raises :class:`~dnc_async.errors.CarTruncatedError` if it was truncated."""
        if self._error is not None:
            raise self._error
        inside = self._rest or self._body is not None or (self._end is not None and self._offset < self._end)
        if self.roots is None or inside:
            raise CarTruncatedError("the CAR ends inside a section or its header", offset=self._begin)

    @property
    def _begin(self) -> int:
        """The offset of the section or header that is being read."""
        return self._offset if self._body is None else self._body.at

    def _consume(self, data: bytes, found: list[Block]) -> None:
        position = 0
        if self._body is not None:
            position = self._body.take(data)
            self._offset += position
            if self._body.missing:
                return
            self._add(self._body.cid, tuple(self._body.pieces), self._body.at, found)
            self._body = None
        if self._rest:
            data, position = self._rest + data[position:], 0
            self._rest = b""
        while True:
            dropped = min(self._skip, len(data) - position)
            self._skip -= dropped
            self._offset += dropped
            position += dropped
            if self._end is not None and self._offset >= self._end:
                self._offset += len(data) - position  # the index of a CARv2 follows: ignored
                return
            used = self._many(data, position, found) or self._unit(data, position, found)
            if not used:
                break
            self._offset += used
            position += used
        self._rest = data[position:]

    def _many(self, data: bytes, begin: int, found: list[Block]) -> int:
        """Read complete sections of the most common kind, as many as follow each other; returns their length.

        It stops at any other kind of section, and at a wrong one, which :meth:`_unit` then reads.
        """
        if self.roots is None or self._end is not None:
            return 0
        position, end = begin, len(data)
        while position + _LONGEST_CID < end:
            size, start = data[position], position + 1
            if size > 127:
                size, start = (size & 127) | data[start] << 7, start + 1
                shortest = 1 << 7
                if size >= 1 << 14:  # the length has a third byte
                    size, start = (size & 0x3FFF) | data[start] << 14, start + 1
                    shortest = 1 << 14
                if not shortest <= size < 1 << 21:
                    break
            stop, cid = start + size, Cid.common(data, start)
            if stop > end or cid is None or size < COMMON_BYTES:
                break
            block = matching(cid, data[start + COMMON_BYTES : stop])
            if block is None:
                break
            found.append(block)
            position = stop
        return position - begin

    def _unit(self, data: bytes, position: int, found: list[Block]) -> int:
        """Read the header or section at ``position``; returns its length, or 0 if it is not complete yet."""
        at, left = self._offset, len(data) - position
        limit = MAX_SECTION_BYTES if self.roots is not None else MAX_HEADER_BYTES
        try:
            size, start = varint.read(data, position)
        except ValueError as error:
            if left < varint.MAX_BYTES and "end inside" in str(error):
                return 0
            raise CarError(f"a section has no readable length: {error}", offset=at) from error
        if not 0 < size <= limit:
            raise CarError(f"a section of {size} bytes, expected 1 to {limit}", offset=at)
        end = start + size
        if self._end is not None and at + end - position > self._end:
            raise CarError("a section reaches beyond the CARv2's payload", offset=at)
        if end > len(data) and (self.roots is None or len(data) - start < _LONGEST_CID):
            return 0
        if self.roots is None:
            return self._header(data[start:end], end - position, at, data[position:])
        cid, begin = _cid(data, start, end, at)
        if end <= len(data):
            self._add(cid, (data[begin:end],), at, found)
            return end - position
        self._body = _Body(cid, at, end - begin)
        self._body.take(memoryview(data)[begin:])
        return left

    def _add(self, cid: Cid, pieces: Pieces, at: int, found: list[Block]) -> None:
        """Verify a block if its hash function can be computed, and add it to ``found``."""
        if is_checkable(cid.multihash):
            found.append(_verified(cid, pieces, at))
            return
        self.unchecked_count += 1
        if len(self.unchecked) < _MOST_UNCHECKED:
            self.unchecked.append(cid)

    def _header(self, body: bytes, used: int, at: int, data: bytes) -> int:
        try:
            header = decode_dag_cbor(body)
        except DagError as error:
            raise CarError(f"not a CAR: its header cannot be read ({error})", offset=at) from error
        version = header.get("version") if isinstance(header, dict) else None
        if version == 2 and not self._is_v2:
            return self._header_v2(used, at, data)
        roots = header.get("roots") if isinstance(header, dict) else None
        if version != 1 or not isinstance(roots, list):
            raise CarError(f"a CAR of version {version!r}: 1 and 2 are read", offset=at)
        if not all(isinstance(root, Cid) for root in roots):
            raise CarError("a root of the CAR is not a CID", offset=at)
        self.roots = tuple(roots)
        return used

    def _header_v2(self, used: int, at: int, data: bytes) -> int:
        end = used + _V2_HEADER_BYTES
        if len(data) < end:
            return 0
        fields = data[end - 24 : end]
        offset, size = (int.from_bytes(fields[i : i + 8], "little") for i in (0, 8))
        if offset < _V2_FIRST_PAYLOAD:
            raise CarError(f"a CARv2 whose payload begins at byte {offset}", offset=at)
        self._is_v2 = True
        self._end = offset + size
        self._skip = offset - _V2_FIRST_PAYLOAD
        return used + _V2_HEADER_BYTES


class _Body:
    """A block that arrives in pieces. Only small ones are copied: a million objects of a byte each would take more memory."""

    __slots__ = ("_small", "at", "cid", "missing", "pieces")

    def __init__(self, cid: Cid, at: int, size: int) -> None:
        self.cid = cid
        self.at = at
        self.missing = size
        self.pieces: list[bytes | memoryview] = []
        self._small = bytearray()

    def take(self, data: bytes | memoryview) -> int:
        """Take as much as is missing; returns how many bytes that was."""
        piece = data if len(data) <= self.missing else memoryview(data)[: self.missing]
        self.missing -= len(piece)
        is_small = len(piece) < _SMALL_BYTES
        if is_small:
            self._small += piece
        if self._small and (not is_small or not self.missing or len(self._small) >= _JOINED_BYTES):
            self.pieces.append(bytes(self._small))
            self._small.clear()
        if not is_small:
            self.pieces.append(piece)
        return len(piece)


def _cid(data: bytes, start: int, end: int, at: int) -> tuple[Cid, int]:
    try:
        cid, begin = Cid.read(data, start)
    except (CidError, ValueError) as error:
        raise CarError(f"a section does not begin with a CID: {error}", offset=at) from error
    if begin > end:
        raise CarError("a section ends inside its CID", offset=at)
    return cid, begin


def _verified(cid: Cid, pieces: Pieces, at: int) -> Block:
    try:
        return verify_pieces(cid, pieces)
    except BlockMismatchError as error:
        raise BlockMismatchError(f"{error} (in the section at byte {at} of the CAR)") from error


def encode_header(roots: Iterable[Cid]) -> bytes:
    """The header of a CARv1."""
    # Written by hand: libipld encodes no links.
    links = [_link(root) for root in roots]
    body = b"\xa2\x65roots" + _head(0x80, len(links)) + b"".join(links) + b"\x67version\x01"
    return varint.encode(len(body)) + body


def _link(cid: Cid) -> bytes:
    data = b"\0" + cid.encode()
    return b"\xd8\x2a" + _head(0x40, len(data)) + data


def _head(major: int, count: int) -> bytes:
    if count < 24:
        return bytes([major | count])
    return bytes([major | 24, count]) if count < 256 else bytes([major | 25]) + count.to_bytes(2, "big")


def encode_section(block: Block) -> bytes:
    """One block's section."""
    return section(block.cid, block.data)


def section(cid: Cid, data: bytes) -> bytes:
    """The section of a block that is not verified here, because a gateway's clients verify it."""
    name = cid.encode()
    return b"".join((varint.encode(len(name) + len(data)), name, data))


def section_bytes(cid: Cid, size_bytes: int) -> int:
    """The length of the section of a block of this size, so that a CAR's size is known before it is written."""
    body = len(cid.encode()) + size_bytes
    return varint.size(body) + body
