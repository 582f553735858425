"""Groups wanted blocks into spans: runs of blocks that one CAR request can bring. PURE.

Blocks can share a span if they follow each other in the same file or directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from dnc_async.gateways.dag_range import CarQuery, Scope
from dnc_async.gateways.want import Want


def consecutive_wants(wants: Sequence[Want], first: int, limit_bytes: int) -> list[Want]:
    """The want at index ``first`` and those after it that continue the same file, up to ``limit_bytes`` together."""
    run, size = [wants[first]], wants[first].size_bytes
    if not wants[first].within:
        return run
    last = wants[first].within[0]
    for want in islice(wants, first + 1, None):  # the sequence may be lazy: do not ask for its length
        here = want.within[0] if want.within else None
        if here is None or here.path != last.path or here.start != last.end or size + want.size_bytes > limit_bytes:
            break
        run.append(want)
        size, last = size + want.size_bytes, here
    return run


def file_query(run: Sequence[Want]) -> CarQuery:
    """The query of the CAR that brings consecutive wants of one file, or a file's root together with the file."""
    first, last = run[0].within[0], run[-1].within[0]
    return CarQuery(first.path, first.scope, first.start, last.end, first.total, first.via)


def directory_query(want: Want, limit_bytes: int) -> CarQuery | None:
    """The query of the CAR with the whole small directory that contains a want, or ``None`` where that is not worth it.

    A directory's CAR begins with its first file, so everything before the wanted file is received in vain: only a want in
    the first half of a directory of at most ``limit_bytes`` is worth it.
    """
    tree = next((within for within in want.within if within.scope is Scope.ALL), None)
    if tree is None or tree.total > limit_bytes or 2 * tree.start > tree.total:
        return None
    return CarQuery(tree.path, tree.scope, 0, tree.total, tree.total, tree.via)
