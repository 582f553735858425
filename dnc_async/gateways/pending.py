"""The wanted blocks of all streams: an index by multihash, and a queue of those that are to be requested, by priority.

Several wants may be for the same block. It is requested once at a time, for the want with the best priority that still has
a gateway to try.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Container, Iterator, Sequence
from typing import overload

from dnc_async.gateways.want import BlockWant, Priority, Want

#: How many queue entries one dispatch looks at: enough wants to choose among, and enough bytes for spans of small blocks.
_LOOK_AHEAD, _LOOK_AHEAD_BYTES, _MOST_LOOKED_AT = 128, 2**24, 4096


class Pending:
    """All wants that are not settled, and a queue of those that are not requested from any gateway now.

    The queue may contain wants that were settled meanwhile: they are removed when the queue is next looked at.
    """

    def __init__(self) -> None:
        self._wanted: dict[bytes, tuple[BlockWant, ...]] = {}
        self._queue: list[tuple[Priority, int, BlockWant]] = []
        self._obsolete: set[BlockWant] = set()
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        return f"<Pending {len(self._wanted)} blocks wanted, {len(self._queue)} queued>"

    def __len__(self) -> int:
        return len(self._wanted)

    def __iter__(self) -> Iterator[BlockWant]:
        return itertools.chain.from_iterable(self._wanted.values())

    def wants_for(self, multihash: bytes) -> tuple[BlockWant, ...]:
        """The wants for the block with this multihash. May be called from any thread."""
        return self._wanted.get(multihash, ())

    def add(self, want: BlockWant) -> None:
        """Add a want to the index (not to the queue)."""
        multihash = want.cid.multihash
        self._wanted[multihash] = (*self._wanted.get(multihash, ()), want)

    def remove(self, want: BlockWant) -> bool:
        """Remove a settled want from the index.

        Returns whether there are other wants for the same block: they may have waited for this one's request.
        """
        others = tuple(other for other in self.wants_for(want.cid.multihash) if other is not want)
        if others:
            self._wanted[want.cid.multihash] = others
        else:
            self._wanted.pop(want.cid.multihash, None)
        return bool(others)

    def enqueue(self, want: BlockWant) -> None:
        """Put a want into the queue, behind those of the same priority: it is to be requested, perhaps again."""
        if want in self._obsolete:
            self._remove_obsolete()
        bisect.insort(self._queue, (want.priority, next(self._numbers), want))

    @property
    def first(self) -> BlockWant | None:
        """The first want in the queue, perhaps settled by now."""
        return self._queue[0][2] if self._queue else None

    def queued(self) -> list[BlockWant]:
        """The wants in the queue that are not settled."""
        self._remove_obsolete()
        return [want for _, _, want in self._queue if not want.settled]

    def candidates(self, being_delivered: Container[bytes]) -> Sequence[BlockWant]:
        """The first wants in the queue that need a request of their own, as a lazy sequence.

        Removes wants that are settled, or whose block is being delivered (its multihash is in ``being_delivered``). Skips
        those whose block is requested for another want. The sequence is valid until the queue changes.
        """
        self._remove_obsolete()
        return _LazyList(self._find_candidates(being_delivered))

    def _find_candidates(self, being_delivered: Container[bytes]) -> Iterator[BlockWant]:
        size = 0
        for looked_at, (_, _, want) in enumerate(self._queue):
            if looked_at >= _LOOK_AHEAD and (size >= _LOOK_AHEAD_BYTES or looked_at >= _MOST_LOOKED_AT):
                return
            multihash = want.cid.multihash
            if want.settled or multihash in being_delivered:
                self._obsolete.add(want)
                continue
            size += want.size_bytes
            if len(self._wanted[multihash]) == 1 or not self._is_requested_by_another(want):
                yield want

    def _remove_obsolete(self) -> None:
        """Remove from the queue what :meth:`candidates` found to be obsolete."""
        if self._obsolete:
            obsolete, self._obsolete = self._obsolete, set()
            self._queue = [entry for entry in self._queue if entry[2] not in obsolete]

    def dequeue(self, wants: set[Want]) -> None:
        """Remove from the queue these wants, which are requested now."""
        self._remove_obsolete()
        if wants:
            last = max(want.priority for want in wants if isinstance(want, BlockWant))
            end = bisect.bisect_right(self._queue, last, key=lambda entry: entry[0])
            self._queue[:end] = [entry for entry in self._queue[:end] if entry[2] not in wants]

    def dequeue_settled(self) -> None:
        """Remove all settled wants from the queue: each keeps the memory or file alive that its block was to be written to."""
        self._obsolete.clear()
        self._queue = [entry for entry in self._queue if not entry[2].settled]

    def _is_requested_by_another(self, want: BlockWant) -> bool:
        """Whether another want for the same block has an open request, or is requested before this one."""
        wanted = self._wanted[want.cid.multihash]
        others = [other for other in wanted if other is not want]
        first = min((each for each in wanted if each.is_hopeful), key=lambda each: each.priority, default=want)
        return any(other.requests for other in others) or first is not want


class _LazyList(Sequence[BlockWant]):
    """A sequence that takes items from an iterator only as far as they are asked for."""

    def __init__(self, source: Iterator[BlockWant]) -> None:
        self._source = source
        self._found: list[BlockWant] = []

    def __repr__(self) -> str:
        return f"<_LazyList, {len(self._found)} found so far>"

    def __iter__(self) -> Iterator[BlockWant]:
        for place in itertools.count():
            self._find(place + 1)
            if place == len(self._found):
                return
            yield self._found[place]

    @overload
    def __getitem__(self, place: int) -> BlockWant: ...
    @overload
    def __getitem__(self, place: slice) -> list[BlockWant]: ...
    def __getitem__(self, place: int | slice) -> BlockWant | list[BlockWant]:
        end = place.stop if isinstance(place, slice) else place + 1
        self._find(end)
        return self._found[place]

    def __len__(self) -> int:
        self._find(None)
        return len(self._found)

    def _find(self, end: int | None) -> None:
        more = None if end is None or end <= 0 else max(0, end - len(self._found))
        self._found += itertools.islice(self._source, more)
