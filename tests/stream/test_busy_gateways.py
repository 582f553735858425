"""Gateways that ask to be left alone for a while: that is said, and not waited for longer than the patience is."""

import logging

import pytest

import dnc_async as dnc
from dnc_async.errors import ChunkUnavailableError
from dnc_async.store import BlockStore
from dnc_async.telemetry import Event, RequestEnded
from dnc_async.testing import Faults, ScriptedGateway

from .conftest import BATCHES, Published, number

AWAY = "busy=0s-600s,retry-after=86400s"


async def test_alone_and_away_for_a_day(read_only: Published) -> None:
    """The stream ends at once, and its error says who asked for what."""
    async with ScriptedGateway(BlockStore.open(read_only.store), Faults.parse(AWAY)) as gateway:
        batches = dnc.stream(read_only.result, gateways=[gateway.url], spool_dir=read_only.spool, disk_budget="1MB")
        with pytest.raises(ChunkUnavailableError) as raised:
            await anext(batches)
    assert f"{gateway.url}, asked for" in str(raised.value)
    assert "come back in 86400 s" in str(raised.value)


async def test_what_a_pause_means_is_told(read_only: Published, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads the log knows for whom is waited, and how long; of two the first to ask for a pause leaves the other."""
    store = BlockStore.open(read_only.store)
    async with ScriptedGateway(store, Faults.parse(AWAY)) as one, ScriptedGateway(store, Faults.parse(AWAY)) as two:
        batches = dnc.stream(
            read_only.result, gateways=[one.url, two.url], spool_dir=read_only.spool, disk_budget="1MB"
        )
        with caplog.at_level(logging.WARNING, "dnc_async"), pytest.raises(ChunkUnavailableError):
            await anext(batches)
    for gateway in (one, two):
        assert f"{gateway.url} asked us to come back in 86400 s" in caplog.text
    assert "nobody else can be asked meanwhile" in caplog.text


async def test_another_is_asked_meanwhile(read_only: Published) -> None:
    """One that is away for a day costs nothing where another serves."""
    store = BlockStore.open(read_only.store)
    async with ScriptedGateway(store, Faults.parse(AWAY)) as away, ScriptedGateway(store, Faults()) as gateway:
        gateways = [away.url, gateway.url]
        batches = dnc.stream(read_only.result, gateways=gateways, spool_dir=read_only.spool, disk_budget="1MB")
        assert [number(batch) async for batch in batches] == list(range(BATCHES))


async def test_all_that_came_is_counted(read_only: Published) -> None:
    """What was cut off or came twice, too; and what of it was of use."""
    store, ended = BlockStore.open(read_only.store), list[Event]()
    async with (
        ScriptedGateway(store, Faults.parse("cut=5kB,no-car")) as cut,
        ScriptedGateway(store, Faults()) as gateway,
    ):
        gateways = [cut.url, gateway.url]
        async with dnc.Client(
            gateways=gateways, spool_dir=read_only.spool, disk_budget="1MB", observers=[ended.append]
        ) as client:
            batches = client.stream(read_only.result)
            assert [number(batch) async for batch in batches] == list(range(BATCHES))
        figures, served = batches.statistics(), cut.stats().bytes_served + gateway.stats().bytes_served
    assert figures.verified_bytes < figures.fetched_bytes <= served
    assert figures.fetched_bytes == sum(each.received_bytes for each in ended if isinstance(each, RequestEnded))
    assert 0 < figures.useful_bytes < figures.verified_bytes
    assert sum(each.received_bytes for each in figures.gateways) == figures.fetched_bytes
