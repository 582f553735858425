"""The gap ledger: the causes of a wait are its cuts, and name what was waited for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnc_async.engine.ledger import ChunkTimes, Handover, Ledger
from dnc_async.engine.mailbox import Mailbox, Receiver
from dnc_async.engine.starvation import Starvation

times = st.floats(0, 100)
chunk_times = st.builds(
    ChunkTimes,
    proved=times,
    granted=times,
    first_byte=st.one_of(times, st.just(math.inf)),
    asked=times,
    received=times,
    arrived=times,
    placed=times,
    fault_of=st.sampled_from(["", "http://a", "http://b"]),
    held_by=st.sampled_from(["budget", "prefetch"]),
    starved_s=st.floats(0, 5),
)
waits = st.lists(times, max_size=6).map(
    lambda points: tuple(zip(sorted(points)[::2], sorted(points)[1::2], strict=False))
)
batches = st.builds(
    Handover,
    at=times,
    put=times,
    waits=waits,
    samples=st.just(1),
    chunks=st.lists(chunk_times, min_size=1, max_size=3).map(tuple),
    transformed=times,
)


@given(st.lists(batches, min_size=1, max_size=8))
def test_causes_add_up_to_the_wait(taken: list[Handover]) -> None:
    """Whatever the times, however out of order: of each wait, and of all."""
    ledger = Ledger(started=0.0)
    for number, each in enumerate(taken):
        gap = ledger.enter(each)
        assert gap.seconds == pytest.approx(sum(end - start for start, end in each.waits))
        assert sum(gap.causes.values()) == pytest.approx(gap.seconds)
        assert all(seconds >= 0 for seconds in gap.causes.values())
        assert number or set(gap.causes) == {"first batch"}
    assert sum(ledger.causes.values()) == pytest.approx(ledger.waited_s)
    assert sum(each.waited_s for each in ledger.timeline.bins()) == pytest.approx(ledger.waited_s)


def enter(
    *chunks: ChunkTimes, wait: tuple[float, float], put: float, first: ChunkTimes | None = None
) -> dict[str, float]:
    """The causes of a second batch's wait."""
    ledger = Ledger(started=0.0)
    ledger.enter(Handover(0.0, 0.0, (), 1, (first or ChunkTimes(),)))
    return ledger.enter(Handover(wait[1], put, (wait,), 1, chunks)).causes


ON_ITS_WAY = {"proved": 1.0, "granted": 3.0, "first_byte": 6.0, "received": 10.0, "arrived": 11.0, "placed": 15.0}


def test_every_point_of_the_way() -> None:
    """Each second of a wait from 0 to 28 is between two points."""
    causes = enter(ChunkTimes(**ON_ITS_WAY), wait=(0.0, 28.0), put=21.0)
    assert causes == pytest.approx(
        {"proofs": 1, "budget": 2, "latency": 3, "bandwidth": 4, "decoding": 5, "handover": 6, "event loop": 7}
    )


def test_a_transform_comes_between_decoding_and_handover() -> None:
    """Of a wait from 12 to 28: decoded at 15, transformed at 19, put at 21."""
    ledger = Ledger(started=0.0)
    ledger.enter(Handover(0.0, 0.0, (), 1, (ChunkTimes(),)))
    gap = ledger.enter(Handover(28.0, 21.0, ((12.0, 28.0),), 1, (ChunkTimes(**ON_ITS_WAY),), transformed=19.0))
    assert gap.causes == pytest.approx({"decoding": 3, "transform": 4, "handover": 2, "event loop": 7})


def test_a_wait_that_begins_late() -> None:
    """What was over before the consumer waited cost it nothing."""
    assert enter(ChunkTimes(**ON_ITS_WAY), wait=(8.0, 15.0), put=15.0) == pytest.approx({"bandwidth": 2, "decoding": 5})


def test_a_fault_is_its_gateways() -> None:
    """From when the last block was first asked for, though that gateway had begun to answer, until another brought it."""
    chunk = ChunkTimes(**ON_ITS_WAY, asked=7.0, fault_of="http://a")
    assert enter(chunk, wait=(0.0, 10.0), put=15.0) == pytest.approx(
        {"proofs": 1, "budget": 2, "latency": 3, "bandwidth": 1, "fault of http://a": 3}
    )


def test_the_last_block_counts() -> None:
    """A fault of an earlier one kept nobody waiting; the first byte is the earliest of all blocks."""
    chunk = ChunkTimes(proved=1.0, granted=1.0)
    chunk.block_done(5.0, asked=1.0, first_byte=3.0, received=5.0, worked_s=0.0, fault_of="http://a")
    chunk.block_done(8.0, asked=2.0, first_byte=6.0, received=7.0, worked_s=1.5, fault_of="")
    chunk.arrived = chunk.placed = 8.0
    assert enter(chunk, wait=(1.0, 8.0), put=8.0) == pytest.approx({"latency": 2, "bandwidth": 4, "decoding": 1})


def test_a_turn_that_threads_waited_for() -> None:
    """Of the second from 10 to 11 the processor worked for a quarter, and of the four to the rows for one."""
    causes = enter(ChunkTimes(**ON_ITS_WAY, arrivable=10.25), wait=(8.0, 15.0), put=15.0)
    assert causes == pytest.approx({"bandwidth": 2, "decoding": 4.25, "contention": 0.75})
    causes = enter(ChunkTimes(**ON_ITS_WAY, arrivable=10.25, placeable=12.0), wait=(8.0, 15.0), put=15.0)
    assert causes == pytest.approx({"bandwidth": 2, "decoding": 1.25, "contention": 3.75})


