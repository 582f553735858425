"""``dnc stream --report`` saves a report, ``dnc report`` shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..conftest import Shell, interrupt
from .conftest import BATCH, SAMPLES, Dataset

#: What ``dnc stream --json`` has said at its end from its first version on.
KEYS = {
    "batches",
    "samples",
    "budget_bytes",
    "peak_leased_bytes",
    "peak_disk_bytes",
    "fetched_bytes",
    "blocks_rejected",
    "requests_failed",
    "first_batch_s",
    "waited_s",
    "elapsed_s",
    "causes",
    "gateways",
}


@pytest.fixture
def saved(shell: Shell, dataset: Dataset, tmp_path: Path) -> Path:
    shell("stream", *dataset.here, "--budget", "1MB", "--report", tmp_path / "run.json")
    return tmp_path / "run.json"


def test_saved_is_what_was_said(shell: Shell, dataset: Dataset, tmp_path: Path) -> None:
    """The last line's object and the file hold the same; the keys of old are there."""
    path = tmp_path / "run.json"
    done = shell("stream", *dataset.here, "--json", "--report", path)
    said = json.loads(done.stdout.splitlines()[-1])["report"]
    assert said == json.loads(path.read_text())
    assert set(said) >= KEYS
    assert json.loads(shell("report", path, "--json").stdout) == said


def test_shown(shell: Shell, saved: Path) -> None:
    """As text, the same as at the end of the run."""
    said = shell("report", saved).stdout
    assert f"{SAMPLES // BATCH} batches, {SAMPLES:,} samples" in said
    assert "idle" in said


def test_page_and_picture(shell: Shell, saved: Path, tmp_path: Path) -> None:
    """Both are written, and named."""
    done = shell("report", saved, "--html", tmp_path / "run.html", "--plot", tmp_path / "run.png")
    assert (done.stdout, done.stderr) == (f"{tmp_path / 'run.html'}\n{tmp_path / 'run.png'}\n", "")
    assert (tmp_path / "run.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_interrupted_run_is_saved(shell: Shell, dataset: Dataset, tmp_path: Path) -> None:
    """Ctrl-C in a run without an end in sight."""
    path = tmp_path / "run.json"
    with shell.start("stream", *dataset.here, "--epochs", 100_000, "--json", "--report", path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()
        assert interrupt(process)[0] == 130
    assert json.loads(path.read_text())["batches"] >= 2


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        (None, "cannot be read"),
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "expected a gap report"),
        (b'{"report_version": 1}', "'dataset' is missing"),
        (b'{"report_version": 9}', "got 9"),
    ],
)
def test_bad_files(shell: Shell, tmp_path: Path, content: bytes | None, culprit: str) -> None:
    """One line that names the file."""
    path = tmp_path / "run.json"
    if content is not None:
        path.write_bytes(content)
    said = shell.refuses("report", path)
    assert str(path) in said
    assert culprit in said


def test_bad_targets(shell: Shell, saved: Path, dataset: Dataset, tmp_path: Path) -> None:
    """A folder that is missing is named, before the run where it can be; so is a picture of no known format."""
    nowhere = tmp_path / "nowhere" / "x"
    assert str(nowhere) in shell.refuses("stream", *dataset.here, "--report", nowhere, status=2)
    assert str(nowhere) in shell.refuses("report", saved, "--html", nowhere)
    assert ".png" in shell.refuses("report", saved, "--plot", tmp_path / "run.bmp", status=2)
