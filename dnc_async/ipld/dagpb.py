"""dag-pb: a node has links and data (ipld.io/specs/codecs/dag-pb). Links are written first; both orders are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dnc_async.errors import CidError, DagError
from dnc_async.ipld import protobuf
from dnc_async.ipld.cid import Cid

_LINKS, _DATA = 2, 1
_HASH, _NAME, _TSIZE = 1, 2, 3
_USUAL = (b"\x0a\x24\x01\x55\x12\x20", b"\x0a\x24\x01\x70\x12\x20")


class Link(NamedTuple):
    """A named link. ``tsize`` is the writer's hint of the size below it, and is never trusted."""

    cid: Cid
    name: str
    tsize: int


@dataclass(frozen=True, slots=True)
class Node:
    """A dag-pb node; ``data`` is ``None`` if it has none."""

    data: bytes | None
    links: tuple[Link, ...]


def encode(data: bytes | None, links: Sequence[Link]) -> bytes:
    """Encode a node. Links keep their order; the empty names of a file's links are written."""
    parts = [
        protobuf.bytes_field(
            _LINKS,
            protobuf.bytes_field(_HASH, link.cid.encode())
            + protobuf.bytes_field(_NAME, link.name.encode("utf-8", "surrogateescape"))
            + protobuf.varint_field(
                _TSIZE, link.tsize % 2**64
            ),  # the sum for a DAG with repeated parts may be larger: wraps around, as in Go
        )
        for link in links
    ]
    if data is not None:
        parts.append(protobuf.bytes_field(_DATA, data))
    return b"".join(parts)


def decode(block: bytes) -> Node:
    """Decode a node; raises :class:`~dnc_async.errors.DagError`, also if links and data are interleaved."""
    data: bytes | None = None
    links: list[Link] = []
    runs = 0  # the number of runs of links: more than one means that the data is between them
    last = None
    for number, _, value in protobuf.fields(block):
        if not isinstance(value, bytes):
            raise DagError(f"a dag-pb node has a number in field {number}")
        if number == _LINKS:
            runs += last != _LINKS
            links.append(decode_link(value))
        elif number == _DATA and data is None:
            data = value
        else:
            raise DagError(f"a dag-pb node has an unknown or repeated field {number}")
        last = number
    if runs > 1:
        raise DagError("a dag-pb node has its data between its links")
    return Node(data, tuple(links))


def decode_link(body: bytes) -> Link:
    """Decode one link; raises :class:`~dnc_async.errors.DagError`."""
    return _usual_link(body) or _any_link(body)


def _usual_link(body: bytes) -> Link | None:
    """Decode the most common kind of link (CIDv1 with sha2-256, a short name, a size); ``None`` for any other."""
    if len(body) < 42 or body[:6] not in _USUAL or body[38] != 0x12 or body[39] > 127:
        return None
    end = 40 + body[39]
    if end + 1 >= len(body) or body[end] != 0x18:
        return None
    tsize, stop = protobuf.read_varint(body, end + 1)
    if stop != len(body):
        return None
    return Link(Cid.read(body, 2)[0], body[40:end].decode("utf-8", "surrogateescape"), tsize)


def _any_link(body: bytes) -> Link:
    cid: Cid | None = None
    name, tsize, last = "", 0, 0
    for number, _, value in protobuf.fields(body):
        if number <= last:
            raise DagError("a dag-pb link has its fields twice or out of order")
        last = number
        if number == _HASH and isinstance(value, bytes):
            try:
                cid = Cid.decode(value, foreign=True)
            except CidError as error:
                raise DagError(f"a dag-pb link's CID cannot be read: {error}") from error
        elif number == _NAME and isinstance(value, bytes):
            name = value.decode("utf-8", "surrogateescape")
        elif number == _TSIZE and isinstance(value, int):
            tsize = value
        else:
            raise DagError(f"a dag-pb link has an unknown field {number}")
    if cid is None:
        raise DagError("a dag-pb link has no CID")
    return Link(cid, name, tsize)
