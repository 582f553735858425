"""The blocking face, inside and outside of a running event loop."""

import numpy as np
import pytest

from dnc_async import sync
from dnc_async.errors import StreamClosedError
from dnc_async.system import tree_disk_bytes

from .conftest import BATCH, SAMPLES, Published, left


def notebook(published: Published) -> None:
    """What a notebook of the original idea does."""
    batch = sync.download_first(published.result, store=published.store, spool_dir=published.spool, disk_budget="90kB")
    count = 0
    while batch is not None:
        published.check(batch, count)
        count += 1
        batch = sync.download_next()
        assert tree_disk_bytes(published.spool) <= 90_000
    assert count == SAMPLES // BATCH
    assert left(published.spool) == []
    assert sync.download_next() is None


def test_outside_of_a_loop(published: Published) -> None:
    """In a script."""
    notebook(published)


async def test_inside_a_loop(published: Published) -> None:
    """In a cell, whose thread already runs a loop; upload() too."""
    assert (
        sync.upload({"x": published.x, "y": published.y}, batch_size=BATCH, store=published.store).cid
        == published.result.cid
    )
    notebook(published)


def test_break_and_close(published: Published) -> None:
    """A plain loop that is left, and a stream that is closed."""
    with sync.stream(published.result, store=published.store, spool_dir=published.spool) as batches:
        for batch in batches:
            published.check(batch, 0)
            break
    assert left(published.spool) == []
    with pytest.raises(StreamClosedError):
        next(batches)


@pytest.mark.parametrize("budget", [0, "90kB", "1MB"])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_values(published: Published, budget: int | str, batch_size: int) -> None:
    """A tuple with text, dates and flags comes back as it was, writable, whatever the batch size and budget."""
    n = 100
    source = (
        published.x[:n],
        np.array([f"flight {i}" * (i % 5) for i in range(n)]),
        np.arange(n).astype("M8[D]"),
        np.arange(n) % 2 == 0,
        np.empty((n, 0), ">i2"),
    )
    result = sync.upload(source, batch_size=batch_size, store=published.store)
    batches = list(sync.stream(result, store=published.store, spool_dir=published.spool, disk_budget=budget))
    assert len(batches) == -(-n // batch_size)
    for index, column in enumerate(source):
        whole = np.concatenate([batch[index] for batch in batches])
        assert whole.shape == column.shape
        assert (whole == column).all()
        assert all(batch[index].flags.writeable for batch in batches)


@pytest.mark.parametrize("budget", [0, "150kB", "1MB"])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_bytes_come_back_as_they_were(published: Published, budget: int | str, batch_size: int) -> None:
    """Of any length, with zeros at their end, in blocks that were cut anywhere."""
    rng = np.random.default_rng(2)
    media = [rng.bytes(int(length)) + b"\0" for length in rng.integers(0, 2000, 50)]
    pieces = [{"m": media[:13], "y": np.arange(13)}, {"m": media[13:], "y": np.arange(13, 50)}]
    result = sync.upload(iter(pieces), batch_size=batch_size, store=published.store)
    whole = sync.upload({"m": media, "y": np.arange(50)}, batch_size=batch_size, store=published.store)
    assert whole.cid == result.cid
    found: list[bytes] = []
    for batch in sync.stream(result, store=published.store, spool_dir=published.spool, disk_budget=budget):
        assert (batch["y"] == np.arange(len(found), len(found) + len(batch["y"]))).all()
        found += batch["m"].tolist()
    assert found == media
    assert left(published.spool) == []
