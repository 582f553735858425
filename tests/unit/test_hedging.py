"""A request that is silent for too long is asked of a second gateway; the first body that is right counts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import dnc_async as dnc
from dnc_async.gateways.retries import FREE_HEDGES_BYTES, HedgeBudget
from dnc_async.gateways.scoreboard import Scoreboard
from dnc_async.gateways.want import Want
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_file
from dnc_async.store import BlockStore
from dnc_async.testing import GatewayProcess

from ..files.conftest import content

BLOCK = 2**18


def _all(_: Want) -> bool:
    return True


def board() -> Scoreboard:
    """Two gateways that have delivered: 50 ms away, 10 MB/s each."""
    board = Scoreboard(2, max_requests=8, max_bytes=2**25)
    for score in board.scores:
        for i in range(8):
            key = Want(BLOCK)
            score.sent(key, BLOCK, float(i))
            score.first_byte(key, i + 0.05)
            score.received(key, BLOCK // 2, i + 0.063)
            score.delivered(key, BLOCK, i + 0.076)
            score.verified(BLOCK)
    return board


def test_silence_is_hedged_once() -> None:
    """After several times the latency, on the other gateway, and not again."""
    scores, want = board(), Want(BLOCK)
    want.asked.add(0)
    scores.scores[0].sent(want, BLOCK, 10.0)
    assert scores.hedges(10.15, _all) == []
    change = scores.next_change(10.15)
    assert 10.19 <= change <= 10.25
    assert scores.hedges(change, _all) == [(want, 1)]
    want.asked.add(1)
    scores.scores[1].sent(want, BLOCK, change)
    assert scores.hedges(change + 0.1, _all) == []  # the second request is in time
    assert scores.hedges(change + 9, _all) == []  # it is not, and nobody else is left


def test_a_line_that_is_merely_full_is_not_hedged() -> None:
    """Eight blocks that share a gateway's line, each a little at a time, longer than they were to take."""
    scores, wants = board(), [Want(BLOCK) for _ in range(8)]
    for want in wants:
        want.asked.add(0)
        scores.scores[0].sent(want, BLOCK, 10.0)
    for step in range(16):
        for want in wants:
            scores.scores[0].received(want, BLOCK // 16, 10.1 + step / 50)
        assert scores.hedges(10.1 + step / 50 + 0.019, _all) == []


def test_a_trickle_from_an_unknown_gateway_is_hedged() -> None:
    """Its first bytes measure a tiny rate, by which a block would be in time for a quarter of an hour."""
    scores, want = board(), Want(BLOCK)
    scores.add()
    scores.assign([], 10.0)
    want.asked.add(2)
    scores.scores[2].sent(want, BLOCK, 10.0)
    scores.scores[2].first_byte(want, 10.05)
    for step in range(20):
        scores.scores[2].received(want, 100, 10.1 + step / 10)
    assert [late for late, _ in scores.hedges(12.05, _all)] == [want]


def test_the_budget_is_kept() -> None:
    """Nothing beyond the bytes that are left for it; and nobody is asked who is hopeless for the block."""
    scores, wants = board(), [Want(BLOCK) for _ in range(4)]
    for want in wants:
        want.asked.add(0)
        scores.scores[0].sent(want, BLOCK, 10.0)
    wants[0].hopeless = wants[0].excluded = {1}
    budget = HedgeBudget(share=0.0)
    budget.spend(FREE_HEDGES_BYTES - 2 * BLOCK, {0}, 0, is_urgent=True)

    def spend(want: Want) -> bool:
        return budget.spend(want.size_bytes, want.asked, 0, is_urgent=False)

    assert [want for want, _ in scores.hedges(12.0, spend)] == wants[1:3]
    assert budget.spent_bytes == FREE_HEDGES_BYTES
    assert scores.hedges(12.0, spend) == []
    assert budget.spend(BLOCK, {0, 1}, 0, is_urgent=False)  # the other gateway's account
    assert budget.spend(BLOCK, {0}, 0, is_urgent=True)
    assert (budget.is_exceeded(0, 0), budget.is_exceeded(1, 0)) == (True, False)


def test_being_beaten_is_a_failure_only_for_the_silent() -> None:
    """One that was bringing bytes was slower; one that said nothing is paused."""
    scores = board()
    silent, slower = Want(BLOCK), Want(BLOCK)
    scores.scores[0].sent(silent, BLOCK, 10.0)
    scores.scores[1].sent(slower, BLOCK, 11.8)
    scores.scores[1].received(slower, 1000, 11.9)
    scores.scores[0].beaten(silent, 12.0)
    scores.scores[1].beaten(slower, 12.0)
    assert (scores.scores[0].failures, scores.scores[1].failures) == (1, 0)
    assert scores.scores[0].paused_until > 12.0
    assert (scores.scores[0].in_flight, scores.scores[1].in_flight) == (0, 0)


@pytest.mark.parametrize("fault", ["stall=20kB", "straggle=3", "trickle=1kB"])
async def test_a_gateway_that_falls_silent_does_not_hold_a_file_up(tmp_path: Path, fault: str) -> None:
    """Long before its request would time out, after 30 s, the other gateway has brought the block."""
    data = content(2**21)
    blocks, root = build_file(data, dataclasses.replace(UNIXFS_V1_2025, leaf_bytes=2**16))
    store = BlockStore.open(tmp_path / "store", create=True)
    with store.begin() as transaction:
        for block in blocks:
            transaction.put(block)
        transaction.commit(root.cid)
    with GatewayProcess(store.path, fault) as bad, GatewayProcess(store.path, "latency=10ms") as good:
        async with dnc.Client(gateways=[bad.url, good.url], disk_budget=0) as client:
            assert await client.cat(root.cid) == data
