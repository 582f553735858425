"""Builds UnixFS: converts files and directories to blocks, with the same CIDs as Kubo (profiles of IPIP-499).

Everything is streamed: a :class:`FileBuilder` holds one leaf and, for each level of the tree, the links of one node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from dnc_async.errors import DagError
from dnc_async.ipld import dagpb, hamt, unixfs
from dnc_async.ipld.block import Block, make
from dnc_async.ipld.cid import DAG_PB, RAW, Cid
from dnc_async.ipld.dagpb import Link
from dnc_async.ipld.directory import check_name
from dnc_async.ipld.unixfs import Kind
from dnc_async.ipld.varint import Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How a DAG is built. Sizes are bytes; ``hamt_by`` says what is compared with the threshold for sharding."""

    name: str
    cid_version: int
    leaf_bytes: int
    raw_leaves: bool
    links_per_node: int
    hamt_threshold_bytes: int
    hamt_by: str
    hamt_fanout: int


UNIXFS_V1_2025 = Profile(
    name="unixfs-v1-2025",
    cid_version=1,
    leaf_bytes=2**20,
    raw_leaves=True,
    links_per_node=1024,
    hamt_threshold_bytes=256 * 2**10,
    hamt_by="block",
    hamt_fanout=256,
)
UNIXFS_V0_2015 = Profile(
    name="unixfs-v0-2015",
    cid_version=0,
    leaf_bytes=256 * 2**10,
    raw_leaves=False,
    links_per_node=174,
    hamt_threshold_bytes=256 * 2**10,
    hamt_by="links",
    hamt_fanout=256,
)


@dataclass(frozen=True, slots=True)
class Root:
    """The root of a built DAG: ``size`` is a file's size (``None`` for the rest), ``tsize`` the sum of all blocks, in bytes."""

    cid: Cid
    size: int | None
    tsize: int


class FileBuilder:
    """Builds one file as a balanced tree, from data in pieces of any size."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._pending = bytearray()
        self._levels: list[list[Root]] = [[]]

    def feed(self, data: Buffer) -> list[Block]:
        """Take the next bytes of the file; returns the blocks that they complete."""
        blocks: list[Block] = []
        size, view = self._profile.leaf_bytes, memoryview(data).cast("B")
        start = 0
        if self._pending:
            start = min(size - len(self._pending), len(view))
            self._pending += view[:start]
            # Keep a full leaf until more bytes follow: finish() adds the last leaf, and a single leaf is the root.
            if len(self._pending) == size and start < len(view):
                self._leaf(bytes(self._pending), blocks)
                self._pending.clear()
        if start < len(view):
            while len(view) - start > size:
                self._leaf(bytes(view[start : start + size]), blocks)
                start += size
            self._pending += view[start:]
        return blocks

    def finish(self) -> tuple[list[Block], Root]:
        """Take the end of the file; returns the last blocks, and the root."""
        blocks: list[Block] = []
        if self._pending or not any(self._levels):
            self._leaf(bytes(self._pending), blocks)
        for level in range(len(self._levels)):
            top = level == len(self._levels) - 1
            if top and len(self._levels[level]) == 1:
                break
            self._add(level + 1, self._node(level, blocks), blocks)
        return blocks, self._levels[-1][0]

    def _leaf(self, data: bytes, blocks: list[Block]) -> None:
        profile = self._profile
        if profile.raw_leaves:
            block = make(data, RAW)
        else:
            message = unixfs.encode(Kind.FILE, data=data or None, filesize=len(data))
            block = make(dagpb.encode(message, ()), DAG_PB, version=profile.cid_version)
        blocks.append(block)
        self._add(0, Root(block.cid, len(data), len(block.data)), blocks)

    def _add(self, level: int, root: Root, blocks: list[Block]) -> None:
        if level == len(self._levels):
            self._levels.append([])
        if len(self._levels[level]) == self._profile.links_per_node:
            self._add(level + 1, self._node(level, blocks), blocks)
        self._levels[level].append(root)

    def _node(self, level: int, blocks: list[Block]) -> Root:
        children, self._levels[level] = self._levels[level], []
        block, root = join_parts(children, self._profile)
        blocks.append(block)
        return root


def join_parts(parts: Sequence[Root], profile: Profile) -> tuple[Block, Root]:
    """The node that joins parts to one file, in their order."""
    sizes = [part.size or 0 for part in parts]
    message = unixfs.encode(Kind.FILE, filesize=sum(sizes), blocksizes=sizes)
    links = [Link(part.cid, "", part.tsize) for part in parts]
    block = make(dagpb.encode(message, links), DAG_PB, version=profile.cid_version)
    return block, Root(block.cid, sum(sizes), len(block.data) + sum(part.tsize for part in parts))


def build_file(data: Buffer, profile: Profile) -> tuple[list[Block], Root]:
    """Build a whole file at once."""
    builder = FileBuilder(profile)
    blocks = builder.feed(data)
    last, root = builder.finish()
    return blocks + last, root


def build_directory(entries: Iterable[tuple[str, Root]], profile: Profile) -> tuple[list[Block], Root]:
    """Build a directory, sharded if it is larger than the profile's threshold. Names must be unique."""
    named = sorted(entries, key=lambda entry: entry[0].encode("utf-8", "surrogateescape"))
    for (name, _), (following, _) in pairwise(named):
        if name == following:
            raise DagError(f"a directory cannot have two entries named {name!r}")
    links = []
    for name, root in named:
        check_name(name)
        links.append(Link(root.cid, name, root.tsize))
    if profile.hamt_by == "links":
        measured = sum(len(link.name.encode("utf-8", "surrogateescape")) + len(link.cid.encode()) for link in links)
        if measured > profile.hamt_threshold_bytes:
            return _sharded(links, profile)
    body = dagpb.encode(unixfs.encode(Kind.DIRECTORY), links)
    if profile.hamt_by == "block" and len(body) > profile.hamt_threshold_bytes:
        return _sharded(links, profile)
    block = make(body, DAG_PB, version=profile.cid_version)
    return [block], Root(block.cid, None, len(body) + sum(link.tsize for link in links))


