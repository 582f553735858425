"""Looks up one name in one directory, plain or sharded."""

from __future__ import annotations

from collections.abc import Callable

from dnc_async.errors import BlockMismatchError, DagError
from dnc_async.ipld.block import verify
from dnc_async.ipld.cid import DAG_PB, Cid
from dnc_async.ipld.directory import DirectoryReader


def find(load: Callable[[Cid], bytes], directory: Cid, name: str) -> tuple[list[Cid], Cid | None]:
    """Find ``name``; returns the nodes that prove the result, and the entry's CID or ``None``.

    Raises :class:`DagError` if this is not a directory, or one that cannot be read.
    """
    if directory.codec != DAG_PB:
        raise DagError(f"{directory} is not a directory")
    reader, nodes = DirectoryReader(directory, name=name), []
    while wanted := reader.wanted():
        for cid in wanted:
            try:
                block = verify(cid, load(cid))
            except BlockMismatchError as error:
                raise DagError(f"the store's copy of {cid} is damaged") from error
            reader.receive(block)
            nodes.append(cid)
    return nodes, next((entry.cid for entry in reader.entries), None)
