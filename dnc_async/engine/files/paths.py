"""Resolves paths, and lists directories. Blocks are requested one by one and verified like all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from dnc_async.errors import DagError, PathError, UnsizedFileError
from dnc_async.gateways.dag_range import DagRange, Scope
from dnc_async.gateways.group import FetchGroup
from dnc_async.gateways.want import Priority
from dnc_async.ipld.block import Block
from dnc_async.ipld.cid import DAG_PB, RAW, Cid
from dnc_async.ipld.directory import DirectoryReader, Entry, node_kind, symlink_target
from dnc_async.ipld.plan import file_size

P = ParamSpec("P")
T = TypeVar("T")

URGENT: Priority = (0,)
#: A node of more bytes is parsed in a worker thread: one of 2 MiB may have 262,000 links, which take seconds.
_LARGE_NODE_BYTES = 2**14
_CHILDREN_AT_ONCE = 32
_SHARDS_AT_ONCE = 4  # shards of a directory; if more are needed, the whole directory is requested
#: How many bytes are requested of a file whose size is not known.
GUESS_BYTES = 2**18
_PROOF_BYTES = 2**16  # of a few directories
_UNKNOWN_BYTES = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryEntry:
    """One entry of a directory.

    ``kind`` is ``file``, ``directory``, ``symlink`` or ``other``. ``size_bytes`` is a file's size by its root node, or, if the
    file is one raw block that was not fetched, by the directory; ``None`` for other kinds, and for a file that does not tell
    its size. ``codec`` and ``hash_name`` are those of the CID: entries with an unsupported codec or hash function are
    ``other``.
    """

    name: str
    cid: str
    kind: str
    size_bytes: int | None
    codec: str = ""
    hash_name: str = ""


async def parsed(group: FetchGroup, block: Block, parse: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that parses a block: here, or in a worker thread if the block is a large node."""
    if block.cid.codec != DAG_PB or block.size_bytes <= _LARGE_NODE_BYTES:
        return parse(*args, **kwargs)
    return await group.in_worker(parse, *args, **kwargs)


async def locate(group: FetchGroup, root: Cid, path: Sequence[str], *, ahead: tuple[int, int] | None = None) -> Block:
    """The root block of what a path leads to. Symlinks are not followed.

    ``ahead`` is the byte range, (start, end), that will be wanted next if it is a file. Raises
    :class:`~dnc_async.errors.PathError` if it leads to nothing.
    """
    cid, at = root, str(root)
    shown = "/".join([str(root), *path])
    within: tuple[DagRange, ...] = ()
    if ahead is not None:
        within = path_within(shown, *ahead)
    elif path:
        within = (DagRange(shown, 0, _PROOF_BYTES, _PROOF_BYTES, Scope.BLOCK, shown),)
    for name in path:
        found = await lookup(group, cid, name, at=at, within=within)
        if found is None:
            raise PathError(f"{at} has no {name!r} in it")
        cid, at = found, f"{at}/{name}"
    _check_readable(cid, at)
    return await group.block(cid, priority=URGENT, within=within, ahead=True)


def _check_readable(cid: Cid, at: str) -> None:
    if (problem := cid.problem) is not None:
        raise PathError(f"{at} cannot be read: {problem}")


def path_within(path: str, start: int = 0, end: int = GUESS_BYTES) -> tuple[DagRange, ...]:
    """The DAG ranges of a path's blocks, and of the byte range that will be wanted next: one CAR may bring them all."""
    return (DagRange(path, start, end, _UNKNOWN_BYTES, via=path),)


async def lookup(
    group: FetchGroup, directory: Cid, name: str, *, at: str, within: Sequence[DagRange] = ()
) -> Cid | None:
    """The CID of a name in a directory, ``None`` if it is not there; ``at`` is the directory's name in errors.

    ``within`` is the path of which it is a part, if all of that is wanted. Raises :class:`~dnc_async.errors.PathError` if this
    is not a directory.
    """
    _check_readable(directory, at)
    block = await group.block(directory, priority=URGENT, within=within, ahead=True)
    try:
        kind = await parsed(group, block, node_kind, block)
        if kind != "directory":
            note = f" to {symlink_target(block)!r}, which is not followed" if kind == "symlink" else ""
            what = {"raw": "a file", "other": "neither a file nor a directory"}.get(kind, f"a {kind}")
            raise PathError(f"{at} is {what}{note}: there is no {name!r} in it")
        reader = DirectoryReader(block.cid, name=name)
        await _read_on(group, reader, block, within)
    except DagError as error:
        raise PathError(f"{at} cannot be searched for {name!r}: {error}") from error
    return next((entry.cid for entry in reader.entries if entry.name == name), None)


async def entries_of(group: FetchGroup, root: Block) -> list[Entry]:
    """All entries of a directory, plain or sharded."""
    reader = DirectoryReader(root.cid)
    await _read_on(group, reader, root)
    return reader.entries


async def _read_on(group: FetchGroup, reader: DirectoryReader, root: Block, within: Sequence[DagRange] = ()) -> None:
    if not reader.done:  # an inline CID is done already
        await parsed(group, root, reader.receive, root)
    while wanted := reader.wanted():
        if not within and len(wanted) > _SHARDS_AT_ONCE:
            within = path_within(str(root.cid))
        for block in await group.blocks(wanted, priority=URGENT, within=within, ahead=True):
            await parsed(group, block, reader.receive, block)


async def listing(group: FetchGroup, root: Cid, path: Sequence[str]) -> list[DirectoryEntry]:
    """The entries of the directory at a path, or the one entry of anything else."""
    block = await locate(group, root, path)
    itself = await parsed(group, block, describe, path[-1] if path else str(root), block)
    if itself.kind != "directory":
        return [itself]
    entries = await entries_of(group, block)
    found: dict[str, DirectoryEntry] = {}
    nodes = [entry for entry in entries if entry.cid.codec == DAG_PB and entry.cid.problem is None]
    for start in range(0, len(nodes), _CHILDREN_AT_ONCE):
        some = nodes[start : start + _CHILDREN_AT_ONCE]
        blocks = await group.blocks([entry.cid for entry in some], priority=URGENT)
        for entry, child in zip(some, blocks, strict=True):
            found[entry.name] = await parsed(group, child, describe, entry.name, child)
    return [found.get(entry.name) or _unseen(entry) for entry in entries]


def _unseen(entry: Entry) -> DirectoryEntry:
    """An entry that is described by its CID alone."""
    is_file = entry.cid.codec == RAW and entry.cid.problem is None
    return _entry(entry.name, entry.cid, "file" if is_file else "other", entry.tsize if is_file else None)


def describe(name: str, root: Block) -> DirectoryEntry:
    """The entry for a root block."""
    try:
        kind = node_kind(root)
    except DagError:  # dag-pb that is not UnixFS
        kind = "other"
    kind = "file" if kind == "raw" else kind
    return _entry(name, root.cid, kind, size_of(root) if kind == "file" else None)


def size_of(root: Block) -> int | None:
    """The size of the file with this root, if it tells."""
    try:
        return file_size(root)
    except UnsizedFileError:
        return None


def _entry(name: str, cid: Cid, kind: str, size_bytes: int | None) -> DirectoryEntry:
    codec, hash_name = cid.codec_name, cid.hash_name
    return DirectoryEntry(name=name, cid=str(cid), kind=kind, size_bytes=size_bytes, codec=codec, hash_name=hash_name)
