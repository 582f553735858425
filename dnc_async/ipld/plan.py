"""Plans how to fetch a file: from its root to its leaves, by reading only the intermediate nodes. Does no I/O itself.

A :class:`FilePlanner` says which nodes it needs, is given them, and finally knows the CID, offset and size of every leaf. Then
any gateway can serve any leaf. It reads balanced and trickle trees, raw and dag-pb leaves, data in inner nodes (which precedes
that of their children) and inline CIDs. It refuses cycles and excessive depth. If sizes are missing or inconsistent, it raises
an error that says so: such a file can only be read sequentially from its start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from dnc_async.errors import DagError, PlanTooLargeError, UnsizedFileError
from dnc_async.ipld import dagpb, unixfs
from dnc_async.ipld.block import MAX_BLOCK_BYTES, Block, Pieces, verify
from dnc_async.ipld.cid import DAG_PB, RAW, Cid
from dnc_async.ipld.multihash import matches

_MAX_DEPTH = 64
_WANTED_AT_ONCE = 64
#: A limit, because a small DAG with repeated nodes may claim to have billions of leaves.
MAX_LEAVES = 2**17


class Leaf(NamedTuple):
    """A range of a file's bytes: one leaf block, or ``inline`` bytes that need no fetching.

    ``size`` is ``None`` only if the file is a single raw block of unknown size.
    """

    cid: Cid
    offset: int
    size: int | None
    inline: bytes | None


def payload(leaf: Leaf, block: Block) -> bytes:
    """The file's bytes in a leaf's block; raises :class:`~dnc_async.errors.DagError` if their number is wrong."""
    if leaf.inline is not None:
        return leaf.inline
    data = block.data
    if block.cid.codec == DAG_PB:
        node = dagpb.decode(block.data)
        body = unixfs.decode(node.data)
        if node.links or not body.is_file:
            raise DagError(f"{leaf.cid} was announced as a leaf and is not one")
        data = body.data
    if leaf.size is not None and len(data) != leaf.size:
        raise DagError(f"the leaf {leaf.cid} has {len(data)} bytes, its parent says {leaf.size}")
    return data


def payload_pieces(leaf: Leaf, block: Block) -> Pieces:
    """As :func:`payload`, in the pieces in which they arrived."""
    if block.cid.codec == DAG_PB or leaf.inline is not None or block.size_bytes != leaf.size:
        return (payload(leaf, block),)
    return block.pieces


def holds(leaf: Leaf, data: bytes) -> bool:
    """Whether ``data``, the file's bytes in a leaf's range, match the leaf's CID.

    For dag-pb leaves the block is encoded again as Kubo does it; ``False`` may also mean that another writer made this one.
    """
    if leaf.inline is not None:
        return data == leaf.inline
    if leaf.cid.codec == RAW:
        return matches(leaf.cid.multihash, data)
    kinds = (unixfs.Kind.FILE, unixfs.Kind.RAW)
    messages = (unixfs.encode(kind, data=data or None, filesize=len(data)) for kind in kinds)
    return any(matches(leaf.cid.multihash, dagpb.encode(message, ())) for message in messages)


def file_size(root: Block) -> int:
    """The size in bytes of the file with this root.

    Raises :class:`~dnc_async.errors.UnsizedFileError` if the root does not say, :class:`~dnc_async.errors.DagError` for other
    faults.
    """
    if root.cid.codec == RAW:
        return len(root.data)
    planner = FilePlanner(root.cid, 0, 0)
    if not planner.done:  # an inline CID is done already
        planner.receive(root)
    return planner.size or 0


@dataclass(slots=True)
class _Part:
    """A node of the file that was not read yet: its range of the file, and the multihashes of its ancestors."""

    cid: Cid
    offset: int
    size: int | None
    above: tuple[bytes, ...]
    leaf: bool = False


class FilePlanner:
    """Plans the leaves of one file, or those in a byte range of it (``end`` is exclusive).

    Only its block tells whether a dag-pb child is a leaf. Children of up to ``presume_bytes`` are assumed to be leaves, and
    have to be checked for links when they are fetched.
    """

    def __init__(self, root: Cid, start: int = 0, end: int | None = None, *, presume_bytes: int = 0) -> None:
        self._start = start
        self._end = end
        self._root = root
        self._presume_bytes = min(presume_bytes, MAX_BLOCK_BYTES)
        self._leaves: list[Leaf] = []
        self._open: dict[bytes, list[_Part]] = {}
        self._inline: list[Cid] = []
        self._parts = 0
        self.size: int | None = None
        if root.codec == RAW:
            inline = root.inline
            self.size = None if inline is None else len(inline)
            self._leaves.append(Leaf(root, 0, self.size, inline))
        elif root.codec == DAG_PB:
            self._want(_Part(root, 0, None, ()))
            self._resolve_inline()
        else:
            raise DagError(f"{root} is neither raw nor dag-pb, so it is not a file")

    def __repr__(self) -> str:
        return f"<FilePlanner {self._root}, {len(self._leaves)} leaves, {len(self._open)} nodes missing>"

    @property
    def done(self) -> bool:
        """Whether all leaves are known."""
        return not self._open

    @property
    def leaves(self) -> list[Leaf]:
        """The leaves that are known so far, in the file's order."""
        return sorted(self._leaves, key=lambda leaf: leaf.offset)

    def wanted(self) -> list[Cid]:
        """Nodes to fetch for :meth:`receive` next, in the file's order; a limited number of them."""
        parts = sorted((parts[0] for parts in self._open.values()), key=lambda part: part.offset)
        return [part.cid for part in parts[:_WANTED_AT_ONCE]]

    def receive(self, block: Block) -> None:
        """Read a wanted node; raises :class:`~dnc_async.errors.DagError` if it violates the specification."""
        for part in self._open.pop(block.cid.multihash, []):
            self._expand(part, block)
        self._resolve_inline()

    def _want(self, part: _Part) -> None:
        if part.cid.multihash in part.above:
            raise DagError(f"{part.cid} is its own ancestor")
        if len(part.above) > _MAX_DEPTH:
            raise DagError(f"{self._root} is nested more than {_MAX_DEPTH} levels deep")
        self._count()
        self._open.setdefault(part.cid.multihash, []).append(part)
        if part.cid.inline is not None:
            self._inline.append(part.cid)

    def _resolve_inline(self) -> None:
        while self._inline:
            cid = self._inline.pop()
            block = verify(cid, cid.inline or b"")
            for part in self._open.pop(cid.multihash, []):
                self._expand(part, block)

    def _expand(self, part: _Part, block: Block) -> None:
        node = dagpb.decode(block.data)
        body = unixfs.decode(node.data)
        if not body.is_file:
            raise DagError(f"{part.cid} is a {body.kind.name.lower()}, expected a file")
        if len(node.links) != len(body.blocksizes):
            raise UnsizedFileError(f"{part.cid} has {len(node.links)} links and {len(body.blocksizes)} sizes")
        size = len(body.data) + sum(body.blocksizes)
        if body.filesize not in (None, 0, size) or part.size not in (None, size):
            raise UnsizedFileError(f"{part.cid}: its parts have {size} bytes, expected {part.size or body.filesize}")
        if part.size is None:
            self.size = size
        offset, above = part.offset, (*part.above, part.cid.multihash)
        if body.data:
            self._leaf(Leaf(part.cid, offset, len(body.data), body.data))
            offset += len(body.data)
        for link, child_size in zip(node.links, body.blocksizes, strict=True):
            self._child(link.cid, offset, child_size, above)
            offset += child_size

    def _child(self, cid: Cid, offset: int, size: int, above: tuple[bytes, ...]) -> None:
        if not size and (cid.problem is not None or not holds(Leaf(cid, offset, 0, cid.inline), b"")):
            raise UnsizedFileError(f"{cid} is said to be an empty part of a file, and is not")
        if not size or offset + size <= self._start or (self._end is not None and offset >= self._end):
            return
        if (problem := cid.problem) is not None:
            raise DagError(f"{cid} is a part of the file {self._root}, and is not read: {problem}")
        if cid.codec == RAW:
            inline = cid.inline
            if inline is not None and len(inline) != size:
                raise DagError(f"the inline leaf {cid} has {len(inline)} bytes, its parent says {size}")
            if size > MAX_BLOCK_BYTES and inline is None:
                raise DagError(f"the leaf {cid} is said to have {size} bytes, a block may have {MAX_BLOCK_BYTES}")
            self._leaf(Leaf(cid, offset, size, inline))
        elif cid.codec == DAG_PB and size <= self._presume_bytes and cid.inline is None:
            self._leaf(Leaf(cid, offset, size, None))
        elif cid.codec == DAG_PB:
            self._want(_Part(cid, offset, size, above))
        else:
            raise DagError(f"{cid} is neither raw nor dag-pb, so it is not a part of a file")

    def _leaf(self, leaf: Leaf) -> None:
        size = leaf.size or 0
        if leaf.offset + size > self._start and (self._end is None or leaf.offset < self._end):
            self._count()
            self._leaves.append(leaf)

    def _count(self) -> None:
        self._parts += 1
        if self._parts > MAX_LEAVES:
            raise PlanTooLargeError(
                f"{self._root}: bytes {self._start} to {self._end or 'the end'} have more than {MAX_LEAVES} leaves and nodes"
            )