def build_symlink(target: str, profile: Profile) -> tuple[list[Block], Root]:
    """Build a symlink."""
    data = target.encode("utf-8", "surrogateescape")
    message = unixfs.encode(Kind.SYMLINK, data=data, filesize=len(data))
    block = make(dagpb.encode(message, ()), DAG_PB, version=profile.cid_version)
    return [block], Root(block.cid, None, len(block.data))


def _sharded(links: Sequence[Link], profile: Profile) -> tuple[list[Block], Root]:
    blocks: list[Block] = []
    placed = [(hamt.digest(link.name), link) for link in links]
    root = _shard(placed, 0, profile, blocks)
    return blocks, root


def _shard(placed: list[tuple[int, Link]], depth: int, profile: Profile, blocks: list[Block]) -> Root:
    fanout = profile.hamt_fanout
    bits, digits = fanout.bit_length() - 1, hamt.width(fanout)
    slots: dict[int, list[tuple[int, Link]]] = {}
    for value, link in placed:
        slots.setdefault(hamt.step(value, depth, bits), []).append((value, link))
    children = []
    for index in sorted(slots):
        prefix, inside = f"{index:0{digits}X}", slots[index]
        if len(inside) == 1:
            link = inside[0][1]
            children.append(Link(link.cid, prefix + link.name, link.tsize))
        else:
            shard = _shard(inside, depth + 1, profile, blocks)
            children.append(Link(shard.cid, prefix, shard.tsize))
    field = sum(1 << index for index in slots)
    bitfield = field.to_bytes((field.bit_length() + 7) // 8, "big")
    message = unixfs.encode(Kind.HAMT_SHARD, data=bitfield, hash_type=hamt.HASH_TYPE, fanout=fanout)
    block = make(dagpb.encode(message, children), DAG_PB, version=profile.cid_version)
    blocks.append(block)
    return Root(block.cid, None, len(block.data) + sum(child.tsize for child in children))
