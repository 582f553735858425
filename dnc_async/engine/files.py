"""Any UnixFS file or directory, through a fetch group: paths, listings, and ranges of files.

Blocks are asked for one by one and verified like all others. A file is never planned as a whole: leaves are named a window
at a time, so that a file of any size, honest or not, takes bounded memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio

from dnc_async.errors import DagError, PathError, PlanTooLargeError
from dnc_async.gateways.fetcher import FetchGroup, Priority
from dnc_async.ipld import dagpb, unixfs
from dnc_async.ipld.block import MAX_BLOCK_BYTES, Block
from dnc_async.ipld.cid import DAG_PB, RAW, Cid
from dnc_async.ipld.directory import DirectoryReader, Entry, node_kind, symlink_target
from dnc_async.ipld.plan import FilePlanner, Leaf, file_size, payload

URGENT: Priority = (0,)
_WINDOW_BYTES = 64 * 2**20
_SMALLEST_WINDOW_BYTES = 4096
_NODES_KEPT = 16
_CHILDREN_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryEntry:
    """One entry of a directory.

    ``kind`` is ``file``, ``directory``, ``symlink`` or ``other``. ``size_bytes`` is a file's size: as its root node says, or,
    where the file is one raw block that was not fetched for this, as the directory says; ``None`` for all else.
    """

    name: str
    cid: str
    kind: str
    size_bytes: int | None


async def locate(group: FetchGroup, root: Cid, path: Sequence[str]) -> Block:
    """The root block of what a path leads to. Symlinks are not followed.

    Raises :class:`~dnc_async.errors.PathError` where it leads to nothing.
    """
    cid, at = root, str(root)
    for name in path:
        found = await lookup(group, cid, name, at=at)
        if found is None:
            raise PathError(f"{at} has no {name!r} in it")
        cid, at = found, f"{at}/{name}"
    return await group.block(cid, priority=URGENT)


async def lookup(group: FetchGroup, directory: Cid, name: str, *, at: str) -> Cid | None:
    """Where one name in a directory leads, ``None`` if it is not there; ``at`` is what to call the directory.

    Raises :class:`~dnc_async.errors.PathError` where this is no directory.
    """
    block = await group.block(directory, priority=URGENT)
    try:
        kind = node_kind(block)
        if kind != "directory":
            note = f" to {symlink_target(block)!r}, which is not followed" if kind == "symlink" else ""
            what = "file" if kind == "raw" else kind
            raise PathError(f"{at} is a {what}{note}: there is no {name!r} in it")
        reader = DirectoryReader(block.cid, name=name)
        await _read_on(group, reader, block)
    except DagError as error:
        raise PathError(f"{at} cannot be searched for {name!r}: {error}") from error
    return next((entry.cid for entry in reader.entries if entry.name == name), None)


async def entries_of(group: FetchGroup, root: Block) -> list[Entry]:
    """All entries of a directory, plain or sharded."""
    reader = DirectoryReader(root.cid)
    await _read_on(group, reader, root)
    return reader.entries


async def _read_on(group: FetchGroup, reader: DirectoryReader, root: Block) -> None:
    if not reader.done:  # it is, where the CID is inline
        reader.receive(root)
    while wanted := reader.wanted():
        for block in await group.blocks(wanted, priority=URGENT):
            reader.receive(block)


async def listing(group: FetchGroup, root: Cid, path: Sequence[str]) -> list[DirectoryEntry]:
    """The entries of the directory at a path, or the one entry of anything else."""
    block = await locate(group, root, path)
    itself = describe(path[-1] if path else str(root), block)
    if itself.kind != "directory":
        return [itself]
    entries = await entries_of(group, block)
    found: dict[str, DirectoryEntry] = {}
    nodes = [entry for entry in entries if entry.cid.codec != RAW]
    for start in range(0, len(nodes), _CHILDREN_AT_ONCE):
        some = nodes[start : start + _CHILDREN_AT_ONCE]
        blocks = await group.blocks([entry.cid for entry in some], priority=URGENT)
        found |= {e.name: describe(e.name, child) for e, child in zip(some, blocks, strict=True)}
    return [
        found.get(e.name) or DirectoryEntry(name=e.name, cid=str(e.cid), kind="file", size_bytes=e.tsize)
        for e in entries
    ]


async def cat_range(
    group: FetchGroup, root: Cid, path: Sequence[str], *, start: int, end: int | None, limit_bytes: int
) -> bytes:
    """The bytes of the file at a path, from ``start`` to before ``end``, taken as a slice of Python takes them."""
    reader = FileReader(await locate(group, root, path), about="/".join([str(root), *path]))
    first, last, _ = slice(start, end).indices(reader.size_bytes)
    return await reader.read(group, first, last, limit_bytes=limit_bytes)


def describe(name: str, root: Block) -> DirectoryEntry:
    """What a root block is, as an entry."""
    try:
        kind = node_kind(root)
    except DagError:  # dag-pb that is not UnixFS
        kind = "other"
    kind = "file" if kind == "raw" else kind
    return DirectoryEntry(
        name=name, cid=str(root.cid), kind=kind, size_bytes=file_size(root) if kind == "file" else None
    )


class FileReader:
    """One file, by ranges. It keeps a few intermediate nodes, and no leaves."""

    def __init__(self, root: Block, *, about: str) -> None:
        """Raises :class:`~dnc_async.errors.PathError` where ``root``, called ``about``, is not a file's."""
        if (kind := describe(about, root).kind) != "file":
            raise PathError(f"{about} is a {kind}, expected a file")
        self._root = root
        self._nodes: OrderedDict[bytes, Block] = OrderedDict()
        self._window_bytes = _WINDOW_BYTES
        self._presume_bytes = MAX_BLOCK_BYTES
        self.size_bytes = file_size(root)

    async def leaves(self, group: FetchGroup, start: int, end: int) -> list[Leaf]:
        """The leaves from ``start`` on, as many as one window has; they reach ``end`` or somewhere before it."""
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
                planner.receive(block)

    async def _fetch(self, group: FetchGroup, cids: Sequence[Cid]) -> list[Block]:
        """Nodes, those that are kept and those that are not."""
        kept: dict[bytes, Block | None] = {cid.multihash: self._nodes.get(cid.multihash) for cid in cids}
        kept[self._root.cid.multihash] = self._root
        missing = [cid for cid in cids if kept[cid.multihash] is None]
        for fetched in await group.blocks(missing, priority=URGENT) if missing else ():
            kept[fetched.cid.multihash] = self._nodes[fetched.cid.multihash] = fetched
        while len(self._nodes) > _NODES_KEPT:
            self._nodes.popitem(last=False)
        return [block for cid in cids if (block := kept[cid.multihash]) is not None]

    async def read(self, group: FetchGroup, start: int, end: int, *, limit_bytes: int) -> bytes:
        """The bytes from ``start`` to before ``end``, which lie inside the file, with so many on their way at once."""
        parts: dict[int, bytes | memoryview] = {}

        def place(leaf: Leaf, body: bytes) -> None:
            first, last = max(start, leaf.offset), min(end, leaf.offset + len(body))
            if first < last:
                whole = last - first == len(body)
                parts[first] = body if whole else memoryview(body)[first - leaf.offset : last - leaf.offset]

        await self.bring(group, LeafRun(group, place, limit_bytes=limit_bytes), start, end)
        return await group.in_worker(lambda: b"".join(parts[offset] for offset in sorted(parts)))

    async def bring(
        self,
        group: FetchGroup,
        run: LeafRun,
        start: int,
        end: int,
        *,
        choose: Callable[[list[Leaf]], Awaitable[list[Leaf]]] | None = None,
    ) -> None:
        """Have ``run`` place every leaf that has bytes from ``start`` to ``end``, or those of them that ``choose`` keeps."""
        await self._add(group, run, start, end, choose)
        while await run.finish():
            while run.nodes:
                node, child_bytes = run.nodes.pop()
                self._presume_bytes = min(self._presume_bytes, child_bytes, (node.size or 0) - 1)
                below = max(start, node.offset), min(end, node.offset + (node.size or 0))
                await self._add(group, run, *below, choose)

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


