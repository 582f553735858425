"""The governor of the disk budget: bytes are reserved before a request is sent, and released after the file is deleted.

Decisions are synchronous: :meth:`Account.try_lease` grants or refuses at once, and a refused stream is told when a lease may be
granted. Each stream has an *account* with a *floor*, the size of its largest chunk, which it can always lease. The rest of the
budget is lent to the stream that needs its next chunk first, and these loans are *revocable*: when a new account's floor does
not fit beside the loans, the borrowers' chunks that are needed last are dropped, until every floor fits again.

All of this keeps one invariant. An account *claims* the bytes of its leases that were not revoked, or its floor if that is
more; the claims together fit into the budget. So a floor waits for nothing but the deletion of revoked chunks, and streams that
are consumed in turn, or not at all, cannot starve each other. The same holds for the number of files, of which each account is
guaranteed one.

Deadlines are read whenever a decision is made. A changed deadline wakes no stream: a consumer asks again at its next batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dnc_async.errors import BudgetTooSmallError

#: A chunk's place in its stream's plan: (batch, part).
Place = tuple[int, ...]


class Borrower(Protocol):
    """The owner of an account. Its methods are called synchronously, and must not lease or release anything."""

    def changed(self) -> None:
        """A lease that was refused may be granted now: ask again."""

    def revoked(self, lease: Lease) -> None:
        """Delete the file that uses this lease, and release the lease, as soon as possible."""

    def due(self, place: Place) -> float:
        """When the chunk at this place of the plan will be needed, in seconds of the clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernorStatistics:
    """A snapshot: the budget, the leased bytes and their peak, the leases granted and revoked so far, and the open accounts."""

    budget_bytes: int
    leased_bytes: int
    peak_leased_bytes: int
    leases: int
    revoked: int
    accounts: int


class Lease:
    """A granted reservation for the chunk at a place in the plan. Whoever acquired it releases it, once."""

    __slots__ = ("_account", "is_revoked", "place", "size_bytes")

    def __init__(self, account: Account, size_bytes: int, place: Place) -> None:
        self._account: Account | None = account
        self.size_bytes = size_bytes
        self.place = place
        self.is_revoked = False

    def __repr__(self) -> str:
        state = "" if self._account and not self.is_revoked else ", revoked" if self._account else ", released"
        return f"<Lease {self.size_bytes} bytes{state}>"

    def grow(self, size_bytes: int) -> None:
        """Reserve this many bytes, because the file already takes more than was reserved.

        If they do not fit, chunks that are needed last are revoked, of any borrower; perhaps this one.
        """
        if self._account is not None and size_bytes > self.size_bytes:
            self._account.grow(self, size_bytes)

    def release(self) -> None:
        """Return the bytes to the budget. The file must have been deleted. A second call does nothing."""
        account, self._account = self._account, None
        if account is not None:
            account.take_back(self)


class Account:
    """One stream's share of the budget: its floor and its leases."""

    def __init__(self, governor: Governor, floor_bytes: int, borrower: Borrower) -> None:
        self._governor = governor
        self._leases: dict[Lease, None] = {}
        self.floor_bytes = floor_bytes
        self.borrower = borrower
        self.held_bytes = self.kept_bytes = self.kept = 0
        self.waits_for: Place | None = None

    def __repr__(self) -> str:
        waits = f", waits for {self.waits_for}" if self.waits_for is not None else ""
        return f"<Account {self.held_bytes} bytes held, floor {self.floor_bytes}{waits}>"

    @property
    def furthest(self) -> Lease:
        """The lease that is needed last, of those that were not revoked."""
        return max((lease for lease in self._leases if not lease.is_revoked), key=lambda lease: lease.place)

    def try_lease(self, size_bytes: int, place: Place) -> Lease | None:
        """Reserve bytes for a chunk, or return ``None``: then the borrower's ``changed`` is called when it may ask again.

        An account waits for one chunk at a time: asking for another one replaces the refused request.
        """
        if not self._governor.allows(self, size_bytes, place):
            self.waits_for = place
            return None
        lease = Lease(self, size_bytes, place)
        self._leases[lease] = None
        self._count(lease, 1)
        self._governor.granted(lease)
        self.withdraw()
        return lease

    def allows(self, size_bytes: int, place: Place) -> bool:
        """Whether a lease would be granted now."""
        return self._governor.allows(self, size_bytes, place)

    def withdraw(self) -> None:
        """Withdraw the refused request: streams with a later deadline may be granted their leases now."""
        if self.waits_for is not None:
            self.waits_for = None
            self._governor.wake()

    def close(self) -> None:
        """Return the floor to the budget. All leases must have been released."""
        self._governor.close(self)

    def grow(self, lease: Lease, size_bytes: int) -> None:
        """Count a lease's growth (called by the lease)."""
        more = size_bytes - lease.size_bytes
        lease.size_bytes = size_bytes
        self.held_bytes += more
        self.kept_bytes += 0 if lease.is_revoked else more
        self._governor.grown(more)

    def revoke(self, lease: Lease) -> None:
        """Mark a lease as revoked (called by the governor, which then tells the borrower)."""
        self.kept_bytes -= lease.size_bytes
        self.kept -= 1
        lease.is_revoked = True

    def take_back(self, lease: Lease) -> None:
        """Remove a released lease (called by the lease)."""
        del self._leases[lease]
        self._count(lease, -1)
        self._governor.returned(lease.size_bytes)

    def _count(self, lease: Lease, sign: int) -> None:
        self.held_bytes += sign * lease.size_bytes
        if not lease.is_revoked:
            self.kept_bytes += sign * lease.size_bytes
            self.kept += sign


