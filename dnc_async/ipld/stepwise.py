"""Reads blocks one link at a time: for servers, which walk what strangers stored for clients whom they do not know.

Every function is a generator that yields often, after about as much work as one link costs, so that the caller can give up or let
others have their turn. None holds a block while it waits: a :class:`Source` may be emptied then, and reads the block again.
What they accept is what the whole decoders accept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from dnc_async.errors import CidError, DagError
from dnc_async.ipld import dagpb, unixfs
from dnc_async.ipld.cid import Cid
from dnc_async.ipld.codecs import cbor_head, cbor_simple
from dnc_async.ipld.protobuf import BYTES, FIXED32, FIXED64, VARINT, read_varint

_DATA, _LINK = 1, 2
_TYPE, _FILE_DATA, _BLOCKSIZES, _HASH_TYPE, _FANOUT = 1, 2, 4, 5, 6
_FIXED = {FIXED32: 4, FIXED64: 8}
_KINDS = {kind.value: kind for kind in unixfs.Kind}
_DEEPEST = 256
_LINK_TAG = 42
_JSON_SPACE = b" \t\r\n"
_JSON_TOKEN = re.compile(rb'[ \t\r\n]*+("(?:[^"\\]++|\\.)*+"|[\[\]{}:,]|[^ \t\r\n"\[\]{}:,]++)', re.DOTALL)
_JSON_LINK = re.compile(
    rb'[ \t\r\n]*+\{[ \t\r\n]*+"(?:/|\\/|\\u002[fF])"[ \t\r\n]*+:[ \t\r\n]*+("(?:[^"\\]++|\\.)*+")[ \t\r\n]*+\}',
    re.DOTALL,
)


class Source:
    """A block that is read when it is needed, and again after it was emptied."""

    __slots__ = ("_data", "_read")

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._data: bytes | None = None

    @property
    def held_bytes(self) -> int:
        """How many bytes are in memory."""
        return 0 if self._data is None else len(self._data)

    def get(self) -> bytes:
        """The block's bytes. A generator keeps them in no variable while it yields."""
        if self._data is None:
            self._data = self._read()
        return self._data

    def empty(self) -> None:
        """Hold nothing until the next :meth:`get`."""
        self._data = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What a dag-pb node is, without its links. ``kind`` is ``None`` for a node that is not UnixFS.

    ``data_bytes`` are the file's bytes in the node itself, ``sizes`` and ``sizes_sum`` the number and the sum of the sizes that
    it gives for its links; ``message`` is where its UnixFS message begins and ends.
    """

    links: int
    kind: unixfs.Kind | None = None
    message: tuple[int, int] = (0, 0)
    data_bytes: int = 0
    sizes: int = 0
    sizes_sum: int = 0
    hash_type: int | None = None
    fanout: int | None = None

    @property
    def is_file(self) -> bool:
        """Whether this is a file, or part of one."""
        return self.kind in (unixfs.Kind.FILE, unixfs.Kind.RAW)

    @property
    def is_sized(self) -> bool:
        """Whether it is UnixFS and gives the size of each of its parts."""
        return self.kind is not None and self.links == self.sizes

    @property
    def shard(self) -> unixfs.UnixFs:
        """What :func:`hamt.shape` wants to know of a sharded directory."""
        return unixfs.UnixFs(kind=unixfs.Kind.HAMT_SHARD, hash_type=self.hash_type, fanout=self.fanout)


def outline(source: Source) -> Generator[None, None, Outline]:
    """Read what a dag-pb node is; raises :class:`~dnc_async.errors.DagError` unless it is well-formed but for its links."""
    links = runs = last = 0
    message: tuple[int, int] | None = None
    for number, start, stop in _node_fields(source):
        yield
        if number == _LINK:
            runs += last != _LINK
            links += 1
        elif message is None:
            message = (start, stop)
        else:
            raise DagError("a dag-pb node has its data twice")
        last = number
    if runs > 1:
        raise DagError("a dag-pb node has its data between its links")
    if message is None:
        return Outline(links=links)
    try:
        return (yield from _outline(source, links, message))
    except DagError:
        return Outline(links=links)


def dag_pb_links(source: Source) -> Iterator[dagpb.Link]:
    """Yield a node's links in order; raises :class:`~dnc_async.errors.DagError` at the first that cannot be read."""
    for number, start, stop in _node_fields(source):
        if number == _LINK:
            yield dagpb.decode_link(source.get()[start:stop])


