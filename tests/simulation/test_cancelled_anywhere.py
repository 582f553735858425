"""A client whose consumers are cancelled at any turn of the event loop: at each await of the engine, sooner or later."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dnc_async.testing import DatasetScript, Simulation

SMALL = DatasetScript(samples=12, batch_size=4, row_bytes=700)
RAGGED = DatasetScript(samples=12, batch_size=4, row_bytes=700, kind="ragged")
PLANS = {
    "proofs, requests, memory": Simulation(gateways=["latency=20ms,flip=4"], data=SMALL, budget_bytes=0),
    "the disk": Simulation(
        gateways=["latency=20ms,rate=200kB"], disk="rate=1MB,flip=2", consumers=["step=30ms"], data=RAGGED
    ),
    "a full disk": Simulation(disk="full=0.25s-0.4s,files=2", consumers=["step=150ms"], data=SMALL),
    "a budget for one, two streams": Simulation(consumers=["step=30ms", "step=1ms"], data=SMALL, budget_bytes=7_000),
    "a transform": Simulation(consumers=["transform=20ms,workers=2"], data=SMALL),
    "CARs, and gateways that fail": Simulation(
        gateways=["latency=20ms,stall=900", "latency=20ms,html=2", "latency=100ms"],
        data=SMALL,
        consumers=["patience=300ms"],
    ),
}


@pytest.mark.parametrize("back", [False, True], ids=["for good", "and comes back"])
@pytest.mark.parametrize("plan", PLANS)
def test_at_any_turn(plan: str, back: bool) -> None:
    """Nothing is left, nothing is lost; who comes back gets on with the next batch."""
    whole = PLANS[plan]
    if back:
        whole = replace(whole, consumers=[f"{script},back=100ms".strip(",") for script in whole.consumers])
    last = whole.run()
    assert last.problems == ()
    for turn in range(1, last.turns, 1 + last.turns // 60):
        run = replace(whole, cancel_turn=turn).run()
        assert run.problems == (), f"cancelled at turn {turn}"
        if back:
            assert all(consumer.is_complete for consumer in run.consumers), f"cancelled at turn {turn}"
