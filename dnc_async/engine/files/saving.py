"""``get``: writes a file or a directory tree from IPFS to disk, every block verified.

A few workers take their next task from the end of one list, so that a tree is walked depth first and needs no more memory than
one path of it is wide. What an earlier call left on disk is hashed, and not fetched again if it is correct.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import anyio

from dnc_async.condition import Condition
from dnc_async.engine.files.output import OutputFile, PartialOutput, output_errors, part_of, refuse_taken
from dnc_async.engine.files.paths import URGENT, describe, entries_of, locate, parsed
from dnc_async.engine.files.reader import FileReader, LeafRun
from dnc_async.engine.files.sequential import read_through
from dnc_async.engine.files.tree_size import TreeSize
from dnc_async.engine.files.write_back import WriteBack
from dnc_async.errors import DagError, OutputError, UnsizedFileError
from dnc_async.gateways.group import FetchGroup
from dnc_async.ipld import dagpb, unixfs
from dnc_async.ipld.block import Block
from dnc_async.ipld.cid import DAG_PB, Cid
from dnc_async.ipld.directory import symlink_target
from dnc_async.ipld.plan import Leaf
from dnc_async.ipld.unixfs import UnixFs

_WORKERS = 32
_DEEPEST = 256
_MOST_TOLD = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What ``get`` wrote, or has written so far. ``os.fspath()`` and ``str()`` give the path.

    ``size_bytes`` counts the bytes of files; ``reused_bytes`` those that an earlier call had left. ``outward`` are symlinks, at
    most 100, that lead out of the tree; they are kept as they are. ``others`` counts entries of other kinds, and those with an
    unsupported codec or hash function: they were left out. The first 100 are in ``left_out``, each with the reason.
    """

    path: Path
    cid: str
    kind: str
    files: int = 0
    directories: int = 0
    symlinks: int = 0
    size_bytes: int = 0
    reused_bytes: int = 0
    outward: tuple[str, ...] = ()
    others: int = 0
    left_out: tuple[tuple[str, str], ...] = ()

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)


class _Item(NamedTuple):
    """A task: a CID, and its place in the tree (empty for the root)."""

    cid: Cid
    name: str
    depth: int


async def save(
    group: FetchGroup,
    root: Cid,
    path: Sequence[str],
    *,
    target: str | None,
    limit_bytes: int,
    progress: Callable[[Saved], None] | None,
) -> Saved:
    """Write what ``root`` and ``path`` lead to. ``target``: see :func:`dnc_async.get`. ``limit_bytes`` are requested at once.

    Raises :class:`~dnc_async.errors.OutputError` if something exists at the target.
    """
    block = await locate(group, root, path)
    name = path[-1] if path else str(root)
    entry = await parsed(group, block, describe, "/".join([str(root), *path]), block)
    if entry.kind == "other":
        raise DagError(f"{entry.name} is neither a file, a directory nor a symlink: there is nothing to write")
    final = await group.in_worker(_final, target, name, entry.kind)
    part = await group.in_worker(PartialOutput, part_of(final, block.cid), final, folder=entry.kind == "directory")
    try:
        empty = Saved(path=final, cid=str(block.cid), kind=entry.kind)
        shown = "/".join([str(root), *path])
        saver = _Saver(group, part, shown, empty, limit_bytes=limit_bytes, progress=progress)
        await saver.run(block)
        await group.in_worker(part.publish)
    finally:
        await group.aclose()  # no worker thread writes any more
        part.close()
    return saver.saved


def _final(target: str | None, name: str, kind: str) -> Path:
    """The path to write to: a file is written into a given folder, a tree gets the target's name."""
    folder = kind == "directory"
    if target is None:
        final = Path(name)
    else:
        target = os.path.expanduser(target)  # noqa: PTH111 - a slash at its end counts
        final = Path(target)
        if "\0" in target:
            raise OutputError(f"{target!r} holds a zero byte, which no name can; name a new file or folder")
        with output_errors(target):
            if not folder and (target.endswith(("/", os.sep)) or final.is_dir()):
                final /= name
    if not final.name:
        raise OutputError(f"{target!r} has no name that a {kind} could take; name a new file or folder")
    refuse_taken(final, folder=folder)
    return Path(in_working_directory(os.fspath(final)))


def in_working_directory(target: str) -> str:
    """A target's absolute name, in case the working directory changes; a slash at its end is kept."""
    try:
        return os.path.join("" if os.path.isabs(target) else os.getcwd(), target)  # noqa: PTH109, PTH117, PTH118 - a Path drops it
    except FileNotFoundError as error:
        raise OutputError(f"{target}: the working directory is gone; name the target in full") from error


