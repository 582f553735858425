"""Which wanted blocks lie beside each other in which DAG, so that one CAR brings several of them. PURE.

A *span* is a run of wanted blocks asked of one gateway in one go. A gateway is not told a list of CIDs, but a DAG and a
range of it: the bytes of a file (``dag-scope=entity`` with ``entity-bytes``), or everything beneath a small directory
(``dag-scope=all``). So blocks share a span if they lie one after the other in the same file or directory.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import NamedTuple
from urllib.parse import quote


class Scope(StrEnum):
    """What of a DAG a CAR holds; the words of the specification."""

    BLOCK = "block"
    ENTITY = "entity"
    ALL = "all"


class Within(NamedTuple):
    """Where a block lies: from byte ``start`` to before ``end`` of what is at ``path``.

    ``path`` is a CID, perhaps with a path behind it; ``via`` names the same thing from the root of its dataset, for
    gateways that can find only that. ``total`` is the size of all that is there. For a directory the bytes are counted as if
    its files lay end to end.
    """

    path: str
    start: int
    end: int
    total: int
    scope: Scope = Scope.ENTITY
    via: str = ""


@dataclass(slots=True, eq=False)
class Want:
    """A block that somebody waits for: its likely size, the gateways that will not be asked for it, and those that are.

    ``within`` are the DAGs in which it lies, the smallest first. ``ahead`` is set for a file's root whose leaves are wanted as
    soon as it is known: it lies at the start of its file, and whoever is asked for it may bring the file along. ``passed`` are
    open CARs that have brought it already: it will not come again. ``plain`` are gateways whose CAR with it failed: they are
    asked for the block alone. ``hopeless`` are those of the excluded that will not be asked again, whoever else is not there.
    ``group`` is whose it is.
    """

    size_bytes: int
    within: tuple[Within, ...] = ()
    ahead: bool = False
    excluded: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)
    passed: set[object] = field(default_factory=set)
    plain: set[int] = field(default_factory=set)
    hopeless: Collection[int] = ()
    group: object = None

    @property
    def begins_file(self) -> bool:
        """Whether a file begins with it: its root, or its first leaf."""
        return bool(self.within) and self.within[0].start == 0

    @property
    def has_more(self) -> bool:
        """Whether there is more of its file than the block itself."""
        return bool(self.within) and self.within[0].end - self.within[0].start > self.size_bytes


class CarAsk(NamedTuple):
    """One CAR to ask for: ``end`` is exclusive; a range that covers all of it need not be named."""

    path: str
    scope: Scope
    start: int
    end: int
    total: int
    via: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether it is everything that is there."""
        return self.scope is not Scope.ENTITY or (self.start == 0 and self.end >= self.total)

    @property
    def expected_bytes(self) -> int:
        """How many bytes of files it will bring."""
        return self.total if self.is_whole else self.end - self.start

    def covers(self, within: Within, position: int) -> bool:
        """Whether something that lies so will still come, from ``position`` on."""
        return within.path == self.path and max(self.start, position) <= within.start and within.end <= self.end

    def target(self, *, from_root: bool) -> str:
        """The request below a gateway's URL, with every parameter spelled out (they are optional for the gateway)."""
        span = "" if self.is_whole else f"&entity-bytes={self.start}:{self.end - 1}"
        path = self.via if from_root and self.via else self.path
        name = quote(path, errors="surrogateescape")  # a name may be any bytes
        return f"/ipfs/{name}?format=car&dag-scope={self.scope}{span}&car-version=1&car-order=dfs&car-dups=y"


def run_of(wants: Sequence[Want], first: int, limit_bytes: int) -> list[Want]:
    """The want at ``first``, and those behind it that follow each other in the same file, up to so many bytes."""
    run, size = [wants[first]], wants[first].size_bytes
    if not wants[first].within:
        return run
    last = wants[first].within[0]
    for want in islice(wants, first + 1, None):  # which may be found as they are looked at
        here = want.within[0] if want.within else None
        if here is None or here.path != last.path or here.start != last.end or size + want.size_bytes > limit_bytes:
            break
        run.append(want)
        size, last = size + want.size_bytes, here
    return run


def ask_for(run: Sequence[Want]) -> CarAsk:
    """The CAR that brings a run of wants of one file, or a file's root and the file."""
    first, last = run[0].within[0], run[-1].within[0]
    return CarAsk(first.path, first.scope, first.start, last.end, first.total, first.via)


def tree_ask(want: Want, limit_bytes: int) -> CarAsk | None:
    """The CAR of the small directory in which a file lies with others that will be wanted next, if it is worth it.

    A directory's CAR begins with its first file: what lies before the one that is wanted is brought in vain.
    """
    tree = next((within for within in want.within if within.scope is Scope.ALL), None)
    if tree is None or tree.total > limit_bytes or 2 * tree.start > tree.total:
        return None
    return CarAsk(tree.path, tree.scope, 0, tree.total, tree.total, tree.via)
