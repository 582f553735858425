"""Fetches what describes a dataset: its manifest, and the proofs of its chunks (the nodes above their leaves)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from dnc_async.dataset.limits import MAX_MANIFEST_BYTES
from dnc_async.dataset.manifest import Manifest, file_name
from dnc_async.dataset.page import CHUNKS_PER_DIRECTORY, ChunkEntry
from dnc_async.engine.files.paths import URGENT, lookup, parsed, path_within
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


Within = tuple[DagRange, DagRange]


class ChunkRanges:
    """Where the chunks of a dataset lie, whose address is ``root``: in their files, and in the directories of those."""

    def __init__(self, root: str, manifest: Manifest) -> None:
        self._root = root
        self._manifest = manifest
        self._number, self._directory = -1, ""

    def __repr__(self) -> str:
        return f"<ChunkRanges of {self._root}>"

    def of(self, entry: ChunkEntry) -> Within:
        """Where a chunk lies: in its file, and in its directory."""
        number, place = divmod(entry.index, CHUNKS_PER_DIRECTORY)
        if number != self._number:  # most chunks lie in the same directory as the one before
            self._number, self._directory = number, f"{self._root}/{self._manifest.directory_path(number)}"
        size, offset, total = entry.size_bytes, entry.directory_offset, entry.directory_bytes
        file = DagRange(str(entry.cid), 0, size, size, via=f"{self._directory}/{file_name(place)}")
        return file, DagRange(entry.directory, offset, offset + size, total, Scope.ALL, self._directory)


def leaf_within(chunk: Within, start: int, end: int) -> Within:
    """Where a part of a chunk lies, whose whole lies within ``chunk``."""
    file, directory = chunk
    if end - start == file.total:
        return chunk
    return (
        file._replace(start=start, end=end),
        directory._replace(start=directory.start + start, end=directory.start + end),
    )


async def chunk_leaves(
    group: FetchGroup, entry: ChunkEntry, *, priority: Priority, within: Sequence[DagRange], ahead: bool
) -> tuple[Leaf, ...]:
    """The leaves of a chunk's file, from its intermediate nodes.

    ``within`` says where the file lies, and ``ahead`` whether the leaves are wanted next, too.
    """
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
            await parsed(group, block, planner.receive, block)
        if planner.size is not None and planner.size > limit_bytes:
            raise DagError(f"{cid} is a file of {planner.size} bytes, expected at most {limit_bytes}")
    return tuple(planner.leaves)
