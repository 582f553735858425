"""Choosing gateways is a function of what happened and when: a simulation on a clock of its own."""

import heapq

import pytest

from dnc_async.gateways.scoreboard import Scoreboard
from dnc_async.gateways.spans import Want


class Simulation:
    """Gateways that serve one block after the other at a rate, each answer after a latency."""

    def __init__(self, links: list[tuple[float, float]], per_minute: tuple[float | None, ...] = ()) -> None:
        self.links = links
        self.board = Scoreboard(len(links), max_requests=32, max_bytes=2**25, requests_per_minute=per_minute)
        self.now = 0.0
        self.served = [0] * len(links)

    def fetch(self, blocks: int, size: int, fails: frozenset[int] = frozenset()) -> float:
        """Fetch blocks of a size; returns how long it took."""
        began, wants = self.now, [Want(size) for _ in range(blocks)]
        free = [self.now] * len(self.links)
        events: list[tuple[float, int, int, Want]] = []
        missing = blocks
        while missing:
            for span in self.board.assign(wants, self.now):
                (want,), i = span.wants, span.gateway
                wants.remove(want)
                latency, rate = self.links[i]
                self.board.scores[i].sent(want, size, self.now)
                start = max(free[i], self.now + latency)
                free[i] = start + (0 if i in fails else size / rate)
                heapq.heappush(events, (free[i], id(want), i, want))
            if not events:
                change = self.board.next_change(self.now)
                assert change is not None
                self.now = change
                continue
            self.now, _, i, want = heapq.heappop(events)
            score = self.board.scores[i]
            if i in fails:
                score.failed(want, self.now)
                wants.insert(0, want)
                continue
            score.first_byte(want, self.now - size / self.links[i][1])
            score.delivered(want, size, self.now)
            score.verified(size)
            self.served[i] += 1
            missing -= 1
        return self.now - began


@pytest.mark.parametrize("rates", [[20, 20, 20, 20], [40, 20, 10, 10], [40, 20, 10, 2]])
def test_sum_of_rates(rates: list[int]) -> None:
    """Gateways of unlike rates deliver nearly their sum, each its share."""
    simulation = Simulation([(0.05, rate * 1e6) for rate in rates])
    seconds = simulation.fetch(3000, 2**18)
    assert 3000 * 2**18 / seconds >= 0.95 * sum(rates) * 1e6
    for served, rate in zip(simulation.served, rates, strict=True):
        assert served / 3000 == pytest.approx(rate / sum(rates), abs=0.04)


def test_dead_gateway_costs_little() -> None:
    """One that fails every request is asked ever more rarely, and the others' sum is nearly kept."""
    simulation = Simulation([(0.05, 20e6), (0.05, 20e6), (0.01, 20e6)])
    assert 1000 * 2**18 / simulation.fetch(1000, 2**18, fails=frozenset({2})) >= 0.9 * 40e6
    assert simulation.board.scores[2].failures < 400


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
    assert board.next_change(0.0) is not None
    assert {span.gateway for span in board.assign([Want(1000) for _ in range(6)], 60.0)} == {1}
    board.scores[1].failed("never sent", 60.0)
    board.scores[1].sent("x", 1, 60.0)
    board.scores[1].failed("x", 60.0)
    assert {span.gateway for span in board.assign([Want(1000)], 60.0)} == {0}


def test_gateway_that_was_never_tried_is_tried() -> None:
    """The first measured one must not keep all the work because nothing is known of the others."""
    simulation = Simulation([(0.05, 10e6)] * 3)
    simulation.fetch(1, 300)
    for _ in range(30):
        simulation.fetch(4, 2**16)
    assert min(simulation.served) >= 30


def test_slow_estimate_is_corrected() -> None:
    """A gateway that was slow once, and got nothing since, is asked again and gets its share back."""
    simulation = Simulation([(0.05, 10e6), (0.05, 1e4)])
    simulation.fetch(40, 2**16)
    simulation.links[1] = (0.05, 10e6)
    simulation.now += 10.0
    for _ in range(20):
        simulation.fetch(8, 2**16)
        simulation.now += 1.0
    served = simulation.served[1]
    simulation.fetch(100, 2**16)
    assert simulation.served[1] - served >= 30


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
    alone = Simulation([(0.05, 100e6)], per_minute=(200.0,))
    assert alone.fetch(110, 2**16) == pytest.approx(100 / 200 * 60, rel=0.05)
    both = Simulation([(0.05, 100e6), (0.05, 10e6)], per_minute=(200.0, None))
    seconds = both.fetch(1000, 2**16)
    assert seconds <= 1000 * 2**16 / 10e6
    assert both.served[0] <= 11 + seconds * 200 / 60
    assert both.served[0] >= 10 + 0.8 * seconds * 200 / 60
