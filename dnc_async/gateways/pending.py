"""The blocks that are wanted of all gateways together: by what they hash to, and in the order in which to ask for them.

Several may want the same block; it is asked for once at a time, for the first of them for whom there is hope.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Container, Iterator, Sequence
from typing import overload

from dnc_async.gateways.spans import Want
from dnc_async.gateways.want import BlockWant, Priority

#: How far the dispatcher looks into the order at once: enough blocks for a choice, and bytes for runs of small ones.
_LOOK_AHEAD, _LOOK_AHEAD_BYTES, _MOST_LOOKED_AT = 128, 2**24, 4096


class Pending:
    """Blocks from the moment they are wanted until they are settled. Those that wait to be asked for stand in a line.

    In the line some may be settled already: whoever looks at its head takes them out.
    """

    def __init__(self) -> None:
        self._wanted: dict[bytes, tuple[BlockWant, ...]] = {}
        self._line: list[tuple[Priority, int, BlockWant]] = []
        self._gone: set[BlockWant] = set()
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        return f"<Pending {len(self._wanted)} blocks wanted, {len(self._line)} in line>"

    def __len__(self) -> int:
        return len(self._wanted)

    def __iter__(self) -> Iterator[BlockWant]:
        return itertools.chain.from_iterable(self._wanted.values())

    def of(self, multihash: bytes) -> tuple[BlockWant, ...]:
        """Who wants the block with this hash. May be called from any thread."""
        return self._wanted.get(multihash, ())

    def enter(self, want: BlockWant) -> None:
        """A block is wanted; it does not stand in line by that."""
        multihash = want.cid.multihash
        self._wanted[multihash] = (*self._wanted.get(multihash, ()), want)

    def leave(self, want: BlockWant) -> bool:
        """It is settled. Says whether others want the same: they may have relied on this one to be asked for."""
        others = tuple(other for other in self.of(want.cid.multihash) if other is not want)
        if others:
            self._wanted[want.cid.multihash] = others
        else:
            self._wanted.pop(want.cid.multihash, None)
        return bool(others)

    def enqueue(self, want: BlockWant) -> None:
        """It is to be asked for, perhaps again."""
        if want in self._gone:
            self._sweep()
        bisect.insort(self._line, (want.priority, next(self._numbers), want))

    @property
    def first(self) -> BlockWant | None:
        """Who stands first in line, perhaps settled by now."""
        return self._line[0][2] if self._line else None

    def waiting(self) -> list[BlockWant]:
        """All who stand in line and are not settled."""
        self._sweep()
        return [want for _, _, want in self._line if not want.settled]

    def head(self, comes: Container[bytes]) -> Sequence[BlockWant]:
        """The first in line, without those that others bring, found as they are looked at: few are, mostly.

        Who is settled leaves the line, and whose block ``comes``. It is valid until the line changes.
        """
        self._sweep()
        return _Head(self._choices(comes))

    def _choices(self, comes: Container[bytes]) -> Iterator[BlockWant]:
        size = 0
        for looked_at, (_, _, want) in enumerate(self._line):
            if looked_at >= _LOOK_AHEAD and (size >= _LOOK_AHEAD_BYTES or looked_at >= _MOST_LOOKED_AT):
                return
            multihash = want.cid.multihash
            if want.settled or multihash in comes:
                self._gone.add(want)
                continue
            size += want.size_bytes
            if len(self._wanted[multihash]) == 1 or not self._comes_anyway(want):
                yield want

    def _sweep(self) -> None:
        """Have those leave the line who were found to wait no more."""
        if self._gone:
            gone, self._gone = self._gone, set()
            self._line = [entry for entry in self._line if entry[2] not in gone]

    def asked(self, wants: set[Want]) -> None:
        """These, of the head, were asked for."""
        self._sweep()
        if wants:
            last = max(want.priority for want in wants if isinstance(want, BlockWant))
            end = bisect.bisect_right(self._line, last, key=lambda entry: entry[0])
            self._line[:end] = [entry for entry in self._line[:end] if entry[2] not in wants]

    def drop_settled(self) -> None:
        """Have all leave the line that are settled: each holds what its block was to be written to."""
        self._gone.clear()
        self._line = [entry for entry in self._line if not entry[2].settled]

    def _comes_anyway(self, want: BlockWant) -> bool:
        """Whether the same block was asked for, or will be, for somebody else."""
        wanted = self._wanted[want.cid.multihash]
        others = [other for other in wanted if other is not want]
        first = min((each for each in wanted if each.is_hopeful), key=lambda each: each.priority, default=want)
        return any(other.requests for other in others) or first is not want


class _Head(Sequence[BlockWant]):
    """A sequence that takes from its source what it is asked for."""

    def __init__(self, source: Iterator[BlockWant]) -> None:
        self._source = source
        self._found: list[BlockWant] = []

    def __repr__(self) -> str:
        return f"<_Head, {len(self._found)} found so far>"

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
