"""The budget is hard, floors are sure, and nobody who may go on is left asleep."""

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dnc_async.errors import BudgetTooSmallError
from dnc_async.spool.governor import Account, Governor, Lease, Place

BUDGET, OVERHEAD, MAX_LEASES = 10_000, 1_000, 12
AVAILABLE = BUDGET - OVERHEAD


class Stream:
    """A borrower that asks for chunks in plan order, as a pipeline does, and says when each is due."""

    account: Account

    def __init__(self, step: float = 1.0) -> None:
        self.step = step
        self.leases: dict[Place, Lease] = {}
        self.told = False
        self.wants = 0

    def changed(self) -> None:
        self.told = True

    def revoked(self, lease: Lease) -> None:
        assert lease.is_revoked
        kept = [place for place, other in self.leases.items() if not other.is_revoked]
        assert all(place < lease.place for place in kept), "the furthest goes first"

    def due(self, place: Place) -> float:
        return self.step * place[0]

    @property
    def next_place(self) -> Place:
        place = 0
        while (place,) in self.leases:
            place += 1
        return (place,)

    def ask(self, size: int) -> Lease | None:
        place = self.next_place
        self.wants, self.told = size, False
        lease = self.account.try_lease(size, place)
        if lease is not None:
            self.leases[place] = lease
        return lease

    def drop(self, lease: Lease) -> None:
        del self.leases[lease.place]
        lease.release()


def opened(governor: Governor, floor: int, step: float = 1.0) -> Stream:
    stream = Stream(step)
    stream.account = governor.open(floor_bytes=floor, borrower=stream)
    return stream


class GovernorModel(RuleBasedStateMachine):
    """Any order of opening, leasing, growing, releasing, revoking and closing."""

    def __init__(self) -> None:
        super().__init__()
        self.governor = Governor(budget_bytes=BUDGET, overhead_bytes=OVERHEAD, max_leases=MAX_LEASES)
        self.streams: list[Stream] = []
        self.grew = False

    def some(self, data: st.DataObject) -> Stream:
        return data.draw(st.sampled_from(self.streams))

    @precondition(lambda self: len(self.streams) < MAX_LEASES)
    @rule(floor=st.integers(1, 4_000), step=st.sampled_from([0.1, 1.0, 50.0]))
    def open(self, floor: int, step: float) -> None:
        floors = floor + sum(stream.account.floor_bytes for stream in self.streams)
        if floors > AVAILABLE:
            with pytest.raises(BudgetTooSmallError) as caught:
                opened(self.governor, floor)
            assert caught.value.smallest_bytes == floors + OVERHEAD
        else:
            self.streams.append(opened(self.governor, floor, step))

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), size=st.integers(1, 4_000))
    def lease(self, data: st.DataObject, size: int) -> None:
        stream = self.some(data)
        within = stream.account.kept_bytes + size <= stream.account.floor_bytes and not stream.leases
        dropping = any(lease.is_revoked for each in self.streams for lease in each.leases.values())
        lease = stream.ask(size)
        assert lease is not None or not within or dropping, "a floor waits for nothing but chunks on their way out"

    @precondition(lambda self: any(stream.leases for stream in self.streams))
    @rule(data=st.data())
    def consume(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from([stream for stream in self.streams if stream.leases]))
        lease = stream.leases[min(stream.leases)]
        stream.drop(lease)
        lease.release()

    @precondition(lambda self: any(stream.leases for stream in self.streams))
    @rule(data=st.data(), more=st.integers(1, 500))
    def grow(self, data: st.DataObject, more: int) -> None:
        stream = data.draw(st.sampled_from([stream for stream in self.streams if stream.leases]))
        lease = data.draw(st.sampled_from(list(stream.leases.values())))
        lease.grow(lease.size_bytes + more)
        lease.grow(1)
        self.grew = True

    @precondition(lambda self: self.streams)
    @rule()
    def drop_what_was_revoked(self) -> None:
        """What pipelines do at once; then every floor is there for the asking."""
        for stream in self.streams:
            for lease in [lease for lease in stream.leases.values() if lease.is_revoked]:
                stream.drop(lease)
        assert self.governor.statistics().leased_bytes <= AVAILABLE
        for stream in self.streams:
            if (
                stream.account.waits_for is not None
                and not stream.leases
                and stream.wants <= stream.account.floor_bytes
            ):
                assert stream.ask(stream.wants) is not None

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), step=st.sampled_from([0.1, 1.0, 50.0, math.inf]))
    def consumer_slows_down(self, data: st.DataObject, step: float) -> None:
        self.some(data).step = step
        for stream in self.streams:
            stream.told = True  # that a deadline changes wakes nobody: who consumes asks again

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        self.some(data).account.withdraw()

    @precondition(lambda self: any(not stream.leases for stream in self.streams))
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        stream = data.draw(st.sampled_from([stream for stream in self.streams if not stream.leases]))
        self.streams.remove(stream)
        stream.account.close()

    @invariant()
    def within_budget(self) -> None:
        held = sum(lease.size_bytes for stream in self.streams for lease in stream.leases.values())
        statistics = self.governor.statistics()
        assert held == statistics.leased_bytes
        assert self.grew or statistics.peak_leased_bytes <= BUDGET
        assert sum(len(stream.leases) for stream in self.streams) <= MAX_LEASES

    @invariant()
    def claims_fit(self) -> None:
        claims = 0
        for stream in self.streams:
            kept = sum(lease.size_bytes for lease in stream.leases.values() if not lease.is_revoked)
            assert kept == stream.account.kept_bytes
            claims += max(kept, stream.account.floor_bytes)
        assert claims <= AVAILABLE

    @invariant()
    def nobody_sleeps_who_may_go_on(self) -> None:
        for stream in self.streams:
            place = stream.account.waits_for
            if place is not None and not stream.told:
                assert not self.governor.allows(stream.account, stream.wants, place)


