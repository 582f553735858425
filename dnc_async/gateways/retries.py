"""How many bytes may be requested twice, and when a gateway is given up for a block. PURE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

#: How many bytes may be requested twice because of one gateway before any were delivered.
FREE_HEDGES_BYTES = 4 * 2**20
#: A block that was not found is requested again after the first time, in seconds, which doubles each time, up to the second.
_MISS_RETRY_S, _LONGEST_MISS_RETRY_S = 0.25, 4.0
#: How often one gateway may be silent for one block, for as long as a request may be.
_MOST_SILENCES = 2


class HedgeBudget:
    """How many bytes may be requested twice: for each gateway that was late, a ``share`` of the delivered bytes plus 4 MiB.

    One account for all would let a gateway that is often late use up what the others need.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._spent = Counter[int]()

    def __repr__(self) -> str:
        return f"<HedgeBudget {self._share:.0%}, {self.spent_bytes} bytes spent>"

    @property
    def spent_bytes(self) -> int:
        """How many bytes were requested a second time."""
        return self._spent.total()

    def spend(self, size_bytes: int, late: Collection[int], delivered_bytes: int, *, is_urgent: bool) -> bool:
        """Whether these bytes may be requested once more because the gateways ``late`` are late with them; if so, count them.

        ``delivered_bytes`` is what all gateways delivered. What is urgent may always be requested.
        """
        gateway = min(late, key=lambda each: (self._spent[each], each))
        allowed = is_urgent or self._spent[gateway] + size_bytes <= self._limit(delivered_bytes)
        self._spent[gateway] += size_bytes if allowed else 0
        return allowed

    def is_exceeded(self, gateway: int, delivered_bytes: int) -> bool:
        """Whether more was requested twice because of a gateway than its own ``delivered_bytes`` make up for."""
        return self._spent[gateway] > self._limit(delivered_bytes)

    def _limit(self, delivered_bytes: int) -> float:
        return self._share * delivered_bytes + FREE_HEDGES_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When a gateway is given up for a block: after ``attempts`` failures.

    A gateway that has delivered blocks before is also given at least ``seconds``, from the block's first failure on. One that
    says when it can be asked again is waited for, but no longer than ``busy_seconds`` after the block's first failure. One
    whose answers do not come is given up after the second, because each has cost a long time.
    """

    attempts: int
    seconds: float
    busy_seconds: float


class _Exclusions(Protocol):
    """A wanted block, as far as failures are concerned."""

    excluded: set[int]
    hopeless: Collection[int]
    retry_at: float


@dataclass(slots=True, eq=False)
class Failures:
    """Which gateways failed for one block, how often, and since when."""

    since: float | None = None
    hopeless: set[int] = field(default_factory=set)
    _attempts: dict[int, int] = field(default_factory=dict)
    _misses: int = 0

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
        is_miss: bool = False,
        is_final: bool = False,
        is_silent: bool = False,
        back_at: float | None = None,
    ) -> None:
        """Record a failure, and exclude the gateway until all others have failed too; for good once it is hopeless.

        ``is_wrong``: it sent wrong bytes, so only the number of attempts counts, not the time. ``is_miss``: it did not find the
        block; if it has delivered others, it may find it later. ``is_final``: it does not have the block, or will not serve it.
        ``is_silent``: its answer did not come, or did not go on. ``back_at``: it said that it can be asked again at this time,
        and not sooner.
        """
        self.since = now if self.since is None else self.since
        attempts = self._attempts[gateway] = self._attempts.get(gateway, 0) + 1
        over = not has_delivered or is_wrong or now - self.since >= patience.seconds
        too_late = back_at is not None and back_at - self.since > patience.busy_seconds
        most = min(patience.attempts, _MOST_SILENCES) if is_silent else patience.attempts
        if is_final or too_late or (attempts >= most and over):
            self.hopeless.add(gateway)
        want.hopeless = self.hopeless
        want.excluded.add(gateway)
        if len(want.excluded) == gateways and not is_miss:
            want.excluded = set(self.hopeless)
        if is_miss:  # other failures pause the gateway itself
            want.retry_at = now + min(_MISS_RETRY_S * 2.0**self._misses, _LONGEST_MISS_RETRY_S)
            self._misses += 1
