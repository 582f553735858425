"""Where a block lies in a DAG, and the CAR query that fetches such a range. PURE.

A gateway cannot be given a list of CIDs. A CAR request names a DAG and a range of it: the bytes of a file
(``dag-scope=entity`` with ``entity-bytes``), or everything beneath a directory (``dag-scope=all``).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple
from urllib.parse import quote


class Scope(StrEnum):
    """Which part of a DAG a CAR contains; the values of the specification's ``dag-scope``."""

    BLOCK = "block"
    ENTITY = "entity"
    ALL = "all"


class DagRange(NamedTuple):
    """Where a block lies: bytes ``start`` to ``end`` (exclusive) of the file or directory at ``path``.

    ``path`` is a CID, optionally followed by a path below it. ``via`` is the path to the same file or directory from the
    dataset's root, for gateways that can only find blocks by that root. ``total`` is the size of the whole file or directory
    in bytes; in a directory, offsets are counted as if its files were concatenated.
    """

    path: str
    start: int
    end: int
    total: int
    scope: Scope = Scope.ENTITY
    via: str = ""


class CarQuery(NamedTuple):
    """The query of one CAR request: bytes ``start`` to ``end`` (exclusive) of what is at ``path``.

    A range that covers the whole file is left out of the request.
    """

    path: str
    scope: Scope
    start: int
    end: int
    total: int
    via: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether the query covers the whole file or directory."""
        return self.scope is not Scope.ENTITY or (self.start == 0 and self.end >= self.total)

    @property
    def expected_bytes(self) -> int:
        """How many bytes of file content the CAR will contain."""
        return self.total if self.is_whole else self.end - self.start

    def covers(self, within: DagRange, position: int) -> bool:
        """Whether the CAR, of which everything before byte ``position`` was received, will still bring this range."""
        return within.path == self.path and max(self.start, position) <= within.start and within.end <= self.end

    def target(self, *, from_root: bool) -> str:
        """The request path and query below a gateway's URL. All parameters are given, because gateways' defaults differ."""
        span = "" if self.is_whole else f"&entity-bytes={self.start}:{self.end - 1}"
        path = self.via if from_root and self.via else self.path
        name = quote(path, errors="surrogateescape")  # a file name may contain any bytes
        return f"/ipfs/{name}?format=car&dag-scope={self.scope}{span}&car-version=1&car-order=dfs&car-dups=y"
