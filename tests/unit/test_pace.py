"""When batches will be needed, by what the consumer did."""

import pytest

from dnc_async.engine.pace import Pace


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
        pace.handed_over()
        clock.now += 2
        pace.asked()
        assert pace.due(0) == clock.now
        assert pace.due(3) == pytest.approx(clock.now + 6)
        clock.now += 50  # the next one is late
    pace.handed_over()
    assert pace.due(0) == pytest.approx(clock.now + 2)
    assert pace.due(1) == pytest.approx(clock.now + 4)


def test_a_consumer_that_never_waits() -> None:
    """One hand-over after the other is a step, too; a faster pace is learned step by step."""
    clock = Clock()
    pace = Pace(clock)
    for _ in range(3):
        pace.handed_over()
        clock.now += 4
    for _ in range(30):
        pace.handed_over()
        clock.now += 1
    pace.handed_over()
    assert pace.due(0) - clock.now == pytest.approx(1, abs=0.01)


def test_an_abandoned_stream() -> None:
    """The longer nobody comes for a batch, the later the ones behind it will be needed."""
    clock = Clock()
    pace = Pace(clock)
    pace.handed_over()
    clock.now += 1
    pace.handed_over()
    clock.now += 1000
    assert pace.due(1) == pytest.approx(clock.now + 1000)
    unused = Pace(Clock())
    unused._clock.now += 1000  # type: ignore[attr-defined]
    assert unused.due(1) == pytest.approx(2100)
