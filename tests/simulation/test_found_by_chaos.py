"""Seeds of ``python -m dnc_async.testing chaos`` that broke a promise once."""

from __future__ import annotations

import pytest

from dnc_async.testing.simulation.chaos import run_and_compare
from dnc_async.testing.simulation.scenario import scenario


@pytest.mark.parametrize(
    "seed",
    [
        pytest.param(226, id="a near gateway is never tried: a far one is free whenever a small budget asks"),
    ],
)
def test_it_keeps_its_promises(seed: int) -> None:
    """Again, with what it needs to be in time."""
    _, problems = run_and_compare(scenario(seed))
    assert problems == ()