def blocksizes(source: Source, message: tuple[int, int]) -> Iterator[int]:
    """Yield the sizes that a node's UnixFS message gives for its links, in order."""
    for number, kind, start, stop in _fields(source, *message):
        if number != _BLOCKSIZES or kind not in (VARINT, BYTES):
            continue
        position = start  # one number, or several that are packed
        while position < stop:
            size, position = read_varint(source.get(), position)
            if position > stop:
                raise DagError("a protobuf message ends inside a number")
            yield size


def dag_cbor_links(source: Source, start: int = 0) -> Generator[Cid | None, None, int]:
    """Yield the links of the DAG-CBOR item at ``start``, and ``None`` for everything else in it; returns its end.

    Raises :class:`~dnc_async.errors.DagError` where it is not well-formed.
    """
    at = start
    collections: list[tuple[int, bool]] = [
        (1, False)
    ]  # of each that is open: the items that are left, and whether it is a map
    while collections:
        left, is_map = collections.pop()
        if not left:
            continue
        collections.append((left - 1, is_map))
        try:
            opened, found, at = _cbor_item(source.get(), at, is_key=is_map and left % 2 == 0)
        except (IndexError, UnicodeDecodeError, CidError) as error:
            raise DagError(f"not a DAG-CBOR block: {error}") from error
        if opened is not None:
            if len(collections) > _DEEPEST:
                raise DagError(f"a DAG-CBOR block nests deeper than {_DEEPEST}")
            collections.append(opened)
        yield found
    return at


def dag_cbor_step(source: Source, start: int, segment: str) -> Generator[None, None, int]:
    """Follow one path segment from the well-formed item at ``start``; returns the position of what it leads to.

    Raises :class:`KeyError` if it leads to nothing.
    """
    major, _, count, at = cbor_head(source.get(), start)
    if major == 5:
        name = segment.encode("utf-8", "surrogateescape")
        for _ in range(count):
            _, _, size, key = cbor_head(source.get(), at)
            at = key + size
            if source.get()[key:at] == name:
                return at
            at = yield from passed(dag_cbor_links(source, at))
    elif major == 4 and segment.isascii() and segment.isdigit() and int(segment[:9]) < count:
        for _ in range(int(segment[:9])):
            at = yield from passed(dag_cbor_links(source, at))
        return at
    raise KeyError(segment)


def dag_cbor_link(source: Source, start: int) -> Cid | None:
    """The link that the well-formed item at ``start`` is; ``None`` if it is something else."""
    return _cbor_item(source.get(), start, is_key=False)[1]


def dag_json_links(source: Source, start: int = 0) -> Generator[Cid | None, None, int]:
    """As :func:`dag_cbor_links`, for DAG-JSON, whose grammar is checked only as far as links are concerned."""
    at, depth = start, 0
    while True:
        link, at = _json_link(source.get(), at)
        if link is None:
            mark, at = _json_token(source.get(), at)
            depth += (mark in b"[{") - (mark in b"]}")
        yield link
        if depth <= 0:
            return at


def dag_json_step(source: Source, start: int, segment: str) -> Generator[None, None, int]:
    """As :func:`dag_cbor_step`, for DAG-JSON."""
    mark, at = _json_token(source.get(), start)
    if mark not in b"[{" or (mark == b"[" and not (segment.isascii() and segment.isdigit())):
        raise KeyError(segment)
    wanted, count = (segment if mark == b"{" else int(segment[:9])), 0
    while _json_token(source.get(), at)[0] not in b"]}":
        name: str | int = count
        if mark == b"{":
            key, at = at, _json_token(source.get(), at)[1]
            name, at = _json_text(source.get()[key:at]), _json_token(source.get(), at)[1]  # and the colon
        if name == wanted:
            return at
        at = yield from passed(dag_json_links(source, at))
        count += 1
        if _json_token(source.get(), at)[0] == b",":
            at = _json_token(source.get(), at)[1]
    raise KeyError(segment)


def dag_json_link(source: Source, start: int) -> Cid | None:
    """As :func:`dag_cbor_link`, for DAG-JSON."""
    return _json_link(source.get(), start)[0]


def dag_json_end(source: Source, start: int) -> int:
    """Where the white space at ``start`` ends."""
    return len(source.get()) - len(source.get()[start:].lstrip(_JSON_SPACE))


def passed(items: Generator[Cid | None, None, int]) -> Generator[None, None, int]:
    """Pass over a DAG-CBOR item; returns its end."""
    while True:
        try:
            next(items)
        except StopIteration as end:
            return int(end.value)
        yield