class _Brought:
    """Counts what was fetched of one file, in case that turns out to be useless."""

    def __init__(self, count: Callable[..., None]) -> None:
        self._count = count
        self._size_bytes = self._reused_bytes = 0
        self._taken_back = False

    def count(self, size_bytes: int, reused_bytes: int) -> None:
        if not self._taken_back:
            self._size_bytes += size_bytes
            self._reused_bytes += reused_bytes
            self._count(size_bytes=size_bytes, reused_bytes=reused_bytes)

    def take_back(self) -> None:
        self._taken_back = True
        self._count(size_bytes=-self._size_bytes, reused_bytes=-self._reused_bytes)


class _Saver:
    """One call of ``get``. Everything except disk access runs in the engine's thread."""

    def __init__(
        self,
        group: FetchGroup,
        part: PartialOutput,
        root: str,
        saved: Saved,
        *,
        limit_bytes: int,
        progress: Callable[[Saved], None] | None,
    ) -> None:
        self._group = group
        self._part = part
        self._root = root
        self._limit_bytes = limit_bytes
        self._progress = progress
        self._todo: list[_Item] = []
        self._busy = 0
        self._changed = Condition()
        self._links: list[tuple[str, Block]] = []
        self._dressed: list[tuple[str, UnixFs]] = []
        self._tree = TreeSize()
        self._write_back = WriteBack(part.flush, in_worker=group.in_worker)
        self.saved = saved

    async def run(self, root: Block) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write_back.run)
            await self._all(root)
            tasks.cancel_scope.cancel()

    async def _all(self, root: Block) -> None:
        await self._node(_Item(root.cid, "", 0), root)
        if self._todo:
            async with anyio.create_task_group() as tasks:
                for _ in range(_WORKERS):
                    tasks.start_soon(self._work)
        # Last, so that nothing is ever written through one; sorted by name, so that the order of arrival does not matter.
        for name, block in sorted(self._links, key=lambda link: link[0]):
            await self._symlink(name, block)
        for name, body in sorted(self._dressed, key=lambda dressed: dressed[0], reverse=True):
            await self._group.in_worker(self._part.dress, name, body)

    async def _work(self) -> None:
        while True:
            await self._changed.until(lambda: self._todo or not self._busy)
            if not self._todo:
                return
            item = self._todo.pop()
            self._busy += 1
            try:
                await self._do(item)
            finally:
                self._busy -= 1
                self._changed.notify_all()

    async def _do(self, item: _Item) -> None:
        if (problem := item.cid.problem) is not None:
            unknown = f"{item.cid.codec_name} by {item.cid.hash_name}, which is not read"
            self._leave_out(item, unknown if "not supported" in problem else problem)
            return
        if self._part.resumed:
            size = await self._group.in_worker(self._part.has, item.name, item.cid)
            if size is not None:
                self._count(files=1, size_bytes=size, reused_bytes=size)
                return
        await self._node(item, await self._group.block(item.cid, priority=URGENT))

    async def _node(self, item: _Item, block: Block) -> None:
        kind = (await parsed(self._group, block, describe, item.name, block)).kind
        if kind == "directory":
            await self._directory(item, block)
        elif kind == "symlink":
            self._link(item, block)
        elif kind == "file":
            await self._file(item, block)
        else:
            self._leave_out(item, f"{item.cid.codec_name}, neither a file, a directory nor a symlink")

    async def _directory(self, item: _Item, block: Block) -> None:
        if item.depth > _DEEPEST:
            raise DagError(f"{self.saved.cid} is nested more than {_DEEPEST} folders deep")
        await self._group.in_worker(self._part.make_folder, item.name)
        body, _ = await parsed(self._group, block, _body_and_links, block)
        if body.mode is not None or body.mtime is not None:
            self._dressed.append((item.name, body))
        entries = await entries_of(self._group, block)
        if self._tree.listed(block.cid, [entry.cid for entry in entries]):
            await self._group.in_worker(self._part.check_entries, self._tree.entries)
        prefix = f"{item.name}/" if item.name else ""
        self._todo += [_Item(entry.cid, prefix + entry.name, item.depth + 1) for entry in reversed(entries)]
        self._count(directories=1)

    def _link(self, item: _Item, block: Block) -> None:
        if "\0" not in symlink_target(block):
            self._links.append((item.name, block))
        elif item.name:
            self._leave_out(item, "a symlink whose target holds a zero byte, which no path can")
        else:
            raise DagError(f"{item.cid} is a symlink whose target holds a zero byte, which no path can")

    async def _file(self, item: _Item, block: Block) -> None:
        about = "/".join(filter(None, (self._root, item.name)))
        reader = await parsed(self._group, block, FileReader, block, about=about)
        body, has_links = None, False
        if block.cid.codec == DAG_PB:
            body, has_links = await parsed(self._group, block, _body_and_links, block)
        if body is None or not has_links:
            data = block.data if body is None else body.data
            await self._group.in_worker(self._part.write, item.name, block.cid, data, body)
            self._count(files=1, size_bytes=len(data))
            return
        if not (reader.is_sized and await self._by_leaves(item, reader, body)):
            await self._in_order(item, block, body)
        self._count(files=1)

    async def _by_leaves(self, item: _Item, reader: FileReader, body: UnixFs) -> bool:
        """Fetch the missing leaves, in any order; returns ``False`` if the file's sizes turn out to be inconsistent."""
        file = await self._group.in_worker(self._part.file, item.name, reader.size_bytes)
        brought = _Brought(self._count)
        try:
            await self._leaves(reader, file, brought)
            await self._group.in_worker(file.finish, reader.size_bytes, body)
        except UnsizedFileError:
            brought.take_back()
            return False
        finally:
            self._write_back.forget(file)
            file.close()  # leaves that still arrive are dropped
        return True

    async def _in_order(self, item: _Item, block: Block, body: UnixFs) -> None:
        """Fetch a file without usable sizes, from its start to its end."""
        file = await self._group.in_worker(self._part.file, item.name)
        position = 0

        async def take(data: bytes) -> bool:
            nonlocal position
            await self._group.in_worker(file.place, Leaf(block.cid, position, len(data), data), data)
            position += len(data)
            self._count(size_bytes=len(data))
            self._write_back.wrote(file, len(data))
            return True

        try:
            await read_through(self._group, block, take)
            await self._group.in_worker(file.finish, position, body)
        finally:
            self._write_back.forget(file)
            file.close()

    async def _leaves(self, reader: FileReader, file: OutputFile, brought: _Brought) -> None:
        async def lacking(leaves: list[Leaf]) -> list[Leaf]:
            left = await self._group.in_worker(file.lacking, leaves)
            there = sum(leaf.size or 0 for leaf in leaves) - sum(leaf.size or 0 for leaf in left)
            brought.count(there, there)
            return left

        def placed(leaf: Leaf) -> None:
            brought.count(leaf.size or 0, 0)
            self._write_back.wrote(file, leaf.size or 0)

        run = LeafRun(self._group, file.place, within=reader.within, limit_bytes=self._limit_bytes, placed=placed)
        await reader.bring(self._group, run, 0, reader.size_bytes, choose=lacking)

    async def _symlink(self, name: str, block: Block) -> None:
        text = symlink_target(block)
        body, _ = _body_and_links(block)
        await self._group.in_worker(self._part.link, name, text, body.mtime)
        if leads_out(name, text) and len(self.saved.outward) < _MOST_TOLD:
            self.saved = replace(self.saved, outward=(*self.saved.outward, name or self.saved.path.name))
        self._count(symlinks=1)

    def _leave_out(self, item: _Item, why: str) -> None:
        """Leave out an entry that is not supported, so that the rest of the tree can be written."""
        if len(self.saved.left_out) < _MOST_TOLD:
            self.saved = replace(self.saved, left_out=(*self.saved.left_out, (item.name, why)))
        self._count(others=1)

    def _count(self, **more: int) -> None:
        self.saved = replace(self.saved, **{name: getattr(self.saved, name) + count for name, count in more.items()})
        if self._progress is not None:
            self._progress(self.saved)


def _body_and_links(block: Block) -> tuple[UnixFs, bool]:
    """A node's UnixFS message, and whether the node has links."""
    node = dagpb.decode(block.data)
    return unixfs.decode(node.data), bool(node.links)


def leads_out(name: str, text: str) -> bool:
    """Whether a symlink at ``name`` in a tree leads out of it, judged by its text alone."""
    place, _, _ = name.rpartition("/")
    # By its text, because the tree is not at its final place yet, so resolving the symlink on disk would mislead.
    return text.startswith("/") or posixpath.normpath(posixpath.join(place, text)).split("/")[0] == ".."
