"""Reads ranges of files: finds the leaves that they need, and fetches as many of them at once as fit into a limit.

Blocks are verified like all others. A file is never planned as a whole: leaves are found a window at a time, so that a file of
any size, honest or not, takes bounded memory.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from dnc_async.condition import Condition
from dnc_async.engine.files.paths import GUESS_BYTES, URGENT, describe, locate, parsed, size_of
from dnc_async.engine.files.sequential import read_range
from dnc_async.errors import PathError, PlanTooLargeError, UnsizedFileError
from dnc_async.gateways.dag_range import DagRange
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld import dagpb, unixfs
from dnc_async.ipld.block import MAX_BLOCK_BYTES, Block
from dnc_async.ipld.cid import DAG_PB, RAW, Cid
from dnc_async.ipld.plan import FilePlanner, Leaf, payload

_WINDOW_BYTES = 64 * 2**20
_SMALLEST_WINDOW_BYTES = 4096
_NODES_KEPT = 16


class FileReader:
    """Reads ranges of one file. It caches a few intermediate nodes, and no leaves."""

    def __init__(self, root: Block, *, about: str) -> None:
        """``about`` is the path that leads to it, from a root.

        Raises :class:`~dnc_async.errors.PathError` if ``root`` is not a file's.
        """
        if (kind := describe(about, root).kind) != "file":
            what = "neither a file nor a directory" if kind == "other" else f"a {kind}"
            raise PathError(f"{about} is {what}, expected a file")
        self._root = root
        self._nodes: OrderedDict[bytes, Block] = OrderedDict()
        self._window_bytes = _WINDOW_BYTES
        self._presume_bytes = MAX_BLOCK_BYTES
        #: ``None`` if it is not known: then the file can only be read sequentially.
        self.is_sized = (size := size_of(root)) is not None
        self.size_bytes = size or 0
        self.within = DagRange(str(root.cid), 0, self.size_bytes, self.size_bytes, via=about)

    async def leaves(self, group: FetchGroup, start: int, end: int) -> list[Leaf]:
        """The leaves from ``start`` on, as many as one window has; they end at ``end`` or before."""
        if self._root.cid.codec == RAW:
            return [Leaf(self._root.cid, 0, len(self._root.data), self._root.data)] if start < end else []
        while True:
            try:
                return await self._plan(group, start, min(end, start + self._window_bytes))
            except PlanTooLargeError:  # many small leaves
                if self._window_bytes <= _SMALLEST_WINDOW_BYTES:
                    raise
                self._window_bytes //= 4

    async def _plan(self, group: FetchGroup, start: int, end: int) -> list[Leaf]:
        planner = FilePlanner(self._root.cid, start, end, presume_bytes=self._presume_bytes)
        await self._feed(group, planner)
        return planner.leaves

    async def _feed(self, group: FetchGroup, planner: FilePlanner) -> None:
        while wanted := planner.wanted():
            for block in await self._fetch(group, wanted):
                await parsed(group, block, planner.receive, block)

    async def _fetch(self, group: FetchGroup, cids: Sequence[Cid]) -> list[Block]:
        """Fetch nodes that are not cached."""
        kept: dict[bytes, Block | None] = {cid.multihash: self._nodes.get(cid.multihash) for cid in cids}
        kept[self._root.cid.multihash] = self._root
        missing = [cid for cid in cids if kept[cid.multihash] is None]
        for fetched in await group.blocks(missing, priority=URGENT) if missing else ():
            kept[fetched.cid.multihash] = self._nodes[fetched.cid.multihash] = fetched
        while len(self._nodes) > _NODES_KEPT:
            self._nodes.popitem(last=False)
        return [block for cid in cids if (block := kept[cid.multihash]) is not None]

    async def read(self, group: FetchGroup, start: int, end: int, *, limit_bytes: int) -> bytes:
        """The bytes from ``start`` to ``end`` (exclusive), which must be inside the file; fetches ``limit_bytes`` at once."""
        # Its buffer becomes the result without a copy (joining parts would need the memory twice), and grows as they arrive,
        # because the size cannot be trusted.
        whole, writing = io.BytesIO(), threading.Lock()

        def place(leaf: Leaf, body: bytes) -> None:
            first, last = max(start, leaf.offset), min(end, leaf.offset + len(body))
            if first < last:
                with writing:
                    whole.seek(first - start)
                    whole.write(memoryview(body)[first - leaf.offset : last - leaf.offset])

        await self.bring(group, LeafRun(group, place, within=self.within, limit_bytes=limit_bytes), start, end)
        return whole.getvalue()

    async def bring(
        self,
        group: FetchGroup,
        run: LeafRun,
        start: int,
        end: int,
        *,
        choose: Callable[[list[Leaf]], Awaitable[list[Leaf]]] | None = None,
    ) -> None:
        """Have ``run`` fetch every leaf with bytes from ``start`` to ``end``, or those of them that ``choose`` keeps."""
        await self._add(group, run, start, end, choose)
        while await run.finish():
            while run.nodes:
                below = self.below(*run.nodes.pop())
                await self._add(group, run, max(start, below.start), min(end, below.stop), choose)

    def below(self, node: Leaf, child_bytes: int) -> range:
        """The bytes of a node that was presumed to be a leaf; ``child_bytes`` is the size of its largest child.

        From now on, nodes like it are not presumed to be leaves.
        """
        self._presume_bytes = min(self._presume_bytes, child_bytes, (node.size or 0) - 1)
        return range(node.offset, node.offset + (node.size or 0))

    async def _add(
        self,
        group: FetchGroup,
        run: LeafRun,
        start: int,
        end: int,
        choose: Callable[[list[Leaf]], Awaitable[list[Leaf]]] | None,
    ) -> None:
        while start < end:
            leaves = await self.leaves(group, start, end)
            start = leaves[-1].offset + (leaves[-1].size or 0)
            for leaf in leaves if choose is None else await choose(leaves):
                await run.add(leaf)


async def cat_range(
    group: FetchGroup, root: Cid, path: Sequence[str], *, start: int, end: int | None, limit_bytes: int
) -> bytes:
    """The bytes of the file at a path, from ``start`` to ``end`` (exclusive), as in a slice of Python."""
    ahead = (start, min(end, start + GUESS_BYTES)) if end is not None and 0 <= start < end else None
    block = await locate(group, root, path, ahead=ahead)
    reader = await parsed(group, block, FileReader, block, about="/".join([str(root), *path]))
    if reader.is_sized:
        first, last, _ = slice(start, end).indices(reader.size_bytes)
        with contextlib.suppress(UnsizedFileError):  # the sizes in deeper nodes are inconsistent
            return await reader.read(group, first, last, limit_bytes=limit_bytes)
    return await read_range(group, block, start, end)


class LeafRun:
    """Fetches leaves, as many at once as fit into ``limit_bytes``.

    ``place(leaf, bytes)`` is called for each of them, in worker threads and in any order, and then ``placed(leaf)`` in the
    loop. The first failure is raised by the next call; the remaining leaves are withdrawn with their group. A presumed leaf
    that has children is not placed, but put into ``nodes``, with the size of its largest child.
    """

    def __init__(
        self,
        group: FetchGroup,
        place: Callable[[Leaf, bytes], None],
        *,
        within: DagRange,
        limit_bytes: int,
        placed: Callable[[Leaf], None] | None = None,
        changed: Condition | None = None,
    ) -> None:
        """``within`` is the whole file; ``changed`` is notified whenever a leaf has arrived, or failed."""
        self._within = within
        self._group = group
        self._place = place
        self._placed = placed
        self._limit_bytes = limit_bytes
        self._flying = 0
        self._flying_bytes = 0
        self._failed: Exception | None = None
        self._changed = changed or Condition()
        self.nodes: list[tuple[Leaf, int]] = []

    async def add(self, leaf: Leaf) -> None:
        """Request a leaf, as soon as the limit allows it."""
        size = leaf.size or 0
        if leaf.inline is not None:
            await self._group.in_worker(self._place, leaf, leaf.inline)
            self._tell(leaf)
            return
        await self._changed.until(
            lambda: not self._flying or self._flying_bytes + size <= self._limit_bytes or self._failed is not None
        )
        self.check()
        self._flying += 1
        self._flying_bytes += size
        is_placed: list[bool] = []
        self._group.submit(
            leaf.cid,
            size_bytes=size,
            priority=URGENT,
            within=[self._within._replace(start=leaf.offset, end=leaf.offset + size)],
            accept=lambda block: is_placed.append(self._accept(leaf, block)),
            done=lambda _, error: self._done(leaf, error, is_placed=any(is_placed)),
        )

    async def finish(self) -> bool:
        """Wait until all leaves have arrived; returns whether there are ``nodes``."""
        await self._changed.until(lambda: not self._flying or self._failed is not None)
        self.check()
        return bool(self.nodes)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is requested now."""
        return not self._flying

    @property
    def has_failed(self) -> bool:
        """Whether a leaf could not be fetched or placed."""
        return self._failed is not None

    def check(self) -> None:
        """Raise the first failure."""
        if self._failed is not None:
            raise self._failed

    def _accept(self, leaf: Leaf, block: Block) -> bool:
        if block.cid.codec == DAG_PB and (node := dagpb.decode(block.data)).links:
            self.nodes.append((leaf, max(unixfs.decode(node.data).blocksizes, default=0)))
            return False
        self._place(leaf, payload(leaf, block))
        return True

    def _done(self, leaf: Leaf, error: Exception | None, *, is_placed: bool) -> None:
        self._flying -= 1
        self._flying_bytes -= leaf.size or 0
        self._failed = self._failed or error
        if is_placed:
            self._tell(leaf)
        self._changed.notify_all()

    def _tell(self, leaf: Leaf) -> None:
        if self._placed is not None:
            self._placed(leaf)
