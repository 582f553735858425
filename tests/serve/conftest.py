"""A store with every fixture CAR that Kubo made, and with a few blocks of our own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from dnc_async.ipld.block import Block
from dnc_async.ipld.car import CarReader
from dnc_async.ipld.cid import Cid
from dnc_async.store import BlockStore

FIXTURES = Path(__file__).parent.parent / "fixtures"


def read_car(data: bytes) -> list[Block]:
    reader = CarReader()
    blocks = reader.feed(data)
    reader.close()
    return blocks


@pytest.fixture(scope="session")
def roots() -> dict[str, Cid]:
    """Give the root CID of each fixture, by its name."""
    index = json.loads((FIXTURES / "index.json").read_text())
    return {entry["name"]: Cid.parse(entry["root"]) for entry in index["fixtures"]}


@pytest.fixture(scope="session")
def fixture_files() -> dict[str, dict[str, Any]]:
    """Give the files of each fixture: path to size and digest."""
    index = json.loads((FIXTURES / "index.json").read_text())
    return {entry["name"]: entry["files"] for entry in index["fixtures"]}


@pytest.fixture(scope="session")
def fixture_blocks(roots: dict[str, Cid]) -> dict[str, list[Block]]:
    """Give the blocks of each fixture, in the CAR's order."""
    return {name: read_car((FIXTURES / f"{name}.car").read_bytes()) for name in roots}


@pytest.fixture(scope="session")
def fill() -> Callable[[BlockStore, Iterable[Block]], None]:
    """Put blocks into a store; the last one is committed as the root."""

    def put(store: BlockStore, blocks: Iterable[Block]) -> None:
        with store.begin() as transaction:
            for block in blocks:
                transaction.put(block)
            transaction.commit(block.cid)

    return put


@pytest.fixture(scope="session")
def kubo_store(
    tmp_path_factory: pytest.TempPathFactory,
    fixture_blocks: dict[str, list[Block]],
    fill: Callable[[BlockStore, Iterable[Block]], None],
) -> BlockStore:
    """All fixtures in one store; nobody writes to it."""
    store = BlockStore.open(tmp_path_factory.mktemp("kubo") / "store", create=True)
    for blocks in fixture_blocks.values():
        fill(store, blocks)
    return store
