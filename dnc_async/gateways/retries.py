"""What is decided besides whom to ask: how much may be asked for twice, and who is hopeless for a block. PURE."""

from __future__ import annotations

from dataclasses import dataclass, field

from dnc_async.gateways.spans import Want

#: May be asked for twice before anything was delivered.
FREE_HEDGES_BYTES = 4 * 2**20


class HedgeBudget:
    """How many bytes may be asked for twice: a ``share`` of those that were delivered, and 4 MiB more."""

    def __init__(self, share: float) -> None:
        self._share = share
        self.spent_bytes = 0

    def __repr__(self) -> str:
        return f"<HedgeBudget {self._share:.0%}, {self.spent_bytes} bytes spent>"

    def left(self, delivered_bytes: int) -> float:
        """How many bytes more may be asked for twice."""
        return self._share * delivered_bytes + FREE_HEDGES_BYTES - self.spent_bytes

    def spend(self, size_bytes: int) -> None:
        """So many were."""
        self.spent_bytes += size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often, and if it has ever delivered at least how long, a gateway may fail for a block until it is hopeless.

    One that says when it can be asked again is waited for until ``busy_seconds`` after the block's first failure, and no longer.
    """

    attempts: int
    seconds: float
    busy_seconds: float


@dataclass(slots=True, eq=False)
class Failures:
    """Who has failed for one block, how often, and since when."""

    since: float | None = None
    hopeless: set[int] = field(default_factory=set)
    _attempts: dict[int, int] = field(default_factory=dict)

    def note(
        self,
        want: Want,
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
        """Note a failure: a gateway that failed comes last in the next round, and not at all once it is hopeless for this block.

        ``is_wrong``: waiting does not help, only ``attempts`` count; ``is_final``: it said that it has no such block.
        ``back_at``: it said that it can be asked again then, and not sooner.
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
