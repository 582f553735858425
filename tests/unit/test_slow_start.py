"""Whose the lines are at the start."""

from dnc_async.engine.credit import BandwidthDelay
from dnc_async.engine.progress import Progress
from dnc_async.engine.slow_start import SlowStart

NOTHING, SOME, ALL = BandwidthDelay(), BandwidthDelay(1e6, 0.1), BandwidthDelay(2e6, 0.1, is_of_all=True)


class Start:
    """A stream that has just begun."""

    def __init__(self) -> None:
        self.now, self.window = 0.0, NOTHING
        self.progress = Progress(prefetch=None, places=0)
        self.lines = SlowStart(window=lambda: self.window, progress=self.progress, clock=lambda: self.now)


def test_two_batches_go_first() -> None:
    """The third waits."""
    lines = Start().lines
    assert [lines.holds_back(position) for position in range(4)] == [False, False, True, True]
    assert repr(lines) == "<SlowStart held>"


def test_until_all_gateways_are_known() -> None:
    """And never again: a gateway that is added later holds nobody back."""
    start = Start()
    start.window = SOME
    assert start.lines.holds_back(2)
    start.window = ALL
    assert not start.lines.holds_back(2)
    start.window = NOTHING
    assert not start.lines.holds_back(2)
    assert repr(start.lines) == "<SlowStart over>"


def test_until_the_first_batch_is_complete() -> None:
    """So little may come that nothing is measured."""
    start = Start()
    start.progress.complete = 1
    assert not start.lines.holds_back(2)


def test_a_silent_gateway_is_not_waited_for() -> None:
    """Not for long, since another is known; the clock may have run for long before."""
    start = Start()
    start.now = 5.0
    assert start.lines.holds_back(2)
    assert start.lines.until == float("inf"), "nobody is waited for by the clock"
    start.window = SOME
    assert start.lines.holds_back(2)
    assert start.lines.until == 5.1
    start.now = 5.09
    assert start.lines.holds_back(2)
    start.now = 5.11
    assert not start.lines.holds_back(2)
