"""Ctrl-C in the shell: exit status 130, one word, nothing left behind."""

import json
import os
import pty
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from ..conftest import PATIENCE_S, Shell, eventually, interrupt
from .conftest import Dataset


@pytest.mark.parametrize("budget", ["1MB", "0"])
def test_stream(shell: Shell, dataset: Dataset, budget: str) -> None:
    """While batches come."""
    with shell.start("stream", *dataset.here, "--budget", budget, "--epochs", 10_000, "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["batch"] == 0
        assert interrupt(process) == (130, "interrupted\n")
    assert shell.files() == []


def test_stream_that_waits(shell: Shell, dataset: Dataset) -> None:
    """While nothing comes: the gateway is silent."""
    with shell.start("serve", "--store", dataset.store, "--port", 0, "--fault", "latency=600s") as gateway:
        assert gateway.stdout is not None
        url = gateway.stdout.readline().strip()
        with shell.start("stream", dataset.cid, "--gateway", url, "--budget", "1MB") as process:
            assert eventually(lambda: any("spool/" in name for name in shell.files()))
            assert interrupt(process) == (130, "interrupted\n")
    assert shell.files() == []


def test_serve(shell: Shell, dataset: Dataset) -> None:
    """While it serves."""
    with shell.start("serve", "--store", dataset.store, "--port", 0) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}/ipfs/{dataset.cid}?format=raw", timeout=PATIENCE_S) as answer:  # noqa: S310 - our own URL
            assert answer.status == 200
        assert interrupt(process) == (130, "interrupted\n")


def test_upload(shell: Shell, tmp_path: Path) -> None:
    """Half way through: the store holds nothing of it."""
    np.save(tmp_path / "t.npy", np.arange(16 * 2**20))
    with shell.start("upload", tmp_path / "t.npy", "--batch-size", 1000, "--store", tmp_path / "store") as process:
        assert eventually(lambda: any((tmp_path / "store").rglob("*/*/*")))
        assert interrupt(process) == (130, "interrupted\n")
    left = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
    assert [path.name for path in left if path.stat().st_size > 1000] == []
    assert not any((tmp_path / "store" / "roots").iterdir())


def test_upload_while_a_table_is_read(shell: Shell, tmp_path: Path) -> None:
    """In the middle of the first pass over a CSV, which is seen on a terminal: it ends at once, and no store is made."""
    with (tmp_path / "t.csv").open("w", encoding="utf-8") as file:
        file.write("a,b\n")
        file.writelines(f"{i},word {i}\n" for i in range(1_000_000))
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "dnc_async", "upload", tmp_path / "t.csv", "--store", tmp_path / "store"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=shell.environment) as process:
        os.close(theirs)
        said = b""
        while b"MB read" not in said:
            said += os.read(ours, 1024)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) == 130
    while b"interrupted" not in said:
        said += os.read(ours, 1024)
    os.close(ours)
    assert b"divided" not in said
    assert not (tmp_path / "store").exists()