def _outline(source: Source, links: int, message: tuple[int, int]) -> Generator[None, None, Outline]:
    numbers: dict[int, int] = {}
    data_bytes = 0
    for number, kind, start, stop in _fields(source, *message):
        yield
        if kind == VARINT:
            numbers[number] = read_varint(source.get(), start)[0]
        elif number == _FILE_DATA and kind == BYTES:
            data_bytes = stop - start
    sizes = total = 0
    for size in blocksizes(source, message):
        yield
        sizes += 1
        total += size
    return Outline(
        links=links,
        kind=_KINDS.get(numbers.get(_TYPE, -1)),
        message=message,
        data_bytes=data_bytes,
        sizes=sizes,
        sizes_sum=total,
        hash_type=numbers.get(_HASH_TYPE),
        fanout=numbers.get(_FANOUT),
    )


def _node_fields(source: Source) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, start, stop) for the fields of a dag-pb node."""
    for number, kind, start, stop in _fields(source, 0, len(source.get())):
        if kind != BYTES or number not in (_DATA, _LINK):
            raise DagError(f"a dag-pb node has an unknown field {number}")
        yield number, start, stop


def _fields(source: Source, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (field number, wire type, start, stop) for the fields of a protobuf message."""
    while position < end:
        number, kind, start, position = _field(source.get(), position, end)
        yield number, kind, start, position


def _field(data: bytes, position: int, end: int) -> tuple[int, int, int, int]:
    key, start = read_varint(data, position)
    kind = key & 7
    if kind == VARINT:
        stop = read_varint(data, start)[1]
    elif kind == BYTES:
        size, start = read_varint(data, start)
        stop = start + size
    elif kind in _FIXED:
        stop = start + _FIXED[kind]
    else:
        raise DagError(f"a protobuf field has the wire type {kind}, which nothing here uses")
    if stop > end:
        raise DagError("a protobuf field is longer than its message")
    return key >> 3, kind, start, stop


def _cbor_item(data: bytes, at: int, *, is_key: bool) -> tuple[tuple[int, bool] | None, Cid | None, int]:
    """Read one item, without those in it; returns the collection that it opens, or the link that it is, and where it ends."""
    major, low, argument, end = cbor_head(data, at)
    if is_key and major != 3:
        raise DagError("not a DAG-CBOR block: a map key that is not text")
    if major in {2, 3}:
        text = _cbor_string(data, end, argument)
        if major == 3:
            text.decode("utf-8")
        return None, None, end + argument
    if major in {4, 5}:
        if argument > len(data):
            raise DagError("not a DAG-CBOR block: a collection with more entries than bytes")
        return (argument * (major - 3), major == 5), None, end
    if major == 6:
        major, _, size, start = cbor_head(data, end)
        name = _cbor_string(data, start, size) if major == 2 else b""
        if argument != _LINK_TAG or not name.startswith(b"\0"):
            raise DagError(f"not a DAG-CBOR block: tag {argument} is not a link")
        return None, Cid.decode(name[1:], foreign=True), start + size
    if major == 7:
        cbor_simple(low, data[at + 1 : end], end)
    return None, None, end


def _cbor_string(data: bytes, start: int, size: int) -> bytes:
    if start + size > len(data):
        raise DagError("not a DAG-CBOR block: it ends inside a string")
    return data[start : start + size]


def _json_token(data: bytes, at: int) -> tuple[bytes, int]:
    """The first character of the token at ``at``, and its end."""
    token = _JSON_TOKEN.match(data, at)
    if token is None:
        raise DagError("not a DAG-JSON block: it ends inside a value")
    first = token.start(1)
    return data[first : first + 1], token.end()


def _json_link(data: bytes, at: int) -> tuple[Cid | None, int]:
    """The link at ``at`` and its end; ``None`` and ``at`` if there is none."""
    link = _JSON_LINK.match(data, at)
    if link is None:
        return None, at
    try:
        return Cid.parse(_json_text(link[1]), foreign=True), link.end()
    except CidError as error:
        raise DagError(f"not a DAG-JSON block: {error}") from error


def _json_text(token: bytes) -> str:
    try:
        text: object = json.loads(token)
    except ValueError as error:
        raise DagError(f"not a DAG-JSON block: {error}") from error
    if not isinstance(text, str):
        raise DagError("not a DAG-JSON block: a key that is not text")
    return text
