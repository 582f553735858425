"""Fetches what describes a dataset: its manifest, and the proofs of its chunks (the nodes above their leaves)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from dnc_async.dataset.limits import MAX_MANIFEST_BYTES
from dnc_async.dataset.manifest import Manifest
from dnc_async.dataset.page import ChunkEntry
from dnc_async.engine.files.paths import URGENT, lookup, path_within
from dnc_async.errors import DagError, ManifestError, PathError
from dnc_async.gateways.dag_range import DagRange, Scope
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.want import Priority
from dnc_async.ipld.cid import Cid
from dnc_async.ipld.plan import FilePlanner, Leaf, payload

#: The cache's limits: a few manifests, without those that take much memory.
_MANIFESTS_KEPT, _MANIFEST_KEPT_BYTES = 8, 2**20


class Manifests:
    """Loads manifests and caches the last ones, so that opening a dataset again, or twice at once, needs no request."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Manifest] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Manifests of {', '.join(self._kept) or 'no dataset'}>"

    async def load(self, group: FetchGroup, root: Cid, path: tuple[str, ...]) -> Manifest:
        """The manifest of the dataset at ``root``, or at a path below it.

        Raises :class:`~dnc_async.errors.ManifestError` if there is no dataset.
        """
        address = "/".join([str(root), *path])
        manifest = self._kept.get(address)
        if manifest is None:
            data = await _manifest_bytes(group, root, path, address)
            manifest = Manifest.decode(data)
            if len(data) > _MANIFEST_KEPT_BYTES:
                return manifest
            self._kept[address] = manifest
            if len(self._kept) > _MANIFESTS_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(address)
        return manifest


async def _manifest_bytes(group: FetchGroup, root: Cid, path: tuple[str, ...], shown: str) -> bytes:
    cid = root
    # The blocks of the path and the file itself may arrive in one CAR.
    within = path_within(f"{shown}/manifest")
    for name in (*path, "manifest"):
        try:
            found = await lookup(group, cid, name, at=shown, within=within)
        except PathError:
            found = None
        if found is None:
            at = "" if name == "manifest" else f" (there is no {name!r} in it)"
            raise ManifestError(
                f"{shown} is not a dataset{at}: expected a directory with a 'manifest' in it, as dnc.upload() makes"
            )
        cid = found
    try:
        return await read_file(group, cid, limit_bytes=MAX_MANIFEST_BYTES, within=within)
    except DagError as error:
        raise ManifestError(f"{shown} is not a dataset: its 'manifest' cannot be read: {error}") from error


async def read_file(
    group: FetchGroup, cid: Cid, *, limit_bytes: int, within: Sequence[DagRange] = (), priority: Priority = URGENT
) -> bytes:
    """Read a small file into memory. Raises :class:`~dnc_async.errors.DagError` if it is too large, or not a file."""
    leaves = await _leaves(group, cid, priority, limit_bytes, within, ahead=True)
    blocks = await group.blocks([leaf.cid for leaf in leaves], priority=priority, within=within, ahead=True)
    return b"".join(payload(leaf, block) for leaf, block in zip(leaves, blocks, strict=True))


def chunk_within(entry: ChunkEntry, start: int, end: int, via: str) -> tuple[DagRange, ...]:
    """Where a part of a chunk lies: in its file, which ``via`` names from the root, and in the directory that contains it."""
    size, offset, total = entry.size_bytes, entry.directory_offset, entry.directory_bytes
    file = DagRange(str(entry.cid), start, end, size, via=via)
    return file, DagRange(str(entry.directory), offset + start, offset + end, total, Scope.ALL, via.rpartition("/")[0])


async def chunk_leaves(
    group: FetchGroup, entry: ChunkEntry, *, priority: Priority, via: str, ahead: bool
) -> tuple[Leaf, ...]:
    """The leaves of a chunk's file, from its page, or else from its intermediate nodes.

    ``ahead``: whether the leaves are wanted next, too.
    """
    if entry.names_leaves:
        return entry.leaves()
    within = chunk_within(entry, 0, entry.size_bytes, via)
    leaves = await _leaves(group, entry.cid, priority, entry.size_bytes, within, ahead=ahead)
    size = sum(leaf.size or 0 for leaf in leaves)
    if size != entry.size_bytes:
        raise ManifestError(f"chunk {entry.index} ({entry.cid}) has {size} bytes, the manifest says {entry.size_bytes}")
    return leaves


async def _leaves(
    group: FetchGroup, cid: Cid, priority: Priority, limit_bytes: int, within: Sequence[DagRange], *, ahead: bool
) -> tuple[Leaf, ...]:
    planner = FilePlanner(cid)
    while wanted := planner.wanted():
        for block in await group.blocks(wanted, priority=priority, within=within, ahead=ahead):
            planner.receive(block)
        if planner.size is not None and planner.size > limit_bytes:
            raise DagError(f"{cid} is a file of {planner.size} bytes, expected at most {limit_bytes}")
    return tuple(planner.leaves)
