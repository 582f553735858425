"""The real scoreboard against gateways by script, on a virtual clock: scenarios drawn at random, and what must hold in each."""

from __future__ import annotations

import bisect

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from dnc_async.config import FetchSettings
from dnc_async.errors import ArgumentError
from dnc_async.gateways.retries import FREE_HEDGES_BYTES
from dnc_async.testing import Faults, SimulationReport, Simulator, Workload
from dnc_async.testing.scripted_line import fluid_s

SETTINGS = FetchSettings()

rates = st.sampled_from(["200kB", "1MB", "5MB", "20MB", "40MB"])
latencies = st.sampled_from(["0s", "10ms", "50ms", "200ms"])
steady = st.builds("rate={},latency={}".format, rates, latencies)
ailing = st.builds(
    "{},{}".format,
    steady,
    st.sampled_from([
        "jitter=50ms", "slow=0.5s-", "slow=0s-2s", "silent=0.5s-1.5s", "silent=1s-",
        "straggle=5", "straggle=40", "down=0.3s-", "down=0s-1s", "busy=1s",
        "flip=1", "flip=3", "other=10", "html=3", "html", "cut=10kB", "stall=10kB", "stall=0", "trickle=1kB", "no-car", "cold",
    ]),
)  # fmt: skip
limits = st.sampled_from([None, None, 30.0, 200.0])


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Up to 32 blocks, at once or as a budget allows."""
    leaves, leaf_bytes = draw(st.sampled_from([1, 4, 16])), draw(st.sampled_from([2**14, 2**16, 2**18, 2**20]))
    budget = draw(st.sampled_from([None, 1, 3 * leaves * leaf_bytes]))
    files = draw(st.integers(1, 32 // leaves))
    return Workload(
        files=files,
        leaves=leaves,
        leaf_bytes=leaf_bytes,
        budget_bytes=budget,
        step_s=draw(st.sampled_from([0.0, 0.05])),
    )


def holds(report: SimulationReport, work: Workload, limits: list[float | None]) -> None:
    """What must hold in every run, whatever the gateways do."""
    came = [event.blocks[0] for event in report.events if event.what == "arrived"]
    assert sorted(came) == list(range(work.files * work.leaves))
    assert sum(gateway.bytes for gateway in report.gateways) == report.size_bytes
    assert report.peak_in_flight_bytes <= SETTINGS.in_flight_bytes
    assert all(gateway.peak_requests <= SETTINGS.requests_per_gateway for gateway in report.gateways)
    verified = report.size_bytes + report.duplicates * work.leaf_bytes  # what came twice was delivered, too
    accounts = len(report.gateways) * (FREE_HEDGES_BYTES + SETTINGS.hedge_share * verified)
    assert report.hedged_bytes <= accounts + SETTINGS.in_flight_bytes  # the last ones are always hedged
    for gateway, limit in enumerate(limits):
        asked = [e.at_s for e in report.events if e.gateway == gateway and e.what in {"asked", "hedged"}]
        for at in asked if limit else ():
            within = bisect.bisect_right(asked, at + 60) - bisect.bisect_left(asked, at)
            assert within <= 10 + (limit or 0) + 1


@given(able=steady, others=st.lists(ailing, max_size=3), work=workloads(), data=st.data(), seed=st.integers(0, 99))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_block_comes_while_one_gateway_is_able(
    able: str, others: list[str], work: Workload, data: st.DataObject, seed: int
) -> None:
    """Once each, in the limits of requests, bytes and hedges, whatever the other gateways do."""
    gateways = data.draw(st.permutations([able, *others]))
    allowed = [data.draw(limits) for _ in gateways]
    report = Simulator(gateways, requests_per_minute=allowed, seed=seed).run(work)
    event(f"{len(gateways)} gateways, hedged: {report.hedged_bytes > 0}")
    holds(report, work, allowed)


@given(gateways=st.lists(steady, min_size=1, max_size=4), work=workloads(), seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_steady_gateways_come_near_their_sum(gateways: list[str], work: Workload, seed: int) -> None:
    """Within 1.25 times the fluid bound with the hedges in it, and what is found out first: a window at the slowest, a second."""
    work = Workload(files=work.files, leaves=work.leaves, leaf_bytes=work.leaf_bytes)
    report = Simulator(gateways, seed=seed).run(work)
    scripts = [Faults.parse(each) for each in gateways]
    first = max(max(work.leaf_bytes, 2**20) / (script.rate or 1.0) for script in scripts)
    trips = 4 * max(script.latency_s for script in scripts)
    bytes_too = 1 + report.hedged_bytes / report.size_bytes
    assert report.fluid_s * 0.999 <= report.seconds <= 1.25 * report.fluid_s * bytes_too + first + trips + 1.0


def test_a_run_is_a_function_of_its_seed() -> None:
    """The same scripts, workload and seed give the same timeline; another seed another one."""

    def run(seed: int) -> SimulationReport:
        return Simulator(["rate=5MB,latency=20ms,jitter=10ms", "rate=2MB,straggle=7"], seed=seed).run(Workload(files=3))

    assert run(1) == run(1)
    assert run(1).events != run(2).events


def test_nobody_able_is_an_end_too() -> None:
    """Blocks that nobody can give are given up, and the others are not."""
    report = Simulator(["rate=5MB,flip=1", "rate=5MB,down=0s-"]).run(Workload())
    assert not report.is_complete
    assert set(report.arrivals_s) == {None}
    assert report.arrived_within_s(0.5) == float("inf")


def test_a_first_answer_at_a_trickle_is_hedged() -> None:
    """Judged by the pace of the best: by its own it would be in time for a quarter of an hour."""
    report = Simulator(["rate=20MB,latency=50ms,trickle=1kB", "rate=20MB,latency=50ms"]).run(Workload(leaf_bytes=2**20))
    assert report.seconds <= 3
    assert report.hedged_bytes


def test_a_trickle_that_is_measured_first_is_not_the_measure_of_all() -> None:
    """The other gateway, farther away, has not answered yet: what it can do is not known to be as little."""
    report = Simulator(["trickle=1kB,latency=10ms", "rate=20MB,latency=300ms"]).run(Workload(leaf_bytes=2**20))
    assert report.seconds <= 3


def test_gateways_that_are_all_slow_are_not_hedged() -> None:
    """Slower than is thought of an unknown one, but no worse than each other."""
    report = Simulator(["rate=1MB,latency=50ms"] * 4).run(Workload(leaves=32, leaf_bytes=2**20))
    assert report.hedged_bytes == 0
    assert report.over_fluid <= 1.02


def test_a_gateway_that_was_slow_at_first_gets_its_share_back() -> None:
    """Also where so few blocks are in sight that no block of its would be the first to arrive."""
    gateways = ["rate=2MB,latency=50ms,slow=0s-1s", "rate=2MB,latency=50ms"]
    report = Simulator(gateways, seed=1).run(Workload(files=64, leaves=4, budget_bytes=8 * 2**18))
    assert report.over_fluid <= 1.3
    much_slower = ["rate=100kB,latency=50ms", "rate=8MB,latency=50ms"]
    report = Simulator(much_slower, seed=1).run(Workload(files=256, leaves=4, budget_bytes=8 * 2**18))
    assert report.over_fluid <= 1.15  # to find that out again and again costs little


def test_a_consumer_waits_for_its_files() -> None:
    """One that is faster than the gateways is never further ahead than its budget."""
    work = Workload(files=8, leaves=4, budget_bytes=2 * 2**20, step_s=0.01)
    report = Simulator(["rate=5MB,latency=50ms"]).run(work)
    assert report.waited_s >= 0.5
    assert report.peak_in_flight_bytes <= 2 * 2**20
    slow = Workload(files=8, leaves=4, budget_bytes=2 * 2**20, step_s=1.0)
    assert Simulator(["rate=5MB,latency=50ms"]).run(slow).waited_s == 0


def test_small_blocks_come_in_runs() -> None:
    """And one by one from a gateway that has no CARs."""
    work = Workload(leaves=256, leaf_bytes=2**14)
    assert Simulator(["rate=20MB,latency=50ms"]).run(work).requests <= 40
    assert Simulator(["rate=20MB,latency=50ms,no-car"]).run(work).requests >= 256


def test_what_is_not_simulated_is_refused() -> None:
    """Rather than left out unseen; and so is a run without an end."""
    with pytest.raises(ArgumentError, match="ignore-entity-bytes is not simulated"):
        Simulator(["ignore-entity-bytes"])
    with pytest.raises(ArgumentError, match="limit_s"):
        Simulator(["rate=1kB"], limit_s=10).run(Workload())


def test_fluid_bound() -> None:
    """The sum of the rates, from each one's latency on, without what the scripts take away."""
    script = Faults.parse
    assert fluid_s([script("rate=1MB,latency=1s"), script("rate=1MB")], 3_000_000, 1000, at_once=1) == pytest.approx(2)
    assert fluid_s([script("rate=1MB,down=1s-2s")], 2_000_000, 1000, at_once=1) == pytest.approx(3)
    assert fluid_s([script("rate=1MB,flip=2"), script("rate=1MB,stall=1")], 1_000_000, 10, at_once=1) == pytest.approx(
        2
    )
    assert fluid_s([script("rate=1MB,down=0s-")], 1, 1, at_once=1) == float("inf")
