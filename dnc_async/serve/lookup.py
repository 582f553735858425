"""One name in one directory, plain or sharded: where it leads, and the nodes that prove it.

A gateway reads its own store, so this is a plain loop over what :mod:`dnc_async.ipld` decodes, without the checks
that a client makes on its way through a directory that a stranger sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import mmh3

from dnc_async.errors import DagError
from dnc_async.ipld import dagpb, unixfs
from dnc_async.ipld.cid import DAG_PB, Cid

if TYPE_CHECKING:
    from dnc_async.ipld.dagpb import Node
    from dnc_async.ipld.unixfs import UnixFs

_MURMUR3 = 0x22
_HASH_BITS = 64


def find(load: Callable[[Cid], bytes], directory: Cid, name: str) -> tuple[list[Cid], Cid | None]:
    """Follow the shards to ``name``; give the nodes on the way, and the entry's CID or None.

    Raises :class:`DagError` when this is not a directory, or one that nobody could read.
    """
    nodes: list[Cid] = []
    hashed = mmh3.hash64(name.encode("utf-8", "surrogateescape"), x64arch=True, signed=False)[0]
    shard: Cid | None = directory
    while shard is not None:
        if shard.codec != DAG_PB:
            raise DagError(f"{shard} is not a directory")
        nodes.append(shard)
        node = dagpb.decode(load(shard))
        body = unixfs.decode(node.data)
        if body.kind == unixfs.Kind.DIRECTORY and len(nodes) == 1:
            return nodes, _named(node, name)
        if body.kind != unixfs.Kind.HAMT_SHARD:
            raise DagError(f"{shard} is not a directory")
        prefix = _prefix(body, hashed, level=len(nodes) - 1)
        found = _named(node, prefix + name)
        if found is not None:
            return nodes, found
        shard = _named(node, prefix)
    return nodes, None


def _named(node: Node, name: str) -> Cid | None:
    """Give the first link of that name."""
    return next((link.cid for link in node.links if link.name == name), None)


def _prefix(body: UnixFs, hashed: int, *, level: int) -> str:
    """Give what the links of a name's slot begin with, in the shards of a level."""
    fanout = body.fanout or 0
    bits = fanout.bit_length() - 1
    left = _HASH_BITS - bits * (level + 1)
    if not 8 <= fanout <= 1024 or fanout & (fanout - 1) or body.hash_type != _MURMUR3 or left < 0:
        raise DagError("a sharded directory of a kind that nobody makes")
    return f"{hashed >> left & (fanout - 1):0{len(f'{fanout - 1:X}')}X}"
