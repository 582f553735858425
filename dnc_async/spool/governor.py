"""The governor of the disk budget: bytes are reserved before a request is sent, and released after the file is gone.

Decisions are synchronous: :meth:`Account.try_lease` grants or refuses at once, and whoever was refused is told when
something was released. Each stream has an *account* with a *floor*, the lease of its largest chunk; the rest of the
budget is lent to whoever asks first. A loan is refused when the floors that others have not claimed would no longer fit,
so every stream can always hold one chunk, and streams that are consumed in turn cannot deadlock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dnc_async.errors import BudgetTooSmallError


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernorStatistics:
    """A snapshot: bytes of the budget, reserved now, and reserved at most."""

    budget_bytes: int
    leased_bytes: int
    peak_leased_bytes: int
    leases: int


class Lease:
    """A granted reservation. Whoever acquired it releases it, once."""

    __slots__ = ("_account", "size_bytes")

    def __init__(self, account: Account, size_bytes: int) -> None:
        self._account: Account | None = account
        self.size_bytes = size_bytes

    def __repr__(self) -> str:
        return f"<Lease {self.size_bytes} bytes{'' if self._account else ', released'}>"

    def release(self) -> None:
        """Give the bytes back. The file must be gone by now. A second call does nothing."""
        account, self._account = self._account, None
        if account is not None:
            account.return_bytes(self.size_bytes)


class Account:
    """One stream's share of the budget: its floor, and what it holds."""

    def __init__(self, governor: Governor, floor_bytes: int, notify: Callable[[], None]) -> None:
        self._governor = governor
        self.floor_bytes = floor_bytes
        self.held_bytes = 0
        self.notify = notify

    @property
    def unclaimed_bytes(self) -> int:
        """What of the floor nobody may borrow, because its owner has not claimed it yet."""
        return max(0, self.floor_bytes - self.held_bytes)

    def try_lease(self, size_bytes: int) -> Lease | None:
        """Reserve bytes now, or not at all. After a refusal ``notify`` is called when it may work."""
        if not self._governor.grant(self, size_bytes):
            return None
        self.held_bytes += size_bytes
        return Lease(self, size_bytes)

    def withdraw(self) -> None:
        """The last refused request is no longer wanted."""
        self._governor.withdraw(self)

    def return_bytes(self, size_bytes: int) -> None:
        """Called by a lease that is released."""
        self.held_bytes -= size_bytes
        self._governor.returned(size_bytes)

    def close(self) -> None:
        """Give the floor back. All leases must have been released."""
        self._governor.close(self)


class Governor:
    """The budget of one client, in bytes on disk, less ``overhead_bytes`` for the folder itself."""

    def __init__(self, *, budget_bytes: int, overhead_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._overhead_bytes = overhead_bytes
        self._available = max(0, budget_bytes - overhead_bytes)
        self._accounts: list[Account] = []
        self._waiting: list[Account] = []
        self._leased = self._peak = self._leases = 0

    def __repr__(self) -> str:
        return f"<Governor {self._leased} of {self.budget_bytes} bytes leased, {len(self._accounts)} streams>"

    def statistics(self) -> GovernorStatistics:
        """What is reserved, and what was at most, the folder included where anything was."""
        return GovernorStatistics(
            budget_bytes=self.budget_bytes,
            leased_bytes=self._leased,
            peak_leased_bytes=self._peak + self._overhead_bytes if self._peak else 0,
            leases=self._leases,
        )

    def open(self, *, floor_bytes: int, notify: Callable[[], None]) -> Account:
        """Open an account; a budget of 0 stages nothing on disk, and any floor fits into it.

        Raises :class:`~dnc_async.errors.BudgetTooSmallError` where the floors of all streams do not fit.
        """
        floors = floor_bytes + sum(account.floor_bytes for account in self._accounts)
        if self.budget_bytes and floors > self._available:
            smallest = floors + self._overhead_bytes
            others = f" beside the {len(self._accounts)} open streams" if self._accounts else ""
            raise BudgetTooSmallError(
                f"disk_budget={self.budget_bytes}: the largest chunk needs {floor_bytes} bytes on disk{others} and the "
                f"spool folder {self._overhead_bytes}; the smallest budget that works is {smallest} bytes, "
                "or 0 to stage in memory alone",
                smallest_bytes=smallest,
            )
        account = Account(self, floor_bytes if self.budget_bytes else 0, notify)
        self._accounts.append(account)
        return account

    def grant(self, account: Account, size_bytes: int) -> bool:
        """Decide on a request (called by the account)."""
        within_floor = account.held_bytes + size_bytes <= account.floor_bytes
        reserved = sum(other.unclaimed_bytes for other in self._accounts if other is not account)
        fits = self._leased + size_bytes + (0 if within_floor else reserved) <= self._available
        overtakes = not within_floor and any(other is not account for other in self._waiting[:1])
        if not fits or overtakes:
            if account not in self._waiting:
                self._waiting.append(account)
            return False
        self.withdraw(account)
        self._leased += size_bytes
        self._leases += 1
        self._peak = max(self._peak, self._leased)
        return True

    def withdraw(self, account: Account) -> None:
        """Take an account out of the queue (called by the account)."""
        if account in self._waiting:
            first = self._waiting[0] is account
            self._waiting.remove(account)
            if first:
                self._wake()

    def returned(self, size_bytes: int) -> None:
        """Take bytes back (called by the account)."""
        self._leased -= size_bytes
        self._wake()

    def close(self, account: Account) -> None:
        """Forget an account (called by the account)."""
        self._accounts.remove(account)
        self.withdraw(account)
        self._wake()

    def _wake(self) -> None:
        for waiting in list(self._waiting):
            waiting.notify()
