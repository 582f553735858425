"""Looks up one name in one directory, plain or sharded, in steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dnc_async.errors import DagError
from dnc_async.ipld import hamt, stepwise, unixfs
from dnc_async.ipld.cid import DAG_PB, Cid
from dnc_async.ipld.directory import check_name

if TYPE_CHECKING:
    from .steps import Steps

Load = Callable[[Cid], "Steps[stepwise.Source]"]

_MAX_DEPTH = 64


def find(load: Load, directory: Cid, name: str) -> Steps[tuple[list[Cid], Cid | None]]:
    """Find ``name``; returns the nodes that prove the result, and the entry's CID or ``None``.

    ``load`` reads and verifies a node. Raises :class:`DagError` if this is not a directory, or one that cannot be read.
    """
    check_name(name)
    if directory.codec != DAG_PB:
        raise DagError(f"{directory} is not a directory")
    source = yield from load(directory)
    node = yield from stepwise.outline(source)
    if node.kind is unixfs.Kind.DIRECTORY:
        for link in stepwise.dag_pb_links(source):
            yield None
            if link.name == name:
                return [directory], link.cid
        return [directory], None
    return (yield from _find_in_shards(load, directory, name, source, node))


def _find_in_shards(
    load: Load, root: Cid, name: str, source: stepwise.Source, node: stepwise.Outline
) -> Steps[tuple[list[Cid], Cid | None]]:
    """Follow the one way of shards on which ``name`` may lie."""
    digest, fanout, shards = hamt.digest(name), node.fanout, [root]
    while True:
        cid = shards[-1]
        if node.kind is not unixfs.Kind.HAMT_SHARD:
            raise DagError(f"{cid} is {node.kind.name.lower() if node.kind else 'no UnixFS'}, expected a directory")
        bits, width = hamt.shape(node.shard)
        if node.fanout != fanout or len(shards) > _MAX_DEPTH:
            raise DagError(f"{cid}: a shard's fanout differs from its root's, or it lies too deep")
        prefix = f"{hamt.step(digest, len(shards) - 1, bits):0{width}X}"
        below = None
        for link in stepwise.dag_pb_links(source):
            yield None
            if link.name[:width] not in hamt.slots(bits, width):
                raise DagError(f"a sharded directory has a link {link.name[:width]!r}, expected {width} hex digits")
            if link.name == prefix + name:
                return shards, link.cid
            if link.name == prefix:
                below = link.cid
        if below is None:
            return shards, None
        if below.codec != DAG_PB or below.problem is not None:
            raise DagError(f"{below} is no part of a sharded directory that we read: {below.problem or 'not dag-pb'}")
        shards.append(below)
        source = yield from load(below)
        node = yield from stepwise.outline(source)
