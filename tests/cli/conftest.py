"""A small dataset, published once, that the commands of these tests only read."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import dnc_async as dnc

SAMPLES, BATCH = 3_000, 200


@dataclass(frozen=True)
class Dataset:
    """Its rows, its CID, and the store that holds it."""

    rows: dict[str, np.ndarray]
    cid: str
    store: Path

    @property
    def here(self) -> list[str]:
        """The words that name it and its store."""
        return [self.cid, "--store", str(self.store)]


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    rng = np.random.default_rng(0)
    rows = {"x": rng.normal(size=(SAMPLES, 40)).astype("<f4"), "y": np.arange(SAMPLES)}
    store = tmp_path_factory.mktemp("published") / "store"
    published = asyncio.run(dnc.upload(rows, batch_size=BATCH, store=store))
    return Dataset(rows, published.cid, store)
