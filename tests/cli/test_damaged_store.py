"""A block of the local store that is wrong or cannot be read: told at once, with what mends it, and mended by that."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest

import dnc_async as dnc
from dnc_async.config import FetchSettings

from ..conftest import Shell
from .conftest import BATCH, SAMPLES, Dataset

pytestmark = pytest.mark.processes


@pytest.fixture
def published(shell: Shell, dataset: Dataset) -> str:
    """The dataset in a store of its own, from a file."""
    np.savez(shell.home / "t.npz", **dataset.rows)
    return shell("upload", "t.npz", "--batch-size", BATCH, "--store", "s").stdout.split()[-1]


def a_leaf(shell: Shell) -> Path:
    return max(
        (path for path in (shell.home / "s/blocks").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size
    )


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def make_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("spoil", [flip, make_folder, make_fifo])
@pytest.mark.parametrize("mend", ["upload", "import"])
def test_it_is_told_and_mended(shell: Shell, published: str, spoil: object, mend: str) -> None:
    """Every command that reads fails with a line that names the block; publishing or importing the same data again mends it."""
    assert callable(spoil)
    shell("export", published, "--store", "s", "-o", "whole.car")
    spoil(a_leaf(shell))
    for words in (["stream", published], ["get", published, "-o", "copy"]):
        done = shell(*words, "--store", "s", status=1)
        assert f"local store {shell.home / 's'}" in done.stderr
        assert "publish or import the same data again" in done.stderr
    assert "0 blocks missing, 1 wrong" in shell("verify", "--store", "s", status=1).stdout
    assert "cannot export" in shell.refuses("export", published, "--store", "s", "-o", "x.car")
    again = {"upload": ["upload", "t.npz", "--batch-size", BATCH], "import": ["import", "whole.car"]}[mend]
    assert shell(*again, "--store", "s").stdout.split()[-1] == published
    assert "complete" in shell("verify", "--store", "s").stdout
    shell("stream", published, "--store", "s")


def test_served(shell: Shell, published: str) -> None:
    """A gateway over the store fails for that block alone, and goes on."""

    async def streamed(url: str) -> int:
        settings = FetchSettings(patience_s=0.0)  # else it is given 20 s to come to its senses
        async with dnc.Client(gateways=url, disk_budget=0, settings=settings) as client:
            return len([batch async for batch in client.stream(published)])

    with shell.start("serve", "--store", "s", "--port", 0) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        leaf = a_leaf(shell)
        kept = leaf.read_bytes()
        make_fifo(leaf)
        with pytest.raises(dnc.ChunkUnavailableError, match="no gateway could serve"):
            asyncio.run(streamed(url))
        leaf.unlink()
        leaf.write_bytes(kept)
        assert asyncio.run(streamed(url)) == SAMPLES // BATCH


def test_verify_names_files_of_others(shell: Shell, published: str) -> None:
    """And ignores them."""
    for folder in ("s", "s/roots", "s/blocks"):
        (shell.home / folder / ".DS_Store").write_bytes(b"x")
    done = shell("verify", "--store", "s")
    assert f"{published}: complete" in done.stdout
    assert "roots/.DS_Store is not the store's, and is ignored" in done.stderr
