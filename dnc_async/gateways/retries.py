"""How many bytes may be requested twice, and when a gateway is given up for a block. PURE."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

#: How many bytes may be requested twice before any were delivered.
FREE_HEDGES_BYTES = 4 * 2**20


class HedgeBudget:
    """How many bytes may be requested twice: a ``share`` of the delivered bytes, plus 4 MiB."""

    def __init__(self, share: float) -> None:
        self._share = share
        self.spent_bytes = 0

    def __repr__(self) -> str:
        return f"<HedgeBudget {self._share:.0%}, {self.spent_bytes} bytes spent>"

    def left(self, delivered_bytes: int) -> float:
        """How many more bytes may be requested twice, after ``delivered_bytes`` were delivered."""
        return self._share * delivered_bytes + FREE_HEDGES_BYTES - self.spent_bytes

    def spend(self, size_bytes: int) -> None:
        """Count bytes that were requested a second time."""
        self.spent_bytes += size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When a gateway is given up for a block: after ``attempts`` failures.

    A gateway that has delivered blocks before is also given at least ``seconds``, from the block's first failure on. One that
    says when it can be asked again is waited for, but no longer than ``busy_seconds`` after the block's first failure.
    """

    attempts: int
    seconds: float
    busy_seconds: float


class _Exclusions(Protocol):
    """A wanted block, as far as failures are concerned."""

    excluded: set[int]
    hopeless: Collection[int]


@dataclass(slots=True, eq=False)
class Failures:
    """Which gateways failed for one block, how often, and since when."""

    since: float | None = None
    hopeless: set[int] = field(default_factory=set)
    _attempts: dict[int, int] = field(default_factory=dict)

    def record(
        self,
        want: _Exclusions,
        gateway: int,
        now: float,
        *,
        gateways: int,
        patience: Patience,
        has_delivered: bool,
        is_wrong: bool = False,
        is_final: bool = False,
        back_at: float | None = None,
    ) -> None:
        """Record a failure, and exclude the gateway until all others have failed too; for good once it is hopeless.

        ``is_wrong``: it sent wrong bytes, so only the number of attempts counts, not the time. ``is_final``: it does
        not have the block, or will not serve it. ``back_at``: it said that it can be asked again at this time, and not sooner.
        """
        self.since = now if self.since is None else self.since
        attempts = self._attempts[gateway] = self._attempts.get(gateway, 0) + 1
        over = not has_delivered or is_wrong or now - self.since >= patience.seconds
        too_late = back_at is not None and back_at - self.since > patience.busy_seconds
        if is_final or too_late or (attempts >= patience.attempts and over):
            self.hopeless.add(gateway)
        want.hopeless = self.hopeless
        want.excluded.add(gateway)
        if len(want.excluded) == gateways:
            want.excluded = set(self.hopeless)
