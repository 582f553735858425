"""What the log says while gateways are waited for."""

import logging

import pytest

from dnc_async.gateways.pauses import SilenceWarnings
from dnc_async.gateways.score import Score
from dnc_async.gateways.want import Want


def test_silence_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """When a block is long overdue and no other gateway can bring it: which gateway, and for how long."""
    score, other, warnings = Score(), Score(), SilenceWarnings()
    score.sent(Want(1000), 1000, 100.0)
    assert repr(warnings) == "<SilenceWarnings for 0 gateways>"
    with caplog.at_level(logging.WARNING, "dnc_async"):
        at = warnings.look(100.0, ["one", "two"], [score, other])
        assert 105.0 < at < 108.0
        other.sent(Want(1000), 1000, at)
        warnings.look(at, ["one", "two"], [score, other])
        assert not caplog.records  # the other may bring it
        other.refused(at)
        warnings.look(at, ["one", "two"], [score, other])
        warnings.look(at, ["one", "two"], [score, other])
    assert [record.message for record in caplog.records] == [
        f"one has delivered nothing for {at - 100:.0f} s; still waiting"
    ]
