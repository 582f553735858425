"""Trees of our own making in a store, and what must be gone when a call has ended."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from dnc_async.ipld.block import Block
from dnc_async.ipld.cid import Cid
from dnc_async.store import BlockStore

from ..conftest import PATIENCE_S

Keep = Callable[[Iterable[Block], Cid], Path]


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """Put blocks into a store of the test's own; gives its folder."""

    def put(blocks: Iterable[Block], root: Cid) -> Path:
        store = BlockStore.open(tmp_path / "store", create=True)
        with store.begin() as transaction:
            for block in blocks:
                transaction.put(block)
            transaction.commit(root)
        return tmp_path / "store"

    return put


def content(size: int, seed: int = 0) -> bytes:
    """Bytes of which no two parts are alike."""
    return b"".join(hashlib.sha256(b"%d/%d" % (seed, i)).digest() for i in range(-(-size // 32)))[:size]


def threads() -> list[str]:
    """The engine's threads that have not ended: one that is about to is waited for."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = [t.name for t in threading.enumerate() if t.name.startswith("dnc_async")]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.005)
