"""How many entries a tree has at least, before they are made. PURE.

A few directories that link to each other many times make a tree of any size: six of a thousand links each have 10^18 entries.
The directories that were read, each kept once, tell that when the walk has reached the lowest of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dnc_async.ipld.cid import DAG_PB, Cid

#: So many links to nodes are kept; directories after that count with their own entries alone.
_MOST_LINKS = 2**17
_FIRST_AFTER = 1024


class TreeSize:
    """Counts the entries of a tree by its directories, as they are read, the tree's root first."""

    def __init__(self) -> None:
        self._directories: dict[bytes, tuple[int, Counter[bytes]]] = {}
        self._links = self._listed = 0
        self._due = _FIRST_AFTER

    def __repr__(self) -> str:
        return f"<TreeSize of {len(self._directories)} directories, {self._listed} entries listed>"

    def listed(self, directory: Cid, entries: Sequence[Cid]) -> bool:
        """Count a directory's entries; returns whether to look at :meth:`entries`: again when twice as many were listed."""
        key = directory.multihash
        if key not in self._directories and self._links < _MOST_LINKS:
            nodes = Counter(entry.multihash for entry in entries if entry.codec == DAG_PB)
            self._directories[key] = len(entries), nodes
            self._links += len(nodes)
        self._listed += len(entries)
        if self._listed < self._due:
            return False
        self._due = 2 * self._listed
        return True

    def entries(self) -> int:
        """The number of entries that the tree has at least. Takes a moment where many directories were read."""
        totals: dict[bytes, int] = {}
        root = next(iter(self._directories))
        waiting = [root]
        while waiting:
            count, nodes = self._directories.get(waiting[-1], (0, Counter()))
            missing = [node for node in nodes if node in self._directories and node not in totals]
            if missing:  # these first
                waiting += missing
                continue
            totals[waiting.pop()] = count + sum(times * totals.get(node, 0) for node, times in nodes.items())
        return max(self._listed, totals[root])
