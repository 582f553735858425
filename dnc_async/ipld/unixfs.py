"""UnixFS: the message in the data of a dag-pb node (specs.ipfs.tech/unixfs)."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from dnc_async.errors import DagError
from dnc_async.ipld import protobuf

_TYPE, _DATA, _FILESIZE, _BLOCKSIZES, _HASH_TYPE, _FANOUT, _MODE, _MTIME = range(1, 9)
_MAX_BLOCKSIZES = 2**17  # a block has no space for more links


class Kind(enum.IntEnum):
    """The type of a node."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMLINK = 4
    HAMT_SHARD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixFs:
    """A decoded message. ``mode`` is permission bits, ``mtime`` (seconds, nanoseconds) since the epoch."""

    kind: Kind
    data: bytes = b""
    filesize: int | None = None
    blocksizes: tuple[int, ...] = field(default=())
    hash_type: int | None = None
    fanout: int | None = None
    mode: int | None = None
    mtime: tuple[int, int] | None = None

    @property
    def is_file(self) -> bool:
        """Whether this is a file, or part of one."""
        return self.kind in (Kind.FILE, Kind.RAW)


def encode(
    kind: Kind,
    *,
    data: bytes | None = None,
    filesize: int | None = None,
    blocksizes: Sequence[int] = (),
    hash_type: int | None = None,
    fanout: int | None = None,
) -> bytes:
    """Encode a message; its fields are written in ascending order."""
    parts = [protobuf.varint_field(_TYPE, kind)]
    if data is not None:
        parts.append(protobuf.bytes_field(_DATA, data))
    if filesize is not None:
        parts.append(protobuf.varint_field(_FILESIZE, filesize))
    parts += [protobuf.varint_field(_BLOCKSIZES, size) for size in blocksizes]
    if hash_type is not None:
        parts.append(protobuf.varint_field(_HASH_TYPE, hash_type))
    if fanout is not None:
        parts.append(protobuf.varint_field(_FANOUT, fanout))
    return b"".join(parts)


def decode(message: bytes | None) -> UnixFs:
    """Decode a message; raises :class:`~dnc_async.errors.DagError`."""
    if message is None:
        raise DagError("a dag-pb node has no UnixFS data in it")
    numbers: dict[int, int] = {}
    data, mtime = b"", None
    blocksizes: list[int] = []
    for number, _, value in protobuf.fields(message):
        if number == _BLOCKSIZES:
            if isinstance(value, int):
                blocksizes.append(value)
            else:
                blocksizes += _packed_sizes(value)
            if len(blocksizes) > _MAX_BLOCKSIZES:
                raise DagError(f"a UnixFS node lists more than {_MAX_BLOCKSIZES} sizes")
        elif number == _DATA and isinstance(value, bytes):
            data = value
        elif number == _MTIME and isinstance(value, bytes):
            mtime = _mtime(value)
        elif number in (_TYPE, _FILESIZE, _HASH_TYPE, _FANOUT, _MODE) and isinstance(value, int):
            numbers[number] = value
    try:
        kind = Kind(numbers[_TYPE])
    except (KeyError, ValueError) as error:
        raise DagError(f"a UnixFS node has no known type: {numbers.get(_TYPE)}") from error
    return UnixFs(
        kind=kind,
        data=data,
        filesize=numbers.get(_FILESIZE),
        blocksizes=tuple(blocksizes),
        hash_type=numbers.get(_HASH_TYPE),
        fanout=numbers.get(_FANOUT),
        mode=numbers.get(_MODE),
        mtime=mtime,
    )


def _packed_sizes(value: bytes) -> list[int]:
    """Decode sizes in protobuf's packed form, which readers have to accept."""
    sizes, position = [], 0
    while position < len(value):
        size, position = protobuf.read_varint(value, position)
        sizes.append(size)
    return sizes


def _mtime(body: bytes) -> tuple[int, int]:
    seconds = nanoseconds = 0
    for number, kind, value in protobuf.fields(body):
        if number == 1 and isinstance(value, int):
            seconds = value - 2**64 if value >= 2**63 else value
        elif number == 2 and kind == protobuf.FIXED32 and isinstance(value, bytes):
            nanoseconds = int.from_bytes(value, "little")
    if nanoseconds >= 10**9:
        raise DagError(f"a UnixFS time has {nanoseconds} nanoseconds")
    return seconds, nanoseconds
