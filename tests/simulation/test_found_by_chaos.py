"""What ``python -m dnc_async.testing chaos`` has found, shrunk, each with its seed at the time."""

from __future__ import annotations

import pytest

from dnc_async.config import FetchSettings
from dnc_async.testing import DatasetScript, Simulation
from dnc_async.testing.simulation.chaos import run_and_compare

FOUND = {
    # Seed 226: it took 6.4 s, and 0.7 s with the honest gateways alone.
    "a near gateway is never tried, because a far one is free whenever a small budget asks": Simulation(
        seed=226,
        gateways=["latency=300ms", "latency=50ms,html=1", ""],
        data=DatasetScript(samples=40, batch_size=1, row_bytes=20),
        budget_bytes=12_288,
        unit_bytes=4096,
        settings=FetchSettings(stall_timeout_s=1.0, patience_s=2.0, requests_per_gateway=2, in_flight_bytes=2**22),
    ),
}


@pytest.mark.parametrize("what", FOUND)
def test_it_keeps_its_promises(what: str) -> None:
    """Again, with what it needs to be in time."""
    _, problems = run_and_compare(FOUND[what])
    assert problems == ()
