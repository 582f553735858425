"""Gateways that mean harm: beside an honest one they cost little; alone they end the stream, and its error says how."""

from __future__ import annotations

import re
import tracemalloc

import pytest

import dnc_async as dnc
from dnc_async.config import FetchSettings
from dnc_async.errors import ChunkUnavailableError
from dnc_async.store import BlockStore
from dnc_async.testing import Faults, ScriptedGateway

from .conftest import BATCHES, Published, number

#: The scripts, with what the error of a stream says that has no other gateway.
FLOODS = {
    "interim": "more than 16 interim answers came",
    "unasked": "answered 404",
    "long-header": "oo many headers received",
}
#: Small enough for a test; a sleeping gateway is told from a slow one by time alone.
IMPATIENT = FetchSettings(stall_timeout_s=1.0, patience_s=0.5, attempts=2)


@pytest.mark.parametrize(
    "script", [*FLOODS, "drip=1", "drip=3", "drip=3,no-car", "miss=2", "trickle=1kB", "html", "flip=2"]
)
async def test_beside_an_honest_one(read_only: Published, script: str) -> None:
    """All batches come, in order, and right; what was sent in vain takes no memory."""
    store = BlockStore.open(read_only.store)
    async with ScriptedGateway(store, script) as hostile, ScriptedGateway(store, "latency=5ms") as honest:
        tracemalloc.start()
        try:
            batches = dnc.stream(
                read_only.result,
                gateways=[hostile.url, honest.url],
                spool_dir=read_only.spool,
                disk_budget="1MB",
            )
            assert [number(batch) async for batch in batches] == list(range(BATCHES))
            assert tracemalloc.get_traced_memory()[1] < 64e6
        finally:
            tracemalloc.stop()
        assert hostile.stats().requests


@pytest.mark.parametrize(("script", "said"), FLOODS.items())
async def test_a_flood_alone(read_only: Published, script: str, said: str) -> None:
    """The stream ends, and its error names the gateway and what it did."""
    store = BlockStore.open(read_only.store)
    async with ScriptedGateway(store, script) as gateway:
        batches = dnc.stream(read_only.result, gateways=[gateway.url], spool_dir=read_only.spool, disk_budget="1MB")
        with pytest.raises(ChunkUnavailableError) as raised:
            await anext(batches)
    assert f"{gateway.url}, asked for" in str(raised.value)
    assert said in str(raised.value)


async def test_a_drip_alone(read_only: Published) -> None:
    """Bytes come all the time, but hardly any: that counts as silence."""
    store = BlockStore.open(read_only.store)
    async with (
        ScriptedGateway(store, "drip=1,no-car") as gateway,
        dnc.Client(gateways=[gateway.url], disk_budget=0, settings=IMPATIENT) as client,
    ):
        with pytest.raises(ChunkUnavailableError) as raised:
            await anext(client.stream(read_only.result))
    # The second, where this machine was too slow to send a byte in time.
    assert re.search(r"\d+ bytes came in \d+ s|no answer within the limit", str(raised.value))


async def test_one_miss_of_the_only_gateway(read_only: Published) -> None:
    """A gateway that has delivered blocks, and does not find one, is asked for it again."""
    store = BlockStore.open(read_only.store)
    async with ScriptedGateway(store, Faults(miss=7, no_car=True)) as gateway:
        batches = dnc.stream(read_only.result, gateways=[gateway.url], spool_dir=read_only.spool, disk_budget="1MB")
        assert [number(batch) async for batch in batches] == list(range(BATCHES))
        assert gateway.stats().answered_miss
