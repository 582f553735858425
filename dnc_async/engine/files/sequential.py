"""Reads a file from its start, without relying on sizes: for files whose nodes give no sizes, or wrong ones.

A few leaves are requested at a time, and the file's bytes are given in order. How large a hostile DAG is, only its links tell,
so their number is limited.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from dnc_async.engine.files.paths import URGENT, parsed
from dnc_async.errors import DagError, PlanTooLargeError
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld import dagpb, unixfs
from dnc_async.ipld.block import Block
from dnc_async.ipld.cid import DAG_PB, RAW
from dnc_async.ipld.plan import MAX_LEAVES

_AT_ONCE = 8
_KEPT = 16  # blocks: a file may repeat a block, and a node's siblings are requested with it
_MAX_DEPTH = 64

#: Takes the next bytes; returns whether more are wanted.
Take = Callable[[bytes], Awaitable[bool]]


async def read_through(group: FetchGroup, root: Block, take: Take) -> None:
    """Call ``take`` with the file's bytes, a block at a time, until it returns ``False``."""
    walk = _Walk(group, root)
    while (data := await walk.next()) is not None:
        if data and not await take(data):
            return


async def read_range(group: FetchGroup, root: Block, start: int, end: int | None) -> bytes:
    """The bytes from ``start`` to ``end`` (exclusive), as in a slice of Python. The bytes before them are fetched, too."""
    kept, position = io.BytesIO(), 0
    from_end = start < 0 or (end is not None and end < 0)

    async def take(data: bytes) -> bool:
        nonlocal position
        begin, stop = (0, None) if from_end else (max(0, start - position), None if end is None else end - position)
        kept.write(data[begin : max(0, stop) if stop is not None else None])
        position += len(data)
        return from_end or end is None or position < end

    await read_through(group, root, take)
    return kept.getvalue()[start:end] if from_end else kept.getvalue()


class _Walk:
    """Walks a file's nodes depth first, and requests them when their turn comes."""

    def __init__(self, group: FetchGroup, root: Block) -> None:
        self._group = group
        self._root = root.cid
        self._waiting = [(root.cid, 0)]
        self._parts = 0
        self._kept = OrderedDict({root.cid: root})

    async def next(self) -> bytes | None:
        """The next node's own bytes, which may be empty; ``None`` at the end."""
        if not self._waiting:
            return None
        block = await self._block()
        cid, depth = self._waiting.pop()
        if cid.codec == RAW:
            return block.data
        node = await parsed(self._group, block, dagpb.decode, block.data)
        body = unixfs.decode(node.data)
        if not body.is_file:
            raise DagError(f"{cid} is a {body.kind.name.lower()}, expected a file")
        self._parts += len(node.links)
        if self._parts > MAX_LEAVES:
            raise PlanTooLargeError(
                f"{self._root} has more than {MAX_LEAVES} parts, and does not say how long they are"
            )
        if depth == _MAX_DEPTH and node.links:
            raise DagError(f"{self._root} is nested more than {_MAX_DEPTH} levels deep")
        self._waiting += [(link.cid, depth + 1) for link in reversed(node.links)]
        return body.data

    async def _block(self) -> Block:
        """The next block; those after it are requested together with it."""
        cid = self._waiting[-1][0]
        if (problem := cid.problem) is not None:
            raise DagError(f"{cid} is a part of the file {self._root}, and is not read: {problem}")
        if cid.codec not in (RAW, DAG_PB):
            raise DagError(f"{cid} is neither raw nor dag-pb, so it is not a part of a file")
        if cid not in self._kept:
            some = dict.fromkeys(each for each, _ in self._waiting[: -_AT_ONCE - 1 : -1] if each.problem is None)
            missing = [each for each in some if each not in self._kept]
            for each, block in zip(missing, await self._group.blocks(missing, priority=URGENT), strict=True):
                self._kept[each] = block
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(cid)
        return self._kept[cid]
