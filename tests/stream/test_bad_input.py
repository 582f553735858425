"""Bad input gets one typed error that says what was expected and what to do."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc
from dnc_async import errors
from dnc_async.cli import main
from dnc_async.ipld.block import make
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_directory
from dnc_async.store import BlockStore
from dnc_async.testing import Faults, ScriptedGateway

from .conftest import BATCH, SAMPLES, Published


async def consume(published: Published, **options: Any) -> int:
    options = {"store": published.store, "spool_dir": published.spool, "disk_budget": "1MB", **options}
    count = 0
    async for batch in dnc.stream(options.pop("cid", published.result), **options):
        published.check(batch, count)
        count += 1
    return count


async def test_no_gateway_answers(published: Published) -> None:
    """Each gateway is named with what it said."""
    closed = ["http://127.0.0.1:9", "http://127.0.0.1:10"]
    with pytest.raises(dnc.ChunkUnavailableError) as caught:
        await consume(published, gateways=closed)
    assert all(url in str(caught.value) for url in closed)
    assert len(caught.value.exceptions) == 2


async def test_not_a_dataset(published: Published) -> None:
    """A raw block, and a directory without a manifest."""
    blocks, root = build_directory([], UNIXFS_V1_2025)
    store = BlockStore.open(published.store)
    with store.begin() as transaction:
        transaction.put(blocks[0])
        transaction.put(make(b"just bytes"))
        transaction.commit(root.cid)
    for cid in (root.cid, make(b"just bytes").cid):
        with pytest.raises(dnc.ManifestError, match="is not a dataset"):
            await consume(published, cid=cid)
    with pytest.raises(dnc.ManifestError, match="'nothing'"):
        await consume(published, cid=f"/ipfs/{published.result}/nothing")


async def test_budget_too_small(published: Published) -> None:
    """The error names the smallest budget that works, and it does."""
    with pytest.raises(dnc.BudgetTooSmallError) as caught:
        await consume(published, disk_budget=1)
    smallest = caught.value.smallest_bytes
    with pytest.raises(dnc.BudgetTooSmallError):
        await consume(published, disk_budget=smallest - 1)
    assert await consume(published, disk_budget=smallest) == SAMPLES // BATCH
    assert await consume(published, disk_budget=0) == SAMPLES // BATCH


@pytest.mark.parametrize(
    "options",
    [
        {"gateways": []},
        {"gateways": ["nonsense"]},
        {"gateways": ["ftp://x"]},
        {"disk_budget": "much"},
        {"disk_budget": -1},
        {"epochs": 0},
        {"prefetch": -1},
        {"cid": 7},
    ],
)
async def test_arguments(published: Published, options: dict[str, Any]) -> None:
    """The argument is named, before anything is started."""
    with pytest.raises(dnc.ArgumentError, match=next(iter(options))):
        await consume(published, **options)


async def test_wrong_cid(published: Published) -> None:
    """Text that is not a CID."""
    with pytest.raises(dnc.CidError, match="cid:"):
        await consume(published, cid="bafynonsense")


async def test_folders_that_are_files(published: Published, tmp_path: Path) -> None:
    """A spool folder and a store that are files."""
    (tmp_path / "file").write_text("")
    with pytest.raises(dnc.SpoolError, match="spool_dir"):
        await consume(published, spool_dir=tmp_path / "file")
    with pytest.raises(dnc.StoreError):
        await dnc.upload({"x": published.x}, store=tmp_path / "file")


async def blocks(*items: Any) -> AsyncIterator[Any]:
    for item in items:
        yield item


@pytest.mark.parametrize(
    "source",
    [
        {"x": [[1], [1, 2]]},
        {"x": np.arange(3), "y": np.arange(4)},
        {"x": np.empty(0)},
        {},
        {"x": np.array([object()])},
        {"x": 1.0},
        {1: np.arange(3)},
        "missing.npy",
        "table.parquet",
    ],
)
async def test_sources(source: Any, tmp_path: Path) -> None:
    """Nothing is published of a source that cannot be divided."""
    with pytest.raises(dnc.DatasetError):
        await dnc.upload(source, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


async def test_source_that_changes(tmp_path: Path) -> None:
    """A block unlike the ones before it is named, and nothing stays in the store."""
    bad = blocks({"x": np.arange(5)}, {"x": np.arange(5.0)})
    with pytest.raises(dnc.DatasetError, match="block 1"):
        await dnc.upload(bad, batch_size=2, store=tmp_path / "store")
    assert [path for path in (tmp_path / "store" / "blocks").rglob("*") if path.is_file()] == []
    with pytest.raises(dnc.ArgumentError, match="batch_size"):
        await dnc.upload({"x": np.arange(5)}, batch_size=0, store=tmp_path / "store")
    with pytest.raises(dnc.ArgumentError, match="source"):
        await dnc.upload(7, store=tmp_path / "store")


async def test_liar_beside_an_honest_gateway(published: Published) -> None:
    """A gateway that lies in every block costs time, never correctness; alone, it is an error that says so."""
    store = BlockStore.open(published.store)
    async with ScriptedGateway(store, Faults.parse("flip=1")) as liar, ScriptedGateway(store) as honest:
        gateways = [liar.url, honest.url]
        async with dnc.stream(published.result, gateways=gateways, spool_dir=published.spool, epochs=None) as batches:
            count = 0
            async for batch in batches:
                published.check(batch, count % (SAMPLES // BATCH))
                count += 1
                if count >= SAMPLES // BATCH and batches.statistics().blocks_rejected:
                    break
        with pytest.raises(dnc.ChunkUnavailableError) as caught:
            await consume(published, gateways=[liar.url])
        assert isinstance(caught.value.exceptions[0], errors.GatewayMismatchError)


def test_shell(published: Published, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """No traceback in the shell, and the right status."""
    assert main(["stream", "nonsense"]) == 1
    assert main(["stream", str(published.result), "--store", str(published.store), "--budget", "nonsense"]) == 2
    assert main(["upload", str(tmp_path / "missing.npy"), "--store", str(tmp_path / "s")]) == 1
    assert "Traceback" not in capsys.readouterr().err
    spool = ["--spool-dir", str(published.spool), "--budget", "1MB"]
    assert main(["stream", str(published.result), "--store", str(published.store), *spool]) == 0
    assert f"{SAMPLES // BATCH} batches" in capsys.readouterr().out
    assert main(["stream", str(published.result), "--store", str(published.store), *spool, "--json"]) == 0
    assert main(["inspect", str(published.result), "--store", str(published.store)]) == 0
    assert f"{SAMPLES:,} samples" in capsys.readouterr().out
    np.save(tmp_path / "a.npy", published.x)
    assert main(["upload", str(tmp_path / "a.npy"), "--store", str(published.store)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("bafy")


@pytest.mark.parametrize("limit", [0, -1, float("nan")])
def test_a_gateway_that_allows_no_requests(limit: float) -> None:
    """Refused where it is said, with what would do."""
    with pytest.raises(dnc.DncError, match="requests_per_minute: expected more than 0"):
        dnc.Gateway("http://127.0.0.1:8080", requests_per_minute=limit)


async def test_requests_per_minute_reach_the_gateway(published: Published) -> None:
    """A few at once, and then no more than the limit allows."""
    async with ScriptedGateway(BlockStore.open(published.store)) as gateway:
        slow = dnc.Gateway(gateway.url, requests_per_minute=1200)
        async with dnc.Client(gateways=slow, disk_budget=0) as client:
            began = time.monotonic()
            for _ in range(30):
                await client.cat(f"{published.result.cid}/manifest", 1)
            seconds = time.monotonic() - began
        assert 30 <= gateway.stats().requests <= 11 + 20 * seconds