class Governor:
    """The disk budget of one client: its bytes, less ``overhead_bytes`` for the folder itself, and its number of files."""

    def __init__(self, *, budget_bytes: int, overhead_bytes: int, max_leases: int) -> None:
        self.budget_bytes = budget_bytes
        self._overhead_bytes = overhead_bytes
        self._max_leases = max_leases
        self._available = max(0, budget_bytes - overhead_bytes)
        self._accounts: list[Account] = []
        self._leased = self._peak = self._open = self._leases = self._revoked = 0

    def __repr__(self) -> str:
        return f"<Governor {self._leased} of {self.budget_bytes} bytes leased, {len(self._accounts)} streams>"

    def statistics(self) -> GovernorStatistics:
        """A snapshot; the peak includes the folder if anything was leased."""
        return GovernorStatistics(
            budget_bytes=self.budget_bytes,
            leased_bytes=self._leased,
            peak_leased_bytes=self._peak + self._overhead_bytes if self._peak else 0,
            leases=self._leases,
            revoked=self._revoked,
            accounts=len(self._accounts),
        )

    def open(self, *, floor_bytes: int, borrower: Borrower) -> Account:
        """Open an account. With a budget of 0 nothing is staged on disk, and any floor fits.

        Loans that are in the way of the floor are revoked. Raises :class:`~dnc_async.errors.BudgetTooSmallError` if the floors
        of all streams do not fit.
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
        account = Account(self, floor_bytes if self.budget_bytes else 0, borrower)
        self._accounts.append(account)
        self._revoke()
        return account

    def allows(self, account: Account, size_bytes: int, place: Place) -> bool:
        """Whether to grant a lease (called by the account)."""
        if self._leased + size_bytes > self._available or self._open >= self._max_leases:
            return False
        claims, files = self._claims(account, size_bytes)
        if claims > self._available or files > self._max_leases:
            return False
        if account.kept_bytes + size_bytes <= account.floor_bytes:
            return True
        due = account.borrower.due(place)
        return not any(
            other.waits_for is not None and other.borrower.due(other.waits_for) < due
            for other in self._accounts
            if other is not account
        )

    def granted(self, lease: Lease) -> None:
        """Count a granted lease (called by the account)."""
        self._leases += 1
        self._open += 1
        self._leased += lease.size_bytes
        self._peak = max(self._peak, self._leased)

    def grown(self, more_bytes: int) -> None:
        """Count a lease's growth, and revoke loans if it does not fit (called by the account)."""
        self._leased += more_bytes
        self._peak = max(self._peak, self._leased)
        self._revoke()

    def returned(self, size_bytes: int) -> None:
        """Count a released lease (called by the account)."""
        self._open -= 1
        self._leased -= size_bytes
        self.wake()

    def close(self, account: Account) -> None:
        """Remove an account (called by the account)."""
        self._accounts.remove(account)
        self.wake()

    def wake(self) -> None:
        """Have all accounts with a refused request ask again."""
        for account in list(self._accounts):
            if account.waits_for is not None:
                account.borrower.changed()

    def _claims(self, asking: Account | None = None, size_bytes: int = 0) -> tuple[int, int]:
        """The bytes and files that all accounts claim, if ``asking`` were granted ``size_bytes`` more."""
        claimed = files = 0
        for account in self._accounts:
            asks = account is asking
            claimed += max(account.floor_bytes, account.kept_bytes + (size_bytes if asks else 0))
            files += max(1, account.kept + (1 if asks else 0))
        return claimed, files

    def _borrowers(self) -> list[Account]:
        """The accounts that hold more than their floor, if the claims do not fit."""
        claimed, files = self._claims()
        if claimed > self._available:
            return [account for account in self._accounts if account.kept_bytes > account.floor_bytes]
        if files > self._max_leases:
            return [account for account in self._accounts if account.kept > 1]
        return []

    def _revoke(self) -> None:
        """Revoke the leases that are needed last, until the claims fit, and tell their borrowers."""
        dropped: list[tuple[Account, Lease]] = []
        while borrowers := self._borrowers():
            account = max(borrowers, key=lambda each: each.borrower.due(each.furthest.place))
            lease = account.furthest
            account.revoke(lease)
            dropped.append((account, lease))
        self._revoked += len(dropped)
        for account, lease in dropped:
            account.borrower.revoked(lease)
        if dropped:  # a dropped chunk may be larger than was needed
            self.wake()
