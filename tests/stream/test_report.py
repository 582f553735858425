"""The gap report of real streams, and the events that observers get."""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc
from dnc_async import sync
from dnc_async.store import BlockStore
from dnc_async.telemetry import BlockReceived, Event, Gap, RequestFailed
from dnc_async.testing import Faults, ScriptedGateway

from .conftest import BATCH, SAMPLES, Published

BATCHES = SAMPLES // BATCH


async def streamed(published: Published, *, stop: int | None = None, **options: Any) -> dnc.Report:
    """The report after a whole run, or after so many batches."""
    options = {"store": published.store, "spool_dir": published.spool, "disk_budget": "1MB", **options}
    async with dnc.stream(published.result, **options) as batches:
        count = 0
        async for batch in batches:
            published.check(batch, count % BATCHES)
            count += 1
            if count == stop:
                break
        return batches.report()


async def test_whole_run(published: Published) -> None:
    """What was counted fits what was published, and the causes add up."""
    async with ScriptedGateway(
        BlockStore.open(published.store), Faults.parse("rate=150kB,latency=10ms,no-car")
    ) as gateway:
        report = await streamed(published, gateways=[gateway.url])
        sent = gateway.stats()
    assert (report.batches, report.samples, report.chunks) == (BATCHES, SAMPLES, 2 * BATCHES)
    assert report.first_batch_s is not None
    assert sum(report.causes.values()) == pytest.approx(report.waited_s)
    assert report.waited_s == pytest.approx(sum(each.waited_s for each in report.timeline))
    assert report.steady_s == pytest.approx(sum(each.waited_s + each.step_s for each in report.timeline))
    assert len(report.timeline) == BATCHES - 1
    assert 0 < report.idle_share <= 1
    # The line alone takes more than a second for these bytes, and the consumer does nothing with them.
    assert report.causes["bandwidth"] > 0
    assert report.gaps.p50_s <= report.gaps.p95_s <= report.gaps.p99_s <= report.gaps.max_s
    assert published.x.nbytes + published.y.nbytes <= report.useful_bytes <= report.fetched_bytes
    assert report.peak_leased_bytes <= report.budget_bytes == 1_000_000
    assert report.peak_memory_bytes is None or report.peak_memory_bytes > 10_000_000
    (line,) = report.gateways
    assert line.url == gateway.url
    assert line.jitter_s > 0  # no two answers take quite as long
    assert line.blocks == report.blocks_verified == sent.blocks_served
    assert report.blocks < line.blocks  # the manifest and the proofs, too
    assert dnc.Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


async def test_what_if_of_a_real_run(tmp_path: Path) -> None:
    """Blocks that are large enough to measure a rate by give the model all that it needs."""
    rows = {"x": np.random.default_rng(0).normal(size=(600, 1000)).astype("f4")}
    published = await dnc.upload(rows, batch_size=50, store=tmp_path / "store")
    async with (
        ScriptedGateway(BlockStore.open(tmp_path / "store"), Faults.parse("rate=4MB,latency=10ms")) as gateway,
        dnc.stream(published, gateways=gateway.url, spool_dir=tmp_path / "spool", disk_budget="400kB") as batches,
    ):
        async for _ in batches:
            pass
        report = batches.report()
    shares = {each.name: each.idle_share for each in report.scenarios()}
    assert shares["with twice the budget"] <= shares["as it was"] <= shares["with half the budget"] <= 1
    assert "modelled, as it was" in str(report)


@pytest.mark.parametrize("workers", [0, 2])
async def test_what_if_with_a_transform(tmp_path: Path, workers: int) -> None:
    """A call takes longer than a step, one or two at a time: the model has the idle time that follows.

    What was counted is a real run's; how long things took on this machine is not the matter here.
    """
    rows = {"x": np.random.default_rng(0).normal(size=(1500, 1000)).astype("f4")}
    published = await dnc.upload(rows, batch_size=50, store=tmp_path / "store")

    def transform(batch: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.002)
        return batch

    async with (
        ScriptedGateway(BlockStore.open(tmp_path / "store"), Faults.parse("rate=40MB,latency=5ms")) as gateway,
        dnc.stream(
            published,
            gateways=gateway.url,
            spool_dir=tmp_path / "spool",
            disk_budget="2MB",
            transform=transform,
            transform_workers=workers,
        ) as batches,
    ):
        async for _ in batches:
            pass
        report = batches.report()
    assert report.transform is not None
    assert (report.transform.calls, report.transform.places) == (30, workers)
    assert report.transform.mean_s >= 0.002
    report = replace(
        report,
        transform=replace(report.transform, mean_s=0.08),
        timeline=tuple(replace(each, step_s=0.01 * each.batches) for each in report.timeline),
        gateways=tuple(replace(each, rate=40e6, latency_s=0.005, jitter_s=0.0) for each in report.gateways),
    )
    modelled = report.what_if()
    assert modelled == pytest.approx(1 - 0.01 / (0.08 / max(1, workers)), abs=0.05)
    # Nothing but the transform holds this stream up.
    for other in (report.what_if(disk_budget="4MB"), report.what_if(more_gateways=1)):
        assert other == pytest.approx(modelled, abs=0.1)


async def test_order_of_delivery(published: Published) -> None:
    """The same for the same batches, whoever brought them and under whatever budget; another for fewer, or for more."""
    async with ScriptedGateway(BlockStore.open(published.store)) as gateway:
        whole = await streamed(published, gateways=[gateway.url], disk_budget=0)
    assert (await streamed(published)).order == whole.order
    assert (await streamed(published, stop=3)).order != whole.order
    assert (await streamed(published, epochs=2)).order != whole.order


