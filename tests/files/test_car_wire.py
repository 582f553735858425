"""Ranges of files that come in CARs: what breaks off is kept as far as it is right, and gone on with otherwise."""

from __future__ import annotations

from dataclasses import replace

import dnc_async as dnc
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_file
from dnc_async.telemetry import Event, RequestEnded
from dnc_async.testing import GatewayProcess

from .conftest import Keep, content

LEAF = 2**14


def scarce(gateway: GatewayProcess) -> dnc.Gateway:
    return dnc.Gateway(gateway.url, requests_per_minute=200)


async def test_the_verified_part_of_a_broken_car_is_kept(keep: Keep) -> None:
    """A file of many leaves over a rationed gateway that cuts every body: the beginnings add up."""
    data = content(2**20)
    blocks, root = build_file(data, replace(UNIXFS_V1_2025, leaf_bytes=LEAF))
    with GatewayProcess(keep(blocks, root.cid), "cut=200kB") as gateway:
        async with dnc.Client(gateways=scarce(gateway), disk_budget=0) as client:
            assert await client.cat(root.cid, 0, 400_000) == data[:400_000]
        assert (
            gateway.stats().requests <= 12
        )  # three would do, and thirty would be leaf by leaf: how many, time decides


async def test_a_range_that_is_ignored_is_cut_off_and_remembered(keep: Keep) -> None:
    """A gateway that sends the file from its start is asked for whole files or single blocks from then on."""
    data = content(2**21)
    blocks, root = build_file(data, replace(UNIXFS_V1_2025, leaf_bytes=LEAF))
    received: list[int] = []

    def observe(event: Event) -> None:
        if isinstance(event, RequestEnded):
            received.append(event.received_bytes)

    with GatewayProcess(keep(blocks, root.cid), "ignore-entity-bytes,rate=5MB") as gateway:
        async with dnc.Client(gateways=scarce(gateway), disk_budget=0, observers=[observe]) as client:
            for start in (1_000_000, 1_400_000):
                assert await client.cat(root.cid, start, start + 3 * LEAF) == data[start : start + 3 * LEAF]
    assert sum(received) < 2_000_000
