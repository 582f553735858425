"""What is noted of a gateway stays right, in whatever order things happen to its requests."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from dnc_async.gateways.score import Best, Score


def test_a_block_that_is_expected_twice_is_one_request() -> None:
    """A gateway has so many requests and no more: one that is never taken back would be missing for ever."""
    score = Score()
    score.sent("root", 1000, 0.0)
    score.joined("leaf", 1000, 0.0)
    score.joined("leaf", 1000, 1.0)
    score.delivered("root", 1000, 2.0)
    score.missed("leaf")
    assert (score.in_flight, score.in_flight_bytes) == (0, 0)


def test_bytes_that_nobody_waits_for_may_be_the_first_of_all() -> None:
    """Another gateway was faster with the block for which the CAR was asked, and the CAR goes on."""
    best = Best()
    score = Score(best)
    score.sent("root", 2**20, 0.0)
    score.beaten("root", 0.05)
    for i in range(40):
        score.received_unexpected(2**18, 0.2 + 0.01 * i)
    assert score.rate is not None
    assert math.isfinite(score.rate)
    assert score.rate > 1e6
    best.refresh([score])
    assert math.isfinite(best.rate)


def test_a_pause_of_ours_is_not_the_gateways() -> None:
    """A CAR that we did not read for twenty seconds was not slow."""
    score = Score()
    score.sent("root", 2**20, 0.0)
    score.first_byte("root", 0.1)
    for i in range(1, 9):
        score.received("root", 2**18, 0.1 + 0.01 * i)
    score.missed("root")
    before = score.rate
    score.resumed(20.0)
    score.received_unexpected(2**18, 20.01)
    assert before is not None
    assert score.rate == pytest.approx(before, rel=0.2)


def test_a_request_that_nobody_waits_for_any_more_is_refused() -> None:
    """A gateway that asks for a pause gets it, whether or not the block came from elsewhere meanwhile."""
    score = Score()
    score.refused(1.0, retry_after_s=30.0)
    assert score.paused_until >= 31.0
    assert score.failures == 1


class Watched(Score):
    """A score that another thread looks at after every single step."""

    look: Callable[[Score], object] = staticmethod(lambda _: None)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        self.look(self)


def test_a_rate_may_be_read_at_any_moment() -> None:
    """The statistics are read from the consumer's thread."""
    score = Watched()
    score.look = lambda each: each.rate
    score.sent("block", 2**21, 0.0)
    score.received("block", 2**21, 0.2)
    assert score.rate


@pytest.mark.parametrize("per_minute", [1, 5, 30, 200])
def test_no_minute_has_more_requests_than_allowed(per_minute: int) -> None:
    """Neither the first, with what may go at once, nor any other, with probes and all."""
    score, sent = Score(requests_per_minute=float(per_minute)), list[float]()
    for step in range(4800):
        now = step / 20
        while score.allowed_at(now) <= now:
            if len(sent) % 3:
                score.sent("block", 1000, now)
                score.missed("block")
            else:
                assert score.spend_request(now)
            sent.append(now)
    assert max(sum(at <= each < at + 60 for each in sent) for at in sent) <= per_minute
    assert len(sent) >= 0.9 * 4 * per_minute - 1


def test_blocks_that_nobody_wanted_forgive_nothing() -> None:
    """A gateway could send any number of them between two lies."""
    score, pauses = Score(), []
    for _ in range(4):
        score.mismatched(0.0)
        pauses.append(score.paused_until)
        for _ in range(100):
            score.verified(1, is_wanted=False)
    assert pauses[-1] >= 4 * pauses[0]


def measured(rate: float = 10e6, latency_s: float = 0.05) -> Score:
    """A gateway that has brought blocks of 100 kB, one after the other, each at its time."""
    score = Score()
    for i in range(30):
        score.sent(i, 100_000, float(i))
        score.first_byte(i, i + latency_s)
        score.delivered(i, 100_000, i + latency_s + 100_000 / rate)
    return score


def test_an_answer_begins_when_the_line_is_free() -> None:
    """Asked for a latency before that, and a little; what is asked for at once would share the line with what is urgent."""
    score = measured()
    assert score.has_window(100_000, 100.0)
    score.sent("urgent", 300_000, 100.0)
    assert not score.has_window(100_000, 100.0)
    opens = score.next_send_at(100.0)
    assert 100.02 < opens < 100.03  # 30 ms of bytes, less the slack
    assert score.has_window(100_000, opens)


def test_slack_follows_the_jitter() -> None:
    """Who answers now sooner and now later is asked earlier, else its line would be idle; one very late answer is nothing."""
    steady, jittery = measured(), measured()
    for i in range(100):
        jittery.sent(i, 100_000, 100.0 + i)
        jittery.first_byte(i, 100.0 + i + 0.05 + 0.1 * (i % 2))
        jittery.delivered(i, 100_000, 100.0 + i + 0.06 + 0.1 * (i % 2))
    assert jittery.lead_s() > steady.lead_s() + 0.02
    before = steady.lead_s()
    steady.sent("straggler", 100_000, 200.0)
    steady.first_byte("straggler", 260.0)
    assert steady.lead_s() - steady.likely_latency() < before + 0.25


@pytest.mark.parametrize("others_came", [True, False])
def test_a_lone_straggler_is_no_failure(others_came: bool) -> None:
    """Only who brought nothing since is paused when somebody else was faster."""
    score = measured()
    score.sent("late", 100_000, 100.0)
    if others_came:
        score.sent("other", 100_000, 100.1)
        score.delivered("other", 100_000, 100.2)
    score.beaten("late", 102.0)
    assert (score.failures, score.paused_until > 102.0) == ((0, False) if others_came else (1, True))
    assert score.in_flight == 0


def test_an_unknown_gateway_is_asked_for_more_the_longer_it_takes() -> None:
    """A megabyte and a quarter at once; what fits behind it until the first bytes come; 4 MiB of all gateways together.

    What is tiny goes at any time.
    """
    best = Best()
    score = Score(best)
    first = 5 * 2**18
    assert score.window_bytes(2**16) == first
    score.sent("first", first, 10.0)
    assert not score.has_window(2**16, 10.0)
    assert score.has_window(2**12, 10.0)
    assert score.next_send_at(10.0) > 10.0  # it is worth another look
    assert score.next_send_at(11.0) <= 11.0  # it will not be more
    assert score.has_window(2**16, 10.05)
    assert score.window_bytes(2**16, 10.05) == pytest.approx(first + 0.03 * 32e6)
    assert score.window_bytes(2**16, 11.0) == 2**22
    best.refresh([score, *(Score(best) for _ in range(3))])
    assert score.window_bytes(2**16, 11.0) == first
