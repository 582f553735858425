"""A store with one file of 1 MiB in leaves of 64 KiB, no two alike."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest

from dnc_async.ipld.block import Block
from dnc_async.ipld.builder import UNIXFS_V1_2025, build_file
from dnc_async.ipld.cid import Cid
from dnc_async.store import BlockStore


@dataclass(frozen=True)
class Published:
    """What is in the store."""

    store: BlockStore
    root: Cid
    leaves: list[Block]
    data: bytes


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Publish the file; tests only read it."""
    data = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(2**15))
    blocks, root = build_file(data, dataclasses.replace(UNIXFS_V1_2025, leaf_bytes=2**16))
    store = BlockStore.open(tmp_path_factory.mktemp("published") / "store", create=True)
    with store.begin() as transaction:
        for block in blocks:
            transaction.put(block)
        transaction.commit(root.cid)
    return Published(store, root.cid, [block for block in blocks if block.cid != root.cid], data)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client that retries nothing."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        yield client
