"""Chooses the blocks that answer a CAR request, and their order: the path's proof, then the requested scope, depth first.

In steps (:mod:`.steps`): the gateway does them in its reading threads, a turn at a time, and not at all once the client is gone.
Blocks are not verified, because the client does that. Memory grows with the depth of the DAG, by some hundred bytes for a node on
the current path; their blocks are :class:`.OpenBlocks`, and what ``dups=n`` remembers is bounded (:mod:`.sent_blocks`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from dnc_async.errors import DagError, StoreError
from dnc_async.ipld.car import encode_header, section_bytes
from dnc_async.ipld.cid import Cid
from dnc_async.ipld.stepwise import Source

from .children import Child, Children, Follow, Place, entity_links, every_link, file_size, has_links, ranged_links
from .open_blocks import OpenBlocks
from .resolving import Resolved, links_inside
from .sent_blocks import SentBlocks, SharedMemory
from .steps import NotHereError, Steps

if TYPE_CHECKING:
    from .content_request import ContentRequest


_SIZE_STEPS = (None,) * 4  # a block's size takes about as long as so many links


class CarWalk:
    """The blocks of one answer. Its generators may be advanced from any thread, by one at a time; :meth:`close` ends it."""

    def __init__(self, blocks: OpenBlocks, resolved: Resolved, content: ContentRequest, shared: SharedMemory) -> None:
        self._blocks = blocks
        self._resolved = resolved
        self._content = content
        self._sent = None if content.dups else SentBlocks(shared)
        self._stack: list[_Node] = []
        self._measured: deque[Cid] = deque()
        self._fault: NotHereError | DagError | StoreError | None = None
        self._cids = self._walk()

    def begin(self) -> Steps[None]:
        """Check the requested range. Raises :class:`RefusalError` (400) if it lies outside of the file."""
        if self._content.entity_bytes is None:
            return
        cid = self._resolved.terminus
        size_bytes = yield from file_size(cid, self._blocks.source(cid))
        if size_bytes is None:
            return
        start, stop = self._content.entity_bytes.resolve(size_bytes)
        if (start, stop) != (0, size_bytes):
            self._cids = self._walk(Place(0, start, stop))

    def measure(
        self, size_of: Callable[[Cid], int | None], *, most_blocks: int, most_steps: int
    ) -> Generator[None, None, int | None]:
        """The size of the CAR, computed from its nodes and the sizes of its blocks. Call it before :meth:`blocks`, or not at all.

        ``None`` if it has too many blocks, takes too many steps, or lacks a block: such a CAR is sent without a Content-Length.
        """
        total = len(encode_header([self._resolved.terminus]))
        try:
            for steps, cid in enumerate(self._cids):
                if cid is not None:
                    self._measured.append(cid)
                    size_bytes = size_of(cid)
                    if size_bytes is None or len(self._measured) > most_blocks:
                        return None
                    total += section_bytes(cid, size_bytes)
                    yield from _SIZE_STEPS
                if steps >= most_steps:
                    return None
                yield
        except (NotHereError, DagError, StoreError) as error:
            self._fault = error
            return None
        return total

    def blocks(self) -> Steps[None]:
        """Yield the blocks in order.

        Raises :class:`NotHereError`, :class:`DagError` or :class:`StoreError` after all blocks before the fault were yielded.
        """
        while self._measured:
            cid = self._measured.popleft()
            yield cid, self._blocks.load(cid)
        if self._fault is not None:
            raise self._fault
        for found in self._cids:
            yield None if found is None else (found, self._blocks.load(found))

    def close(self) -> None:
        """End the walk, and forget which blocks were sent."""
        with suppress(ValueError):  # a thread is at it still: this is the end of the server
            self._cids.close()
        self._stack.clear()
        if self._sent is not None:
            self._sent.close()

    def _walk(self, wanted: Place | None = None) -> Generator[Cid | None, None, None]:
        """Yield the CIDs to send, and ``None`` for each step in between. Identity CIDs are followed and not sent."""
        for cid in self._resolved.proof:
            if self._enter(cid)[0]:
                yield cid
        terminus = self._resolved.terminus
        if self._enter(terminus, whole=wanted is None)[0]:
            yield terminus
        follow = self._follow(wanted)
        if follow is None or not has_links(terminus):
            return
        self._push(terminus, follow, wanted)
        while self._stack:
            child = yield from self._next_child()
            yield None
            if child is None:
                self._blocks.close(self._stack.pop().source)
                continue
            is_sent, is_followed = self._enter(child.cid, whole=child.whole)
            if is_sent:
                yield child.cid
            if is_followed and has_links(child.cid):
                self._push(child.cid, child.follow, child.place)

    def _follow(self, wanted: Place | None) -> Follow | None:
        """Which links of the path's end are followed; ``None``: none."""
        if wanted is not None:
            return ranged_links
        if self._content.scope == "entity":
            return entity_links
        if self._content.scope == "block":
            return None
        inside = self._resolved.inside
        return _links_inside(inside) if inside else every_link

    def _enter(self, cid: Cid, *, whole: bool = True) -> tuple[bool, bool]:
        """Whether a block is to be sent, and whether its links are to be followed."""
        if cid.inline is not None or self._sent is None:
            return cid.inline is None, True
        return self._sent.add(cid, whole=whole)

    def _push(self, cid: Cid, follow: Follow, place: Place | None) -> None:
        source = self._blocks.source(cid)
        self._stack.append(_Node(source, follow(cid, source, place)))

    def _next_child(self) -> Generator[None, None, Child | None]:
        """The next link of the last node on the stack; ``None`` at its end."""
        children = self._stack[-1].children
        while True:
            try:
                child = next(children)
            except StopIteration:
                return None
            if child is not None:
                return child
            yield


class _Node(NamedTuple):
    """A node on the walk's current path, and the links of it that are still to be followed."""

    source: Source
    children: Children


def _links_inside(segments: tuple[str, ...]) -> Follow:
    def follow(cid: Cid, source: Source, _: Place | None) -> Children:
        for found in links_inside(cid, source, segments):
            yield None if found is None else Child(found, every_link)

    return follow
