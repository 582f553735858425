"""The consumer of a simulation: it wants blocks all at once, or as a budget allows. PURE; the time is passed in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from dnc_async.gateways.dag_range import CarQuery, DagRange
from dnc_async.gateways.retries import Failures
from dnc_async.gateways.want import Want

from .scripted_line import Body
from .timeline import Workload

#: The root of all files of a simulation.
ROOT = "root"


@dataclass(slots=True, eq=False, kw_only=True)
class Leaf(Want):
    """A wanted block; ``number`` is its place in the order."""

    number: int
    wanted_at: float
    failures: Failures = field(default_factory=Failures)
    requests: dict[int, SimulatedRequest] = field(default_factory=dict)
    arrived_at: float | None = None
    is_hopeless: bool = False


@dataclass(slots=True, eq=False)
class SimulatedRequest:
    """A request. ``blocks`` are those in its body, in order; ``wants`` those that are still expected."""

    gateway: int
    car: CarQuery | None
    blocks: list[Leaf]
    wants: dict[Leaf, None]
    body: Body | None = None
    brought: int = 0
    block_bytes: int = 0
    ended: bool = False


class Consumer:
    """Leases files in order, and consumes them in order.

    ``take`` is called with each block when it is wanted; ``at(when, call)`` has ``call`` called at a time, with that time.
    """

    def __init__(
        self,
        workload: Workload,
        *,
        take: Callable[[Leaf], None],
        at: Callable[[float, Callable[[float], None]], None],
    ) -> None:
        self._work = workload
        self._take, self._at = take, at
        self.leaves: list[Leaf] = []
        self.files: list[list[Leaf]] = []
        self._missing: list[int] = []
        self._handed = 0
        self._free_at: float | None = None
        self.waited_s = 0.0

    @property
    def is_done(self) -> bool:
        """Whether it has consumed everything."""
        return self._handed == self._work.files

    def lease(self, now: float) -> None:
        """Want as many more files as the budget has space for, and at least one."""
        work = self._work
        size = work.leaves * work.leaf_bytes
        most = math.inf if work.budget_bytes is None else max(1, work.budget_bytes // size)
        while len(self.files) < work.files and len(self.files) - self._handed < most:
            path = f"file-{len(self.files)}"
            places = (
                DagRange(path, start, start + work.leaf_bytes, size, via=f"{ROOT}/{path}")
                for start in range(0, size, work.leaf_bytes)
            )
            first = len(self.leaves)
            leaves = [
                Leaf(work.leaf_bytes, within=(place,), number=first + i, wanted_at=now)
                for i, place in enumerate(places)
            ]
            self.leaves += leaves
            self.files.append(leaves)
            self._missing.append(len(leaves))
            for leaf in leaves:
                self._take(leaf)

    def settled(self, leaf: Leaf, now: float) -> None:
        """Note that a block arrived, or never will."""
        self._missing[leaf.number // self._work.leaves] -= 1
        self._hand_over(now)

    def _hand_over(self, now: float) -> None:
        while self._handed < len(self.files) and not self._missing[self._handed]:
            if self._free_at is not None and now < self._free_at:
                self._at(self._free_at, self._hand_over)
                return
            self.waited_s += 0.0 if self._free_at is None else now - self._free_at
            self._free_at = now + self._work.step_s
            self._handed += 1
            self.lease(now)
