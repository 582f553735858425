"""Chooses the blocks that answer a CAR request, and their order: the path's proof, then the requested scope, depth first.

Synchronous: the gateway calls it in its reading threads, a run of blocks at a time. Blocks are obtained from a function and are
not verified, because the client does that. Memory grows with the depth and width of the DAG on the current path, and with
``dups=n`` by one entry for each block that was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnc_async.errors import BlockMismatchError, DagError, StoreError
from dnc_async.ipld import dagpb, unixfs
from dnc_async.ipld.block import verify
from dnc_async.ipld.car import encode_header, section_bytes
from dnc_async.ipld.cid import DAG_CBOR, DAG_JSON, DAG_PB, RAW, Cid
from dnc_async.ipld.codecs import decode_dag_cbor, decode_dag_json, links, links_in, step

from .content_request import RefusalError
from .lookup import find

if TYPE_CHECKING:
    from .content_request import ContentRequest

Read = Callable[[Cid], bytes | None]
Run = list[tuple[Cid, bytes]]

_RUN_BYTES = 2**20
_FILE_KINDS = (unixfs.Kind.FILE, unixfs.Kind.RAW)


class NotHereError(Exception):
    """A needed block is not in the store. Not raised outside ``serve``."""

    def __init__(self, cid: Cid) -> None:
        super().__init__(f"the block {cid} is not in the store")
        self.cid = cid


@dataclass(frozen=True)
class Resolved:
    """Where a path leads: the block at its end, the blocks that prove it, and the CIDs at its segments.

    ``inside`` is the value inside the last block at which the path ends, if that is not the whole block.
    """

    terminus: Cid
    data: bytes
    proof: tuple[Cid, ...]
    roots: tuple[Cid, ...]
    inside: object = None


def resolve(read: Read, root: Cid, segments: Sequence[str]) -> Resolved:
    """Follow a path. Raises :class:`NotHereError` for a missing block, :class:`RefusalError` (404) for a missing name."""
    cid, left = root, list(segments)
    proof: list[Cid] = []
    roots = [root]
    while left:
        if cid.codec == DAG_PB:
            nodes, cid = _enter(read, cid, left.pop(0))
            proof += nodes
        elif cid.codec in {DAG_CBOR, DAG_JSON}:
            value, left = _descend(_decode(cid, _load(read, cid)), left)
            if not isinstance(value, Cid):
                return Resolved(cid, _load(read, cid), tuple(proof), tuple(roots), value)
            proof.append(cid)
            cid = value
        else:
            raise RefusalError(404, f"{cid} is a {cid.codec_name} block and has no {left[0]!r} in it")
        roots.append(cid)
    return Resolved(cid, _load(read, cid), tuple(proof), tuple(roots))


def check_range(resolved: Resolved, content: ContentRequest) -> tuple[int, int] | None:
    """The requested byte range of the file, half open; ``None`` for no range, or if this is not a file.

    Raises :class:`RefusalError` (400) for a range outside of the file.
    """
    if content.entity_bytes is None:
        return None
    size_bytes = _file_size(resolved.terminus, resolved.data)
    if size_bytes is None:
        return None
    start, stop = content.entity_bytes.resolve(size_bytes)
    return None if (start, stop) == (0, size_bytes) else (start, stop)


class Runs:
    """The blocks of one answer, in runs of about a megabyte. Call :meth:`next` from one thread at a time."""

    def __init__(self, read: Read, resolved: Resolved, content: ContentRequest) -> None:
        wanted = check_range(resolved, content)
        self._blocks = _Walk(read, resolved, dups=content.dups).blocks(content, wanted)
        self._error: Exception | None = None

    def next(self) -> Run:
        """The next blocks; none at the end.

        Raises :class:`NotHereError`, :class:`DagError` or :class:`StoreError` after all blocks before the fault were returned.
        """
        if self._error is not None:
            raise self._error
        run: Run = []
        size_bytes = 0
        try:
            for cid, data in self._blocks:
                run.append((cid, data))
                size_bytes += len(data)
                if size_bytes >= _RUN_BYTES:
                    break
        except (NotHereError, DagError, StoreError) as error:
            if not run:
                raise
            self._error = error
        return run


def car_bytes(
    read: Read, size_of: Callable[[Cid], int | None], resolved: Resolved, content: ContentRequest, *, most_blocks: int
) -> int | None:
    """The size of the answer's CAR, computed from its nodes and the sizes of its raw blocks, which are not read.

    ``None`` if it has more than ``most_blocks``, or a block is missing: such a CAR is sent without a Content-Length.
    """

    def hollow(cid: Cid) -> bytes | None:
        size_bytes = size_of(cid) if cid.codec == RAW else None
        return read(cid) if size_bytes is None else bytes(size_bytes)  # an array of zeros, which takes no memory

    total = len(encode_header([resolved.terminus]))
    blocks = _Walk(hollow, resolved, dups=content.dups).blocks(content, check_range(resolved, content))
    try:
        for count, (cid, data) in enumerate(blocks):
            if count == most_blocks:
                return None
            total += section_bytes(cid, len(data))
    except (NotHereError, DagError, StoreError):
        return None
    return total


class _Walk:
    """One depth-first walk. Identity CIDs are followed and not sent."""

    def __init__(self, read: Read, resolved: Resolved, *, dups: bool) -> None:
        self._read = read
        self._resolved = resolved
        self._sent: set[tuple[int, bytes]] | None = None if dups else set()

    def blocks(self, content: ContentRequest, wanted: tuple[int, int] | None) -> Iterator[tuple[Cid, bytes]]:
        for cid in self._resolved.proof:
            yield from self._send(cid, _load(self._read, cid))
        terminus, data = self._resolved.terminus, self._resolved.data
        if wanted is not None:
            yield from self._range(terminus, *wanted)
            return
        yield from self._send(terminus, data)
        if content.scope == "all":
            inside = self._resolved.inside
            yield from self._below(links(terminus, data) if inside is None else list(links_in(inside)), links)
        elif content.scope == "entity":
            yield from self._below(_entity_links(terminus, data), _entity_links)

    def _send(self, cid: Cid, data: bytes) -> Iterator[tuple[Cid, bytes]]:
        """Yield the block, unless its CID contains it, or it was sent before and may not be repeated."""
        if cid.inline is not None:
            return
        if self._sent is not None:
            key = (cid.codec, cid.multihash)
            if key in self._sent:
                return
            self._sent.add(key)
        yield cid, data

    def _below(self, roots: list[Cid], follow: Callable[[Cid, bytes], list[Cid]]) -> Iterator[tuple[Cid, bytes]]:
        """Walk whole subtrees; with ``dups=n`` without those that were walked before."""
        waiting = roots[::-1]
        while waiting:
            cid = waiting.pop()
            if self._sent is not None and (cid.codec, cid.multihash) in self._sent:
                continue
            data = _load(self._read, cid)
            yield from self._send(cid, data)
            waiting.extend(reversed(follow(cid, data)))

    def _range(self, root: Cid, start: int, stop: int) -> Iterator[tuple[Cid, bytes]]:
        """Walk the parts of a file that contain its bytes from ``start`` to ``stop`` (exclusive), and always its root."""
        waiting = [(root, 0)]
        while waiting:
            cid, offset = waiting.pop()
            data = _load(self._read, cid)
            yield from self._send(cid, data)
            if cid.codec != DAG_PB:
                continue
            if not _is_sized(data):  # it is not known which of its parts contain the range
                yield from self._below(_entity_links(cid, data), _entity_links)
                continue
            parts = []
            for link, size_bytes, at in _file_parts(cid, data, offset):
                if size_bytes and at < stop and at + size_bytes > start:
                    parts.append((link, at))
            waiting.extend(reversed(parts))


def _load(read: Read, cid: Cid) -> bytes:
    data = read(cid)
    if data is None:
        raise NotHereError(cid)
    return data


def _load_verified(read: Read, cid: Cid) -> bytes:
    """Read and verify a node that decides where the path leads: a damaged one must not mislead the client."""
    try:
        return verify(cid, _load(read, cid)).data
    except BlockMismatchError as error:
        raise StoreError(f"a block of the store is damaged: {error}") from error


def _enter(read: Read, directory: Cid, name: str) -> tuple[list[Cid], Cid]:
    """Find a name in a directory; returns the nodes that prove it, and where it leads."""
    try:
        nodes, found = find(lambda cid: _load_verified(read, cid), directory, name)
    except DagError as error:
        raise RefusalError(404, f"{directory} has no {name!r} in it: {error}") from error
    if found is None:
        raise RefusalError(404, f"{directory} has no {name!r} in it")
    return nodes, found


def _decode(cid: Cid, data: bytes) -> object:
    try:
        found: object = decode_dag_cbor(data) if cid.codec == DAG_CBOR else decode_dag_json(data)
    except DagError as error:
        raise RefusalError(404, f"{cid} cannot be followed: {error}") from error
    return found


def _descend(value: object, segments: list[str]) -> tuple[object, list[str]]:
    """Follow segments inside one block, as far as the first link; returns the value there and the remaining segments."""
    for position, segment in enumerate(segments):
        try:
            value = step(value, segment)
        except KeyError:
            raise RefusalError(404, f"there is no {segment!r} in the block") from None
        if isinstance(value, Cid):
            return value, segments[position + 1 :]
    return value, []


def _entity_links(cid: Cid, data: bytes) -> list[Cid]:
    """The links that belong to the same entity: a file's parts, or a sharded directory's shards."""
    if cid.codec != DAG_PB:
        return []
    node = dagpb.decode(data)
    body = _unixfs(node)
    if body is None:
        return []  # dag-pb without UnixFS: the block is the entity
    if body.kind in _FILE_KINDS:
        return [link.cid for link in node.links]
    if body.kind == unixfs.Kind.HAMT_SHARD:
        digits = len(f"{(body.fanout or 1) - 1:X}")  # a link whose name is only a slot leads to a shard
        return [link.cid for link in node.links if len(link.name) == digits]
    return []


def _file_size(cid: Cid, data: bytes) -> int | None:
    """The size of a file; ``None`` if this is not one, or does not say."""
    if cid.codec == RAW:
        return len(data)
    body = _unixfs(dagpb.decode(data)) if cid.codec == DAG_PB and _is_sized(data) else None
    return len(body.data or b"") + sum(body.blocksizes) if body is not None and body.kind in _FILE_KINDS else None


def _is_sized(data: bytes) -> bool:
    """Whether a dag-pb node gives the size of each of its parts."""
    node = dagpb.decode(data)
    body = _unixfs(node)
    return body is not None and len(node.links) == len(body.blocksizes)


def _unixfs(node: dagpb.Node) -> unixfs.UnixFs | None:
    """The UnixFS message of a node; ``None`` for dag-pb without one."""
    try:
        return unixfs.decode(node.data)
    except DagError:
        return None


def _file_parts(cid: Cid, data: bytes, offset: int) -> Iterator[tuple[Cid, int, int]]:
    """Yield the children of a file's node with their sizes and offsets in the file."""
    node = dagpb.decode(data)
    body = unixfs.decode(node.data)
    if body.kind not in _FILE_KINDS or len(node.links) != len(body.blocksizes):
        raise DagError(f"{cid} is not a well-formed part of a file")
    offset += len(body.data or b"")
    for link, size_bytes in zip(node.links, body.blocksizes, strict=True):
        yield link.cid, size_bytes, offset
        offset += size_bytes
