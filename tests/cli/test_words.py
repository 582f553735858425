"""Errors in the shell name options, as they are typed, and what can be done there."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from dnc_async.cli.words import in_shell_words
from dnc_async.errors import ArgumentError, DncError, ReportError, SpoolError

from ..conftest import Shell
from .conftest import Dataset

WRONG = [
    ("upload {table} --to mars", "--to: "),
    ("upload {table} --to kubo", "--to 'kubo': "),
    ("upload {table} --to kubo=ftp://x", "--to: "),
    ("upload {table} --batch-size 0", "--batch-size: "),
    ("upload {table} --chunk-bytes 0", "--chunk-bytes: "),
    ("upload {table} --chunk-bytes much", "--chunk-bytes: "),
    ("stream {cid} --gateway x", "--gateway: "),
    ("stream {cid} --router x", "--router: "),
    ("stream {cid} --budget much", "--budget: "),
    ("stream {cid} --epochs 0", "--epochs: "),
    ("inspect {cid} --gateway x", "--gateway: "),
    ("inspect {cid} --router x", "--router: "),
    ("get {cid} --gateway x", "--gateway: "),
    ("get {cid} --router x", "--router: "),
    ("stream {cid} --gateway discover", "--gateway: "),
    ("serve --fault x=1", "--fault: "),
    ("demo --budget much", "--budget: "),
    ("demo --batch-size 0", "--batch-size: "),
    ("demo --seed -1", "--seed: "),
    ("serve --port x", "dnc serve: error: argument --port: expected 0 to 65535"),
]


@pytest.mark.parametrize(("line", "begins"), WRONG)
def test_wrong_usage(shell: Shell, tmp_path: Path, dataset: Dataset, line: str, begins: str) -> None:
    """One line that begins with the option, and status 2."""
    np.save(tmp_path / "t.npy", np.zeros((8, 2)))
    there = Shell(shell.home, {"IPFS_GATEWAY": "https://gateway.example"})
    done = there(*line.format(table=tmp_path / "t.npy", cid=dataset.cid).split(), status=2)
    said = done.stderr.splitlines()[-1].removeprefix("dnc: ")
    assert said.startswith(begins)
    for word in ("disk_budget", "batch_size", "chunk_bytes", "gateways:", "routers=", "None"):
        assert word not in said


def test_what_is_wrong_in_the_environment(shell: Shell, dataset: Dataset) -> None:
    """Is no option's fault."""
    there = Shell(shell.home, {"IPFS_GATEWAY": "nonsense"})
    assert there.refuses("inspect", dataset.cid, status=2).startswith("IPFS_GATEWAY: ")


def test_a_spool_that_cannot_be(shell: Shell, dataset: Dataset) -> None:
    """Where nothing can be written, as in /proc, that is told: memory alone is what --budget 0 asks for."""
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc")
    said = shell.refuses("stream", *dataset.here, "--spool-dir", "/proc/zz")
    assert said.startswith("--spool-dir /proc/zz: cannot be used")


def test_a_cid_that_is_nowhere(shell: Shell, dataset: Dataset, tmp_path: Path) -> None:
    """The local store is named beside the gateways, whether there is one or not."""
    said = shell("inspect", dataset.cid, status=1).stderr.splitlines()[-1]
    assert "local store" in said
    assert "there is no store in this folder" in said
    shell("add", __file__, "--store", tmp_path / "s")
    said = shell("inspect", dataset.cid, "--store", tmp_path / "s", status=1).stderr.splitlines()[-1]
    assert f"local store {tmp_path / 's'}: does not hold the root" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ArgumentError("disk_budget: expected much, got 'disk_budget'"), "--budget: expected much, got 'disk_budget'"),
        (SpoolError("x: is full; stage in memory with disk_budget=0"), "x: is full; stage in memory with --budget 0"),
        (
            SpoolError("spool_dir /a/spool_dir: no; another spool_dir"),
            "--spool-dir /a/spool_dir: no; another --spool-dir",
        ),
        (ReportError("budget: cannot be read"), "budget: cannot be read"),
        (ArgumentError("cid: not a CID"), "cid: not a CID"),
        (DncError("to the budget: epochs of a gateway"), "to the budget: epochs of a gateway"),
    ],
)
def test_words(error: DncError, said: str) -> None:
    """Only names of arguments are replaced, where they stand for these."""
    options = argparse.Namespace(run=None, cid="", budget="", spool_dir="", gateway=None, epochs=1, to="")
    assert in_shell_words(error, options) == said
