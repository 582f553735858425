"""Numbers and sizes as options: numpy's are numbers, too, and what is no number is named."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dnc_async as dnc
from dnc_async.client import StreamCall
from dnc_async.config.numbers import parse_size, whole_number
from dnc_async.engine.options import StreamOptions


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (64, 64),
        (1.5, 1),
        (0, 0),
        (0.0, 0),
        (np.int64(64), 64),
        (np.uint8(64), 64),
        (np.float64(2.0), 2),
        (np.float32(0.0), 0),
        (np.array(7), 7),
        ("64MB", 64 * 10**6),
        ("64 MB", 64 * 10**6),
        (" 64M", 64 * 10**6),
        ("64\u00a0MiB", 64 * 2**20),
        ("0.5 MB", 500_000),
        ("9007199254740993", 2**53 + 1),
        ("0", 0),
    ],
)
def test_sizes(value: Any, size: int) -> None:
    """Exactly, and as a plain int."""
    found = parse_size(value, name="disk_budget")
    assert found == size
    assert type(found) is int


@pytest.mark.parametrize(
    "value",
    [
        0.5,
        1e-09,
        np.float64(0.5),
        "0.5",
        "0.0001 kB",
        float("nan"),
        float("inf"),
        np.float64("nan"),
        -1,
        np.int64(-1),
        2**63,
        "٣MB",
        "³MB",
        "1_0 MB",
        "1e3",
        "much",
        "",
        "9" * 400,
        "9 XB",
        "0x10",
        "-1",
        "9999999 TB",
        b"64",
        None,
        [64],
        True,
        np.True_,
        np.array([1, 2]),
        1j,
    ],
)
def test_what_is_no_size(value: Any) -> None:
    """The option is named, and what would do."""
    with pytest.raises(dnc.ArgumentError, match=r"disk_budget: expected a size such as .* got"):
        parse_size(value, name="disk_budget")


@pytest.mark.parametrize("value", [4, np.int64(4), np.uint8(4), np.array(4)])
def test_whole_numbers(value: Any) -> None:
    """They become plain ints."""
    found = whole_number(value, name="epochs", least=1)
    assert found == 4
    assert type(found) is int


@pytest.mark.parametrize("value", [True, np.True_, 4.0, np.float64(4), "4", None, 0, -4, 2**64, np.array([4, 4]), 4j])
def test_what_is_no_whole_number(value: Any) -> None:
    """Booleans are none, and neither are floats that happen to be whole."""
    with pytest.raises(dnc.ArgumentError, match="epochs: expected a whole number, at least 1, got"):
        whole_number(value, name="epochs", least=1)


async def test_every_option_takes_numpys(tmp_path: Path) -> None:
    """As they come out of a computation, or a grid of parameters."""
    store = tmp_path / "store"
    done = await dnc.upload({"x": np.arange(8)}, batch_size=np.int64(4), chunk_bytes=np.int32(1000), store=store)
    assert (done.samples, done.batches) == (8, 2)
    assert type(done.batches) is int
    stream = dnc.stream(
        done,
        epochs=np.int64(2),
        prefetch=np.uint8(1),
        transform=lambda batch: batch,
        transform_workers=np.int64(2),
        disk_budget=np.float64(10**6),
        store=store,
        spool_dir=tmp_path / "spool",
    )
    assert [len(batch["x"]) async for batch in stream] == [4] * 4
    report = stream.report()
    report.what_if(disk_budget=np.int64(10**6), more_gateways=np.int64(1))
    assert dnc.Gateway("http://127.0.0.1:1", requests_per_minute=np.int64(9)).requests_per_minute == 9.0


@pytest.mark.parametrize(
    "options", [{"epochs": True}, {"prefetch": "all"}, {"prefetch": np.True_}, {"transform_workers": 1.5}]
)
def test_wrong_options(options: dict[str, Any]) -> None:
    """The option is named at once."""
    with pytest.raises(dnc.ArgumentError, match=f"{next(iter(options))}: expected"):
        dnc.stream("bafkqaaa", **options)


@pytest.mark.parametrize("rate", [True, "200", float("inf"), np.float64("nan")])
def test_requests_per_minute(rate: Any) -> None:
    """A number above 0, and no end of it is None."""
    with pytest.raises(dnc.ArgumentError, match="requests_per_minute: expected more than 0"):
        dnc.Gateway("http://127.0.0.1:1", requests_per_minute=rate)


def test_what_goes_to_another_process() -> None:
    """All that the engine must know: not the consumer's functions, and not the gateways' tokens, which the request has."""
    call = StreamCall(
        "bafkqaaa",
        epochs=3,
        drop_last=True,
        prefetch=2,
        gateways="https://token@example.org",
        transform=len,
        progress=print,
    )
    sent = pickle.dumps(call)
    assert pickle.loads(sent) == StreamOptions(epochs=3, drop_last=True, prefetch=2)  # noqa: S301 - ours
    assert b"token" not in sent
