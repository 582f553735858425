"""Bad input in the shell: one line that names the culprit and says what to do, the right exit status, nothing left."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from ..conftest import NOBODY, Shell
from .conftest import Dataset


def test_no_gateway_answers(shell: Shell, dataset: Dataset) -> None:
    """Each gateway that was asked, and what it said; one line for each."""
    done = shell("stream", dataset.cid, "--gateway", NOBODY, "--gateway", "http://127.0.0.1:10", status=1)
    assert done.stdout == ""
    first, *causes = done.stderr.splitlines()
    assert dataset.cid in first
    assert [NOBODY in causes[0], "http://127.0.0.1:10" in causes[1]] == [True, True]
    assert shell.files() == []


@pytest.mark.parametrize("cid", ["nonsense", "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzd0", ""])
def test_wrong_cid(shell: Shell, cid: str) -> None:
    """It is shown as it was given."""
    assert cid in shell.refuses("stream", cid)


def test_not_a_dataset(shell: Shell, dataset: Dataset) -> None:
    """The directory of the chunks is no dataset itself."""
    said = shell.refuses("inspect", f"{dataset.cid}/chunks", *dataset.here[1:])
    assert f"{dataset.cid}/chunks is not a dataset" in said
    assert "dnc.upload()" in said


def test_budget_too_small(shell: Shell, dataset: Dataset) -> None:
    """The smallest that works is named, and works."""
    said = shell.refuses("stream", *dataset.here, "--budget", "5kB")
    found = re.search(r"smallest budget that works is (\d+) bytes", said)
    assert found
    smallest = found[1]
    shell.refuses("stream", *dataset.here, "--budget", int(smallest) - 1)
    shell("stream", *dataset.here, "--budget", smallest)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, "'x' has 3, 'y' has 4"),
        ({"x": np.zeros((0, 2))}, "no samples"),
        ({"x": np.zeros(3, dtype=[("a", "i4")])}, "column 'x': dtype"),
    ],
)
def test_sources(shell: Shell, tmp_path: Path, arrays: dict[str, np.ndarray], expected: str) -> None:
    """The column is named; no store is made."""
    np.savez(tmp_path / "t.npz", **arrays)
    assert expected in shell.refuses("upload", tmp_path / "t.npz")
    assert shell.files() == []


def test_files(shell: Shell, tmp_path: Path) -> None:
    """A file that is missing, of no known format, not what its name says, and a ragged table."""
    assert "nothing.npz" in shell.refuses("upload", "nothing.npz")
    (tmp_path / "t.xyz").write_bytes(b"x")
    assert ".npz" in shell.refuses("upload", tmp_path / "t.xyz")
    (tmp_path / "t.npy").write_bytes(b"x")
    assert "t.npy" in shell.refuses("upload", tmp_path / "t.npy")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3\n", encoding="utf-8")
    said = shell.refuses("upload", tmp_path / "t.csv")
    assert "t.csv" in said
    assert "line 3" in said
    (tmp_path / "images").mkdir()
    said = shell.refuses("upload", tmp_path / "images")
    assert "is empty" in said
    assert "is a device" in shell.refuses("upload", "/dev/null")
    assert shell.files() == []


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        (["upload", "{table}", "--batch-size", "0"], "--batch-size: "),
        (["upload", "{table}", "--chunk-bytes", "much"], "--chunk-bytes: "),
        (["upload", "{table}", "--to", "mars"], "--to: "),
        (["stream", "{cid}", "--budget", "-1"], "--budget: "),
        (["stream", "{cid}", "--epochs", "0"], "--epochs: "),
        (["stream", "{cid}", "--gateway", "ftp://x"], "--gateway: "),
        (["serve", "--store", "{store}", "--fault", "nonsense=1"], "nonsense"),
        (["demo", "--budget", "much"], "much"),
        (["demo", "--batch-size", "0"], "batch"),
        (["stream", "{cid}", "--epochs", "1_000"], "--epochs: expected a whole number, got '1_000'"),
        (["stream", "{cid}", "--epochs", "9" * 5000], "--epochs: expected a whole number, got '999"),
        (["upload", "{table}", "--batch-size", "٣"], "--batch-size: expected a whole number"),
        (["upload", "{table}", "--batch-size", " 5"], "--batch-size: expected a whole number"),
        (["demo", "--seed", "1.5"], "--seed: expected a whole number"),
        (["serve", "--port", "9" * 5000], "--port: expected 0 to 65535"),
        (["stream", "{cid}", "--report", "x/" * 3000 + "run.json"], "run.json: there is no such folder"),
    ],
)
def test_wrong_arguments(shell: Shell, tmp_path: Path, dataset: Dataset, words: list[str], culprit: str) -> None:
    """Exit status 2, as for any wrong usage."""
    np.save(tmp_path / "t.npy", np.zeros((8, 2)))
    named = {"table": tmp_path / "t.npy", "cid": dataset.cid, "store": dataset.store}
    done = shell(*(word.format(**named) for word in words), status=2)
    assert done.stdout == ""
    assert culprit in done.stderr.splitlines()[-1]
    assert shell.files() == []


def test_folders_that_are_files(shell: Shell, tmp_path: Path, dataset: Dataset) -> None:
    """A store or spool folder that is a file is named."""
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    np.save(tmp_path / "t.npy", np.zeros((8, 2)))
    assert str(file) in shell.refuses("upload", tmp_path / "t.npy", "--store", file)
    assert str(file) in shell.refuses("serve", "--store", file, "--port", 0)
    assert str(file) in shell.refuses("stream", *dataset.here, "--spool-dir", file)
    assert str(file) in shell.refuses("stream", *dataset.here, "--spool-dir", file / "below")
    assert file.read_text(encoding="utf-8") == "mine"


def test_port_in_use(shell: Shell, dataset: Dataset) -> None:
    """The address that is taken is named."""
    with shell.start("serve", "--store", dataset.store, "--port", 0) as process:
        assert process.stdout is not None
        port = process.stdout.readline().strip().rpartition(":")[2]
        assert port in shell.refuses("serve", "--store", dataset.store, "--port", port, status=2)
    assert "65535" in shell("serve", "--port", 65536, status=2).stderr


@pytest.mark.skipif(sys.platform == "win32", reason="folders in use can be removed on POSIX alone")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["get", "{cid}/manifest", "-o", "m"], "m: the working directory is gone"),
        (["get", "{cid}/manifest"], "manifest: the working directory is gone"),
        (["get", "{cid}/manifest", "-o", "{store}/../there"], ""),
        (
            ["stream", "{cid}", "--spool-dir", "spool"],
            "--spool-dir: 'spool' is relative, and the working directory is gone",
        ),
        (["stream", "{cid}"], ""),
        (["verify", "--store", "rel"], "--store: 'rel' is relative, and the working directory is gone"),
    ],
)
def test_a_working_directory_that_is_gone(shell: Shell, dataset: Dataset, words: list[str], said: str) -> None:
    """What is named in full works; a relative name is told."""
    named = [word.format(cid=dataset.cid, store=dataset.store) for word in words]
    if "--store" not in named:
        named += ["--store", str(dataset.store)]
    (shell.home / "gone").mkdir()
    program = "import os, sys; os.chdir('gone'); os.rmdir('../gone'); from dnc_async.cli import main; sys.exit(main())"
    done = shell.python("-P", "-c", program, *named)  # the interpreter itself fails where it looks for modules there
    assert "Traceback" not in done.stderr
    assert (done.returncode == 0) is (said == ""), done.stderr
    assert said in done.stderr
    assert shell.files() == []
