"""When batches will be needed, by what the consumer did."""

import pytest

from dnc_async.engine.pace import CallPace, Pace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_steady_consumer() -> None:
    """Its next batches are due a step apart; what it waited does not count."""
    clock = Clock()
    pace = Pace(clock)
    assert pace.due(0) == pace.due(5) == 100.0
    pace.asked()
    clock.now += 7  # the first batch comes
    for _ in range(5):
        pace.handed_over(clock.now)
        clock.now += 2
        pace.asked()
        assert pace.due(0) == clock.now
        assert pace.due(3) == pytest.approx(clock.now + 6)
        clock.now += 50  # the next one is late
    pace.handed_over(clock.now)
    assert pace.due(0) == pytest.approx(clock.now + 2)
    assert pace.due(1) == pytest.approx(clock.now + 4)


def test_a_consumer_that_never_waits() -> None:
    """One hand-over after the other is a step, too; a faster pace is learned step by step."""
    clock = Clock()
    pace = Pace(clock)
    for _ in range(3):
        pace.handed_over(clock.now)
        clock.now += 4
    for _ in range(30):
        pace.handed_over(clock.now)
        clock.now += 1
    pace.handed_over(clock.now)
    assert pace.due(0) - clock.now == pytest.approx(1, abs=0.01)


def test_what_is_heard_late() -> None:
    """A step begins when the batch was handed over, not when that is heard: here only as the next one is asked for."""
    clock = Clock()
    pace = Pace(clock)
    for _ in range(3):
        taken_at = clock.now
        clock.now += 3
        pace.handed_over(taken_at)
        pace.asked()
    assert pace.due(2) == pytest.approx(clock.now + 6)


def test_an_abandoned_stream() -> None:
    """The longer nobody comes for a batch, the later the ones behind it will be needed."""
    clock = Clock()
    pace = Pace(clock)
    pace.handed_over(clock.now)
    clock.now += 1
    pace.handed_over(clock.now)
    clock.now += 1000
    assert pace.due(1) == pytest.approx(clock.now + 1000)
    unused = Pace(Clock())
    unused._clock.now += 1000  # type: ignore[attr-defined]
    assert unused.due(1) == pytest.approx(2100)


def consumed(calls: CallPace | None, *, step: float) -> tuple[Pace, Clock]:
    """A consumer after many steps of that length, that has just got a batch."""
    clock = Clock()
    pace = Pace(clock, calls)
    for _ in range(5):
        pace.handed_over(clock.now)
        clock.now += step
        pace.asked()
    pace.handed_over(clock.now)
    return pace, clock


def called(workers: int, seconds: float) -> CallPace:
    """After many calls that took so long, one after the other."""
    calls = CallPace(workers)
    for number in range(10):
        calls.ended(100.0 + (number + 1) * seconds, complete=100.0 + number * seconds)
    return calls


def test_a_batch_is_needed_before_its_transform() -> None:
    """By as long as a call takes, whatever the number of workers; nothing is known before the first call has ended."""
    for workers in (1, 4):
        pace, clock = consumed(called(workers, 0.5), step=2)
        assert pace.due(0) == pytest.approx(clock.now + 1.5)
        assert pace.due(3) == pytest.approx(clock.now + 7.5)
        clock.now += 2
        pace.asked()
        assert pace.due(1) == pytest.approx(clock.now + 1.5)
    pace, clock = consumed(CallPace(1), step=2)
    assert pace.due(0) == pytest.approx(clock.now + 2)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_transform_that_is_slower_than_the_consumer(workers: int) -> None:
    """Its workers set the pace."""
    pace, clock = consumed(called(workers, 12.0), step=2)
    spacing = 12.0 / workers
    assert pace.due(0) == pytest.approx(clock.now + spacing - 12)
    assert pace.due(7) == pytest.approx(clock.now + 8 * spacing - 12)
    pace.asked()
    assert pace.due(7) == pytest.approx(clock.now + 7 * spacing - 12)


def test_between_two_streams_the_one_with_a_transform_is_served_first() -> None:
    """At the same pace its next batch is needed earlier; that is what the governor asks for."""
    with_it, clock = consumed(called(2, 1.0), step=2)
    without, _ = consumed(None, step=2)
    assert with_it.due(1) < without.due(1) < with_it.due(2)
    assert clock.now == without._clock()


def test_a_call_that_waits_for_a_worker() -> None:
    """The wait is not the call's time: three batches are complete at once, two workers take 5 s for each."""
    calls = CallPace(2)
    for end in (105.0, 106.0, 110.0, 111.0):
        calls.ended(end, complete=100.0)
    assert calls.mean_s == pytest.approx((5 + 6 + 5 + 5) / 4)
    assert calls.recent_s == pytest.approx(5.0, abs=0.3)
    assert repr(calls) == "<CallPace 4 calls of 5.25 s, 2 at once>"
