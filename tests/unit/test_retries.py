"""How long a gateway is waited for that says when it can be asked again."""

import pytest

from dnc_async.gateways.retries import Failures, Patience

from .test_spans import leaves

PATIENCE = Patience(attempts=3, seconds=20.0, busy_seconds=180.0)


@pytest.mark.parametrize(
    ("pauses", "hopeless"),
    [([86_400.0], True), ([180.0], False), ([181.0], True), ([60.0, 60.0], False), ([60.0, 60.0, 121.0], True)],
)
def test_a_pause_that_was_asked_for(pauses: list[float], *, hopeless: bool) -> None:
    """It counts from the block's first failure; a time later than the patience is not waited for at all."""
    failures, wanted, now = Failures(), leaves(1, 100)[0], 1000.0
    for pause_s in pauses:
        failures.record(wanted, 0, now, gateways=1, patience=PATIENCE, has_delivered=True, back_at=now + pause_s)
        now += 30.0
    assert (0 in failures.hopeless) is hopeless


def test_a_gateway_that_delivers_may_find_a_block_later() -> None:
    """It is asked again after a pause that doubles, for as long as the patience; one that has delivered nothing is not."""
    failures, wanted, now = Failures(), leaves(1, 100)[0], 1000.0
    pauses = []
    while 0 not in failures.hopeless:
        failures.record(wanted, 0, now, gateways=1, patience=PATIENCE, has_delivered=True, is_miss=True)
        pauses.append(wanted.retry_at - now)
        now = wanted.retry_at
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    never = leaves(1, 100)[0]
    failures = Failures()
    failures.record(never, 0, now, gateways=1, patience=PATIENCE, has_delivered=False, is_miss=True, is_final=True)
    assert never.hopeless == {0}


def test_two_silences_are_enough() -> None:
    """Each has cost half a minute, where other failures cost nothing."""
    failures, wanted = Failures(), leaves(1, 100)[0]
    failures.record(wanted, 0, 30.0, gateways=1, patience=PATIENCE, has_delivered=True, is_silent=True)
    assert not failures.hopeless
    failures.record(wanted, 0, 60.0, gateways=1, patience=PATIENCE, has_delivered=True, is_silent=True)
    assert failures.hopeless == {0}
