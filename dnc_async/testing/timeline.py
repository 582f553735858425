"""The workload of a simulation, and the report of how it was fetched. PURE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Files of equal leaves, wanted in order.

    All at once, or, with a ``budget_bytes``, as a consumer leases them: whole files while they fit, each released when it is
    complete and the one before it was consumed, which takes ``step_s`` seconds per file.
    """

    leaves: int = 16
    leaf_bytes: int = 2**18
    files: int = 1
    budget_bytes: int | None = None
    step_s: float = 0.0

    @property
    def size_bytes(self) -> int:
        """The size of all files together."""
        return self.files * self.leaves * self.leaf_bytes


class Event(NamedTuple):
    """One entry of the timeline. ``what``: asked, hedged, joined, arrived, duplicate, failed, wrong, beaten or given back.

    ``blocks`` are numbers in the order of the work; ``gateway`` is the one that was asked, or sent it, or failed.
    """

    at_s: float
    what: str
    gateway: int
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayReport:
    """One gateway's part. ``bytes`` were correct and wanted, ``wire_bytes`` arrived; failures count from the very start."""

    requests: int
    bytes: int
    wire_bytes: int
    peak_requests: int
    failures: int
    rejected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationReport:
    """How a workload went. ``arrivals_s`` is the time from when each block was wanted until it arrived; ``None`` if it never did.

    ``fluid_s`` is the least time of all gateways together, ``waited_s`` how long the consumer of a budget waited after its
    first file. ``duplicates`` are complete correct blocks that had arrived before.
    """

    seconds: float
    size_bytes: int
    gateways: tuple[GatewayReport, ...]
    hedged_bytes: int
    duplicates: int
    peak_in_flight_bytes: int
    arrivals_s: tuple[float | None, ...]
    fluid_s: float
    waited_s: float
    events: tuple[Event, ...]

    @property
    def is_complete(self) -> bool:
        """Whether every block arrived."""
        return None not in self.arrivals_s

    @property
    def over_fluid(self) -> float:
        """Its time divided by the least possible one."""
        return self.seconds / self.fluid_s if self.fluid_s else math.inf

    @property
    def requests(self) -> int:
        """The number of requests."""
        return sum(gateway.requests for gateway in self.gateways)

    @property
    def extra_bytes(self) -> int:
        """Received bytes beside the blocks themselves: halves of hedges, wrong blocks, bodies that were cut off."""
        return sum(gateway.wire_bytes - gateway.bytes for gateway in self.gateways)

    def arrived_within_s(self, share: float) -> float:
        """Within what time after being wanted this share of the blocks arrived (0.5: the median); infinite if fewer arrived."""
        times = sorted(math.inf if each is None else each for each in self.arrivals_s)
        return times[min(len(times) - 1, math.ceil(share * len(times)) - 1)] if times else 0.0