async def test_a_liar_is_named(published: Published) -> None:
    """Blocks that were thrown away are counted; what they cost is put down to their gateway where they were waited for."""
    store = BlockStore.open(published.store)
    slow = "rate=1MB,latency=20ms"
    async with ScriptedGateway(store, Faults.parse(f"{slow},flip=2")) as liar, ScriptedGateway(store, slow) as honest:
        report = await streamed(published, gateways=[liar.url, honest.url])
    assert report.blocks_rejected == report.gateways[0].rejected > 0
    faulty = {f"fault of {each.url}" for each in report.gateways if each.rejected or each.failures}
    assert {cause for cause in report.causes if cause.startswith("fault")} <= faulty
    assert sum(report.causes.values()) == pytest.approx(report.waited_s)


async def test_nothing_fetched_ahead(published: Published) -> None:
    """The setting is told, and the model, which always fetches ahead, says nothing."""
    report = await streamed(published, prefetch=0)
    assert report.settings.prefetch == 0
    assert report.scenarios() == ()


async def test_without_end(published: Published) -> None:
    """``epochs=None`` has a report at any time."""
    report = await streamed(published, epochs=None, stop=3 * BATCHES)
    assert report.batches == 3 * BATCHES
    assert report.settings.epochs is None


async def test_before_and_after(published: Published) -> None:
    """Too early is an error that says so; after the end, and after a close, the report stays."""
    batches = dnc.stream(published.result, store=published.store, spool_dir=published.spool)
    with pytest.raises(RuntimeError, match="nothing has happened yet"):
        batches.report()
    async for _ in batches:
        pass
    assert batches.report().batches == BATCHES
    with pytest.raises(FrozenInstanceError):
        batches.report().batches = 7  # type: ignore[misc]


def test_blocking_face(published: Published) -> None:
    with sync.stream(published.result, store=published.store, spool_dir=published.spool) as batches:
        with pytest.raises(RuntimeError, match="nothing has happened yet"):
            batches.report()
        assert sum(1 for _ in batches) == BATCHES
        assert batches.report().batches == BATCHES


async def test_secrets_stay_out(published: Published) -> None:
    """A user's password in a URL, and a header."""
    async with ScriptedGateway(BlockStore.open(published.store)) as gateway:
        url = gateway.url.replace("http://", "http://me:hunter2@")
        secret = dnc.Gateway(url, headers={"X-Token": "s3cret"})
        report = await streamed(published, gateways=secret)
    said = json.dumps(report.to_dict()) + str(report) + report._repr_html_()
    assert "hunter2" not in said
    assert "s3cret" not in said


async def test_progress_gets_events(published: Published) -> None:
    """Each batch and each block once, in the engine's thread."""
    events: list[Event] = []
    threads = set()

    def progress(event: Event) -> None:
        threads.add(threading.current_thread().name)
        events.append(event)

    store = BlockStore.open(published.store)
    async with ScriptedGateway(store, Faults.parse("flip=1")) as liar, ScriptedGateway(store) as honest:
        report = await streamed(published, gateways=[liar.url, honest.url], progress=progress)
    gaps = [event for event in events if isinstance(event, Gap)]
    assert [gap.position for gap in gaps] == list(range(BATCHES))
    assert {gap.stream for gap in gaps} == {published.result.cid}
    assert sum(gap.seconds for gap in gaps[1:]) == pytest.approx(report.waited_s)
    assert sum(isinstance(event, BlockReceived) for event in events) == report.blocks_verified
    assert sum(isinstance(event, RequestFailed) for event in events) == report.requests_failed > 0
    assert threads == {"dnc_async engine"}


async def test_observers_of_a_client(published: Published) -> None:
    """They hear of all its streams, of each block once; ``progress`` hears of its own stream's batches."""
    heard: list[Event] = []
    own: list[Event] = []
    async with (
        ScriptedGateway(BlockStore.open(published.store)) as gateway,
        dnc.Client(
            gateways=gateway.url, spool_dir=published.spool, disk_budget="2MB", observers=[heard.append]
        ) as client,
    ):
        first, second = client.stream(published.result), client.stream(published.result, progress=own.append)
        for batches in (first, second):
            async for _ in batches:
                pass
        verified = second.report().blocks_verified
    assert sum(isinstance(event, Gap) for event in heard) == 2 * BATCHES
    assert sum(isinstance(event, Gap) for event in own) == BATCHES
    assert sum(isinstance(event, BlockReceived) for event in heard) == verified


async def test_an_observer_that_fails(published: Published, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the stream goes on."""

    def broken(_: Event) -> None:
        raise ZeroDivisionError("mine")

    with caplog.at_level(logging.ERROR, "dnc_async"):
        report = await streamed(published, progress=broken)
    assert report.batches == BATCHES
    assert "an observer failed" in caplog.text


def test_observers_are_checked() -> None:
    """At once, by name."""
    with pytest.raises(dnc.ArgumentError, match="progress: expected a callable"):
        dnc.stream("bafkqaaa", progress=True, disk_budget=0)  # type: ignore[arg-type]
    with pytest.raises(dnc.ArgumentError, match="observers: expected a callable"):
        dnc.Client(observers=[7], disk_budget=0)  # type: ignore[list-item]


def test_logging_is_quiet_by_default() -> None:
    """A library says nothing where nobody asked it to."""
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("dnc_async").handlers)
