"""What the commands print where all is well: results on stdout, talk on stderr."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ..conftest import PATIENCE_S, Shell
from .conftest import BATCH, SAMPLES, Dataset


@pytest.fixture
def table(tmp_path: Path, dataset: Dataset) -> Path:
    np.savez(tmp_path / "table.npz", **dataset.rows)
    return tmp_path / "table.npz"


def test_upload_ends_with_the_cid(shell: Shell, table: Path, dataset: Dataset) -> None:
    """The last line is the CID alone, the same as from Python; what else is to say goes to stderr."""
    done = shell("upload", table, "--batch-size", BATCH)
    assert done.stdout.splitlines()[-1] == dataset.cid
    assert f"{SAMPLES:,} samples in {SAMPLES // BATCH} batches" in done.stderr


def test_upload_says_what_was_understood(shell: Shell, tmp_path: Path) -> None:
    """Each column with its dtype and shape, and what deserves a look, on stderr; the CID stays alone."""
    (tmp_path / "t.csv").write_text("z,id\n1.5,007\n-,008\n", encoding="utf-8")
    done = shell("upload", tmp_path / "t.csv")
    assert len(done.stdout.splitlines()) == 1
    assert "  z: text\n  id: text\n" in done.stderr
    assert "column 'z' is text: line 3 has '-'" in done.stderr
    assert done.stderr.count("column 'id' is text, as it is written: line 2 has '007'") == 1
    said = json.loads(shell("upload", tmp_path / "t.csv", "--json").stdout)
    assert said["columns"] == [["z", "text", []], ["id", "text", []]]
    assert (said["structure"], len(said["notes"])) == ("dict", 2)
    np.save(tmp_path / "t.npy", np.zeros((3, 4, 5), "f2"))
    assert "  t.npy: <f2[4, 5]\n" in shell("upload", tmp_path / "t.npy").stderr


def test_upload_json(shell: Shell, table: Path, dataset: Dataset, tmp_path: Path) -> None:
    """One object, whose fields are those of an UploadResult."""
    said = json.loads(shell("upload", table, "--batch-size", BATCH, "--store", tmp_path / "s", "--json").stdout)
    assert said["cid"] == dataset.cid
    assert (said["samples"], said["batches"]) == (SAMPLES, SAMPLES // BATCH)
    assert said["size_bytes"] > sum(array.nbytes for array in dataset.rows.values())
    assert str(tmp_path / "s") in said["target"]


def test_upload_into_the_users_store(shell: Shell, table: Path) -> None:
    """Without --store it is the user's own, where inspect and stream find it without a gateway, and leave no trace."""
    cid = shell("upload", table, "--chunk-bytes", "50kB").stdout.split()[-1]
    assert (shell.home / "data" / "dnc_async" / "store" / "roots" / cid).exists()
    before = shell.files()
    assert f"{SAMPLES:,} samples" in shell("inspect", cid).stdout
    shell("stream", cid)
    assert shell.files() == before


def test_stream(shell: Shell, dataset: Dataset) -> None:
    """A line for each batch, then the report; nothing on stderr."""
    done = shell("stream", *dataset.here, "--budget", "1MB")
    lines = done.stdout.splitlines()
    assert len([line for line in lines if re.search(rf"\b{BATCH} samples", line)]) == SAMPLES // BATCH, done.stdout
    assert f"{SAMPLES // BATCH} batches" in done.stdout
    assert done.stderr == ""


def test_stream_goes_on(shell: Shell, dataset: Dataset, tmp_path: Path) -> None:
    """From a checkpoint that an earlier run left: its lines have the numbers that they would have had."""
    path, batches = tmp_path / "run.json", SAMPLES // BATCH
    shell("stream", *dataset.here, "--checkpoint", path)
    state = json.loads(path.read_bytes())
    path.write_text(json.dumps(state | {"epoch": 0, "position": SAMPLES - 2 * BATCH}))
    done = shell("stream", *dataset.here, "--checkpoint", path, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["batch"] for row in rows if "batch" in row] == [batches - 2, batches - 1]
    assert json.loads(path.read_bytes()) == state


@pytest.mark.parametrize("budget", ["1MB", "0"])
def test_stream_json(shell: Shell, dataset: Dataset, budget: str) -> None:
    """Each line is an object: the batches in order, then the report."""
    done = shell("stream", *dataset.here, "--budget", budget, "--epochs", 2, "--json")
    *rows, last = [json.loads(line) for line in done.stdout.splitlines()]
    count = 2 * SAMPLES // BATCH
    assert [row["batch"] for row in rows] == list(range(count))
    assert {row["samples"] for row in rows} == {BATCH}
    assert all(row["waited_s"] >= 0 for row in rows)
    assert last["report"]["batches"] == count
    assert last["report"]["waited_s"] == pytest.approx(sum(row["waited_s"] for row in rows))


def test_inspect_json(shell: Shell, dataset: Dataset) -> None:
    """The schema, and how much there is."""
    said = json.loads(shell("inspect", *dataset.here, "--json").stdout)
    assert (said["samples"], said["batches"], said["batch_size"]) == (SAMPLES, SAMPLES // BATCH, BATCH)
    assert said["structure"] == "dict"
    assert said["columns"] == [["x", "<f4", [40]], ["y", "<i8", []]]


@pytest.mark.parametrize("form", ["ipfs://{}", "/ipfs/{}", "{}/", " {}"])
def test_ways_to_write_a_cid(shell: Shell, dataset: Dataset, form: str) -> None:
    """As people copy them."""
    _, *here = dataset.here
    assert f"{SAMPLES:,} samples" in shell("inspect", form.format(dataset.cid), *here).stdout


def test_reader_has_seen_enough(shell: Shell, dataset: Dataset) -> None:
    """``dnc stream … | head -1`` ends without a word."""
    with shell.start("stream", *dataset.here, "--epochs", 1000, "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["batch"] == 0
        process.stdout.close()
        process.wait(timeout=PATIENCE_S)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert shell.files() == []


def test_help_and_version(shell: Shell) -> None:
    """Each command explains itself."""
    listed = shell("--help").stdout
    for command in ("demo", "upload", "stream", "inspect", "serve"):
        assert command in listed
        assert "--" in shell(command, "--help").stdout
    assert re.fullmatch(r"dnc-async \S+\n", shell("--version").stdout)


def test_serve(shell: Shell, dataset: Dataset) -> None:
    """The first line is the URL, which works when it is printed; --json gives it as an object."""
    for words in ([], ["--json"]):
        with shell.start("serve", "--store", dataset.store, "--port", 0, *words) as process:
            url = first_line(process)
            url = json.loads(url)["url"] if words else url
            done = shell("stream", dataset.cid, "--gateway", url, "--json")
            assert json.loads(done.stdout.splitlines()[-1])["report"]["batches"] == SAMPLES // BATCH


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
