"""Reads directories, plain ones and the shards of a HAMT. Does no I/O itself."""

from __future__ import annotations

from typing import NamedTuple

from dnc_async.errors import DagError
from dnc_async.ipld import dagpb, hamt, unixfs
from dnc_async.ipld.block import Block, verify
from dnc_async.ipld.cid import DAG_PB, RAW, Cid

_MAX_DEPTH = 64
_WANTED_AT_ONCE = 64
_FORBIDDEN = {"", ".", ".."}


class Entry(NamedTuple):
    """One entry of a directory; ``tsize`` is the writer's hint of its size."""

    name: str
    cid: Cid
    tsize: int


def node_kind(block: Block) -> str:
    """``raw``, ``file``, ``directory``, ``symlink``, or ``other`` (metadata, or another codec)."""
    if block.cid.codec == RAW:
        return "raw"
    if block.cid.codec != DAG_PB:
        return "other"
    kind = unixfs.decode(dagpb.decode(block.data).data).kind
    if kind in (unixfs.Kind.DIRECTORY, unixfs.Kind.HAMT_SHARD):
        return "directory"
    names = {unixfs.Kind.FILE: "file", unixfs.Kind.RAW: "file", unixfs.Kind.SYMLINK: "symlink"}
    return names.get(kind, "other")


def symlink_target(block: Block) -> str:
    """The target of a symlink, as its writer wrote it; raises :class:`~dnc_async.errors.DagError`."""
    body = unixfs.decode(dagpb.decode(block.data).data)
    if body.kind is not unixfs.Kind.SYMLINK:
        raise DagError(f"{block.cid} is not a symlink")
    return body.data.decode("utf-8", "surrogateescape")


class DirectoryReader:
    """Reads a whole directory, or, with ``name``, only the shards that lead to that entry."""

    def __init__(self, root: Cid, *, name: str | None = None) -> None:
        if name is not None:
            check_name(name)
        self._name = name
        self._digest = None if name is None else hamt.digest(name)
        self._open: dict[bytes, tuple[Cid, int, int | None, tuple[bytes, ...]]] = {root.multihash: (root, 0, None, ())}
        self._entries: dict[str, Entry] = {}
        self._inline = [root] if root.inline is not None else []
        self._resolve_inline()

    @property
    def done(self) -> bool:
        """Whether no more nodes are needed."""
        return not self._open

    @property
    def entries(self) -> list[Entry]:
        """The entries that were found. Of entries with the same name, the first one counts."""
        return list(self._entries.values())

    def wanted(self) -> list[Cid]:
        """Nodes to fetch for :meth:`receive` next; a limited number of them."""
        return [cid for cid, _, _, _ in list(self._open.values())[:_WANTED_AT_ONCE]]

    def receive(self, block: Block) -> None:
        """Read a wanted node; raises :class:`~dnc_async.errors.DagError` if it violates the specification."""
        self._take(block)
        self._resolve_inline()

    def _take(self, block: Block) -> None:
        cid, depth, fanout, above = self._open.pop(block.cid.multihash)
        node = dagpb.decode(block.data)
        body = unixfs.decode(node.data)
        if body.kind is unixfs.Kind.DIRECTORY and depth == 0:
            for link in node.links:
                self._add(link.name, link)
        elif body.kind is unixfs.Kind.HAMT_SHARD:
            self._shard(cid, node, body, depth, fanout, above)
        else:
            raise DagError(f"{cid} is a {body.kind.name.lower()}, expected a directory")

    def _shard(
        self, cid: Cid, node: dagpb.Node, body: unixfs.UnixFs, depth: int, fanout: int | None, above: tuple[bytes, ...]
    ) -> None:
        bits, width = hamt.shape(body)
        slots = hamt.slots(bits, width)
        if fanout not in (None, body.fanout) or depth > _MAX_DEPTH:
            raise DagError(f"{cid}: a shard's fanout differs from its root's, or it lies too deep")
        for link in node.links:
            prefix, name = link.name[:width], link.name[width:]
            index = slots.get(prefix)
            if index is None:
                raise DagError(
                    f"a sharded directory has a link that begins with {prefix!r}, expected {width} hex digits"
                )
            if name:
                self._add(name, link)
                continue
            if self._digest is not None and index != hamt.step(self._digest, depth, bits):
                continue
            if link.cid.codec != DAG_PB or link.cid.problem is not None:
                raise DagError(
                    f"{link.cid} is no part of a sharded directory that we read: {link.cid.problem or 'not dag-pb'}"
                )
            if link.cid.multihash in (*above, cid.multihash):
                raise DagError(f"{link.cid} is its own ancestor")
            self._open[link.cid.multihash] = (link.cid, depth + 1, body.fanout, (*above, cid.multihash))
            if link.cid.inline is not None:
                self._inline.append(link.cid)

    def _add(self, name: str, link: dagpb.Link) -> None:
        if self._name is None:
            check_name(name)
        if (self._name is None or name == self._name) and name not in self._entries:
            self._entries[name] = Entry(name, link.cid, link.tsize)

    def _resolve_inline(self) -> None:
        while self._inline:
            cid = self._inline.pop()
            self._take(verify(cid, cid.inline or b""))


def check_name(name: str) -> None:
    """Raise :class:`~dnc_async.errors.DagError` for names that could lead outside of a folder."""
    if name in _FORBIDDEN or "/" in name or "\0" in name:
        raise DagError(f"a directory entry may not be named {name!r}")
