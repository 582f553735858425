"""Choosing gateways is a function of what happened and when: simulated on a clock of its own."""

import pytest

from dnc_async.gateways.scoreboard import Scoreboard
from dnc_async.gateways.want import Want
from dnc_async.testing import SimulationReport, Simulator, Workload

BLOCK = 2**18


def blocks(count: int, size: int) -> Workload:
    """Blocks that do not follow each other in a file, so that each is asked for on its own."""
    return Workload(files=count, leaves=1, leaf_bytes=size)


def served(report: SimulationReport) -> list[int]:
    """How many blocks each gateway brought."""
    size = report.size_bytes // len(report.arrivals_s)
    return [gateway.bytes // size for gateway in report.gateways]


@pytest.mark.parametrize("rates", [[20, 20, 20, 20], [40, 20, 10, 10], [40, 20, 10, 2]])
def test_sum_of_rates(rates: list[int]) -> None:
    """Gateways of unlike rates deliver nearly their sum, each its share."""
    report = Simulator([f"rate={rate}MB,latency=50ms" for rate in rates]).run(blocks(1500, 2**18))
    assert report.size_bytes / report.seconds >= 0.95 * sum(rates) * 1e6
    for count, rate in zip(served(report), rates, strict=True):
        assert count / 1500 == pytest.approx(rate / sum(rates), abs=0.04)


def test_dead_gateway_costs_little() -> None:
    """One that fails every request is asked ever more rarely, and the others' sum is nearly kept."""
    report = Simulator(["rate=20MB,latency=50ms", "rate=20MB,latency=50ms", "down=0s-"]).run(blocks(1000, 2**18))
    assert report.size_bytes / report.seconds >= 0.9 * 40e6
    assert report.gateways[2].failures < 400


def test_liar_is_quarantined_and_comes_back() -> None:
    """Each wrong block pauses longer, good ones shorten it again, and there is always a way back."""
    board = Scoreboard(2, max_requests=4, max_bytes=2**20)
    liar = board.scores[0]
    pauses = []
    now = 0.0
    for _ in range(4):
        liar.mismatched(now)
        pauses.append(liar.paused_until - now)
        assert {span.gateway for span in board.assign([Want(1000)], now)} == {1}
        now = liar.paused_until
    assert pauses == sorted(pauses)
    assert pauses[-1] > pauses[0]
    for _ in range(64):
        liar.verified(1000)
    liar.mismatched(now)
    assert liar.paused_until - now < pauses[-1]


def test_overdue_gateway_is_suspect_while_others_are_there() -> None:
    """A stalled gateway gets nothing more until it delivers; alone it is still asked."""
    board = Scoreboard(2, max_requests=8, max_bytes=2**20)
    board.scores[0].sent("stalled", 1000, 0.0)
    assert board.next_change(0.0) < float("inf")
    assert {span.gateway for span in board.assign([Want(1000) for _ in range(6)], 60.0)} == {1}
    board.scores[1].failed("never sent", 60.0)
    board.scores[1].sent("x", 1, 60.0)
    board.scores[1].failed("x", 60.0)
    assert {span.gateway for span in board.assign([Want(1000)], 60.0)} == {0}


def test_gateway_that_was_never_tried_is_tried() -> None:
    """The first measured one must not keep all the work because nothing is known of the others."""
    simulator = Simulator(["rate=10MB,latency=50ms"] * 3)
    simulator.run(blocks(1, 300))
    counts = [served(simulator.run(blocks(4, 2**16))) for _ in range(30)]
    assert min(sum(each) for each in zip(*counts, strict=True)) >= 30


def test_slow_estimate_is_corrected() -> None:
    """A gateway that was slow once, and got nothing since, is asked again and gets its share back."""
    simulator = Simulator(["rate=10MB,latency=50ms", "rate=10MB,latency=50ms,slow=0s-5s"])
    simulator.run(blocks(40, 2**16))
    slow = simulator.board.scores[1].rate
    assert slow is not None
    assert slow <= 2e6
    simulator.wait(10.0)
    for _ in range(20):
        simulator.run(blocks(8, 2**16))
        simulator.wait(1.0)
    assert served(simulator.run(blocks(100, 2**16)))[1] >= 30


def test_a_stale_gateway_is_tried_with_the_least_urgent_block_in_sight() -> None:
    """Though no more than one block is asked for at a time; and it is late there as soon as at the best one."""
    board = Scoreboard(2, max_requests=8, max_bytes=2**25)
    for score, rate in zip(board.scores, (10e6, 1e4), strict=True):
        for i in range(8):
            score.sent(i, 2**16, 0.0)
            score.first_byte(i, 0.05)
            score.delivered(i, 2**16, 0.05 + (i + 1) * 2**16 / rate)
    now = 100.0
    board.scores[0].sent("just now", 2**16, now)
    wants = [Want(2**16) for _ in range(6)]
    spans = board.assign(wants, now)
    assert [span.wants for span in spans if span.gateway == 1] == [[wants[-1]]]
    assert wants[-1] not in [want for span in spans if span.gateway == 0 for want in span.wants]
    for span in spans:
        board.sent(span, now)
    assert (wants[-1], 0) in board.hedges(now + 2, lambda _: True)
    assert [span for span in board.assign(wants, now + 0.1) if span.gateway == 1] == []  # not again


def test_small_blocks_do_not_measure_the_rate() -> None:
    """A tiny block's time is the cost of a request: it must not make its gateway look slow."""
    board = Scoreboard(1, max_requests=8, max_bytes=2**20)
    board.scores[0].sent("proof", 300, 0.0)
    board.scores[0].first_byte("proof", 0.05)
    board.scores[0].delivered("proof", 300, 0.06)
    assert board.scores[0].rate is None


def test_limits_are_kept() -> None:
    """No more requests at a gateway, and no more bytes in flight, than was allowed."""
    board = Scoreboard(3, max_requests=2, max_bytes=5_000)
    chosen = board.assign([Want(1_000) for _ in range(100)], 0.0)
    assert len(chosen) == 5
    assert all([span.gateway for span in chosen].count(i) <= 2 for i in range(3))


def test_pauses_differ_between_clients() -> None:
    """Never shorter than what the gateway asked for, and up to a quarter longer."""
    ends = []
    for jitter in (0.0, 0.5, 1.0):
        board = Scoreboard(1, max_requests=4, max_bytes=2**20, jitter=lambda jitter=jitter: jitter)
        board.scores[0].sent("key", 1000, 0.0)
        board.scores[0].failed("key", 1.0, retry_after_s=8.0)
        ends.append(board.scores[0].paused_until)
    assert ends == [9.0, 10.0, 11.0]


def test_requests_per_minute_are_kept() -> None:
    """A gateway that allows 200 a minute gets ten at once and then as many as that; nobody waits for it meanwhile."""
    alone = Simulator(["rate=100MB,latency=50ms"], requests_per_minute=[200.0]).run(blocks(110, 2**16))
    assert alone.seconds == pytest.approx(100 / 200 * 60, rel=0.05)
    gateways = ["rate=100MB,latency=50ms", "rate=10MB,latency=50ms"]
    both = Simulator(gateways, requests_per_minute=[200.0, None]).run(blocks(1000, 2**16))
    assert both.seconds <= 1000 * 2**16 / 10e6
    assert both.gateways[0].requests <= 11 + both.seconds * 200 / 60
    assert served(both)[0] >= 10 + 0.8 * both.seconds * 200 / 60


def test_assign_is_worth_a_call_where_somebody_has_room() -> None:
    """Or where an open CAR may bring it anyway; what is tiny goes beside a first window that is full."""
    board = Scoreboard(2, max_requests=8, max_bytes=2**25)
    assert board.may_assign(2**16, 0.0)
    for i, score in enumerate(board.scores):
        score.sent(i, 2**22, 0.0)
    assert not board.may_assign(2**16, 0.0)
    assert board.may_assign(2**12, 0.0)


def test_the_last_resort_is_asked_every_few_seconds() -> None:
    """After an outage a gateway that is alone works again within seconds, however long its pause has become."""
    board, now = Scoreboard(1, max_requests=8, max_bytes=2**25), 1000.0
    score = board.scores[0]
    for _ in range(8):
        want = Want(BLOCK)
        score.sent(want, BLOCK, now)
        score.failed(want, now)
        assert board.assign([want], now) == []
        assert now < board.next_change(now) <= now + 4.0
        now = board.next_change(now)
        while not board.assign([want], now):
            now = board.next_change(now)
    assert score.paused_until > now
    score.sent(want, BLOCK, now)
    score.delivered(want, BLOCK, now + 0.1)
    assert score.paused_until == now + 0.1


def test_a_pause_that_was_asked_for_is_kept() -> None:
    """By the last resort, too; and a lie is not forgiven because the next block is right."""
    board = Scoreboard(1, max_requests=8, max_bytes=2**25)
    score, want = board.scores[0], Want(BLOCK)
    score.refused(1000.0, retry_after_s=30.0)
    assert board.assign([want], 1029.0) == []
    assert board.assign([want], 1031.0)
    for _ in range(8):
        score.mismatched(1031.0)
    until = score.paused_until
    score.sent(want, BLOCK, 1040.0)
    score.delivered(want, BLOCK, 1041.0)
    assert score.paused_until == until > 1041.0


def test_a_block_that_was_not_found_is_not_asked_for_at_once() -> None:
    """Neither by its turn nor as a hedge; a gateway that has not failed for it is asked meanwhile."""
    board, want = Scoreboard(2, max_requests=8, max_bytes=2**25), Want(BLOCK)
    want.excluded, want.retry_at = {0, 1}, 1000.25
    assert board.assign([want], 1000.0) == []
    assert board.next_change(1000.0) == 1000.25
    assert board.assign([want], 1000.25)
    want.excluded, want.retry_at = {0}, 2000.0
    assert [span.gateway for span in board.assign([want], 1000.5)] == [1]
