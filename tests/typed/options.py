"""What type checkers know of a stream's options. Not run: mypy reads it, and reports a line that it should have refused."""

from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any, assert_type

import dnc_async as dnc
from dnc_async import sync
from dnc_async.sync import BlockingStream
from dnc_async.telemetry import Event


def observe(event: Event) -> None:
    print(event)


def transform(batch: dict[str, Any]) -> Any:
    return batch["x"]


def with_a_client_of_its_own(cid: dnc.UploadResult, executor: Executor) -> None:
    """By position or by name; options by name alone."""
    assert_type(dnc.stream("bafy"), dnc.BatchStream)
    assert_type(dnc.stream(cid=cid, gateways=[dnc.Gateway("https://example.org")], epochs=None), dnc.BatchStream)
    dnc.stream(cid, disk_budget="64 MB", engine="process", prefetch="auto", drop_last=True, progress=observe)
    dnc.stream(cid, disk_budget=0, prefetch=2, transform=transform, transform_workers=executor)
    dnc.stream()  # type: ignore[call-arg]
    dnc.stream(cid, "https://example.org")  # type: ignore[call-arg]
    dnc.stream(cid, shuffel=True)  # type: ignore[call-arg]
    dnc.stream(cid, drop_last=3)  # type: ignore[arg-type]
    dnc.stream(cid, engine="fork")  # type: ignore[arg-type]


async def with_a_client(client: dnc.Client) -> None:
    """What is the client's is no option of its streams."""
    assert_type(client.stream("bafy", epochs=2, transform=transform), dnc.BatchStream)
    client.stream(cid="bafy", prefetch=0)
    client.stream("bafy", disk_budget=0)  # type: ignore[call-arg]
    client.stream("bafy", epochs="2")  # type: ignore[arg-type]


def blocking(cid: str) -> Iterator[Any]:
    """The same options."""
    assert_type(sync.stream(cid, gateways="https://example.org", drop_last=True), BlockingStream)
    sync.download_first(cid, disk_budget="2 GB")
    sync.stream(cid, disk_budged=1)  # type: ignore[call-arg]
    yield from sync.stream(cid=cid)
