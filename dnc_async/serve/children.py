"""Which links of a block belong to what a client asked for. In steps: a generator yields the links, and ``None`` in between."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dnc_async.errors import DagError
from dnc_async.ipld import hamt, stepwise, unixfs
from dnc_async.ipld.cid import DAG_CBOR, DAG_JSON, DAG_PB, RAW, Cid
from dnc_async.ipld.stepwise import Source

from .resolving import links_inside


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part of a file begins, and the bytes of the file that are wanted (``stop`` is exclusive)."""

    offset: int
    start: int
    stop: int


class Child(NamedTuple):
    """A link to follow, and which of its own links are to be followed then. ``whole``: all that belong to the same entity."""

    cid: Cid
    follow: Follow
    place: Place | None = None
    whole: bool = True


Children = Iterator[Child | None]
Follow = Callable[[Cid, Source, Place | None], Children]


def has_links(cid: Cid) -> bool:
    """Whether a block with this CID can have links that we read."""
    return cid.codec in (DAG_PB, DAG_CBOR, DAG_JSON)


def every_link(cid: Cid, source: Source, _: Place | None) -> Children:
    """All links of a block."""
    if cid.codec == DAG_PB:
        for link in stepwise.dag_pb_links(source):
            yield Child(link.cid, every_link)
        return
    for found in links_inside(cid, source, ()):
        yield None if found is None else Child(found, every_link)


def entity_links(cid: Cid, source: Source, _: Place | None) -> Children:
    """The links that belong to the same entity: a file's parts, or a sharded directory's shards."""
    if cid.codec != DAG_PB:
        return
    node = yield from stepwise.outline(source)
    digits = None
    if node.kind is unixfs.Kind.HAMT_SHARD:
        digits = hamt.width(node.fanout or 1)  # a link whose name is only a slot leads to a shard
    elif not node.is_file:
        return  # dag-pb without UnixFS, a plain directory, a symlink: the block is the entity
    for link in stepwise.dag_pb_links(source):
        yield Child(link.cid, entity_links) if digits is None or len(link.name) == digits else None


def ranged_links(cid: Cid, source: Source, place: Place | None) -> Children:
    """The parts of a file's node that contain wanted bytes."""
    if cid.codec != DAG_PB or place is None:
        return
    node = yield from stepwise.outline(source)
    if not node.is_sized:  # it is not known which of its parts contain the range
        yield from entity_links(cid, source, None)
        return
    if not node.is_file:
        raise DagError(f"{cid} is not a well-formed part of a file")
    offset = place.offset + node.data_bytes
    for link, size in zip(stepwise.dag_pb_links(source), stepwise.blocksizes(source, node.message), strict=True):
        if size and offset < place.stop and offset + size > place.start:
            whole = place.start <= offset and offset + size <= place.stop
            yield Child(link.cid, ranged_links, Place(offset, place.start, place.stop), whole)
        else:
            yield None
        offset += size


def file_size(cid: Cid, source: Source) -> Generator[None, None, int | None]:
    """The size of a file; ``None`` if this is not one, or does not say."""
    if cid.codec == RAW:
        return len(source.get())
    if cid.codec != DAG_PB:
        return None
    node = yield from stepwise.outline(source)
    return node.data_bytes + node.sizes_sum if node.is_file and node.is_sized else None
