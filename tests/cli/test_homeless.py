"""A user without a home and without a name: containers run so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import PATIENCE_S
from .conftest import Dataset

# platformdirs and Path.expanduser() ask pwd where HOME is not set; nobody knows this user.
NOBODY = "import os, pwd, sys; pwd.getpwuid = lambda uid: {}[uid]; os.environ.clear(); "
MAIN = "from dnc_async.cli import main; sys.exit(main(sys.argv[1:]))"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", NOBODY + MAIN, *words]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        cwd=folder,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert "Traceback" not in done.stderr
    return done


def test_where_every_folder_is_named(tmp_path: Path, dataset: Dataset) -> None:
    """Nothing else is looked for."""
    for words in (
        ["get", f"{dataset.cid}/manifest", "-o", "m", "--store", str(dataset.store)],
        ["inspect", *dataset.here],
        ["verify", "--store", str(dataset.store)],
        ["stream", *dataset.here, "--spool-dir", "spool"],
        ["stream", *dataset.here, "--budget", "0"],
    ):
        done = run(tmp_path, *words)
        assert done.returncode == 0, (words, done.stderr)
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verify"], "dnc: --store: name a folder for it (--store DIR, DNC_STORE), or set HOME"),
        (["serve", "--port", "0"], "dnc: --store: name a folder for it"),
        (
            ["stream", "CID", "--store", "STORE"],
            "dnc: --spool-dir: name a folder for it (--spool-dir DIR), or set HOME",
        ),
        (["verify", "--store", "~nobodyhere/x"], "dnc: --store: '~nobodyhere/x' has no home folder"),
        (["upload", "x.npy", "--to", "kubo"], "dnc: IPFS_PATH: '~/.ipfs' has no home folder"),
    ],
)
def test_where_one_is_needed(tmp_path: Path, dataset: Dataset, words: list[str], said: str) -> None:
    """It is told which, and how to name it."""
    named = [{"CID": dataset.cid, "STORE": str(dataset.store)}.get(word, word) for word in words]
    done = run(tmp_path, *named)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert os.listdir(tmp_path) == []


def test_without_a_store_of_its_own(tmp_path: Path) -> None:
    """Gateways are asked at once, those of the environment or those that are named."""
    done = run(tmp_path, "get", "bafkqaaa", "-o", "empty")  # the CID is the file
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "empty").read_bytes() == b""
