"""Reading a dataset's description through a fetch group: its manifest, its pages, and the proofs of its chunks."""

from __future__ import annotations

from collections import OrderedDict

from dnc_async.dataset.manifest import CHUNKS_PER_PAGE, MAX_MANIFEST_BYTES, ChunkEntry, Manifest, decode_page
from dnc_async.engine.files.paths import URGENT, lookup
from dnc_async.errors import DagError, ManifestError, PathError
from dnc_async.gateways.fetcher import FetchGroup, Priority
from dnc_async.ipld.cid import RAW, Cid
from dnc_async.ipld.plan import FilePlanner, Leaf, payload

_PAGES_KEPT = 2


async def load_manifest(group: FetchGroup, root: Cid, path: tuple[str, ...]) -> Manifest:
    """The manifest of the dataset at ``root``, or at a path beneath it.

    Raises :class:`~dnc_async.errors.ManifestError` where there is no dataset.
    """
    shown = "/".join([str(root), *path])
    cid = root
    for name in (*path, "manifest"):
        try:
            found = await lookup(group, cid, name, at=shown)
        except PathError:
            found = None
        if found is None:
            at = "" if name == "manifest" else f" (there is no {name!r} in it)"
            raise ManifestError(
                f"{shown} is not a dataset{at}: expected a directory with a 'manifest' in it, as dnc.upload() makes"
            )
        cid = found
    try:
        return Manifest.decode(await read_file(group, cid, limit_bytes=MAX_MANIFEST_BYTES))
    except DagError as error:
        raise ManifestError(f"{shown} is not a dataset: its 'manifest' cannot be read: {error}") from error


async def read_file(group: FetchGroup, cid: Cid, *, limit_bytes: int) -> bytes:
    """A whole small file in memory. Raises :class:`~dnc_async.errors.DagError` where it is larger, or not a file."""
    leaves = await _leaves(group, cid, URGENT, limit_bytes)
    parts = []
    for leaf in leaves:
        block = await group.block(leaf.cid, priority=URGENT)
        parts.append(bytes(payload(leaf, block)))
    return b"".join(parts)


async def chunk_leaves(group: FetchGroup, entry: ChunkEntry, *, priority: Priority) -> tuple[Leaf, ...]:
    """The leaves of a chunk's file, from its intermediate nodes alone."""
    if entry.cid.codec == RAW:
        return (Leaf(entry.cid, 0, entry.size_bytes, None),)
    leaves = await _leaves(group, entry.cid, priority, entry.size_bytes)
    size = sum(leaf.size or 0 for leaf in leaves)
    if size != entry.size_bytes:
        raise ManifestError(f"chunk {entry.index} ({entry.cid}) has {size} bytes, the manifest says {entry.size_bytes}")
    return leaves


async def _leaves(group: FetchGroup, cid: Cid, priority: Priority, limit_bytes: int) -> tuple[Leaf, ...]:
    planner = FilePlanner(cid)
    while wanted := planner.wanted():
        for node in wanted:
            planner.receive(await group.block(node, priority=priority))
        if planner.size is not None and planner.size > limit_bytes:
            raise DagError(f"{cid} is a file of {planner.size} bytes, expected at most {limit_bytes}")
    return tuple(planner.leaves)


class PageReader:
    """The chunks of a manifest by index; pages are fetched when the plan reaches them."""

    def __init__(self, manifest: Manifest, group: FetchGroup) -> None:
        self._manifest = manifest
        self._group = group
        self._pages: OrderedDict[int, list[ChunkEntry]] = OrderedDict()

    async def entry(self, index: int) -> ChunkEntry:
        """One chunk's entry."""
        number, place = divmod(index, CHUNKS_PER_PAGE)
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = await self._load(number)
            if len(self._pages) > _PAGES_KEPT:
                self._pages.popitem(last=False)
        return page[place]

    async def _load(self, number: int) -> list[ChunkEntry]:
        directories = self._manifest.first_page
        if number:
            cid = self._manifest.pages[number - 1]
            try:
                data = await read_file(self._group, cid, limit_bytes=MAX_MANIFEST_BYTES)
            except DagError as error:
                raise ManifestError(f"page {number} of the manifest ({cid}) cannot be read: {error}") from error
            directories = decode_page(data)
        return list(self._manifest.entries(number, directories))
