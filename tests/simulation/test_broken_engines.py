"""Engines with a mistake in them: the simulation must find each, or it would find none of ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from dnc_async.dataset.batch import ChunkPlace
from dnc_async.engine import sink
from dnc_async.engine.handle import StreamHandle
from dnc_async.engine.ledger import Ledger
from dnc_async.engine.pipeline import Pipeline
from dnc_async.gateways.requester import Requester
from dnc_async.gateways.settling import Settling
from dnc_async.ipld import block
from dnc_async.spool.files import SpoolFile
from dnc_async.spool.governor import Governor
from dnc_async.testing import DatasetScript, Simulation

Replace = Callable[[Any], Any]
DATA = DatasetScript(samples=60, batch_size=6, row_bytes=1000)
FAST = ["latency=20ms,rate=5MB"]


def returns(value: object) -> Replace:
    return lambda _: lambda *_, **__: value


def spoils_a_byte(original: Any) -> Any:
    middle = 1500
    return lambda self, offset, data: original(self, offset, bytes(data[:middle]) + b"!" + bytes(data[middle + 1 :]))


def one_more(original: Any) -> Any:
    def open_at(self: StreamHandle) -> Any:
        self.handed_over += self.suspended
        return original(self)

    return open_at


def forgets_causes(original: Any) -> Any:
    def enter(self: Ledger, taken: Any) -> Any:
        gap = original(self, taken)
        gap.causes.clear()
        return gap

    return enter


MISTAKES: dict[str, tuple[Any, str, Replace, Simulation, str]] = {
    "a block is not verified": (
        block,
        "matches_pieces",
        returns(True),
        Simulation(gateways=["flip=3"], data=DATA),
        "other bytes|holds samples|honest",
    ),
    "a leaf is written wrong": (
        ChunkPlace,
        "write_at",
        spoils_a_byte,
        Simulation(data=DATA),
        "other bytes|holds samples|honest",
    ),
    "what the disk gives back is not compared": (
        sink,
        "checksum",
        returns(0),
        Simulation(gateways=FAST, consumers=["step=100ms"], disk="flip=2", data=DATA),
        "other bytes|holds samples|honest",
    ),
    "a lease is granted whatever is left": (
        Governor,
        "allows",
        returns(True),
        Simulation(gateways=FAST, consumers=["step=100ms"], budget_bytes=10_000, data=DATA),
        "the disk held",
    ),
    "a file is not deleted": (
        SpoolFile,
        "discard",
        returns(None),
        Simulation(consumers=["step=100ms"], data=DATA),
        "left",
    ),
    "a batch goes missing when a stream goes on": (
        StreamHandle,
        "open",
        one_more,
        Simulation(consumers=["cancel=2,moment=0ms,back=9s"], data=DATA),
        "holds samples|ended after",
    ),
    "causes of waiting are lost": (Ledger, "enter", forgets_causes, Simulation(data=DATA), "do not add up"),
    "nobody hears that the consumer has taken a batch": (
        Pipeline,
        "taken",
        returns(None),
        Simulation(data=DATA),
        "deadlock|not at its end",
    ),
    "a failure is not told": (
        Settling,
        "failed",
        returns(None),
        Simulation(gateways=["html=2"], data=DATA),
        "deadlock|not at its end|left",
    ),
    "a request breaks": (Requester, "_raw", returns(None), Simulation(gateways=["no-car"], data=DATA), "honest"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made wrong on purpose is said to be wrong, and without it nothing is."""
    owner, name, replace, plan, expected = MISTAKES[mistake]
    assert plan.run().problems == ()
    monkeypatch.setattr(owner, name, replace(getattr(owner, name)))
    run = plan.run()
    assert any(re.search(expected, problem) for problem in run.problems), run
