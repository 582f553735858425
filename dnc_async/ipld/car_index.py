"""The index of a CARv2 file, with which single blocks can be read from any web host that supports HTTP ranges.

Two forms are read: ``MultihashIndexSorted`` (0x0401), which is also written, and ``IndexSorted`` (0x0400), which does not name
the hash function of a digest (ipld.io/specs/transport/car/carv2). Both list sorted digests with the offset of each block's
section in the CARv1 payload. An index is only a hint: blocks that are found by it are verified like all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from dnc_async.errors import CarError
from dnc_async.ipld import multihash as mh
from dnc_async.ipld import varint
from dnc_async.ipld.cid import Cid

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

PRAGMA = bytes.fromhex("0aa16776657273696f6e02")
HEADER_BYTES = len(PRAGMA) + 40
#: About 1.6 million blocks, and as much memory.
MAX_INDEX_BYTES = 64 * 2**20

_SORTED, _MULTIHASH_SORTED = 0x0400, 0x0401
_OFFSET_BYTES = 8
#: Hash functions, and lengths of their digests, in one index. Each takes a little memory, also where it lists nothing.
_MOST_RUNS = 1024
#: The shortest section of a CAR, its block empty and inside its CID, takes 5 bytes of the payload, and 8 of the index.
_BYTES_PER_PAYLOAD_BYTE, _LEAST_BYTES = 2, 4096

#: (hash function or ``None``, bytes of an entry, sorted entries)
Run = tuple[int | None, int, memoryview]


@dataclass(frozen=True, slots=True, kw_only=True)
class CarV2Header:
    """The header of a CARv2 file: offsets in bytes from the start of the file; ``index_offset`` is 0 if there is no index."""

    data_offset: int
    data_bytes: int
    index_offset: int

    @classmethod
    def decode(cls, head: bytes) -> CarV2Header:
        """Parse the first :data:`HEADER_BYTES` of a file; raises :class:`~dnc_async.errors.CarError`."""
        if len(head) < HEADER_BYTES or not head.startswith(PRAGMA):
            raise CarError("not a CARv2 file, which is what an index needs", offset=0)
        numbers = (int.from_bytes(head[start : start + 8], "little") for start in (27, 35, 43))
        layout = cls(**dict(zip(("data_offset", "data_bytes", "index_offset"), numbers, strict=True)))
        end = layout.data_offset + layout.data_bytes
        if layout.data_offset < HEADER_BYTES or (layout.index_offset and layout.index_offset < end):
            raise CarError("a CARv2 file whose parts overlap", offset=27)
        return layout

    @property
    def most_index_bytes(self) -> int:
        """The most that an index of this payload takes: a longer one lists sections that it has no room for."""
        return min(MAX_INDEX_BYTES, _BYTES_PER_PAYLOAD_BYTE * self.data_bytes + _LEAST_BYTES)

    def encode(self) -> bytes:
        """The first bytes of the file, without characteristics."""
        numbers = (self.data_offset, self.data_bytes, self.index_offset)
        return PRAGMA + bytes(16) + b"".join(number.to_bytes(8, "little") for number in numbers)


class Index:
    """An index in memory. It takes as many bytes as in the file and 8 for each block, and is searched without decoding it."""

    def __init__(self, runs: list[Run]) -> None:
        self._runs = runs
        self._offsets = _sorted_offsets(runs)

    def __len__(self) -> int:
        return len(self._offsets)

    @classmethod
    def decode(cls, data: bytes) -> Index:
        """Parse an index; raises :class:`~dnc_async.errors.CarError`."""
        try:
            codec, position = varint.read(data, 0)
        except ValueError as error:
            raise CarError(f"the index of a CARv2 file has no kind: {error}", offset=0) from error
        view = memoryview(data)
        if codec == _SORTED:
            runs, _ = _widths(view, position, None)
            return cls(runs)
        if codec != _MULTIHASH_SORTED:
            raise CarError(f"the index of a CARv2 file is of the kind {codec:#x}: 0x400 and 0x401 are read", offset=0)
        count, position = _count(view, position)
        found: list[Run] = []
        for _ in range(count):
            function, position = _number(view, position, 8)
            runs, position = _widths(view, position, function)
            found += runs
            if len(found) > _MOST_RUNS:
                raise CarError(f"the index of a CARv2 file has more than {_MOST_RUNS} parts", offset=position)
        return cls(found)

    def offset(self, cid: Cid) -> int | None:
        """The offset of a block's section in the payload; ``None`` if it is not listed."""
        function, start, _ = mh.read(cid.multihash, 0)
        digest = cid.multihash[start:]
        for listed, width, data in self._runs:
            if listed in (None, function) and width == len(digest) + _OFFSET_BYTES:
                at = _search(data, width, digest)
                if at is not None:
                    return int.from_bytes(data[at + len(digest) : at + width], "little")
        return None

    def end(self, offset: int, data_bytes: int) -> int:
        """The end of the section at ``offset``: the start of the next one, or the end of the payload."""
        if offset >= 2**64:
            return data_bytes
        following = int(self._offsets.searchsorted(self._offsets.dtype.type(offset), side="right"))
        return int(self._offsets[following]) if following < len(self._offsets) else data_bytes


