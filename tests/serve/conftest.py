"""A client that asks for nothing by itself, and a store with one large file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import aiohttp
import pytest

from dnc_async.ipld.block import Block
from dnc_async.ipld.builder import UNIXFS_V1_2025, Root, build_file
from dnc_async.store import BlockStore


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=("Accept", "Accept-Encoding")) as client:
        yield client


@pytest.fixture
def file(tmp_path: Path, fill: Callable[[BlockStore, Iterable[Block]], None]) -> tuple[BlockStore, Root, list[Block]]:
    """A store with one file of 8 MiB and 5 bytes."""
    store = BlockStore.open(tmp_path / "store", create=True)
    data = b"".join(number.to_bytes(4, "big") * 2**18 for number in range(8)) + b"12345"
    blocks, root = build_file(data, UNIXFS_V1_2025)
    fill(store, blocks)
    return store, root, blocks