def test_the_chunk_that_arrived_last_counts() -> None:
    """Not the one that was placed last, which only stood behind it."""
    late = ChunkTimes(**ON_ITS_WAY)
    early = ChunkTimes(proved=0.0, granted=0.0, first_byte=1.0, received=1.0, arrived=1.0, placed=16.0)
    causes = enter(late, early, wait=(6.0, 16.0), put=16.0)
    assert causes == pytest.approx({"bandwidth": 4, "decoding": 6})


def test_want_of_room_is_paid_back_by_the_network() -> None:
    """2 s lost before: so much of latency and bandwidth is the budget's, latency first; what is over stays a debt."""
    chunk = ChunkTimes(first_byte=1.5, received=4.0, arrived=4.0, placed=5.0, starved_s=2.0)
    assert enter(chunk, wait=(0.0, 5.0), put=5.0) == pytest.approx({"budget": 2.0, "bandwidth": 2.0, "decoding": 1.0})
    before = ChunkTimes(starved_s=9.0, held_by="prefetch")
    chunk = ChunkTimes(first_byte=1.5, received=4.0, arrived=4.0, placed=5.0)
    assert enter(chunk, wait=(0.0, 5.0), put=5.0, first=before) == pytest.approx({"prefetch": 4.0, "decoding": 1.0})


def test_a_debt_is_paid_once() -> None:
    ledger = Ledger(started=0.0)
    ledger.enter(Handover(0.0, 0.0, (), 1, (ChunkTimes(starved_s=3.0),)))
    chunk = ChunkTimes(first_byte=0.0, received=100.0, arrived=100.0, placed=100.0)
    for position, budget in ((0, 2.0), (2, 1.0), (4, 0.0)):
        causes = ledger.enter(Handover(position + 2.0, 100.0, ((position, position + 2.0),), 1, (chunk,))).causes
        assert causes.get("budget", 0.0) == pytest.approx(budget)
        assert sum(causes.values()) == pytest.approx(2.0)


def test_starvation_counts_how_empty_the_line_is() -> None:
    """A chunk waits for 10 s in which the line was full, half full, and empty."""
    starvation = Starvation(window_bytes=lambda: 100.0)
    full, next_one = ChunkTimes(size_bytes=100), ChunkTimes(size_bytes=50)
    starvation.granted(full, 0.0)
    assert (full.starved_s, full.granted) == (0.0, 0.0)
    starvation.refused(1.0, "budget")
    starvation.block_done(50, 3.0)
    starvation.refused(4.0, "budget")
    starvation.block_done(50, 7.0)
    starvation.granted(next_one, 11.0)
    assert next_one.starved_s == pytest.approx(4 * 0.5 + 4 * 1.0)
    assert next_one.held_by == "budget"
    starvation.block_done(50, 20.0)
    after = ChunkTimes(size_bytes=1)
    starvation.granted(after, 30.0)
    assert after.starved_s == 0.0  # nobody waited for room


def test_starvation_of_a_line_that_is_emptier_than_empty() -> None:
    """What was counted twice makes no negative share of a window that nobody knows."""
    starvation = Starvation(window_bytes=lambda: 0.0)
    starvation.refused(0.0, "budget")
    starvation.block_done(5, 1.0)
    times = ChunkTimes()
    starvation.granted(times, 2.0)
    assert times.starved_s == 0.0


def test_starvation_of_gateways_that_were_not_measured() -> None:
    """Nothing is claimed."""
    starvation, chunk = Starvation(window_bytes=lambda: 0.0), ChunkTimes(size_bytes=10)
    starvation.refused(0.0, "budget")
    starvation.granted(chunk, 9.0)
    assert chunk.starved_s == 0.0


def test_a_consumer_whose_loop_was_busy() -> None:
    """It waited from 1 s, the batch lay there at 3 s, and it came at 10 s."""
    now = 0.0
    mailbox = Mailbox(clock=lambda: now)
    ledger = Ledger(started=0.0)
    gaps = []
    receiver = Receiver(mailbox, on_taken=lambda taken: gaps.append(ledger.enter(taken)), on_wait=lambda: None)
    placed = ChunkTimes(first_byte=0.0, placed=3.0)
    mailbox.put("first", samples=1, chunks=(placed,))
    receiver.take()
    now = 1.0
    assert receiver.wait(lambda: None)
    now = 3.0
    mailbox.put("second", samples=1, chunks=(placed,))
    now = 10.0
    receiver.take()
    assert gaps[1].causes == pytest.approx({"decoding": 2.0, "event loop": 7.0})


def test_the_order_is_told_apart() -> None:
    """The same chunks in the same order have the same checksum, however they were cut into batches."""

    def order(*batches: bytes) -> str:
        ledger = Ledger(started=0.0)
        for keys in batches:
            ledger.enter(Handover(0.0, 0.0, (), 1, tuple(ChunkTimes(key=bytes([key])) for key in keys)))
        return ledger.order

    assert order(b"ab", b"cd") == order(b"abcd") != order(b"ab", b"dc")
    assert order(b"ab", b"cd") != order(b"ab")


def test_who_computes_nothing_holds_no_lock() -> None:
    """The engine had no turn for 4 s: the step before took one of them, the rest is the engine's own work."""
    ledger = Ledger(started=0.0)
    chunk = ChunkTimes(received=1.0, arrivable=1.0, arrived=5.0, placeable=5.0, placed=5.0)
    ledger.enter(Handover(0.0, 0.0, (), 1, (ChunkTimes(),)))
    gap = ledger.enter(Handover(5.0, 5.0, ((1.0, 5.0),), 1, (chunk,)))
    assert gap.causes == pytest.approx({"contention": 1.0, "engine": 3.0})