class LeafRun:
    """Leaves on their way, as many as fit into ``limit_bytes``.

    ``place(leaf, bytes)`` is called for each of them, in worker threads and in any order, and after it ``placed(leaf)`` in the
    loop. The first failure is raised by the next call; the leaves that are still wanted then go with their group. What was
    taken for a leaf and has children is not placed, but put into ``nodes``, with the size of its largest child.
    """

    def __init__(
        self,
        group: FetchGroup,
        place: Callable[[Leaf, bytes], None],
        *,
        limit_bytes: int,
        placed: Callable[[Leaf], None] | None = None,
    ) -> None:
        self._group = group
        self._place = place
        self._placed = placed
        self._limit_bytes = limit_bytes
        self._flying = 0
        self._flying_bytes = 0
        self._failed: Exception | None = None
        self._changed = anyio.Event()
        self.nodes: list[tuple[Leaf, int]] = []

    async def add(self, leaf: Leaf) -> None:
        """Want a leaf, as soon as there is room for it."""
        size = leaf.size or 0
        if leaf.inline is not None:
            await self._group.in_worker(self._place, leaf, leaf.inline)
            self._tell(leaf)
            return
        while self._flying and self._flying_bytes + size > self._limit_bytes and self._failed is None:
            await self._change()
        self._check()
        self._flying += 1
        self._flying_bytes += size
        is_placed: list[bool] = []
        self._group.submit(
            leaf.cid,
            size_bytes=size,
            priority=URGENT,
            accept=lambda block: is_placed.append(self._accept(leaf, block)),
            done=lambda _, error: self._done(leaf, error, is_placed=any(is_placed)),
        )

    async def finish(self) -> bool:
        """Wait until all of them have come; gives whether there are ``nodes``."""
        while self._flying and self._failed is None:
            await self._change()
        self._check()
        return bool(self.nodes)

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
        self._changed.set()

    def _tell(self, leaf: Leaf) -> None:
        if self._placed is not None:
            self._placed(leaf)

    def _check(self) -> None:
        if self._failed is not None:
            raise self._failed

    async def _change(self) -> None:
        self._changed = anyio.Event()
        await self._changed.wait()
