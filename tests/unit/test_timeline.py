"""A run's gaps in bounded memory: sums are kept, quantiles are near."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnc_async.engine.timeline import MAX_BINS, Timeline


def filled(gaps: list[float]) -> Timeline:
    timeline = Timeline()
    for number, gap in enumerate(gaps):
        timeline.add(at_s=float(number), step_s=0.5, waited_s=gap, causes={"ab"[number % 2]: gap})
    return timeline


@pytest.mark.parametrize("batches", [0, 1, MAX_BINS, MAX_BINS + 1, 10 * MAX_BINS + 7])
def test_bounded_and_nothing_lost(batches: int) -> None:
    """However long the run is."""
    gaps = [0.001 * (number % 97) for number in range(batches)]
    bins = filled(gaps).bins()
    assert len(bins) <= MAX_BINS
    assert sum(each.batches for each in bins) == batches
    assert sum(each.step_s for each in bins) == pytest.approx(0.5 * batches)
    assert sum(each.waited_s for each in bins) == pytest.approx(sum(gaps))
    assert sum(sum(each.causes.values()) for each in bins) == pytest.approx(sum(gaps))
    assert max((each.longest_s for each in bins), default=0.0) == max(gaps, default=0.0)
    assert [each.at_s for each in bins] == sorted(each.at_s for each in bins)
    if batches <= MAX_BINS:
        assert {each.batches for each in bins} <= {1}
    else:
        assert len({each.batches for each in bins[:-1]}) == 1


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e4)), min_size=1, max_size=200),
    st.sampled_from([0.5, 0.95, 0.99, 1.0]),
)
def test_quantiles(gaps: list[float], share: float) -> None:
    """Within 1 % of the gap that stands there in order; never more than the longest."""
    timeline = filled(gaps)
    exact = sorted(gaps)[math.ceil(share * len(gaps)) - 1]
    assert timeline.quantile(share) == pytest.approx(exact, rel=0.0101)
    assert timeline.quantile(share) <= timeline.longest_s == max(gaps)


def test_nothing_yet() -> None:
    assert filled([]).quantile(0.5) == 0.0
