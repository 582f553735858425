"""The governor of the disk budget: bytes are reserved before a request is sent, and released after the file is gone.

Decisions are synchronous: :meth:`Account.try_lease` grants or refuses at once, and whoever was refused is told when it may
work. Each stream has an *account* with a *floor*, the lease of its largest chunk, which is its own at any time. The rest of
the budget is lent, to whoever needs its next chunk first, and is *revocable*: when an account opens whose floor does not
fit beside what is lent, the furthest chunks of the borrowers are dropped, until every floor fits again.

The rule that all of it keeps is one sum. An account claims what it holds and was not revoked, or its floor if that is
more; the claims together fit into the budget. So a floor never waits for anything but for revoked chunks to be deleted, and
streams that are consumed in turn, or not at all, cannot starve each other. The same holds for the count of files, of which
each account is sure of one.

Deadlines are asked for whenever something is decided, and nobody is woken because one has changed: whoever consumes asks
again at its next batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dnc_async.errors import BudgetTooSmallError

#: Where in its plan a chunk is: batch, part.
Place = tuple[int, ...]


class Borrower(Protocol):
    """Whoever has an account. Called synchronously; nothing may be leased or released from within."""

    def changed(self) -> None:
        """A request that was refused may work now."""

    def revoked(self, lease: Lease) -> None:
        """Delete what this lease pays for, and release it, as soon as possible."""

    def due(self, place: Place) -> float:
        """When the chunk at this place will be needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernorStatistics:
    """A snapshot: bytes of the budget, reserved now, and reserved at most; leases granted and revoked so far."""

    budget_bytes: int
    leased_bytes: int
    peak_leased_bytes: int
    leases: int
    revoked: int


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
        """Hold so many bytes: the file system took more than was reserved, which cannot be refused any more.

        Where they do not fit, the furthest chunks are revoked for them, of any borrower; this one, if it is the furthest.
        """
        if self._account is not None and size_bytes > self.size_bytes:
            self._account.grow(self, size_bytes)

    def release(self) -> None:
        """Give the bytes back. The file must be gone by now. A second call does nothing."""
        account, self._account = self._account, None
        if account is not None:
            account.take_back(self)


class Account:
    """One stream's share of the budget: its floor, and what it holds."""

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
        """Of the leases that were not revoked, the one that is needed last."""
        return max((lease for lease in self._leases if not lease.is_revoked), key=lambda lease: lease.place)

    def try_lease(self, size_bytes: int, place: Place) -> Lease | None:
        """Reserve bytes for a chunk now, or not at all: then the borrower is told when it may work.

        An account waits for one chunk at a time; asking for another, or for this one again, takes the request's place.
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
        """The last refused request is no longer wanted: whoever it went before may go."""
        if self.waits_for is not None:
            self.waits_for = None
            self._governor.wake()

    def close(self) -> None:
        """Give the floor back. All leases must have been released."""
        self._governor.close(self)

    def grow(self, lease: Lease, size_bytes: int) -> None:
        """Called by a lease."""
        more = size_bytes - lease.size_bytes
        lease.size_bytes = size_bytes
        self.held_bytes += more
        self.kept_bytes += 0 if lease.is_revoked else more
        self._governor.grown(more)

    def revoke(self, lease: Lease) -> None:
        """Called by the governor, which tells the borrower."""
        self.kept_bytes -= lease.size_bytes
        self.kept -= 1
        lease.is_revoked = True

    def take_back(self, lease: Lease) -> None:
        """Called by a lease that is released."""
        del self._leases[lease]
        self._count(lease, -1)
        self._governor.returned(lease.size_bytes)

    def _count(self, lease: Lease, sign: int) -> None:
        self.held_bytes += sign * lease.size_bytes
        if not lease.is_revoked:
            self.kept_bytes += sign * lease.size_bytes
            self.kept += sign


class Governor:
    """The budget of one client, in bytes on disk, less ``overhead_bytes`` for the folder itself, and in files."""

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
        """What is reserved, and what was at most, the folder included where anything was."""
        return GovernorStatistics(
            budget_bytes=self.budget_bytes,
            leased_bytes=self._leased,
            peak_leased_bytes=self._peak + self._overhead_bytes if self._peak else 0,
            leases=self._leases,
            revoked=self._revoked,
        )

    def open(self, *, floor_bytes: int, borrower: Borrower) -> Account:
        """Open an account; a budget of 0 stages nothing on disk, and any floor fits into it.

        Loans that are in the floor's way are revoked. Raises :class:`~dnc_async.errors.BudgetTooSmallError` where the
        floors of all streams do not fit.
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
        """Decide on a request (called by the account)."""
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
        """Count a lease (called by the account)."""
        self._leases += 1
        self._open += 1
        self._leased += lease.size_bytes
        self._peak = max(self._peak, self._leased)

    def grown(self, more_bytes: int) -> None:
        """Count what a lease has grown by, and make room for it (called by the account)."""
        self._leased += more_bytes
        self._peak = max(self._peak, self._leased)
        self._revoke()

    def returned(self, size_bytes: int) -> None:
        """Take a lease back (called by the account)."""
        self._open -= 1
        self._leased -= size_bytes
        self.wake()

    def close(self, account: Account) -> None:
        """Forget an account (called by the account)."""
        self._accounts.remove(account)
        self.wake()

    def wake(self) -> None:
        """Have all who wait ask again."""
        for account in list(self._accounts):
            if account.waits_for is not None:
                account.borrower.changed()

    def _claims(self, asking: Account | None = None, size_bytes: int = 0) -> tuple[int, int]:
        """What all accounts claim in bytes and in files, if one of them were granted so much more."""
        claimed = files = 0
        for account in self._accounts:
            asks = account is asking
            claimed += max(account.floor_bytes, account.kept_bytes + (size_bytes if asks else 0))
            files += max(1, account.kept + (1 if asks else 0))
        return claimed, files

    def _borrowers(self) -> list[Account]:
        """Who has to give back, as long as the claims do not fit."""
        claimed, files = self._claims()
        if claimed > self._available:
            return [account for account in self._accounts if account.kept_bytes > account.floor_bytes]
        if files > self._max_leases:
            return [account for account in self._accounts if account.kept > 1]
        return []

    def _revoke(self) -> None:
        """Drop what is needed last until the claims fit, then tell those who hold it."""
        dropped: list[tuple[Account, Lease]] = []
        while borrowers := self._borrowers():
            account = max(borrowers, key=lambda each: each.borrower.due(each.furthest.place))
            lease = account.furthest
            account.revoke(lease)
            dropped.append((account, lease))
        self._revoked += len(dropped)
        for account, lease in dropped:
            account.borrower.revoked(lease)
        if dropped:  # a whole chunk may be more than was needed
            self.wake()