def _sorted_offsets(runs: list[Run]) -> npt.NDArray[np.uint64]:
    import numpy as np  # noqa: PLC0415 - it takes 0.2 s to import, and is not needed to write an index

    found = [np.empty(0, dtype=np.uint64)]
    for _, width, data in runs:
        entries = np.frombuffer(data, dtype=np.uint8).reshape(-1, width)
        found.append(np.ascontiguousarray(entries[:, -_OFFSET_BYTES:]).view("<u8").reshape(-1))
    offsets = np.concatenate(found)
    offsets.sort()
    return offsets


def _search(data: memoryview, width: int, digest: bytes) -> int | None:
    low, high = 0, len(data) // width
    while low < high:
        middle = (low + high) // 2
        found = bytes(data[middle * width : middle * width + len(digest)])
        if found == digest:
            return middle * width
        low, high = (middle + 1, high) if found < digest else (low, middle)
    return None


def _widths(data: memoryview, position: int, function: int | None) -> tuple[list[Run], int]:
    runs: list[Run] = []
    count, position = _count(data, position)
    for _ in range(count):
        width, position = _number(data, position, 4)
        size, position = _number(data, position, 8)
        if width <= _OFFSET_BYTES or size % width or position + size > len(data):
            raise CarError(f"the index of a CARv2 file has {size} bytes of entries of {width}", offset=position)
        if size:
            runs.append((function, width, data[position : position + size]))
        position += size
    return runs, position


def _count(data: memoryview, position: int) -> tuple[int, int]:
    count, position = _number(data, position, 4)
    if count > _MOST_RUNS:
        raise CarError(f"the index of a CARv2 file has {count} hash functions or lengths of digests", offset=position)
    return count, position


def _number(data: memoryview, position: int, size: int) -> tuple[int, int]:
    end = position + size
    if end > len(data):
        raise CarError("the index of a CARv2 file ends too early", offset=position)
    return int.from_bytes(data[position:end], "little"), end


def encode_index(entries: Iterable[tuple[Cid, int]]) -> Iterator[bytes]:
    """Encode an index of blocks and the offsets of their sections, in pieces. Each block once, in any order."""
    records = sorted(_record(cid, offset) for cid, offset in entries)
    yield varint.encode(_MULTIHASH_SORTED)
    functions = [(function, list(rows)) for function, rows in groupby(records, key=lambda record: record[0])]
    yield len(functions).to_bytes(4, "little")
    for function, rows in functions:
        widths = [(width, list(run)) for width, run in groupby(rows, key=lambda record: record[1])]
        yield function.to_bytes(8, "little") + len(widths).to_bytes(4, "little")
        for width, run in widths:
            yield width.to_bytes(4, "little") + (width * len(run)).to_bytes(8, "little")
            yield b"".join(record[2] for record in run)


def _record(cid: Cid, offset: int) -> tuple[int, int, bytes]:
    function, start, _ = mh.read(cid.multihash, 0)
    row = cid.multihash[start:] + offset.to_bytes(_OFFSET_BYTES, "little")
    return function, len(row), row
