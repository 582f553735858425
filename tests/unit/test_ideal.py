"""The ideal stream, against cases that can be worked out by hand."""

import itertools

import pytest

from dnc_async.engine import ideal

LINK = ideal.GatewayLink(latency_s=0.05, rate=10e6)


def run(
    batches: int,
    *,
    budget: float,
    step: float,
    links: int = 1,
    fluid: bool = False,
    blocks: int = 4,
    early: bool = False,
    window: float = 0.0,
    calls: ideal.Calls | None = None,
):
    """Batches of two chunks of 500 kB each."""
    plan = [[[500_000 // blocks] * blocks] * 2] * batches
    return ideal.ideal_stream(
        plan,
        links=[LINK] * links,
        budget_bytes=budget,
        steps_s=[step] * batches,
        fluid=fluid,
        moves_early=early,
        window_bytes=window,
        calls=calls,
    )


def test_first_batch_takes_a_latency_and_its_bytes() -> None:
    """50 ms and 1 MB at 10 MB/s."""
    assert run(1, budget=0, step=1.0).waits == pytest.approx((0.15,))
    assert run(1, budget=0, step=1.0, fluid=True).waits == pytest.approx((0.15,))
    assert run(1, budget=0, step=1.0).wall_s == pytest.approx(1.15)


def test_without_a_budget_the_next_batch_is_asked_for_at_each_hand_over() -> None:
    """A step of 100 ms hides 100 of the 150 ms that a batch takes; one of 200 ms hides all."""
    assert run(3, budget=0, step=0.1).waits[1:] == pytest.approx((0.05, 0.05))
    assert run(3, budget=0, step=0.2).waits[1:] == pytest.approx((0.0, 0.0))


def test_a_large_budget_leaves_the_rate_alone() -> None:
    """Bytes arrive without a pause: a batch each 100 ms, whatever the step below that."""
    slow = run(20, budget=1e9, step=0.02)
    assert slow.waits[1:] == pytest.approx([0.08] * 19)
    assert slow.idle_share == pytest.approx(0.08 * 19 / (0.08 * 19 + 0.02 * 20))


def test_two_gateways_share_the_blocks() -> None:
    """Twice the rate, one latency."""
    assert run(1, budget=0, step=0, links=2).waits == pytest.approx((0.1,))
    assert run(1, budget=0, step=0, links=2, blocks=1).waits == pytest.approx((0.1,))


@pytest.mark.parametrize("step", [0.03, 0.05, 0.1])
@pytest.mark.parametrize("links", [1, 3])
@pytest.mark.parametrize("early", [False, True])
def test_the_fluid_bound_is_below_and_more_budget_never_hurts(step: float, links: int, early: bool) -> None:
    shares = []
    for budget in (0, 0.5e6, 1e6, 2e6, 4e6, 1e7):
        block, fluid = (
            run(60, budget=budget, step=step, links=links, fluid=kind, early=early) for kind in (False, True)
        )
        assert fluid.wall_s <= block.wall_s + 1e-9
        shares.append(block.idle_share)
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(shares))


@pytest.mark.parametrize("budget", [0.5e6, 1e6, 2e6])
@pytest.mark.parametrize("fluid", [False, True])
def test_chunks_that_move_early_never_hurt(budget: float, fluid: bool) -> None:
    """Their room is free sooner; where the next batch fills the disk, that is worth a good part of the wait."""
    late, soon = (run(60, budget=budget, step=0.03, links=3, fluid=fluid, early=early) for early in (False, True))
    assert soon.wall_s <= late.wall_s + 1e-9
    if budget == 1e6:
        assert soon.idle_share < late.idle_share - 0.05


@pytest.mark.parametrize("fluid", [False, True])
def test_what_is_asked_for_ahead_comes_when_it_has_room(fluid: bool) -> None:
    """Without a budget a batch of 100 ms follows each hand-over: one chunk ahead, the second one's latency is hidden, too."""
    assert run(4, budget=0, step=0.1, window=1, fluid=fluid).waits == pytest.approx((0.15, 0, 0, 0))
    full = run(4, budget=0, step=0.08, window=1, fluid=fluid)
    assert full.waits == pytest.approx((0.15, 0.02, 0.02, 0.02)), "the line is full"
    assert run(4, budget=0, step=0.1, window=0, fluid=fluid).waits == pytest.approx((0.15, 0.05, 0.05, 0.05))


def test_a_long_step_lets_a_window_come() -> None:
    """A batch lies there after a long step, whole, and the short one behind it waits for nothing."""
    plan, steps = [[[250_000] * 2] * 2] * 6, [0.3, 0.01, 0.3, 0.01, 0.3, 0.01]
    waits = [
        ideal.ideal_stream(plan, links=[LINK], budget_bytes=0, steps_s=steps, window_bytes=window).waits[1:]
        for window in (0, 1e6)
    ]
    assert waits[0] == pytest.approx((0, 0.14, 0, 0.14, 0))
    assert waits[1] == pytest.approx((0, 0, 0, 0, 0))


@pytest.mark.parametrize("budget", [0, 0.5e6, 1e6, 2e6])
@pytest.mark.parametrize("fluid", [False, True])
def test_to_ask_ahead_never_hurts(budget: float, fluid: bool) -> None:
    """And nothing is asked for before the stream begins."""
    windows = (0.0, 1.0, 1e6, 2e6, 1e9)
    walls = [
        run(40, budget=budget, step=0.04, links=3, fluid=fluid, early=True, window=each).wall_s for each in windows
    ]
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(walls))
    ahead, none = (run(1, budget=budget, step=0, window=window, fluid=fluid) for window in (1e9, 0))
    assert ahead.waits == none.waits


def test_the_window_of_links() -> None:
    """A round trip's bytes and a block of each."""
    assert ideal.window_bytes([LINK, ideal.GatewayLink(latency_s=0.2, rate=30e6)], 1e5) == pytest.approx(6.7e6)


@pytest.mark.parametrize(
    ("changes", "begins", "end"),
    [
        ((), 0.0, 0.1),
        (((0.05, 0.5),), 0.0, 0.15),
        (((0.05, 0.0), (2.05, 1.0)), 0.0, 2.1),
        (((0.05, 0.0), (2.05, 1.0)), 1.0, 2.15),
        (((0.05, 0.0), (2.05, 1.0)), 3.0, 3.1),
        (((0.05, 0.0),), 0.0, float("inf")),
        (((0.05, 0.5), (0.1, 0.0)), 0.0, float("inf")),
    ],
)
def test_a_rate_that_changes(changes: tuple[tuple[float, float], ...], begins: float, end: float) -> None:
    """1 MB at 10 MB/s, slower from then on, stalled for a while, or never."""
    link = ideal.GatewayLink(latency_s=0.05, rate=10e6, changes=changes)
    assert link.finish(begins, 1e6) == pytest.approx(end)


def test_a_gateway_that_dies_is_left_alone() -> None:
    """The other one brings all of it from then on."""
    links = [LINK, ideal.GatewayLink(latency_s=0.05, rate=10e6, changes=((0.5, 0.0),))]
    plan = [[[250_000] * 2] * 2] * 40
    both = ideal.ideal_stream(plan, links=[LINK] * 2, budget_bytes=1e9, steps_s=[0.0] * 40)
    one = ideal.ideal_stream(plan, links=links, budget_bytes=1e9, steps_s=[0.0] * 40)
    assert both.wall_s == pytest.approx(0.05 + 40e6 / 20e6)
    assert one.wall_s == pytest.approx(0.5 + (40e6 - 0.45 * 20e6) / 10e6, abs=0.05)


def calls(seconds: float, workers: int, places: int | None = None) -> ideal.Calls:
    """As many places as workers, as ``transform_workers=`` of at least 1 has."""
    return ideal.Calls(seconds=seconds, workers=workers, places=workers if places is None else places)


def test_a_transform_comes_after_the_last_chunk() -> None:
    """Without a budget, and with no place of its own, a batch is fetched and transformed within one step, or is late."""
    zero = calls(0.03, workers=1, places=0)
    assert run(1, budget=0, step=1.0, calls=zero).waits == pytest.approx((0.18,))
    assert run(4, budget=0, step=0.16, calls=zero).waits[1:] == pytest.approx([0.02] * 3)
    assert run(4, budget=0, step=0.2, calls=zero).waits[1:] == pytest.approx([0.0] * 3)
    # With a place of its own the next batch is fetched meanwhile: only the longer of the two counts.
    assert run(8, budget=0, step=0.1, calls=zero).waits[1:] == pytest.approx([0.08] * 7)
    assert run(8, budget=0, step=0.1, calls=calls(0.03, workers=1)).waits[1:] == pytest.approx([0.05] * 7)


@pytest.mark.parametrize(
    ("workers", "places", "spacing"), [(1, 0, 0.4), (1, 1, 0.4), (2, 2, 0.2), (4, 4, 0.1), (4, 0, 0.4)]
)
def test_a_transform_that_is_slower_than_all_else(workers: int, places: int, spacing: float) -> None:
    """400 ms for each batch, shared by the workers that have a place for one; the line and a step take 100 and 10 ms."""
    ideally = run(200, budget=1e9, step=0.01, calls=calls(0.4, workers, places))
    assert ideally.idle_share == pytest.approx(1 - 0.01 / spacing, abs=0.01)
    # As many are held back as there are workers, and come in one go: the mean counts.
    assert sum(ideally.waits[100:180]) / 80 == pytest.approx(spacing - 0.01, rel=0.02)


def test_a_transform_that_takes_no_time_is_none() -> None:
    """The same waits, whatever the budget."""
    for budget in (0, 1e6, 4e6):
        none = run(40, budget=budget, step=0.05, early=True)
        assert run(40, budget=budget, step=0.05, early=True, calls=calls(0.0, 1, places=0)) == none


@pytest.mark.parametrize("seconds", [0.03, 0.08, 0.2])
def test_with_a_transform_more_of_anything_never_hurts(seconds: float) -> None:
    """Neither budget nor workers nor gateways."""
    walls = {
        (budget, workers, links): run(
            60, budget=budget, step=0.05, links=links, early=True, calls=calls(seconds, workers)
        ).wall_s
        for budget in (0, 1e6, 4e6)
        for workers in (1, 2, 4)
        for links in (1, 2)
    }
    for (budget, workers, links), wall in walls.items():
        for other in ((4e6, workers, links), (budget, 4, links), (budget, workers, 2)):
            assert walls[other] <= wall + 1e-9