TestGovernor = GovernorModel.TestCase
TestGovernor.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def governor_of(available: int, max_leases: int = 100) -> Governor:
    return Governor(budget_bytes=available, overhead_bytes=0, max_leases=max_leases)


def test_a_late_stream_gets_its_floor() -> None:
    """The furthest chunks of whoever borrowed are called back, and only as many as it takes."""
    governor = governor_of(100)
    first = opened(governor, 10)
    while first.ask(10):
        pass
    assert len(first.leases) == 10
    second = opened(governor, 25)
    revoked = [lease.place for lease in first.leases.values() if lease.is_revoked]
    assert revoked == [(7,), (8,), (9,)]
    assert governor.statistics().revoked == 3
    assert second.ask(25) is None
    for lease in list(first.leases.values()):
        if lease.is_revoked:
            first.drop(lease)
    assert second.told
    assert second.ask(25) is not None
    assert first.ask(10) is None


def test_called_back_from_whom_it_is_needed_last() -> None:
    """A stream that nobody consumes gives back before one that is."""
    governor = governor_of(100)
    busy, left = opened(governor, 10, step=1.0), opened(governor, 10, step=math.inf)
    for _ in range(5):
        assert busy.ask(10)
        assert left.ask(10)
    opened(governor, 30)
    assert not any(lease.is_revoked for lease in busy.leases.values())
    assert sum(lease.is_revoked for lease in left.leases.values()) == 3


def test_lent_to_whom_it_is_due_first() -> None:
    """The stream that waits for an earlier deadline is not overtaken, and whoever stood back is told when it may go."""
    governor = governor_of(100)
    holder, urgent, patient = opened(governor, 10), opened(governor, 10, step=1.0), opened(governor, 10, step=9.0)
    for stream in (urgent, patient):
        assert stream.ask(10)
    for _ in range(8):
        assert holder.ask(10)
    assert urgent.ask(20) is None
    assert patient.ask(10) is None
    holder.drop(holder.leases[(7,)])
    assert patient.ask(10) is None
    holder.drop(holder.leases[(6,)])
    assert patient.ask(10) is None
    assert urgent.told
    assert urgent.ask(20) is not None
    assert patient.told
    assert patient.ask(10) is None
    holder.drop(holder.leases[(5,)])
    assert patient.ask(10) is not None


def test_files_are_counted_as_bytes_are() -> None:
    """However small the chunks, every stream is sure of one file, and there are never more than allowed."""
    governor = governor_of(1000, max_leases=4)
    first = opened(governor, 1)
    for _ in range(4):
        assert first.ask(1)
    assert first.ask(1) is None
    second = opened(governor, 1)
    assert second.ask(1) is None
    (revoked,) = [lease for lease in first.leases.values() if lease.is_revoked]
    first.drop(revoked)
    assert second.ask(1) is not None
    assert second.ask(1) is None


def test_what_a_file_took_is_a_fact() -> None:
    """A lease grows over the budget if it must, and other chunks go for it; alone in the budget, it goes itself."""
    governor = governor_of(100)
    stream = opened(governor, 20)
    for _ in range(5):
        assert stream.ask(20)
    stream.leases[(0,)].grow(45)
    assert governor.statistics().leased_bytes == 125
    assert [lease.place for lease in stream.leases.values() if lease.is_revoked] == [(3,), (4,)]
    alone = opened(small := governor_of(20), 20)
    assert alone.ask(20)
    alone.leases[(0,)].grow(21)
    assert alone.leases[(0,)].is_revoked
    alone.drop(alone.leases[(0,)])
    assert small.statistics().leased_bytes == 0
    assert alone.ask(21) is None


def test_budget_of_zero_grants_nothing() -> None:
    """With a budget of 0 every stream opens, and none gets a byte on disk."""
    assert opened(governor_of(0), 10**9).ask(1) is None
